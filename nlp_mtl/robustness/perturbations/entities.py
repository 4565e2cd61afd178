"""Names in the place of other names."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlp_mtl.robustness.base import Perturbation, perturbations

NAMES = {
    "people": "James Maria David Anna Robert Laura Peter Julia Michael Sarah Thomas Emma Paul Sofia Alice".split(),
    "places": "London Paris Berlin Madrid Rome Vienna Lisbon Dublin Oslo Prague Athens Cairo Tokyo Delhi Lima".split(),
    "countries": "France Germany Spain Italy Austria Portugal Ireland Norway Greece Egypt Japan India Peru".split(),
}


@perturbations.register("entity_swap")
class EntitySwap(Perturbation):
    """Common first names, cities and countries become others of their kind, the same one in all texts of a row.

    Labels and tags stay: a person is a person, a place a place, and two names stay two. Only names of its own small
    English list are found.

    Example:
        >>> found = EntitySwap().changed("Anna met Paul; Anna left.", random.Random(0))
        >>> found.count("Anna"), len(found.split())
        (0, 5)
        >>> EntitySwap().changed("Anna left.", random.Random(0)) == found.split("; ")[1]
        True
    """

    keeps_words = True
    by_row = True
    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        becomes: dict[str, str] = {}
        for names in NAMES.values():  # all of them, whichever are there: so another text gets the same
            order = draw.sample(names, len(names))
            becomes.update(zip(order, [*order[1:], order[0]], strict=True))
        found = []
        for word in words:
            name = word.rstrip(".,;:!?\"')").removesuffix("'s")
            found.append(becomes[name] + word[len(name) :] if name in becomes else word)
        return found
