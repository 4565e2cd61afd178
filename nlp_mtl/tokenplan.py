"""The mixing plan whose steps are counted in tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.plan import MixingPlan, Pool
from nlp_mtl.samplers import Progress, Sampler

_UNCAPPED = 2**40  # rows; more than any step holds, and sums of it stay whole numbers


class TokenPlan(MixingPlan):
    """Which rows each step sees, where a step is as many tokens and not as many rows.

    As :class:`MixingPlan`, a pure function of (seed, epoch, step) and of the sampler's state. Rows are put in one
    order in which the tasks follow one another at the sampler's rates, and that order is cut into steps at the row
    ends nearest to multiples of `tokens_per_step`. So, with L the tokens of the longest row:

    - a step holds `tokens_per_step` to within L, and any number of steps in a row holds its multiple to within L;
    - rates stay rates of rows: at every moment a task has had its rate's share of the rows to within a row, whatever
      the tokens of its rows. A sampler whose rates change from step to step changes them at the ends of steps;
    - `caps` stay rows of a task in one step. What a cap keeps out comes first in the next step, as in `MixingPlan`,
      and the others share what is left at their rates;
    - every epoch has the same number of steps. One of ``"all"`` (or ``"mean"``) is as many tokens as all tasks have
      together, one of ``"largest"`` or of a number of rows as many as these rows have on average at the first rates.
      With the proportional sampler and no caps it shows every row exactly once; with others its number of rows
      differs a little from epoch to epoch;
    - where a step belongs to one task (`round_robin`), tasks get the same number of tokens, so that one of short rows
      gets more of them.

    Args:
        sampler: gives the rates.
        pools: the rows; see :class:`MixingPlan`.
        tokens: for each pool [rows], the tokens of each row.
        tokens_per_batch: of one optimizer step, over all processes and micro-batches; steps get a little less, so that
            the epoch is a whole number of them.
        seed: of the order of rows.
        epochs: epochs in all, for samplers with a schedule.

    Attributes:
        tokens_per_step: the epoch's tokens over its steps.
        rows_per_epoch, rows_per_step: about so many, at the first rates.

    Raises:
        ConfigError: a budget that the longest row does not fit into; in :meth:`counts`, caps that leave a step short.

    Relations: sorting by length and filling batches by tokens, as machine translation does, would let the rates of
    tasks follow the lengths of their rows; here lengths decide only where a step ends.

    Example:
        >>> from nlp_mtl.registry import samplers
        >>> pools = [Pool("a", ("a",), 4), Pool("b", ("b",), 2)]
        >>> tokens = [np.array([3, 3, 3, 3]), np.array([6, 6])]
        >>> plan = TokenPlan(samplers.build("proportional"), pools, tokens=tokens, tokens_per_batch=13, seed=0)
        >>> plan.steps, plan.tokens_per_step, plan.counts(0).tolist()
        (2, 12.0, [[2, 1], [2, 1]])
    """

    def __init__(
        self,
        sampler: Sampler,
        pools: Sequence[Pool],
        *,
        tokens: Sequence[np.ndarray],
        tokens_per_batch: int,
        seed: int,
        epochs: float = 1.0,
    ):
        self._setup(sampler, pools, seed, epochs)
        self._tokens = [np.maximum(np.asarray(part, dtype=np.int64), 1) for part in tokens]
        self.tokens_per_batch = tokens_per_batch
        longest = max(int(part.max()) for part in self._tokens)
        if mistake := too_few(tokens_per_batch, {pool.key: part for pool, part in zip(pools, tokens, strict=True)}):
            raise ConfigError(mistake)
        self._caps = self._caps_or(_UNCAPPED)
        self._means = np.array([part.mean() for part in self._tokens])
        rates = self._first_rates()
        rows = (rates / (rates @ self._means)[:, None]).mean(0)  # of each pool, for every token
        sizes = np.array([pool.rows for pool in self.pools])
        if sampler.epoch in ("all", "mean"):
            total = float(sum(int(part.sum()) for part in self._tokens))
        elif sampler.epoch == "largest":
            total = sizes.max() / max(rows[sizes.argmax()], 1e-9)
        else:
            total = int(sampler.epoch) / rows.sum()
        self.rows_per_epoch = round(total * rows.sum())
        # A step below the longest row could come out empty; so few tokens are one step less, a little larger.
        self._steps = max(1, min(math.ceil(total / tokens_per_batch), int(total // longest)))
        self._ends = total * np.arange(1, self._steps + 1) / self._steps
        self.tokens_per_step = total / self._steps
        self.rows_per_step = max(1, round(self.rows_per_epoch / self._steps))

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch, the same in all epochs."""
        return self._steps

    def _count(self, epoch: int) -> np.ndarray:
        rates = [self._pool_rates(Progress(epoch, step, self.steps, self.epochs)) for step in range(self.steps)]
        counts = np.zeros((self.steps, len(self.pools)), dtype=np.int64)
        begin, owed, done, step = self._start(epoch).copy(), np.zeros(len(self.pools)), 0, 0
        while step < self.steps:
            end = step + 1
            if not self.sampler.caps:  # steps of the same rates are one stretch
                while end < self.steps and np.array_equal(rates[end], rates[step]):
                    end += 1
            counts[step:end], owed, held = self._stretch(rates[step], begin, owed, self._ends[step:end] - done, step)
            begin, done, step = begin + counts[step:end].sum(0), done + held, end
        return counts

    def _stretch(
        self, rates: np.ndarray, begin: np.ndarray, owed: np.ndarray, ends: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Some steps of the same rates: their counts [steps, pools], what pools are owed then, and their tokens.

        A pool's next rows stand at the moments at which its rate has earned them, half a row before they are whole, so
        that of all pools none is more than half a row early or late.

        Args:
            rates: [pools].
            begin: [pools], rows shown before.
            owed: [pools], rows earned and not shown.
            ends: [steps], tokens after each step, counted from the first one's beginning.
            step: the first step's number, for messages.
        """
        caps = np.where(rates > 0, self._caps, 0)
        until = float(ends[-1] / (rates @ self._means)) + len(rates)
        while True:
            ahead = np.clip(np.floor(rates * until + owed + 0.5), 0, caps).astype(np.int64)
            chosen = np.flatnonzero(ahead)
            when = [(np.arange(ahead[i]) + 0.5 - owed[i]) / rates[i] for i in chosen]
            tokens = [self._tokens[i][self._ahead(self.pools[i], int(begin[i]), int(ahead[i]))] for i in chosen]
            if sum(int(part.sum()) for part in tokens) >= ends[-1]:
                break
            if (ahead >= caps).all():
                raise ConfigError(
                    f"sampler: `caps` leave {caps.sum()} rows for step {step}, {sum(int(t.sum()) for t in tokens)} of "
                    f"its {ends[-1]:.0f} tokens, which {self._among(rates)} must fill; raise them, or lower "
                    "tokens_per_batch"
                )
            until *= 1.5
        moments, owner = np.concatenate(when), np.repeat(chosen, ahead[chosen])
        order = np.argsort(moments, kind="stable")
        held = np.concatenate(tokens)[order].cumsum()
        last = _nearest(held, ends)
        number = np.searchsorted(last, np.arange(last[-1]), side="right")
        flat = np.bincount(number * len(rates) + owner[order[: last[-1]]], minlength=len(ends) * len(rates))
        counts = flat.reshape(len(ends), len(rates))
        earned = rates * max(float(moments[order[last[-1] - 1]]), 0.0)
        return counts, owed + earned - counts.sum(0), int(held[last[-1] - 1])


def _nearest(held: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[steps]: after how many rows each step ends, as near to its end in tokens as whole rows allow.

    Args:
        held: [rows], tokens up to and with each row.
        ends: [steps], ascending, the last one within `held`.

    Example:
        >>> _nearest(np.array([4, 6, 13, 14]), np.array([7.0, 14.0])).tolist()
        [2, 4]
    """
    after = np.searchsorted(held, ends)
    before = np.where(after > 0, held[after - 1], 0)
    return np.maximum(after + (held[after] - ends <= ends - before + 1e-6), np.arange(1, len(ends) + 1))


def too_few(tokens_per_batch: int, tokens: dict[str, np.ndarray]) -> str | None:
    """What is wrong with a step of so few tokens that a row does not fit into it.

    Args:
        tokens_per_batch: of one optimizer step.
        tokens: by what the message calls the rows: [rows], the tokens of each.

    Example:
        >>> too_few(8, {"rte": np.array([7, 9])})
        'tokens_per_batch: at least 9, the tokens of the longest training row (rte), found 8; raise it, or lower max_length'
    """  # noqa: E501
    where = max(tokens, key=lambda key: int(tokens[key].max()))
    longest = int(tokens[where].max())
    if tokens_per_batch >= longest:
        return None
    return (
        f"tokens_per_batch: at least {longest}, the tokens of the longest training row ({where}), found "
        f"{tokens_per_batch}; raise it, or lower max_length"
    )
