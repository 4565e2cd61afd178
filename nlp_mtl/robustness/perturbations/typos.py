"""Typing errors."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.robustness.base import Perturbation, check_rate, perturbations

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEAR = {
    key: "".join(
        other
        for j, line in enumerate(ROWS)
        for k, other in enumerate(line)
        if other != key and abs(i - j) <= 1 and abs(n - k) <= 1
    )
    for i, row in enumerate(ROWS)
    for n, key in enumerate(row)
}
KINDS = ("neighbour", "swap", "drop", "insert")


@perturbations.register("typos")
class Typos(Perturbation):
    """One typing error in some words: a neighbouring key, two letters swapped, one left out, or one too many.

    Args:
        rate: the share of words, from 0 to 1.

    Example:
        >>> import random
        >>> Typos(rate=1.0).words(["wonderful"], random.Random(1)) != ["wonderful"]
        True
    """

    keeps_words = True
    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def __init__(self, rate: float = 0.2):
        self.rate = check_rate("typos", rate)

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        return [mistyped(word, draw) if draw.random() < self.rate else word for word in words]


def mistyped(word: str, draw: random.Random) -> str:
    """A word with one error inside it; the same word where it has fewer than three letters."""
    places = [i for i, letter in enumerate(word) if letter.lower() in NEAR]
    if len(places) < 3:
        return word
    at, kind = draw.choice(places), draw.choice(KINDS)
    if kind == "neighbour":
        new = draw.choice(NEAR[word[at].lower()])
        return word[:at] + (new.upper() if word[at].isupper() else new) + word[at + 1 :]
    if kind == "swap":
        at = min(at, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    return word[:at] + draw.choice(NEAR[word[at].lower()]) + word[at:]
