"""All laws."""

from __future__ import annotations

import importlib

from tests.fuzz.law import LAWS, Law


def load_laws() -> dict[str, Law]:
    """The laws of all files, by name."""
    for name in ("tables", "lines", "yaml_files", "batches", "rows"):
        importlib.import_module(f"tests.fuzz.{name}")
    return LAWS
