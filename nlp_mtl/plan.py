"""The mixing plan: from a sampler's rates to the rows that each step sees."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.samplers import Progress, Sampler


@dataclass(frozen=True)
class Pool:
    """Rows that are drawn together because the same tasks label them.

    Attributes:
        key: stable name, so that other tasks coming or going leave its order of rows alone.
        tasks: the tasks that label these rows.
        rows: how many there are.
        sizes: how many of them each task labels; left out, all.
        weights: [rows], how often each is shown in one showing of them all, on average; left out, once.
    """

    key: str
    tasks: tuple[str, ...]
    rows: int
    sizes: tuple[int, ...] = ()
    weights: np.ndarray | None = field(default=None, compare=False, repr=False)


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
        self._setup(sampler, pools, seed, epochs)
        self.rows_per_step = rows_per_step
        self._caps = self._caps_or(rows_per_step)
        if self._caps.sum() < rows_per_step:
            raise ConfigError(
                f"sampler: `caps` leave {self._caps.sum()} of the {rows_per_step} rows of a step; raise or drop some"
            )
        self.rows_per_epoch = self._rows_per_epoch()

    def _setup(self, sampler: Sampler, pools: Sequence[Pool], seed: int, epochs: float) -> None:
        """What does not depend on how a step is counted."""
        self.sampler, self.pools, self.seed, self.epochs = sampler, list(pools), seed, epochs
        tasks = [task for pool in self.pools for task in pool.tasks]
        sizes = [size for pool in self.pools for size in (pool.sizes or (pool.rows,) * len(pool.tasks))]
        sampler.setup(tasks, sizes)
        covered = np.array(
            [size / pool.rows for pool in self.pools for size in (pool.sizes or (pool.rows,) * len(pool.tasks))]
        )
        self._owner = np.array([number for number, pool in enumerate(self.pools) for _ in pool.tasks])
        self._covered = np.bincount(self._owner, weights=covered, minlength=len(self.pools))
        self._starts: list[np.ndarray] = [np.zeros(len(self.pools), dtype=np.int64)]
        self._counts: dict[int, np.ndarray] = {}
        self._version = sampler.version  # of the sampler, when they were made

    def _caps_or(self, most: int) -> np.ndarray:
        """[pools]: at most so many rows of each pool in a step; `most` where no task of it has a cap."""
        caps = self.sampler.caps
        return np.array([min((caps[t] for t in pool.tasks if t in caps), default=most) for pool in self.pools])

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch; the last one may be short."""
        return -(-self.rows_per_epoch // self.rows_per_step)

    def _rows_per_epoch(self) -> int:
        sizes = np.array([pool.rows for pool in self.pools])
        if self.sampler.epoch in ("all", "mean"):
            return int(sizes.sum())
        if self.sampler.epoch != "largest":
            return int(self.sampler.epoch)
        largest = int(sizes.argmax())
        return int(np.ceil(sizes[largest] / max(self._first_rates().mean(0)[largest], 1e-9)))

    def _first_rates(self) -> np.ndarray:
        """[steps, pools]: the first rates, over as many steps as there are tasks (some samplers take turns)."""
        turn = len(self._owner)
        return np.stack([self._pool_rates(Progress(0, step, turn, self.epochs)) for step in range(turn)])

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
        if epoch not in self._counts or self._version != self.sampler.version:
            counts = self._count(epoch)
            self._version = self.sampler.version
            self._counts = {epoch: counts}
            self._before = np.concatenate([np.zeros((1, len(self.pools)), dtype=np.int64), counts.cumsum(0)])
        return self._counts[epoch]

    def _count(self, epoch: int) -> np.ndarray:
        steps, owed = self.steps, np.zeros(len(self.pools))
        counts = np.zeros((steps, len(self.pools)), dtype=np.int64)
        for step in range(steps):
            rows = min(self.rows_per_step, self.rows_per_epoch - step * self.rows_per_step)
            rates = self._pool_rates(Progress(epoch, step, steps, self.epochs))
            owed += rows * rates
            caps = np.where(rates > 0, self._caps, 0)
            if caps.sum() < rows:
                raise ConfigError(
                    f"sampler: `caps` leave {caps.sum()} of the {rows} rows of step {step}, which "
                    f"{self._among(rates)} must fill; raise them"
                )
            counts[step] = _whole(owed, rows, caps)
            owed -= counts[step]
        return counts

    def _among(self, rates: np.ndarray) -> str:
        return ", ".join(pool.key for pool, rate in zip(self.pools, rates, strict=True) if rate > 0)

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

    def shown(self, epoch: int, steps: int) -> list[np.ndarray]:
        """For each pool the numbers of the rows that the first `steps` steps of an epoch show."""
        begin, counts = self._start(epoch), self.counts(epoch)[:steps].sum(0)
        return [
            np.array([row for row, _ in self._take(pool, int(begin[number]), int(counts[number]))], dtype=np.int64)
            for number, pool in enumerate(self.pools)
        ]

    def _take(self, pool: Pool, begin: int, count: int) -> list[tuple[int, int]]:
        """The pool's next rows from its `begin`-th showing of a row on, and how often each was shown before."""
        rows = self._ahead(pool, begin, count).tolist()
        return [(row, (begin + number) // pool.rows) for number, row in enumerate(rows)]

    def _ahead(self, pool: Pool, begin: int, count: int) -> np.ndarray:
        """[count]: the same, the rows' numbers only."""
        parts = [np.zeros(0, dtype=np.int64)]
        while count > 0:
            cycle, place = divmod(begin, pool.rows)
            parts.append(self._order(pool, cycle)[place : place + count])
            begin, count = begin + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _order(self, pool: Pool, cycle: int) -> np.ndarray:
        """The pool's rows in the order of their `cycle`-th showing."""
        cache = self.__dict__.setdefault("_orders", {})
        known = cache.get(pool.key)
        if known is None or known[0] != cycle:
            random = np.random.default_rng([self.seed, zlib.crc32(pool.key.encode()), cycle])
            order = random.permutation(pool.rows)
            if pool.weights is not None:
                order = drawn(pool.weights, float(random.random()))[order]
            cache[pool.key] = known = (cycle, order)
        return known[1]


def drawn(weights: np.ndarray, offset: float) -> np.ndarray:
    """As many rows as there are, each about as often as its weight says: systematic resampling.

    A row of weight w comes ⌊w⌋ or ⌈w⌉ times, and w times on average over offsets; so rows that all weigh 1 come once.

    Args:
        weights: [rows], at least 0, with mean 1.
        offset: from 0 to 1.

    Returns:
        [rows] of rows' numbers, ascending.

    Relations: like drawing with replacement, with less chance in it (Kitagawa, 1996, 10.1080/10618600.1996.10474692).

    Example:
        >>> drawn(np.array([2.0, 0.5, 0.5]), 0.3).tolist()
        [0, 0, 1]
    """
    ends = np.cumsum(np.asarray(weights, dtype=np.float64))
    ends *= len(ends) / ends[-1]
    counts = np.diff(np.floor(ends - offset + 1 + 1e-9), prepend=np.floor(1 - offset + 1e-9)).astype(np.int64)
    return np.repeat(np.arange(len(counts)), counts)


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
