"""A process that uses the test Hub: `huggingface_hub` reads its address when it is imported, so not the tests' own.

``python -m tests.hubserver.worker`` reads a JSON line ``{"cli": [words]}`` or ``{"code": text}`` with ``env``, and
answers with one: exit code, standard output, standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
import traceback
from typing import Any


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked; environment and loggers are as before afterwards."""
    before, words = dict(os.environ), sys.argv
    for name, value in asked.get("env", {}).items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        logging.getLogger().handlers[:] = []
        try:
            if "cli" in asked:
                from nlp_mtl import cli

                sys.argv = ["nlp-mtl", *asked["cli"]]
                cli.main()
            else:
                exec(asked["code"], {"__name__": "asked"})
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except Exception:
            code = 1
            traceback.print_exc()
    os.environ.clear()
    os.environ.update(before)
    sys.argv = words
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def main() -> None:
    """Answer lines until there are no more."""
    import torch

    torch.set_num_threads(1)
    wait, time.sleep = time.sleep, lambda seconds: wait(min(seconds, 0.01))  # retries in earnest, without the waiting
    real = sys.stdout
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=real, flush=True)


if __name__ == "__main__":
    main()
