"""Own data read: rows by split, where they are, and what was found on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import DataError
from nlp_mtl.files import local_files, resolve_files
from nlp_mtl.owndata.formats import files_of
from nlp_mtl.owndata.memory import is_paths, splits_of
from nlp_mtl.sources import prepared
from nlp_mtl.taskfile import Task, validated

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class OwnData:
    """Own data on its way: rows by split, where they are, and what was found."""

    splits: dict[str, Dataset]  # after what the caller says of `prepare`
    raw: dict[str, Dataset]
    spec: dict[str, Any]
    hints: tuple[str | None, str | None] = (None, None)
    notes: list[str] = field(default_factory=list)


def read_data(data: Any, options: Mapping[str, Any], columns: Sequence[str] | None) -> OwnData:
    """Own data given as objects or paths; arguments as for :func:`nlp_mtl.owndata.making.task_from_data`."""
    notes: list[str] = []
    if not is_paths(data):
        splits = splits_of(data, notes)
        return OwnData(splits, splits, {}, notes=notes)
    files = files_of(data, options, columns)
    splits = read_files(files.spec)
    return OwnData(splits, splits, files.spec, (files.text, files.label), files.notes)


def _probe(spec: Mapping[str, Any]) -> Task:
    """A task that only says where rows are, for the readers and their messages."""
    return validated({"name": "new", "head": "?", "inputs": ["?"], "dataset": dict(spec)}, "data")


def read_files(spec: Mapping[str, Any]) -> dict[str, Dataset]:
    """The rows of files, by split.

    Raises:
        DataError: files that can't be read, as of `data`.
    """
    task = _probe(spec)
    try:
        return dict(local_files(task, task.dataset, None))
    except DataError as error:
        hint = "\n(options of the reader: options={…} in Python, --option KEY=VALUE on the command line)"
        said = str(error).replace("task 'new': ", "data: ")
        files = [str(file) for group in resolve_files(task, task.dataset, None).values() for file in group]
        if not any(file in said for file in files):
            said = said.replace("data: ", f"data: {', '.join(files[:3])}: ", 1)
        raise DataError(f"{said}{hint if 'options' in said else ''}") from error


def after_preparing(splits: dict[str, Dataset], spec: Mapping[str, Any], prepare: Any) -> dict[str, Dataset]:
    """The rows after what the caller says of `prepare`."""
    task = _probe(spec or {"path": "given"})
    for step in as_list(prepare):
        splits = {split: prepared(task, step, split, rows) for split, rows in splits.items()}
    return splits


def as_list(prepare: Any) -> list[Any]:
    """The steps of `prepare`, of which one alone may stand without a list."""
    return [prepare] if isinstance(prepare, (str, Mapping)) else list(prepare)
