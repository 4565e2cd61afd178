"""Words in another order, or others that the model reads alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from nlp_mtl.robustness.base import Perturbation, check_rate, perturbations
from nlp_mtl.robustness.neighbours import Neighbours


@perturbations.register("word_swap")
class WordSwap(Perturbation):
    """Some words change places with the next one.

    Args:
        rate: the share of words, from 0 to 1.

    Example:
        >>> WordSwap(rate=1.0).words("a b c d".split(), random.Random(0))
        ['b', 'a', 'd', 'c']
    """

    def __init__(self, rate: float = 0.1):
        self.rate = check_rate("word_swap", rate)

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        found, i = list(words), 0
        while i + 1 < len(found):
            if draw.random() < self.rate:
                found[i], found[i + 1] = found[i + 1], found[i]
                i += 1
            i += 1
        return found


@perturbations.register("similar_words")
class SimilarWords(Perturbation):
    """Some words become ones whose embeddings in this very model are near; meaning mostly stays, not always.

    Args:
        rate: the share of words, from 0 to 1.
        similarity: the least cosine of the two embeddings.

    Relations: the words that `nlp-mtl attack` may choose from, drawn at random.
    """

    keeps_words = True

    def __init__(self, rate: float = 0.1, similarity: float = 0.5):
        self.rate = check_rate("similar_words", rate)
        self.similarity = check_rate("similar_words", similarity, "similarity")

    def setup(self, model: Any) -> None:
        """See :meth:`Perturbation.setup`."""
        self._near = Neighbours(model, similarity=self.similarity)

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        found = []
        for word in words:
            others = self._near.of(word) if draw.random() < self.rate else []
            found.append(draw.choice(others) if others else word)
        return found
