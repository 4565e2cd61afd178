"""What every sampler is, and what it is told of a place in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.steps import StepRecord

EpochLength = Literal["all", "mean", "largest"] | int


@dataclass(frozen=True)
class Progress:
    """A place in training: `epoch` and `step` (within the epoch) from 0, `steps` per epoch, `epochs` in all."""

    epoch: int
    step: int
    steps: int
    epochs: float

    @property
    def done(self) -> int:
        """Steps of all epochs before this one."""
        return self.epoch * self.steps + self.step


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class Sampler:
    """Base of all samplers.

    Args:
        epoch: how long an epoch is: ``"all"``, as many rows as all tasks have together; ``"mean"``, until each task
            has had the mean task's rows at the mean rate, which is the same number; ``"largest"``, until the largest
            task has been seen once at its rate; or a number of rows.
        caps: at most so many rows of a task in one step's batch; the others get the rest.
    """

    paper = ""

    def __init__(self, *, epoch: EpochLength = "all", caps: Mapping[str, int] | None = None):
        if epoch not in ("all", "mean", "largest") and not _is_count(epoch):
            raise ConfigError(f"sampler: `epoch` is all, mean, largest or a number of rows above 0, found {epoch!r}")
        bad = {task: cap for task, cap in (caps or {}).items() if not _is_count(cap)}
        if bad:
            raise ConfigError(f"sampler: `caps` are row counts above 0, found {bad}")
        self.epoch, self.caps = epoch, dict(caps or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks, in order, and their numbers of training rows. Called once, before any rate is asked for."""
        self.tasks, self.sizes = list(tasks), np.asarray(sizes, dtype=float)
        unknown = [task for task in [*self.caps, *self.named_tasks()] if task not in self.tasks]
        if unknown:
            raise ConfigError(
                [
                    f"sampler: {task!r} is not a task with training rows{suggestion(task, self.tasks)}"
                    for task in unknown
                ]
            )

    def named_tasks(self) -> list[str]:
        """Tasks that the arguments name; checked in :meth:`setup`."""
        return []

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: how much of the batch each task gets, at least 0; need not sum to 1."""
        raise NotImplementedError

    version = 0  # another one: rates that were asked for before may be others now
    learns = False

    def observe(self, record: StepRecord, tasks: Sequence[str]) -> None:
        """Learn from an optimizer step that is done; the same on every process. Static samplers do not.

        Args:
            record: with one place for every task of the run, those without training rows included.
            tasks: the run's tasks, in that order.
        """

    def observe_scores(self, step: int, scores: Mapping[str, tuple[float, bool]]) -> None:
        """Learn from an evaluation; static samplers do not.

        Args:
            step: optimizer steps that are done.
            scores: task → its first metric on the validation rows, and whether more of it is better.
        """

    @property
    def kind(self) -> str:
        """What its state is of."""
        return type(self).__name__

    def shares(self) -> dict[str, float]:
        """Task → the share that it has now, for those that learn; for logs."""
        return {}

    @property
    def finished(self) -> bool:
        """Whether no task is to be trained any more."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a learned sampler has learned; static ones have none."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
