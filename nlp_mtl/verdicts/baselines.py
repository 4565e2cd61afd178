"""The runs that a verdict needs, done one after the other, within a budget; those that are done are not done again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nlp_mtl.checkpoint import drop_weights
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError
from nlp_mtl.studies.running import Outcome, run_missing
from nlp_mtl.studies.study import PlannedRun
from nlp_mtl.verdicts.scored import scored_rows
from nlp_mtl.verdicts.twins import Same, Shown, hours, is_done, planned, shown, tasks_with_twins

logger = logging.getLogger("nlp_mtl")


@dataclass(frozen=True)
class Plan:
    """What a verdict needs.

    Attributes:
        run: the run that it is about.
        tasks: those with twins.
        left_out: task → why it has none.
        seeds: of the pairs.
        runs: the run with other seeds, and each task alone.
        same: see :func:`nlp_mtl.verdicts.twins.twin_keys`.
    """

    run: Shown
    tasks: list[str]
    left_out: dict[str, str]
    seeds: list[int]
    runs: list[PlannedRun]
    same: Same = "rows"

    @property
    def missing(self) -> list[PlannedRun]:
        """Runs that are not done."""
        return [one for one in self.runs if not is_done(one)]

    @property
    def hours(self) -> float:
        """About how long these take, by what the run took."""
        return hours(self.run, self.missing, same=self.same)

    def sentence(self) -> str:
        """How many runs, and how long."""
        done = len(self.runs) - len(self.missing)
        known = f", {done} of them done already" if done else ""
        return (
            f"{len(self.runs)} runs{known}: {len(self.tasks)} tasks alone with "
            f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
            + (f", and all together with {len(self.seeds) - 1} more" if len(self.seeds) > 1 else "")
            + f"; about {_time(self.hours)} by what the run took"
        )


@dataclass(frozen=True)
class Baselines:
    """What was done of a plan.

    Attributes:
        plan: what was wanted.
        outcomes: of the runs that are done.
        failed: what failed, and why.
        stopped: whether Ctrl-C, or the budget, ended it before all were done.
    """

    plan: Plan
    outcomes: list[Outcome]
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def plan_of(
    folder: str | Path,
    *,
    seeds: Sequence[int] | int | None = None,
    tasks: Sequence[str] | None = None,
    same: Same = "rows",
    place: str | Path | None = None,
) -> Plan:
    """What a verdict on a run needs.

    Args:
        folder: of a finished run.
        seeds: how many pairs, or their seeds; the run's own is one of them. Default: that one alone.
        tasks: only these.
        same: see :func:`nlp_mtl.verdicts.twins.twin_keys`.
        place: see :func:`nlp_mtl.verdicts.twins.planned`.

    Raises:
        RunFolderError, UnsupportedError: see :func:`nlp_mtl.verdicts.twins.shown`.
        ConfigError: wrong seeds or tasks; a run without a task that could be trained alone.
    """
    if same not in ("rows", "steps"):
        raise ConfigError(f"report: `same` is rows or steps, found {same!r}")
    run = shown(folder)
    found, left = tasks_with_twins(run, tasks)
    if not found:
        why = "; ".join(f"{task}: {said}" for task, said in left.items())
        raise ConfigError(f"report: {folder} has no task that can be trained alone ({why})")
    wanted = _seeds(seeds, run.seed)
    made = Plan(run, found, left, wanted, planned(run, found, wanted, same=same, place=place), same)
    mistakes: dict[str, None] = {}
    for one in made.missing:
        try:
            load_config(one.keys)
        except ConfigError as error:
            mistakes |= dict.fromkeys(f"report: {one.task or 'all'} alone: {line}" for line in error.mistakes)
    if mistakes:
        raise ConfigError(list(mistakes))
    return made


def _seeds(seeds: Sequence[int] | int | None, own: int) -> list[int]:
    if seeds is None:
        return [own]
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or seeds < 1:
            raise ConfigError(f"report: `seeds` is how many pairs, from 1, or a list of seeds, found {seeds}")
        return [own, *[seed for seed in range(seeds) if seed != own][: seeds - 1]]
    if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in seeds):
        raise ConfigError(f"report: `seeds` are whole numbers from 0, found {list(seeds)}")
    return list(dict.fromkeys([own, *seeds]))


def do(
    plan: Plan,
    *,
    budget: float | None = None,
    splits: Sequence[str] = ("validation",),
    keep_weights: bool = False,
    data_root: str | Path | None = None,
) -> Baselines:
    """Do what is missing of a plan, seed by seed, and score each run's rows.

    Args:
        plan: what is wanted.
        budget: hours; no run is begun that would probably end after them.
        splits: to score.
        keep_weights: also keep the twins' models; else they are removed when their rows are scored.
        data_root: see :func:`nlp_mtl.run.evaluate`.

    Raises:
        ConfigError: a budget below 0.
    """
    if budget is not None and not budget >= 0:
        raise ConfigError(f"report: `budget` is hours from 0, found {budget!r}")
    outcomes: list[Outcome] = []
    failed: dict[str, str] = {}
    began, stopped = time.monotonic(), False
    missing = {id(one) for one in plan.missing}
    for number, one in enumerate(plan.runs):
        left = [later for later in plan.runs[number:] if id(later) in missing]
        used = (time.monotonic() - began) / 3600
        if id(one) in missing:
            one = replace(one, keys={**one.keys, "data_root": str(data_root)}) if data_root is not None else one
            (one.folder / "metrics.json").unlink(missing_ok=True)  # of one whose rows can't be scored any more
            if budget is not None and used + hours(plan.run, [one], same=plan.same) > budget:
                stopped = True
                continue
            what = f"{one.task} alone" if one.task else "all together"
            rest = hours(plan.run, left, same=plan.same)
            logger.info(
                "%d runs left, about %s; now %s, seed %d, in %s", len(left), _time(rest), what, one.seed, one.folder
            )
        found, cut = run_missing([one])
        if cut:
            return Baselines(plan, outcomes, failed, True)
        outcome = found[0]
        if outcome.metrics is None:
            failed[f"{one.task or 'all together'}, seed {one.seed}"] = outcome.error
            continue
        score(one.folder, splits, data_root)
        if not keep_weights:
            drop_weights(one.folder)
        outcomes.append(outcome)
    return Baselines(plan, outcomes, failed, stopped)


def score(folder: Path, splits: Sequence[str], data_root: str | Path | None) -> None:
    """Score a run's rows, before its weights may go."""
    for split in splits:
        scored_rows(folder, split, data_root=data_root, train_rows=500 if split == "validation" else 0)


def _time(hours_: float) -> str:
    if hours_ * 60 < 1:
        return "less than a minute"
    return f"{hours_ * 60:.0f} minutes" if hours_ < 2 else f"{hours_:.1f} hours"


def labelled_splits(metrics: dict[str, Any]) -> list[str]:
    """Splits on which every task of a run has labels: validation, and perhaps test."""
    found = ["validation"]
    if metrics["data"] and all((facts.get("test") or {}).get("labelled") for facts in metrics["data"].values()):
        found.append("test")
    return found
