"""Merged, joint, separate: three real tasks' adapters merged in every way that `nlp-mtl adapters merge` has.

    python scripts/benchmarks/merging.py --data-root DIR --model FOLDER [--seeds 0 1] [--work FOLDER]

`separate` is one LoRA per task and nothing shared but the frozen encoder (`task_lora`); `joint` is one LoRA for all
(`lora`); the merged ones are made of `separate`, weights and rank as they come, with density 0.5 where a way prunes.
`dropped` is a merge with weights of 0: the heads of `separate` on the encoder without any adapter. The same rows, steps
and settings for all; scores of the last step on 500 validation rows. A seed is recorded as soon as it is done, and is
not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from racing import versions

HERE = Path(__file__).resolve().parent
TASKS = ["sst2", "trec", "conll2003"]
TRAIN, SCORED, DENSITY = 2000, 500, 0.5
SETTINGS = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
TRAINING = {"num_train_epochs": 3, "learning_rate": 1e-3, "warmup_steps": 0.06}
ONLY_THE_LAST = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}


def main() -> None:
    """Run what is not recorded, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--work", default=None, help="keep the runs here")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "merging.json")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    result = {
        "command": "python scripts/benchmarks/merging.py --data-root DIR --model FOLDER",
        "settings": {"rows": TRAIN, "scored": SCORED, "density": DENSITY, "lora": SETTINGS, "training": TRAINING},
        "tasks": TASKS,
        "seeds": {},
        "versions": versions(),
    }
    if given.out.is_file():
        before = json.loads(given.out.read_text(encoding="utf-8"))
        same = all(before.get(key) == result[key] for key in ("settings", "tasks"))
        result["seeds"] = before["seeds"] if same else {}
    for seed in given.seeds:
        if str(seed) not in result["seeds"]:
            with tempfile.TemporaryDirectory() as folder:
                work = Path(given.work or folder).resolve() / str(seed)
                result["seeds"][str(seed)] = one_seed(work, given.data_root, given.model, seed)
            given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def one_seed(work: Path, data: str, model: str, seed: int) -> dict[str, dict[str, float]]:
    """Run → task → score by its first metric."""
    import nlp_mtl as mtl
    from nlp_mtl.adapting.merging import WAYS

    found = {}
    for name, tuning in (("separate", "task_lora"), ("joint", "lora")):
        found[name] = scores(trained(work / name, data, model, seed, tuning), data, model)
        print(f"seed {seed}: {name}: {found[name]}", flush=True)
    weights = [0.0] * len(TASKS)
    ways: dict[str, dict[str, Any]] = {"dropped": {"how": "cat", "weights": weights}}
    for how in WAYS:
        prunes = how.startswith(("ties", "dare", "magnitude"))
        ways[how] = {"how": how, **({"density": DENSITY, "seed": seed} if prunes else {})}
    for name, said in ways.items():
        mtl.merge_adapters(work / "separate", work / name, base=model, **said)
        found[name] = scores(work / name, data, model)
        print(f"seed {seed}: {name}: {found[name]}", flush=True)
    return found


def trained(folder: Path, data: str, model: str, seed: int, tuning: str) -> Path:
    """A run of the three tasks, as the command makes it."""
    import nlp_mtl as mtl

    few = {"train": TRAIN, "validation": SCORED}
    said = {
        "model": model,
        "tasks": [{"name": task, "rows": few} for task in TASKS],
        "data_root": str(Path(data).resolve()),
        "max_length": 128,
        tuning: SETTINGS,
        "training": {**TRAINING, **ONLY_THE_LAST, "output_dir": str(folder), "seed": seed},
    }
    mtl.train(said)
    return folder


def scores(folder: Path, data: str, model: str) -> dict[str, float]:
    """Task → score by its first metric."""
    import nlp_mtl as mtl

    told = mtl.evaluate(folder, data_root=data, base=model)
    found = {}
    for task in TASKS:
        first = told[task].first
        assert first is not None
        found[task] = round(told[task].metrics[first], 4)
    return found


if __name__ == "__main__":
    sys.exit(main())
