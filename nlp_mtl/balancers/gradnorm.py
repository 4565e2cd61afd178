"""GradNorm: weights that make the tasks' gradients grow alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, Scope, StepFacts
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers


@balancers.register("gradnorm")
class GradNorm(Balancer):
    """Learned weights under which each task's gradient is as long as its rate of learning asks for.

    A task that is behind (its loss is a larger share of its first one than the others') should have a longer gradient.
    The weights of a step were learned from the steps before; they are scaled to the sum of the tasks. A task that is
    absent keeps its weight.

    Args:
        alpha: how much a task that is behind is helped, from 0; 0 makes all gradients equally long.
        lr: of the weights' Adam, above 0.
        scope: which parameters' gradients are measured; the paper measures the last shared layer's.

    Relations: `dwa` asks the same of the losses alone; `imtl_g` solves for equal parts at every step.
    """

    paper = "Chen et al., 2018, arXiv:1711.02257"
    needs = frozenset({"losses", "gramian"})
    lags = True
    cost = "the tasks' gradients of the last layer: as many times its memory"

    def __init__(self, alpha: float = 1.5, lr: float = 0.025, *, scope: Scope = "last_layer"):
        if not alpha >= 0 or not lr > 0:
            raise ConfigError(f"balancer 'gradnorm': `alpha` is at least 0 and `lr` above 0, found {alpha} and {lr}")
        self.alpha, self.lr, self.scope = alpha, lr, scope

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._w = torch.nn.Parameter(torch.ones(len(tasks), dtype=torch.float64))
        self._optimizer = torch.optim.Adam([self._w], lr=self.lr)
        self._first = torch.zeros(len(tasks), dtype=torch.float64)  # 0 for a task that never came

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: as learned so far, with the sum of the tasks present; then learned from this step."""
        present = facts.present.cpu()
        found = torch.where(present, self._w.detach(), 0.0)
        found = found * present.sum() / found.sum().clamp_min(1e-12)
        if losses is not None and gramian is not None:
            self._learn(present, losses.detach().double().cpu(), gramian.double().cpu().diagonal().clamp_min(0).sqrt())
        return found

    def _learn(self, present: Tensor, losses: Tensor, norms: Tensor) -> None:
        self._first = torch.where(present & (self._first == 0), losses, self._first)
        behind = (losses / self._first.clamp_min(1e-12))[present]
        wanted = (behind / behind.mean().clamp_min(1e-12)) ** self.alpha
        with torch.enable_grad():
            lengths = (self._w * norms)[present]
            away = (lengths - (lengths.mean() * wanted).detach()).abs().sum()
            (self._w.grad,) = torch.autograd.grad(away, self._w)
        kept = self._w.detach().clone()
        self._optimizer.step()
        with torch.no_grad():
            moved = torch.where(present, self._w, kept).clamp_min(1e-3)
            self._w.copy_(moved * len(moved) / moved.sum())

    def state_dict(self) -> dict[str, Any]:
        """Weights, their optimizer's state, and the tasks' first losses."""
        own = self._w.detach().clone()
        return {"own": own, "optimizer": self._optimizer.state_dict(), "first": self._first.clone()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._w.copy_(state["own"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._first = state["first"].clone()
