"""The kernels' C source, compiled once by the machine's own compiler and kept in the cache folder.

Without a compiler, or with ``NLP_MTL_KERNELS=off``, everything runs on plain torch: slower, and otherwise the same.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
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
SOURCE = Path(__file__).with_name("source")  # a folder
_FLAGS = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_i, _p, _d, _u = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double, ctypes.c_uint64
_attention = [_i, _i, _p, _p, _i, _i, _p, _i, _p, _i, _p, _i, _d, _i, _i, _i, _d, _u]
_lowrank = [_i, _i, _p, _i, _i, _i, _i]
_SIGNATURES: dict[str, tuple[list[type], type | None]] = {
    "gelu_forward": ([_i, _i, _i, _p, _p, _p, _p], None),
    "gelu_backward": ([_i, _i, _i, _p, _p, _p, _p], None),
    "norm_forward": ([_i, _i, _i, _p, _p, _p, _p, _p, _d, _i, _d, _u, _p, _p, _p, _p], None),
    "norm_backward": ([_i, _i, _i, _p, _p, _p, _p, _p, _i, _d, _u, _p, _p, _p, _i], None),
    "attention_forward": ([*_attention, _p, _p], _i),
    "attention_backward": ([*_attention, _p, _p, _p, _p, _p, _i], _i),
    "adamw": ([_i, _p, _p, _d], None),
    "squares": ([_i, _p], _d),
    "column_sums": ([_i, _i, _i, _p, _p], None),
    "lowrank_forward": ([*_lowrank, _p, _p, _d, _p, _i, _p, _i, _p, _p], None),
    "lowrank_backward": ([*_lowrank, _p, _d, _p, _i, _p, _i, _i, _p, _p, _p, _p, _p, _p, _p], None),
    "gramian": ([_i, _i, _i, _p, _i, _p, _p], None),
    "weighted_sum": ([_i, _i, _i, _p, _i, _p, _p], None),
    "threads": ([], _i),
}


_off: ContextVar[bool] = ContextVar("nlp_mtl_kernels_off", default=False)
_refused: list[str] = []


def compiled() -> ctypes.CDLL | None:
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
        ...     compiled() is None
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
    try:
        loaded, why = _built()
    except (OSError, ValueError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        loaded, why = None, f"{type(error).__name__}: {str(error)[:120]}"
    if loaded is not None:
        return loaded, f"fused CPU kernels: on ({why})"
    if said == "on":
        raise ConfigError(f"{SWITCH}=on, but the kernels can't be built: {why}; leave it out to go on without them")
    return None, f"fused CPU kernels: off ({why})"


def _built() -> tuple[ctypes.CDLL | None, str]:
    """The library and the compiler's version; or None, and why."""
    import torch  # noqa: F401 - its OpenMP library comes first, so that ours is the same one

    named = shlex.split(os.environ.get("CC", ""))
    compiler = named if named and shutil.which(named[0]) else []
    compiler = compiler or [found for found in map(shutil.which, ("cc", "gcc", "clang")) if found][:1]
    if not compiler:
        return None, "no C compiler found; install one (Debian: apt install gcc) and it is faster"
    asked = subprocess.run([*compiler, "--version"], capture_output=True, text=True, errors="replace", timeout=20)
    version = asked.stdout.split("\n")[0] or compiler[0]
    command = [*compiler, *_FLAGS, *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]
    key = hashlib.sha256()
    files = sorted([*SOURCE.glob("*.h"), *SOURCE.glob("*.c")])
    for part in (
        *(file.read_bytes() for file in files),
        version.encode(),
        " ".join(command).encode(),
        _processor().encode(),
    ):
        key.update(hashlib.sha256(part).digest())
    name = f"fused-{key.hexdigest()[:16]}.so"
    folder = _folder()
    for kept in (True, False):  # a file that was damaged is made again
        if not (kept and (folder / name).is_file() and _ours(folder / name)):
            failed = _compile(command, folder / name)
            if failed:
                return None, f"{version} failed: {failed}"
        try:
            return _opened(folder / name), version
        except (OSError, AttributeError):
            if not kept:
                raise
    return None, version


def _folder() -> Path:
    """Where the library is kept; a folder for this process alone if nobody else may be trusted with that one."""
    try:
        folder = cache_folder() / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _ours(folder) and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # it can't be made, or there is no home
        pass
    made = tempfile.mkdtemp(prefix="nlp_mtl-kernels-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _ours(path: Path) -> bool:
    """Whether nobody but this user (or root) can have put something there: what is loaded is run."""
    state = path.lstat()
    own = not hasattr(os, "getuid") or state.st_uid in (os.getuid(), 0)
    return own and not stat.S_ISLNK(state.st_mode) and not state.st_mode & 0o022


def _compile(command: list[str], file: Path) -> str | None:
    """Make the library, whole or not at all, also with several processes; says what the compiler said if it failed."""
    with tempfile.TemporaryDirectory(dir=file.parent) as work:
        made = Path(work) / file.name
        done = subprocess.run(
            [*command, "-o", str(made), *map(str, sorted(SOURCE.glob("*.c"))), "-lm"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        if done.returncode:
            return (done.stderr.strip() or "no message").splitlines()[-1][:120]
        made.chmod(0o700)
        os.replace(made, file)
    return None


def _opened(file: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(file))
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded


def _processor() -> str:
    """What `-march=native` depends on: a cache folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
