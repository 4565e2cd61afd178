"""Laws of the way from rows in a file to mixed batches, and of rows that no head can read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.heads import make_heads
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.labels import Where
from nlp_mtl.testing import WORDS
from tests.fuzz.batches import SAID, XYZ, heads, tasks_of, tokenizer
from tests.fuzz.law import law, ours
from tests.fuzz.values import any_text, clean_values, half_text, json_values, values

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)


@st.composite
def right_rows(draw: Any) -> list[dict[str, Any]]:
    """Rows that every head can read, some without labels."""
    rows = []
    for number in range(draw(st.integers(2, 8))):
        row: dict[str, Any] = {"text": draw(texts), "other": draw(texts), "words": draw(texts).split()}
        row["label"] = draw(st.sampled_from([*XYZ, None])) if number > 1 else XYZ[number]
        row["score"] = draw(st.one_of(st.none(), st.floats(-5, 5))) if number else 1.5
        row["many"] = draw(st.one_of(st.none(), st.lists(st.sampled_from(XYZ), unique=True))) if number else ["x"]
        count = len(row["words"])
        row["tags"] = draw(st.lists(st.sampled_from(["O", "B-X", "I-X"]), min_size=count, max_size=count))
        row["intent"] = draw(st.sampled_from([*XYZ, None])) if number else "x"
        row["options"] = [draw(texts) for _ in range(draw(st.integers(2, 4)))]
        row["right"] = draw(st.one_of(st.none(), st.integers(0, 1))) if number else 1
        word = draw(st.sampled_from(row["text"].split()))
        row["answers"] = {"text": [word], "answer_start": [row["text"].index(word)]}
        rows.append(row)
    return rows


def load(rows: list[dict[str, Any]], folder: Path, names: Any = tuple(SAID), max_length: int = 32) -> Any:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with mock.patch.dict(os.environ, {"NLP_MTL_CACHE": str(folder / "cache")}):
        return load_data(make_heads(tasks_of(str(folder / "rows.jsonl"), names)), tokenizer(), max_length=max_length)


@law("collation", st.tuples(right_rows(), st.sampled_from([12, 16, 32]), st.booleans()), few=5)
def rows_come_through(example: tuple[list[dict[str, Any]], int, bool], folder: Path) -> None:
    """From a file of rows to the batch: texts, tags and labels of every row are those that were written."""
    rows, length, training = example
    data = ours(lambda: load(rows, folder, max_length=length), "task 'answer'")
    if data is None:
        assert length < 32, "a question that leaves no room for the context"
        return
    pools = data.splits["train"]
    for number, pool in enumerate(pools):
        refs = [(number, row, 0) for row in range(len(pool))]
        batch = Collator(pools, data.heads, training=training)(refs)
        cut = [part.tolist() for part in batch["input_ids"].split(batch["lengths"].tolist())]
        if "answer" not in pool.tasks:
            assert len(pool) == len(rows)
        if pool.tasks[0] in ("label", "pair"):
            columns = [[row[name] for row in rows] for name in data.heads[pool.tasks[0]].task.inputs]
            whole = tokenizer()(*columns, truncation=True, max_length=length)["input_ids"]
            assert sorted(cut) == sorted(whole)
        for task in pool.tasks:
            check_labels(task, data.heads[task], batch, rows, training)


def check_labels(task: str, head: Head, batch: dict[str, Any], rows: list[dict[str, Any]], training: bool) -> None:
    target = batch["targets"].get(task, {})
    if task in ("hidden", "answer") or "labels" not in target:
        return
    given = [rows[owner][head.task.target or ""] for owner in batch["owners"][task].tolist()]
    assert None not in given
    if training:
        assert len(given) == sum(row[head.task.target or ""] is not None for row in rows)
    names = head.labels or []
    read = target["labels"].tolist()
    if task in ("label", "pair", "intent"):
        assert [names[label] for label in read] == given
    elif task == "choice":
        assert read == given
    elif task == "score":
        assert np.allclose(read, given)
    elif task == "many":
        assert [{name for name, holds in zip(names, row, strict=True) if holds} for row in read] == list(
            map(set, given)
        )
    else:
        counts = target["counts"].tolist()
        assert [names[tag] for tag in read] == [tag for tags, n in zip(given, counts, strict=True) for tag in tags[:n]]


TRY = st.one_of(st.none(), st.just(""), st.just([]), half_text, json_values)


@st.composite
def wrong_rows(draw: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Right rows with a few cells or a column changed, and the tasks that read them."""
    rows = draw(right_rows())
    columns = list(rows[0])
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        column = draw(st.sampled_from(columns))
        kind = draw(st.sampled_from([clean_values, any_text, st.integers(-2, 9), st.lists(any_text, max_size=3), TRY]))
        if draw(st.booleans()):
            for row in rows:
                row[column] = draw(kind)
        else:
            draw(st.sampled_from(rows))[column] = draw(kind)
    return rows, draw(st.lists(st.sampled_from(list(SAID)), min_size=1, max_size=4, unique=True))


@law("collation", st.tuples(wrong_rows(), st.integers(4, 32)), few=12)
def wrong_rows_are_refused(example: tuple[tuple[list[dict[str, Any]], list[str]], int], folder: Path) -> None:
    """Rows with values of any kind make whole batches, or are refused with a message that names the task."""
    (rows, names), length = example
    data = ours(lambda: load(rows, folder, names, length), *(f"task {name!r}" for name in names), "tasks ")
    for number, pool in enumerate(data.splits["train"] if data else []):
        for training in (True, False):
            batch = Collator(data.splits["train"], data.heads, training=training)(
                [(number, row, 0) for row in range(len(pool))]
            )
            assert int(batch["lengths"].sum()) == batch["input_ids"].numel()
            for task, target in batch["targets"].items():
                units = data.heads[task].units(target)
                assert units <= sum(part.numel() for part in target.values())


@law(
    "collation",
    st.tuples(
        st.sampled_from(list(SAID)),
        st.lists(st.fixed_dictionaries({c: st.one_of(values, half_text) for c in (
            "text", "other", "words", "label", "score", "many", "tags", "intent", "options", "right", "answers"
        )}), min_size=1, max_size=3),
        st.integers(4, 16),
    ),
    few=60,
)  # fmt: skip
def wrong_values_are_refused(example: tuple[str, list[dict[str, Any]], int], folder: Path) -> None:
    """A head reads any Python values as inputs and labels, or refuses them with a message that names the task."""
    name, rows, length = example
    head, where = heads()[name], Where(name, "train")
    columns = {column: [row[column] for row in rows] for column in rows[0]}
    needed = {column: columns[column] for column in head.needed_columns()}
    made = ours(lambda: head.tokenize(needed, tokenizer(), length, where), f"task {name!r}")
    given = columns.get(head.task.target or "", [None] * len(rows))
    head.look_at(given)
    labels = ours(lambda: head.encode_labels(given, None, columns, where), f"task {name!r}")
    assert labels is None or len(labels) == len(rows)
    if made is not None:
        assert [sum(lengths) for lengths in made["lengths"]] == [len(ids) for ids in made["input_ids"]]
        if labels is not None:
            assert len(head.place_labels(labels, made)) == len(made["input_ids"])
