"""Metrics of scores: how well class probabilities put rows in order, whatever the threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.base import as_arrays, metric

if TYPE_CHECKING:
    import numpy as np


@metric("roc_auc", needs=("scores",), paper="Hanley and McNeil, Radiology 143, 1982")
def roc_auc(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    scores: Any,
) -> float:
    """Area under the ROC curve: the chance that a positive row has a higher score than a negative one, ties half.

    With two labels the positive class is the last one, as for :func:`f1`; with more, the mean over labels of each
    against the rest (macro one-vs-rest); with multi-label rows the mean over labels. A label that all rows have, or
    none has, ranks nothing and is left out of the mean; where no label is left, the value is 0.5. scikit-learn's
    `roc_auc_score`. Predictions are not looked at.

    Args:
        predictions: not used.
        references: label numbers, or rows of 0/1.
        labels: the task's label names.
        scores: [rows, labels], class probabilities or anything that grows with them.

    Range:
        0 to 1, greater is better; equal scores for all rows give 0.5.

    References:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
        1982. One-vs-rest: Fawcett, "An introduction to ROC analysis", 2006.

    Relations:
        :func:`average_precision` says more where positives are rare: it does not count easy negatives.

    Raises:
        DataError: references that are no classes, or scores of another shape, or not finite (names the row).

    Example:
        >>> scores = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
        >>> roc_auc([0, 0, 0, 1], [0, 0, 1, 1], scores=scores)    # of four pairs, 0.3 against 0.4 is in the wrong order
        0.75
    """
    from sklearn.metrics import roc_auc_score

    columns = _columns("roc_auc", references, scores, labels)
    return _mean([(truth, score) for truth, score in columns if truth.any() and not truth.all()], roc_auc_score, 0.5)


@metric(
    "average_precision",
    needs=("scores",),
    paper="Salton and McGill, Introduction to Modern Information Retrieval, 1983",
)
def average_precision(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    scores: Any,
) -> float:
    """Precision averaged over recall, ``Σ_n (R_n - R_{n-1})·P_n``, from the highest score to the lowest.

    The positive class and the means over labels are those of :func:`roc_auc`; a label that no row has is left out of
    the mean, and where none is left the value is 0. scikit-learn's `average_precision_score`, which does not
    interpolate. Predictions are not looked at.

    Args:
        predictions: not used.
        references: label numbers, or rows of 0/1.
        labels: the task's label names.
        scores: [rows, labels], class probabilities or anything that grows with them.

    Range:
        0 to 1, greater is better; equal scores for all rows give the share of positive rows.

    References:
        Salton and McGill, "Introduction to Modern Information Retrieval", 1983. Against ROC: Davis and Goadrich, "The
        relationship between Precision-Recall and ROC curves", 2006.

    Raises:
        DataError: references that are no classes, or scores of another shape, or not finite (names the row).

    Example:
        >>> scores = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
        >>> round(average_precision([0, 0, 0, 1], [0, 0, 1, 1], scores=scores), 6)    # 1/2 · 1/1 + 1/2 · 2/3
        0.833333
    """
    from sklearn.metrics import average_precision_score

    columns = _columns("average_precision", references, scores, labels)
    return _mean([(truth, score) for truth, score in columns if truth.any()], average_precision_score, 0.0)


def positive_scores(name: str, scores: Any) -> np.ndarray:
    """[rows]: the scores of the positive class, which is the last label.

    Raises:
        DataError: not [rows, labels] of finite numbers (names the row).
    """
    return _table(name, scores)[:, -1]


def _table(name: str, scores: Any) -> np.ndarray:
    import numpy as np

    try:
        table = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"metric {name!r}: `scores` are rows of one number per label ({error})") from None
    if table.ndim != 2 or not table.size:
        raise DataError(f"metric {name!r}: `scores` are rows of one number per label, found shape {table.shape}")
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise DataError(f"metric {name!r}: the scores of row {row}, {table[row].tolist()}, are not finite numbers")
    return table


def _columns(
    name: str, references: Sequence[Any], scores: Any, labels: Sequence[str] | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each label that counts: which rows have it [rows], and its scores [rows]."""
    table = _table(name, scores)
    _, expected = as_arrays(references, references)
    count = table.shape[1]
    fits = labels is None or len(labels) == count
    if len(expected) != len(table) or not fits or (expected.ndim > 1 and expected.shape[1] != count):
        raise DataError(
            f"metric {name!r}: scores of shape {table.shape} do not fit references of shape {expected.shape}"
            + (f" and {len(labels)} labels" if labels else "")
        )
    if expected.ndim > 1:
        return [(expected[:, label] == 1, table[:, label]) for label in range(count)]
    if expected.dtype.kind not in "iub" or expected.min() < 0 or expected.max() >= count:
        raise DataError(f"metric {name!r}: references are label numbers below {count}, found {references[:5]!r}")
    counted = [1] if count == 2 else range(count)
    return [(expected == label, table[:, label]) for label in counted]


def _mean(
    columns: Sequence[tuple[np.ndarray, np.ndarray]], value: Callable[[np.ndarray, np.ndarray], float], undefined: float
) -> float:
    values = [float(value(truth, score)) for truth, score in columns]
    return sum(values) / len(values) if values else undefined
