"""The cost of a step by the way tasks share, beside hard sharing.

    python scripts/benchmarks/sharing_speed.py --data-root DIR --model FOLDER [--rounds 2]
        [--only NAME …] [--tuning LoRA full] [--profile NAME]

Five tasks: CoLA, SST-2, MRPC, RTE and CoNLL-2003 with 512 rows each in batches of 32 (ours.py), with LoRA (all-linear,
r 8) in all schemes, so that hard sharing has the same rank; and some with full fine-tuning. The contenders take turns
of five steps (racing.py); the first ten steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from racing import UNTIMED, Contender, costs, versions

HERE = Path(__file__).resolve().parent
LORA = {"lora": {"r": 8, "target_modules": "all-linear"}}
EACH = {"task_lora": {"r": 8, "target_modules": "all-linear"}}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "LoRA": {
        "hard": LORA,
        "soft": {**LORA, **EACH, "sharing": "soft"},
        "soft, task adapters alone": {**EACH, "sharing": "soft"},
        "experts (4), gates by task": {**LORA, "sharing": "mixture_of_experts"},
        "experts (4), gates on tokens": {**LORA, "sharing": {"name": "mixture_of_experts", "gates": "token"}},
        "cross-task attention": {**LORA, "sharing": "cross_task_attention"},
        "branch at half depth": {**LORA, "sharing": "branch"},
        "cross-stitch, top 2 layers": {**LORA, "sharing": "cross_stitch"},
        "hard, conditioned by layer norm": {**LORA, "sharing": {"name": "hard", "condition": ["layer_norm"]}},
    },
    "full": {
        "hard": {},
        "cross-task attention": {"sharing": "cross_task_attention"},
        "branch at half depth": {"sharing": "branch"},
    },
}


def main() -> None:
    """Race, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--only", nargs="+", default=None, help="names of schemes, beside hard")
    parser.add_argument("--tuning", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--profile", default=None, metavar="NAME", help="instead, where the time of one with LoRA goes")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "sharing_speed.json")
    given = parser.parse_args()
    given.data_root, given.model = (str(Path(path).resolve()) for path in (given.data_root, given.model))
    if given.profile:
        from profiles import profile

        profile(contender(given, "LoRA", given.profile), top=30)
        return
    result: dict[str, Any] = {
        "command": f"python scripts/benchmarks/{Path(__file__).name} --data-root DIR --model FOLDER "
        f"--rounds {given.rounds} --rows {given.rows}",
        "untimed": UNTIMED,
        "versions": versions(),
        "settings": {},
    }
    for tuning in given.tuning:
        names = [name for name in WAYS[tuning] if given.only is None or name in ("hard", *given.only)]
        racing = {name: contender(given, tuning, name) for name in names}
        result["settings"][tuning] = costs(tuning, racing, given.rounds, over="hard")
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def contender(given: argparse.Namespace, tuning: str, name: str) -> Contender:
    """A scheme, as a contender."""
    words = (given.data_root, given.model, str(given.rows), json.dumps(WAYS[tuning][name]))
    return Contender(f"{tuning}, {name}", HERE / "ours.py", (*words, "--balancer=equal"))


if __name__ == "__main__":
    sys.exit(main())
