"""NCE: what is still unknown of one task's labels when those of another are known."""

from __future__ import annotations

import numpy as np

from nlp_mtl.registry import estimators
from nlp_mtl.transferring.estimators.base import PairEstimator


@estimators.register("nce")
class NCE(PairEstimator):
    """The negative conditional entropy −H(Y | Z) of the target's labels Y, at most 0.

    Z are the source task's labels of the target's rows: the likeliest class of a linear probe of the source task, as
    other tasks' rows are seldom labelled.

    Relations: `leep` keeps how sure the probe is. Z with many classes tells more of few rows than of many.

    Example:
        >>> NCE().of_pair(np.eye(2)[[0, 0, 1, 1]], np.array([1, 1, 0, 0]))
        0.0
    """

    paper = "Tran et al., 2019, arXiv:1908.08142"
    cost = "a linear probe for each source task, shared with `leep`"

    def of_pair(self, source: np.ndarray, labels: np.ndarray) -> float:
        """See :meth:`PairEstimator.of_pair`."""
        return conditional_entropy(source.argmax(1), labels)


def conditional_entropy(given: np.ndarray, labels: np.ndarray) -> float:
    """−H(labels | given), in nats.

    Example:
        >>> round(conditional_entropy(np.array([0, 0, 0, 0]), np.array([0, 1, 0, 1])), 6)
        -0.693147
    """
    _, first = np.unique(given, return_inverse=True)
    _, second = np.unique(labels, return_inverse=True)
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1 / len(first))
    share = joint / joint.sum(1, keepdims=True)
    return float(min(0.0, (joint * np.log(np.where(share > 0, share, 1.0))).sum()))
