"""L2-SP: decay to the starting weights, not to zero."""

from __future__ import annotations

import torch

from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.base import Anchored, check_number


@regularizers.register("l2_sp")
class L2SP(Anchored):
    """Keeps weights near those they started from, and those of new heads near zero.

    The penalty is α/2 ‖w − w⁰‖² over what the encoder and sharing started with, and what heads have of an earlier
    training: those taken over by `init_from`, the checkpoint's decoder or masked-LM head; and β/2 ‖w‖² over what begins
    anew in heads. With a LoRA it holds the adapters near their start, where they change nothing. Layers that
    `reinit_top_layers` made anew are held near what they were made as.

    Args:
        alpha: how much the distance to the starting weights counts, from 0.
        beta: how much the size of new weights counts, from 0.

    Relations: with the pretrained weights 0 it would be weight decay, which does not replace it (AdamW's is not scaled
    by the gradient's size, this is). EWC is this with a weight for each parameter.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> held = L2SP(alpha=0.1, beta=0.0)
        >>> held.setup(tiny_model(["rte"]), None)
        >>> held.begin()
        >>> float(held.penalty().detach())  # at the start
        0.0
    """

    paper = "Li et al., 2018, arXiv:1802.01483"

    def __init__(self, alpha: float = 0.1, beta: float = 0.01):
        check_number("l2_sp", "alpha", alpha)
        check_number("l2_sp", "beta", beta)
        self.alpha, self.beta = alpha, beta

    def begin(self) -> None:
        """See :meth:`Regularizer.begin`."""
        trained = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        weights, anchors = {}, {}
        for name, start in trained.items():
            new = self._begins_anew(name)
            if rate := self.beta if new else self.alpha:
                weights[name] = torch.tensor(float(rate))
                anchors[name] = torch.tensor(0.0) if new else start
        self.hold(weights, anchors)

    def _begins_anew(self, name: str) -> bool:
        part, _, rest = name.partition(".")
        head, _, own = rest.partition(".")
        if part != "modules_" or not self.model.fresh or head in self.model.begun:
            return False
        return own not in getattr(self.model.modules_[head], "from_checkpoint", ())
