"""Twins: each task of a run trained by itself, with the same encoder, budget, checkpoint rule and seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError, near
from nlp_mtl.recording import recorded
from nlp_mtl.studies.study import PlannedRun, one_by_one
from nlp_mtl.tasks import load_tasks
from nlp_mtl.verdicts.scored import has_weights, scored_rows

Same = Literal["rows", "steps"]
TOGETHER, ALONE, FOLDER = "together", "alone", "baselines"
# what a task alone has no use for; and what would make its twin another experiment
_OF_SEVERAL = (
    "balancer",
    "sampler",
    "groups",
    "task_rates",
    "sharing",
    "tree",
    "train_tasks",
    "stop_tasks",
    "keep_best",
    "cosines_every",
)
_NO_TWIN = ("stages", "init_from", "distillation", "pseudo_labels", "importance_weighting")
_STEPS = ("eval_steps", "save_steps", "logging_steps", "warmup_steps")


@dataclass(frozen=True)
class Shown:
    """What a finished run showed of its tasks.

    Attributes:
        folder: the run's.
        keys: its run file, paths told from here.
        seed: its seed.
        steps: optimizer steps.
        rows: task → how many times a row of it was shown.
        train: task → how many labelled training rows it has.
        seconds: of training.
        evaluations: at how many steps it was evaluated.
    """

    folder: Path
    keys: dict[str, Any]
    seed: int
    steps: int
    rows: dict[str, int]
    train: dict[str, int]
    seconds: float
    evaluations: int = 1


def shown(folder: str | Path) -> Shown:
    """What a finished run showed of its tasks, from its folder.

    Raises:
        RunFolderError: no finished run.
        UnsupportedError: one that has no twins: a run in stages, or that starts from another.
    """
    place = Path(folder)
    metrics = json.loads(checked_metrics(place).read_text(encoding="utf-8"))
    keys = recorded(place)
    if has := [key for key in _NO_TWIN if keys.get(key)]:
        raise UnsupportedError(
            f"{folder}: a twin is a task trained alone with the same budget, and this run has {', '.join(has)}, which "
            "a task alone can't have in the same way; compare ways in a study: nlp-mtl compare STUDY.yaml"
        )
    rows: dict[str, int] = {}
    steps, evaluated = 0, set()
    for entry in metrics["log"]:
        steps = max(steps, int(entry.get("step", 0)))
        if any(key.startswith("eval_") for key in entry):
            evaluated.add(entry.get("step", 0))
        for key, value in entry.items():
            if key.startswith("rows_"):
                task = key.removeprefix("rows_")
                rows[task] = rows.get(task, 0) + int(value)
    train = {task: facts["train"].get("labelled", 0) for task, facts in metrics["data"].items() if facts.get("train")}
    seed = int((keys.get("training") or {}).get("seed", 42))
    return Shown(place, keys, seed, steps, rows, train, float(metrics["training_seconds"]), max(1, len(evaluated)))


def checked_metrics(folder: Path) -> Path:
    """The ``metrics.json`` of a run folder.

    Raises:
        RunFolderError: it is not there.
    """
    file = folder / "metrics.json"
    if not file.is_file():
        raise RunFolderError(f"{folder}: no finished run (metrics.json is not there); train it, or go on with --resume")
    return file


def tasks_with_twins(run: Shown, tasks: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """The tasks that can be trained alone, and why the others can't.

    Args:
        run: the run.
        tasks: only these.

    Raises:
        ConfigError: tasks that the run has not.
    """
    names = load_tasks(run.keys["tasks"], registry=run.keys.get("registry") or ())
    if unknown := [task for task in tasks or () if task not in {task.name for task in names}]:
        known = [task.name for task in names]
        raise ConfigError([f"report: --tasks: the run has no task {task!r}{near(task, known)}" for task in unknown])
    trained = run.keys.get("train_tasks")
    found, left = [], {}
    for task in names:
        if tasks and task.name not in tasks:
            continue
        if task.head_key != task.name:
            left[task.name] = f"it has no head of its own, but that of {task.head_key}"
        elif not run.rows.get(task.name) or not run.train.get(task.name) or (trained and task.name not in trained):
            left[task.name] = "the run did not train on rows of it"
        else:
            found.append(task.name)
    return found, left


def twin_keys(run: Shown, task: str, *, same: Same = "rows") -> dict[str, Any]:
    """The run file of a task alone.

    Args:
        run: the run.
        task: one that has a twin.
        same: ``rows``: it sees the rows of its task as often as the run showed them, so it does fewer steps; ``steps``:
            it does as many steps, so it sees them more often. Steps that are counted (evaluations, warm-up) shrink
            with its number of steps, so that there are as many of them; so there are of evaluations after each epoch,
            whatever the twin's epochs: the best of many checkpoints looks better than the best of few.

    What is trained is of the same kind: a run with an adapter per task has twins with one adapter. A rule for the best
    checkpoint that is about another task can't be theirs; they go by the task's own skill.
    """
    keys = {key: value for key, value in run.keys.items() if key not in _OF_SEVERAL}
    names = [one.name for one in load_tasks(run.keys["tasks"], registry=run.keys.get("registry") or ())]
    keys["tasks"] = [one_by_one({**run.keys, "tasks": _listed(run.keys["tasks"])})[names.index(task)]]
    for key in ("heads", "learning_rates"):
        if isinstance(keys.get(key), Mapping):
            keys[key] = {name: value for name, value in keys[key].items() if name == task or name not in names}
    keys = {key: value for key, value in keys.items() if value not in ({}, [])}
    training = dict(keys.get("training") or {})
    if same == "rows":
        share = run.rows[task] / sum(run.rows.values())
        training.pop("max_steps", None)
        training["num_train_epochs"] = round(run.rows[task] / run.train[task], 6)
        for key in _STEPS:
            value = training.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1:
                training[key] = max(1, round(value * share))
    else:
        training["max_steps"] = run.steps
    _as_often_evaluated(run, task, training, same)
    best = str(training.get("metric_for_best_model") or "").removeprefix("eval_")
    if any(best.startswith(f"{name}_") for name in names if name != task) and not best.startswith(f"{task}_"):
        training.pop("metric_for_best_model")
        training.pop("greater_is_better", None)
    training.pop("run_name", None)
    training.pop("push_to_hub", None)
    return {**keys, "training": training}


def _as_often_evaluated(run: Shown, task: str, training: dict[str, Any], same: Same) -> None:
    if training.get("eval_strategy", "epoch") != "epoch":
        return
    total, own = sum(run.rows.values()), run.train[task]
    epochs = (run.rows[task] if same == "rows" else total) / own
    if math.ceil(round(epochs, 6)) == run.evaluations:
        return
    a_step = total / run.steps
    steps = run.steps if same == "steps" else math.ceil(epochs * math.ceil(own / a_step))
    every = max(1, steps // run.evaluations)
    training.update(eval_strategy="steps", eval_steps=every)
    if training.get("save_strategy", "epoch") == "epoch":
        training.update(save_strategy="steps", save_steps=every)


def _listed(tasks: Any) -> list[Any]:
    return list(tasks) if isinstance(tasks, list) else [tasks]


def planned(
    run: Shown,
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    same: Same = "rows",
    place: str | Path | None = None,
) -> list[PlannedRun]:
    """The runs that a verdict needs: for each seed the run itself, unless it has that seed, and each task alone.

    Args:
        run: the run.
        tasks: whose twins.
        seeds: of the pairs.
        same: see :func:`twin_keys`.
        place: the folder of all twins, of this run and others; default ``baselines`` beside the run.
    """
    base = Path(place) if place is not None else run.folder.resolve().parent / FOLDER
    found = []
    for seed in seeds:
        if seed != run.seed:
            found.append(_planned(TOGETHER, seed, base, dict(run.keys), "", run.folder.resolve().name))
        found += [_planned(ALONE, seed, base, twin_keys(run, task, same=same), task, task) for task in tasks]
    return found


def _planned(method: str, seed: int, base: Path, keys: dict[str, Any], task: str, name: str) -> PlannedRun:
    training = {key: value for key, value in (keys.get("training") or {}).items() if key not in ("seed", "output_dir")}
    said = json.dumps({**keys, "training": training}, sort_keys=True, default=str)
    place = base / f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}" / f"seed-{seed}"
    return PlannedRun(
        method, seed, place, {**keys, "training": {**training, "seed": seed, "output_dir": str(place)}}, task
    )


def hours(run: Shown, runs: Sequence[PlannedRun], *, same: Same = "rows") -> float:
    """About how long some of them take, by what the run took."""
    total = sum(run.rows.values()) or 1

    def one(planned: PlannedRun) -> float:
        if not planned.task or same == "steps":
            return run.seconds
        return run.seconds * run.rows[planned.task] / total

    return sum(one(planned) for planned in runs) / 3600


def is_done(planned: PlannedRun) -> bool:
    """Whether its scores are there, and those of its rows, or the weights that give them."""
    return (planned.folder / "metrics.json").is_file() and (
        has_weights(planned.folder) or scored_rows(planned.folder, only_known=True) is not None
    )
