"""Balancers with numbers of their own for each task, trained beside the model by an optimizer of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, StepFacts, in_order
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers


class Learned(Balancer):
    """Base of scalarizers that hold one number per task; that of an absent task stays as it is.

    Args:
        lr: of Adam, for those numbers, above 0.
    """

    needs = frozenset({"losses"})
    cost = "one number per task; in a step of several passes one more forward pass, for the losses of the whole step"

    def __init__(self, lr: float = 0.01):
        if not lr > 0:
            raise ConfigError(f"balancer {self.name!r}: `lr` is above 0, found {lr}")
        self.lr = lr

    def make(self, tasks: int) -> tuple[Any, torch.nn.Parameter]:
        """The scalarizer for so many tasks, and what it learns."""
        raise NotImplementedError

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        made, _ = self.make(len(tasks))
        self._scalarizer = made.double()
        self._own = next(iter(self._scalarizer.parameters()))
        self._optimizer = torch.optim.Adam([self._own], lr=self.lr)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: the derivatives by the losses; the numbers make a step of their own."""
        assert losses is not None
        present, before = facts.present.cpu(), self._own.detach().clone()
        values = losses.detach().double().cpu().requires_grad_()
        with torch.enable_grad():
            found, self._own.grad = torch.autograd.grad(self._scalarizer(values), [values, self._own])
        self._own.grad = torch.where(present, self._own.grad, 0.0)
        self._optimizer.step()
        with torch.no_grad():
            self._own.copy_(torch.where(present, self._own, before))
        return torch.where(present, found, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The numbers and their optimizer's state."""
        return {"own": self._own.detach().clone(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._own.copy_(state["own"])
        self._optimizer.load_state_dict(state["optimizer"])


@balancers.register("uncertainty")
class Uncertainty(Learned):
    """Homoscedastic uncertainty: each loss by exp(−s) / 2 with s learned, and s / 2 added, so s can't run away.

    Args:
        lr: of Adam, for the s of all tasks.

    Relations: `imtl_l` without the halves and with the sign turned; at its optimum a task's weight is 1 / its loss, as
    in `geometric_mean`.

    Example:
        >>> balancer = Uncertainty(lr=0.1)
        >>> balancer.setup(["a", "b"], [10, 10])
        >>> facts = StepFacts(0, torch.tensor([5, 5]), torch.tensor([5, 5]))
        >>> balancer.weights(facts, torch.tensor([2.0, 0.1])).tolist()
        [0.5, 0.5]
        >>> [round(weight, 3) for weight in balancer.weights(facts, torch.tensor([2.0, 0.1])).tolist()]
        [0.452, 0.553]
    """

    paper = "Kendall et al., 2018, arXiv:1705.07115"

    def make(self, tasks: int) -> tuple[Any, torch.nn.Parameter]:
        """TorchJD's `UW`."""
        from torchjd.scalarization import UW

        made = UW(tasks)
        return made, made.log_var


@balancers.register("imtl_l")
class ImtlL(Learned):
    """Impartial learning by losses: each loss by exp(s) with s learned, so that the scaled losses come to 1.

    Args:
        lr: of Adam, for the s of all tasks.

    Relations: `uncertainty` with another scale; the half of IMTL that looks at losses, `imtl_g` is the other.
    """

    paper = "Liu et al., 2021, openreview:IMPnRXEWpvr"

    def make(self, tasks: int) -> tuple[Any, torch.nn.Parameter]:
        """TorchJD's `IMTLL`."""
        from torchjd.scalarization import IMTLL

        made = IMTLL(tasks)
        return made, made.log_scale


@balancers.register("famo")
class Famo(Balancer):
    """Fast adaptive optimization: weights of the losses' logarithms, moved so that all losses fall at one rate.

    What a step did is seen from the same rows' losses after it. A task that is absent keeps its weight.

    Args:
        lr: of the weights' Adam, above 0.
        weight_decay: of it, from 0.
        min_losses: task → the loss it can't go below; 0 for tasks not named.

    Relations: as `mgda` it wants the least improvement to be the largest, without any gradient of a task.
    """

    paper = "Liu et al., 2023, arXiv:2306.03792"
    needs = frozenset({"losses", "new_losses"})
    cost = "one more forward pass a step; two in a step of several passes"

    def __init__(self, lr: float = 0.025, weight_decay: float = 1e-3, min_losses: Mapping[str, float] | None = None):
        if not lr > 0 or not weight_decay >= 0:
            raise ConfigError(
                f"balancer 'famo': `lr` is above 0 and `weight_decay` at least 0, found {lr} and {weight_decay}"
            )
        self.lr, self.weight_decay, self.min_losses = lr, weight_decay, dict(min_losses or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        from torchjd.scalarization import FAMO

        super().setup(tasks, sizes, classes=classes, seed=seed)
        least = in_order("famo", self.min_losses, tasks, 0.0, "min_losses").double()
        self._famo = FAMO(len(tasks), least, lr=self.lr, weight_decay=self.weight_decay).double()
        self._least, self._w = least, next(iter(self._famo.parameters()))
        self._famo._optimizer = torch.optim.Adam([self._w], lr=self.lr, weight_decay=self.weight_decay)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: z / (loss · Σ z / loss), z the softmax of what is learned."""
        assert losses is not None
        present = facts.present.cpu()
        # a loss beyond all others takes no part in the sum that all are divided by
        values = torch.where(present, losses.detach().double().cpu(), 1e300)
        values = torch.maximum(values, self._least + 1e-7).requires_grad_()
        with torch.enable_grad():
            found = torch.autograd.grad(self._famo(values), values)[0]
        return torch.where(present, found, 0.0)

    def learn(self, facts: StepFacts, losses: Tensor) -> None:
        """Move the weights by how far each loss fell in the step."""
        present, before = facts.present.cpu(), self._famo._prev_losses
        if before is None or not present.any():
            return
        after = torch.maximum(losses.double().cpu(), self._least + 1e-7)
        fell = (before - self._least).log() - (after - self._least).log()
        z = self._w.detach().softmax(0) * present
        usual = (z * torch.where(present, fell, 0.0)).sum() / z.sum()  # an absent task fell as far as all do
        kept = self._w.detach().clone()
        self._famo.update(torch.where(present, after, self._least + (before - self._least) * (-usual).exp()))
        with torch.no_grad():
            self._w.copy_(torch.where(present, self._w, kept))

    def state_dict(self) -> dict[str, Any]:
        """The weights and their optimizer's state."""
        assert self._famo._optimizer is not None
        return {"own": self._w.detach().clone(), "optimizer": self._famo._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        assert self._famo._optimizer is not None
        self._w.copy_(state["own"])
        self._famo._optimizer.load_state_dict(state["optimizer"])
