"""What a run's rows are like: how many, how long, how often the same, on both sides, and how the labels are spread."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.data import Data, load_data
from nlp_mtl.findings import Finding, Table
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.recording import find_files_again, recorded
from nlp_mtl.taskfile import SPLITS, Split

NAME, _MOST = "data", 8


def data_finding(folder: str | Path, key: str, *, data_root: str | Path | None = None) -> Finding:
    """A summary of a run's rows.

    Rows are the same where their tokens are, so after they were cut to the maximum length.

    Args:
        folder: the run's.
        key: kept in the finding, to know it again.
        data_root: where data sets are looked for first; default that of the run.
    """
    model = MultiTaskModel.from_pretrained(folder)
    run_file = recorded(folder)
    root = data_root or run_file.get("data_root")
    find_files_again(model.heads, run_file)
    data = load_data(model.heads, model.tokenizer, max_length=model.max_length, data_root=root)
    hashes = {
        (task, split): _hashes(data, task, split)
        for task in model.heads
        for split in SPLITS
        if data.pool_of(task, split) is not None
    }
    rows: list[list[str]] = []
    warnings: list[str] = []
    numbers: dict[str, dict[str, Any]] = {}
    for task in model.heads:
        for split in SPLITS:
            if (task, split) not in hashes:
                continue
            own = hashes[task, split]
            facts, pool = data.facts(task, split), data.pool_of(task, split)
            tokens = pool.tokens if pool is not None else np.zeros(0)
            again = len(own) - len(set(own))
            said: dict[str, Any] = {
                **facts,
                "duplicates": again,
                "mean_tokens": round(float(tokens.mean()), 1) if len(tokens) else None,
                "labels": _labels(data, task, split),
            }
            numbers.setdefault(task, {})[split] = said
            rows.append(
                [
                    task,
                    split,
                    str(facts["rows"]),
                    str(facts["labelled"]),
                    "—" if said["mean_tokens"] is None else f"{said['mean_tokens']:.0f}",
                    _share(facts["truncated"], facts["rows"]),
                    _share(again, facts["rows"]),
                    "—" if split == "train" else _share(facts["in_train"], facts["rows"]),
                    said["labels"]["said"] if said["labels"] else "—",
                ]
            )
            if split != "train" and facts["in_train"]:
                warnings.append(
                    f"{task}: {facts['in_train']} of {facts['rows']} {split} rows are among its training rows; its "
                    "score is too good by what is remembered."
                )
    across = _across(hashes)
    warnings += [
        f"{count} {split} rows of {task} are among the training rows of {other}: what one learns by heart, the other "
        "is asked."
        for (task, split, other), count in across.items()
    ]
    head = ["task", "split", "rows", "labelled", "tokens", "cut", "repeated", "in train", "labels"]
    return Finding(
        NAME,
        "The rows",
        warnings or ["No row of a validation or test split is among the training rows, of its own task or another."],
        [Table("", head, rows)],
        [],
        {"run": key, "tasks": numbers, "across": [[*where, count] for where, count in across.items()]},
    )


def _hashes(data: Data, task: str, split: Any) -> list[bytes]:
    pool = data.pool_of(task, split)
    if pool is None:
        return []
    ids = pool.columns["input_ids"]
    return [
        hashlib.blake2b(np.asarray(ids[row], dtype=np.int32).tobytes(), digest_size=8).digest()
        for row in range(len(pool))
    ]


def _across(hashes: dict[tuple[str, Split], list[bytes]]) -> dict[tuple[str, str, str], int]:
    """(task, split, other task) → rows of the split that the other trains on."""
    train = {task: set(own) for (task, split), own in hashes.items() if split == "train"}
    found: dict[tuple[str, str, str], int] = {}
    for (task, split), own in hashes.items():
        for other, known in train.items():
            if split != "train" and other != task and (count := sum(one in known for one in own)):
                found[task, split, other] = count
    return found


def _labels(data: Data, task: str, split: Any) -> dict[str, Any] | None:
    """How labels are spread: shares of classes, or mean and spread of numbers."""
    pool, head = data.pool_of(task, split), data.heads[task]
    if pool is None or not head.needs_labels:
        return None
    values = [one for one in _flat(pool.labels(task)) if one is not None]
    if not values:
        return None
    if head.labels and all(isinstance(one, int) for one in values[:100]):
        names = list(head.labels)
        counts = Counter(names[one] for one in values if 0 <= one < len(names))
        total = sum(counts.values()) or 1
        most = counts.most_common(_MOST)
        more = f", and {len(counts) - _MOST} more" if len(counts) > _MOST else ""
        said = ", ".join(f"{name} {count / total:.0%}" for name, count in most) + more
        return {"said": said, "counts": dict(counts.most_common())}
    if all(isinstance(one, (int, float)) for one in values):
        array = np.asarray(values, dtype=float)
        return {
            "said": f"{array.mean():.2f} ± {array.std():.2f}, {array.min():g} to {array.max():g}",
            "mean": float(array.mean()),
            "std": float(array.std()),
        }
    return None


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _share(count: int, whole: int) -> str:
    return "0" if not count else f"{count} ({count / whole:.0%})"
