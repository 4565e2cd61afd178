"""Folders of text files: one sub-folder per label, one text per file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_mtl.errors import DataError, suggestion

if TYPE_CHECKING:
    from datasets import Dataset


def label_folders(folder: Path, labels: Sequence[str] | None = None) -> list[Path]:
    """The sub-folders of a folder, by name; hidden ones are left out.

    Args:
        labels: only these.

    Raises:
        DataError: there are none, or one that is asked for is not there.
    """
    found = {place.name: place for place in sorted(folder.iterdir()) if place.is_dir() and place.name[0] != "."}
    if not found:
        raise DataError(
            f"{folder}: has no sub-folder; `path: folders` reads one sub-folder of text files per label; make them, or "
            "name another folder"
        )
    missing = [label for label in labels or () if label not in found]
    if missing:
        raise DataError(
            "\n".join(
                f"{folder}: `options.labels`: no sub-folder {name!r}{suggestion(name, found)}" for name in missing
            )
        )
    return [place for name, place in found.items() if labels is None or name in labels]


def text_files(folder: Path, pattern: str = "*") -> list[Path]:
    """All files below a folder whose names match `pattern`, by path; hidden ones are left out."""
    return [
        file
        for file in sorted(folder.rglob(pattern))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def listed(place: Path, pattern: str = "*") -> list[Path]:
    """A file itself, or all files below a folder that match `pattern`."""
    return text_files(place, pattern) if place.is_dir() else [place]


def read_folders(
    folders: Sequence[Path],
    read: Callable[[Path], str],
    *,
    pattern: str = "*",
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Rows of columns ``text``, ``label`` (the sub-folder's name) and ``file``, in the order of labels and file names.

    Args:
        folders: each with one sub-folder per label.
        read: a file's text.
        pattern: which files, as in a shell.
        labels: only these sub-folders.

    Raises:
        DataError: a folder without sub-folders.
    """
    from datasets import Dataset

    rows: dict[str, list[str]] = {"text": [], "label": [], "file": []}
    for folder in folders:
        for place in label_folders(folder, labels):
            for file in text_files(place, pattern):
                rows["text"].append(read(file).strip())
                rows["label"].append(place.name)
                rows["file"].append(file.relative_to(folder).as_posix())
    return Dataset.from_dict(rows)
