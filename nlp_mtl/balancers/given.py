"""Balancers that look at no loss and no gradient: weights that are given, or follow from the tasks' facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, StepFacts, checked_weights, in_order
from nlp_mtl.registry import balancers


@balancers.register("equal")
class Equal(Balancer):
    """The mean of the losses of the tasks present: every task counts the same, however many rows it has in the batch.

    Relations: `rows` counts every row the same instead.
    """

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: 1 / number of tasks present."""
        present = facts.present.float()
        return present / present.sum().clamp_min(1)


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
        self.given = checked_weights("rows", weights or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._counts = in_order("rows", self.given, tasks)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
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
        self.given = checked_weights("fixed", weights)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._weights = in_order("fixed", self.given, tasks)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: as given, 0 where absent."""
        return self._weights.to(facts.units.device) * facts.present


@balancers.register("log_classes")
class LogClasses(Balancer):
    """Each loss by 1 / log(number of its classes), the loss of a guess: so all begin near 1.

    A regression's loss, and that of a head that chooses among no classes, counts as it is.

    Relations: `fixed`, with weights that follow from the tasks; `uncertainty` learns such scales.
    """

    paper = "Aghajanyan et al., 2021, arXiv:2101.11038"

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: 1 / log(classes) / number of tasks present."""
        present = facts.present.float()
        scale = torch.tensor([1 / math.log(count) if count > 1 else 1.0 for count in self.classes])
        return scale.to(present) * present / present.sum().clamp_min(1)
