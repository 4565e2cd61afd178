"""Texts that are shorter or longer than those learned from."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.errors import ConfigError
from nlp_mtl.robustness.base import Perturbation, perturbations

NEUTRAL = "This was written down some time ago and sent on without any change to it .".split()


@perturbations.register("truncated")
class Truncated(Perturbation):
    """The first words of a text, and no more.

    Args:
        words: how many, at least one.

    Example:
        >>> Truncated(words=2).changed("It was not good", None)
        'It was'
    """

    def __init__(self, words: int = 10):
        if isinstance(words, bool) or not isinstance(words, int) or words < 1:
            raise ConfigError(f"perturbation 'truncated': `words` is a whole number from 1, found {words!r}")
        self.most = words

    def words(self, words: Sequence[str], draw: random.Random | None) -> list[str]:
        """See :meth:`Perturbation.words`."""
        return list(words[: self.most])


@perturbations.register("appended")
class Appended(Perturbation):
    """A sentence that says nothing of the matter is put after the text.

    Args:
        times: how often, at least once.

    Example:
        >>> len(Appended(times=2).words(["Good"], None))
        33
    """

    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def __init__(self, times: int = 1):
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise ConfigError(f"perturbation 'appended': `times` is a whole number from 1, found {times!r}")
        self.times = times

    def words(self, words: Sequence[str], draw: random.Random | None) -> list[str]:
        """See :meth:`Perturbation.words`."""
        return [*words, *NEUTRAL * self.times]
