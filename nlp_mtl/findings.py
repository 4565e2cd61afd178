"""Findings: what was learned about a run after its training, kept beside it, and told in its report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, RunFolderError

FORMAT, FOLDER = 1, "findings"
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above it; "" for none.
        head: of its columns.
        rows: of cells, as long as `head`.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn.

    Attributes:
        title: above it.
        alt: what is to be seen, for who does not see it.
        note: how to read it.
        svg: one ``<svg>`` element, e.g. of :meth:`nlp_mtl.reporting.picture.Picture.svg`. A report shows it as an
            image, where nothing in it can run.
    """

    title: str
    alt: str
    note: str
    svg: str = field(repr=False)


@dataclass(frozen=True)
class Finding:
    """What one study of a run found, for people; programs read `data`.

    Attributes:
        name: of the study, and of its file, e.g. ``calibration``.
        title: the heading of its section in the report.
        said: sentences, the first the most important.
        tables: of text.
        drawings: figures.
        data: numbers, as JSON; no NaN.
    """

    name: str
    title: str
    said: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


def write_finding(run: str | Path, found: Finding) -> Path:
    """Keep a finding beside its run, in place of an older one of its name; gives the file.

    Args:
        run: a run folder.
        found: the finding.

    Raises:
        ConfigError: a name that is no file name; a row as long as no head; numbers that JSON has not.
    """
    wrong = [
        f"finding {found.name!r}: a row of table {table.title!r} has {len(row)} cells, its head {len(table.head)}"
        for table in found.tables
        for row in table.rows
        if len(row) != len(table.head)
    ]
    if not _NAME.fullmatch(found.name):
        wrong.append(f"finding: `name` is small letters, digits, - and _, found {found.name!r}")
    if wrong:
        raise ConfigError(wrong)
    try:
        text = json.dumps({"format": FORMAT, **asdict(found)}, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"finding {found.name!r}: `data` is JSON without NaN ({error}); write null") from None
    folder = Path(run) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{found.name}.json", text + "\n")
    return folder / f"{found.name}.json"


def read_findings(run: str | Path) -> list[Finding]:
    """All findings beside a run, by name.

    Raises:
        RunFolderError: a file that is none, or of a newer format.
    """
    return [_read(file) for file in sorted((Path(run) / FOLDER).glob("*.json"))]


def _read(file: Path) -> Finding:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["format"] > FORMAT:
            raise RunFolderError(f"{file}: format {said['format']}, this version reads {FORMAT}; update nlp_mtl")
        tables = [Table(one["title"], one["head"], one["rows"]) for one in said["tables"]]
        drawings = [Drawing(one["title"], one["alt"], one["note"], one["svg"]) for one in said["drawings"]]
        return Finding(said["name"], said["title"], said["said"], tables, drawings, said["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{file}: no finding ({type(error).__name__}: {error}); remove it") from None
