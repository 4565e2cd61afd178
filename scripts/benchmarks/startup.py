"""Start-up: seconds of `nlp-mtl --help` and `nlp-mtl tasks list`, and what a second run tokenizes again (nothing).

python scripts/benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure, print, record."""
    tool = Path(sys.executable).parent / "nlp-mtl"
    result: dict = {"command": "python scripts/benchmarks/startup.py"}
    for words in (["--help"], ["tasks", "list"]):
        subprocess.run([tool, *words], stdout=subprocess.DEVNULL, check=True)
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([tool, *words], stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - began)
        result[" ".join(["nlp-mtl", *words])] = {
            "median_s": round(statistics.median(seconds), 3),
            "max_s": round(max(seconds), 3),
        }
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys, time\n"
            "from nlp_mtl.heads.base import Head\n"
            "from nlp_mtl.heads import token_classification, sequence_classification\n"
            "from nlp_mtl import data, model, packages\n"
            "from nlp_mtl.tasks import load_tasks\n"
            "from transformers import AutoTokenizer\n"
            "from nlp_mtl.bases import find_base\n"
            "calls = 0\n"
            "plain = data._tokenize_split\n"
            "def counted(*a, **k):\n    global calls\n    calls += 1\n    return plain(*a, **k)\n"
            "data._tokenize_split = counted\n"
            "heads = model.make_heads(load_tasks('quickstart'))\n"
            "tokenizer = AutoTokenizer.from_pretrained(find_base('sentence-transformers/all-MiniLM-L6-v2').folder)\n"
            "began = time.perf_counter()\n"
            "data.load_data(heads, tokenizer, max_length=int(sys.argv[1]))\n"
            "print(calls, round(time.perf_counter() - began, 2))\n"
        )
        length = str(97)  # a length no run uses, so that the first call really tokenizes
        runs = [
            subprocess.run([sys.executable, "-c", code, length], capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
    for name, done in zip(("first run", "second run"), runs, strict=True):
        calls, seconds = done.stdout.split()[-2:]
        result[f"splits tokenized, {name}"] = {"splits": int(calls), "seconds": float(seconds)}
    (HERE / "recorded" / "startup.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
