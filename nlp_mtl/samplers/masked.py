"""Which tasks take part: groups that are trained in turn, and tasks that are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_mtl.errors import ConfigError, near, suggestion
from nlp_mtl.samplers.base import Progress, Sampler
from nlp_mtl.samplers.learned import AHEAD, Decisions
from nlp_mtl.steps import StepRecord

ORDERS = ("stages", "turns", "interleaved")


class Masked(Sampler):
    """Base: another sampler's rates, with some tasks left out."""

    def __init__(self, inner: Sampler):
        self.inner, self.epoch, self.caps = inner, inner.epoch, inner.caps

    @property
    def kind(self) -> str:
        """Its own, and the other one's."""
        return f"{type(self).__name__} of {self.inner.kind}"

    @property
    def learns(self) -> bool:  # type: ignore[override]
        """As the other one."""
        return self.inner.learns

    @property
    def version(self) -> int:  # type: ignore[override]
        """As the other one's."""
        return self.inner.version

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Both learn the tasks."""
        self.inner.setup(tasks, sizes)
        self.tasks, self.sizes = self.inner.tasks, self.inner.sizes

    def mask(self, at: Progress) -> np.ndarray:
        """[tasks]: 1 for those that take part, 0 for others; not all 0."""
        raise NotImplementedError

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: the other sampler's, among those that take part; alike where it gives all of them nothing."""
        mask = self.mask(at)
        found = np.asarray(self.inner.rates(at), dtype=float) * mask
        return found if found.sum() > 0 else mask

    def observe(self, record: StepRecord, tasks: Sequence[str]) -> None:
        """The other one may learn."""
        self.inner.observe(record, tasks)

    def observe_scores(self, step: int, scores: Mapping[str, tuple[float, bool]]) -> None:
        """The other one may learn."""
        self.inner.observe_scores(step, scores)

    def shares(self) -> dict[str, float]:
        """The other one's."""
        return self.inner.shares()

    @property
    def finished(self) -> bool:
        """As the other one says."""
        return self.inner.finished

    def state_dict(self) -> dict[str, Any]:
        """The other one's."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self.inner.load_state_dict(state)


class Grouped(Masked):
    """Groups of tasks that are trained in turn; in a step only one group's tasks take part.

    Args:
        inner: gives the rates within a group.
        groups: name → its tasks; or ``each``, every task by itself. Tasks in no group take part always.
        order: ``stages``: one group after the other, each for its share of all steps; ``turns``: a group for each
            epoch, in turn; ``interleaved``: the next group after each `every` steps.
        every: steps, for ``interleaved``.
        shares: name → share of the steps, for ``stages``; left out, by the groups' rows.

    Raises:
        ConfigError: all mistakes at once.

    Relations: ``stages`` with ``each`` is one task after the other, with which the first ones are forgotten;
    ``interleaved`` with `every` 1 and ``each`` is alternate training (Collobert and Weston, 2008, ICML), as MT-DNN's
    (Liu et al., 2019, arXiv 1901.11504). Which tasks should be together is asked by Standley et al. (2020,
    arXiv 1905.07553).
    """

    def __init__(
        self,
        inner: Sampler,
        groups: Mapping[str, Sequence[str]] | str,
        order: str = "stages",
        every: int = 1,
        shares: Mapping[str, float] | None = None,
    ):
        super().__init__(inner)
        wrong = []
        if order not in ORDERS:
            wrong.append(f"groups: `order` is one of {', '.join(ORDERS)}, found {order!r}{near(str(order), ORDERS)}")
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            wrong.append(f"groups: `every` is a number of steps from 1, found {every!r}")
        if isinstance(groups, str) and groups != "each":
            wrong.append(f"groups: `groups` is each, or names with lists of tasks, found {groups!r}")
        if not isinstance(groups, str):
            if len(groups) < 2:
                wrong.append(f"groups: two groups at least, found {len(groups)}; leave `groups` out for one")
            names = [task for members in groups.values() for task in members]
            wrong += [f"groups: {task!r} is in two groups; leave it in one" for task in sorted(_twice(names))]
            wrong += [f"groups: {name!r} has no tasks; name some" for name, members in groups.items() if not members]
        known = [] if isinstance(groups, str) else list(groups)
        if shares and order != "stages":
            wrong.append(f"groups: `shares` go with the order stages, found order {order!r}; leave them out")
        for name, share in (shares or {}).items():
            if known and name not in known:
                wrong.append(f"groups: `shares`: {name!r} is not a group{suggestion(name, known)}")
            if not share > 0:
                wrong.append(f"groups: `shares` are above 0, found {name}: {share}")
        if wrong:
            raise ConfigError(wrong)
        self._given, self.order, self.every, self._shares = groups, order, every, dict(shares or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; those that the groups name must be there."""
        super().setup(tasks, sizes)
        groups = {task: [task] for task in tasks} if isinstance(self._given, str) else self._given
        wrong = [
            f"groups: {task!r} is not a task with training rows{suggestion(task, list(tasks))}"
            for members in groups.values()
            for task in members
            if task not in tasks
        ]
        if isinstance(self._given, str):
            wrong += [
                f"groups: `shares`: {name!r} is not a task{suggestion(name, list(tasks))}"
                for name in self._shares
                if name not in tasks
            ]
        if wrong:
            raise ConfigError(wrong)
        self.names = list(groups)
        grouped = {task for members in groups.values() for task in members}
        self._masks = np.array(
            [[float(task in members or task not in grouped) for task in tasks] for members in groups.values()]
        )
        rows = np.array([sum(self.sizes[list(tasks).index(task)] for task in members) for members in groups.values()])
        shares = np.array([self._shares.get(name, 0.0) for name in self.names])
        if self._shares:
            left = [i for i, name in enumerate(self.names) if name not in self._shares]
            shares[left] = max(0.0, 1 - shares.sum()) * rows[left] / max(1.0, rows[left].sum())
        else:
            shares = rows / rows.sum()
        self._ends = np.cumsum(shares) / shares.sum()

    def active(self, at: Progress) -> int:
        """The number of the group that is trained at a place."""
        count = len(self.names)
        if self.order == "turns":
            return at.epoch % count
        if self.order == "interleaved":
            return at.done // self.every % count
        total = max(1.0, at.steps * at.epochs)
        return min(count - 1, int(np.searchsorted(self._ends, (at.done + 0.5) / total, side="left")))

    def mask(self, at: Progress) -> np.ndarray:
        """[tasks]: those of the group, and those in none."""
        return self._masks[self.active(at)]


class Stopping(Masked):
    """Tasks whose score stopped getting better get no more rows.

    After an evaluation in which a task's own first metric was no better than its best by more than `threshold`, for the
    `patience`-th time in a row, it stops; training ends when all have. Rows that it shares with a task that goes on
    train it all the same. The shared parameters go on changing while other
    tasks train, so the score of a task that stopped still moves: `keep_best: task` keeps each task's own best, where
    nothing is shared.

    Args:
        inner: gives the rates.
        patience: evaluations, from 1.
        threshold: how much better counts as better, from 0.

    Relations: early stopping (Prechelt, 1998), task by task.
    """

    learns = True

    def __init__(self, inner: Sampler, patience: int, threshold: float = 0.0):
        super().__init__(inner)
        wrong = []
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            wrong.append(f"stop_tasks: `patience` is a number of evaluations from 1, found {patience!r}")
        if not threshold >= 0:
            wrong.append(f"stop_tasks: `threshold` is at least 0, found {threshold}")
        if wrong:
            raise ConfigError(wrong)
        self.patience, self.threshold, self._changes = patience, threshold, 0

    @property
    def version(self) -> int:  # type: ignore[override]
        """Another one when either learned."""
        return self.inner.version + self._changes

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes)
        self.decisions, self._best, self._waited = Decisions(), dict[str, float](), dict.fromkeys(self.tasks, 0)
        self._changes += 1

    def mask(self, at: Progress) -> np.ndarray:
        """[tasks]: those that go on; all of them when all have stopped, for the steps that were drawn already."""
        found = self.decisions.at(at.done)
        return np.ones(len(self.tasks)) if found is None or not found.any() else found

    def observe_scores(self, step: int, scores: Mapping[str, tuple[float, bool]]) -> None:
        """Stop those that wait for too long."""
        super().observe_scores(step, scores)
        before = self.stopped
        for task in self.tasks:
            if task not in scores or task in before:
                continue
            score, higher = scores[task]
            if score != score:  # nothing was measured
                continue
            gain = score if higher else -score
            if task not in self._best or gain > self._best[task] + self.threshold:
                self._best[task], self._waited[task] = gain, 0
            else:
                self._waited[task] += 1
        if self.stopped != before:
            self.decisions.add(step - 1 + AHEAD, np.array([float(task not in self.stopped) for task in self.tasks]))
            self._changes += 1

    @property
    def stopped(self) -> list[str]:
        """Tasks that get no more rows."""
        return [task for task in self.tasks if self._waited[task] >= self.patience]

    @property
    def finished(self) -> bool:
        """Whether all tasks have stopped."""
        return len(self.stopped) == len(self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """Bests, waits and decisions, and the other one's state."""
        own = {"best": dict(self._best), "waited": dict(self._waited), "decisions": self.decisions.state()}
        return {"inner": self.inner.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.inner.load_state_dict(state["inner"])
        self._best, self._waited = dict(state["best"]), dict(state["waited"])
        self.decisions.load(state["decisions"])
        self._changes += 1


def _twice(names: Sequence[str]) -> set[str]:
    return {name for name in names if list(names).count(name) > 1}
