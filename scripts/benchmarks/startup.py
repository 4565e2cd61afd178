"""Start-up: seconds of commands that train nothing, and what a second run tokenizes again (nothing).

python scripts/benchmarks/startup.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from registry_scale import measure

from nlp_mtl import packages

HERE = Path(__file__).resolve().parent
CODE = """
import time
from transformers import AutoTokenizer
from nlp_mtl import data, tokenizing
from nlp_mtl.bases import find_base
from nlp_mtl.heads import make_heads
from nlp_mtl.tasks import load_tasks

calls, plain = 0, tokenizing._tokenize_split

def counted(*given):
    global calls
    calls += 1
    return plain(*given)

tokenizing._tokenize_split = counted
heads = make_heads(load_tasks("quickstart"))
tokenizer = AutoTokenizer.from_pretrained(find_base("sentence-transformers/all-MiniLM-L6-v2").folder)
began = time.perf_counter()
data.load_data(heads, tokenizer, max_length=128)
print(calls, round(time.perf_counter() - began, 2))
"""


def main() -> None:
    """Measure, print, record."""
    tool = [sys.executable, "-m", "nlp_mtl.cli"]
    result: dict = {"command": "python scripts/benchmarks/startup.py"}
    for words in (["--help"], ["tasks", "list"], ["tasks", "show", "rte"]):
        result[" ".join(["nlp-mtl", *words])] = measure([*tool, *words], dict(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "packages").symlink_to(packages.cache_folder() / "packages")  # fetched before; tokenized anew
        env = {**os.environ, "NLP_MTL_CACHE": folder}
        command = [sys.executable, "-c", CODE]
        runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2)]
    for name, done in zip(("first run", "second run"), runs, strict=True):
        calls, seconds = done.stdout.split()[-2:]
        result[f"splits tokenized, {name}"] = {"splits": int(calls), "seconds": float(seconds)}
    (HERE / "recorded" / "startup.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
