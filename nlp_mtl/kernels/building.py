"""The kernels' C source, compiled once by the machine's own compiler and kept in the cache folder.

Without a compiler, or with ``NLP_MTL_KERNELS=off``, everything runs on plain torch: slower, and otherwise the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from nlp_mtl.errors import ConfigError
from nlp_mtl.paths import cache_folder

SWITCH = "NLP_MTL_KERNELS"
SOURCE = Path(__file__).with_name("fused.c")
_FLAGS = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_i, _p, _d, _u = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double, ctypes.c_uint64
_attention = [_i, _i, _p, _p, _i, _i, _p, _i, _p, _i, _p, _i, _d, _i, _i, _i, _d, _u]
_SIGNATURES: dict[str, tuple[list[type], type | None]] = {
    "gelu_forward": ([_i, _i, _i, _p, _p, _p], None),
    "gelu_backward": ([_i, _i, _i, _p, _p, _p, _p, _p], None),
    "norm_forward": ([_i, _i, _i, _p, _p, _p, _p, _p, _d, _i, _d, _u, _p, _p, _p, _p], None),
    "norm_backward": ([_i, _i, _i, _p, _p, _p, _p, _p, _i, _d, _u, _p, _p, _p], None),
    "attention_forward": ([*_attention, _p, _p], _i),
    "attention_backward": ([*_attention, _p, _p, _p, _p, _p, _i], _i),
    "threads": ([], _i),
}


_off: ContextVar[bool] = ContextVar("nlp_mtl_kernels_off", default=False)
_refused: list[str] = []


def library() -> ctypes.CDLL | None:
    """The compiled kernels, built at the first call; None where they can't be had or are switched off."""
    return None if _off.get() or _refused else _load()[0]


def state() -> str:
    """One sentence for the log: whether the kernels are used, and if not, why and what to do."""
    return f"fused CPU kernels: off ({_refused[0]})" if _refused else _load()[1]


def refuse(why: str) -> None:
    """Do without the kernels from now on: what they gave was wrong on this machine."""
    _refused.append(why)


@contextmanager
def switched_off() -> Iterator[None]:
    """Plain torch inside this block, to compare with.

    Example:
        >>> with switched_off():
        ...     library() is None
        True
    """
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str]:
    said = os.environ.get(SWITCH, "auto")
    if said not in ("auto", "off", "on"):
        raise ConfigError(f"{SWITCH} is auto, on or off, found {said!r}; leave it out for auto")
    if said == "off":
        return None, f"fused CPU kernels: off ({SWITCH}=off)"
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(compiler[0]) or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        why = "no C compiler found; install one (Debian: apt install gcc) and it is faster"
    else:
        loaded, why = _built([found, *compiler[1:]])
        if loaded is not None:
            return loaded, f"fused CPU kernels: on ({why})"
    if said == "on":
        raise ConfigError(f"{SWITCH}=on, but the kernels can't be built: {why}; leave it out to go on without them")
    return None, f"fused CPU kernels: off ({why})"


def _built(compiler: list[str]) -> tuple[ctypes.CDLL | None, str]:
    import torch  # noqa: F401 - its OpenMP library comes first, so that ours is the same one

    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    flags = [*_FLAGS, *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]
    key = hashlib.sha256()
    for part in (SOURCE.read_bytes(), version.encode(), " ".join([*compiler, *flags]).encode(), _processor().encode()):
        key.update(hashlib.sha256(part).digest())
    file = cache_folder() / "kernels" / f"fused-{key.hexdigest()[:16]}.so"
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent) as work:
                made = Path(work) / file.name
                command = [*compiler, *flags, "-o", str(made), str(SOURCE), "-lm"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    last = (done.stderr.strip() or "no message").splitlines()[-1]
                    return None, f"{version or compiler[0]} failed: {last[:120]}"
                os.replace(made, file)  # whole or not there, also with several processes
        loaded = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{type(error).__name__}: {str(error)[:120]}"
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded, version


def _processor() -> str:
    """What `-march=native` depends on: a cache folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
