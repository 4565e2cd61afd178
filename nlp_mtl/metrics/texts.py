"""Metrics of written texts: BLEU, chrF and ROUGE, by the libraries whose numbers papers report."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from nlp_mtl.errors import DataError, NotFoundError, pip_install
from nlp_mtl.metrics.base import check_pairs, metric

_BLEU = "Papineni et al., 2002, ACL; by sacreBLEU: Post, 2018, arXiv:1804.08771"
_CHRF = "Popović, 2015, WMT; by sacreBLEU: Post, 2018, arXiv:1804.08771"
_ROUGE = "Lin, 2004, Text Summarization Branches Out 74"


@metric("bleu", paper=_BLEU)
def bleu(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> float:
    """Corpus BLEU of sacreBLEU, cased, tokenizer 13a, a hundredth of what it prints: n-grams to 4 and brevity penalty.

    One number for all rows together, and no mean over rows. Each row has one or more references.

    Range:
        0 to 1 (sacreBLEU prints 0 to 100), greater is better.

    References:
        Papineni, Roukos, Ward and Zhu, 2002, ACL. Post, 2018, arXiv:1804.08771.

    Raises:
        DataError: unequal lengths; no rows; a prediction that is no string; references that are no list of strings.
        NotFoundError: sacrebleu is not installed.

    Example:
        >>> bleu(["Ein Mann trägt ein rotes Boot."], [["Ein Mann trägt ein rotes Boot."]])
        1.0
    """
    sacrebleu = _package("sacrebleu")
    return min(
        1.0, sacrebleu.BLEU().corpus_score(list(predictions), _streams("bleu", predictions, references)).score / 100
    )


@metric("chrf", paper=_CHRF)
def chrf(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> float:
    """Corpus chrF of sacreBLEU, a hundredth of what it prints: F2 of character n-grams to 6.

    Range:
        0 to 1 (sacreBLEU prints 0 to 100), greater is better.

    References:
        Popović, 2015, WMT.

    Raises:
        DataError, NotFoundError: as :func:`bleu`.

    Example:
        >>> round(chrf(["Ein rotes Boot."], [["Ein Boot."]]), 2)
        0.46
    """
    sacrebleu = _package("sacrebleu")
    return min(
        1.0, sacrebleu.CHRF().corpus_score(list(predictions), _streams("chrf", predictions, references)).score / 100
    )


@metric("rouge1", paper=_ROUGE)
def rouge1(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> float:
    """Mean over rows of the F1 of single words, stemmed (ROUGE-1); of several references the best counts.

    Range:
        0 to 1, greater is better.

    References:
        Lin, 2004, ACL workshop "Text Summarization Branches Out".

    Raises:
        DataError: as :func:`bleu`. NotFoundError: rouge-score is not installed.

    Example:
        >>> rouge1(["a red boat"], [["a boat"]])
        0.8
    """
    return _rouge("rouge1", predictions, references)


@metric("rouge2", paper=_ROUGE)
def rouge2(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> float:
    """Mean over rows of the F1 of pairs of words that follow one another, stemmed (ROUGE-2).

    Range:
        0 to 1, greater is better.

    References:
        Lin, 2004, ACL workshop "Text Summarization Branches Out".

    Raises:
        DataError, NotFoundError: as :func:`rouge1`.

    Example:
        >>> rouge2(["the red boat sails"], [["the red boat"]])
        0.8
    """
    return _rouge("rouge2", predictions, references)


@metric("rougeL", paper=_ROUGE)
def rouge_l(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> float:
    """Mean over rows of the F1 of the longest common subsequence of words, stemmed (ROUGE-L, over the whole text).

    Range:
        0 to 1, greater is better.

    References:
        Lin, 2004, ACL workshop "Text Summarization Branches Out".

    Relations:
        Papers on CNN / Daily Mail often report ROUGE-Lsum, which matches line by line; this is ROUGE-L.

    Raises:
        DataError, NotFoundError: as :func:`rouge1`.

    Example:
        >>> rouge_l(["boat red"], [["red boat"]])
        0.5
    """
    return _rouge("rougeL", predictions, references)


def _rouge(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    words = _package("rouge_score.tokenizers").DefaultTokenizer(True)  # without one it logs a line each time
    scorer = _package("rouge_score.rouge_scorer").RougeScorer([name], tokenizer=words)
    _check(name, predictions, references)
    best = [
        max(scorer.score(reference, text)[name].fmeasure for reference in wanted)
        for text, wanted in zip(predictions, references, strict=True)
    ]
    return sum(best) / len(best)


def _streams(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[str]]:
    """First, second, … references of all rows; the first again where a row has fewer."""
    _check(name, predictions, references)
    most = max(map(len, references))
    return [[wanted[place] if place < len(wanted) else wanted[0] for wanted in references] for place in range(most)]


def _check(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    check_pairs(predictions, references)
    for row, (text, wanted) in enumerate(zip(predictions, references, strict=True)):
        if (
            not isinstance(text, str)
            or isinstance(wanted, (str, dict))
            or not hasattr(wanted, "__len__")
            or not len(wanted)
            or not all(isinstance(one, str) for one in wanted)
        ):
            raise DataError(
                f"metric {name!r}, row {row}: the prediction must be a string and the references a list of one or more "
                f"strings, found {text!r} and {wanted!r}"
            )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0].replace("_", "-")
        raise NotFoundError(
            f"the package {package}, needed to score written texts,", [f"import {package}"], [pip_install("seq2seq")]
        ) from None
