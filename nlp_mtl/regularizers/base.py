"""What every regularizer is, and the kind that keeps parameters near where they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError

Gradients = tuple[float, list[nn.Parameter], list[Tensor]]


class Regularizer:
    """Base of all regularizers: a scalar of the parameters, added to the loss of every optimizer step.

    It is the same on every process, since parameters are: nothing is exchanged, and accumulation, several passes and
    what weighs the tasks do not change it.

    Attributes:
        cost: what it takes beside a plain step.
        looks: whether it makes passes of its own, see :meth:`after_pass`.
        carries: whether :meth:`carried` gives something.
        carries_to: the file of the run folder that it is saved in.
        new_lora: whether of several runs each is to learn a LoRA of its own on weights with the earlier ones merged in.
    """

    looks: ClassVar[bool] = False
    carries: bool = False
    carries_to: ClassVar[str] = "importance.safetensors"
    new_lora: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    registered_as: ClassVar[str] = ""

    def setup(self, model: Any, data: Any) -> None:
        """Learn the model and its rows, once, before any training.

        Args:
            model: a :class:`nlp_mtl.MultiTaskModel`.
            data: the tokenized rows, a :class:`nlp_mtl.data.Data`.

        Raises:
            ConfigError: arguments that do not fit them.
        """
        self.model, self.data = model, data

    def begin(self) -> None:
        """Before the first step of a fresh training: take what the penalty needs. A resumed one loads it instead."""

    def penalty(self) -> Tensor | None:
        """What is added to the step's loss, of the parameters alone; None for nothing."""
        return None

    def penalty_gradients(self) -> Gradients | None:
        """The penalty, parameters, and their gradients, contiguous; None where there is no penalty."""
        value = self.penalty()
        if value is None or not value.requires_grad:
            return None
        trained = [p for p in self.model.parameters() if p.requires_grad]
        found = torch.autograd.grad(value, trained, allow_unused=True)
        both = [(p, g.contiguous()) for p, g in zip(trained, found, strict=True) if g is not None]
        return float(value.detach()), [p for p, _ in both], [g for _, g in both]

    def check(self, accelerator: Any, balancer: Any) -> None:
        """Refuse what it does not go with, once, before any training.

        Args:
            accelerator: the trainer's.
            balancer: the run's.

        Raises:
            UnsupportedError: with the way out.
        """

    def after_pass(
        self,
        call: Callable[[Mapping[str, Any]], dict[str, Any]],
        part: Mapping[str, Any],
        weights: Mapping[str, float],
        key: tuple[int, int],
    ) -> None:
        """A forward and backward pass of the step was made; asked of those that :attr:`looks`.

        What comes of it is handed out by :meth:`penalty_gradients` at the end of the step.

        Args:
            call: a forward pass in training mode that leaves no trace, with the same dropout each time: what the model
                gives for a mixed batch, logits included.
            part: the mixed batch; ``units`` says by task what its loss was divided by.
            weights: task → what its loss was weighed with.
            key: numbers of the step, and of the pass in it.
        """

    def before_step(self, scale: float) -> None:
        """The gradients of the tasks' losses are there, those of penalties are not added yet.

        Args:
            scale: what they are multiplied by (fp16).
        """

    def after_step(self) -> None:
        """The optimizer made its step."""

    def carried(self, learned: Sequence[str] | None = None) -> dict[str, Tensor] | None:
        """What the next run begins with, when a training ended: how important each parameter became, mostly.

        It is saved in `carries_to`, see :func:`nlp_mtl.regularizers.save_importance`. None for nothing.

        Args:
            learned: the tasks that this training trained; None for all.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""


class Anchored(Regularizer):
    """½ Σ weight · (parameter − anchor)², over some parameters; the gradient needs no autograd.

    A subclass gives parameters, anchors and weights to :meth:`hold` when training begins.
    """

    cost = "a copy of the trained weights in memory and in checkpoints; a pass over them at each step"
    _weights: dict[str, Tensor]
    _anchors: dict[str, Tensor]

    def setup(self, model: Any, data: Any) -> None:
        """See :meth:`Regularizer.setup`."""
        super().setup(model, data)
        self._weights, self._anchors = {}, {}

    def hold(self, weights: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> None:
        """Hold parameters of these names near `anchors`.

        Args:
            weights: name → how much a squared distance counts: one number, or one for each of the parameter's.
            anchors: name → where it was; or one number for all of it.
        """
        known = dict(self.model.named_parameters())
        self._weights = {name: weight.to(known[name]) for name, weight in weights.items()}
        self._anchors = {name: anchors[name].to(known[name], copy=True) for name in weights}

    def _terms(self) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
        known = dict(self.model.named_parameters())
        every = [(known[name], weight, self._anchors[name]) for name, weight in self._weights.items()]
        return [term for term in every if term[0].requires_grad]

    def penalty(self) -> Tensor | None:
        """See :meth:`Regularizer.penalty`."""
        parts = [(weight * (p - anchor).square()).sum() for p, weight, anchor in self._terms()]
        return 0.5 * torch.stack(parts).sum() if parts else None

    @torch.no_grad()
    def penalty_gradients(self) -> Gradients | None:
        """See :meth:`Regularizer.penalty_gradients`."""
        terms = self._terms()
        if not terms:
            return None
        away = [p - anchor for p, _, anchor in terms]
        gradients = [(weight * one).contiguous() for (_, weight, _), one in zip(terms, away, strict=True)]
        value = torch.stack([(one * g).sum() for one, g in zip(away, gradients, strict=True)]).sum() / 2
        return float(value), [p for p, _, _ in terms], gradients

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Regularizer.state_dict`."""
        return {"weights": dict(self._weights), "anchors": dict(self._anchors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Regularizer.load_state_dict`."""
        self.hold(state["weights"], state["anchors"])


def check_number(name: str, argument: str, value: Any) -> None:
    """Refuse what is no finite number from 0.

    Raises:
        ConfigError: with the rule and what was found.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigError(f"regularizer {name!r}: `{argument}` is a number from 0, found {value!r}")
