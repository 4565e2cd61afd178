"""Samplers: how many rows of each task a mixed batch holds.

A sampler gives mixing rates over tasks for a place in training; :class:`nlp_mtl.plan.MixingPlan` turns them into rows.
The plan is a pure function of (seed, epoch, step) and of the sampler's own state: every process computes the same one,
and a resumed run continues it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.registry import samplers
from nlp_mtl.steps import StepRecord

EpochLength = Literal["all", "mean", "largest"] | int


@dataclass(frozen=True)
class Progress:
    """A place in training: `epoch` and `step` (within the epoch) from 0, `steps` per epoch, `epochs` in all."""

    epoch: int
    step: int
    steps: int
    epochs: float


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

    def observe(self, record: StepRecord) -> None:
        """Learn from an optimizer step that is done; the same on every process. Static samplers do not.

        Args:
            record: with one place for every task of the run, those without training rows included.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a learned sampler has learned; static ones have none."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""


@samplers.register("proportional")
class Proportional(Sampler):
    """In proportion to the tasks' training rows: an epoch shows every row exactly once.

    Relations: temperature 1 of `temperature`; what concatenating and shuffling all data sets gives, without its chance.
    """

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: the tasks' sizes."""
        return self.sizes


@samplers.register("uniform")
class Uniform(Sampler):
    """The same number of rows of every task.

    Relations: the limit of `temperature` for a high temperature. Small tasks are repeated many times an epoch.
    """

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: ones."""
        return np.ones(len(self.sizes))


@samplers.register("temperature")
class Temperature(Sampler):
    """In proportion to rows ** (1 / temperature): 1 is proportional, high is uniform.

    Args:
        temperature: above 0; 2 takes the square root of the sizes.

    Relations: with temperature 1 / α the exponent α of multilingual BERT.
    """

    paper = "Arivazhagan et al., 2019, arXiv:1907.05019"

    def __init__(self, temperature: float = 2.0, *, epoch: Any = "all", caps: Mapping[str, int] | None = None):
        super().__init__(epoch=epoch, caps=caps)
        if not temperature > 0:
            raise ConfigError(f"sampler 'temperature': `temperature` is above 0, found {temperature}")
        self.temperature = temperature

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: sizes ** (1 / temperature), scaled by the largest so that no power overflows."""
        return (self.sizes / self.sizes.max()) ** (1 / self.temperature)


@samplers.register("size_capped")
class SizeCapped(Sampler):
    """In proportion to min(rows, limit): large tasks count as if they had `limit` rows.

    Args:
        limit: rows above which a task counts no more.

    Relations: the "examples-proportional mixing" of T5; with a low limit, `uniform`.
    """

    paper = "Raffel et al., 2020, arXiv:1910.10683"

    def __init__(self, limit: int = 10_000, *, epoch: Any = "all", caps: Mapping[str, int] | None = None):
        super().__init__(epoch=epoch, caps=caps)
        if limit < 1:
            raise ConfigError(f"sampler 'size_capped': `limit` is at least 1, found {limit}")
        self.limit = limit

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: min(size, limit)."""
        return np.minimum(self.sizes, self.limit)


@samplers.register("annealed")
class Annealed(Sampler):
    """From proportional towards uniform as training goes on: rows ** α with α = 1 − 0.8 · (epoch / (epochs − 1)).

    Args:
        last: the exponent of the last epoch.

    Relations: `temperature` with a schedule, the "annealed sampling" of PALs.
    """

    paper = "Stickland and Murray, 2019, arXiv:1902.02671"

    def __init__(self, last: float = 0.2, *, epoch: Any = "all", caps: Mapping[str, int] | None = None):
        super().__init__(epoch=epoch, caps=caps)
        if not 0 <= last <= 1:
            raise ConfigError(f"sampler 'annealed': `last` is from 0 to 1, found {last}")
        self.last = last

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: sizes ** α of this epoch."""
        share = at.epoch / max(1.0, np.ceil(at.epochs) - 1)
        return (self.sizes / self.sizes.max()) ** (1 - (1 - self.last) * min(1.0, share))


@samplers.register("round_robin")
class RoundRobin(Sampler):
    """One task a step, all in turn, as toolkits without mixed batches train.

    Relations: the rates of `uniform` on average, but batches hold one task only.
    """

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: 1 for the task whose turn it is."""
        rates = np.zeros(len(self.sizes))
        rates[(at.epoch * at.steps + at.step) % len(self.sizes)] = 1.0
        return rates


@samplers.register("fixed")
class Fixed(Sampler):
    """Rates given by the user.

    Args:
        rates: task → rate, at least 0; all tasks with training rows must be named; need not sum to 1.
    """

    def __init__(self, rates: Mapping[str, float], *, epoch: Any = "all", caps: Mapping[str, int] | None = None):
        super().__init__(epoch=epoch, caps=caps)
        if not rates or any(rate < 0 for rate in rates.values()) or not sum(rates.values()) > 0:
            raise ConfigError(f"sampler 'fixed': `rates` are at least 0 and not all 0, found {dict(rates)}")
        self.given = dict(rates)

    def named_tasks(self) -> list[str]:
        """The tasks in `rates`."""
        return list(self.given)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; every one needs a rate."""
        super().setup(tasks, sizes)
        missing = [task for task in tasks if task not in self.given]
        if missing:
            raise ConfigError(f"sampler 'fixed': `rates` leaves out {', '.join(missing)}; 0 is a rate too")

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: as given."""
        return np.array([self.given[task] for task in self.tasks], dtype=float)
