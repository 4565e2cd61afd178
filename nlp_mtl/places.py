"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Fetched packages, tokenized data, compiled kernels: ``NLP_MTL_CACHE``, else ``~/.cache/nlp_mtl``."""
    named = os.environ.get("NLP_MTL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "nlp_mtl"
