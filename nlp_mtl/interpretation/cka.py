"""CKA: how alike two sets of hidden states of the same texts are."""

from __future__ import annotations

import numpy as np

from nlp_mtl.errors import ConfigError


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased linear centered kernel alignment: 1 for the same states up to rotation and scale, near 0 for others.

    Args:
        x: [rows, width], states of some texts.
        y: [rows, another width], others of the same texts.

    Raises:
        ConfigError: other numbers of rows, or fewer than 4.

    Relations: Kornblith et al. (2019, arXiv:1905.00414), with the unbiased estimate of HSIC of Song et al. (2012), so
    that wide states of few texts are not alike by chance; so it may be a little below 0.

    cost: products of [rows, rows].

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 8))
        >>> round(cka(x, 3 * x), 6)
        1.0
    """
    if len(x) != len(y) or len(x) < 4:
        raise ConfigError(f"cka: states of the same texts, 4 at least, found {len(x)} and {len(y)}; give the same rows")
    k, j = (_gram(np.asarray(states, dtype=np.float64)) for states in (x, y))
    both = hsic(k, k) * hsic(j, j)
    return float(hsic(k, j) / np.sqrt(both)) if both > 0 else 0.0


def _gram(states: np.ndarray) -> np.ndarray:
    states = states - states.mean(0)
    return states @ states.T


def hsic(k: np.ndarray, j: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion.

    Args:
        k, j: [rows, rows], kernels; their diagonals are not looked at.
    """
    n = len(k)
    k, j = k - np.diag(np.diag(k)), j - np.diag(np.diag(j))
    ones = k.sum() * j.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ j.sum(0)) / (n - 2)
    return float(((k * j.T).sum() + ones) / (n * (n - 3)))
