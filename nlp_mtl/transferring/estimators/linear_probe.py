"""Linear probe: what a linear model on the features scores on rows it has not seen."""

from __future__ import annotations

import warnings

import numpy as np

from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import Estimator, agreement, check_number, folds_of


@estimators.register("linear_probe")
class LinearProbe(Estimator):
    """Accuracy of a logistic regression, or Pearson's r of a ridge regression, on rows held out in turn.

    Args:
        folds: each row is held out once, by one of so many.
        penalty: 1/C of the logistic regression, α of ridge, on standardised features.
        seed: of the folds.

    Relations: `nlp-mtl probe` fits it at every layer; here it is of the last one, beside cheaper scores.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(60, 3))
        >>> LinearProbe()(x, (x[:, 1] > 0).astype(int), np.arange(60)) > 0.8
        True
    """

    paper = "Alain and Bengio, 2016, arXiv:1610.01644"
    cost = "`folds` linear models"

    def __init__(self, folds: int = 3, penalty: float = 10.0, seed: int = 0):
        check_number("linear_probe", "folds", folds, 2)
        check_number("linear_probe", "penalty", penalty, 1e-6)
        self.folds, self.penalty, self.seed = int(folds), float(penalty), seed

    def __call__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """See :meth:`Estimator.__call__`."""
        fold = folds_of(groups, self.folds, self.seed)
        found = np.zeros(len(labels), dtype=labels.dtype)
        for number in range(self.folds):
            held = fold == number
            if held.all() or not held.any():
                return 0.0
            found[held] = fitted(features[~held], labels[~held], self.penalty).predict(features[held])
        return agreement(found, labels)


def fitted(features: np.ndarray, labels: np.ndarray, penalty: float = 10.0) -> Probe:
    """A logistic regression of classes, a ridge regression of values, on features of mean 0 and variance 1."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    scaled = (features - mean) / spread
    kinds = np.unique(labels)
    if labels.dtype.kind == "f":
        return Probe(Ridge(alpha=penalty).fit(scaled, labels), mean, spread, kinds)
    if len(kinds) < 2:
        return Probe(None, mean, spread, kinds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a score
        model = LogisticRegression(C=1 / penalty, max_iter=100, tol=1e-3).fit(scaled, labels)
    return Probe(model, mean, spread, kinds)


class Probe:
    """A linear model that was fitted.

    Args:
        model: of scikit-learn; None where there is one class only.
        mean, spread: of the features.
        kinds: the classes.
    """

    def __init__(self, model: object, mean: np.ndarray, spread: np.ndarray, kinds: np.ndarray):
        self.model, self.mean, self.spread, self.kinds = model, mean, spread, kinds

    def predict(self, features: np.ndarray) -> np.ndarray:
        """[units]: classes or values."""
        if self.model is None:
            return np.repeat(self.kinds, len(features))
        return self.model.predict((features - self.mean) / self.spread)  # type: ignore[attr-defined]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """[units, classes]."""
        if self.model is None:
            return np.ones((len(features), 1))
        return self.model.predict_proba((features - self.mean) / self.spread)  # type: ignore[attr-defined]
