"""Verdicts whose answer is known before: real data, seeds 0 to 2, set here before anything was looked at.

    python scripts/benchmarks/known_verdicts.py --data-root DIR [--model FOLDER] [copies] [shuffled] [tiny] [six]

* copies: one task under two names. The verdict must find no negative transfer, and no difference between the two.
* shuffled: MRPC beside a task of the same texts with labels dealt anew. It must not be found to help.
* tiny: 200 rows of MRPC beside 800 of RTE and 800 of STS-B. What is found is shown
  with its interval, whatever it is.
* six: six tasks in one run, the best step by validation rows. What training together did to each, what the toolkit says
  to do, and whether following it helped on test rows: those of CoNLL, and for the others, whose test
  labels are not at hand, half of the validation rows, held out by a hash.

Runs are kept in runs/known (not in git) and not done again. Recorded in recorded/known_verdicts.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from verify import RECORDED, ROOT, data_root, model_folder

import nlp_mtl as mtl
from nlp_mtl.studies.statistics import interval
from nlp_mtl.tasks import load_tasks
from nlp_mtl.verdicts.judging import HURT

TRAINING = {
    "num_train_epochs": 3,
    "learning_rate": 1e-4,
    "warmup_steps": 0.06,
    "eval_strategy": "no",
    "save_strategy": "no",
    "seed": 0,
}
BEST = {"num_train_epochs": 4, "learning_rate": 2e-4, "eval_strategy": "epoch", "save_strategy": "epoch"}
_SHUFFLED = [{"name": "shuffle_labels", "column": "label"}]
HALF = {"test": {"of": "validation", "share": 0.5}}
RUNS: dict[str, list[Any]] = {
    "copies": [
        {"name": "mrpc", "rows": {"train": 400}},
        {"copy_of": "mrpc", "name": "mrpc_again", "rows": {"train": 400}},
    ],
    "tiny": [
        {"name": "mrpc", "rows": {"train": 200}},
        {"name": "rte", "rows": {"train": 800}},
        {"name": "stsb", "rows": {"train": 800, "validation": 400}},
    ],
    "shuffled": [
        {"name": "mrpc", "rows": {"train": 400}},
        {"copy_of": "mrpc", "name": "mrpc_shuffled", "rows": {"train": 400}, "prepare": _SHUFFLED},
    ],
    "six": [
        {"name": "cola", "rows": {"train": 400, "validation": 400, "test": 400}, "splits": HALF},
        {"name": "sst2", "rows": {"train": 400, "validation": 400, "test": 400}, "splits": HALF},
        {"name": "mrpc", "rows": {"train": 400}, "splits": HALF},
        {"name": "stsb", "rows": {"train": 400, "validation": 400, "test": 400}, "splits": HALF},
        {"name": "rte", "rows": {"train": 400}, "splits": HALF},
        {"name": "conll2003", "rows": {"train": 400, "validation": 400, "test": 400}},
    ],
}


def main() -> int:
    """Train, judge, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[*RUNS, []], help="default: all")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    file = RECORDED / "known_verdicts.json"
    for name in given.which or RUNS:
        said = judged(name, str(data_root(given.data_root)), given.model or str(model_folder()))
        known = json.loads(file.read_text()) if file.is_file() else {}  # others may have been recorded meanwhile
        known[name] = said
        file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def judged(name: str, data: str, model: str) -> dict[str, Any]:
    """One run, its twins, and the verdict."""
    folder = ROOT / "runs" / "known" / name
    if not (folder / "metrics.json").is_file():
        training = {**TRAINING, **(BEST if name == "six" else {}), "output_dir": str(folder)}
        keys = {"model": model, "data_root": data, "max_length": 96, "tasks": [named(one) for one in RUNS[name]]}
        keys["training"] = training
        keys["cosines_every"] = 20
        mtl.train(keys, overwrite=folder.is_dir())
    tasks = ["mrpc"] if name == "tiny" else None
    test = mtl.verdict(folder, seeds=3, split="test") if name == "six" else None
    found = mtl.verdict(folder, seeds=3, tasks=tasks)
    began = time.perf_counter()
    again = mtl.verdict(folder, seeds=3, tasks=tasks)
    from nlp_mtl.verdicts.judge import summaries

    summaries(folder)
    mtl.report(folder)
    seconds = time.perf_counter() - began
    assert again.as_json() == found.as_json()
    for sentence in found.sentences():
        print(sentence)
    said = {**found.as_json(), "report_seconds": round(seconds, 1), "table": found.table(), "page": _size(folder)}
    return said if test is None else said | {"followed": followed(found, test)}


def followed(advised: Any, test: Any) -> dict[str, Any]:
    """On test rows: the mean score over tasks when those that were found hurt are trained alone, as was advised.

    Beside it, each task the way that had the better mean on validation rows, whatever its interval.
    """
    alone = {
        "as advised": {one.task for one in advised.tasks if one.said == HURT},
        "by the better mean": {one.task for one in advised.tasks if one.found.mean < 0},
    }
    each = {one.task: np.array(one.found.each) for one in test.tasks}
    made: dict[str, Any] = {"table": test.table()}
    for name, apart in alone.items():
        over = {
            "all together": np.mean([-each[task] if task in apart else 0 * each[task] for task in each], 0),
            "all alone": np.mean([0 * each[task] if task in apart else each[task] for task in each], 0),
        }
        against = {other: str(interval(values.tolist())) for other, values in over.items()}
        made[name] = {"alone": sorted(apart), "against": against}
    return made


def named(said: dict[str, Any]) -> Any:
    """A task of a run; a copy of another under its own name, so with a head of its own."""
    if "copy_of" not in said:
        return said
    return load_tasks([said["copy_of"]])[0].with_(**{key: value for key, value in said.items() if key != "copy_of"})


def _size(folder: Path) -> int:
    return (folder / "report.html").stat().st_size


if __name__ == "__main__":
    raise SystemExit(main())
