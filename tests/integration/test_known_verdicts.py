"""Verdicts whose answer is known, on a tiny model; scripts/benchmarks/known_verdicts.py asks the same of real data."""

from __future__ import annotations

import json
import random

import pytest

import nlp_mtl as mtl
from nlp_mtl.verdicts.judging import HELPED, HURT
from tests.integration.tiny import WORDS, config, write_base

SHUFFLED = [{"name": "shuffle_labels", "column": "label"}]


def write(folder, name, rows, seed, **said):
    """A text is about rain if a word says so; 80 validation rows beside."""
    draw = random.Random(seed)
    made = []
    for number in range(rows + 80):
        words = [word for word in draw.choices(WORDS, k=6) if word != "rain"]
        words = [*words, "rain"] if number % 2 else words
        draw.shuffle(words)
        made.append({"text": " ".join(words), "label": number % 2})
    for split, part in (("train", made[:rows]), ("validation", made[rows:])):
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    spec = {
        "name": name,
        "head": "sequence_classification",
        "inputs": ["text"],
        "target": "label",
        "labels": ["no", "yes"],
    }
    spec["dataset"] = {"path": "json", "data_files": {s: f"{name}-{s}.jsonl" for s in ("train", "validation")}}
    (folder / f"{name}.yaml").write_text(json.dumps({**spec, **said}))
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base")


def judged(folder, base, tasks, only=None):
    training = {"num_train_epochs": 4, "max_steps": -1, "learning_rate": 5e-3, "seed": 0, "eval_strategy": "no"}
    names = [task.rpartition("/")[2].removesuffix(".yaml") for task in tasks]
    heads = {name: {"pooling": "mean"} for name in names}
    mtl.train(config(base, tasks, folder / "run", heads=heads, training={**training, "save_strategy": "no"}))
    return {one.task: one for one in mtl.verdict(folder / "run", seeds=3, tasks=only).tasks}


def test_a_few_rows_beside_many_of_the_same_kind_are_helped(base, tmp_path):
    tasks = [write(tmp_path, "few", 16, 1), write(tmp_path, "many", 200, 2)]
    found = judged(tmp_path, base, tasks, ["few"])["few"]
    assert found.said == HELPED, str(found.found)
    assert found.found.low > 0


def test_a_task_under_two_names_is_not_hurt_and_shuffled_labels_teach_nothing(base, tmp_path):
    one = write(tmp_path, "one", 120, 3)
    tasks = [one, write(tmp_path, "again", 120, 3), write(tmp_path, "dealt", 120, 3, prepare=SHUFFLED)]
    found = judged(tmp_path, base, tasks, ["one", "dealt"])
    assert found["one"].said != HURT and found["one"].learned
    assert found["dealt"].said not in (HELPED, HURT), "there was nothing to learn"
