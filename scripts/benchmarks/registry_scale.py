"""Scale of the registry: seconds of `nlp-mtl tasks list` with 1 000 more task files, and of one name among them.

python scripts/benchmarks/registry_scale.py [FILES]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROUNDS = 7
FRAGMENT = """\
head: sequence_classification
dataset: {{path: own/suite_{suite}, mirrors: [suite_{suite}]}}
inputs: [text]
target: label
labels: [negative, neutral, positive, mixed]
metrics: [f1_macro, accuracy]
tags: [suite_{suite}, sentiment]
license: cc-by-4.0
citation: "A. Author and B. Author, 2024, A corpus of number {suite}"
verified: documentation
splits: {{train: train, validation: dev, test: test}}
"""
TASK = """\
include: _suite.yaml
name: task_{number}
description: What does review {number} of suite {suite} say of the thing it is about?
dataset: {{name: part_{number}}}
language: {language}
rows: {{train: 16000}}
version: 1
examples:
  - {{text: "Came on time and does what it should, number {number}.", label: positive}}
  - {{text: "It broke on the first day, and nobody answered.", label: negative}}
  - {{text: "Blue, as shown.", label: neutral}}
"""
NAMED = """
import time
from nlp_mtl.taskreader import ParsedTask
from nlp_mtl.tasks import load_tasks

checked, plain = [], ParsedTask.checked
ParsedTask.checked = lambda self: (checked.append(self.file), plain(self))[1]
began = time.perf_counter()
(task,) = load_tasks("task_7")
print(round(time.perf_counter() - began, 3), len(checked))
"""


def main() -> None:
    """Measure, print, record."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    tool = [sys.executable, "-m", "nlp_mtl.cli"]
    result: dict = {"command": "python scripts/benchmarks/registry_scale.py", "files": files, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), files)
        plain = {name: value for name, value in os.environ.items() if name != "NLP_MTL_REGISTRY"}
        more = {**plain, "NLP_MTL_REGISTRY": folder}
        result["nlp-mtl tasks list, built-in tasks only"] = measure([*tool, "tasks", "list"], plain)
        result[f"nlp-mtl tasks list, {files} more files"] = measure([*tool, "tasks", "list"], more)
        done = subprocess.run([sys.executable, "-c", NAMED], env=more, capture_output=True, text=True, check=True)
        seconds, checked = done.stdout.split()
        result["load_tasks of one name among them"] = {"seconds": float(seconds), "files checked": int(checked)}
        (Path(folder) / "suite_0" / "broken.yaml").write_text("name: [\n", encoding="utf-8")
        done = subprocess.run([*tool, "tasks", "list"], env=more, capture_output=True, text=True)
        shown = sum(line.startswith("task_") for line in done.stdout.splitlines())
        told = "broken.yaml:2: not valid YAML" in done.stderr
        result["with a broken file"] = {"shown": shown, "told": told, "exit code": done.returncode}
    (HERE / "recorded" / "registry_scale.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def write(folder: Path, files: int) -> None:
    """Task files of the usual size, twenty to a sub-folder with a fragment of its own."""
    for number in range(files):
        place = folder / f"suite_{number // 20}"
        if not place.is_dir():
            place.mkdir()
            (place / "_suite.yaml").write_text(FRAGMENT.format(suite=number // 20), encoding="utf-8")
        said = TASK.format(number=number, suite=number // 20, language=("en", "de", "fr")[number % 3])
        (place / f"task_{number}.yaml").write_text(said, encoding="utf-8")


def measure(command: list[str], env: dict[str, str]) -> dict[str, float]:
    """Seconds of the whole process: on the clock, and of the processor (what a busy machine leaves as it is)."""
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    clock, processor = [], []
    for _ in range(ROUNDS):
        began, used = time.perf_counter(), cpu_seconds()
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
        clock.append(time.perf_counter() - began)
        processor.append(cpu_seconds() - used)
    return {
        "median_s": round(statistics.median(clock), 3),
        "max_s": round(max(clock), 3),
        "processor_s": round(statistics.median(processor), 3),
    }


def cpu_seconds() -> float:
    """Of all processes started from here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
