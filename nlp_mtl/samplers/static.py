"""Samplers whose rates follow from the tasks' sizes, the place in training, or the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import samplers
from nlp_mtl.samplers.base import Progress, Sampler


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
