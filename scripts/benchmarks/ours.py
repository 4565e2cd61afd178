"""Ours on the rows of shared/peers: one JSON line with examples/s and real tokens/s of the training loop.

    python scripts/benchmarks/ours.py DATA MODEL ROWS ['{"lora": {"r": 8}}'] [--profile]

The same five tasks, rows, batch size, epoch, maximum length and learning rate as the peers' scripts. What the trainer
tries before the first step, every metric on a trivial baseline, is done before the clock starts: the peers have nothing
like it, and it imports scikit-learn, which takes a second whatever the rows.
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
    data, base, rows = words[0], words[1], int(words[2])
    more = json.loads(words[3]) if len(words) > 3 else {}
    logging.disable(logging.WARNING)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    few = {name: {"train": rows, "validation": 8, **({"test": 8} if test else {})} for name, test in TASKS.items()}
    tasks = [{"name": name, "rows": counts} for name, counts in few.items()]
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=128, data_root=data, **more)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=32,
            learning_rate=5e-5,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = mtl.MultiTaskTrainer(model, arguments, data_root=data)
        tokens = sum(int(pool.tokens.sum()) for pool in trainer.data.splits["train"])
        if "--profile" in sys.argv:
            profile(trainer)
            return
        trainer.evaluator.check()
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "peer": "nlp_mtl",
        "examples": rows * len(TASKS),
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds),
    }
    print(
        json.dumps(
            {
                **found,
                "tokens_per_step": round(tokens / trainer.state.global_step),
                "peak_mb": round((peak - imported) / 1024),
            }
        )
    )


def profile(trainer: mtl.MultiTaskTrainer) -> None:
    """Where the time of 20 steps goes, after 20 unprofiled ones."""
    from torch.profiler import profile as profiler

    trainer.args.max_steps = 20
    trainer.train()
    with profiler() as found:
        trainer.train()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=40))


if __name__ == "__main__":
    main()
