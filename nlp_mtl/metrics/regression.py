"""Metrics of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nlp_mtl.metrics.base import as_floats, metric

if TYPE_CHECKING:
    import numpy as np


@metric("pearson", paper="Pearson, 1896; STS-B: Cer et al., 2017, arXiv:1708.00055")
def pearson(predictions: Sequence[float], references: Sequence[float], *, labels: Sequence[str] | None = None) -> float:
    """Linear correlation: ``Σ(p_i - p̄)(r_i - r̄) / √(Σ(p_i - p̄)² · Σ(r_i - r̄)²)``.

    Constant predictions or references make this 0/0. The value is then 0, not nan: a model that says the same for every
    row knows nothing about their order, and a nan would win or lose every comparison of checkpoints by accident.

    Range:
        -1 to 1, greater is better.

    References:
        Pearson, 1896. Official for STS-B (SemEval-2017 Task 1: Cer, Diab, Agirre, Lopez-Gazpio and Specia, 2017,
        arXiv:1708.00055).

    Raises:
        DataError: a value that is not a finite number; unequal lengths; no rows.

    Example:
        >>> round(pearson([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]), 6)
        0.5
        >>> pearson([2.5, 2.5, 2.5], [1.0, 3.0, 2.0])
        0.0
    """
    from scipy.stats import pearsonr

    predicted, expected = as_floats(predictions, references)
    if _is_constant(predicted) or _is_constant(expected):
        return 0.0
    return _number(pearsonr(predicted, expected).statistic)


@metric("spearman", paper="Spearman, 1904; STS-B: Cer et al., 2017, arXiv:1708.00055")
def spearman(
    predictions: Sequence[float], references: Sequence[float], *, labels: Sequence[str] | None = None
) -> float:
    """Correlation of ranks: :func:`pearson` of the ranks, equal values sharing the mean of theirs.

    Without equal values ``1 - 6·Σ d_i² / (n·(n² - 1))``, d_i the difference of the two ranks of row i. Constant
    predictions or references give 0, as for :func:`pearson`.

    Range:
        -1 to 1, greater is better.

    References:
        Spearman, "The proof and measurement of association between two things", 1904. Reported for STS-B in GLUE (Wang
        et al., 2018, arXiv:1804.07461).

    Raises:
        DataError: a value that is not a finite number; unequal lengths; no rows.

    Example:
        >>> round(spearman([0.1, 0.2, 5.0, 90.0], [1.0, 2.0, 4.0, 3.0]), 6)    # Σd² = 2: 1 - 12/60
        0.8
    """
    from scipy.stats import spearmanr

    predicted, expected = as_floats(predictions, references)
    if _is_constant(predicted) or _is_constant(expected):
        return 0.0
    return _number(spearmanr(predicted, expected).statistic)


@metric("mse", greater_is_better=False)
def mse(predictions: Sequence[float], references: Sequence[float], *, labels: Sequence[str] | None = None) -> float:
    """Mean squared error: ``(1/n) Σ (p_i - r_i)²``.

    Range:
        0 to ∞, smaller is better.

    References:
        Least squares: Legendre, 1805; Gauss, 1809.

    Raises:
        DataError: a value that is not a finite number; unequal lengths; no rows.

    Example:
        >>> mse([1.0, 2.0], [1.0, 5.0])
        4.5
    """
    from sklearn.metrics import mean_squared_error

    predicted, expected = as_floats(predictions, references)
    return float(mean_squared_error(expected, predicted))


@metric("mae", greater_is_better=False)
def mae(predictions: Sequence[float], references: Sequence[float], *, labels: Sequence[str] | None = None) -> float:
    """Mean absolute error: ``(1/n) Σ |p_i - r_i|``.

    Range:
        0 to ∞, smaller is better.

    References:
        Willmott and Matsuura, "Advantages of the mean absolute error (MAE) over the root mean square error (RMSE) in
        assessing average model performance", 2005.

    Raises:
        DataError: a value that is not a finite number; unequal lengths; no rows.

    Example:
        >>> mae([1.0, 2.0], [1.0, 5.0])
        1.5
    """
    from sklearn.metrics import mean_absolute_error

    predicted, expected = as_floats(predictions, references)
    return float(mean_absolute_error(expected, predicted))


def _is_constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _number(correlation: float) -> float:
    """A correlation; 0 where the values leave the range of float64 on the way (then scipy gives nan)."""
    return float(correlation) if correlation == correlation else 0.0
