"""Peak memory of a five-task run beside a plain single-task Trainer at equal tokens per batch.

    python scripts/benchmarks/memory.py --data-root DIR --model FOLDER

Each in a fresh process: `ru_maxrss` at the end less what it was after the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run both, print and record the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--plain", nargs=2, metavar=("TASK", "BATCH"), help="used by itself: be the plain process")
    given = parser.parse_args()
    data, base = str(Path(given.data_root).resolve()), str(Path(given.model).resolve())
    if given.plain:
        plain(data, base, given.plain[0], int(given.plain[1]), given.rows)
        return
    common = ["--data-root", data, "--model", base, "--rows", str(given.rows)]
    ours = once([sys.executable, str(HERE / "ours.py"), data, base, str(given.rows)])
    result: dict = {
        "command": "python scripts/benchmarks/memory.py --data-root DIR --model FOLDER",
        "ours": ours,
        "plain": {},
        "ratio": {},
    }
    for task, tokens_per_row in (("rte", 70), ("sst2", 13), ("mrpc", 53)):
        batch = max(1, round(ours["tokens_per_step"] / tokens_per_row))
        found = once([sys.executable, __file__, *common, "--plain", task, str(batch)])
        result["plain"][task] = found
        result["ratio"][task] = round(ours["peak_mb"] / found["peak_mb"], 2)
    (HERE / "recorded" / "memory.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def once(command: list[str]) -> dict:
    """The last JSON line of a command."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
    if not lines:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def plain(data: str, base: str, task: str, batch: int, rows: int) -> None:
    """A plain Trainer on one task, bf16 and length grouping as its best-tuned form."""
    import resource

    import torch
    from datasets import disable_progress_bars, load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from nlp_mtl.settings import best_precision

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    disable_progress_bars()
    columns = ("sentence",) if task == "sst2" else ("sentence1", "sentence2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    train = (
        load_dataset(f"{data}/nyu-mll/glue", task)["train"]
        .shuffle(seed=0)
        .select(range(rows * 5 if task == "sst2" else rows * 2))
    )
    train = train.map(
        lambda r: {**tokenizer(*[r[c] for c in columns], truncation=True, max_length=128), "labels": r["label"]},
        batched=True,
        remove_columns=train.column_names,
    )
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.accepts_loss_kwargs = False
    arguments = TrainingArguments(
        "out",
        num_train_epochs=1,
        per_device_train_batch_size=batch,
        learning_rate=5e-5,
        bf16=best_precision(torch.device("cpu")) == "bf16",
        use_cpu=True,
        train_sampling_strategy="group_by_length",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = sum(map(len, train["input_ids"])) / trainer.state.global_step
    print(
        json.dumps(
            {
                "peer": f"plain Trainer, {task}",
                "batch": batch,
                "tokens_per_step": round(tokens),
                "peak_mb": round((peak - imported) / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
