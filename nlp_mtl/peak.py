"""The most memory that something needs while it runs."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """The most memory in use between :meth:`begin` and :meth:`end`.

    On a GPU, what torch reserved there; on a CPU, the resident memory of this process, looked at every so often where
    the system tells it (Linux), else the most since the process began (other Unix).

    Args:
        device: where it runs.
        every: seconds between two looks.
    """

    def __init__(self, device: torch.device, every: float = 0.01):
        self._device, self._every, self._stop = device, every, threading.Event()
        self._thread: threading.Thread | None = None
        self.peak: int | None = None

    @property
    def how(self) -> str:
        """In words."""
        if self._device.type == "cuda":
            return f"the most that torch reserved on {self._device}"
        return "the most resident memory of this process, libraries included"

    def begin(self) -> None:
        """Start looking."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what was done before is no part of it
            torch.cuda.reset_peak_memory_stats(self._device)
        elif (now := resident()) is not None:
            self.peak = now
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(self._every):
            self.peak = max(self.peak or 0, resident() or 0)

    def end(self) -> None:
        """Stop looking; `peak` is in bytes."""
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_reserved(self._device)
        elif self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        elif self.peak is None:
            self.peak = most_so_far()


def resident() -> int | None:
    """Bytes of this process in memory; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def most_so_far() -> int | None:
    """Bytes that this process had in memory at most since it began; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)
