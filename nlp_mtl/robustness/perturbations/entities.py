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
_KIND = {name: kind for kind, names in NAMES.items() for name in names}


@perturbations.register("entity_swap")
class EntitySwap(Perturbation):
    """Common first names, cities and countries become others of their kind, the same one within a text.

    Labels and tags stay: a person is a person, a place a place. Only names of its own small English list are found.

    Example:
        >>> found = EntitySwap().changed("Anna met Paul; Anna left.", random.Random(0))
        >>> found.count("Anna"), len(found.split())
        (0, 5)
    """

    keeps_words = True
    paper = "Ribeiro et al., 2020, arXiv:2005.04118"

    def words(self, words: Sequence[str], draw: random.Random) -> list[str]:
        """See :meth:`Perturbation.words`."""
        becomes: dict[str, str] = {}
        found = []
        for word in words:
            name = word.rstrip(".,;:!?\"')").removesuffix("'s")
            kind = _KIND.get(name)
            if kind is None:
                found.append(word)
                continue
            if name not in becomes:
                free = [other for other in NAMES[kind] if other != name and other not in becomes.values()]
                becomes[name] = draw.choice(free or [other for other in NAMES[kind] if other != name])
            found.append(becomes[name] + word[len(name) :])
        return found
