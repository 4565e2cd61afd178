"""Metrics of rows that belong together: the answers to one question, the candidates of one gap, a minimal pair.

The group of a row stands in a column that the task names: ``metric_columns: {groups: COLUMN}``. Rows of one group need
not stand together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.answers import best_match, equal_words, word_f1
from nlp_mtl.metrics.base import check_pairs, metric
from nlp_mtl.metrics.ranking import positive_scores

_RECORD = "ReCoRD: Zhang et al., 2018, arXiv:1810.12885; SuperGLUE: Wang et al., 2019, arXiv:1905.00537"


@metric("group_exact_match", needs=("groups",), paper="MultiRC: Khashabi et al., 2018; SuperGLUE, arXiv:1905.00537")
def group_exact_match(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[Any],
) -> float:
    """Share of groups whose rows are all right: ``(1/G) Σ_g Π_{i in g} [prediction_i = reference_i]``.

    MultiRC's EM, where a group holds the answers to one question. The metric beside it, F1a, is :func:`f1` over all
    answers.

    Args:
        predictions: one per row.
        references: one per row.
        labels: not used.
        groups: one per row; equal values are one group.

    Range:
        0 to 1, greater is better.

    References:
        Khashabi, Chaturvedi, Roth, Upadhyay and Roth, "Looking Beyond the Surface" (MultiRC), 2018; SuperGLUE (Wang et
        al., 2019, arXiv:1905.00537).

    Raises:
        DataError: unequal lengths; no rows; a row without a group.

    Example:
        >>> group_exact_match([1, 0, 1], [1, 0, 0], groups=["a", "a", "b"])
        0.5
    """
    check_pairs(predictions, references)
    right = [_same(predicted, expected) for predicted, expected in zip(predictions, references, strict=True)]
    return _share(all(right[row] for row in rows) for rows in members("group_exact_match", groups, len(right)))


@metric("gender_parity", needs=("groups",), paper="Winogender: Rudinger et al., 2018, arXiv:1804.09301")
def gender_parity(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[Any],
) -> float:
    """Share of groups whose rows all get the same prediction, right or wrong; references are not looked at.

    On minimal pairs that differ in the gender of a pronoun alone, this is SuperGLUE's gender parity score. Who always
    says the same has 1: read it beside the accuracy.

    Args:
        predictions: one per row.
        references: one per row, not used.
        labels: not used.
        groups: one per row; equal values are one group.

    Range:
        0 to 1, greater is better.

    References:
        Rudinger, Naradowsky, Leonard and Van Durme, "Gender Bias in Coreference Resolution", 2018, arXiv:1804.09301;
        SuperGLUE (Wang et al., 2019, arXiv:1905.00537).

    Raises:
        DataError: unequal lengths; no rows; a row without a group.

    Example:
        >>> gender_parity([1, 1, 0, 1], [0, 0, 0, 0], groups=[7, 7, 8, 8])
        0.5
    """
    check_pairs(predictions, references)
    return _share(
        all(_same(predictions[row], predictions[rows[0]]) for row in rows)
        for rows in members("gender_parity", groups, len(predictions))
    )


@metric("best_exact_match", needs=("scores", "groups", "candidates", "answers"), paper=_RECORD)
def best_exact_match(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    scores: Any,
    groups: Sequence[Any],
    candidates: Sequence[str],
    answers: Sequence[Sequence[str]],
) -> float:
    """Mean over groups of the :func:`exact_match` of each group's best candidate: ReCoRD's EM.

    The best candidate of a group has the highest score of the positive class, the last label; of candidates with equal
    scores the mean counts, so that a constant score is worth what guessing is worth. Answers are compared as
    :func:`exact_match` compares them; the best acceptable answer counts.

    Args:
        predictions: not used.
        references: not used.
        labels: not used.
        scores: [rows, labels].
        groups: one per row; equal values are one group.
        candidates: one per row, the text that the row stands for.
        answers: one list per row, the acceptable answers of its group.

    Range:
        0 to 1, greater is better.

    References:
        Zhang, Liu, Liu, Gao, Duh and Van Durme, "ReCoRD", 2018, arXiv:1810.12885; SuperGLUE (Wang et al., 2019,
        arXiv:1905.00537).

    Raises:
        DataError: scores that are not finite; a row without a group, a candidate or answers; rows of one group with
            different answers.

    Example:
        >>> scores, groups = [[0.4, 0.6], [0.7, 0.3]], ["q", "q"]
        >>> best_exact_match([1, 0], [1, 0], scores=scores, groups=groups, candidates=["The Alps", "Rome"],
        ...                  answers=[["Alps"], ["Alps"]])
        1.0
    """
    return _best("best_exact_match", equal_words, scores, groups, candidates, answers)


@metric("best_f1_answer", needs=("scores", "groups", "candidates", "answers"), paper=_RECORD)
def best_f1_answer(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    scores: Any,
    groups: Sequence[Any],
    candidates: Sequence[str],
    answers: Sequence[Sequence[str]],
) -> float:
    """Mean over groups of the :func:`f1_answer` of each group's best candidate: ReCoRD's F1.

    Arguments and rules are those of :func:`best_exact_match`.

    Range:
        0 to 1, greater is better.

    References:
        Zhang, Liu, Liu, Gao, Duh and Van Durme, "ReCoRD", 2018, arXiv:1810.12885; SuperGLUE (Wang et al., 2019,
        arXiv:1905.00537).

    Raises:
        DataError: as for :func:`best_exact_match`.

    Example:
        >>> scores, groups = [[0.4, 0.6], [0.7, 0.3]], ["q", "q"]
        >>> best_f1_answer([1, 0], [1, 0], scores=scores, groups=groups, candidates=["High Alps", "Rome"],
        ...                answers=[["Alps", "the Alps"], ["Alps", "the Alps"]])    # words high, alps: 2·1 / (2 + 1)
        0.6666666666666666
    """
    return _best("best_f1_answer", word_f1, scores, groups, candidates, answers)


def members(name: str, groups: Sequence[Any], rows: int) -> list[list[int]]:
    """The row numbers of each group, groups in the order in which they come.

    Raises:
        DataError: not one group per row, or a row without one.

    Example:
        >>> members("demo", ["a", "b", "a"], 3)
        [[0, 2], [1]]
    """
    if len(groups) != rows:
        raise DataError(f"metric {name!r}: {rows} predictions but {len(groups)} groups; give one for each")
    found: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        if group is None:
            raise DataError(f"metric {name!r}: row {row} has no group; every row needs one")
        key = json.dumps(group, sort_keys=True) if isinstance(group, (dict, list)) else group
        found.setdefault(key, []).append(row)
    return list(found.values())


def _best(
    name: str,
    value: Callable[[str, str], float],
    scores: Any,
    groups: Sequence[Any],
    candidates: Sequence[str],
    answers: Sequence[Sequence[str]],
) -> float:
    positive = positive_scores(name, scores)
    for what, given in (("candidates", candidates), ("answers", answers)):
        if len(given) != len(positive):
            raise DataError(f"metric {name!r}: {len(positive)} scores but {len(given)} `{what}`; give one for each")
    values = []
    for rows in members(name, groups, len(positive)):
        gold = answers[rows[0]]
        for row in rows:
            if not isinstance(candidates[row], str):
                raise DataError(f"metric {name!r}: the candidate of row {row} is no text, found {candidates[row]!r}")
            if isinstance(answers[row], str) or answers[row] is None or list(answers[row]) != list(gold):
                raise DataError(
                    f"metric {name!r}: all rows of a group have the same list of answers, found {gold!r} in row "
                    f"{rows[0]} and {answers[row]!r} in row {row} of group {groups[row]!r}"
                )
        top = max(positive[row] for row in rows)
        ties = [best_match(candidates[row], gold, value) for row in rows if positive[row] == top]
        values.append(sum(ties) / len(ties))
    return sum(values) / len(values)


def _same(one: Any, other: Any) -> bool:
    """Whether two labels are equal, or two lists of labels are."""
    if hasattr(one, "__len__") and hasattr(other, "__len__") and not isinstance(one, str):
        return list(one) == list(other)
    return bool(one == other)


def _share(values: Any) -> float:
    each = [bool(value) for value in values]
    return sum(each) / len(each)
