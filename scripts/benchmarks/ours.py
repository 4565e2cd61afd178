"""Ours on the rows of shared/peers: one JSON line with examples/s and real tokens/s of the training loop.

    python scripts/benchmarks/ours.py DATA MODEL ROWS ['{"lora": {"r": 8}}'] [--task=NAME] [--batch=32]
        [--balancer=NAME]

The same five tasks, rows, batch size, epoch, maximum length and learning rate as the peers' scripts. What the trainer
tries before the first step, every metric on a trivial baseline, is done before the clock starts: the peers have nothing
like it, and it imports scikit-learn, which takes a second whatever the rows. With --task, one task alone.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time

from transformers import TrainingArguments

import nlp_mtl as mtl

TASKS = {"cola": True, "sst2": True, "mrpc": False, "rte": False, "conll2003": True}  # whether there is a test split


def main() -> None:
    """Train one epoch, print one line."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    said = dict(word.removeprefix("--").split("=") for word in sys.argv[1:] if word.startswith("--"))
    data, base, rows = words[0], words[1], int(words[2])
    more = json.loads(words[3]) if len(words) > 3 else {}
    logging.disable(logging.WARNING)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    few = {name: {"train": rows, "validation": 8, **({"test": 8} if test else {})} for name, test in TASKS.items()}
    few = {name: counts for name, counts in few.items() if name == said.get("task", name)}
    tasks = [{"name": name, "rows": counts} for name, counts in few.items()]
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=128, data_root=data, **more)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=int(said.get("batch", 32)),
            learning_rate=5e-5,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        balancing = {"balancer": said["balancer"], "cosines_every": 0} if "balancer" in said else {}
        trainer = mtl.MultiTaskTrainer(model, arguments, data_root=data, **balancing)
        tokens = sum(int(pool.tokens.sum()) for pool in trainer.data.splits["train"])
        trainer.evaluator.check()
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "peer": "nlp_mtl",
        "examples": rows * len(few),
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds),
    }
    print(
        json.dumps(
            {
                **found,
                "tokens_per_step": round(tokens / trainer.state.global_step),
                "steps": trainer.state.global_step,
                "peak_mb": round((peak - imported) / 1024),
                "absolute_mb": round(peak / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
