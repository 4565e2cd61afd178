"""Task files of several tasks on the same rows, and forms of the Hub that preparations turn into words and tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from nlp_mtl.sources import load_rows
from nlp_mtl.tasks import TaskRegistry, builtin_folder, load_tasks

TASKS = TaskRegistry([builtin_folder()])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("snips_intent", "snips_slots"),
        ("atis_intent", "atis_slots"),
        ("conll2003", "conll2003_pos"),
        ("conll2003", "conll2003_chunks"),
        *[(f"massive_{language}_intent", f"massive_{language}_slots") for language in ("en", "de", "fr", "es")],
    ],
)
def test_tasks_on_the_same_rows_say_the_same_of_them(one, other):
    for key in ("dataset", "splits", "inputs", "prepare", "language"):
        assert getattr(TASKS.tasks[one], key) == getattr(TASKS.tasks[other], key), key


@pytest.mark.parametrize("name", ["snips_intent", "snips_slots", "atis_intent", "atis_slots"])
def test_intents_and_slots_as_the_hub_holds_them(name, tmp_path):
    """The Parquet branch: a folder for each set, words and tags as lists; one row has a tag too few."""
    task = TASKS.tasks[name]
    rows = [{"text": row["tokens"], "slot": row["slots"], "intent": row["intent"]} for row in task.examples]
    folder = tmp_path / task.dataset.path / task.dataset.name
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        broken = {**rows[0], "slot": rows[0]["slot"][:-1]}
        Dataset.from_list([*rows, broken]).to_parquet(folder / split / "0000.parquet")
    found = load_rows(task, data_root=tmp_path)
    assert set(found) == {"train", "validation", "test"}
    for split in found.values():
        assert split.to_list() == task.examples


def test_massive_as_the_hub_holds_it(tmp_path):
    task = TASKS.tasks["massive_en_slots"]
    folder = tmp_path / task.dataset.path / "en-US"
    marked = ["remind me of the [event_name : choir] at [time : seven pm]", "will it rain in [place_name : bergen]"]
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        Dataset.from_dict({"annot_utt": marked, "intent": [50, 13]}).to_parquet(folder / split / "0000.parquet")
    first = load_rows(task, data_root=tmp_path)["test"][0]
    assert {key: first[key] for key in ("tokens", "slots", "intent")} == task.examples[0]


def parquet(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")


def test_civil_comments_as_the_hub_holds_them(tmp_path):
    names = TASKS.tasks["civil_comments"].labels
    scores = [{}, {"toxicity": 0.5, "insult": 0.9}, {"toxicity": 0.49, "threat": 0.1}]
    rows = [{"text": f"comment {n}", **dict.fromkeys(names, 0.0), **given} for n, given in enumerate(scores)]
    parquet(tmp_path / "google" / "civil_comments", [*rows, {**rows[0], "text": " "}])
    tasks = load_tasks(["civil_comments", "civil_toxicity"])
    found = [load_rows(task, data_root=tmp_path)["train"] for task in tasks]
    assert found[0][:] == found[1][:], "the same rows, so that they are encoded once for both"
    assert found[0]["labels"][:] == [[], ["toxicity", "insult"], []]
    assert found[0]["toxic"][:] == ["not_toxic", "toxic", "not_toxic"]


def test_translations_as_the_hub_holds_them(tmp_path):
    for name, (source, _) in (("wmt16_de_en", ("de", "en")), ("wmt16_ro_en", ("ro", "en"))):
        task = TASKS.tasks[name]
        rows = [{"translation": {source: f"x {n}", "en": f"y {n}"}} for n in range(3)]
        parquet(tmp_path / task.dataset.path / task.dataset.name, rows)
        found = load_rows(task, data_root=tmp_path)["train"]
        assert found[2] == {source: "x 2", "en": "y 2"}
        assert (task.inputs, task.target) == ([source], "en")
