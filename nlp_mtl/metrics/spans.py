"""Metrics of spans (named entities, slots, chunks) written as IOB2 tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.base import check_rows, f1_of, metric

_TAG = re.compile(r"O|[BIES](-.*)?", re.DOTALL)
Span = tuple[int, str, int, int]


@metric("span_f1", paper="CoNLL-2003: Tjong Kim Sang and De Meulder, 2003, arXiv:cs/0306050")
def span_f1(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """F1 over spans: ``2·|P ∩ R| / (|P| + |R|)`` of the sets of (sentence, type, first token, last token).

    A span counts only if type and both borders are right. Tags that are not valid IOB2 are read as conlleval reads
    them (seqeval's default mode, not its strict one): an ``I-`` that continues nothing, or another type, begins a span.

    Range:
        0 to 1, greater is better; no span on either side gives 0.

    References:
        CoNLL-2003 shared task: Tjong Kim Sang and De Meulder, 2003, arXiv:cs/0306050. The rules for reading tags:
        CoNLL-2000, Tjong Kim Sang and Buchholz, 2000, arXiv:cs/0009008, as implemented by Nakayama's seqeval, 2018.

    Returns:
        `span_f1`, `span_precision`, `span_recall` (over all types together), and `span_f1_<TYPE>` for every type that
        occurs in predictions or references.

    Raises:
        DataError: unequal lengths; no rows; a tag that is neither ``O`` nor ``B-…``, ``I-…`` (``E-…``, ``S-…``).

    Example:
        >>> result = span_f1([["B-PER", "I-PER", "O"], ["B-LOC"]], [["B-PER", "I-PER", "O"], ["B-ORG"]])
        >>> for name, value in result.items():
        ...     print(name, value)
        span_f1 0.5
        span_precision 0.5
        span_recall 0.5
        span_f1_LOC 0.0
        span_f1_ORG 0.0
        span_f1_PER 1.0
    """
    check_rows(predictions, references)
    predicted, expected = spans_of(predictions), spans_of(references)
    precision, recall, f1 = f1_of(len(predicted & expected), len(predicted), len(expected))
    result = {"span_f1": f1, "span_precision": precision, "span_recall": recall}
    for type_ in sorted({span[1] for span in predicted | expected}):
        ours, theirs = ({span for span in spans if span[1] == type_} for spans in (predicted, expected))
        result[f"span_f1_{type_}"] = f1_of(len(ours & theirs), len(ours), len(theirs))[2]
    return result


def spans_of(sentences: Sequence[Sequence[str]]) -> set[Span]:
    """The spans of all sentences, as seqeval reads them."""
    from seqeval.metrics.sequence_labeling import get_entities

    wrong = sorted(repr(tag) for tag in {tag for tags in sentences for tag in tags} if not _is_tag(tag))
    if wrong:
        raise DataError(
            f"metric 'span_f1' reads IOB2 tags (O, B-TYPE, I-TYPE), found {', '.join(wrong[:5])}; "
            "use accuracy for tags that mark no spans"
        )
    # seqeval tells lists of sentences from lists of tags by `isinstance(…, list)`, so it gets one list at a time.
    return {
        (number, type_, first, last)
        for number, tags in enumerate(sentences)
        for type_, first, last in get_entities(list(tags))
    }


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None
