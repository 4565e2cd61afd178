"""Steps that each task makes by itself inside a step of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.balancers import Balancer, StepFacts
from nlp_mtl.errors import ConfigError, TrainingError, UnsupportedError
from nlp_mtl.heads.told import units_of
from nlp_mtl.weighing.base import Host, Weighing


class ByInnerSteps(Weighing):
    """Keeps a step's passes, each of one task; at the last one every task walks through its own, and they are added up.

    A pass's loss is brought to the mean over its own units, so that an inner step is as long as a micro-batch's
    gradient, whatever the others hold. Over processes directions are averaged by the units each has of a task.
    """

    balancer: Any

    def weigh(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """Nothing is known that would be weighed."""
        self.shown = self.balancer.weights(facts)
        self._kept: list[Mapping[str, Any]] = []
        self.model.keep_embedding_gradient(False)  # it is for gradients that are added up at one place

    def train(self, model: nn.Module, part: Mapping[str, Any], *, last: bool, sync: bool) -> Tensor:
        """Keep the pass; after the last one, see the class."""
        self._kept.append(part)
        device = self.host.args.device
        if not last:
            return torch.zeros((), device=device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in trained]
        found = [torch.zeros_like(p) for p in trained]
        total = torch.zeros((), device=device)
        self._met = torch.zeros(len(trained), dtype=torch.float64)
        for number, task in enumerate(self.host.tasks):
            mine = [(part, units) for part in self._kept if (units := self._units(part, task))]
            if not mine:
                continue
            gradients, loss = self._walk(model, trained, mine, number)
            with torch.no_grad():
                torch._foreach_copy_(trained, start)
            share = sum(units for _, units in mine) * self.host.args.world_size / float(self.facts.units[number])
            weight = float(self.shown[number]) * share
            torch._foreach_add_(found, self.balancer.direction(gradients), alpha=weight)
            total = total + weight * loss
        count = self.host.args.world_size
        met = self.host.over_processes(self._met.to(device)).tolist() if count > 1 else self._met.tolist()
        for parameter, gradient, some in zip(trained, found, met, strict=True):
            if not some:  # what no task here uses has no gradient: one of zeros would let it decay
                continue
            whole = self.host.over_processes(gradient) / count if count > 1 else gradient
            parameter.grad = whole if parameter.grad is None else parameter.grad + whole
        self._kept = []
        return total

    def _walk(
        self, model: nn.Module, trained: list[nn.Parameter], mine: list[tuple[Mapping[str, Any], int]], number: int
    ) -> tuple[list[list[Tensor]], Tensor]:
        """A task's gradients along its inner steps, and its mean loss there."""
        per_process = float(self.facts.units[number]) / self.host.args.world_size
        gradients: list[list[Tensor]] = []
        total = torch.zeros((), device=self.host.args.device)
        for step, (part, units) in enumerate(mine):
            if step:
                with torch.no_grad():
                    torch._foreach_add_(list[Tensor](trained), gradients[-1], alpha=-self.balancer.inner_rate)
            with self.host.accelerator.no_sync(model):
                loss = self.host.outputs(model, part, self.facts, None)["loss"] * (per_process / units)
            none = [None] * len(trained)  # e.g. of an alignment while gradual unfreezing has not begun
            known = torch.autograd.grad(loss, trained, allow_unused=True) if loss.requires_grad else none
            self._met += torch.tensor([g is not None for g in known])
            gradients.append([torch.zeros_like(p) if g is None else g for p, g in zip(trained, known, strict=True)])
            total = total + loss.detach() / len(mine)
        if not all(bool(torch.isfinite(g).all()) for g in gradients[-1]):
            raise TrainingError(
                f"the inner steps of {self.host.tasks[number]} left the numbers at step {self.facts.step + 1}; lower "
                f"`inner_rate` of balancer {self.balancer.name!r}"
            )
        return gradients, total

    def _units(self, part: Mapping[str, Any], task: str) -> int:
        target = part["targets"].get(task)
        return 0 if target is None else int(units_of(self.model.heads[task], target))


def check_inner_steps(host: Host, balancer: Balancer, *, sharded: bool, scaled: bool, at_once: bool) -> None:
    """Refuse where a task can't walk by itself.

    Args:
        host: the trainer.
        balancer: which needs ``inner_steps``.
        sharded, scaled, at_once: see :func:`nlp_mtl.weighing.choosing.weighing_for`; `at_once`: LOMO.

    Raises:
        ConfigError: one micro-batch, of a balancer that needs two.
        UnsupportedError: weights in parts, scaled losses, passes of a size, an optimizer inside the backward pass.
    """
    who, given = f"balancer {balancer.name!r}", host.args.gradient_accumulation_steps
    if balancer.name == "fomaml" and given < 2:
        raise ConfigError(
            f"{who}: the last micro-batch is scored after steps on those before it, so "
            f"`training.gradient_accumulation_steps` is at least 2, found {given}; say 3, or use reptile"
        )
    why = {
        "weights are in parts on several devices (FSDP or DeepSpeed); use DDP": sharded,
        "fp16 scales losses up; train in bf16 or float32": scaled,
        "LOMO and AdaLOMO update in the backward pass; use another optim": at_once,
        "`tokens_per_pass` cuts micro-batches, which are the inner steps; leave it out": bool(
            getattr(host, "tokens_per_pass", None)
        ),
        "`distillation` with `on` reads rows that are not a task's own; leave `on` out": bool(
            getattr(getattr(host, "_distilling", None), "guests", None)
        ),
    }
    if found := next((reason for reason, holds in why.items() if holds), None):
        raise UnsupportedError(f"{who}: each task makes steps by itself inside a step, but {found}")
