"""What kind of files own data are: their format, which file is which split, and what their reader must be told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.folders import label_folders
from nlp_mtl.owndata.csvfiles import csv_dialect
from nlp_mtl.owndata.places import KNOWN, SUFFIXES, Paths, places_of

_REFUSED = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save the sheet as CSV, in UTF-8"),
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z"), "unpack it first"),
    **dict.fromkeys((".pkl", ".pickle"), "nothing is unpickled here, as that runs code; write parquet (to_parquet)"),
    **dict.fromkeys((".arrow", ".feather"), "read it in Python, and give Task.from_data the Dataset or DataFrame"),
}
_CONLL_COLUMNS = {2: ["tokens", "tags"], 3: ["tokens", "pos", "tags"], 4: ["tokens", "pos", "chunk", "tags"]}


@dataclass
class Files:
    """Own data in files.

    Attributes:
        spec: the fields of a :class:`nlp_mtl.taskfile.DatasetSpec`.
        text, label: the columns that the format itself says are text and label.
        notes: what was found, in plain sentences.
    """

    spec: dict[str, Any]
    text: str | None = None
    label: str | None = None
    notes: list[str] = field(default_factory=list)


def files_of(data: Paths, options: Mapping[str, Any], columns: Sequence[str] | None = None) -> Files:
    """Format, splits and reader options of files or folders.

    Args:
        data: a path, several, or paths by split; a path is a file or a folder.
        options: reader options that are known; they win over what is found.
        columns: names of the columns, for CSV files without a line of names and for CoNLL.

    Raises:
        ConfigError: everything that is wrong.
    """
    notes: list[str] = []
    places = places_of(data, notes)
    mistakes: list[str] = []
    kinds: dict[str, list[Path]] = {}
    for file in (file for group in places.values() for file in group):
        try:
            kinds.setdefault(_kind(file), []).append(file)
        except ConfigError as error:
            mistakes += error.mistakes
    if len(kinds) > 1:
        said = "; ".join(f"{kind}: {', '.join(f.name for f in group)}" for kind, group in kinds.items())
        mistakes.append(f"data: the files of one task are of one kind, found {said}")
    if mistakes:
        raise ConfigError(mistakes)
    kind, first = next((kind, group[0]) for kind, group in kinds.items())
    files = {split: [str(file) for file in group] for split, group in places.items()}
    named: Any = {split: group[0] if len(group) == 1 else group for split, group in files.items()}
    found = Files({"path": kind, "data_files": named["train"] if set(named) == {"train"} else named}, notes=notes)
    options = {**_named_columns(kind, columns), **options}
    made = _options(kind, first, options, found)
    if made or options:
        found.spec["options"] = {**made, **options}
    return found


def _named_columns(kind: str, columns: Sequence[str] | None) -> dict[str, Any]:
    """The reader's options for names of columns that no line of the file says."""
    if columns is None:
        return {}
    if kind == "csv":
        return {"header": None, "names": list(columns)}
    if kind == "conll":
        return {"columns": list(columns)}
    raise ConfigError(f"columns: {kind} files name their columns themselves; leave `columns` out (--columns)")


# ------------------------------------------------------------------------------------------------ kind and options


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    if file.is_dir():
        return "folders"
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix in _REFUSED:
        raise ConfigError(f"data: {file}: {suffix} is not read; {_REFUSED[suffix]}")
    with file.open("rb") as stream:
        head = stream.read(2**16)
    if head[:4] == b"PAR1":
        return "parquet"
    if head.lstrip()[:1] == b"{":
        return "json"
    if _conll_width(head.decode("utf-8", "replace")) is not None:
        return "conll"
    if len(csv_dialect(file).columns) > 1 and suffix != ".txt":
        return "csv"
    raise ConfigError(
        f"data: {file}: is neither a table nor CoNLL, and lines of text have no label; own data is {KNOWN}"
    )


def _conll_width(text: str) -> int | None:
    """Fields a line, of text in which nearly all lines have 2 to 4 and blank lines part sentences; else None."""
    lines = text.split("\n")[:-1] or [text]
    widths = Counter(len(line.split()) for line in lines if line.strip() and not line.startswith("-DOCSTART-"))
    if not widths or all(line.strip() for line in lines):
        return None
    width, count = widths.most_common(1)[0]
    return width if width in _CONLL_COLUMNS and count >= 0.95 * widths.total() else None


def _options(kind: str, file: Path, given: Mapping[str, Any], found: Files) -> dict[str, Any]:
    encoding, made = given.get("encoding", "utf-8"), {}
    if kind in ("csv", "json", "conll") and "encoding" not in given:
        with file.open("rb") as stream:
            if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                encoding = made["encoding"] = "utf-16"
                found.notes.append(f"data: {file.name}: its first two bytes say that it is UTF-16")
    if kind == "csv":
        dialect = csv_dialect(file, encoding, given.get("sep") or given.get("delimiter"), given.get("names"))
        found.notes += dialect.notes
        doubled = [name for name, times in Counter(dialect.columns).items() if times > 1 and name.strip()]
        if doubled and not {"names", "column_names", "header"} & set(given):
            raise ConfigError(
                f"data: {file}: the column {doubled[0]!r} stands twice in the first line; rename one, or, if that line "
                "is a row, name the columns: columns=[…] (--columns NAME …)"
            )
        return {**made, **dialect.options}
    if kind == "json":
        return {**made, **_json_options(file, encoding, given, found)}
    if kind == "conll":
        found.text, found.label = "tokens", "tags"
        return {**made, **_conll_options(file, encoding, given, found)}
    if kind == "folders":
        found.text, found.label = "text", "label"
        names = [place.name for place in label_folders(file, given.get("labels"))]
        found.notes.append(f"data: one text per file, the label is the sub-folder's name ({_few(names)})")
    return made


def _json_options(file: Path, encoding: str, given: Mapping[str, Any], found: Files) -> dict[str, Any]:
    """A .json file may be one object that holds the rows under a key."""
    if "field" in given:
        return {}
    with file.open(encoding=encoding, errors="replace") as stream:
        first = stream.readline().lstrip("\ufeff")
        if not first.lstrip().startswith("{"):
            return {}
        try:
            json.loads(first)
            if stream.readline().strip():
                return {}
        except ValueError:
            pass
    try:
        whole = json.loads(file.read_text(encoding=encoding, errors="replace").lstrip("\ufeff"))
    except ValueError:  # the reader says what is wrong
        return {}
    keys = [key for key, rows in whole.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if len(keys) != 1:
        return {}
    found.notes.append(f"data: {file.name}: the rows stand under the key {keys[0]!r}")
    return {"field": keys[0]}


def _conll_options(file: Path, encoding: str, given: Mapping[str, Any], found: Files) -> dict[str, Any]:
    """Names of the columns, and the separator where fields hold spaces."""
    text = file.read_text(encoding=encoding, errors="replace").lstrip("\ufeff")
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("-DOCSTART-")][:2000]
    separator = given.get("separator")
    if separator is None and lines and all("\t" in line for line in lines):
        separator = "\t" if any(" " in line.strip() for line in lines) else None
    rows = [line.rstrip("\r").split(separator) for line in lines]
    made = {"separator": separator} if separator is not None and "separator" not in given else {}
    if "columns" in given or not rows:
        columns = list(given.get("columns") or [])
        found.text = "tokens" if "tokens" in columns else None
        found.label = "tags" if "tags" in columns else None
        return made
    width = Counter(map(len, rows)).most_common(1)[0][0]
    if width not in _CONLL_COLUMNS:
        raise ConfigError(
            f"data: {file}: {width} columns; with 2, 3 or 4 the first is the token and the last the tag, here they "
            "must "
            "be named: columns=['tokens', …, 'tags'] (--columns tokens … tags)"
        )
    columns = _CONLL_COLUMNS[width]
    if width > 2 and all(row[0].isdigit() for row in rows if len(row) == width) and rows[0][0] in ("0", "1"):
        columns = ["number", *_CONLL_COLUMNS[width - 1]]
    found.notes.append(f"data: CoNLL with {width} columns, called {', '.join(columns)}; one sentence is one row")
    return {**made, "columns": columns}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", … {len(names)} in all" if len(names) > 5 else "")
