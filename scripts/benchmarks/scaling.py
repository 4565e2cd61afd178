"""The cost of a step by the number of tasks it mixes, at equal tokens: 1, 5, 20 and 100 tasks on the same rows.

    python scripts/benchmarks/scaling.py --data-root DIR --model FOLDER [--rounds 3] [--batch 64] [--tasks 1 5 20 100]
        [--kinds same mixed] [--tuning full lora] [--profile N]

The rows are CoNLL-2003's, the same behind every number of tasks: N tasks have every N-th row each, with a head of their
own. In one table all tasks are alike (a class per sentence); in the other they are of four kinds in turns: tags of
words, a class, a number, any number of labels. Where there is one task, it is of the table's first kind. A step has
`--batch` rows, about 1 200 tokens, so in a step of 100 tasks up to 64 take part. All contenders take turns of five
steps (racing.py), the first ten steps are not timed; time is per token, so that steps with a few tokens more or less
do not differ.

--profile N   instead, where the time of N tasks goes, beside one task.
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

from racing import UNTIMED, Contender, race, ratios, speed, versions

HERE = Path(__file__).resolve().parent
KINDS = {
    "same": ["class"],
    "mixed": ["tags", "class", "number", "labels"],
}
LORA = {"r": 8, "target_modules": "all-linear"}
TUNING: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": LORA},
    "task_lora": {"task_lora": LORA},
    "both": {"lora": LORA, "task_lora": LORA},
}
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
STEPS = 60


def main() -> None:
    """Race, print and record; or be one contender (used by itself)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 5, 20, 100])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--tuning", nargs="+", choices=list(TUNING), default=["full", "lora"])
    parser.add_argument("--profile", type=int, default=None)
    parser.add_argument("--balancer", default=None, help="with --one: another than equal weights")
    parser.add_argument("--one", action="store_true", help="used by itself: train the first of each list")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "scaling.json")
    given = parser.parse_args()
    given.data_root, given.model = (str(Path(path).resolve()) for path in (given.data_root, given.model))
    if given.one:
        train(given, given.tasks[0], given.kinds[0], given.tuning[0])
        return
    if given.profile:
        from profiles import profile

        for kind in given.kinds:
            for tuning in given.tuning:
                for count in (1, given.profile):
                    profile(contender(given, count, kind, tuning), top=25)
        return
    result: dict[str, Any] = {
        "command": "python scripts/benchmarks/scaling.py --data-root DIR --model FOLDER",
        "batch": given.batch,
        "untimed": UNTIMED,
        "versions": versions(),
        "tables": {},
    }
    for kind in given.kinds:
        for tuning in given.tuning:
            one = table(given, kind, tuning)
            result["tables"][f"{kind}, {tuning}"] = one
            given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(f"{kind}, {tuning}: {json.dumps(one['ratio'])}", flush=True)


def contender(given: argparse.Namespace, count: int, kind: str, tuning: str) -> Contender:
    """N tasks as one contender."""
    words = ["--one", "--data-root", given.data_root, "--model", given.model, "--batch", str(given.batch)]
    words += ["--tasks", str(count), "--kinds", kind, "--tuning", tuning]
    return Contender(f"{count} tasks, {kind}, {tuning}", Path(__file__).resolve(), tuple(words))


def table(given: argparse.Namespace, kind: str, tuning: str) -> dict[str, Any]:
    """One table: microseconds per token in every round, and the ratios to the first number of tasks."""
    racers = {count: contender(given, count, kind, tuning) for count in given.tasks}
    per_token: dict[int, list[float]] = {count: [] for count in racers}
    tokens: dict[int, float] = {}
    for turn in range(given.rounds):
        timed = race(list(racers.values()), every=5)
        for count, racer in racers.items():
            if "failed" in timed[racer.name]:
                raise SystemExit(timed[racer.name]["failed"])
            found = speed(timed[racer.name]["steps"])
            per_token[count].append(1e6 / found["tokens_per_s"])
            tokens[count] = round(found["tokens_per_step"])
            print(f"round {turn + 1}: {racer.name}: {per_token[count][-1]:.1f} µs a token", flush=True)
    first = per_token[given.tasks[0]]
    return {
        "us_per_token": {str(count): [round(value, 2) for value in values] for count, values in per_token.items()},
        "median": {str(count): round(statistics.median(values), 2) for count, values in per_token.items()},
        "tokens_per_step": {str(count): value for count, value in tokens.items()},
        "ratio": {str(count): ratios(values, first) for count, values in per_token.items()},
    }


def train(given: argparse.Namespace, count: int, kind: str, tuning: str) -> None:
    """Train `count` tasks of a kind for some steps."""
    from transformers import TrainingArguments

    import nlp_mtl as mtl
    from nlp_mtl.paths import cache_folder

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        kernels = cache_folder() / "kernels"  # made before; what is tokenized is not kept
        kernels.mkdir(parents=True, exist_ok=True)
        (Path(folder) / "cache").mkdir()
        (Path(folder) / "cache" / "kernels").symlink_to(kernels)
        os.environ["NLP_MTL_CACHE"] = str(Path(folder) / "cache")
        tasks = write_tasks(Path(folder), given.data_root, count, KINDS[kind], rows=STEPS * given.batch)
        model = mtl.MultiTaskModel.from_base(given.model, tasks, max_length=128, **TUNING[tuning])
        arguments = TrainingArguments(
            str(Path(folder) / "run"),
            num_train_epochs=1,
            per_device_train_batch_size=given.batch,
            learning_rate=5e-5,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        balancing = {} if given.balancer is None else {"balancer": given.balancer, "cosines_every": 0}
        mtl.MultiTaskTrainer(model, arguments, **balancing).train()


def write_tasks(folder: Path, data_root: str, count: int, kinds: list[str], *, rows: int) -> list[str]:
    """`count` task files over the same rows, dealt out in turn; gives their paths."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    found = load_dataset(f"{data_root}/eriktks/conll2003", "conll2003")["train"].shuffle(seed=0).select(range(rows))
    made = [example(row["tokens"], [TAGS[tag] for tag in row["ner_tags"]]) for row in found]
    files = []
    for number in range(count):
        kind, own = kinds[number % len(kinds)], made[number::count]
        name = f"task_{number}"
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
        spec = {"name": name, "dataset": {"path": "json", "data_files": {"train": f"{name}.jsonl"}}, **HEADS[kind]}
        files.append(str(folder / f"{name}.yaml"))
        Path(files[-1]).write_text(json.dumps(spec), encoding="utf-8")
    return files


HEADS: dict[str, dict[str, Any]] = {
    "tags": {"head": "token_classification", "inputs": ["tokens"], "target": "tags", "labels": TAGS},
    "class": {"head": "sequence_classification", "inputs": ["tokens"], "target": "class", "labels": ["no", "yes"]},
    "number": {"head": "regression", "inputs": ["tokens"], "target": "number"},
    "labels": {
        "head": "multi_label",
        "inputs": ["tokens"],
        "target": "labels",
        "labels": ["PER", "ORG", "LOC", "MISC"],
    },
}


def example(tokens: list[str], tags: list[str]) -> dict[str, Any]:
    """A row with a label for each kind of task."""
    labels = sorted({tag[2:] for tag in tags if tag != "O"})
    return {
        "tokens": tokens,
        "tags": tags,
        "class": "yes" if "PER" in labels else "no",
        "number": sum(token[:1].isupper() for token in tokens) / len(tokens),
        "labels": labels,
    }


if __name__ == "__main__":
    sys.exit(main())
