"""Balancers that look at every number of every task's gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, StepFacts, checked_weights, in_order
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers

_COST = "the tasks' gradients, dense, twice over: twice as many times the memory of the shared parameters"


class Elementwise(Balancer):
    """Base of balancers on the Jacobian.

    What they show as weights is how much of each gradient is in the result, unless they have weights of their own.
    """

    needs = frozenset({"jacobian"})
    cost = _COST

    def combine(self, facts: StepFacts, jacobian: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Balancer.combine`."""
        here = facts.present.cpu().nonzero().squeeze(1)
        if len(here) == 1:
            found = jacobian[0].clone()
        else:
            with self.drawing(facts):
                found = self.of(here, jacobian)
        known = self.weights_of(here)
        if known is not None and len(here) > 1:
            return found, torch.zeros(len(facts.units), dtype=torch.float64).index_copy(0, here, known.double().cpu())
        squares = jacobian.double().pow(2).sum(1).clamp_min(1e-300)
        part = (jacobian.double() @ found.double()) / squares
        return found, torch.zeros(len(facts.units), dtype=torch.float64).index_copy(0, here, part.cpu())

    def of(self, here: Tensor, jacobian: Tensor) -> Tensor:
        """[numbers]: one gradient of those of the tasks `here`."""
        raise NotImplementedError

    def weights_of(self, here: Tensor) -> Tensor | None:
        """[tasks present]: the weights that were used last; None for a method without."""
        return None


@balancers.register("graddrop")
class GradDrop(Elementwise):
    """Gradient sign dropout: at each number one sign is drawn, by how much speaks for it, and the others are dropped.

    Args:
        leak: task → the share of its gradient that is never dropped, from 0 to 1; 0 for tasks not named.

    Relations: the paper drops at a layer's activations; TorchJD, as here, at the parameters' gradients.
    """

    paper = "Chen et al., 2020, arXiv:2010.06808"

    def __init__(self, leak: Mapping[str, float] | None = None):
        self.leak = checked_weights("graddrop", leak or {}, "leak")
        if any(value > 1 for value in self.leak.values()):
            raise ConfigError(f"balancer 'graddrop': `leak` is from 0 to 1, found {self.leak}")

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; a leak for a task that is not there is a mistake."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._leak = in_order("graddrop", self.leak, tasks, 0.0, "leak")

    def of(self, here: Tensor, jacobian: Tensor) -> Tensor:
        """TorchJD's `GradDrop`; a number that is 0 for every task stays 0."""
        from torchjd.aggregation import GradDrop as Drop

        return torch.nan_to_num(Drop(leak=self._leak[here].to(jacobian))(jacobian), nan=0.0)


@balancers.register("trimmed_mean")
class TrimmedMean(Elementwise):
    """At each number the mean over tasks without the largest and smallest ones.

    With too few tasks in a step for that, the mean of all.

    Args:
        trim_number: how many are left out at each end, from 0.

    Relations: like `krum` it was made for workers that lie; `equal` with nothing trimmed.
    """

    paper = "Yin et al., 2018, arXiv:1803.01498"

    def __init__(self, trim_number: int = 1):
        if trim_number < 0:
            raise ConfigError(f"balancer 'trimmed_mean': `trim_number` is at least 0, found {trim_number}")
        self.trim_number = trim_number

    def of(self, here: Tensor, jacobian: Tensor) -> Tensor:
        """TorchJD's `TrimmedMean`."""
        from torchjd.aggregation import TrimmedMean as Trimmed

        return Trimmed(self.trim_number if len(here) > 2 * self.trim_number else 0)(jacobian)


@balancers.register("excess_mtl")
class ExcessMtl(Elementwise):
    """Weights by excess risk: what a task could still gain counts, so label noise, which nobody can learn, does not.

    It remembers the squares of all gradients, as Adagrad does; checkpoints hold them. A step in which not all tasks
    are present takes the last weights.

    Args:
        robust_step_size: how fast weights move, above 0.
        n_warmup_steps: so many steps all count the same while the first risks are measured.

    Relations: as distributionally robust training it turns to the worst task, by excess risk in the place of the loss.
    """

    paper = "He et al., 2024, arXiv:2402.02009"
    held = ("_weights", "_sq_grad_sum", "_initial_w", "_warmup_w_sum", "_n_steps")

    def __init__(self, robust_step_size: float = 1.0, n_warmup_steps: int = 0):
        if not robust_step_size > 0 or n_warmup_steps < 0:
            raise ConfigError(
                "balancer 'excess_mtl': `robust_step_size` is above 0 and `n_warmup_steps` at least 0, found "
                f"{robust_step_size} and {n_warmup_steps}"
            )
        self.robust_step_size, self.n_warmup_steps = robust_step_size, n_warmup_steps

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        from torchjd.aggregation import ExcessMTLWeighting

        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._learning = [number for number, size in enumerate(sizes) if size]
        self._tool = ExcessMTLWeighting(self.robust_step_size, self.n_warmup_steps)

    def of(self, here: Tensor, jacobian: Tensor) -> Tensor:
        """The rows by TorchJD's weights."""
        squares: Any = self._tool._sq_grad_sum
        if squares is not None and squares.device != jacobian.device:  # a checkpoint was read on the CPU
            for name in self.held:
                if isinstance(value := getattr(self._tool, name), Tensor):
                    setattr(self._tool, name, value.to(jacobian.device))
            self._tool._state_key = (*squares.shape, squares.dtype, jacobian.device)
        if here.tolist() == self._learning:
            return self._tool(jacobian) @ jacobian
        return self.weights_of(here).to(jacobian) @ jacobian

    def weights_of(self, here: Tensor) -> Tensor:
        """The last weights, among the tasks present."""
        last: Any = self._tool._weights
        share = torch.ones(len(here)) if last is None else last[[self._learning.index(i) for i in here.tolist()]]
        return share / share.sum()

    def state_dict(self) -> dict[str, Any]:
        """Weights, risks and squares."""
        found = {name: getattr(self._tool, name) for name in self.held}
        return {name: value for name, value in found.items() if value is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        for name in self.held:
            value = state.get(name)
            setattr(self._tool, name, value.clone() if isinstance(value, Tensor) else value)
        squares = state.get("_sq_grad_sum")
        if squares is not None:
            self._tool._n_steps = int(state["_n_steps"])
            self._tool._state_key = (*squares.shape, squares.dtype, squares.device)
