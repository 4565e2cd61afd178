"""What every balancer is, and what it is told of a step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nlp_mtl.errors import ConfigError, suggestion

Need = Literal["losses", "gramian", "jacobian", "new_losses", "inner_steps"]
Scope = Literal["shared", "lora", "last_layer"]


@dataclass(frozen=True)
class StepFacts:
    """What is known of an optimizer step before its forward pass, over all processes and micro-batches.

    Attributes:
        step: the optimizer step, from 0.
        rows: [tasks], rows of each task in the step.
        units: [tasks], what each loss is averaged over: rows, or labelled tokens.
        epoch: the epoch, from 0.
    """

    step: int
    rows: Tensor
    units: Tensor
    epoch: int = 0

    @property
    def present(self) -> Tensor:
        """[tasks]: which tasks have something to learn from in this step."""
        return self.units > 0


class Balancer:
    """Base of all balancers.

    What they get is the same on every process, so they decide the same; whatever they draw at random they draw inside
    :meth:`drawing`, so that a resumed run draws the same again.

    Attributes:
        needs: what `weights` is given: ``losses`` of the step; the ``gramian`` of the tasks' gradients of the shared
            parameters; or the ``jacobian`` itself, see :meth:`combine`. With ``new_losses``, those of the same rows
            after the step, see :meth:`learn`. ``inner_steps``: each task's gradients along steps of its own, see
            :class:`nlp_mtl.balancers.meta.InnerSteps`.
        scope: which parameters' gradients the Gramian is made of.
        lags: the gradients are those of the step that was weighed, and what is made of them counts in the next.
        only_weigh: tasks whose gradients say how others learn, and that learn nothing: what is theirs alone (a head, an
            adapter) is left as it is.
        cost: what it takes beside a plain step.
        license: of a solver that is not permissive, else "".
    """

    paper = ""
    needs: frozenset[Need] = frozenset()
    scope: Scope = "shared"
    lags = False
    only_weigh: Sequence[str] = ()
    cost = "nothing"
    license = ""
    seed = 0

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks, in order.

        Args:
            tasks: their names.
            sizes: their numbers of training rows; a task without any is never present.
            classes: how many classes each chooses among; 0 where it does not choose.
            seed: of what is drawn at random.

        Raises:
            ConfigError: arguments that do not fit the tasks.
        """
        self.tasks, self.sizes, self.classes, self.seed = list(tasks), list(sizes), list(classes), seed
        learning = [task for task, size in zip(tasks, sizes, strict=True) if size]
        if len(learning) < 2 and {"gramian", "jacobian"} & self.needs:
            raise ConfigError(
                f"balancer {self.name!r}: weighs the gradients of several tasks, found "
                f"{learning[0] if learning else 'none'} alone; use 'equal' for one task, or name more tasks"
            )

    @property
    def name(self) -> str:
        """What it is registered as."""
        return getattr(type(self), "registered_as", type(self).__name__)

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: weights of the tasks' losses in this step, 0 for tasks that are absent.

        Args:
            facts: the step.
            losses: [tasks], for balancers that need them; 0 where absent.
            gramian: [tasks, tasks], products of the tasks' gradients, for balancers that need it; 0 where absent.
        """
        raise NotImplementedError

    def combine(self, facts: StepFacts, jacobian: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One gradient of the tasks' gradients, by balancers that need the ``jacobian``.

        Args:
            facts: the step.
            jacobian: [tasks present, numbers], a row for each task present.
            losses: [tasks], as for `weights`.

        Returns:
            [numbers], the gradient; and [tasks], what to show as the tasks' weights.
        """
        raise NotImplementedError

    def learn(self, facts: StepFacts, losses: Tensor) -> None:
        """Hear the losses of the same rows after the step; [tasks], 0 where absent."""

    def state_dict(self) -> dict[str, Any]:
        """What has been learned so far."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""

    @contextmanager
    def drawing(self, facts: StepFacts) -> Iterator[None]:
        """Inside this block torch's generator draws what belongs to the step, and nobody else's numbers move."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, facts.step))
            yield


def seed_of(seed: int, step: int) -> int:
    """What a balancer's random numbers of a step begin with.

    Example:
        >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 1)
        (True, False)
    """
    return zlib.crc32(f"balancer:{seed}:{step}".encode())


def checked_weights(name: str, weights: Mapping[str, float], argument: str = "weights") -> dict[str, float]:
    """Weights from 0, as given.

    Raises:
        ConfigError: with those that are not.
    """
    bad = {task: weight for task, weight in weights.items() if not 0 <= weight < float("inf")}
    if bad:
        raise ConfigError(f"balancer {name!r}: `{argument}` are at least 0, found {bad}")
    return dict(weights)


def in_order(
    name: str, weights: Mapping[str, float], tasks: Sequence[str], usual: float = 1.0, argument: str = "weights"
) -> Tensor:
    """[tasks]: the weights given, `usual` where none is.

    Raises:
        ConfigError: weights for tasks that are not there, with near names.
    """
    unknown = [task for task in weights if task not in tasks]
    if unknown:
        raise ConfigError([f"balancer {name!r}: {task!r} is not a task{suggestion(task, tasks)}" for task in unknown])
    return torch.tensor([float(weights.get(task, usual)) for task in tasks])
