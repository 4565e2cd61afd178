"""Tasks are alike that pull the shared encoder the same way."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlp_mtl.registry import evidences
from nlp_mtl.transferring.evidence.base import Evidence, check_above_zero, check_whole
from nlp_mtl.transferring.gradients import Gradients, gradients_of
from nlp_mtl.transferring.opening import Opened

SMALL = 0.1  # an agreement of halves, below which a gradient is chance


class OfGradients(Evidence):
    """Base of evidence from the tasks' mean gradients at the pretrained weights.

    Args:
        layers: so many layers from the top; default all.
        rows: at most so many rows of each task: half to warm heads up, a quarter each for two mean gradients.
        passes: over the rows that heads are warmed up on.
        rate: learning rate of the heads.
    """

    def __init__(self, layers: int | None = None, rows: int = 512, passes: int = 8, rate: float = 0.003):
        check_whole(self.registered_as, 1, passes=passes, **({} if layers is None else {"layers": layers}))
        check_whole(self.registered_as, 8, rows=rows)
        check_above_zero(self.registered_as, rate=rate)
        self.layers, self.rows, self.passes, self.rate = layers, rows, passes, rate

    def find(self, opened: Opened) -> tuple[np.ndarray, dict[str, Any]]:
        """See :meth:`Evidence.find`."""
        found = gradients_of(opened, layers=self.layers, rows=self.rows, passes=self.passes, rate=self.rate)
        agreement = found.agreement
        notes = [
            f"{task}: its gradients on two samples of rows have nothing in common (agreement {value:.2f}), so it is "
            "taken to share nothing; more rows may show it"
            for task, value in zip(opened.tasks, agreement, strict=True)
            if value <= SMALL
        ]
        rounded = {task: round(float(value), 4) for task, value in zip(opened.tasks, agreement, strict=True)}
        return self.of(found), {"agreement": rounded, "notes": notes}

    def of(self, gradients: Gradients) -> np.ndarray:
        """[m, m], from the products."""
        raise NotImplementedError


@evidences.register("gradient_cosine")
class GradientCosine(OfGradients):
    """Cosine of the tasks' mean gradients of the shared encoder, as it would be without the noise of few rows.

    Heads are warmed up on fixed features, so that gradients are not those of chance heads. Gradients are of what labels
    tell of rows, and not of how often they come (:func:`nlp_mtl.transferring.gradients.label_loss`). cos(i, j) is
    divided by √(rᵢ rⱼ), with r the agreement of a task's gradients on two samples of rows (the correction for
    attenuation of Spearman, 1904), and cut to −1 … 1; a task whose samples do not agree gets 0.

    Args:
        layers, rows, passes, rate: see :class:`OfGradients`.

    Relations: the cosine that `pcgrad` acts on within a step, as a mean over many rows; `gradient_affinity` has a
    direction. Labels in another order change nothing, as heads learn either.
    """

    paper = "Yu et al., 2020, arXiv:2001.06782"
    cost = "heads trained on fixed features, then a forward and backward pass over half of the rows"

    def of(self, gradients: Gradients) -> np.ndarray:
        """See :meth:`OfGradients.of`."""
        return corrected(gradients)


def corrected(gradients: Gradients) -> np.ndarray:
    """[m, m]: cosines, less noise; see :class:`GradientCosine`.

    Example:
        >>> products = np.einsum("ab,ij->aibj", np.ones((2, 2)), np.array([[4.0, 2.0], [2.0, 1.0]]))
        >>> corrected(Gradients(products, np.ones((2, 2)), np.ones(2))).round(6).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    mean = gradients.products.mean((0, 2))  # the halves' mean is the whole's gradient
    norms = np.sqrt(np.clip(mean.diagonal(), 0, None))
    agreement = gradients.agreement
    known = (agreement > SMALL) & (norms > 0)
    scale = np.where(known, norms * np.sqrt(np.where(known, agreement, 1.0)), 1.0)
    found = np.where(known[:, None] & known, mean / (scale[:, None] * scale), 0.0)
    np.fill_diagonal(found, 1.0)
    return np.clip(found, -1, 1)
