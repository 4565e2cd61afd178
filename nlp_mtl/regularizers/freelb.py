"""FreeLB: training on embeddings that were moved towards a higher loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.adversarial import Adversarial


@regularizers.register("freelb")
class FreeLB(Adversarial):
    """Adds the mean loss over several steps of moving the embeddings up the loss's gradient.

    Each text's word embeddings are moved at random, then `steps` times along their gradient, never further than
    `radius`; the gradients of the weights are taken on the way, so a step costs one more pass and no more.

    Args:
        strength: how much it counts beside the plain loss, from 0; 0 is plain training.
        radius: how far a text's embeddings may be moved, as the norm of all that is added, from 0.
        steps: how often they are moved.
        step_size: how far each time.
        init: how far they are moved at random before.
        seed: of that.

    Raises:
        ConfigError: numbers out of range, all at once.

    Relations: the paper has this loss in place of the plain one; here it stands beside it, so that strength and radius
    0 are plain training. Of `steps: 1` and `init: 0` it is the plain loss once more. `smart` makes answers smooth
    instead, without labels.

    Example:
        >>> FreeLB(radius=0.5, steps=2).step_size
        0.1
    """

    paper = "Zhu et al., 2020, arXiv:1909.11764"
    cost = "`steps` more forward and backward passes at each step; the gradients once more in memory"

    def __init__(
        self,
        strength: float = 1.0,
        radius: float = 0.3,
        steps: int = 2,
        step_size: float = 0.1,
        init: float = 0.1,
        seed: int = 0,
    ):
        super().__init__(strength, radius, steps, step_size, init, seed)

    def attack(
        self,
        moved: Callable[[Tensor | None], dict[str, Any]],
        start: Tensor,
        rows: Tensor,
        part: Mapping[str, Any],
        weights: Mapping[str, float],
    ) -> None:
        """See :meth:`Adversarial.attack`."""
        by, parameters, share = start, self.trained(), self.strength / self.steps
        for _ in range(self.steps):
            by = by.detach().requires_grad_()
            loss = moved(by)["loss"]
            if not loss.requires_grad:
                return
            found = torch.autograd.grad(loss, [by, *parameters], allow_unused=True)
            self.keep(share * float(loss.detach()), parameters, found[1:], share)
            if found[0] is None:  # nothing of the encoder is trained yet
                continue
            by = self.ascended(by.detach(), found[0], rows)
