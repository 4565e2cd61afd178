"""What every kind of evidence is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.transferring.opening import Opened


class Evidence:
    """Says how much tasks may gain from one another. A user's own is a decorated class with :meth:`find`.

    Attributes:
        of_labels: whether it looks at labels; else a task with shuffled ones is like the task it was made of.
    """

    of_labels: ClassVar[bool] = True
    registered_as = ""
    paper = ""
    cost = ""

    def find(self, opened: Opened) -> tuple[np.ndarray, dict[str, Any]]:
        """Look at the tasks.

        Args:
            opened: the encoder and the tasks' rows.

        Returns:
            [m, m], helper × helped; and what is to be said of it, for a file, e.g. ``{"notes": […]}``.
        """
        raise NotImplementedError


def check_whole(who: str, least: int, **given: int) -> None:
    """Refuse arguments that are not whole numbers from `least`.

    Raises:
        ConfigError: names them.
    """
    if mistakes := [
        f"evidence {who!r}: `{name}` is a whole number from {least}, found {value!r}"
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < least
    ]:
        raise ConfigError(mistakes)


def check_above_zero(who: str, **given: float) -> None:
    """Refuse arguments that are not numbers above 0.

    Raises:
        ConfigError: names them.
    """
    if mistakes := [
        f"evidence {who!r}: `{name}` is a number above 0, found {value!r}"
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf")
    ]:
        raise ConfigError(mistakes)
