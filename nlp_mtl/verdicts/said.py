"""The verdict on a run: did training together help each task?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.studies.statistics import Interval
from nlp_mtl.verdicts.judging import HELPED, HURT, LEAST_SEEDS, NOTHING, Difference

_SMALL = 0.02  # of a score: a difference that few would act on


@dataclass(frozen=True)
class TaskVerdict:
    """What is known of one task.

    Attributes:
        task: its name.
        metric: its first.
        better: whether more of it is better.
        own: the score of the run itself.
        interval: of that over rows, by bootstrap.
        together: the score of training together, the mean over seeds.
        alone: the twins' score, the mean over seeds.
        found: the difference, above 0 where training together is better.
        p: as it counts among all tasks (Holm).
        said: helped, hurt, no difference shown, or why it is not decidable.
        trivial: the score of a baseline that reads nothing; None without one.
        gap, gap_alone: training score less validation score, of the run and of the twins: how much it overfits.
        seeds: of the pairs.
    """

    task: str
    metric: str
    better: bool
    own: float
    interval: tuple[float, float]
    together: float
    alone: float
    found: Difference
    p: float
    said: str
    trivial: float | None
    gap: float
    gap_alone: float
    seeds: tuple[int, ...]

    @property
    def learned(self) -> bool:
        """Whether one side at least is above the baseline that reads nothing."""
        sign = 1 if self.better else -1
        return self.trivial is None or max(sign * self.together, sign * self.alone) > sign * self.trivial + 1e-9

    @property
    def wide(self) -> bool:
        """Whether its interval leaves room for more than two points either way."""
        return not math.isnan(self.found.half) and max(abs(self.found.low), abs(self.found.high)) > _SMALL

    def sentence(self) -> str:
        """The verdict in plain words."""
        by = f"{abs(self.found.mean):.3f}"
        seeds = len(self.seeds)
        if self.said == HELPED:
            return f"{self.task}: training together helped, {self.metric} is better by {by} over {seeds} seeds."
        if self.said == HURT:
            return f"{self.task}: training together hurt (negative transfer), {self.metric} is worse by {by}."
        if not self.learned:
            return (
                f"{self.task}: {self.said}, and nothing was learned: neither together nor alone is it above the "
                f"{self.trivial:.3f} of a baseline that reads nothing."
            )
        if self.said == NOTHING:
            least, most = self.found.low, self.found.high
            if least > 0 or most < 0:
                return (
                    f"{self.task}: no difference shown over {seeds} seeds: its own interval, {least:+.3f} to "
                    f"{most:+.3f}, leaves out 0, but with so many tasks one of them may do so by chance."
                )
            return (
                f"{self.task}: no difference shown over {seeds} seeds; it may lie between {least:+.3f} and {most:+.3f}."
            )
        return f"{self.task}: {self.said}; the difference seen is {self.found.mean:+.3f}."


@dataclass(frozen=True)
class Cost:
    """What was spent, for one seed.

    Attributes:
        seconds: of training; of all tasks alone, their sum.
        rows: shown; counted once for each task that reads them.
        peak: bytes at most, of the largest run; None where it is not known.
        parameters: trained; of all tasks alone, their sum.
    """

    seconds: float
    rows: int
    peak: int | None
    parameters: int


@dataclass(frozen=True)
class Verdicts:
    """The verdict on a run.

    Attributes:
        split: which rows.
        tasks: one for each task with a twin.
        left_out: task → why it has none.
        delta: Δm, per cent, over seeds; None without one that has all tasks.
        together, alone: cost of one model, and of one model for each task.
        same: what the twins have the same of: rows or steps.
        seeds: that were asked for.
        failed: runs that failed, and why.
        missing: how many runs are missing.
    """

    split: str
    tasks: list[TaskVerdict]
    left_out: dict[str, str]
    delta: Interval | None
    together: Cost | None
    alone: Cost | None
    same: str
    seeds: list[int]
    failed: dict[str, str] = field(default_factory=dict)
    missing: int = 0

    def advice(self) -> list[str]:
        """What to do next, from what was found; sentences."""
        by = {said: [one.task for one in self.tasks if one.said == said] for said in (HELPED, HURT)}
        undecided = [one for one in self.tasks if one.said not in (HELPED, HURT, NOTHING)]
        equal = [one for one in self.tasks if one.said == NOTHING and one.learned]
        told = []
        if undecided:
            need = max(LEAST_SEEDS, *(len(one.seeds) for one in undecided))
            told.append(
                f"Not decidable yet: {', '.join(one.task for one in undecided)}. Do {need} pairs of seeds: "
                f"nlp-mtl report RUN --baselines --seeds {need}."
            )
        if by[HURT]:
            told.append(
                f"Train {', '.join(by[HURT])} alone, or with fewer others (nlp-mtl groups says which); the rest may "
                "stay together."
            )
        if by[HELPED]:
            told.append(f"Keep training {', '.join(by[HELPED])} together with the others.")
        if narrow := [one.task for one in equal if not one.wide]:
            told.append(
                f"For {', '.join(narrow)} it makes no difference above {_SMALL:g}: one model is cheaper to keep."
            )
        if wide := [one for one in equal if one.wide]:
            named = ", ".join(f"{one.task} ({one.found.mean:+.3f})" for one in wide)
            more = max(len(one.seeds) for one in wide) + 2
            told.append(
                f"Still open: {named}. No difference shown is not no difference: more seeds (--seeds {more}) or more "
                "validation rows would tell."
            )
        if idle := [one.task for one in self.tasks if not one.learned]:
            told.append(f"Train longer, or on more rows, before asking about {', '.join(idle)}.")
        return told

    def sentences(self) -> list[str]:
        """All of it in plain words."""
        said = [one.sentence() for one in self.tasks]
        if self.delta is not None and not math.isnan(self.delta.mean):
            half = "" if math.isnan(self.delta.half) else f" ± {self.delta.half:.1f}"
            said.append(f"Δm, the mean relative change against tasks alone: {self.delta.mean:+.1f} %{half}.")
        if self.together and self.alone and self.alone.seconds:
            said.append(
                f"One model for {len(self.tasks)} tasks took {self.together.seconds:.0f} s of training; one for each "
                f"took {self.alone.seconds:.0f} s together."
            )
        said += self.advice()
        said += [f"{task} has no twin: {why}." for task, why in self.left_out.items()]
        said += [f"{what} failed: {why}" for what, why in self.failed.items()]
        if self.missing:
            said.append(f"{self.missing} runs are missing; the same command goes on.")
        return said

    def table(self) -> list[dict[str, str]]:
        """A row for each task, as text."""
        return [
            {
                "task": one.task,
                "metric": one.metric,
                "this run (95 % over rows)": f"{one.own:.3f} ({one.interval[0]:.3f} to {one.interval[1]:.3f})",
                "together": f"{one.together:.3f}",
                "alone": f"{one.alone:.3f}",
                "difference": str(one.found),
                "p (Holm)": "—" if math.isnan(one.p) else f"{one.p:.3f}",
                "verdict": "hurt (negative transfer)" if one.said == HURT else one.said,
                "gap": _gap(one.gap),
                "gap alone": _gap(one.gap_alone),
            }
            for one in self.tasks
        ]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "split": self.split,
            "same": self.same,
            "seeds": self.seeds,
            "tasks": {
                one.task: {
                    "metric": one.metric,
                    "greater_is_better": one.better,
                    "own": _number(one.own),
                    "interval": [_number(end) for end in one.interval],
                    "together": _number(one.together),
                    "trivial": None if one.trivial is None else _number(one.trivial),
                    "alone": _number(one.alone),
                    "difference": _number(one.found.mean),
                    "half": _number(one.found.half),
                    "rows_half": _number(one.found.rows_half),
                    "each": [_number(value) for value in one.found.each],
                    "p": _number(one.found.p),
                    "p_holm": _number(one.p),
                    "verdict": one.said,
                    "gap": _number(one.gap),
                    "gap_alone": _number(one.gap_alone),
                    "seeds": list(one.seeds),
                    "rows": one.found.rows,
                }
                for one in self.tasks
            },
            "delta_m": None
            if self.delta is None
            else {"mean": _number(self.delta.mean), "half": _number(self.delta.half), "count": self.delta.count},
            "cost": {
                name: None if cost is None else vars(cost)
                for name, cost in (("together", self.together), ("alone", self.alone))
            },
            "left_out": self.left_out,
            "failed": self.failed,
            "missing": self.missing,
            "advice": self.advice(),
        }


def _number(value: float) -> float | None:
    return None if math.isnan(value) or math.isinf(value) else round(value, 6)


def _gap(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:+.3f}"
