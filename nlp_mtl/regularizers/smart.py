"""SMART: answers that change little where embeddings do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from nlp_mtl.errors import UnsupportedError
from nlp_mtl.heads.told import units_of
from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.adversarial import Adversarial


@regularizers.register("smart")
class Smart(Adversarial):
    """Adds how far answers move where embeddings are moved to move them most: symmetric KL, or squared distance.

    Classes are compared by the symmetric Kullback-Leibler divergence, labels of which several hold by that of each,
    values by their squared distance. Plain and moved pass have the same dropout. A task's part is the mean over its
    rows, weighed as its loss is.

    Args:
        strength: how much it counts, from 0; 0 is plain training.
        radius: how far a text's embeddings may be moved, as the norm of all that is added, from 0.
        steps: how often they are moved.
        step_size: how far each time.
        init: how far they are moved at random before; above 0, for where nothing is moved nothing pulls.
        seed: of that.

    Raises:
        ConfigError: numbers out of range, all at once.
        UnsupportedError: tasks that give neither classes nor values.

    Relations: the smoothness-inducing part of the paper; its Bregman proximal part (weights that move little in a step)
    is left out, see `l2_sp` for a pull to the start. `freelb` needs labels, this does not.

    Example:
        >>> Smart(strength=3.0).strength
        3.0
    """

    paper = "Jiang et al., 2020, arXiv:1911.03437"
    cost = "`steps` more forward and backward passes at each step, and two for the term itself"
    kinds: ClassVar[tuple[str, ...]] = (
        "sequence_classification",
        "token_classification",
        "multiple_choice",
        "multi_label",
        "regression",
    )

    def __init__(
        self,
        strength: float = 1.0,
        radius: float = 0.3,
        steps: int = 1,
        step_size: float = 0.1,
        init: float = 0.01,
        seed: int = 0,
    ):
        super().__init__(strength, radius, steps, step_size, init, seed)

    def _refused(self) -> list[str]:
        found = super()._refused()
        others = [t for t, head in self.model.heads.items() if head.task.head_name not in self.kinds]
        if others:
            found.append(
                f"regularizer 'smart': compares classes or values, and {', '.join(others)} gives neither; leave them "
                "out, or use freelb"
            )
        return found

    def setup(self, model: Any, data: Any) -> None:
        """See :meth:`Adversarial.setup`."""
        super().setup(model, data)
        self._units: Mapping[str, float] = {}

    def attack(
        self,
        moved: Callable[[Tensor | None], dict[str, Any]],
        start: Tensor,
        rows: Tensor,
        part: Mapping[str, Any],
        weights: Mapping[str, float],
    ) -> None:
        """See :meth:`Adversarial.attack`."""
        by, parameters = start, self.trained()
        with torch.no_grad():
            fixed = moved(None)["logits"]
        for _ in range(self.steps):
            by = by.detach().requires_grad_()
            apart = self._apart(moved(by)["logits"], fixed, part, weights)
            found = torch.autograd.grad(apart, by, allow_unused=True)[0] if apart.requires_grad else None
            if found is None:
                return
            by = self.ascended(by.detach(), found, rows)
        term = self._apart(moved(by.detach())["logits"], moved(None)["logits"], part, weights)
        gradients = torch.autograd.grad(term, parameters, allow_unused=True)
        self.keep(self.strength * float(term.detach()), parameters, gradients, self.strength)

    def _apart(
        self, moved: Mapping[str, Tensor], plain: Mapping[str, Tensor], part: Mapping[str, Any], weights: Any
    ) -> Tensor:
        parts = []
        for task, logits in moved.items():
            head, target = self.model.heads[task], part["targets"][task]
            count = units_of(head, target)
            if not count:
                continue
            each = distance(logits.float(), plain[task].float(), head.task.head_name)
            known = target["labels"].to(logits.device) if head.task.head_name == "token_classification" else None
            if known is not None and known.shape == each.shape:  # words without a tag
                each = each[known >= 0]
            parts.append(each.sum() / part.get("units", {}).get(task, count) * weights.get(task, 1.0))
        if not parts:
            raise UnsupportedError("regularizer 'smart': this pass has no labelled rows; leave smart out")
        return torch.stack(parts).sum()


def distance(one: Tensor, other: Tensor, kind: str) -> Tensor:
    """How far apart answers are, symmetric in both.

    Args:
        one, other: logits, [rows, classes], or [rows] of values.
        kind: of head.

    Returns:
        [rows], from 0.

    Example:
        >>> some = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
        >>> distance(some, some, "sequence_classification")
        tensor([0., 0.])
    """
    if kind == "regression":
        return (one - other).square().flatten()
    if kind == "multi_label":
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).sum(-1)
    p, q = functional.log_softmax(one, -1), functional.log_softmax(other, -1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1)
