"""How a CSV file is written: its separator, and whether quotes are quotes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
_LOOKED_AT = 64 * 2**20  # characters of a file that are read to find out; more would take longer than training
_SAMPLE = 2**16


@dataclass
class Dialect:
    """How a CSV file is written.

    Attributes:
        options: what the reader must be told, e.g. ``{"sep": ";"}``.
        columns: the fields of its first line.
        notes: what was found, in plain sentences.
    """

    options: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def csv_dialect(
    file: Path, encoding: str = "utf-8", sep: str | None = None, names: Sequence[str] | None = None
) -> Dialect:
    """Find a CSV file's separator and quoting.

    The separator is the one that cuts most lines into equally many fields. In a file whose fields are separated by
    tabs, quotes are part of the text if some field begins with one and does not end with one: read as quotes, they
    would swallow the lines up to the next.

    Args:
        file: the file.
        encoding: of its bytes; what can't be read is passed over here and named by the reader.
        sep: the separator, where it is known.
        names: of the columns, where the first line does not say them.
    """
    found = Dialect()
    lines = list(islice(_lines(file, encoding, _SAMPLE), 500))
    if not lines:
        return found
    if sep is None:
        sep = _best_separator(lines, first="\t" if file.suffix.lower() in (".tsv", ".tab") else ",")
        if sep != ",":
            found.options["sep"] = sep
            found.notes.append(f"data: {file.name}: fields are separated by {_SEPARATORS[sep]}")
    if sep == "\t" and _has_loose_quotes(file, encoding):
        found.options["quoting"] = csv.QUOTE_NONE
        found.notes.append(f"data: {file.name}: quotes are read as part of the text, since some have no partner")
    quoting: Any = found.options.get("quoting", csv.QUOTE_MINIMAL)
    found.columns = list(names or next(csv.reader(lines, delimiter=sep, quoting=quoting), []))
    found.notes += _short_rows(file, encoding, sep, quoting, len(found.columns))
    return found


def _lines(file: Path, encoding: str, most: int) -> Iterator[str]:
    """Whole lines of the file's first `most` characters, without blank ones."""
    try:
        with file.open(encoding=encoding, errors="replace", newline="") as stream:
            for number, line in enumerate(stream):
                most -= len(line)
                if most < 0 and number:
                    return
                text = line.removeprefix("\ufeff") if not number else line
                if text.strip():
                    yield text
    except LookupError:  # an unknown encoding, which the reader names
        return


def _best_separator(lines: list[str], first: str) -> str:
    best, found = (0.0, 0), first
    for sep in dict.fromkeys((first, *_SEPARATORS)):
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=sep))
        width, count = widths.most_common(1)[0]
        if width > 1 and (score := (round(count / widths.total(), 2), width)) > best:
            best, found = score, sep
    return found


def _has_loose_quotes(file: Path, encoding: str) -> bool:
    for line in _lines(file, encoding, _LOOKED_AT):
        for text in line.rstrip("\r\n").split("\t") if '"' in line else ():
            if text.startswith('"') and (len(text) == 1 or not text.endswith('"')):
                return True
    return False


def _short_rows(file: Path, encoding: str, sep: str, quoting: Any, width: int) -> list[str]:
    """Rows with fewer fields than the first line: the reader takes what they lack as empty, so it is said here."""
    reader = csv.reader(_lines(file, encoding, _LOOKED_AT), delimiter=sep, quoting=quoting)
    short, first = 0, 0
    try:
        for row in reader:
            if len(row) < width:
                short, first = short + 1, first or reader.line_num
    except csv.Error:  # a field longer than Python's reader takes; pandas reads it
        return []
    if not short:
        return []
    return [
        f"data: {file.name}: {short} row(s) have fewer than {width} fields (first in line {first}); the rest is empty"
    ]
