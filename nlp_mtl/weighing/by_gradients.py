"""Weights from the tasks' gradients: a step's backward pass is of the plain sum, and they are weighed afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.adapters import is_adapter
from nlp_mtl.balancers import StepFacts
from nlp_mtl.errors import TrainingError
from nlp_mtl.weighing.base import Look, Weighing


class ByGradients(Weighing):
    """The gradients of all shared parameters are kept apart, weighed, and added up; a head gets its own task's."""

    def weigh(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """Nothing is known yet."""
        self.gradients.begin(once_in_bfloat16=self._once)
        self.shown = torch.zeros(len(self.host.tasks))

    def train(self, model: nn.Module, part: Mapping[str, Any], *, last: bool, sync: bool) -> Tensor:
        """See :meth:`Weighing.train`."""
        with self.gradients.during() as taps, self.host.accelerator.no_sync(model):
            self.model.taps = taps
            try:
                found = self.host.outputs(model, part, self.facts, None)
            finally:
                self.model.taps = None
            if found["terms"]:
                self.gradients.backward(found["terms"])
        if last:
            self._weigh_gradients()
            self.leave_alone()
            self.exchange_rest()
        return found["loss"].detach() / self.facts.present.sum().clamp_min(1).to(found["loss"])

    def _weigh_gradients(self) -> None:
        self.exchange_slots()
        slots, facts, present = self.gradients.slots, self.facts, self.facts.present
        losses = self.host.noted() if "losses" in self.balancer.needs else None
        gramian = self.gradients.gramian(self._asked())
        self._check(gramian)
        self.look = Look.at(gramian, present)
        if "jacobian" in self.balancer.needs:
            here = present.nonzero().squeeze(1).tolist()
            gradient, self.shown = self.balancer.combine(facts, slots.jacobian()[here], losses)
            slots.write_flat(gradient)
            return
        more = {} if losses is None else {"losses": losses}
        self.shown = self.balancer.weights(facts, gramian=gramian, **more)
        slots.write(self.shown)

    def leave_alone(self) -> None:
        """Tasks that only weigh are not trained: what no other task uses gets no gradient."""
        if self.balancer.only_weigh and not hasattr(self, "_alone"):
            shared = {id(p) for p in self.watched}
            each = {
                task: [*self.model.module_of(task).parameters(), *self.model.sharing.parameters_of(task)]
                for task in self.balancer.only_weigh
            }
            self._alone = [p for own in each.values() for p in own if id(p) not in shared]
        for parameter in self._alone if self.balancer.only_weigh else ():
            parameter.grad = None

    def _check(self, gramian: Tensor) -> None:
        """Refuse gradients that are not numbers, which every method would spread to all tasks."""
        bad = [t for t, ok in zip(self.host.tasks, torch.isfinite(gramian.diagonal()).tolist(), strict=True) if not ok]
        if bad:
            raise TrainingError(
                f"the gradient of {', '.join(bad)} is not a number at step {self.facts.step + 1}; lower learning_rate, "
                "set max_grad_norm, or look at that task's rows"
            )

    def _asked(self) -> list[nn.Parameter] | None:
        """Which parameters the products are of; None for all that are kept apart."""
        if self.balancer.scope != "lora":
            return None
        wanted = {id(p) for name, p in self.model.sharing.encoder.named_parameters() if is_adapter(name)}
        return [p for p in self.watched if id(p) in wanted]


class ByLastLayer(ByGradients):
    """Only the last layer's gradients are kept apart; the others come from a second, weighted half of the pass.

    The first half goes from the losses to what the last layer reads, and ends there. With the weights known, each row's
    gradient goes on from there times its task's weight. In a step of several passes the weights must be known before
    the first one can go on, so each makes its first half twice.

    Args:
        given: as for :class:`Weighing`.
        layer: the last layer.
    """

    def __init__(self, *given: Any, layer: nn.Module, **more: Any):
        super().__init__(*given, **more)
        self.layer = layer

    def weigh(self, facts: StepFacts, model: nn.Module, parts: Sequence[Mapping[str, Any]], single: bool) -> None:
        """In a step of several passes, look at all of them first."""
        super().weigh(facts, model, parts, single)
        self._known = not single
        if single:
            return
        with self.host.rehearsal():
            for part in parts:
                self._first_half(model, part, heads=False)
            self._weigh_look()

    def train(self, model: nn.Module, part: Mapping[str, Any], *, last: bool, sync: bool) -> Tensor:
        """See :meth:`Weighing.train`."""
        loss, entry, slopes = self._first_half(model, part, heads=True, keep=not self._known)
        if not self._known:
            self._weigh_look()
        if entry is not None and slopes:
            weights = torch.cat([self.shown.to(entry), entry.new_zeros(1)])  # nobody's is 0
            rows = sum(slope * weights[owner.to(entry.device)][:, None] for slope, owner in slopes)
            with self.host.accelerator.no_sync(model):
                entry.backward(rows.view(entry.shape))  # type: ignore[union-attr]
        if last:
            self.gradients.slots.write(self.shown)
            self.leave_alone()
            self.exchange_rest()
        return loss / self.facts.present.sum().clamp_min(1).to(loss)

    def _weigh_look(self) -> None:
        self.exchange_slots()
        gramian = self.gradients.gramian()
        self._check(gramian)
        self.look = Look.at(gramian, self.facts.present)
        losses = {"losses": self.host.noted()} if "losses" in self.balancer.needs else {}
        self.shown = self.balancer.weights(self.facts, gramian=gramian, **losses)

    def _first_half(
        self, model: nn.Module, part: Mapping[str, Any], *, heads: bool, keep: bool = True
    ) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, Tensor]]]:
        """The loss, what the last layer read, and for each colour the gradient there with whose its rows are."""
        entered: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(
            lambda _, given, named: entered.append(_states(given, named)), with_kwargs=True
        )
        slopes: list[tuple[Tensor, Tensor]] = []
        try:
            with self.gradients.during() as taps, self.host.accelerator.no_sync(model):
                self.model.taps = taps
                try:
                    found = self.host.outputs(model, part, self.facts, None)
                finally:
                    self.model.taps = None
                entry = entered[-1] if entered and entered[-1].requires_grad else None
                own = [p for p in self.model.parameters() if p.requires_grad and self._is_above(p)] if heads else []

                def run(total: Tensor, *, retain_graph: bool) -> None:
                    ends = [x for x in (*own, *self.watched, entry) if x is not None]
                    total.backward(retain_graph=True, inputs=ends)
                    if entry is not None and entry.grad is not None:
                        slopes.append((entry.grad.flatten(0, -2), taps.owners_now(entry.shape[:-1].numel())))
                        entry.grad = None

                if found["terms"]:
                    self.gradients.backward(found["terms"], run, keep=True, count=keep)
        finally:
            hook.remove()
        return found["loss"].detach(), entry, slopes

    def _is_above(self, parameter: nn.Parameter) -> bool:
        """Whether it is a head's, and not the encoder's."""
        if not hasattr(self, "_encoder"):
            self._encoder = {id(p) for p in self.model.sharing.encoder.parameters()}
        return id(parameter) not in self._encoder


def _states(given: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    return given[0] if given else named["hidden_states"]
