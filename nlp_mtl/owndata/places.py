"""Which file of own data is which split: by what is said, or by the names of files and sub-folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.folders import text_files

SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".conll", ".iob", ".iob2", ".bio"), "conll"),
}
KNOWN = "CSV or TSV, JSONL, parquet, CoNLL, a folder of such files, or a folder with one sub-folder of texts per label"
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}

Paths = str | Path | Sequence[str | Path] | Mapping[str, Any]


def split_of(name: str) -> str | None:
    """The split that a name speaks of, if it does.

    Example:
        >>> split_of("train-00000-of-00001"), split_of("my_dev"), split_of("Test"), split_of("contest")
        ('train', 'validation', 'test', None)
    """
    said = set(re.split(r"[^a-z]+", name.lower()))
    found = [split for split, words in _SPLIT_WORDS.items() if said & set(words)]
    return found[0] if len(found) == 1 else None


def places_of(data: Paths, notes: list[str]) -> dict[str, list[Path]]:
    """The files, or folders of labels, of each split.

    Args:
        data: a path, several, or paths by split.
        notes: gets how they were told apart, in plain sentences.

    Raises:
        ConfigError: paths that are not there, hold no data, or of which the split can't be told.
    """
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in _SPLIT_WORDS]
        if unknown:
            raise ConfigError(
                [
                    f"data: a split is train, validation or test, found {n!r}{suggestion(n, _SPLIT_WORDS)}"
                    for n in unknown
                ]
            )
        if "train" not in data:
            raise ConfigError(
                f"data: one split must be for training, found {', '.join(data)}; say train=FILE, or name the file "
                "without a split"
            )
        given = {split: [Path(p) for p in _many(paths)] for split, paths in data.items()}
        _check_there([path for paths in given.values() for path in paths])
        return {split: [file for path in paths for file in _inside(path)] for split, paths in given.items()}
    paths = [Path(path) for path in _many(data)]
    if not paths:
        raise ConfigError(f"data: no file was named; give {KNOWN}")
    _check_there(paths)
    if len(paths) == 1 and paths[0].is_dir():
        return _split_folder(paths[0], notes)
    files = [file for path in paths for file in _inside(path)]
    if len(files) == 1:
        return {"train": files}
    return _split_files(files, notes)


def _many(paths: Any) -> list[Any]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def _check_there(paths: Sequence[Path]) -> None:
    mistakes = []
    for path in paths:
        if not path.exists():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            mistakes.append(f"data: {path}: no such file or folder{suggestion(path.name, beside) if beside else ''}")
    if mistakes:
        raise ConfigError(mistakes)


def _split_folder(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """One folder: of data files, of a sub-folder per split, or of a sub-folder per label."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        raise ConfigError(
            f"data: {folder} was written by save_to_disk of datasets; give Task.from_data what "
            "datasets.load_from_disk reads from it"
        )
    subs = [place for place in sorted(folder.iterdir()) if place.is_dir() and place.name[0] != "."]
    splits = {split_of(place.name) for place in subs}
    if subs and None not in splits and len(splits) == len(subs) and "train" in splits:
        found = {str(split_of(place.name)): _inside(place) for place in subs}
        notes.append("splits: the sub-folders " + ", ".join(f"{place.name}" for place in subs) + " are the splits")
        return {split: found[split] for split in _SPLIT_WORDS if split in found}
    files = _inside(folder)
    return {"train": files} if len(files) == 1 else _split_files(files, notes)


def _inside(path: Path) -> list[Path]:
    """A file itself; of a folder its data files, or the folder, if it has sub-folders of texts."""
    if not path.is_dir():
        return [path]
    files = [f for f in sorted(path.iterdir()) if f.is_file() and f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    if files:
        return files
    subs = [place for place in path.iterdir() if place.is_dir() and place.name[0] != "."]
    if subs and any(text_files(place) for place in subs):
        return [path]
    raise ConfigError(f"data: {path} holds neither data files nor sub-folders with texts; own data is {KNOWN}")


def _split_files(files: Sequence[Path], notes: list[str]) -> dict[str, list[Path]]:
    """Several files, by what their names say; if none says anything, all are training rows."""
    said = {file: split_of(file.stem) for file in files}
    if not any(said.values()):
        notes.append(f"splits: none of the {len(files)} files' names speaks of a split, so all are training rows")
        return {"train": list(files)}
    unclear = [file.name for file, split in said.items() if split is None]
    if unclear:
        raise ConfigError(
            f"data: of which split is {', '.join(unclear)}? Its name does not say train, validation (dev) or test, the "
            "others' do; say it: {'train': …, 'test': …} in Python, train=FILE test=FILE on the command line"
        )
    found = {split: [file for file in files if said[file] == split] for split in _SPLIT_WORDS}
    if not found["train"]:
        raise ConfigError(f"data: no file's name says train ({', '.join(f.name for f in files)}); there must be one")
    notes.append("splits: by the files' names, " + ", ".join(f"{f.name} is {split}" for f, split in said.items()))
    return {split: group for split, group in found.items() if group}
