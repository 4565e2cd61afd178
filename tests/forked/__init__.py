"""A Python that starts with the libraries imported: for tests of processes, which else import for longer than they run.

`start` gives the path of a program that takes the place of ``sys.executable`` in a command line. It hands its words,
environment, folder and open files to a server that has the libraries imported, which forks; it passes signals on, and
ends as the process of its own that the words became. There are two servers, so that the first two processes of a
`torchrun` hash strings differently, as interpreters do.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def start(shared: Path, owner: int) -> str:
    """The path of the program; the servers are started by who asks first.

    Args:
        shared: a folder of all processes that run tests.
        owner: the servers end when this process has ended.
    """
    program = shared / "forked" / "python"
    try:
        program.parent.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 60
        while not program.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return str(program)
    place = tempfile.mkdtemp(prefix="forked-")  # short: the name of a socket has at most about a hundred letters
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
    for number in range(2):
        command = [sys.executable, "-m", "tests.forked.server", place, str(number), str(owner)]
        with (program.parent / f"server{number}.log").open("w") as log:
            subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    words = [sys.executable, "-I", "-S", str(HERE / "relay.py"), place]
    made = program.with_name("made")
    made.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    made.chmod(0o755)
    made.rename(program)
    return str(program)
