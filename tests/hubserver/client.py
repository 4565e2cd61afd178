"""The tests' side of the worker process, and rows in and out of a process without nlp_mtl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def fine(self) -> str:
        assert self.code == 0, self.err[-3000:]
        return self.out

    def refused(self) -> str:
        """The message of a refusal: never a traceback."""
        assert self.code == 2, (self.code, self.out, self.err[-3000:])
        assert "Traceback" not in self.err + self.out
        return self.err


def environment(endpoint: str, home: Path, cache: Path, token: str | None) -> dict[str, str]:
    """What a process needs to know of the test Hub."""
    env = {name: value for name, value in os.environ.items() if "OFFLINE" not in name and not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {
        "NLP_MTL_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    return env | ({"HF_TOKEN": token} if token else {})


class Worker:
    """One process for many commands, so that the libraries are imported once."""

    def __init__(self, env: dict[str, str], folder: Path):
        env = env | {"PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "tests.hubserver.worker"]
        self.process = subprocess.Popen(
            command, env=env, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, **asked: Any) -> Said:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Said(**json.loads(self.process.stdout.readline()))

    def cli(self, *words: object, token: str | None = "") -> Said:
        """A command; another token, or None for no token."""
        env = {} if token == "" else {"HF_TOKEN": token}
        return self._ask(cli=[str(word) for word in words], env=env)

    def code(self, text: str, token: str | None = "") -> Said:
        env = {} if token == "" else {"HF_TOKEN": token}
        return self._ask(code=text, env=env)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)
        if self.process.stdout:
            self.process.stdout.close()
