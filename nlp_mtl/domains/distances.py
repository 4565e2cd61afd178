"""Distances between two sets of feature vectors."""

from __future__ import annotations

import numpy as np

from nlp_mtl.meanpooled import target_probabilities


def a_distance(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> float:
    """The proxy A-distance, 2(1 − 2ε): ε is the error of a linear classifier of domains, on rows held out.

    0 where it can't tell them apart (a little below by chance), 2 where it always can. Both sides weigh the same.

    Args:
        source, target: [rows, features]; at least five rows each.
        seed: of the five folds.

    Relations: Ben-David et al. (2007, NeurIPS; 2010, 10.1007/s10994-009-5152-4).

    Example:
        >>> far = np.arange(40.0)[:, None] % 4
        >>> a_distance(far, far + 100)
        2.0
    """
    of_source, of_target = target_probabilities(source, target, seed=seed)
    error = (np.mean(of_source >= 0.5) + np.mean(of_target < 0.5)) / 2
    return float(2 * (1 - 2 * error))


def coral_distance(source: np.ndarray, target: np.ndarray) -> float:
    """‖C_s − C_t‖² ÷ 4d², of the covariances of features brought to a variance of 1 over both sides.

    Args:
        source, target: [rows, features]; at least two rows each.

    Relations: Sun and Saenko (2016, arXiv 1607.01719).

    Example:
        >>> same = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
        >>> coral_distance(same, same)
        0.0
    """
    first, second = _standard(source, target)
    apart = np.atleast_2d(np.cov(first, rowvar=False) - np.cov(second, rowvar=False))
    return float((apart**2).sum() / (4 * len(apart) ** 2))


def mmd(source: np.ndarray, target: np.ndarray) -> float:
    """The squared maximum mean discrepancy with a Gaussian kernel, without bias: about 0 for samples of one kind.

    The kernel's width is the median distance of the pooled rows; features have a variance of 1 over both sides.

    Args:
        source, target: [rows, features]; at least two rows each.

    Relations: Gretton et al. (2012, JMLR 13).

    Example:
        >>> far = np.arange(40.0)[:, None] % 4
        >>> round(mmd(far, far + 100), 2) > 0.9
        True
    """
    from sklearn.metrics.pairwise import euclidean_distances

    first, second = _standard(source, target)
    apart = euclidean_distances(np.concatenate([first, second]), squared=True)
    width = float(np.median(apart[np.triu_indices(len(apart), 1)])) or 1.0
    kernel, n, m = np.exp(-apart / width), len(first), len(second)
    within = (kernel[:n, :n].sum() - n) / (n * (n - 1)) + (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within - 2 * kernel[:n, n:].mean())


def _standard(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([source, target]).astype(np.float64)
    deviation = both.std(0)
    scaled = (both - both.mean(0)) / np.where(deviation > 1e-12, deviation, 1.0)
    return scaled[: len(source)], scaled[len(source) :]
