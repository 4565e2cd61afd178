"""H-score: how far class means stand apart, in units of the features' spread."""

from __future__ import annotations

from typing import Literal

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import Estimator


@estimators.register("h_score")
class HScore(Estimator):
    """Trace of Σ⁻¹ Σ_z, with Σ the covariance of the features and Σ_z that of each unit's class mean.

    Args:
        shrinkage: how much of Σ is replaced by its mean variance in every direction: ``ledoit_wolf`` finds it (2004,
            Journal of Multivariate Analysis 88), or a number from 0 to 1. The class means are shrunk as much, as
            Ibrahim et al. do; with 0 it is the score of Bao et al., which few rows of many features make far too high.

    Relations: from 0 to the number of classes less one, without shrinkage; it takes off what no linear map of the
    features can change, where `logme` has a scale.

    Example:
        >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(HScore(shrinkage=0)(x, np.array([0, 0, 1, 1]), np.arange(4)), 6)
        1.0
    """

    paper = "Bao et al., 2019, doi:10.1109/ICIP.2019.8803726; shrinkage: Ibrahim et al., 2021, arXiv:2110.06893"
    cost = "one linear system of the features' size"
    of_values = False

    def __init__(self, shrinkage: float | Literal["ledoit_wolf"] = "ledoit_wolf"):
        known = shrinkage == "ledoit_wolf"
        number = isinstance(shrinkage, (int, float)) and not isinstance(shrinkage, bool)
        if not known and not (number and 0 <= float(shrinkage) <= 1):
            raise ConfigError(
                f"estimator 'h_score': `shrinkage` is ledoit_wolf or a number from 0 to 1, found {shrinkage!r}"
            )
        self.shrinkage = shrinkage

    def __call__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """See :meth:`Estimator.__call__`."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        x = features.astype(np.float64) - features.mean(0, dtype=np.float64)
        _, kind = np.unique(labels, return_inverse=True)
        counts = np.bincount(kind)
        means = np.zeros((len(counts), x.shape[1]))
        np.add.at(means, kind, x)
        means /= counts[:, None]
        between = (means * (counts / len(x))[:, None]).T @ means
        whole = x.T @ x / len(x)
        if self.shrinkage == "ledoit_wolf":
            much = float(ledoit_wolf_shrinkage(x, assume_centered=True))
        else:
            much = float(self.shrinkage)
        shrunk = (1 - much) * whole + much * np.trace(whole) / len(whole) * np.eye(len(whole))
        return float(np.trace(np.linalg.pinv(shrunk, rcond=1e-10, hermitian=True) @ ((1 - much) * between)))
