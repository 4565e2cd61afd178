"""The cost of weighing tasks by their gradients, beside equal weights.

    python scripts/benchmarks/balancing_speed.py --data-root DIR --model FOLDER [--rounds 2] [--profile]

Five tasks: CoLA, SST-2, MRPC, RTE and CoNLL-2003 with 512 rows each in batches of 32 (ours.py), LoRA (all-linear, r 8)
and full fine-tuning. Twenty: those of scaling.py, in batches of 64, with LoRA. `equal` makes no look at the gradients
(`cosines_every` 0). The ways take turns of five steps (racing.py); the first ten steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from racing import UNTIMED, Contender, costs, versions

HERE = Path(__file__).resolve().parent
WAYS = ("equal", "pcgrad", "upgrad")
LORA = {"lora": {"r": 8, "target_modules": "all-linear"}}


def main() -> None:
    """Race, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--profile", action="store_true", help="instead, where the time goes")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "balancing_speed.json")
    given = parser.parse_args()
    given.data_root, given.model = (str(Path(path).resolve()) for path in (given.data_root, given.model))
    if given.profile:
        from profiles import profile

        for racing in settings(given).values():
            profile(racing["upgrad"], top=25)
        return
    result: dict[str, Any] = {
        "command": f"python scripts/benchmarks/{Path(__file__).name} --data-root DIR --model FOLDER "
        f"--rounds {given.rounds} --rows {given.rows}",
        "untimed": UNTIMED,
        "versions": versions(),
        "settings": {},
    }
    for name, racing in settings(given).items():
        result["settings"][name] = costs(name, racing, given.rounds, over="equal")
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def settings(given: argparse.Namespace) -> dict[str, dict[str, Contender]]:
    """Name → way → contender."""
    found: dict[str, dict[str, Contender]] = {}
    for name, tuning in (("5 tasks, LoRA", LORA), ("5 tasks, full", {})):
        words = (given.data_root, given.model, str(given.rows), json.dumps(tuning))
        found[name] = {
            way: Contender(f"{name}, {way}", HERE / "ours.py", (*words, f"--balancer={way}")) for way in WAYS
        }
    words = ("--one", "--data-root", given.data_root, "--model", given.model, "--batch", "64", "--tasks", "20")
    words += ("--kinds", "mixed", "--tuning", "lora")
    found["20 tasks, LoRA"] = {
        way: Contender(f"20 tasks, {way}", HERE / "scaling.py", (*words, "--balancer", way)) for way in WAYS
    }
    return found


if __name__ == "__main__":
    sys.exit(main())
