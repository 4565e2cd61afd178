"""Start-up: seconds of commands that train nothing, what a second run tokenizes again, and a run's first step.

    python scripts/benchmarks/startup.py

From `nlp-mtl train` to its first step: seconds of the imports, until the model is made, until the rows are there, until
the first step begins; how often weights were read into an encoder (once), and what was asked of a network (nothing).
"""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from racing import environment
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

TRAIN = """
import os, sys, time
began, asked, loads = time.perf_counter(), [], []
sys.addaudithook(lambda event, of: asked.append(of) if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
    event == "socket.connect" and isinstance(of[1], tuple)) else None)
import transformers
from nlp_mtl import model
from nlp_mtl.run import train
from nlp_mtl.cli import builtin_run
marks = {"imports": time.perf_counter() - began}

def marked(name, call):
    def timed(*given, **more):
        out = call(*given, **more)
        marks.setdefault(name, time.perf_counter() - began)
        return out
    return timed

load = transformers.AutoModel.from_pretrained
transformers.AutoModel.from_pretrained = lambda *given, **more: loads.append(given) or load(*given, **more)
model.MultiTaskModel.from_base = marked("model", model.MultiTaskModel.from_base)
from nlp_mtl import trainer
trainer.load_data = marked("rows", trainer.load_data)

def first(*given, **more):
    marks["first step"] = time.perf_counter() - began
    print({**{k: round(v, 2) for k, v in marks.items()}, "loads": len(loads), "asked of a network": len(asked)})
    sys.stdout.flush()
    os._exit(0)

transformers.Trainer.training_step = first
train(builtin_run("quickstart"), [f"training.output_dir={sys.argv[1]}", "training.disable_tqdm=true"])
"""


def main() -> None:
    """Measure, print, record."""
    tool = [sys.executable, "-m", "nlp_mtl.cli"]
    result: dict = {"command": "python scripts/benchmarks/startup.py"}
    for words in (["--help"], ["tasks", "list"], ["tasks", "show", "rte"]):
        result[" ".join(["nlp-mtl", *words])] = measure([*tool, *words], environment())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "packages").symlink_to(packages.cache_folder() / "packages")  # fetched before; tokenized anew
        env = environment() | {"NLP_MTL_CACHE": folder}
        command = [sys.executable, "-c", CODE]
        runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2)]
        env = {name: value for name, value in env.items() if "OFFLINE" not in name}
        command = [sys.executable, "-c", TRAIN, str(Path(folder) / "run")]
        steps = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(3)]
    for name, done in zip(("first run", "second run"), runs, strict=True):
        calls, seconds = done.stdout.split()[-2:]
        result[f"splits tokenized, {name}"] = {"splits": int(calls), "seconds": float(seconds)}
    found = [ast.literal_eval(done.stdout.splitlines()[-1]) for done in steps]
    result["nlp-mtl train (quickstart), seconds until"] = {
        key: round(statistics.median(one[key] for one in found), 2) for key in found[0]
    }
    (HERE / "recorded" / "startup.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
