"""A task helps another whose loss falls when the shared encoder makes a step for the first."""

from __future__ import annotations

import numpy as np

from nlp_mtl.registry import evidences
from nlp_mtl.transferring.evidence.gradient_cosine import SMALL, OfGradients
from nlp_mtl.transferring.gradients import Gradients


@evidences.register("gradient_affinity")
class GradientAffinity(OfGradients):
    """How far a small step for one task lowers another's loss on other rows, beside a step of the other's own.

    By first order a step of length s along task i's gradient changes task j's loss by −s ⟨ĝᵢ, gⱼ⟩, with ĝᵢ of length
    1 and gⱼ on rows that ĝᵢ has not seen. The relative drop is divided by what j's own step of that length gives, so
    the diagonal is 1, and 0.5 says half as good as training j itself. Of two samples of rows each makes the step once.
    A task whose own step does not lower its loss on other rows gets 0.

    Args:
        layers, rows, passes, rate: see :class:`nlp_mtl.transferring.evidence.gradient_cosine.OfGradients`.

    Relations: the inter-task affinity of TAG (Fifty et al.), at the pretrained weights and to first order instead of
    along a training; steps are equally long, so tasks with large losses do not seem to help more.
    """

    paper = "Fifty et al., 2021, arXiv:2109.04617"
    cost = "as `gradient_cosine`, and nothing more beside it"

    def of(self, gradients: Gradients) -> np.ndarray:
        """See :meth:`OfGradients.of`."""
        return lookahead(gradients)


def lookahead(gradients: Gradients) -> np.ndarray:
    """[m, m], helper × helped; see :class:`GradientAffinity`.

    Example:
        >>> products = np.einsum("ab,ij->aibj", np.ones((2, 2)), np.array([[4.0, 1.0], [1.0, 1.0]]))
        >>> lookahead(Gradients(products, np.ones((2, 2)), np.ones(2))).round(6).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    drops = relative_drops(gradients)
    own = drops.diagonal()
    known = (gradients.agreement > SMALL) & (own > 0)
    found = np.where(known[:, None] & known, drops / np.where(known, own, 1.0), 0.0)
    np.fill_diagonal(found, 1.0)
    return found


def relative_drops(gradients: Gradients) -> np.ndarray:
    """[m, m]: by first order, what share of j's loss on other rows a step of length 1 along i's gradient takes away."""
    many = gradients.products.shape[1]
    found = np.zeros((many, many))
    for step, held in ((0, 1), (1, 0)):
        norms = np.sqrt(np.clip(gradients.products[step, :, step, :].diagonal(), 0, None))
        drop = gradients.products[step, :, held, :] / np.where(norms > 0, norms, 1.0)[:, None]
        found += drop / np.clip(gradients.losses[held], 1e-12, None) / 2
    return found
