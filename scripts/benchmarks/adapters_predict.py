"""What one adapter per task costs at prediction: the same texts through one shared LoRA and through one LoRA per task.

    python scripts/benchmarks/adapters_predict.py --data-root DIR --model FOLDER [--texts 1000] [--rounds 5]
        [--work FOLDER]         keep the models made there for a later call

Texts and tasks are those of predict_speed.py: five tasks that all read every text. `lora` is one adapter for all, so a
text goes through the encoder once; `task_lora` is one adapter per task, so it goes through once for each of them in
packed passes of the same size. `merged` is the latter after `nlp-mtl adapters merge`. All are asked for all five tasks,
the first two also for one task alone. They take turns; medians count. The models are trained for some seconds only, so
that a tagger does not find entities everywhere.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from predict_speed import LENGTH, TASKS, seconds, texts_of, threads
from racing import ratios, versions

HERE = Path(__file__).resolve().parent
SETTINGS = {"r": 8, "target_modules": "all-linear"}
ALONE = "sst2"


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", default=None)
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "adapters_predict.json")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(given.work or folder).resolve()
        data, base = Path(given.data_root).resolve(), Path(given.model).resolve()
        folders = {way: made(work, way, data, base) for way in ("lora", "task_lora")}
        folders["merged"] = merged(work, folders["task_lora"], base)
        result = measured(folders, base, texts_of(data, given.texts), given.rounds)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def made(work: Path, way: str, data: Path, base: Path) -> Path:
    """A run of the five tasks, trained for some seconds."""
    if (work / way).is_dir():
        return work / way
    from transformers import TrainingArguments

    import nlp_mtl as mtl

    tasks = [{"name": name, "rows": {"train": 320, "validation": 16}} for name in TASKS]
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=LENGTH, data_root=data, **{way: SETTINGS})
    arguments = TrainingArguments(
        str(work / f"training_{way}"),
        num_train_epochs=2,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    mtl.MultiTaskTrainer(model, arguments, data_root=data).train()
    model.eval().save_pretrained(work / way)
    return work / way


def merged(work: Path, run: Path, base: Path) -> Path:
    """The run with its adapters merged into one."""
    import nlp_mtl as mtl

    if not (work / "merged").is_dir():
        mtl.merge_adapters(run, work / "merged", base=base)
    return work / "merged"


def measured(folders: dict[str, Path], base: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """Texts per second of every round, medians and ratios; each contender answers an eighth of the texts beforehand."""
    import nlp_mtl as mtl

    models = {way: mtl.MultiTaskModel.from_pretrained(folder, base=base) for way, folder in folders.items()}
    asked: dict[str, tuple[Any, list[str]]] = {way: (model, list(TASKS)) for way, model in models.items()}
    asked |= {f"{way}, {ALONE} alone": (models[way], [ALONE]) for way in ("lora", "task_lora")}
    for model, tasks in asked.values():
        mtl.predict(model, texts[::8], tasks=tasks)
    took: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(rounds):
        for name, (model, tasks) in asked.items():
            spent, answers = seconds(lambda model=model, tasks=tasks: mtl.predict(model, texts, tasks=tasks))
            assert len(answers) == len(texts)
            assert all(set(answer) == set(tasks) for answer in answers)
            took[name].append(spent)
            print(f"round {turn + 1}: {name}: {spent:.2f} s, {len(texts) / spent:.0f} texts/s", flush=True)
    first = {name: took["lora" if len(tasks) > 1 else f"lora, {ALONE} alone"] for name, (_, tasks) in asked.items()}
    tokenizer = models["lora"].tokenizer
    return {
        "command": "python scripts/benchmarks/adapters_predict.py --data-root DIR --model FOLDER",
        "tasks": list(TASKS),
        "texts": len(texts),
        "tokens": sum(map(len, tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"])),
        "threads": threads(),
        "rounds": rounds,
        "times_through_the_encoder": {name: model.sharing.copies(tasks) for name, (model, tasks) in asked.items()},
        "seconds": {name: [round(value, 2) for value in values] for name, values in took.items()},
        "texts_per_s": {name: round(len(texts) / statistics.median(values), 1) for name, values in took.items()},
        "over_shared": {name: ratios(values, first[name]) for name, values in took.items()},
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
