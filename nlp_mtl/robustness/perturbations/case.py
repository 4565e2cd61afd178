"""Letters in another case."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.errors import ConfigError, near
from nlp_mtl.robustness.base import Perturbation, perturbations

WAYS = {"upper": str.upper, "lower": str.lower, "title": str.title}


@perturbations.register("case")
class Case(Perturbation):
    """All letters upper, all lower, or each word with a capital. An uncased tokenizer does not see it.

    Args:
        to: ``upper``, ``lower`` or ``title``.

    Example:
        >>> Case(to="title").words(["a", "film"], None)
        ['A', 'Film']
    """

    keeps_words = True

    def __init__(self, to: str = "upper"):
        if to not in WAYS:
            raise ConfigError(f"perturbation 'case': `to` is one of {', '.join(WAYS)}, found {to!r}{near(to, WAYS)}")
        self.to = to

    def words(self, words: Sequence[str], draw: random.Random | None) -> list[str]:
        """See :meth:`Perturbation.words`."""
        return [WAYS[self.to](word) for word in words]
