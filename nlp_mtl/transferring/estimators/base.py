"""What every estimator is, and folds of rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nlp_mtl.errors import ConfigError


class Estimator:
    """A score of features for a task; higher is better. A user's own is a decorated class with :meth:`__call__`.

    Attributes:
        of_values: whether it takes values, and not classes only.
    """

    registered_as = ""
    paper = ""
    cost = ""
    of_values: ClassVar[bool] = True

    def __call__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """The score.

        Args:
            features: [units, hidden].
            labels: [units]: class numbers (whole numbers) or values.
            groups: [units], the row that each is of; units of a row do not tell of one another.
        """
        raise NotImplementedError


class PairEstimator(Estimator):
    """A score of one task's labels, as a probe of it sees them, for another task; higher is better.

    A user's own is a decorated class with :meth:`of_pair`.
    """

    of_values = False

    def of_pair(self, source: np.ndarray, labels: np.ndarray) -> float:
        """The score.

        Args:
            source: [units, source classes], probabilities of the source task's classes on the target task's units.
            labels: [units], the target task's class numbers.
        """
        raise NotImplementedError


def folds_of(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[units]: which fold each is in; the units of a row are in the same.

    Example:
        >>> folds = folds_of(np.array([0, 0, 1, 2, 2]), 3, 0)
        >>> bool(folds[0] == folds[1]), bool(folds[3] == folds[4]), sorted(set(folds.tolist()))
        (True, True, [0, 1, 2])
    """
    rows, place = np.unique(groups, return_inverse=True)
    fold = np.empty(len(rows), dtype=int)
    fold[np.random.default_rng(seed).permutation(len(rows))] = np.arange(len(rows)) % count
    return fold[place]


def agreement(found: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of classes; Pearson's r of values, 0 where one side is the same everywhere.

    Example:
        >>> agreement(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        0.75
        >>> round(agreement(np.array([1.0, 2.0]), np.array([2.0, 4.0])), 6)
        1.0
    """
    if labels.dtype.kind != "f":
        return float((found == labels).mean())
    if found.std() < 1e-12 or labels.std() < 1e-12:
        return 0.0
    return float(np.clip(np.corrcoef(found, labels)[0, 1], -1, 1))


def check_number(who: str, name: str, value: float, least: float, most: float = float("inf")) -> None:
    """Refuse what is not a number in a range.

    Raises:
        ConfigError: says the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        to = "" if most == float("inf") else f" to {most:g}"
        raise ConfigError(f"estimator {who!r}: `{name}` is a number from {least:g}{to}, found {value!r}")
