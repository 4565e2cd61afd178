"""The cost of one adapter per task in one mixed pass, beside one adapter that all tasks share.

    python scripts/benchmarks/adapters_speed.py --data-root DIR --model FOLDER [--rounds 3] [--tasks 10]
        [--batch 64 200] [--profile]

The tasks and rows are those of scaling.py (tags of words, a class, a number, any number of labels, in turns): N tasks
with every N-th row of CoNLL-2003 each, all-linear, r 8. `task_lora` is one adapter per task alone, `both` one per task
beside the shared one. They take turns of five steps (racing.py); the first ten steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from racing import UNTIMED, Contender, costs, versions
from scaling import contender

HERE = Path(__file__).resolve().parent
WAYS = ("lora", "task_lora", "both")


def main() -> None:
    """Race, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 200], help="rows of a step")
    parser.add_argument("--profile", action="store_true", help="instead, where the time goes")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "adapters_speed.json")
    given = parser.parse_args()
    given.data_root, given.model = (str(Path(path).resolve()) for path in (given.data_root, given.model))
    if given.profile:
        from profiles import profile

        for racer in racers(given, given.batch[0]).values():
            profile(racer, top=25)
        return
    result = {
        "command": "python scripts/benchmarks/adapters_speed.py --data-root DIR --model FOLDER",
        "tasks": given.tasks,
        "untimed": UNTIMED,
        "versions": versions(),
        "batches": [],
    }
    for batch in given.batch:
        measured = costs(f"{batch} rows", racers(given, batch), given.rounds, over="lora")
        result["batches"].append({"batch": batch, **measured})
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def racers(given: argparse.Namespace, batch: int) -> dict[str, Contender]:
    """The ways, as contenders."""
    said = argparse.Namespace(**{**vars(given), "batch": batch})
    return {way: contender(said, given.tasks, "mixed", way) for way in WAYS}


if __name__ == "__main__":
    sys.exit(main())
