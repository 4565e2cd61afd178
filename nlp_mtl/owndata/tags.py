"""How the tags of own data mark spans, and their list of labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nlp_mtl.errors import ConfigError
from nlp_mtl.labelnames import in_order

_WHY = {
    "iob2": "every span begins with B- (IOB2)",
    "iob1": "B- only parts neighbouring spans of one type (IOB1)",
    "io": "tags are O and plain types (IO): neighbours of one type are one span",
    "none": "tags mark no spans, each word has one of its own",
}


def tag_scheme(sentences: Iterable[Sequence[str | None]]) -> tuple[str, str]:
    """The scheme of tags (``iob2``, ``iob1``, ``io``, ``none``), and why.

    Raises:
        ConfigError: BIOES or BILOU, which is not read.

    Example:
        >>> tag_scheme([["B-PER", "I-PER", "O"], ["O", "B-LOC"]])
        ('iob2', 'every span begins with B- (IOB2)')
        >>> tag_scheme([["DET", "NOUN", "VERB"]])[0], tag_scheme([["PER", "PER", "O"]])[0]
        ('none', 'io')
    """
    known = [[tag or "O" for tag in tags] for tags in sentences]
    names = {tag for tags in known for tag in tags}
    rest = names - {"O"}
    if any(re.match(r"[BI]-.", tag) for tag in rest):
        odd = in_order(tag for tag in rest if re.match(r"[SEULM]-.", tag))
        if odd:
            raise ConfigError(
                f"label: the tags have {odd[0]!r} beside B- and I- (BIOES or BILOU), which is not read; write S- and "
                "U- "
                "as B-, E-, L- and M- as I-"
            )
        loose, parting = _counts(known)
        if not any(tag.startswith("B-") for tag in rest) or (loose and not parting["start"]):
            return "iob1", _WHY["iob1"]
        more = f"; {loose} span(s) begin with I- all the same and are read as they are" if loose else ""
        return "iob2", _WHY["iob2"] + more
    scheme = "io" if "O" in names and rest else "none"
    return scheme, _WHY[scheme]


def _counts(sentences: Sequence[Sequence[str]]) -> tuple[int, Counter[str]]:
    """How many spans begin with I-; and how many B- begin a span after nothing, or part it from one of its type."""
    loose, parting = 0, Counter[str]()
    for tags in sentences:
        before = "O"
        for tag in tags:
            kind = tag[2:]
            same = before != "O" and before[2:] == kind
            if tag.startswith("I-") and not same:
                loose += 1
            if tag.startswith("B-"):
                parting["between" if same else "start"] += 1
            before = tag
    return loose, parting


def tag_labels(names: Iterable[str], scheme: str) -> list[str]:
    """The label list: O first, then by type, B- before I-, both for every type in IOB2; other tags by name.

    Example:
        >>> tag_labels({"I-PER", "O", "B-PER", "B-LOC"}, "iob2")
        ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
        >>> tag_labels({"VERB", "NOUN"}, "none")
        ['NOUN', 'VERB']
    """
    found = set(names)
    rest = in_order(found - {"O"})
    if scheme == "iob2":
        kinds = in_order({name[2:] for name in rest})
        return ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]
    return [*(["O"] if "O" in found else []), *rest]
