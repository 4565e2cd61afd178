"""Nearest neighbours: is a row labelled as those like it?"""

from __future__ import annotations

import numpy as np

from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import Estimator, agreement, check_number

_AT_ONCE = 1024  # units whose neighbours are looked for together


@estimators.register("knn")
class KNN(Estimator):
    """Accuracy of the k nearest neighbours' vote, each row left out once; of values, Pearson's r of their mean.

    Near is by cosine. Units of the same row are no neighbours. Of classes with as many votes the one with the nearer
    neighbours wins.

    Args:
        k: how many neighbours.

    Relations: needs no training, as `linear_probe` does, and sees what is not linear; used to choose models by Renggli
    et al. (2020, arXiv 2010.06402).

    Example:
        >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> KNN(k=1)(x, np.array([0, 0, 1, 1]), np.arange(4))
        1.0
    """

    paper = "Cover and Hart, 1967, IEEE Transactions on Information Theory 13"
    cost = "one product of the features with themselves"

    def __init__(self, k: int = 5):
        check_number("knn", "k", k, 1)
        self.k = int(k)

    def __call__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """See :meth:`Estimator.__call__`."""
        x = features / np.clip(np.linalg.norm(features, axis=1, keepdims=True), 1e-12, None)
        many = min(self.k, len(x) - int(np.bincount(np.unique(groups, return_inverse=True)[1]).max()))
        if many < 1:
            return 0.0
        found = np.zeros(len(x), dtype=labels.dtype)
        kinds, kind = np.unique(labels, return_inverse=True)
        for begin in range(0, len(x), _AT_ONCE):
            here = slice(begin, begin + _AT_ONCE)
            near = x[here] @ x.T
            near[groups[here][:, None] == groups] = -np.inf
            best = np.argpartition(-near, many - 1, axis=1)[:, :many]
            if labels.dtype.kind == "f":
                found[here] = labels[best].mean(1)
                continue
            votes = np.zeros((len(best), len(kinds)))
            closeness = np.take_along_axis(near, best, 1) * 1e-3 / self.k  # less than a vote, all together
            np.add.at(votes, (np.arange(len(best))[:, None], kind[best]), 1 + closeness)
            found[here] = kinds[votes.argmax(1)]
        return agreement(found, labels)
