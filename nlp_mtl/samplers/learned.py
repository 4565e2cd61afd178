"""Samplers that learn their rates from losses or scores.

Rates change at boundaries only. What was decided after step k holds from step k + 2 on: the loader is one batch ahead.
All decisions are kept, so that the plan of steps that were made stays what it was, also in a resumed run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import samplers
from nlp_mtl.samplers.base import Progress, Sampler
from nlp_mtl.steps import StepRecord

AHEAD = 2  # steps that may have been drawn when one is done, and that one


class Decisions:
    """What was decided, and from which step on it holds.

    Example:
        >>> decisions = Decisions()
        >>> decisions.add(4, np.array([1.0, 3.0]))
        >>> decisions.at(3) is None, decisions.at(4).tolist()
        (True, [1.0, 3.0])
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[np.ndarray] = []

    def add(self, step: int, value: np.ndarray) -> None:
        """From `step` on, this holds."""
        self.steps.append(step)
        self.values.append(np.asarray(value, dtype=float))

    def at(self, step: int) -> np.ndarray | None:
        """What holds at a step; None for nothing yet."""
        place = int(np.searchsorted(self.steps, step, side="right")) - 1
        return None if place < 0 else self.values[place]

    def state(self) -> dict[str, Any]:
        """Plain lists."""
        return {"steps": list(self.steps), "values": [value.tolist() for value in self.values]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.steps, self.values = list(state["steps"]), [np.array(value) for value in state["values"]]


class LearnedSampler(Sampler):
    """Base: proportional until the first decision; then shares that are learned, none below its floor.

    Args:
        every: optimizer steps between two decisions, at least 1.
        floor: the part of the rows that all tasks get alike whatever is learned, from 0 to 1: of 5 tasks with 0.1, each
            has a fiftieth at least.
        epoch, caps: see :class:`nlp_mtl.samplers.Sampler`.
    """

    learns = True

    def __init__(
        self, every: int = 50, floor: float = 0.1, *, epoch: Any = "all", caps: Mapping[str, int] | None = None
    ):
        super().__init__(epoch=epoch, caps=caps)
        wrong = []
        name = getattr(type(self), "registered_as", type(self).__name__)
        if every < 1:
            wrong.append(f"sampler {name!r}: `every` is at least 1, found {every}")
        if not 0 <= floor <= 1:
            wrong.append(f"sampler {name!r}: `floor` is from 0 to 1, found {floor}")
        if wrong:
            raise ConfigError(wrong)
        self.every, self.floor = every, floor

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes)
        self.decisions, count = Decisions(), len(self.tasks)
        self._sum, self._seen, self._before = np.zeros(count), np.zeros(count), np.full(count, np.nan)
        self.version += 1

    def rates(self, at: Progress) -> np.ndarray:
        """[tasks]: as decided, or the tasks' sizes; with the floor."""
        found = self.decisions.at(at.done)
        shares = self.sizes / self.sizes.sum() if found is None else found
        return (1 - self.floor) * shares + self.floor / len(shares)

    def observe(self, record: StepRecord, tasks: Sequence[str]) -> None:
        """Add up losses; decide after each `every` steps."""
        place = [list(tasks).index(task) for task in self.tasks]
        losses = record.losses.numpy()[place]
        here = np.isfinite(losses)
        self._sum += np.where(here, losses, 0.0)
        self._seen += here
        if (record.step + 1) % self.every == 0:
            means = np.where(self._seen > 0, self._sum / np.maximum(self._seen, 1), np.nan)
            self._decided(record.step, self.decide(self._before, means))
            self._before = np.where(np.isfinite(means), means, self._before)
            self._sum, self._seen = np.zeros_like(self._sum), np.zeros_like(self._seen)

    def _decided(self, step: int, shares: np.ndarray | None) -> None:
        if shares is not None:
            self.decisions.add(step + AHEAD, shares / shares.sum())
            self.version += 1

    def decide(self, before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
        """[tasks]: shares, or None; from mean losses of the stretch before and of this one, NaN where unknown."""
        return None

    def shares(self) -> dict[str, float]:
        """The shares that were decided last, with the floor."""
        if not self.decisions.values:
            return {}
        found = (1 - self.floor) * self.decisions.values[-1] + self.floor / len(self.tasks)
        return dict(zip(self.tasks, found.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All decisions, and the losses of this stretch."""
        own = {"sum": self._sum.tolist(), "seen": self._seen.tolist(), "before": self._before.tolist()}
        return {"decisions": self.decisions.state(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.decisions.load(state["decisions"])
        self._sum, self._seen, self._before = (np.array(state[key], dtype=float) for key in ("sum", "seen", "before"))
        self.version += 1


@samplers.register("learning_progress")
class LearningProgress(LearnedSampler):
    """More rows for tasks whose loss changes most, up or down: those that learn, and those that are forgotten.

    The share is a softmax over the relative changes |after / before − 1| of the mean loss, from stretch to stretch.

    Args:
        every, floor: see :class:`LearnedSampler`.
        temperature: of the softmax, above 0; low is greedy.

    Relations: teacher–student curriculum learning with the absolute slope; `bandit` rewards falling losses only, and
    remembers.
    """

    paper = "Matiisen et al., 2017, arXiv:1707.00183"

    def __init__(
        self,
        every: int = 50,
        floor: float = 0.1,
        temperature: float = 0.1,
        *,
        epoch: Any = "all",
        caps: Mapping[str, int] | None = None,
    ):
        super().__init__(every, floor, epoch=epoch, caps=caps)
        if not temperature > 0:
            raise ConfigError(f"sampler 'learning_progress': `temperature` is above 0, found {temperature}")
        self.temperature = temperature

    def decide(self, before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
        """See :meth:`LearnedSampler.decide`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            change = np.abs(now / before - 1)
        if not np.isfinite(change).any():
            return None
        change = np.where(np.isfinite(change), change, np.nanmean(np.where(np.isfinite(change), change, np.nan)))
        raised = np.exp((change - change.max()) / self.temperature)
        return raised / raised.sum()


@samplers.register("bandit")
class Bandit(LearnedSampler):
    """Exp3 over tasks: a task whose loss falls is rewarded, and gets more rows while it pays.

    The reward is the relative fall of the mean loss from stretch to stretch, scaled to −1 … 1 between the fifth lowest
    and the fifth highest of the rewards so far. A mixed batch pulls every arm, each by its share, so that the expected
    update needs no draw.

    Args:
        every, floor: see :class:`LearnedSampler`; the floor is the exploration.
        eta: how fast the weights move, above 0.

    Relations: Graves et al. draw one task at a time; `learning_progress` looks at the last stretch only.
    """

    paper = "Graves et al., 2017, arXiv:1704.03003"

    def __init__(
        self,
        every: int = 50,
        floor: float = 0.1,
        eta: float = 0.3,
        *,
        epoch: Any = "all",
        caps: Mapping[str, int] | None = None,
    ):
        super().__init__(every, floor, epoch=epoch, caps=caps)
        if not eta > 0:
            raise ConfigError(f"sampler 'bandit': `eta` is above 0, found {eta}")
        self.eta = eta

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes)
        self._weights, self._rewards = np.log(self.sizes / self.sizes.sum()), list[float]()

    def decide(self, before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
        """See :meth:`LearnedSampler.decide`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            fall = 1 - now / before
        here = np.isfinite(fall)
        if not here.any():
            return None
        self._rewards += fall[here].tolist()
        low, high = np.quantile(self._rewards, [0.2, 0.8])
        scaled = np.clip(2 * (fall - low) / max(high - low, 1e-9) - 1, -1, 1)
        self._weights = self._weights + self.eta * np.where(here, scaled, 0.0)
        self._weights = self._weights - self._weights.max()
        return np.exp(self._weights) / np.exp(self._weights).sum()

    def state_dict(self) -> dict[str, Any]:
        """Weights and rewards besides."""
        return {**super().state_dict(), "weights": self._weights.tolist(), "rewards": list(self._rewards)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        super().load_state_dict(state)
        self._weights, self._rewards = np.array(state["weights"]), list(state["rewards"])


@samplers.register("by_reference")
class ByReference(LearnedSampler):
    """More rows for tasks that are far from what they reach alone.

    After each evaluation a task's share is how far its first metric is below its single-task reference, relative to
    that; a task at or above its reference keeps the floor.

    Args:
        references: task → the score of its first metric that it reaches trained alone, not 0; all tasks with training
            rows.
        floor: see :class:`LearnedSampler`.

    Relations: dynamic sampling of Gottumukkala et al.; the scores of `nlp-mtl compare` with `single` are references.
    """

    paper = "Gottumukkala et al., 2020, doi:10.18653/v1/2020.acl-main.86"

    def __init__(
        self,
        references: Mapping[str, float],
        floor: float = 0.1,
        *,
        epoch: Any = "all",
        caps: Mapping[str, int] | None = None,
    ):
        super().__init__(1, floor, epoch=epoch, caps=caps)
        bad = {task: value for task, value in references.items() if not value or not np.isfinite(value)}
        if bad or not references:
            raise ConfigError(f"sampler 'by_reference': `references` are scores other than 0, found {bad or 'none'}")
        self.references = dict(references)

    def named_tasks(self) -> list[str]:
        """The tasks in `references`."""
        return list(self.references)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Learn the tasks; every one needs a reference."""
        super().setup(tasks, sizes)
        missing = [task for task in tasks if task not in self.references]
        if missing:
            raise ConfigError(
                f"sampler 'by_reference': `references` leaves out {', '.join(missing)}; say its score too"
            )

    def observe_scores(self, step: int, scores: Mapping[str, tuple[float, bool]]) -> None:
        """Decide by how far each task is from its reference."""
        if not all(task in scores for task in self.tasks):
            return
        far = []
        for task in self.tasks:
            score, higher = scores[task]
            known = self.references[task]
            far.append(max(0.0, (known - score if higher else score - known) / abs(known)))
        shares = np.array(far)
        self._decided(step - 1, shares if shares.sum() > 0 else np.ones(len(shares)))
