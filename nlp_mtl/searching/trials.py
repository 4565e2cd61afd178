"""The trials of a search, one after the other; those that are done are not done again."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.affinity import Affinity
from nlp_mtl.checkpoint import drop_weights
from nlp_mtl.errors import NlpMtlError
from nlp_mtl.searching.backend import optuna_here
from nlp_mtl.searching.choosing import choose, first_guess
from nlp_mtl.searching.plan import Plan
from nlp_mtl.searching.pruning import Reports, pruner_of
from nlp_mtl.searching.ways import Choice, Way, make_way
from nlp_mtl.studies.running import do_run
from nlp_mtl.studies.study import PlannedRun

logger = logging.getLogger("nlp_mtl")
STORAGE, STUDY = "trials.journal", "search"
REPEATS = 10  # so many trials in a row that were all done before: nothing new is left


@dataclass(frozen=True)
class Trial:
    """A trial that is over.

    Attributes:
        number: from 0.
        choice: what it did; None if its parameters made none.
        state: done, pruned, failed, or repeated (as an earlier one).
        score: on the selecting half; None if it failed or was pruned.
        scores: task → score there.
        rows: training rows shown.
        seconds: it took.
        curve: evaluation → score in training.
        why: it failed, or what it repeats.
    """

    number: int
    choice: Choice | None
    state: str
    score: float | None
    scores: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    curve: dict[int, float] = field(default_factory=dict)
    why: str = ""


def open_study(plan: Plan) -> Any:
    """The optuna study in a search's folder, made or read."""
    optuna = optuna_here()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(plan.folder / STORAGE)))
    how = {"direction": "maximize", "pruner": pruner_of(plan.file.pruning), "load_if_exists": True}
    return optuna.create_study(storage=storage, study_name=STUDY, **how)


def run_trials(plan: Plan, affinity: Affinity | None, spent: int = 0) -> tuple[list[Trial], bool]:
    """Do trials until the budget is spent.

    The sampler is seeded anew for each trial by the search's seed and the trial's number: what a trial takes follows
    from the trials before it, whether the search was interrupted or not. One that was cut off is gone on with.

    Args:
        plan: of the search.
        affinity: of the tasks, where it asks for it.
        spent: rows that were shown before, to measure it.

    Returns:
        All trials, and whether Ctrl-C ended it.
    """
    optuna = optuna_here()
    study = open_study(plan)
    if not study.trials and (guess := first_guess(plan, affinity)):
        study.enqueue_trial(guess)
    running = optuna.trial.TrialState.RUNNING
    while True:
        cut = [one for one in study.get_trials(deepcopy=False) if one.state == running]
        if not cut and _enough(plan, found := _trials(plan, study, affinity), spent):
            return found, False
        number = cut[0].number if cut else len([t for t in study.trials if t.state.name != "WAITING"])
        study.sampler = _sampler(plan, number)
        trial = optuna.Trial(study, cut[0]._trial_id) if cut else study.ask()
        try:
            stopped = _do(plan, study, trial, affinity)
        except KeyboardInterrupt:
            stopped = True
        if stopped:
            return _trials(plan, study, affinity), True


def _sampler(plan: Plan, number: int) -> Any:
    samplers = optuna_here().samplers
    seed = (plan.file.seed * 1_000_003 + number) % 2**31
    if plan.file.method == "random":
        return samplers.RandomSampler(seed=seed)
    return samplers.TPESampler(seed=seed, n_startup_trials=8)


def _do(plan: Plan, study: Any, trial: Any, affinity: Affinity | None) -> bool:
    """One trial; whether it was stopped."""
    began, state = time.monotonic(), optuna_here().trial.TrialState
    choice = choose(plan, trial, affinity)
    place = folder_of(plan, trial.number)
    try:
        way = way_of(plan, choice, plan.file.seed, place)
        did = fingerprint(way.keys)
        if (earlier := _same(study, did)) is not None:
            trial.set_user_attr("scores", earlier.user_attrs["scores"])
            trial.set_user_attr("repeats", earlier.number)
            if earlier.state == state.COMPLETE:
                study.tell(trial, earlier.value)
            else:
                study.tell(trial, state=earlier.state)
            return False
        trial.set_user_attr("did", did)
        logger.info("trial %d: %s", trial.number, choice.said())
        run = PlannedRun(f"trial {trial.number}", plan.file.seed, place, way.keys)
        reports = []
        if not way.keys.get("stages"):
            reports = [Reports(trial, plan.score, {task: plan.first[task][0] for task in plan.judged})]
        if do_run(run, reports):
            return True
        scores = scores_of(plan, place, way)
    except (NlpMtlError, RuntimeError, ValueError, OSError) as error:  # the others go on, and the search says which
        said = str(error) if isinstance(error, NlpMtlError) else f"{type(error).__name__}: {error}"
        logger.warning("trial %d failed: %s", trial.number, said.splitlines()[0])
        trial.set_user_attr("error", said)
        study.tell(trial, state=state.FAIL)
        return False
    pruned = bool(reports and reports[0].pruned)
    trial.set_user_attr("scores", scores)
    trial.set_user_attr("rows", round(way.rows * reports[0].done) if pruned else way.rows)
    trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
    value = plan.score(scores)
    if pruned or not math.isfinite(value):
        study.tell(trial, state=state.PRUNED if pruned else state.FAIL)
    else:
        study.tell(trial, value)
    logger.info("trial %d: %s", trial.number, "ended early" if pruned else f"{value:.4f}")
    drop_weights(place)
    return False


def folder_of(plan: Plan, number: int) -> Path:
    """A trial's folder."""
    return plan.folder / "trials" / f"{number:04d}"


def way_of(plan: Plan, choice: Choice, seed: int, place: Path, *, times: float = 1.0, halved: bool = True) -> Way:
    """A choice as the run file of one run.

    Args:
        plan: of the search.
        choice: what is chosen.
        seed: `training.seed`.
        place: the run's folder.
        times: how many times the run file's epochs or steps are done.
        halved: on half of the validation rows, which select.
    """
    items = plan.halved if halved else plan.items
    way = make_way(plan.keys, items, choice, plan.rows, times=times, best_by=plan.best_by)
    way.keys["training"] = {**(way.keys.get("training") or {}), "seed": seed, "output_dir": str(place)}
    return way


def scores_of(plan: Plan, place: Path, way: Way) -> dict[str, float]:
    """Task → its first metric on the selecting half, of a run that is done."""
    found = {}
    for task in plan.judged:
        metrics = json.loads((place / way.serves[task] / "metrics.json").read_text(encoding="utf-8"))
        found[task] = float(metrics["validation"][task][plan.first[task][0]])
    return found


def fingerprint(keys: Mapping[str, Any]) -> str:
    """What tells ways apart: all but where they are."""
    training = {key: said for key, said in (keys.get("training") or {}).items() if key not in ("output_dir", "seed")}
    return json.dumps({**keys, "training": training}, sort_keys=True, default=str)


def _same(study: Any, did: str) -> Any:
    """An earlier trial that did the same and came to an end."""
    known = [one for one in study.get_trials(deepcopy=False) if one.state.name in ("COMPLETE", "PRUNED")]
    return next((one for one in known if one.user_attrs.get("did") == did), None)


def _trials(plan: Plan, study: Any, affinity: Affinity | None) -> list[Trial]:
    fixed, found = optuna_here().trial.FixedTrial, []
    for one in study.get_trials(deepcopy=False):
        if not one.state.is_finished():
            continue
        attributes, choice = one.user_attrs, None
        try:
            choice = choose(plan, fixed(one.params), affinity)
        except ValueError:  # it was cut off before all was chosen
            logger.debug("trial %d has not all parameters", one.number)
        state = {"COMPLETE": "done", "PRUNED": "pruned"}.get(one.state.name, "failed")
        why = attributes.get("error", "")
        if "repeats" in attributes:
            state, why = "repeated", f"as trial {attributes['repeats']}"
        found.append(
            Trial(
                one.number,
                choice,
                state,
                float(one.value) if one.value is not None and one.state.name == "COMPLETE" else None,
                attributes.get("scores", {}),
                attributes.get("rows", 0),
                attributes.get("seconds", 0.0),
                dict(one.intermediate_values),
                why,
            )
        )
    return found


def _enough(plan: Plan, trials: list[Trial], spent: int) -> bool:
    budget, rows = plan.file.budget, spent + sum(trial.rows for trial in trials)
    whole = sum(plan.rows[task] for task in plan.items)
    due = [
        budget.trials is not None and len(trials) >= budget.trials,
        budget.rows is not None and rows >= budget.rows,
        budget.epochs is not None and rows >= budget.epochs * whole,
        budget.minutes is not None and sum(trial.seconds for trial in trials) >= 60 * budget.minutes,
        len(trials) >= REPEATS and all(trial.state in ("repeated", "failed") for trial in trials[-REPEATS:]),
    ]
    return any(due)


__all__ = ["STORAGE", "Trial", "fingerprint", "open_study", "run_trials", "scores_of", "way_of"]
