"""LogME: how likely labels are under a Bayesian linear model of the features."""

from __future__ import annotations

import numpy as np

from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import Estimator, check_number


@estimators.register("logme")
class LogME(Estimator):
    """The log of the maximum evidence of a Bayesian linear regression on the features, by unit.

    Weights have a prior N(0, 1/α), labels a noise N(0, 1/β); α and β are those with the most evidence. Classes are one
    regression each, of 1 for the class and 0 for others, and the score is their mean.

    Args:
        rounds: at most so many of the fixed-point iteration.

    Relations: unlike `linear_probe` it trains and holds out nothing, as weights are integrated out; it is not bounded,
    and compares encoders on one task, not tasks.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 4))
        >>> LogME()(x, x[:, 0], np.arange(200)) > LogME()(x, x[::-1, 0], np.arange(200))
        True
    """

    paper = "You et al., 2021, arXiv:2102.11005"
    cost = "one singular value decomposition of the features"

    def __init__(self, rounds: int = 50):
        check_number("logme", "rounds", rounds, 1)
        self.rounds = int(rounds)

    def __call__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """See :meth:`Estimator.__call__`."""
        x = features.astype(np.float64)
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
        squares = np.where(singular > singular.max(initial=0) * 1e-10, singular, 0.0) ** 2
        if labels.dtype.kind == "f":
            targets = [labels.astype(np.float64)]
        else:
            targets = [(labels == kind).astype(np.float64) for kind in np.unique(labels)]
        return float(np.mean([self._evidence(y, left, squares, x.shape[1]) for y in targets]))

    def _evidence(self, y: np.ndarray, left: np.ndarray, squares: np.ndarray, width: int) -> float:
        """Of one target, by unit."""
        rows, within = len(y), left.T @ y
        beyond = max(0.0, float(y @ y - within @ within))  # what no weights can explain
        alpha = beta = 1.0
        for _ in range(self.rounds):
            gamma = float((beta * squares / (alpha + beta * squares)).sum())
            size = float((beta**2 * squares * within**2 / (alpha + beta * squares) ** 2).sum())
            residual = float((alpha**2 * within**2 / (alpha + beta * squares) ** 2).sum()) + beyond
            before = alpha / beta
            alpha = max(gamma, 1e-9) / (size + 1e-12)
            beta = max(rows - gamma, 1e-9) / (residual + 1e-12)
            if abs(alpha / beta - before) <= 1e-5 * before:
                break
        size = float((beta**2 * squares * within**2 / (alpha + beta * squares) ** 2).sum())
        residual = float((alpha**2 * within**2 / (alpha + beta * squares) ** 2).sum()) + beyond
        whole = width * np.log(alpha) + rows * np.log(beta) - beta * residual - alpha * size - rows * np.log(2 * np.pi)
        spread = np.log(alpha + beta * squares).sum() + (width - len(squares)) * np.log(alpha)
        return float(whole - spread) / (2 * rows)
