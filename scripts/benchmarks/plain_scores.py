"""Single-task scores of a plain `transformers.Trainer`, to stand beside ours.

    python scripts/benchmarks/plain_scores.py rte full 0 --data-root DIR --model FOLDER

Nothing of nlp_mtl is used for training: the family's own class, padded batches, the Trainer's defaults, bf16 and
length grouping. Rows, epochs, batch size and metric are those of the multi-task run.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
import transformers
from datasets import disable_progress_bars, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from nlp_mtl import metrics

GLUE = {  # columns, labels (0: regression), metric
    "cola": (("sentence",), 2, "matthews_correlation"),
    "mrpc": (("sentence1", "sentence2"), 2, "f1"),
    "rte": (("sentence1", "sentence2"), 2, "accuracy"),
    "stsb": (("sentence1", "sentence2"), 0, "pearson"),
    "sst2": (("sentence",), 2, "accuracy"),
}
RATES = {"full": 1e-4, "lora": 3e-4}


def main() -> None:
    """Train one task, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=[*GLUE, "conll2003"])
    parser.add_argument("tuning", choices=list(RATES))
    parser.add_argument("seed", type=int)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epochs", type=float, default=3)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    disable_progress_bars()
    transformers.set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    make = ner if given.task == "conll2003" else glue
    model, train, validation, collator, score = make(given.task, tokenizer, given)
    if given.tuning == "lora":
        from peft import LoraConfig, TaskType, get_peft_model

        kind = TaskType.TOKEN_CLS if given.task == "conll2003" else TaskType.SEQ_CLS
        out = ["classifier"] if given.task == "conll2003" else None  # PEFT leaves it out by itself for sequences only
        wanted = LoraConfig(task_type=kind, r=8, lora_alpha=16, target_modules="all-linear", exclude_modules=out)
        model = get_peft_model(model, wanted)
    model.accepts_loss_kwargs = False
    args = TrainingArguments(
        output_dir="plain_out",
        num_train_epochs=given.epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=RATES[given.tuning],
        warmup_steps=0.06,
        bf16=torch.cpu._is_avx512_bf16_supported(),
        train_sampling_strategy="group_by_length",
        seed=given.seed,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=args, train_dataset=train, data_collator=collator, processing_class=tokenizer)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    trainer.args.train_sampling_strategy = "random"  # grouping by length would change the order of predictions too
    found = score(trainer.predict(validation))
    print(
        json.dumps(
            {"task": given.task, "tuning": given.tuning, "seed": given.seed, "seconds": round(seconds, 1), **found}
        )
    )


def rows_of(dataset, task: str):
    """The training rows of the multi-task run: 16 000 of SST-2, all of the others."""
    return dataset.shuffle(seed=0).select(range(16_000)) if task == "sst2" else dataset


def glue(task: str, tokenizer, given):
    """One of the GLUE tasks."""
    columns, labels, name = GLUE[task]
    data = load_dataset(f"{given.data_root}/nyu-mll/glue", task)

    def encode(rows):
        return {**tokenizer(*[rows[c] for c in columns], truncation=True, max_length=128), "labels": rows["label"]}

    made = {
        split: rows_of(data[split], task if split == "train" else "").map(
            encode, batched=True, remove_columns=data[split].column_names
        )
        for split in ("train", "validation")
    }
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=labels or 1)

    def score(out):
        guessed = out.predictions.squeeze(-1) if not labels else out.predictions.argmax(-1)
        names = [name, *({"mrpc": ["accuracy"], "stsb": ["spearman"]}.get(task, []))]
        return metrics.score(names, guessed.tolist(), out.label_ids.tolist(), labels=["0", "1"] if labels else None)

    return model, made["train"], made["validation"], DataCollatorWithPadding(tokenizer), score


def ner(task: str, tokenizer, given):
    """CoNLL-2003."""
    data = load_dataset(f"{given.data_root}/eriktks/conll2003", "conll2003")
    names = data["train"].features["ner_tags"].feature.names

    def encode(rows):
        out = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, max_length=128)
        out["labels"] = []
        for number, tags in enumerate(rows["ner_tags"]):
            before, line = None, []
            for word in out.word_ids(number):
                line.append(-100 if word is None or word == before else tags[word])
                before = word
            out["labels"].append(line)
        return out

    made = {s: data[s].map(encode, batched=True, remove_columns=data[s].column_names) for s in ("train", "validation")}
    model = AutoModelForTokenClassification.from_pretrained(given.model, num_labels=len(names))

    def score(out):
        guessed = out.predictions.argmax(-1)
        predicted, expected = [], []
        for row, tags, line in zip(guessed, data["validation"]["ner_tags"], out.label_ids, strict=True):
            seen = [names[i] for i in row[np.asarray(line) != -100]]
            predicted.append(seen + ["O"] * (len(tags) - len(seen)))
            expected.append([names[i] for i in tags])
        return {"span_f1": metrics.score(["span_f1"], predicted, expected)["span_f1"]}

    return model, made["train"], made["validation"], DataCollatorForTokenClassification(tokenizer), score


if __name__ == "__main__":
    main()
