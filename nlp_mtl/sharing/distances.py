"""How far tasks' parameters are from one another, from their inner products alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["l2", "trace_norm"]
_LEAST = 1e-12  # the root of an eigenvalue of 0 has no slope


def products(downs: Sequence[Tensor], ups: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """[n, n]: inner products of the matrices scale · B A, without making them.

    Args:
        downs: the A [rank, in] of each.
        ups: the B [out, rank].
        scales: of each.

    Example:
        >>> a, b = torch.ones(1, 2), torch.ones(3, 1)
        >>> products([a, a], [b, 2 * b], [1.0, 1.0]).tolist()
        [[6.0, 12.0], [12.0, 24.0]]
    """
    down, up = torch.cat(list(downs)), torch.cat([b * scale for b, scale in zip(ups, scales, strict=True)], 1)
    whole = (up.t() @ up) * (down @ down.t())
    ranks = [len(one) for one in downs]
    return torch.stack([torch.stack([part.sum() for part in row.split(ranks, 1)]) for row in whole.split(ranks)])


def apartness(gramian: Tensor, distance: Distance, centre: Tensor | None = None) -> Tensor:
    """How far vectors are apart, from their inner products.

    Args:
        gramian: [n, n].
        distance: ``l2``, the sum of squared distances to the centre; ``trace_norm``, the sum of the singular values of
            the matrix whose rows they are.
        centre: [n] of what is the centre, as weights of the vectors; default their mean.

    Example:
        >>> both = torch.tensor([[4.0, 0.0], [0.0, 9.0]])
        >>> float(apartness(both, "l2")), round(float(apartness(both, "trace_norm")), 4)
        (6.5, 5.0)
    """
    if distance == "trace_norm":
        return torch.linalg.eigvalsh(gramian.double()).clamp_min(_LEAST).sqrt().sum().to(gramian.dtype)
    count = len(gramian)
    mean = gramian.new_full((count,), 1.0 / count) if centre is None else centre
    return gramian.diagonal().sum() - 2 * (gramian @ mean).sum() + count * (mean @ gramian @ mean)
