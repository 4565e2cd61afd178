"""A negation put in, or taken out."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.errors import ConfigError
from nlp_mtl.robustness.base import Perturbation, perturbations

VERBS = "is are was were am be can could will would shall should must may might has have had do does did".split()
_BARE = {"ca": "can", "wo": "will", "sha": "shall"}  # what stands before n't


@perturbations.register("negation")
class Negation(Perturbation):
    """Puts "not" after the first auxiliary verb, or takes the first "not" or "n't" out; other texts stay.

    A first auxiliary that is negated already ("is not", "isn't", "is n't") is left alone by ``add``. What a text says
    is turned round, and whether its label should change hangs on the task. So no score is taken: how often the
    prediction changes is told, over the texts that were changed.

    Args:
        how: ``add`` or ``remove``.

    Relations: a directional test of CheckList.

    Example:
        >>> Negation().changed("It is a good film", None)
        'It is not a good film'
        >>> Negation(how="remove").changed("It isn't bad", None), Negation(how="remove").changed("I ca n't say", None)
        ('It is bad', 'I can say')
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
            small, after = word.lower(), [other.lower() for other in found[i + 1 : i + 2]]
            if self.how == "add":
                if _positive(small) is not None or after == ["n't"]:
                    return found
                if small in VERBS:
                    return found if after == ["not"] else [*found[: i + 1], "not", *found[i + 1 :]]
            elif small == "not":
                return found[:i] + found[i + 1 :]
            elif after == ["n't"]:
                return [*found[:i], _cased(_BARE.get(small, small), word), *found[i + 2 :]]
            elif (verb := _positive(small)) is not None:
                return [*found[:i], _cased(verb, word), *found[i + 1 :]]
        return found


def _positive(word: str) -> str | None:
    """The verb in a contraction with "not", in small letters; None if it is none.

    Example:
        >>> _positive("isn't"), _positive("can't"), _positive("won't"), _positive("paint")
        ('is', 'can', 'will', None)
    """
    if word == "cannot":
        return "can"
    if not word.endswith("n't"):
        return None
    bare = _BARE.get(word[:-3], word[:-3])
    return bare if bare in VERBS else None


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like[:1].isupper() else word
