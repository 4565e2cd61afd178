"""What the parts of RESULTS.md are made with."""

from __future__ import annotations

import json
from pathlib import Path


def load(file: Path) -> dict | None:
    """One recorded file, if it is there."""
    return json.loads(file.read_text()) if file.exists() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
