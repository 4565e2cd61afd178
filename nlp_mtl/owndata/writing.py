"""The task file of own data: written once, whole, with the reasons for what stands in it."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError
from nlp_mtl.owndata.examples import made_up, taken
from nlp_mtl.owndata.making import task_from_data
from nlp_mtl.owndata.places import split_of
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task, validated
from nlp_mtl.taskreader import read_task

_ORDER = ("name", "head", "dataset", "splits", "prepare", "inputs", "template", "target", "labels", "metrics")
_MADE_UP = (
    "Rows for `nlp-mtl tasks check`. They are made up, so that nothing of your data but the labels' names stands in "
    "this "
    "file, which may be shared when the data may not; `tasks new --examples 2` puts rows of the data here instead."
)
_TAKEN = "Rows for `nlp-mtl tasks check`, taken from the data: share this file only with those who may see them."
_BY_HAND = "Write a row or two in the shape of the data here, for `nlp-mtl tasks check`."


def new_task_file(
    data: Any,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    examples: int = 0,
    overwrite: bool = False,
    **given: Any,
) -> Task:
    """Write the task file for own data in files; what ``nlp-mtl tasks new`` does.

    Args:
        data: a path, several, or paths by split.
        name: of the task; default that of the file or folder.
        out: the file to write; default ``NAME.yaml`` in the working folder.
        examples: how many rows of the data stand in the file as examples; with 0 they are made up.
        overwrite: replace a file that is there.
        given: as for :meth:`nlp_mtl.taskfile.Task.from_data`.

    Returns:
        The task, as it is read back from the file (:attr:`Task.file`), with what was inferred.

    Raises:
        ConfigError: everything that is wrong or can't be told; nothing is written then.
        DataError: files or rows that can't be read.
    """
    chosen = name if name is not None else task_name(data)
    file = Path(out) if out is not None else Path(f"{chosen}.yaml")
    mistakes = _wrong_place(file, overwrite)
    if examples < 0:
        mistakes.append(f"examples: how many rows, from 0, found {examples}; with 0 they are made up")
    try:
        with quiet_datasets():
            task = task_from_data(chosen, data, **given)
            text = task_text(task, file.parent, examples)
            validated(yamlfile.loads(text, str(file))[0], str(file))  # what can't be read is not written
    except ConfigError as error:
        raise ConfigError([*mistakes, *error.mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    write_text(file, text)
    return read_task(file).knowing(None, task.inferred)


def task_name(data: Any) -> str:
    """A name for a task from that of its file or folder; of several, or of a split's file, that of the folder.

    Example:
        >>> task_name("data/product reviews.csv"), task_name(["topics/train.csv", "topics/test.csv"])
        ('product_reviews', 'topics')
    """
    paths = (
        list(data.values()) if isinstance(data, Mapping) else [data] if isinstance(data, (str, Path)) else list(data)
    )
    path = Path(paths[0] if isinstance(paths[0], (str, Path)) else paths[0][0]) if paths else Path("task")
    stem = path.stem if path.suffix and not path.is_dir() else path.name
    if len(paths) > 1 or split_of(stem) is not None or not stem:
        stem = path.resolve().parent.name if stem else path.resolve().name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:64] or "task"


def task_text(task: Task, folder: Path, examples: int = 0) -> str:
    """The task file's text.

    Args:
        task: the task, with its data in files.
        folder: where the file will stand; paths of data files are told from there.
        examples: how many rows of the data stand in it; with 0 they are made up.

    Raises:
        ConfigError: the rows are in memory, which no file can say.
    """
    if task.dataset.memory is not None:
        raise ConfigError(
            f"task {task.name!r}: its rows are in memory, and a task file names files; write them to one first "
            "(data.to_parquet(…)) and make the task from that"
        )
    said = task.model_dump(mode="json", exclude_unset=True)
    said["dataset"]["data_files"] = _told_from(folder, task.dataset.data_files)
    rows = load_rows(task)["train"]
    known = task.head_name in (
        "sequence_classification",
        "token_classification",
        "multi_label",
        "regression",
        "seq2seq",
    )
    said.pop("examples", None)
    shown = taken(task, rows, examples) if examples else made_up(task, rows) if known else []
    if task.template is not None:
        said.pop("inputs", None)
    lines = _comment("Made by `nlp-mtl tasks new`. What was inferred, and why; correct what is wrong.")
    lines += [line for note in task.inferred for line in _comment(note, "- ")]
    order = [*(key for key in _ORDER if key in said), *(key for key in said if key not in _ORDER)]
    lines.append(yamlfile.dumps({key: said[key] for key in order}, flow=True).rstrip())
    lines += _comment(_TAKEN if examples else _MADE_UP if shown else _BY_HAND)
    lines.append(yamlfile.dumps({"examples": shown}, flow=True).rstrip())
    return "\n".join(lines) + "\n"


def _wrong_place(file: Path, overwrite: bool) -> list[str]:
    mistakes = []
    if file.suffix not in (".yaml", ".yml"):
        mistakes.append(f"out: a task file ends in .yaml, found {str(file)!r}")
    if not file.parent.is_dir():
        mistakes.append(f"out: {file.parent}: no such folder; make it, or name another one (--out)")
    elif file.is_dir():
        mistakes.append(f"out: {file} is a folder; name a file (--out)")
    elif file.exists() and not overwrite:
        mistakes.append(f"out: {file} is there already; name another file (--out) or task (--name), or say --overwrite")
    return mistakes


def _told_from(folder: Path, files: Any) -> Any:
    """Paths of data files told from the task file's folder, or absolute where the two have only the root in common."""
    if isinstance(files, Mapping):
        return {split: _told_from(folder, value) for split, value in files.items()}
    if isinstance(files, list):
        return [_told_from(folder, value) for value in files]
    path, base = Path(files).expanduser().resolve(), folder.resolve()
    if len(Path(os.path.commonpath([path, base])).parts) <= 1:
        return str(path)
    return Path(os.path.relpath(path, base)).as_posix()


def _comment(text: str, mark: str = "") -> list[str]:
    """Comment lines; what a text brings of line breaks does not end the comment."""
    plain = " ".join(text.split())
    return textwrap.wrap(plain, 110, initial_indent=f"# {mark}", subsequent_indent="# " + " " * len(mark))
