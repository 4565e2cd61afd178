"""Averaged gradient episodic memory: a step on new tasks that does not raise the loss of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Scope
from nlp_mtl.balancers.gramian import GramianMethod
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.registry import balancers


@balancers.register("a_gem")
class AGem(GramianMethod):
    """The new tasks' gradient g, without what of it points against that of the memory, m: g − (g·m / m·m) m if g·m < 0.

    g is the mean of the new tasks' gradients, m that of the memory's, of those present in the step. Memory only
    constrains: heads and adapters of memory tasks alone are left as they are, and a step that holds no row of a new
    task changes nothing.

    Args:
        memory: tasks that were learned before, of which some rows come beside the new tasks' (fewer `rows`, or `replay`
            of a study).
        scope: see :class:`GramianMethod`.

    Relations: `dualproj` (GEM) keeps each task by itself and solves a quadratic program; replay with `equal` trains on
    the same rows, which here only turn the step. Without any conflict it is `equal` over the new tasks.

    Example:
        >>> from nlp_mtl.balancers import StepFacts
        >>> balancer = AGem(memory=["old"])
        >>> balancer.setup(["old", "new"], [50, 500])
        >>> facts = StepFacts(0, torch.tensor([4, 4]), torch.tensor([4, 4]))
        >>> balancer.weights(facts, gramian=torch.tensor([[4.0, -2.0], [-2.0, 3.0]])).tolist()
        [0.5, 1.0]
        >>> balancer.weights(facts, gramian=torch.tensor([[4.0, 2.0], [2.0, 3.0]])).tolist()
        [0.0, 1.0]
    """

    paper = "Chaudhry et al., 2019, arXiv:1812.00420"
    least = 0

    def __init__(self, memory: Sequence[str] | str, *, scope: Scope = "shared"):
        named = [memory] if isinstance(memory, str) else list(memory)
        if not named:
            raise ConfigError(
                "balancer 'a_gem': `memory` names the tasks that were learned before, found none; name them, or use "
                "'equal'"
            )
        self.memory, self._kept = named, frozenset[int]()
        super().__init__(scope=scope)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; those of the memory are some of them, with rows, and there are others."""
        known = dict(zip(tasks, sizes, strict=True))
        mistakes = [
            f"balancer 'a_gem': `memory`: {task!r} is not a task{suggestion(task, tasks)}"
            for task in self.memory
            if task not in known
        ]
        mistakes += [
            f"balancer 'a_gem': `memory` tasks bring rows to learn against, found {task!r} without training rows; let "
            "it learn too (`train_tasks`) with few rows (`{name: …, rows: {train: 50}}`), or leave it out"
            for task in self.memory
            if known.get(task) == 0
        ]
        if not any(size and task not in self.memory for task, size in known.items()):
            mistakes.append(
                "balancer 'a_gem': `memory` constrains what new tasks learn, found no other task with training rows; "
                "leave out of it what is new"
            )
        if mistakes:
            raise ConfigError(mistakes)
        self._kept = frozenset(number for number, task in enumerate(tasks) if task in self.memory)
        self.only_weigh = tuple(self.memory)
        super().setup(tasks, sizes, classes=classes, seed=seed)

    def make(self, present: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """The weights of the tasks present, of their Gramian."""
        kept = torch.tensor([number in self._kept for number in present], dtype=torch.float64)
        new = 1 - kept

        def weigh(gramian: Any) -> Tensor:
            plain, memory = (part / part.sum().clamp_min(1) for part in (new, kept))
            against, square = plain @ gramian @ memory, memory @ gramian @ memory
            return plain - against / square * memory if against < 0 < square else plain

        return weigh
