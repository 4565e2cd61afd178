"""Domain-adversarial training: a classifier of domains, whose gradient is turned round on its way into the encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads.pooled import Pooling, stand_in
from nlp_mtl.heads.sequence_classification import SequenceClassification
from nlp_mtl.layout import few_shapes
from nlp_mtl.packing import Packed
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import TASKS, Task

SCHEDULES = ("dann", "constant")


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, states: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return states.view_as(states)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradients[0], None


def reverse_gradient(states: Tensor, strength: float) -> Tensor:
    """The states as they are, whose gradient is multiplied by −`strength` on the way back.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> (3 * reverse_gradient(x, 0.5)).sum().backward()
        >>> x.grad
        tensor([-1.5000, -1.5000])
    """
    return _Reversal.apply(states, strength)


def dann_strength(progress: float) -> float:
    """Ganin et al.'s schedule of λ, 2 / (1 + exp(−10 p)) − 1: from 0 towards 1.

    Example:
        >>> [round(dann_strength(p), 4) for p in (0.0, 0.5, 1.0)]
        [0.0, 0.9866, 0.9999]
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


@heads.register("domain_adversarial")
class DomainAdversarial(SequenceClassification):
    """Tells domains apart, while the encoder learns that they can't be: its gradient is turned round.

    The classifier is the family's own for sequences and learns as any other. What it passes into the encoder is
    multiplied by −λ: so shared weights move to where it fails. It stands beside a task whose labels one of the domains
    has. Its loss is high where it works; its score is told, and has no say in the best checkpoint.

    Args:
        task: the task; its target is the domain, as ``dataset: {path: tasks}`` gives it.
        strength: λ, or what the schedule goes to; from 0.
        schedule: ``dann``, λ times 2 / (1 + exp(−10 p)) − 1 with p the part of the training that is done; or
            ``constant``. Outside a training p is 1.
        pooling, pooler: see :class:`nlp_mtl.heads.pooled.PooledHead`: take what the other tasks' heads read.

    Raises:
        ConfigError: arguments out of range, one domain only.

    Relations: like `sequence_classification` forward, and for its own weights; `domain_alignment` draws domains
    together without a classifier. Under a gradient balancer its gradient is the one turned round, so a method that
    takes conflict away works against it: weigh losses instead.

    cost: the texts of all domains go through the encoder once more.
    """

    paper = "Ganin et al., 2016, arXiv:1505.07818"
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "proxy_a_distance")
    for_model: ClassVar[tuple[str, ...]] = (*SequenceClassification.for_model, "strength", "schedule")
    auxiliary = True

    def __init__(
        self,
        task: Task,
        strength: float = 1.0,
        schedule: Literal["dann", "constant"] = "dann",
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(task, pooling=pooling, pooler=pooler)
        mistakes = several_domains(task)
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool) and math.isfinite(strength)
        if not number or strength < 0:
            mistakes.append(f"task {task.name!r}: `strength` is a number from 0, found {strength!r}")
        if schedule not in SCHEDULES:
            mistakes.append(f"task {task.name!r}: `schedule` is {' or '.join(SCHEDULES)}, found {schedule!r}")
        if mistakes:
            raise ConfigError(mistakes)
        self.strength, self.schedule, self.progress = float(strength), schedule, 1.0

    @property
    def now(self) -> float:
        """λ at this point of the training."""
        return self.strength * (1.0 if self.schedule == "constant" else dann_strength(self.progress))

    def advance(self, progress: float) -> None:
        """See :meth:`Head.advance`."""
        self.progress = progress

    def set_labels(self, names: Sequence[str] | None) -> None:
        """The domains, of which there are two at least."""
        super().set_labels(names)
        check_domains(self.task, self.labels)

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, domains]."""
        states, strength = self.pooled(module, packed, target["sequences"]), self.now

        def reversal(vectors: Tensor) -> Tensor:
            return reverse_gradient(vectors, strength)

        reader = stand_in(module)
        if reader is None:
            states = reversal(states)
        else:
            reader.passing = reversal  # after a pooler that all tasks share, which is the encoder's
        return self.logits_of(module, few_shapes(states))[: len(states)]


def several_domains(task: Task) -> list[str]:
    """What is wrong with a task's domains, as far as the task says it: one is not enough."""
    if task.target is None:
        return [f"task {task.name!r}: {task.head_name} needs `target`, the column with the domain; e.g. target: domain"]
    given = task.labels if task.labels is not None else task.dataset.tasks if task.dataset.path == TASKS else None
    if given is None or len(given) != 1 or (task.dataset.path == TASKS and not task.inner):
        return []
    return [
        f"task {task.name!r}: {task.head_name} needs two domains at least, found one; add a task to `dataset.tasks`"
    ]


def check_domains(task: Task, names: Sequence[str] | None) -> None:
    """Refuse data of one domain.

    Raises:
        DataError: with the way out.
    """
    if names is not None and len(names) < 2:
        raise DataError(
            f"task {task.name!r}: {task.head_name} needs two domains at least, found {', '.join(names) or 'none'} in "
            f"{task.target!r}; name another column as `target`, or more tasks in `dataset.tasks`"
        )
