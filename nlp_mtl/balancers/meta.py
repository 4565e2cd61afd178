"""Balancers that look for a start from which each task is learned in a few steps (first-order meta-learning)."""

from __future__ import annotations

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, Need, StepFacts
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers


class InnerSteps(Balancer):
    """Base: each task makes steps of its own from where the step begins, and the update is made of what they met.

    A step's micro-batches (`gradient_accumulation_steps`) are each task's inner steps: plain gradient descent at
    `inner_rate`, on the heads too. Then all weights go back, and the optimizer steps once. Tasks count alike.
    Of several processes each goes its own way on its own rows, so two are not one with twice the batch.

    Args:
        inner_rate: the learning rate of the inner steps, from 0.
    """

    needs: frozenset[Need] = frozenset({"inner_steps"})
    cost = "a pass per task in each micro-batch, a copy of the trained weights"

    def __init__(self, inner_rate: float = 0.01):
        number = isinstance(inner_rate, (int, float)) and not isinstance(inner_rate, bool)
        if not number or not 0 <= inner_rate < float("inf"):
            raise ConfigError(f"balancer {self.name!r}: `inner_rate` is a number from 0, found {inner_rate!r}")
        self.inner_rate = float(inner_rate)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: 1 / number of tasks present."""
        present = facts.present.float()
        return present / present.sum().clamp_min(1)

    def direction(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        """What a task asks of the update.

        Args:
            gradients: for each inner step, those of the trained parameters, where it stood then.
        """
        raise NotImplementedError


@balancers.register("reptile")
class Reptile(InnerSteps):
    """Moves towards where each task comes to after a few steps of its own.

    The update is (θ − θₖ) / (k · inner_rate), the mean of the gradients that a task met on its k inner steps, averaged
    over tasks.

    Relations: with one micro-batch, or an `inner_rate` of 0, `equal`; `fomaml` takes the last gradient alone.

    Example:
        >>> Reptile(inner_rate=0.05).direction([[torch.tensor([1.0])], [torch.tensor([3.0])]])
        [tensor([2.])]
    """

    paper = "Nichol et al., 2018, arXiv:1803.02999"

    def direction(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        """See :meth:`InnerSteps.direction`: their mean."""
        return [torch.stack(found).mean(0) for found in zip(*gradients, strict=True)]


@balancers.register("fomaml")
class FOMAML(InnerSteps):
    """Lowers the loss that each task has after a few steps of its own: first-order MAML.

    The last micro-batch is the query set: its gradient, where the inner steps on those before it led, is the update.

    Relations: MAML (Finn et al., 2017) without second derivatives; with an `inner_rate` of 0, `equal` on the last
    micro-batch alone.

    Example:
        >>> FOMAML(inner_rate=0.05).direction([[torch.tensor([1.0])], [torch.tensor([3.0])]])
        [tensor([3.])]
    """

    paper = "Finn et al., 2017, arXiv:1703.03400"

    def direction(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        """See :meth:`InnerSteps.direction`: the last ones."""
        return gradients[-1]
