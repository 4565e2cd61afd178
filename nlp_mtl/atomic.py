"""Files that are written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from nlp_mtl.errors import ConfigError, shown
from nlp_mtl.paths import no_name


def write_text(file: str | Path, text: str) -> None:
    """Write a text file so that it is either the old one or the new one, never half of it."""
    with whole_file(file) as stream:
        stream.write(text)


@contextmanager
def whole_file(file: str | Path) -> Iterator[TextIO]:
    """A text file to write to, which appears in its place, or replaces what was there, when it is whole and on disk.

    Raises:
        ConfigError: a file can't stand there.
    """
    with whole_bytes(file) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes it, and leaves the stream open


@contextmanager
def whole_bytes(file: str | Path) -> Iterator[BinaryIO]:
    """The same for bytes."""
    place = Path(file)
    if why := no_name(place):
        raise ConfigError(f"the output is a file, found {shown(str(file))} ({why}); name another file")
    if place.is_dir() or not place.parent.is_dir():
        why = "is a folder" if place.is_dir() else f"can't be made: there is no folder {place.parent}"
        raise ConfigError(f"the output is a file, found {str(file)!r}, which {why}; name another file")
    work = place.with_name(f".{place.name}.writing")
    try:
        with work.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(work, place)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
