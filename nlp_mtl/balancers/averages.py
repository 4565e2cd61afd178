"""Balancers that remember how the losses went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, StepFacts
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers


@balancers.register("dwa")
class Dwa(Balancer):
    """Dynamic weight average: tasks whose mean loss fell least from one epoch to the next count most.

    In the first two epochs all count 1. A task that is absent from a step leaves its epoch's mean alone; one that was
    absent from an epoch keeps the mean of the epoch before.

    Args:
        temperature: of the softmax over the ratios of losses, above 0; high is near equal.

    Relations: like `gradnorm` it looks at how fast tasks learn, by their losses alone.
    """

    paper = "Liu et al., 2019, arXiv:1803.10704"
    needs = frozenset({"losses"})
    cost = "nothing; in a step of several passes one more forward pass, for the losses of the whole step"

    def __init__(self, temperature: float = 2.0):
        if not temperature > 0:
            raise ConfigError(f"balancer 'dwa': `temperature` is above 0, found {temperature}")
        self.temperature = temperature

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._sum, self._steps = (torch.zeros(len(tasks), dtype=torch.float64) for _ in range(2))
        self._before: list[Tensor] = []
        self._epoch = 0

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: TorchJD's weights, where absent 0."""
        from torchjd.scalarization import DWA

        assert losses is not None
        if facts.epoch != self._epoch:
            self._epoch_done()
            self._epoch = facts.epoch
        present, values = facts.present.cpu(), losses.detach().double().cpu()
        self._sum += torch.where(present, values, 0.0)
        self._steps += present
        scalarizer = DWA(self.temperature)
        for mean in self._before:  # its epochs are one step long, for tasks may be absent
            scalarizer(mean)
            scalarizer.step()
        values = values.requires_grad_()
        with torch.enable_grad():
            found = torch.autograd.grad(scalarizer(values), values)[0]
        return torch.where(present, found, 0.0)

    def _epoch_done(self) -> None:
        """The epoch's means become the last ones."""
        last = self._before[-1] if self._before else torch.ones_like(self._sum)
        mean = torch.where(self._steps > 0, self._sum / self._steps.clamp_min(1), last)
        self._before = [*self._before, mean.clamp_min(1e-12)][-2:]
        self._sum, self._steps = torch.zeros_like(self._sum), torch.zeros_like(self._steps)

    def state_dict(self) -> dict[str, Any]:
        """Sums of this epoch and means of the last two."""
        return {"sum": self._sum, "steps": self._steps, "before": list(self._before), "epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._sum, self._steps = state["sum"].clone(), state["steps"].clone()
        self._before, self._epoch = [mean.clone() for mean in state["before"]], int(state["epoch"])
