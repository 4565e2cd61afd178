"""Balancers: how per-task losses become one update.

A balancer declares what it needs (`needs`) and gets that, the mask of tasks present, and the facts of the step. Those
here need the losses only, or nothing; methods on gradients declare ``"gramian"`` or ``"jacobian"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.registry import balancers

Need = Literal["losses", "gramian", "jacobian", "new_losses"]


@dataclass(frozen=True)
class StepFacts:
    """What is known of an optimizer step before its forward pass, over all processes and micro-batches.

    Attributes:
        step: the optimizer step, from 0.
        rows: [tasks], rows of each task in the step.
        units: [tasks], what each loss is averaged over: rows, or labelled tokens.
    """

    step: int
    rows: Tensor
    units: Tensor

    @property
    def present(self) -> Tensor:
        """[tasks]: which tasks have something to learn from in this step."""
        return self.units > 0


class Balancer:
    """Base of all balancers."""

    paper = ""
    needs: frozenset[Need] = frozenset()

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks, in order, and their numbers of training rows."""
        self.tasks, self.sizes = list(tasks), list(sizes)

    def weights(self, facts: StepFacts, losses: Tensor | None = None) -> Tensor:
        """[tasks]: weights of the tasks' losses in this step, 0 for tasks that are absent.

        Args:
            facts: the step.
            losses: [tasks], for balancers that need them; 0 where absent.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What has been learned so far."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""


@balancers.register("equal")
class Equal(Balancer):
    """The mean of the losses of the tasks present: every task counts the same, however many rows it has in the batch.

    Relations: `rows` counts every row the same instead.
    """

    def weights(self, facts: StepFacts, losses: Tensor | None = None) -> Tensor:
        """[tasks]: 1 / number of tasks present."""
        present = facts.present.float()
        return present / present.sum().clamp_min(1)


def _checked(name: str, weights: Mapping[str, float]) -> dict[str, float]:
    bad = {task: weight for task, weight in weights.items() if not weight >= 0}
    if bad:
        raise ConfigError(f"balancer {name!r}: `weights` are at least 0, found {bad}")
    return dict(weights)


def _in_order(name: str, weights: Mapping[str, float], tasks: Sequence[str]) -> Tensor:
    """[tasks]: the weights given, 1 where none is; a weight for a task that is not there is a mistake."""
    unknown = [task for task in weights if task not in tasks]
    if unknown:
        raise ConfigError([f"balancer {name!r}: {task!r} is not a task{suggestion(task, tasks)}" for task in unknown])
    return torch.tensor([float(weights.get(task, 1.0)) for task in tasks])


@balancers.register("rows")
class Rows(Balancer):
    """Each task by its share of the rows in the step: every row counts the same, as in a plain concatenated data set.

    Args:
        weights: task → how often each row of it counts, at least 0; a row of tasks not named counts once. For a task
            that learns slowly beside the others.

    Relations: with the sampler `uniform` the same as `equal`; what one task per batch, by size, does on average.

    Example:
        >>> balancer = Rows({"cola": 3.0})
        >>> balancer.setup(["cola", "rte"], [100, 100])
        >>> balancer.weights(StepFacts(0, torch.tensor([1, 1]), torch.tensor([1, 1]))).tolist()
        [1.5, 0.5]
    """

    def __init__(self, weights: Mapping[str, float] | None = None):
        self.given = _checked("rows", weights or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes)
        self._counts = _in_order("rows", self.given, tasks)

    def weights(self, facts: StepFacts, losses: Tensor | None = None) -> Tensor:
        """[tasks]: rows of the task, each as often as it counts / rows of all."""
        rows = facts.rows.float() * facts.present
        return rows * self._counts.to(rows.device) / rows.sum().clamp_min(1)


@balancers.register("fixed")
class Fixed(Balancer):
    """Weights given by the user, used as they are.

    Args:
        weights: task → weight, at least 0; tasks not named count 1.
    """

    def __init__(self, weights: Mapping[str, float]):
        self.given = _checked("fixed", weights)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes)
        self._weights = _in_order("fixed", self.given, tasks)

    def weights(self, facts: StepFacts, losses: Tensor | None = None) -> Tensor:
        """[tasks]: as given, 0 where absent."""
        return self._weights.to(facts.units.device) * facts.present
