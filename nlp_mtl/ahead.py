"""The next batches made in a thread, while the device computes the present one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """The items of an iterator in their order, of which a few are made before they are asked for.

    It is an iterator itself. What the other one raises is raised where the item is asked for. After its end, after an
    error and after :meth:`close` there is no thread left.

    Args:
        items: used by the thread alone from now on.
        most: items made and not yet asked for, at most.
        device: whose memory the thread may pin.

    Example:
        >>> list(Ahead(iter("abc")))
        ['a', 'b', 'c']
    """

    def __init__(self, items: Iterator[T], *, most: int = 2, device: torch.device | None = None):
        self.items, self._device = items, device
        self._made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._room, self._closed = threading.Semaphore(most), threading.Event()
        self._thread = threading.Thread(target=self._make, name="nlp_mtl-batches", daemon=True)
        self._thread.start()

    def _make(self) -> None:
        try:
            if self._device is not None and self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # a thread begins with the first one
            while not self._closed.is_set():
                self._room.acquire()
                if not self._closed.is_set():
                    self._made.put((next(self.items), None))
        except BaseException as error:
            self._made.put((None, error))

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        item, error = self._made.get()
        if error is not None:
            self.close()
            raise error
        self._room.release()
        return item

    def close(self) -> None:
        """Wait for the item being made, and end the thread."""
        self._closed.set()
        self._room.release()
        self._thread.join()
