"""Peak memory of a five-task run beside a plain Trainer on each of its tasks, at equal tokens per step.

    python scripts/benchmarks/memory.py --data-root DIR --model FOLDER [--tuning full lora] [--rows 320]

Each in a fresh process: `ru_maxrss` at the end less what it was after the imports, and as it is. A plain process trains
one task with as many rows a step as have the five-task run's tokens, for as many steps, in bf16 with length grouping
(where the CPU computes bf16), which is its best-tuned form; ours on one task alone stands beside. The five-task run is
compared with the LARGEST single-task run of the plain Trainer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from racing import environment, versions

HERE = Path(__file__).resolve().parent
TASKS = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "conll2003": ("tokens",),
}
LORA = {"full": {}, "lora": {"lora": {"r": 8, "target_modules": "all-linear"}}}


def main() -> None:
    """Run all, print and record; or be one process (used by itself)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--tuning", nargs="+", choices=list(LORA), default=list(LORA))
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "memory.json")
    parser.add_argument("--plain", nargs=4, metavar=("TASK", "TOKENS", "STEPS", "TUNING"), help="used by itself")
    given = parser.parse_args()
    data, base = str(Path(given.data_root).resolve()), str(Path(given.model).resolve())
    if given.plain:
        task, tokens, steps, tuning = given.plain
        plain(data, base, task, tokens=int(tokens), steps=int(steps), lora=tuning == "lora")
        return
    result: dict[str, Any] = {
        "command": "python scripts/benchmarks/memory.py --data-root DIR --model FOLDER",
        "versions": versions(),
    }
    for tuning in given.tuning:
        said = json.dumps(LORA[tuning])
        five = once([sys.executable, str(HERE / "ours.py"), data, base, str(given.rows), said])
        result[tuning] = {"ours": five, "plain": {}, "ours_single": {}}
        for task in TASKS:
            words = ["--plain", task, str(five["tokens_per_step"]), str(five["steps"]), tuning]
            command = [sys.executable, str(Path(__file__).resolve()), "--data-root", data, "--model", base, *words]
            alone = result[tuning]["plain"][task] = once(command)
            rows = str(alone["batch"] * five["steps"])
            command = [sys.executable, str(HERE / "ours.py"), data, base, rows, said]
            result[tuning]["ours_single"][task] = once([*command, f"--task={task}", f"--batch={alone['batch']}"])
            print(f"{tuning}, {task}: plain {alone['peak_mb']} MB, five tasks of ours {five['peak_mb']} MB", flush=True)
        result[tuning] |= compared(result[tuning])
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({tuning: result[tuning]["over_largest"] for tuning in given.tuning}))


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Our five-task run over every single-task run and over the largest, less the imports and as it is.

    Example:
        >>> runs = {"rte": {"peak_mb": 100, "absolute_mb": 500}, "cola": {"peak_mb": 200, "absolute_mb": 600}}
        >>> compared({"ours": {"peak_mb": 100, "absolute_mb": 600}, "plain": runs, "ours_single": runs})["over_largest"]
        {'less_imports': 0.5, 'absolute': 1.0, 'ours_single': 0.5}
    """
    ours, plain_runs, own = found["ours"], found["plain"], found["ours_single"]

    def largest(runs: dict[str, dict[str, float]], key: str) -> float:
        return max(run[key] for run in runs.values())

    return {
        "ratio": {task: round(ours["peak_mb"] / run["peak_mb"], 2) for task, run in plain_runs.items()},
        "over_largest": {
            "less_imports": round(ours["peak_mb"] / largest(plain_runs, "peak_mb"), 2),
            "absolute": round(ours["absolute_mb"] / largest(plain_runs, "absolute_mb"), 2),
            "ours_single": round(ours["peak_mb"] / largest(own, "peak_mb"), 2),
        },
    }


def once(command: list[str]) -> dict[str, Any]:
    """The last JSON line of a command."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
    if not lines:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def plain(data: str, base: str, task: str, *, tokens: int, steps: int, lora: bool) -> None:
    """A plain Trainer on one task, bf16 and length grouping as its best-tuned form."""
    import resource

    import torch
    import transformers
    from datasets import disable_progress_bars, load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, Trainer, TrainingArguments

    from nlp_mtl.settings import best_precision

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    disable_progress_bars()
    words = task == "conll2003"
    tokenizer = AutoTokenizer.from_pretrained(base)
    read = load_dataset(f"{data}/eriktks/conll2003" if words else f"{data}/nyu-mll/glue", task)["train"].shuffle(seed=0)

    def tokenized(rows: dict[str, list[Any]]) -> dict[str, Any]:
        out = tokenizer(
            *[rows[column] for column in TASKS[task]], truncation=True, max_length=128, is_split_into_words=words
        )
        if not words:
            return {**out, "labels": rows["label"]}
        places = [out.word_ids(row) for row in range(len(rows["tokens"]))]
        first = [[n for n, w in enumerate(row) if w is not None and w not in row[:n]] for row in places]
        labels = [[-100] * len(row) for row in places]
        for row, (own, firsts) in enumerate(zip(places, first, strict=True)):
            for place in firsts:
                labels[row][place] = rows["ner_tags"][row][own[place]]
        return {**out, "labels": labels}

    sample = read.select(range(320)).map(tokenized, batched=True, remove_columns=read.column_names)
    batch = max(1, round(tokens * len(sample) / sum(map(len, sample["input_ids"]))))
    train = read.select(range(min(len(read), batch * steps)))
    train = train.map(tokenized, batched=True, remove_columns=read.column_names)
    kind = "TokenClassification" if words else "SequenceClassification"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, num_labels=9 if words else 2)
    if lora:
        parts = ["query", "key", "value", "dense"]
        model = get_peft_model(model, LoraConfig(r=8, target_modules=parts, modules_to_save=["classifier"]))
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
    collator = transformers.DataCollatorForTokenClassification if words else transformers.DataCollatorWithPadding
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "peer": f"plain Trainer, {task}",
        "batch": batch,
        "steps": trainer.state.global_step,
        "tokens_per_step": round(sum(map(len, train["input_ids"])) / trainer.state.global_step),
        "peak_mb": round((peak - imported) / 1024),
        "absolute_mb": round(peak / 1024),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
