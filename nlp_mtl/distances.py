"""How far two samples of vectors are apart: CORAL and MMD, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
Distance = Callable[[Tensor, Tensor], Tensor]


def coral(one: Tensor, other: Tensor) -> Tensor:
    """The squared distance of two samples' covariances, ‖C₁ − C₂‖² / (4 d²); Sun & Saenko, 2016, arXiv:1607.01719.

    Args:
        one, other: [rows, d], at least 2 rows each.

    Returns:
        A number from 0; exactly 0 for equal samples.

    Example:
        >>> a = torch.tensor([[0.0], [2.0]])
        >>> float(coral(a, a)), float(coral(a, 2 * a))      # variances 2 and 8: 36 / 4
        (0.0, 9.0)
    """
    return (_covariance(one) - _covariance(other)).square().sum() / (4 * one.shape[1] ** 2)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1)


def mmd(one: Tensor, other: Tensor, widths: Sequence[float] = WIDTHS, *, unbiased: bool = False) -> Tensor:
    """The squared maximum mean discrepancy under a mean of Gaussian kernels; Gretton et al., 2012, JMLR 13.

    It is the biased estimate, mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y) over all pairs, which is never below 0; or
    the unbiased one, in which a row is no pair with itself. With few rows the biased one is far from 0 also where
    nothing differs, and least where all rows are the same: who trains on it draws everything to one point.
    Kernels are exp(−‖x − y‖² / (w · m)), with m the median of the squared distances between different rows of both
    samples (no gradient goes through it) and w each of `widths`; Long et al., 2015, arXiv:1502.02791, use as many.

    Args:
        one, other: [rows, d], at least 1 row each; 2 for the unbiased estimate.
        widths: multiples of the median.
        unbiased: leave out the pairs of a row with itself.

    Returns:
        A number from 0 to 2, exactly 0 for equal samples in equal order; unbiased, it may be below 0, and is 0 in the
        mean over samples of one distribution.

    Example:
        >>> a = torch.tensor([[0.0], [1.0]])
        >>> float(mmd(a, a)), round(float(mmd(a, a + 100)), 3)
        (0.0, 1.247)
    """
    # plain differences: the way over products is inexact where rows are alike, and does not give exactly 0
    exact = "donot_use_mm_for_euclid_dist"
    within, beyond, between = (
        torch.cdist(x, y, compute_mode=exact).square() for x, y in ((one, one), (other, other), (one, other))
    )
    with torch.no_grad():
        pairs = [square[tuple(torch.triu_indices(len(square), len(square), 1))] for square in (within, beyond)]
        middle = torch.cat([*pairs, between.flatten()]).median().clamp_min(torch.finfo(one.dtype).tiny)

    def kernel(square: Tensor, own: int = 0) -> Tensor:
        """The mean over pairs; `own` of them are of a row with itself, where every kernel is 1."""
        found = torch.stack([(-square / (width * middle)).exp().sum() for width in widths]).mean()
        return (found - own) / (square.numel() - own)

    alone = (len(one), len(other)) if unbiased else (0, 0)
    return kernel(within, alone[0]) + kernel(beyond, alone[1]) - 2 * kernel(between)


def between_domains(vectors: Tensor, domains: Tensor, distance: Distance) -> Tensor:
    """The mean distance over pairs of domains of which at least 2 rows each are there.

    Args:
        vectors: [rows, d].
        domains: [rows], the number of each row's domain.
        distance: of two samples.

    Returns:
        A number; 0, with a gradient of 0, where there is no pair.
    """
    groups = [vectors[domains == number] for number in domains.unique().tolist()]
    groups = [group for group in groups if len(group) > 1]
    found = [distance(one, other) for place, one in enumerate(groups) for other in groups[place + 1 :]]
    return torch.stack(found).mean() if found else vectors.sum() * 0.0
