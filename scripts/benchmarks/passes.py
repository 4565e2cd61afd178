"""Peak memory and speed of steps of 8192 tokens, cut into passes of fewer tokens; each budget in a fresh process.

    python scripts/benchmarks/passes.py --data-root DIR --model FOLDER

The five tasks of `ours.py`, full fine-tuning, three steps. `peak_mb` is `ru_maxrss` at the end less what it was after
the imports; the budgets take turns over the rounds, medians count.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENS, STEPS = 8192, 3


def main() -> None:
    """Run all budgets, print and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, help="used by itself: be the process of one budget; 0 for none")
    given = parser.parse_args()
    data, base = str(Path(given.data_root).resolve()), str(Path(given.model).resolve())
    if given.budget is not None:
        once(data, base, given.budget)
        return
    found: dict[int, list[dict]] = {budget: [] for budget in (0, 4096, 2048, 1024)}
    for _ in range(given.rounds):
        for budget, kept in found.items():
            words = ["--data-root", data, "--model", base, "--budget", str(budget)]
            done = subprocess.run(
                [sys.executable, str(HERE / "passes.py"), *words],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            kept.append(json.loads(done.stdout.splitlines()[-1]))
    result = {
        "command": "python scripts/benchmarks/passes.py --data-root DIR --model FOLDER",
        "tokens_per_batch": TOKENS,
        "rounds": given.rounds,
        "tokens_per_pass": {
            str(budget or "none"): {key: statistics.median(one[key] for one in kept) for key in kept[0]}
            for budget, kept in found.items()
        },
    }
    (HERE / "recorded" / "passes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def once(data: str, base: str, budget: int) -> None:
    """Train, print one line."""
    from ours import TASKS
    from transformers import TrainingArguments

    import nlp_mtl as mtl

    logging.disable(logging.WARNING)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tasks = [{"name": name, "rows": {"train": 320, "validation": 8}} for name in TASKS]
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=128, data_root=data)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=STEPS,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = mtl.MultiTaskTrainer(
            model, arguments, data_root=data, tokens_per_batch=TOKENS, tokens_per_pass=budget or None
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = int(trainer.tokens_shown(0, STEPS).sum())
    print(json.dumps({"peak_mb": round((peak - imported) / 1024), "tokens_per_s": round(tokens / seconds)}))


if __name__ == "__main__":
    main()
