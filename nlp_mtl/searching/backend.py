"""optuna, where it is used."""

from __future__ import annotations

from typing import Any

from nlp_mtl.errors import NotFoundError, pip_install


def optuna_here() -> Any:
    """The library, quiet.

    Raises:
        NotFoundError: it is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise NotFoundError(
            "the package optuna, needed to search,", ["import optuna"], [pip_install("search")]
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
