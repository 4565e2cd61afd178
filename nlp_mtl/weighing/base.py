"""Weights that are known before a step's gradients are; and a look at the tasks' gradients beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nlp_mtl.balancers import Balancer, StepFacts
from nlp_mtl.gradients import PerTaskGradients

Weights = Mapping[str, float] | Callable[[Mapping[str, Tensor]], Mapping[str, float]]


class Host(Protocol):
    """What a trainer gives to who weighs its tasks."""

    tasks: list[str]
    accelerator: Any
    args: Any

    @property
    def products_in_bfloat16(self) -> bool:
        """Whether linear layers multiply in bfloat16, on the CPU."""

    def plain_pass(self, model: nn.Module, part: Mapping[str, Any], facts: StepFacts, *, sync: bool) -> Tensor:
        """One forward and backward pass of the weighted sum; processes exchange gradients if `sync`."""

    def outputs(self, model: nn.Module, part: Mapping[str, Any], facts: StepFacts, weights: Weights | None) -> Any:
        """One forward pass, in training mode, with the losses noted; what the model gives."""

    def losses_of(self, model: nn.Module, parts: Sequence[Mapping[str, Any]], facts: StepFacts) -> Tensor:
        """[tasks]: the step's losses by forward passes alone, over all processes, with the dropout of those to come."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Passes inside this block leave no trace: random numbers and losses are afterwards what they were."""

    def over_processes(self, values: Tensor) -> Tensor:
        """The sum over processes."""

    def gather(self, thing: Any) -> list[Any]:
        """What each process has."""

    def noted(self) -> Tensor:
        """[tasks]: losses of the step noted so far, over all processes."""


@dataclass
class Look:
    """What was seen of the tasks' gradients in a step.

    Attributes:
        norms: [tasks].
        cosines: [tasks, tasks], NaN where one is absent or has a gradient of zeros.
    """

    norms: Tensor
    cosines: Tensor

    @classmethod
    def at(cls, gramian: Tensor, present: Tensor) -> Look:
        """From the products of the gradients [tasks, tasks]."""
        norms = gramian.diagonal().clamp_min(0).sqrt()
        both = norms[:, None] * norms
        cosines = torch.where(both > 0, gramian / both.clamp_min(1e-300), torch.nan).clamp(-1, 1)
        here = present.cpu()
        cosines[~here], cosines[:, ~here] = torch.nan, torch.nan
        return cls(torch.where(here, norms, torch.nan), cosines)


def unweighed(gramian: Tensor, weights: Tensor) -> Tensor:
    """[tasks, tasks]: products of gradients, from those of the gradients times `weights` [tasks]; 0 where one is 0."""
    both = weights[:, None] * weights
    return torch.where(both != 0, gramian / torch.where(both != 0, both, 1.0), 0.0)


class Weighing:
    """Weights from what is known before the step; every other way is this one with something more.

    Args:
        host: the trainer.
        model: the model, not wrapped.
        balancer: gives the weights.
        watched: parameters whose gradients are looked at; none, if they can't be.
        every: in which steps: each so many; 0 for never.
    """

    def __init__(
        self, host: Host, model: Any, balancer: Balancer, watched: Sequence[nn.Parameter] = (), every: int = 0
    ):
        self.host, self.model, self.balancer = host, model, balancer
        self.watched, self.every = list(watched), every if watched else 0
        self._gradients: PerTaskGradients | None = None
        self.shown = torch.zeros(0)
        self.look: Look | None = None

    @property
    def gradients(self) -> PerTaskGradients:
        """Who keeps the gradients of the watched parameters apart."""
        if self._gradients is None:
            self._gradients = PerTaskGradients(self.model.sharing.encoder, self.watched, self.host.tasks, self.model)
        return self._gradients

    def begin(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """A step begins.

        Args:
            facts: the step.
            model: as the passes call it.
            parts: the passes of this process.
            single: whether every process makes one pass only.
        """
        self.facts, self.look = facts, None
        self._watch = bool(self.every) and facts.step % self.every == 0 and int(facts.present.sum()) > 1
        self._once = single and self.host.args.world_size == 1 and self.host.products_in_bfloat16
        if self._watch:
            self.gradients.begin(once_in_bfloat16=self._once)
        self.weigh(facts, model, parts, single)

    def weigh(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """Find the weights, or leave it to the forward pass."""
        self.shown = self.balancer.weights(facts)

    def for_forward(self) -> Weights:
        """What the model is told."""
        return dict(zip(self.host.tasks, self.shown.tolist(), strict=True))

    def train(self, model: nn.Module, part: Mapping[str, Any], *, last: bool, sync: bool) -> Tensor:
        """One pass, forward and backward.

        Args:
            model: as it is called, wrapped.
            part: the mixed batch.
            last: whether it is this process's last one in the step.
            sync: whether processes exchange gradients in this pass.

        Returns:
            The loss, detached.
        """
        if not self._watch:
            return self.host.plain_pass(model, part, self.facts, sync=sync)
        with self.gradients.during() as taps, self.host.accelerator.no_sync(model):
            self.model.taps = taps
            try:
                found = self.host.outputs(model, part, self.facts, self.for_forward())
            finally:
                self.model.taps = None
            losses = {task: loss * float(self._weight(task)) for task, loss in found["terms"].items()}
            if losses:
                self.gradients.backward(losses)
        if last:
            self._finish()
        return found["loss"].detach()

    def _weight(self, task: str) -> Tensor:
        return self.shown[self.host.tasks.index(task)]

    def _finish(self) -> None:
        """What was kept apart is put together again, and exchanged."""
        slots, present = self.gradients.slots, self.facts.present
        self.exchange_slots()
        gramian = unweighed(self.gradients.gramian(), self.shown.double().cpu())
        self.look = Look.at(gramian, present)
        slots.write(torch.ones(len(self.host.tasks)))
        self.exchange_rest()
        self.looked_at(gramian)

    def looked_at(self, gramian: Tensor) -> None:
        """Hear of the gradients' products of this step."""

    def done(self, model: nn.Module, parts: Sequence[Mapping[str, Any]]) -> None:
        """The optimizer made its step."""
        if "new_losses" in self.balancer.needs:
            self.balancer.learn(self.facts, self.host.losses_of(model, parts, self.facts))

    # --------------------------------------------------------------------------------------------- several processes

    def exchange_slots(self) -> None:
        """Average what was kept apart over processes, before anything is made of it."""
        count = self.host.args.world_size
        if count > 1:
            self.gradients.slots.reduced(count, {"sum": self.host.over_processes, "gather": self.host.gather})

    def exchange_rest(self) -> None:
        """Average all other gradients over processes, as the wrapped model would have done."""
        count = self.host.args.world_size
        if count == 1:
            return
        rest = [p for p in self.model.parameters() if p.requires_grad and not self.gradients.slots.takes(p)]
        some = torch.tensor([float(p.grad is not None) for p in rest], device=self.host.args.device)
        here = [p for p, known in zip(rest, self.host.over_processes(some).tolist(), strict=True) if known]
        if not here:
            return
        whole = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in here])
        whole = self.host.over_processes(whole) / count
        for parameter, part in zip(here, whole.split([p.numel() for p in here]), strict=True):
            parameter.grad = part.view(parameter.shape)


class Lagging(Weighing):
    """Weights that the balancer learned from the gradients of the steps before."""

    def looked_at(self, gramian: Tensor) -> None:
        """Let it learn from this step's."""
        self.balancer.weights(self.facts, losses=self.host.noted(), gramian=gramian)


class ByLosses(Weighing):
    """Weights from the losses of the whole step: found in the forward pass, or in one more if there are several."""

    def weigh(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """See :meth:`Weighing.weigh`."""
        self._later = single
        self.shown = torch.zeros(len(self.host.tasks))
        if not single:
            self.shown = self.balancer.weights(facts, losses=self.host.losses_of(model, parts, facts))

    def for_forward(self) -> Weights:
        """The weights, or how they are found."""
        return self._of if self._later else super().for_forward()

    def _of(self, losses: Mapping[str, Tensor]) -> Mapping[str, float]:
        found = torch.zeros(len(self.host.tasks), dtype=torch.float64)
        for task, loss in losses.items():
            found[self.host.tasks.index(task)] = float(loss)
        if (count := self.host.args.world_size) > 1:
            found = self.host.over_processes(found.to(self.host.args.device)).cpu() / count
        if not torch.isfinite(found).all():  # the trainer says which, and stops
            return dict.fromkeys(losses, 1.0)
        self.shown = self.balancer.weights(self.facts, losses=found)
        return dict(zip(self.host.tasks, self.shown.tolist(), strict=True))
