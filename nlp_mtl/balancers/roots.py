"""Small matrices in the place of large ones: what is said of gradients by their products alone."""

from __future__ import annotations

import torch
from torch import Tensor


def root_of(gramian: Tensor) -> Tensor:
    """[tasks, tasks]: rows with the same products as the gradients.

    Args:
        gramian: [tasks, tasks], of which rounding may have made some eigenvalues a little less than 0.

    Example:
        >>> root = root_of(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
        >>> (root @ root.T).tolist()
        [[4.0, 0.0], [0.0, 9.0]]
    """
    values, vectors = torch.linalg.eigh(gramian)
    return vectors * values.clamp_min(0).sqrt()


def weights_of(rows: Tensor, vector: Tensor) -> Tensor:
    """[tasks]: the smallest weights with which the rows come to `vector`, which lies between them."""
    return torch.linalg.lstsq(rows.T, vector[:, None], driver="gelsd").solution[:, 0]
