"""A negation put in, or taken out."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.errors import ConfigError
from nlp_mtl.robustness.base import Perturbation, perturbations

VERBS = "is are was were am be can could will would shall should must may might has have had do does did".split()


@perturbations.register("negation")
class Negation(Perturbation):
    """Puts "not" after the first auxiliary verb, or takes the first "not" or "n't" out; other texts stay.

    What a text says is turned round, and whether its label should change hangs on the task. So no score is taken: how
    often the prediction changes is told, over the texts that were changed.

    Args:
        how: ``add`` or ``remove``.

    Relations: a directional test of CheckList.

    Example:
        >>> Negation().changed("It is a good film", None)
        'It is not a good film'
        >>> Negation(how="remove").changed("It isn't bad", None)
        'It is bad'
    """

    directional = True
    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def __init__(self, how: str = "add"):
        if how not in ("add", "remove"):
            raise ConfigError(f"perturbation 'negation': `how` is add or remove, found {how!r}")
        self.how = how

    def words(self, words: Sequence[str], draw: random.Random | None) -> list[str]:
        """See :meth:`Perturbation.words`."""
        found = list(words)
        for i, word in enumerate(found):
            small = word.lower()
            if self.how == "add" and small in VERBS:
                if found[i + 1 : i + 2] != ["not"]:
                    found.insert(i + 1, "not")
                return found
            if self.how == "remove" and small == "not":
                return found[:i] + found[i + 1 :]
            if self.how == "remove" and small.endswith("n't") and small[:-3] in VERBS:
                found[i] = word[:-3]
                return found
        return found
