"""The contract of perturbations, and their registry."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import Registry

perturbations = Registry("perturbation", "nlp_mtl.robustness.perturbations")


class Perturbation:
    """Changes texts and never labels; the same way for the same text, seed and place.

    Attributes:
        keeps_words: whether every word stays one word in its place, so that tagged words keep their tags.
        directional: whether labels may change with the text, so that no score is taken and only how often the
            prediction changes is told (a directional test of CheckList).
        by_row: whether all texts of a row are changed by the same random numbers: what a name becomes in one of them
            it becomes in the other.
    """

    keeps_words: ClassVar[bool] = False
    directional: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    registered_as: ClassVar[str] = ""

    def setup(self, model: Any) -> None:
        """Learn the model, once; by default nothing comes of it."""

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """The words of a text, changed.

        Args:
            words: [words], as spaces part them; or as they are tagged.
            draw: of random numbers, its own for each text.

        Returns:
            Words; as many, if it `keeps_words`.
        """
        raise NotImplementedError

    def changed(self, value: Any, draw: random.Random) -> Any:
        """A text, or a list of words, changed; what is neither stays as it is, and so does the space between words."""
        if isinstance(value, str):
            words = value.split()
            found = self.words(words, draw)
            return value if found == words else " ".join(found) or value
        if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
            return list(self.words(value, draw)) if self.keeps_words else list(value)
        return value


def check_rate(name: str, rate: Any, argument: str = "rate") -> float:
    """A share of words from 0 to 1.

    Raises:
        ConfigError: something else.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise ConfigError(f"perturbation {name!r}: `{argument}` is a share of words from 0 to 1, found {rate!r}")
    return float(rate)


def draw_of(seed: int, name: str, row: int, column: str = "") -> random.Random:
    """Random numbers for one text, whatever other texts there are; without a column, for all texts of a row.

    Example:
        >>> draw_of(0, "typos", 3, "text").random() == draw_of(0, "typos", 3, "text").random()
        True
    """
    return random.Random(f"{seed}:{name}:{row}:{column}")
