"""Rows of a task: from a local mirror, the `datasets` cache, the Hub, local files or a package.

The order for a Hub id is: ``<data root>/<id>`` (``--data-root`` or ``NLP_MTL_DATA_ROOT``, in the Hub's own layout), the
`datasets` cache, the Hub. Nothing here knows about models or tensors.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import innertexts, packages, registry
from nlp_mtl.dataspec import PartOf
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, UnknownNameError, near, shown, suggestion
from nlp_mtl.fields import read_arguments
from nlp_mtl.files import local_files, resolve_files
from nlp_mtl.folders import listed
from nlp_mtl.hubdata import hub_dataset
from nlp_mtl.reading import short
from nlp_mtl.taskfile import LOCAL_FORMATS, SPLITS, TASKS, InMemory, Split, Task
from nlp_mtl.tasks import inner_tasks
from nlp_mtl.template import is_nothing

if TYPE_CHECKING:
    from datasets import Dataset


def load_rows(task: Task, *, data_root: str | Path | None = None) -> dict[Split, Dataset]:
    """The rows of a task by split: found, prepared, split and capped as its file says.

    Args:
        data_root: a folder that mirrors data sets under their Hub ids; default ``NLP_MTL_DATA_ROOT``.

    Raises:
        NotFoundError: the data set is nowhere; lists what was tried, in order.
        DataError: a file that can't be read, a split or column that isn't there, a split without rows.
    """
    found = _raw_splits(task, data_root)
    chosen = _choose_splits(task, found)
    for spec in task.prepare:
        chosen = {split: prepared(task, spec, split, rows) for split, rows in chosen.items()}
    _check_columns(task, chosen)
    chosen = _part(task, _hold_out(task, chosen))
    for split, cap in task.rows.items():
        if split in chosen and len(chosen[split]) > cap:
            chosen[split] = _capped(task, split, chosen[split], cap)
    for split, rows in chosen.items():
        if not len(rows):
            raise DataError(
                f"task {task.name!r}: the split {split!r} has no rows, and one at least is needed; check `splits`, "
                "`prepare` and the data"
            )
    return chosen


def identity(task: Task, *, data_root: str | Path | None = None) -> str:
    """A short text that changes when the rows of a task may have changed: files by size and time, others by version."""
    spec = task.dataset
    found: list[Any]
    if spec.memory is not None:
        _in_memory(task, spec.memory)  # refuses a task without its rows, also where they were tokenized before
        found = [spec.memory.fingerprint]
    elif spec.path == TASKS:
        found = [identity(one, data_root=data_root) for one in inner_tasks(task)]
    elif spec.path in LOCAL_FORMATS:
        places = [place for group in resolve_files(task, spec, data_root).values() for place in group]
        files = [file for place in places for file in listed(place)]
        found = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        if spec.package:
            found = [packages.package_table().packages[spec.package].sha256]
    else:
        found = [(split, rows._fingerprint) for split, rows in _raw_splits(task, data_root).items()]
    said = task.model_dump(
        mode="json",
        include={"dataset", "splits", "split_seed", "prepare", "rows", "rows_seed", "inputs", "metric_columns"},
    )
    ways = [registry.own_source(registry.preparations[_preparation(task, spec)[0]]) for spec in task.prepare]
    return hashlib.sha256(json.dumps([found, said, ways], sort_keys=True).encode()).hexdigest()[:24]


def _choose_splits(task: Task, found: Mapping[str, Dataset]) -> dict[Split, Dataset]:
    chosen: dict[Split, Dataset] = {}
    mistakes = []
    for split in SPLITS:
        wanted = task.splits.get(split, split)
        if not isinstance(wanted, str):
            continue
        if wanted == "validation" and wanted not in found and "dev" in found and split not in task.splits:
            wanted = "dev"
        if wanted in found:
            chosen[split] = found[wanted]
        elif split in task.splits:
            said = f"task {task.name!r}: `splits.{split}` names a split of the data, found {wanted!r}"
            mistakes.append(f"{said}{near(wanted, found)}; the data has {', '.join(found)}")
    if mistakes:
        raise DataError("\n".join(mistakes))
    if not chosen:
        raise DataError(f"task {task.name!r}: none of the data's splits ({', '.join(found)}) is used; set `splits`")
    return chosen


def _preparation(task: Task, spec: registry.Spec) -> tuple[str, dict[str, Any]]:
    """Its name, which is known, and its arguments."""
    name, arguments = registry.parse_spec(spec, f"task {task.name!r}: `prepare`")
    if name not in registry.preparations:
        raise UnknownNameError("preparation", name, registry.preparations, where=f"task {task.name!r}: `prepare`: ")
    return name, arguments


def prepared(task: Task, spec: registry.Spec, split: str, rows: Dataset) -> Dataset:
    """Rows after one preparation.

    Raises:
        ConfigError: an unknown preparation, or arguments that it does not take.
        DataError: rows that it can't prepare.
    """
    name, arguments = _preparation(task, spec)
    mistakes = registry.preparations.check_arguments(name, arguments, given=1)
    if mistakes:
        raise ConfigError([f"task {task.name!r}: `prepare`: {message}" for message in mistakes])
    place = f"task {task.name!r}, split {split!r}: `prepare: {name}`"
    try:
        return registry.preparations[name](rows, **read_arguments(registry.preparations[name], arguments)[0])
    except KeyError as error:
        way = suggestion(str(error.args[0]), rows.column_names)
        raise DataError(f"{place} reads {error.args[0]!r}, which the data does not have{way}") from error
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except Exception as error:  # whatever a function of the user's own raises
        kinds = ", ".join(f"{column}: {rows.features[column]}" for column in rows.column_names)
        raise DataError(
            f"{place} fails with {type(error).__name__}: {short(error)}; it was given {shown(dict(arguments))} and the "
            f"columns {kinds}; correct its arguments, or put a preparation before it that makes the rows fit"
        ) from error


def _check_columns(task: Task, splits: Mapping[Split, Dataset]) -> None:
    mistakes = []
    for split, rows in splits.items():
        needed = {"inputs": task.inputs}
        if split != "test":  # may have neither labels nor what goes with them
            needed["target"] = [task.target] if task.target else []
            needed["metric_columns"] = list(task.metric_columns.values())
        for key, columns in needed.items():
            for column in columns:
                if column not in rows.column_names:
                    mistakes.append(
                        f"task {task.name!r}, split {split!r}: `{key}` names the column {column!r}, which the data "
                        f"does not have{suggestion(column, rows.column_names)}"
                    )
    if mistakes:
        raise DataError("\n".join(dict.fromkeys(mistakes)))


def _hold_out(task: Task, splits: dict[Split, Dataset]) -> dict[Split, Dataset]:
    """Shares of the training rows for validation and test, by a hash of the inputs.

    Equal inputs have equal hashes, so a text never stands on both sides, and rows added later move no old row. Of rows
    with equal inputs the first that has a label stays, or the first. Where rows have groups, the hash is the group's,
    so that a group stands on one side.
    """
    shares = {split: share for split, share in task.splits.items() if isinstance(share, float)}
    if not shares:
        return splits
    if "train" not in splits:
        raise DataError(f"task {task.name!r}: `splits` takes shares of the training rows, and there are none")
    rows = splits["train"]
    parts: dict[Split, list[int]] = {split: [] for split in ("train", *shares)}
    labels = rows[task.target][:] if task.target in rows.column_names else None
    first: dict[bytes, int] = {}
    groups = rows[task.metric_columns["groups"]][:] if "groups" in task.metric_columns else None
    salt = task.split_seed.to_bytes(8, "big")  # that of seed 0 is no salt
    for index, values in enumerate(zip(*(rows[column] for column in task.inputs), strict=True)):
        digest = _digest(values, salt)
        if labels is not None and digest in first and _is_blank(labels[first[digest]]) and not _is_blank(labels[index]):
            first[digest] = index
        first.setdefault(digest, index)
    for digest, index in first.items():
        if groups is not None:
            digest = _digest(groups[index], salt)
        place, edge = int.from_bytes(digest, "big") / 2**64, 0.0
        for split, share in shares.items():
            edge += share
            if place < edge:
                parts[split].append(index)
                break
        else:
            parts["train"].append(index)
    return {**splits, **{split: rows.select(sorted(indices)) for split, indices in parts.items()}}


def _part(task: Task, splits: dict[Split, Dataset]) -> dict[Split, Dataset]:
    """A share of the validation rows for test, by another hash of inputs, or groups, than `_hold_out` takes."""
    part = task.splits.get("test")
    if not isinstance(part, PartOf):
        return splits
    if "validation" not in splits:
        raise DataError(
            f"task {task.name!r}: `splits.test` takes a share of the validation rows, and there are none; hold some "
            "out (`validation: 0.1`)"
        )
    rows = splits["validation"]
    columns = [task.metric_columns["groups"]] if "groups" in task.metric_columns else task.inputs
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index, values in enumerate(zip(*(rows[column] for column in columns), strict=True)):
        digest = _digest(["part", values], task.split_seed.to_bytes(8, "big"))
        sides[int.from_bytes(digest, "big") / 2**64 < part.share].append(index)
    return {**splits, "validation": rows.select(sides[False]), "test": rows.select(sides[True])}


def _is_blank(label: Any) -> bool:
    return is_nothing(label) or (isinstance(label, str) and not label.strip())


def _digest(value: Any, salt: bytes = b"") -> bytes:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8, salt=salt).digest()


def _capped(task: Task, split: Split, rows: Dataset, cap: int) -> Dataset:
    """At most `cap` rows, drawn with a fixed seed; where rows have groups, whole groups."""
    if "groups" not in task.metric_columns:
        return rows.shuffle(seed=task.rows_seed).select(range(cap))
    members: dict[bytes, list[int]] = {}
    for index, group in enumerate(rows[task.metric_columns["groups"]][:]):
        members.setdefault(_digest(group), []).append(index)
    order = list(members.values())
    random.Random(task.rows_seed).shuffle(order)
    kept: list[int] = []
    for indices in order:
        if len(kept) + len(indices) > cap:
            break
        kept += indices
    if not kept:
        raise DataError(
            f"task {task.name!r}: `rows.{split}: {cap}` is less than a group of rows that stay together, the first "
            f"drawn has {len(order[0])}; raise it"
        )
    return rows.select(kept)


# ----------------------------------------------------------------------------------------- finding the raw rows


def _raw_splits(task: Task, data_root: str | Path | None) -> Mapping[str, Dataset]:
    spec = task.dataset
    if spec.memory is not None:
        return _in_memory(task, spec.memory)
    if spec.path == TASKS:
        return innertexts.texts_of(task, inner_tasks(task), partial(load_rows, data_root=data_root))
    if spec.path in LOCAL_FORMATS:
        return local_files(task, spec, data_root)
    return hub_dataset(task, spec, data_root)


def _in_memory(task: Task, known: InMemory) -> Mapping[str, Dataset]:
    if task.rows_in_memory is not None:
        return task.rows_in_memory
    counts = ", ".join(f"{split} {count}" for split, count in known.rows.items())
    raise NotFoundError(
        f"the data of task {task.name!r}",
        [
            f"memory: this task was made in Python by Task.from_data from rows in memory ({counts}; columns "
            f"{', '.join(known.columns)}; fingerprint {known.fingerprint}), which no file of the run holds"
        ],
        [
            f"make the task again from the same rows, task = Task.from_data({task.name!r}, data, …); then train with "
            "[task], or evaluate(RUN, tasks=[task])",
            "write the rows to a file (data.to_parquet(…)); `nlp-mtl tasks new FILE` writes a task file for it",
            "predictions need no rows: nlp-mtl predict RUN TEXT",
        ],
    )
