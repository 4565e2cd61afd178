"""LEEP: how well one task's labels are told by what a model of another says."""

from __future__ import annotations

import numpy as np

from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import PairEstimator


@estimators.register("leep")
class LEEP(PairEstimator):
    """The log expected empirical prediction: mean log Σ_z P(y | z) θ(z | x), at most 0.

    θ are the probabilities that a linear probe of the source task gives to its classes on the target task's rows, and
    P(y | z) is counted from them and the target's labels.

    Relations: `nce` with probabilities instead of the likeliest class; equal to it where the probe is sure of all.

    Example:
        >>> LEEP().of_pair(np.eye(2)[[0, 0, 1, 1]], np.array([1, 1, 0, 0]))
        0.0
    """

    paper = "Nguyen et al., 2020, arXiv:2002.12462"
    cost = "a linear probe for each source task, shared with `nce`"

    def of_pair(self, source: np.ndarray, labels: np.ndarray) -> float:
        """See :meth:`PairEstimator.of_pair`."""
        _, kind = np.unique(labels, return_inverse=True)
        joint = np.eye(kind.max() + 1)[kind].T @ source / len(source)  # [target classes, source classes]
        given = joint / np.clip(joint.sum(0), 1e-300, None)
        expected = (source @ given.T)[np.arange(len(kind)), kind]
        return float(min(0.0, np.log(np.clip(expected, 1e-300, None)).mean()))
