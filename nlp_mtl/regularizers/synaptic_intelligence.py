"""Synaptic intelligence: importance counted while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.base import Anchored, check_number
from nlp_mtl.regularizers.ewc import added
from nlp_mtl.regularizers.importance import fitting, load_importance, shared_of


@regularizers.register("synaptic_intelligence")
class SynapticIntelligence(Anchored):
    """Keeps shared weights near where they start, each as much as its change lowered the loss in earlier runs.

    While it trains, each parameter's share of the fall of the loss is summed: −gradient · change, step by step. When
    training ends, that over the squared way it went is its importance, which is saved in the run folder; the next run
    (`importance`) keeps it near by strength · Σ Ω (θ − θ⁰)².

    Args:
        strength: how much it counts, from 0.
        importance: a file, or the folder of the run before; default none, in the first run.
        damping: added to the squared way, above 0.

    Relations: `ewc` with importance along the whole way of training and not at its end. Gradients are those before
    clipping, changes the optimizer's own; what is summed goes to the last step, also where the best checkpoint is kept.

    Example:
        >>> SynapticIntelligence(strength=0.5).damping
        0.001
    """

    paper = "Zenke et al., 2017, arXiv:1703.04200"
    carries = True
    cost = "four copies of the shared weights in memory and in checkpoints; two passes over them at each step"

    def __init__(self, strength: float = 1.0, importance: str | None = None, damping: float = 1e-3):
        check_number("synaptic_intelligence", "strength", strength)
        check_number("synaptic_intelligence", "damping", damping)
        if not damping:
            raise ConfigError("regularizer 'synaptic_intelligence': `damping` is above 0, found 0")
        self.strength, self.importance, self.damping = strength, importance, damping

    def setup(self, model: object, data: object) -> None:
        """See :meth:`Regularizer.setup`."""
        super().setup(model, data)
        shared_of("regularizer 'synaptic_intelligence'", self.model)
        self._before: dict[str, Tensor] = {}
        if self.importance is not None:
            self._before = fitting("synaptic_intelligence", load_importance(self.importance), model)
        self._start: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._now: dict[str, tuple[Tensor, Tensor]] = {}

    def _shared(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {name: p for name, p in named if name.startswith("sharing.") and p.requires_grad}

    def begin(self) -> None:
        """See :meth:`Regularizer.begin`."""
        self._start = {name: p.detach().clone() for name, p in self._shared().items()}
        self._sums = {name: torch.zeros_like(start) for name, start in self._start.items()}
        weights = {name: 2 * self.strength * value for name, value in self._before.items() if value.any()}
        self.hold(weights, {name: self._start[name] for name in weights})

    def before_step(self, scale: float) -> None:
        """Note the gradients, and where parameters are."""
        self._now = {
            name: (p.detach().clone(), p.grad.detach() / scale)
            for name, p in self._shared().items()
            if p.grad is not None and name in self._sums
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Add what this step's change did."""
        known = dict(self.model.named_parameters())
        for name, (before, gradient) in self._now.items():
            moved = known[name] - before
            self._sums[name] -= torch.where(moved == 0, 0.0, gradient * moved)  # a step that fp16 left out: inf · 0
        self._now = {}

    def carried(self, learned: Sequence[str] | None = None) -> dict[str, Tensor] | None:
        """See :meth:`Regularizer.carried`: what was counted in this run, and before."""
        known = dict(self.model.named_parameters())
        found = {}
        for name, total in self._sums.items():
            way = (known[name].detach() - self._start[name]).square()
            found[name] = total.clamp_min(0) / (way + self.damping)
        before = {name: value.to(self.model.device) for name, value in self._before.items()}
        return {name: value for name, value in added(before, found).items() if value.any()}

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Regularizer.state_dict`."""
        return {**super().state_dict(), "start": dict(self._start), "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Regularizer.load_state_dict`."""
        super().load_state_dict(state)
        device = self.model.device
        self._start = {name: value.to(device) for name, value in state["start"].items()}
        self._sums = {name: value.to(device, copy=True) for name, value in state["sums"].items()}
