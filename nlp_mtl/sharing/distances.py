"""How far tasks' parameters are from one another, from their inner products alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["l2", "trace_norm"]
_LEAST = 1e-12  # the root of an eigenvalue of 0 has no slope


def products(downs: Tensor, ups: Tensor) -> Tensor:
    """[layers, n, n]: inner products of the matrices B A of each layer, without making them.

    Args:
        downs: the A, [layers, n, rank, in].
        ups: the B, [layers, n, out, rank].

    Example:
        >>> a, b = torch.ones(1, 2, 1, 2), torch.tensor([1.0, 2.0])[None, :, None, None] * torch.ones(1, 2, 3, 1)
        >>> products(a, b).tolist()
        [[[6.0, 12.0], [12.0, 24.0]]]
    """
    layers, count, rank, _ = downs.shape
    left = ups.transpose(1, 2).flatten(2)  # [layers, out, n · rank]
    right = downs.flatten(1, 2)  # [layers, n · rank, in]
    whole = (left.transpose(1, 2) @ left) * (right @ right.transpose(1, 2))
    return whole.view(layers, count, rank, count, rank).sum((2, 4))


def apartness(gramian: Tensor, distance: Distance) -> Tensor:
    """How far vectors are apart, from their inner products.

    Args:
        gramian: [n, n], or of several sets [sets, n, n], which are added up.
        distance: ``l2``, the sum of squared distances to the mean; ``trace_norm``, the sum of the singular values of
            the matrix whose rows they are.

    Example:
        >>> both = torch.tensor([[4.0, 0.0], [0.0, 9.0]])
        >>> float(apartness(both, "l2")), round(float(apartness(both, "trace_norm")), 4)
        (6.5, 5.0)
    """
    if distance == "trace_norm":
        return torch.linalg.eigvalsh(gramian.double()).clamp_min(_LEAST).sqrt().sum().to(gramian.dtype)
    return gramian.diagonal(dim1=-2, dim2=-1).sum() - gramian.sum() / gramian.shape[-1]
