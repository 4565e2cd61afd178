"""Import the libraries once, then fork for every process that is asked for.

``python -m tests.forked.server FOLDER NUMBER OWNER`` answers relays at the socket FOLDER/NUMBER until the process OWNER
is gone. For each it forks twice: into a keeper, which passes on signals and the exit status, and what was asked for.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any

LIBRARIES = """
    accelerate accelerate.commands.launch datasets evaluate huggingface_hub numpy pandas peft rich.progress rich.table
    scipy.stats seqeval.metrics sklearn.metrics torch torch.distributed.fsdp torch.distributed.launcher.api
    torch.profiler torch.utils.checkpoint transformers.models.auto transformers.models.bert.modeling_bert
    transformers.trainer typer
"""


def main(place: str, number: str, owner: int) -> None:
    """Import, then serve."""
    load()
    gc.collect()
    gc.freeze()  # so that children share it
    known = read_at_import(os.environ)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are waited for by nobody
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}/{number}.made")
    listener.listen()
    os.rename(f"{place}/{number}.made", f"{place}/{number}")
    listener.settimeout(2)
    while is_alive(owner):
        try:
            talk, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            keep(talk, known)
        talk.close()
    shutil.rmtree(place, ignore_errors=True)
    os.killpg(0, signal.SIGTERM)  # who is left over, too


def load() -> None:
    """Import the libraries and all of nlp_mtl but what is run as a program."""
    import nlp_mtl

    for name in LIBRARIES.split():
        importlib.import_module(name)
    for module in pkgutil.walk_packages(nlp_mtl.__path__, "nlp_mtl."):
        if module.name != "nlp_mtl.cli" and not module.name.startswith(("nlp_mtl.serving", "nlp_mtl.exporting")):
            importlib.import_module(module.name)


def is_alive(process: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def read_at_import(env: Any) -> dict[str, str]:
    """What libraries read when they are imported: who asks for other values is sent away."""
    names = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "PYTHON")
    free = ("PYTHONPATH", "PYTHONUTF8", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_TELEMETRY")  # no test looks at these
    return {name: value for name, value in env.items() if name.startswith(names) and name not in free}


def keep(talk: socket.socket, known: dict[str, str]) -> None:
    """Start what is asked for, pass signals on to it, and say how it ended; with nobody to tell, it is ended."""
    signal.signal(signal.SIGCHLD, lambda *given: None)
    ended, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    length, files, *_ = socket.recv_fds(talk, 8, 250)
    said = b""
    while len(said) < int.from_bytes(length, "big"):
        said += talk.recv(1 << 20)
    asked = json.loads(said)
    given = read_at_import(asked["env"])
    if given != known:
        names = [name for name in sorted({*given, *known}) if given.get(name) != known.get(name)]
        print(f"not here, for {', '.join(names)}: {asked['words'][:3]}", flush=True)
        talk.sendall(b"not here")
        os._exit(0)
    process = os.fork()
    if process == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for file in (ended, told, talk.detach()):
            os.close(file)
        be(asked, files)
    for file in files:
        os.close(file)
    while True:
        ready, _, _ = select.select([talk, ended], [], [])
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            talk.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
        if talk in ready:
            sent = talk.recv(1)
            os.kill(process, sent[0] if sent else signal.SIGKILL)
            if not sent:
                os._exit(0)
        elif ended in ready:
            os.read(ended, 100)


def be(asked: dict[str, Any], files: list[int]) -> None:
    """Become the process that is asked for, and end."""
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 300) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(high, asked["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    import numpy as np

    np.random.seed()  # `random` does this by itself
    code = 0
    try:
        run(asked["words"], asked["env"].get("PYTHONPATH", ""))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as at the end of an interpreter: wait for threads, then
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 255)


def run(words: list[str], paths: str) -> None:
    """What ``python WORDS`` does: a module, code, or a file."""
    first, *rest = words
    beside = os.getcwd() if first in ("-m", "-c") else str(Path(first).resolve().parent)
    own = str(Path(__file__).resolve().parents[2])
    asked = [path for path in paths.split(os.pathsep) if path]
    sys.path[:] = [beside, *asked, *(path for path in sys.path if path not in (own, ""))]
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        sys.argv = words
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
