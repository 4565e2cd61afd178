"""Elastic weight consolidation: what earlier tasks need is kept most."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.base import Anchored, check_number
from nlp_mtl.regularizers.importance import check_tasks, fitting, importance_of, load_importance, shared_of

logger = logging.getLogger("nlp_mtl")


@regularizers.register("ewc")
class EWC(Anchored):
    """Keeps shared weights near where they start, each as much as earlier tasks need it.

    The penalty is strength/2 · Σ F (θ − θ⁰)², with F the diagonal Fisher information of earlier tasks. It comes from
    an earlier run (`importance`), or is computed before the first step from the rows of tasks of this run that `tasks`
    names: those that were trained before, and whose heads are taken over (`init_from`).

    Args:
        strength: how much it counts, from 0.
        tasks: tasks of this run that were learned before.
        rows: so many training rows of each are looked at.
        importance: a file, or the folder of a run that has one (``importance.safetensors``).
        carry: when training ends, compute the importance of the tasks that this run trained (`train_tasks`) and of
            `tasks`, add what it began with, and save it in the run folder for the next one.
        decay: what it began with is multiplied by this then.

    Relations: `l2_sp` with all F equal. With `carry`, one anchor and one sum of importance for all earlier tasks, it is
    online EWC (Schwarz et al., 2018, arXiv 1805.06370). The Fisher is the empirical one; see
    :func:`nlp_mtl.regularizers.importance_of`.

    Example:
        >>> EWC(strength=100.0)
        Traceback (most recent call last):
        ...
        nlp_mtl.errors.ConfigError: regularizer 'ewc': needs `tasks` learned before or an `importance` file, found \
neither; name one, or say `carry: true` in the first of several runs
    """

    paper = "Kirkpatrick et al., 2017, arXiv:1612.00796"
    cost = "two copies of the shared weights in memory and in checkpoints; a pass per row before the first step"

    def __init__(
        self,
        strength: float = 1000.0,
        tasks: Sequence[str] | str = (),
        rows: int = 256,
        importance: str | None = None,
        carry: bool = False,
        decay: float = 1.0,
    ):
        check_number("ewc", "strength", strength)
        check_number("ewc", "decay", decay)
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ConfigError(f"regularizer 'ewc': `rows` is a whole number above 0, found {rows!r}")
        if not tasks and importance is None and not carry:
            raise ConfigError(
                "regularizer 'ewc': needs `tasks` learned before or an `importance` file, found neither; name one, or "
                "say `carry: true` in the first of several runs"
            )
        self.strength, self.rows, self.carries, self.decay = strength, rows, carry, decay
        self.tasks, self.importance = [tasks] if isinstance(tasks, str) else list(tasks), importance

    def setup(self, model: object, data: object) -> None:
        """See :meth:`Regularizer.setup`."""
        super().setup(model, data)
        shared_of("regularizer 'ewc'", self.model)
        if self.tasks:
            check_tasks("regularizer 'ewc'", self.tasks, data)
            heads, begun = self.model.heads, self.model.begun
            if new := [task for task in self.tasks if self.model.fresh and heads[task].task.head_key not in begun]:
                logger.warning(
                    "regularizer 'ewc': the heads of %s begin anew, so what they need of the shared weights is chance; "
                    "start from the run that learned them (init_from)",
                    ", ".join(new),
                )
        self._before = fitting("ewc", load_importance(self.importance), model) if self.importance is not None else {}

    def begin(self) -> None:
        """See :meth:`Regularizer.begin`."""
        fisher = {name: value.to(self.model.device) for name, value in self._before.items()}
        if self.tasks:
            fisher = added(fisher, importance_of(self.model, self.data, self.tasks, rows=self.rows))
        known = dict(self.model.named_parameters())
        self.hold(
            {name: self.strength * value for name, value in fisher.items()},
            {name: known[name].detach() for name in fisher},
        )

    def carried(self, learned: Sequence[str] | None = None) -> dict[str, Tensor] | None:
        """See :meth:`Regularizer.carried`: of the tasks that were trained and of those before."""
        if not self.carries:
            return None
        wanted = None if learned is None else list(dict.fromkeys([*self.tasks, *learned]))
        before = {name: self.decay * value.to(self.model.device) for name, value in self._before.items()}
        return added(before, importance_of(self.model, self.data, wanted, rows=self.rows))


def added(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums by name; what only one has is as it is."""
    both = {name: torch.add(value, other[name]) if name in other else value for name, value in one.items()}
    return {**other, **both}
