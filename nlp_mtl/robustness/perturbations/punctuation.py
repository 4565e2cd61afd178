"""Punctuation left out, or too much of it."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.robustness.base import Perturbation, check_rate, perturbations

_GONE = str.maketrans("", "", string.punctuation)


@perturbations.register("punctuation")
class Punctuation(Perturbation):
    """Punctuation dropped, or marks added after some words. A word of punctuation alone stays where words are tagged.

    Args:
        how: ``drop`` or ``add``.
        rate: of ``add``, the share of words, from 0 to 1.

    Example:
        >>> Punctuation().changed("No, it is - good!", None)
        'No it is good'
    """

    keeps_words = True
    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def __init__(self, how: str = "drop", rate: float = 0.2):
        if how not in ("drop", "add"):
            raise ConfigError(f"perturbation 'punctuation': `how` is drop or add, found {how!r}")
        self.how, self.rate = how, check_rate("punctuation", rate)

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        if self.how == "add":
            return [word + draw.choice(",.!?;") if draw.random() < self.rate else word for word in words]
        return [word.translate(_GONE) or word for word in words]

    def changed(self, value: Any, draw: random.Random) -> Any:
        """See :meth:`Perturbation.changed`; in a text, words of punctuation alone go too."""
        if isinstance(value, str) and self.how == "drop":
            found = " ".join(value.translate(_GONE).split())
            return value if found == " ".join(value.split()) else found or value
        return super().changed(value, draw)
