"""Finalists and controls, with several seeds, scored on rows that the search never looked at."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.checkpoint import drop_weights
from nlp_mtl.searching.choosing import alone, grouped, helped, together
from nlp_mtl.searching.plan import Plan
from nlp_mtl.searching.trials import Trial, fingerprint, scores_of, way_of
from nlp_mtl.searching.ways import Choice, Way
from nlp_mtl.studies.running import run_missing
from nlp_mtl.studies.study import PlannedRun, folder_name
from nlp_mtl.taskgroups.proposal import Group

logger = logging.getLogger("nlp_mtl")
HELD_OUT = "held_out.json"
ALL_TOGETHER, RANDOM_GROUPS, AS_GIVEN = "all together", "random groups", "the run as given"
NO_HELPERS, LONGER, RANDOM_HELPERS = "no helpers", "no helpers, as many rows", "random helpers"
_SALT = 7919
_OF_SEVERAL = ("sharing", "tree", "balancer", "sampler", "groups")  # they did nothing where each task was alone


@dataclass
class Final:
    """A way with several seeds.

    Attributes:
        name: e.g. ``trial 3``, or a control's.
        choices: seed → what was done; of random controls each its own.
        models: encoders at the end.
        rows: training rows shown in one training.
        selecting: seed → task → score on the half that selects.
        held_out: seed → task → score on the other half.
        failed: seed → why.
        times: how many times the run file's epochs, or steps, are done.
    """

    name: str
    choices: dict[int, Choice]
    models: int
    rows: int
    selecting: dict[int, dict[str, float]] = field(default_factory=dict)
    held_out: dict[int, dict[str, float]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    times: float = 1.0


Make = Callable[[int], tuple[Choice, float]]


def best_trials(plan: Plan, trials: Sequence[Trial]) -> list[Trial]:
    """The finalists: the best of the trials that came to an end."""
    done = [trial for trial in trials if trial.state == "done" and trial.choice is not None]
    return sorted(done, key=lambda trial: (-float(trial.score or 0.0), trial.number))[: plan.file.finalists]


def do_finals(plan: Plan, ways: Mapping[str, Make], folder: Path) -> tuple[dict[str, Final], bool]:
    """Train ways with all seeds, as far as that is not done, and score them on the held-out half.

    Args:
        plan: of the search.
        ways: name → seed → what is chosen, and how many times the run file's epochs it does.
        folder: of their runs.

    Returns:
        What they came to, and whether Ctrl-C ended it.
    """
    found: dict[str, Final] = {}
    planned: list[tuple[Final, PlannedRun, Way]] = []
    for seed in plan.file.seeds:
        for name, make in ways.items():
            choice, times = make(seed)
            place = folder / folder_name(name) / f"seed-{seed}"
            way = way_of(plan, choice, seed, place, times=times)
            final = found.setdefault(name, Final(name, {}, way.models, way.rows))
            final.choices.setdefault(seed, choice)
            final.times = times
            planned.append((final, PlannedRun(name, seed, place, way.keys), way))
    outcomes, stopped = run_missing([run for _, run, _ in planned])
    of_run = {outcome.run.folder: outcome for outcome in outcomes}
    for final, run, way in planned:
        outcome = of_run.get(run.folder)
        if outcome is None:
            continue
        if outcome.metrics is None:
            final.failed[run.seed] = outcome.error
            continue
        final.selecting[run.seed] = scores_of(plan, run.folder, way)
        final.held_out[run.seed] = _held_out(plan, run.folder, way)
    return found, stopped


def _held_out(plan: Plan, folder: Path, way: Way) -> dict[str, float]:
    """Scores on the half that nothing was selected by, kept beside the run."""
    file = folder / HELD_OUT
    if not file.is_file():
        from nlp_mtl.run import evaluate

        scores: dict[str, float] = {}
        base = way.keys["model"] if Path(way.keys["model"]).is_dir() else None  # folders know it by its id only
        for place in dict.fromkeys(way.serves.values()):
            tasks = [task for task in plan.judged if way.serves[task] == place]
            if tasks:
                found = evaluate(folder / place, "test", tasks=tasks, base=base)
                scores |= {task: float(found[task].metrics[plan.first[task][0]]) for task in tasks}
        write_text(file, json.dumps(scores, indent=1) + "\n")
    known = json.loads(file.read_text(encoding="utf-8"))
    return {task: known[task] for task in plan.judged}


def winner_of(plan: Plan, finals: dict[str, Final]) -> Final | None:
    """The finalist with the best mean over seeds on the selecting half; None if none came to an end."""
    done = [final for final in finals.values() if final.selecting]

    def order(final: Final) -> tuple[float, int, int]:
        score = float(np.mean([plan.score(one) for one in final.selecting.values()]))
        return round(score, 9), -final.models, -final.rows  # of equals, what costs less

    return max(done, key=order, default=None)


def controls_of(plan: Plan, winner: Choice) -> dict[str, Make]:
    """What the winner is compared with: the same settings without what the search found, with as many rows shown.

    Grouped tasks: all together, and random groups of the same sizes. A target: no helpers (its own rows as often), the
    same with as many rows shown in all, and as many random helpers. Else: the run file as it is. What the winner is
    itself is left out.
    """
    base = way_of(plan, winner, 0, Path("."))
    made: dict[str, Make] = {}

    def add(name: str, make: Callable[[int], Choice], same_rows: bool = True) -> None:
        def of(seed: int) -> tuple[Choice, float]:
            choice = make(seed)
            plain = way_of(plan, choice, 0, Path("."))
            return choice, base.rows / plain.rows if same_rows else 1.0

        choice, times = of(plan.file.seeds[0])
        same = fingerprint(way_of(plan, choice, 0, Path("."), times=times).keys) == fingerprint(base.keys)
        if not same:
            made[name] = of

    if plan.target is not None:
        target = plan.target
        lone = Choice(alone([target]), changes=winner.changes)
        add(NO_HELPERS, lambda seed: lone, same_rows=False)
        count = len(winner.groups[0].helpers)
        if count:
            add(LONGER, lambda seed: lone)
        add(RANDOM_HELPERS, lambda seed: _random_helpers(plan, winner, count or plan.file.helpers, seed))
        return made
    if "grouping" in plan.space or "strategy" in plan.space:
        apart = all(len(group.tasks) == 1 for group in winner.groups)
        kept = {
            key: value for key, value in winner.changes.items() if not apart or key.split(".")[0] not in _OF_SEVERAL
        }
        joint = Choice(together(list(plan.items)), changes=kept)
        add(ALL_TOGETHER, lambda seed: joint)
    if "grouping" in plan.space and len(plan.items) > 2:
        add(
            RANDOM_GROUPS,
            lambda seed: Choice(random_groups(plan, winner.groups, seed), winner.strategy, winner.changes),
        )
    if "grouping" not in plan.space:
        add(AS_GIVEN, lambda seed: Choice(together(list(plan.items))))
    return made


def _random_helpers(plan: Plan, winner: Choice, count: int, seed: int) -> Choice:
    draw, own = random.Random(_SALT * (seed + 1)), set(winner.groups[0].helpers)
    count = min(count, len(plan.helpers))
    chosen = draw.sample(list(plan.helpers), count)
    while set(chosen) == own and count < len(plan.helpers):
        chosen = draw.sample(list(plan.helpers), count)
    listed = [task for task in plan.items if task in chosen]
    return Choice(helped(str(plan.target), listed), winner.strategy, winner.changes)


def random_groups(plan: Plan, groups: Sequence[Group], seed: int) -> tuple[Group, ...]:
    """The same groups with tasks' names dealt anew; into `encoders` groups where there is one, or each is alone.

    They are not the groups themselves, unless there are no others.
    """
    tasks, draw = list(plan.items), random.Random(_SALT * (seed + 1))
    many = max(2, min(plan.file.encoders, len(tasks) - 1))
    if not 1 < len(groups) < len(tasks):
        groups = grouped([tasks[number::many] for number in range(many)])
    known = {frozenset(group.tasks) for group in groups}
    made = groups
    for _ in range(20):
        dealt = dict(zip(tasks, draw.sample(tasks, len(tasks)), strict=True))
        made = tuple(
            Group(
                tuple(sorted(map(dealt.__getitem__, group.tasks), key=tasks.index)),
                tuple(sorted(map(dealt.__getitem__, group.serves), key=tasks.index)),
            )
            for group in groups
        )
        if {frozenset(group.tasks) for group in made} != known:
            break
    return tuple(sorted(made, key=lambda group: tasks.index(group.serves[0])))


def tidy(folder: Path, keep: str) -> None:
    """Forget the weights of all finals but the winner's.

    Args:
        folder: of the finals.
        keep: the winner's folder in it.
    """
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.name != keep:
            drop_weights(place)
