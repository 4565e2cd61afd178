"""What is called in the place of Python: hand everything to a server, pass signals on, end as the other process ends.

Standard library only, and little of it: this is started anew every time.
"""

import json
import os
import signal
import socket
import sys
import time


def main(place: str, words: list[str]) -> None:
    """Run the words elsewhere, or here where they or the environment ask for what a fork can't give."""
    if not words or (words[0].startswith("-") and words[0] not in ("-m", "-c")):
        os.execv(sys.executable, [sys.executable, *words])
    talk = connected(f"{place}/{int(os.environ.get('LOCAL_RANK', '0')) % 2}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda sent, frame: talk.send(bytes([sent])))
    files = [int(name) for name in os.listdir("/dev/fd")]
    files = [file for file in files if file < 3 or is_passed_on(file)]
    said = json.dumps({"words": words, "env": dict(os.environ), "cwd": os.getcwd(), "files": files}).encode()
    socket.send_fds(talk, [len(said).to_bytes(8, "big")], files)
    talk.sendall(said)
    answer = talk.recv(100).decode()
    if answer == "not here":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *words])
    code = int(answer or "70")
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def connected(name: str) -> socket.socket:
    """A connection to the server, which may still be importing."""
    talk, deadline = socket.socket(socket.AF_UNIX), time.monotonic() + 120
    while True:
        try:
            talk.connect(name)
            return talk
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def is_passed_on(file: int) -> bool:
    """Whether it is open and meant for a program that is started."""
    try:
        return os.get_inheritable(file)
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
