"""Laws of the collation: rows of any lengths, several tasks on them, labels missing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from nlp_mtl.batches import collate
from nlp_mtl.heads import make_heads
from nlp_mtl.heads.base import Head
from nlp_mtl.layout import Layout
from nlp_mtl.packing import choose_way, encode
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer
from tests.fuzz.law import law

XYZ = ["x", "y", "z"]
SAID: dict[str, dict[str, Any]] = {
    "label": {"head": "sequence_classification", "inputs": ["text"], "target": "label", "labels": XYZ},
    "score": {"head": "regression", "inputs": ["text"], "target": "score"},
    "many": {"head": "multi_label", "inputs": ["text"], "target": "many", "labels": XYZ},
    "pair": {"head": "sequence_classification", "inputs": ["text", "other"], "target": "label", "labels": XYZ},
    "tags": {"head": "token_classification", "inputs": ["words"], "target": "tags", "labels": ["O", "B-X", "I-X"]},
    "intent": {"head": "sequence_classification", "inputs": ["words"], "target": "intent", "labels": XYZ},
    "choice": {"head": {"name": "multiple_choice", "choices": "options"}, "inputs": ["text"], "target": "right"},
    "answer": {"head": "question_answering", "inputs": ["other", "text"], "target": "answers"},
    "hidden": {"head": "masked_lm", "inputs": ["text"]},
}
POOLS = {
    "texts": ("label", "score", "many"),
    "words": ("tags", "intent"),
    "choices": ("choice",),
    "windows": ("answer",),
    "masked": ("hidden",),
}


def tasks_of(file: str = "rows.jsonl", names: Any = tuple(SAID), **more: Any) -> list[Task]:
    return [Task(name=name, dataset={"path": "json", "data_files": file}, **SAID[name], **more) for name in names]


@cache
def heads() -> dict[str, Head]:
    return make_heads(tasks_of())


@cache
def tokenizer() -> Any:
    return tiny_tokenizer()


# ------------------------------------------------------------------------------------------------------ rows as made


def _labels(pool: str, lengths: list[int], pieces: list[int]) -> dict[str, st.SearchStrategy[Any]]:
    words, most = len(pieces), max(0, sum(lengths) - 1)
    return {
        "label": st.integers(0, 2),
        "score": st.floats(-5, 5, width=32),
        "many": st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3).map(np.array),
        "tags": st.lists(st.integers(-1, 2), min_size=words, max_size=words).map(np.array),
        "intent": st.integers(0, 2),
        "choice": st.integers(0, len(lengths) - 1),
        "answer": st.tuples(st.integers(0, most), st.integers(0, most)).map(np.array),
    }


@st.composite
def mixed(draw: Any) -> list[tuple[str, dict[str, Any], list[str]]]:
    """Rows of all kinds: (pool, number columns, the tasks that read the row); no token stands twice."""
    rows, first = [], 0
    for pool in draw(st.lists(st.sampled_from(list(POOLS)), min_size=1, max_size=10)):
        many = draw(st.integers(2, 4)) if pool == "choices" else 1
        lengths = [draw(st.integers(1, 12)) for _ in range(many)]
        total = sum(lengths)
        ids = np.arange(first, first + total)
        first += total
        row: dict[str, Any] = {"input_ids": ids, "token_type_ids": ids % 2, "lengths": np.array(lengths)}
        pieces: list[int] = []
        if pool == "words":  # −1: a word that was cut off
            starts = sorted(draw(st.sets(st.integers(0, total - 1), min_size=1)))
            pieces = starts + [-1] * draw(st.integers(0, 2))
            row["word_positions"] = np.array(pieces)
        if pool == "masked":
            row["chosen"] = np.array(sorted(draw(st.sets(st.integers(0, total - 1), min_size=1))))
            row["hidden_ids"] = row["chosen"] + 7
        kinds = _labels(pool, lengths, pieces)
        for task in POOLS[pool]:
            if task in kinds and draw(st.integers(0, 4)):
                row[f"labels:{task}"] = draw(kinds[task])
        readers = draw(st.lists(st.sampled_from(POOLS[pool]), unique=True))
        rows.append((pool, row, readers))
    return rows


def sequences_of(row: dict[str, Any]) -> list[list[int]]:
    return [part.tolist() for part in np.split(row["input_ids"], np.cumsum(row["lengths"])[:-1])]


def seen_labels(task: str, row: dict[str, Any]) -> Any:
    """A row's label as the batch holds it; None if it has none."""
    label = row.get(f"labels:{task}")
    if label is None:
        return None
    if task == "tags":
        return label[row["word_positions"] >= 0].tolist()
    return np.asarray(label).tolist()


def check_target(task: str, target: dict[str, Any], ids: torch.Tensor, cut: list[list[int]], rows: list[Any]) -> None:
    """A task's part of the batch against the rows that it reads."""
    labels = [seen_labels(task, row) for row in rows]
    known = all(label is not None for label in labels)
    if task == "hidden":
        assert ids[target["positions"]].tolist() == [i for row in rows for i in row["input_ids"][row["chosen"]]]
        assert target["labels"].tolist() == [i for row in rows for i in row["hidden_ids"]]
        assert target["counts"].tolist() == [len(row["chosen"]) for row in rows]
        return
    if task == "tags":
        first = [row["input_ids"][row["word_positions"][row["word_positions"] >= 0]].tolist() for row in rows]
        assert ids[target["positions"]].tolist() == [i for part in first for i in part]
        assert target["counts"].tolist() == list(map(len, first))
        labels, units = [tag for tags in labels for tag in tags or []], None
    else:
        assert [cut[i] for i in target["sequences"]] == [part for row in rows for part in sequences_of(row)]
        units = len(rows)
    assert ("labels" in target) == known, "labels where every row has one"
    if known:
        assert target["labels"].tolist() == labels
        units = sum(tag >= 0 for tag in labels) if units is None else units
    assert heads()[task].units(target) == (units if known else 0)


@law("collation", mixed(), few=80)
def batches_hold_their_rows(rows: list[tuple[str, dict[str, Any], list[str]]], folder: Path) -> None:
    """Every row stands once and unpadded, and each task's targets, owners and units are those of the rows it reads."""
    batch = collate([row for _, row, _ in rows], [readers for _, _, readers in rows], heads())
    cut = [part.tolist() for part in batch["input_ids"].split(batch["lengths"].tolist())]
    assert sorted(cut) == sorted(part for _, row, _ in rows for part in sequences_of(row))
    found = [(tuple(sorted(readers)), len(part)) for _, row, readers in rows for part in sequences_of(row)]
    assert batch["lengths"].tolist() == [length for _, length in sorted(found)], "by who reads them, then by length"
    assert batch["token_type_ids"].tolist() == [i % 2 for part in cut for i in part]
    reading = {task: [n for n, row in enumerate(rows) if task in row[2]] for task in heads()}
    assert {task: owners.tolist() for task, owners in batch["owners"].items()} == {
        t: n for t, n in reading.items() if n
    }
    assert set(batch["targets"]) == set(batch["owners"])
    for task, target in batch["targets"].items():
        check_target(task, target, batch["input_ids"], cut, [rows[n][1] for n in reading[task]])


def parts_of(batch: dict[str, Any], rows: list[Any]) -> dict[str, dict[int, Any]]:
    """What each task is told of each row, by the row's first token (no token stands twice)."""
    found: dict[str, dict[int, Any]] = {}
    for task, target in batch["targets"].items():
        owners = batch["owners"][task].tolist()
        counts = target.get("counts")
        for place, owner in enumerate(owners):
            part: dict[str, Any] = {}
            for name, value in target.items():
                if name == "counts":
                    continue
                whole = value.tolist()
                if name in ("positions", "sequences"):
                    whole = (batch["input_ids"][value] if name == "positions" else batch["lengths"][value]).tolist()
                by_row = len(whole) == len(owners) and not (counts is not None and name in ("positions", "sequences"))
                if by_row and not (task in ("tags", "hidden") and name == "labels"):
                    part[name] = whole[place]
                else:
                    begin = int(counts[:place].sum())
                    part[name] = whole[begin : begin + int(counts[place])]
            found.setdefault(task, {})[int(rows[owner][1]["input_ids"][0])] = part
    return found


@law("collation", st.tuples(mixed(), st.randoms(use_true_random=False)), few=40)
def order_does_not_matter(example: tuple[Any, Any], folder: Path) -> None:
    """In any order of tasks the batch is the same; in any order of rows each task is told the same of each row."""
    rows, shuffler = example
    batch = collate([row for _, row, _ in rows], [readers for _, _, readers in rows], heads())
    names = list(heads())
    shuffler.shuffle(names)
    turned = collate(
        [row for _, row, _ in rows],
        [shuffler.sample(readers, len(readers)) for _, _, readers in rows],
        {name: heads()[name] for name in names},
    )
    assert repr(sorted(_flat(batch).items())) == repr(sorted(_flat(turned).items()))
    other = shuffler.sample(rows, len(rows))
    moved = collate([row for _, row, _ in other], [readers for _, _, readers in other], heads())
    assert parts_of(batch, rows) == parts_of(moved, other)


def _flat(value: Any, above: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: part for name, inner in value.items() for key, part in _flat(inner, f"{above}.{name}").items()}
    return {above: value.tolist()}


@law("collation", st.tuples(mixed(), st.integers(1, 4)), few=40)
def units_add_up(example: tuple[Any, int], folder: Path) -> None:
    """The units of micro-batches add up to those of the whole, where tasks read rows that they can learn from."""
    rows, parts = example
    learn = [
        (row, [t for t in readers if not heads()[t].needs_labels or row.get(f"labels:{t}") is not None])
        for _, row, readers in rows
    ]

    def units(some: list[Any]) -> dict[str, int]:
        targets = collate([row for row, _ in some], [readers for _, readers in some], heads())["targets"]
        return {task: heads()[task].units(target) for task, target in targets.items()}

    cut = [units(learn[part::parts]) for part in range(parts)]
    for task, count in units(learn).items():
        assert sum(part.get(task, 0) for part in cut) == count
        if task not in ("tags", "hidden"):
            assert count == sum(task in readers for _, readers in learn)


@cache
def encoder() -> Any:
    return tiny_encoder().eval()


@law("packing", st.lists(st.integers(1, 30), min_size=1, max_size=9), few=15)
def packed_rows_do_not_see_each_other(lengths: list[int], folder: Path) -> None:
    """The hidden states of a row in a packed batch are those of the row alone, whatever stands beside it."""
    ids = torch.arange(5, 5 + sum(lengths)) % (len(tokenizer()) - 5) + 5
    inputs = {"input_ids": ids, "token_type_ids": ids % 2}
    way, _ = choose_way(encoder())
    assert way == "packed"
    with torch.no_grad():
        hidden = encode(encoder(), inputs, Layout(lengths), way).split(lengths)
        for number, alone in enumerate(zip(*(part.split(lengths) for part in inputs.values()), strict=True)):
            states = encode(encoder(), dict(zip(inputs, alone, strict=True)), Layout([lengths[number]]), way)
            assert torch.allclose(hidden[number], states, atol=1e-5)
