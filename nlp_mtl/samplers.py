"""Samplers: how many rows of each task a mixed batch holds.

A sampler gives mixing rates over tasks for a place in training; :class:`MixingPlan` turns them into rows. The plan is a
pure function of (seed, epoch, step) and of the sampler's own state: every process computes the same one, and a resumed
run continues it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.registry import samplers


@dataclass(frozen=True)
class Progress:
    """A place in training: `epoch` and `step` (within the epoch) from 0, `steps` per epoch, `epochs` in all."""

    epoch: int
    step: int
    steps: int
    epochs: float


class Sampler:
    """Base of all samplers.

    Args:
        epoch: how long an epoch is: ``"all"``, as many rows as all tasks have together, which is the number of tasks
            times the mean task; ``"largest"``, until the largest task has been seen once at its rate; or a number of
            rows.
        caps: at most so many rows of a task in one step's batch; the others get the rest.
    """

    paper = ""

    def __init__(self, *, epoch: Literal["all", "largest"] | int = "all", caps: Mapping[str, int] | None = None):
        if epoch not in ("all", "largest") and not (isinstance(epoch, int) and epoch > 0):
            raise ConfigError(f"sampler: `epoch` is all, largest or a number of rows above 0, found {epoch!r}")
        bad = {task: cap for task, cap in (caps or {}).items() if not (isinstance(cap, int) and cap > 0)}
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


# ------------------------------------------------------------------------------------------------ rates to rows


@dataclass(frozen=True)
class Pool:
    """Rows that are drawn together because the same tasks label them.

    Attributes:
        key: stable name, so that other tasks coming or going leave its order of rows alone.
        tasks: the tasks that label these rows.
        rows: how many there are.
        sizes: how many of them each task labels; left out, all.
    """

    key: str
    tasks: tuple[str, ...]
    rows: int
    sizes: tuple[int, ...] = ()


class MixingPlan:
    """Which rows each step sees: a pure function of (seed, epoch, step) and of the sampler's state.

    Counts follow the rates as closely as whole rows allow: what a task is owed is carried to the next step, so that
    over an epoch its count is its rate times the rows of the epoch, to less than one row per step's rounding.

    Args:
        sampler: gives the rates.
        pools: the rows; a pool that several tasks label is drawn so that they get together what their rates say.
        rows_per_step: rows of one optimizer step, over all processes and micro-batches.
        seed: of the order of rows.
        epochs: epochs in all, for samplers with a schedule.
    """

    def __init__(self, sampler: Sampler, pools: Sequence[Pool], *, rows_per_step: int, seed: int, epochs: float = 1.0):
        self.sampler, self.pools = sampler, list(pools)
        self.rows_per_step, self.seed, self.epochs = rows_per_step, seed, epochs
        tasks = [task for pool in self.pools for task in pool.tasks]
        sizes = [size for pool in self.pools for size in (pool.sizes or (pool.rows,) * len(pool.tasks))]
        sampler.setup(tasks, sizes)
        covered = np.array(
            [size / pool.rows for pool in self.pools for size in (pool.sizes or (pool.rows,) * len(pool.tasks))]
        )
        self._owner = np.array([number for number, pool in enumerate(self.pools) for _ in pool.tasks])
        self._covered = np.bincount(self._owner, weights=covered, minlength=len(self.pools))
        caps = [
            min((sampler.caps[t] for t in pool.tasks if t in sampler.caps), default=rows_per_step) for pool in pools
        ]
        self._caps = np.array(caps, dtype=int)
        if self._caps.sum() < rows_per_step:
            raise ConfigError(
                f"sampler: `caps` leave {self._caps.sum()} of the {rows_per_step} rows of a step; raise or drop some"
            )
        self._starts: list[np.ndarray] = [np.zeros(len(self.pools), dtype=np.int64)]
        self._counts: dict[int, np.ndarray] = {}
        self.rows_per_epoch = self._rows_per_epoch()

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch; the last one may be short."""
        return -(-self.rows_per_epoch // self.rows_per_step)

    def _rows_per_epoch(self) -> int:
        sizes = np.array([pool.rows for pool in self.pools])
        if self.sampler.epoch == "all":
            return int(sizes.sum())
        if self.sampler.epoch != "largest":
            return int(self.sampler.epoch)
        largest, turn = int(sizes.argmax()), len(self._owner)
        rates = [self._pool_rates(Progress(0, step, turn, self.epochs)) for step in range(turn)]
        return int(np.ceil(sizes[largest] / max(np.mean(rates, axis=0)[largest], 1e-9)))

    def _pool_rates(self, at: Progress) -> np.ndarray:
        rates = np.asarray(self.sampler.rates(at), dtype=float)
        if rates.shape != self._owner.shape or not np.isfinite(rates).all() or (rates < 0).any() or not rates.sum() > 0:
            raise ConfigError(
                f"sampler {type(self.sampler).__name__}: rates must be {len(self._owner)} numbers from 0, not all 0, "
                f"found {rates.tolist()}"
            )
        pooled = np.bincount(self._owner, weights=rates, minlength=len(self.pools)) / self._covered
        return pooled / pooled.sum()

    def counts(self, epoch: int) -> np.ndarray:
        """[steps, pools]: rows of each pool in each step of an epoch."""
        if epoch not in self._counts:
            steps, owed = self.steps, np.zeros(len(self.pools))
            counts = np.zeros((steps, len(self.pools)), dtype=np.int64)
            for step in range(steps):
                rows = min(self.rows_per_step, self.rows_per_epoch - step * self.rows_per_step)
                rates = self._pool_rates(Progress(epoch, step, steps, self.epochs))
                owed += rows * rates
                counts[step] = _whole(owed, rows, np.where(rates > 0, self._caps, 0))
                owed -= counts[step]
            self._counts = {epoch: counts}
            self._before = np.concatenate([np.zeros((1, len(self.pools)), dtype=np.int64), counts.cumsum(0)])
        return self._counts[epoch]

    def _start(self, epoch: int) -> np.ndarray:
        while len(self._starts) <= epoch:
            done = len(self._starts) - 1
            self._starts.append(self._starts[done] + self.counts(done).sum(0))
        return self._starts[epoch]

    def rows(self, epoch: int, step: int) -> list[tuple[int, int, int]]:
        """The rows of a step, pool by pool: (pool, row, how often the row was shown before)."""
        start = self._start(epoch)
        counts = self.counts(epoch)
        begin = start + self._before[step]
        return [
            (number, row, visit)
            for number, pool in enumerate(self.pools)
            for row, visit in self._take(pool, int(begin[number]), int(counts[step, number]))
        ]

    def _take(self, pool: Pool, begin: int, count: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while len(taken) < count:
            cycle, place = divmod(begin + len(taken), pool.rows)
            order = self._order(pool, cycle)
            taken += [(row, cycle) for row in order[place : place + count - len(taken)].tolist()]
        return taken

    def _order(self, pool: Pool, cycle: int) -> np.ndarray:
        """The pool's rows in the order of their `cycle`-th showing."""
        cache = self.__dict__.setdefault("_orders", {})
        known = cache.get(pool.key)
        if known is None or known[0] != cycle:
            random = np.random.default_rng([self.seed, zlib.crc32(pool.key.encode()), cycle])
            cache[pool.key] = known = (cycle, random.permutation(pool.rows))
        return known[1]


def _whole(owed: np.ndarray, rows: int, caps: np.ndarray) -> np.ndarray:
    """Whole counts that sum to `rows` (or all `caps` allow), near `owed`: floors first, then the largest remainders.

    Example:
        >>> _whole(np.array([1.6, 0.8, 1.6]), 4, np.array([9, 9, 9])).tolist()
        [2, 1, 1]
    """
    counts = np.clip(np.floor(owed + 1e-9), 0, caps).astype(np.int64)
    rows = min(rows, int(caps.sum()))
    while counts.sum() > rows:
        counts[np.argmax(np.where(counts > 0, counts - owed, -np.inf))] -= 1
    while counts.sum() < rows:
        counts[np.argmax(np.where(counts < caps, owed - counts, -np.inf))] += 1
    return counts
