"""Temperature scaling: one number per task that the logits are divided by, found on labelled rows."""

from __future__ import annotations

import numpy as np

from nlp_mtl.errors import DataError

LOWEST, HIGHEST = 0.05, 20.0


def probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """[rows, classes]: softmax of logits / temperature; −inf is a class that a row has not.

    Example:
        >>> probabilities(np.array([[1.0, 1.0, -np.inf]])).tolist()
        [[0.5, 0.5, 0.0]]
    """
    scaled = np.asarray(logits, dtype=np.float64) / np.asarray(temperature, dtype=np.float64).reshape(-1, 1)
    raised = np.exp(scaled - scaled.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest negative log-likelihood, between 0.05 and 20.

    That is convex in 1/temperature, so that the place where its slope is 0 is found by bisection, and is never worse
    than 1 on these rows. Which class is most probable does not change.

    Args:
        logits: [rows, classes]; −inf is a class that a row has not.
        labels: [rows], numbers of the right classes.

    Raises:
        DataError: no rows, or other shapes.

    References:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599.

    Relations:
        Like Platt scaling (1999), but with one number for all classes and no offset.

    Example:
        >>> sure = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> round(fit_temperature(sure, np.array([0, 0, 0, 1])), 2)   # right in 3 of 4: 4 / log 3
        3.64
    """
    known, right = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if known.ndim != 2 or right.shape != known.shape[:1] or not len(right):
        raise DataError(f"logits are [rows, classes], labels [rows]; found {list(known.shape)}, {list(right.shape)}")
    finite = np.where(np.isfinite(known), known, 0.0)
    wanted = known[np.arange(len(right)), right].mean()

    def slope(inverse: float) -> float:
        return float((probabilities(known, 1 / inverse) * finite).sum(1).mean() - wanted)

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def cross_fitted(logits: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
    """Each row's temperature, found on the half of the rows that it is not in; and both halves' temperatures.

    Args:
        logits: [rows, classes].
        labels: [rows].
        seed: of the halves.

    Raises:
        DataError: fewer than 4 rows.

    Returns:
        [rows]: temperatures; and those that were found on the first and on the second half.
    """
    count = len(labels)
    if count < 4:
        raise DataError(f"calibration: two halves of two rows at least, found {count} rows; score more")
    order = np.random.default_rng(seed).permutation(count)
    halves = order[: count // 2], order[count // 2 :]
    found = tuple(fit_temperature(np.asarray(logits)[half], np.asarray(labels)[half]) for half in halves)
    each = np.empty(count)
    each[halves[0]], each[halves[1]] = found[1], found[0]
    return each, (found[0], found[1])
