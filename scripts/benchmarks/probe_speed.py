"""Heads on a frozen encoder: an epoch on kept features beside one that runs the encoder, for ten tasks.

    python scripts/benchmarks/probe_speed.py --data-root DIR --model FOLDER [--rows 1000] [--epochs 4] [--batch 256]

Each way trains once, in turn, in this process; the time of an epoch is the median of all but the first, in which texts
are computed and kept (it is told too). Scores are of the validation rows, after the same steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
TASKS = ["cola", "sst2", "mrpc", "rte", "stsb", "conll2003", "banking77", "sst5", "tweet_irony", "trec"]


def main() -> None:
    """Train in both ways, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "probe_speed.json")
    given = parser.parse_args()
    found = {way: trained(given, cached) for way, cached in (("frozen", False), ("kept features", True))}
    epoch = {way: statistics.median(one["epochs"][1:]) for way, one in found.items()}
    scores = [one["scores"] for one in found.values()]
    apart = max(abs(scores[0][task] - scores[1][task]) for task in scores[0])
    result = {
        "command": f"python scripts/benchmarks/probe_speed.py --data-root DIR --model FOLDER --rows {given.rows} "
        f"--epochs {given.epochs} --batch {given.batch}",
        "tasks": given.tasks,
        "epoch_s": {way: [round(value, 3) for value in one["epochs"]] for way, one in found.items()},
        "ratio": round(epoch["frozen"] / epoch["kept features"], 1),
        "whole_ratio": round(sum(found["frozen"]["epochs"]) / sum(found["kept features"]["epochs"]), 1),
        "scores": {way: {task: round(v, 6) for task, v in one["scores"].items()} for way, one in found.items()},
        "scores_apart": apart,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def trained(given: argparse.Namespace, cached: bool) -> dict[str, Any]:
    """Seconds of each epoch, and the first metric of each task."""
    import nlp_mtl as mtl

    with tempfile.TemporaryDirectory() as folder:
        run = mtl.train(
            {
                "model": given.model,
                "data_root": given.data_root,
                "tasks": [{"name": name, "rows": {"train": given.rows, "validation": 500}} for name in given.tasks],
                "max_length": 128,
                "freeze": "*",
                "cache_features": cached,
                "callbacks": [f"{Path(__file__).stem}:Clock"],
                "training": {
                    "output_dir": folder,
                    "num_train_epochs": given.epochs,
                    "per_device_train_batch_size": given.batch,
                    "learning_rate": 1e-3,
                    "eval_strategy": "no",
                    "save_strategy": "no",
                    "logging_steps": 1000,
                    "disable_tqdm": True,
                    "report_to": "none",
                },
            },
            overwrite=True,
        )
    clock = next(one for one in run.trainer.callback_handler.callbacks if type(one).__name__ == "Clock")
    return {"epochs": clock.epochs, "scores": {task: one.metrics[one.first] for task, one in run.scores.items()}}


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Seconds of each epoch."""

        def __init__(self) -> None:
            self.epochs: list[float] = []

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Start."""
            self.began = time.perf_counter()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Stop."""
            self.epochs.append(time.perf_counter() - self.began)

    return Clock


def __getattr__(name: str) -> Any:
    if name == "Clock":  # made when it is asked for: --help needs no transformers
        globals()["Clock"] = _clock()
        return globals()["Clock"]
    raise AttributeError(name)


if __name__ == "__main__":
    sys.modules.setdefault(Path(__file__).stem, sys.modules[__name__])
    main()
