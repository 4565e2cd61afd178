"""Where files that can be made again are kept, and names that no file or folder can have."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def cache_folder() -> Path:
    """Fetched packages, tokenized data, compiled kernels: ``NLP_MTL_CACHE``, else ``~/.cache/nlp_mtl``."""
    named = os.environ.get("NLP_MTL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "nlp_mtl"


def no_name(path: str | Path) -> str | None:
    r"""Why no file or folder can be called so; None if one can, be it there or not.

    Args:
        path: what was given as a path.

    Example:
        >>> no_name("runs/mine"), no_name("a\0b"), no_name("runs/" + "x" * 5000)
        (None, 'embedded null byte', 'File name too long')
    """
    for part in (path, *Path(path).parts):  # behind a folder that is not there, a part is not looked at
        try:
            os.lstat(part)
        except ValueError as error:  # a null byte, half a character
            return str(error)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return os.strerror(errno.ENAMETOOLONG)
    return None
