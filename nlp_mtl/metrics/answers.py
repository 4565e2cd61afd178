"""Metrics of answers in words (question answering), as SQuAD defines them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.base import check_pairs, f1_of, metric

_PAPER = "SQuAD: Rajpurkar et al., 2016, arXiv:1606.05250; 2.0: Rajpurkar, Jia and Liang, 2018, arXiv:1806.03822"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower-case, without ASCII punctuation, without the words a, an, the, and with single spaces.

    Other punctuation (“”, –, ¿) stays, as in the official scorer: removing it would make scores incomparable.

    Example:
        >>> normalize_answer("The  U.S. Senate!")
        'us senate'
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


@metric("exact_match", paper=_PAPER)
def exact_match(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> dict[str, float]:
    """Share of rows whose prediction equals an acceptable answer: ``(1/n) Σ max_a [norm(p_i) = norm(a)]``.

    norm is :func:`normalize_answer`. A question without an answer (SQuAD 2.0) has an empty list of references, and only
    the empty prediction is right.

    Range:
        0 to 1 (SQuAD prints it in percent), greater is better.

    References:
        SQuAD: Rajpurkar, Zhang, Lopyrev and Liang, 2016, arXiv:1606.05250. SQuAD 2.0: Rajpurkar, Jia and Liang, 2018,
        arXiv:1806.03822.

    Returns:
        `exact_match`; also `exact_match_has_answer` and `exact_match_no_answer` when both kinds of questions occur.

    Raises:
        DataError: unequal lengths; no rows; a prediction that is no string; references that are no list of strings.

    Example:
        >>> exact_match(["the Senate.", "in 1920", ""], [["Senate", "U.S. Senate"], ["1920"], []])
        {'exact_match': 0.6666666666666666, 'exact_match_has_answer': 0.5, 'exact_match_no_answer': 1.0}
    """
    return _over_rows("exact_match", predictions, references, equal_words)


@metric("f1_answer", paper=_PAPER)
def f1_answer(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> dict[str, float]:
    """Mean over rows of the F1 over words with the best acceptable answer: ``(1/n) Σ max_a F1(p_i, a)``.

    ``F1(p, a) = 2·|p ∩ a| / (|p| + |a|)`` with the bags of words of :func:`normalize_answer`. Where one side has no
    words, F1 is 1 if the other has none either, else 0; an empty list of references is an answer without words.

    Range:
        0 to 1 (SQuAD prints it in percent), greater is better.

    References:
        SQuAD: Rajpurkar, Zhang, Lopyrev and Liang, 2016, arXiv:1606.05250. SQuAD 2.0: Rajpurkar, Jia and Liang, 2018,
        arXiv:1806.03822.

    Returns:
        `f1_answer`; also `f1_answer_has_answer` and `f1_answer_no_answer` when both kinds of questions occur.

    Raises:
        DataError: unequal lengths; no rows; a prediction that is no string; references that are no list of strings.

    Example:
        >>> f1_answer(["in the year 1920"], [["1920", "year 1920"]])    # words in, year, 1920: 2·2 / (3 + 2)
        {'f1_answer': 0.8}
    """
    return _over_rows("f1_answer", predictions, references, word_f1)


def best_match(prediction: str, answers: Sequence[str], value: Callable[[str, str], float]) -> float:
    """The best `value` of an answer in words over the acceptable ones, all normalised."""
    # SQuAD 2.0 passes over answers that normalise to nothing, unless no other is left.
    texts = [text for text in map(normalize_answer, answers) if text] or [""]
    predicted = normalize_answer(prediction)
    return max(value(predicted, text) for text in texts)


def equal_words(predicted: str, answer: str) -> float:
    """1 if two normalised answers are equal, else 0."""
    return float(predicted == answer)


def word_f1(predicted: str, answer: str) -> float:
    """F1 over the words of two normalised answers; see :func:`f1_answer`."""
    ours, theirs = Counter(predicted.split()), Counter(answer.split())
    if not ours or not theirs:
        return float(ours == theirs)
    return f1_of((ours & theirs).total(), ours.total(), theirs.total())[2]


def _over_rows(
    name: str, predictions: Sequence[str], references: Sequence[Sequence[str]], value: Callable[[str, str], float]
) -> dict[str, float]:
    """Means over all rows, rows with an answer, rows without; `value` gets normalised strings."""
    check_pairs(predictions, references)
    groups: dict[str, list[float]] = {"has_answer": [], "no_answer": []}
    for row, (prediction, answers) in enumerate(zip(predictions, references, strict=True)):
        # A bare string is a sequence of strings too: it would be scored letter by letter.
        if not isinstance(prediction, str) or isinstance(answers, (str, dict)):
            raise DataError(
                f"metric {name!r}, row {row}: the prediction must be a string and the references a list of strings, "
                f"found {prediction!r} and {answers!r}"
            )
        groups["has_answer" if len(answers) else "no_answer"].append(best_match(prediction, answers, value))
    result = {name: _mean([*groups["has_answer"], *groups["no_answer"]])}
    if all(groups.values()):
        result |= {f"{name}_{group}": _mean(values) for group, values in groups.items()}
    return result


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
