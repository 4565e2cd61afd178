"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(file: str | Path, text: str) -> None:
    """Write a text file so that it is either the old one or the new one, never half of it."""
    file = Path(file)
    work = file.with_name(f".{file.name}.writing")
    try:
        with work.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(work, file)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
