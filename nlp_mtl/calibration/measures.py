"""How far probabilities are from how often they are right; all take probabilities [rows, classes] and class numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nlp_mtl.errors import ConfigError, DataError

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Rows of about the same confidence.

    Attributes:
        rows: how many.
        confidence: their mean probability of the class that is given.
        accuracy: the share of them that is right.
    """

    rows: int
    confidence: float
    accuracy: float


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> list[Bin]:
    """Rows by confidence, the empty bins left out.

    Args:
        probabilities: [rows, classes].
        labels: [rows], numbers of the right classes.
        bins: how many.
        equal_mass: bins of as many rows instead of bins as wide, ((m − 1) / bins, m / bins].

    Raises:
        DataError: no rows, or other shapes.
        ConfigError: `bins` below 1.
    """
    chances, right = _checked(probabilities, labels)
    if bins < 1:
        raise ConfigError(f"`bins` is at least 1, found {bins}; {BINS} is usual")
    confidence, correct = chances.max(1), chances.argmax(1) == right
    if equal_mass:
        parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    else:
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        parts = [np.flatnonzero(place == number) for number in range(bins)]
    return [Bin(len(part), float(confidence[part].mean()), float(correct[part].mean())) for part in parts if len(part)]


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """ECE: ``Σ_m (n_m / n) · |accuracy_m − confidence_m|`` over bins of confidence.

    Range:
        0 to 1, smaller is better. With few rows it is above 0 also for probabilities that are right.

    References:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599, with 15
        bins as wide; bins of equal mass as in Nixon, Dusenberry, Zhang, Jerfel and Tran, 2019, arXiv 1904.01685.

    Example:
        >>> round(expected_calibration_error(np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([0, 0])), 3)
        0.3
    """
    found = reliability(probabilities, labels, bins=bins, equal_mass=equal_mass)
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in found) / len(labels)


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """``(1/n) Σ_i Σ_k (p_ik − [k = label_i])²``, the form for several classes.

    Range:
        0 to 2, smaller is better.

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review, 1950.

    Example:
        >>> round(brier_score(np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([0, 0])), 3)
        0.68
    """
    chances, right = _checked(probabilities, labels)
    wanted = np.zeros_like(chances)
    wanted[np.arange(len(right)), right] = 1
    return float(((chances - wanted) ** 2).sum(1).mean())


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """``−(1/n) Σ_i log p_i,label``; a probability of 0 counts as the smallest that is not.

    Range:
        0 and above, smaller is better.

    Example:
        >>> round(negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([1])), 4)
        0.6931
    """
    chances, right = _checked(probabilities, labels)
    given = np.maximum(chances[np.arange(len(right)), right], np.finfo(np.float64).tiny)
    return float(-np.log(given).mean())


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chances, right = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if chances.ndim != 2 or right.shape != chances.shape[:1] or not len(right):
        raise DataError(
            f"probabilities are [rows, classes] and labels [rows], found {list(chances.shape)} and {list(right.shape)}"
        )
    if right.dtype.kind not in "iu" or right.min() < 0 or right.max() >= chances.shape[1]:
        raise DataError(f"labels are class numbers from 0 to {chances.shape[1] - 1}, found others")
    return chances, right
