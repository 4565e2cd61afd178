"""A run in stages: each is an ordinary run in a folder of its own, and starts where the one before ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint, config
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.stageplan import Stage, stages_of
from nlp_mtl.tasks import load_tasks

logger = logging.getLogger("nlp_mtl")
Train = Callable[..., Any]


def train_stages(
    settings: config.RunConfig, folder: Path, train: Train, finished: Train, *, resume: bool, main: bool
) -> list[Any]:
    """Do what is missing of a run's stages.

    A stage that is done is not done again; the one that was cut off goes on from its newest whole checkpoint, or begins
    again from the stage before if it has none.

    Args:
        settings: the whole run file.
        folder: the run's.
        train: trains one run: ``train(keys, resume=…, overwrite=…)`` gives a :class:`nlp_mtl.run.Run`.
        finished: gives the same of a folder in which one is done: ``finished(folder, model)``.
        resume: the run is gone on with.
        main: whether this process writes.

    Returns:
        What the last stage came to, a run for each of its folders; if it was stopped, what it was stopped in alone.
    """
    stages = stages_of(keys_of(settings))
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(folder / checkpoint.STAGES, json.dumps(listed(stages), indent=1, ensure_ascii=False))
    for number, stage in enumerate(stages):
        last, runs = number + 1 == len(stages), []
        for place, keys in _runs(stages, stage, folder):
            if resume and (place / "metrics.json").is_file():
                logger.info("stage %d of %d: %s is done", number + 1, len(stages), place.relative_to(folder))
                if last:
                    runs.append(finished(place, keys["model"]))
                continue
            logger.info("stage %d of %d: %s", number + 1, len(stages), place.relative_to(folder))
            goes_on = resume and bool(checkpoint.checkpoints(place))
            run = train(keys, resume=goes_on, overwrite=checkpoint.holds_run(place) and not goes_on)
            runs.append(run)
            if run.stopped:
                return [run]
    return runs


def first_stage(settings: config.RunConfig, folder: Path) -> dict[str, Any]:
    """The run file of the first training."""
    stages = stages_of(keys_of(settings))
    return _runs(stages, stages[0], folder)[0][1]


def keys_of(settings: config.RunConfig) -> dict[str, Any]:
    """A run file's keys that say something, tasks as they were given."""
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def listed(stages: list[Stage]) -> dict[str, Any]:
    """What ``stages.json`` says."""
    return {
        "format": checkpoint.FORMAT,
        "stages": [
            {"name": stage.name, "folder": stage.folder, "each": stage.each, "tasks": _names(stage.keys["tasks"])}
            for stage in stages
        ],
    }


def _names(tasks: Any) -> list[str]:
    named = [task.get("name") if isinstance(task, Mapping) else getattr(task, "name", task) for task in tasks]
    return [Path(str(name)).stem if str(name).endswith((".yaml", ".yml")) else str(name) for name in named]


def _runs(stages: list[Stage], stage: Stage, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of a stage and the run file of each."""
    keys = dict(stage.keys)
    if stage.after is not None:
        start = str(folder / stages[stage.after].folder)
        keys["init_from"] = {**stage.start, "run": start} if stage.start else start
    if taught := keys.get("distillation"):
        earlier = {one.name: str(folder / one.folder) for one in stages[: stages.index(stage)]}
        keys["distillation"] = [_taught(one, earlier) for one in (taught if isinstance(taught, list) else [taught])]
    place = folder / stage.folder
    parts = [(place, keys)]
    if stage.each:
        given = keys["tasks"] if isinstance(keys["tasks"], list) else [keys["tasks"]]
        tasks = load_tasks(given, registry=keys.get("registry") or ())
        parts = [(place / task.name, {**keys, "tasks": [task]}) for task in tasks]
    for where, said in parts:
        said["training"] = {**(said.get("training") or {}), "output_dir": str(where)}
    return parts


def _taught(one: Any, earlier: Mapping[str, str]) -> Any:
    """An entry of `distillation` whose teacher may be an earlier stage, by its name."""
    teacher = one.get("teacher") if isinstance(one, Mapping) else None
    return {**one, "teacher": earlier[teacher]} if isinstance(teacher, str) and teacher in earlier else one


def whole_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a run in stages: the scores of the last one, and the time and scores of all.

    Args:
        folder: the whole run's, where every stage is done.
    """
    stages = json.loads((folder / checkpoint.STAGES).read_text(encoding="utf-8"))["stages"]
    of_stages: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {"training_seconds": 0.0, "trainable_parameters": 0}
    for number, stage in enumerate(stages):
        place = folder / stage["folder"]
        files = sorted(place.glob("*/metrics.json" if stage["each"] else "metrics.json"))
        scores = of_stages.setdefault(stage["name"], {})
        for part in [json.loads(file.read_text(encoding="utf-8")) for file in files]:
            first = {task: said["metric"] for task, said in part["first"].items() if said["metric"]}
            scores |= {task: part["validation"][task][metric] for task, metric in first.items()}
            whole["training_seconds"] = round(whole["training_seconds"] + part["training_seconds"], 1)
            if number + 1 == len(stages):
                whole["trainable_parameters"] += part["trainable_parameters"]
                for key in ("validation", "first", "trivial", "skill", "thresholds", "data"):
                    whole.setdefault(key, {}).update(part[key])
    return {**whole, "stages": of_stages}


def scores_in(metrics: Mapping[str, Any]) -> dict[str, TaskScores]:
    """Scores as ``metrics.json`` keeps them."""
    return {
        task: TaskScores(
            found,
            metrics["trivial"][task],
            int((metrics["data"].get(task, {}).get("validation") or {}).get("rows", 0)),
            None,
            metrics["first"][task]["higher_is_better"],
            thresholds=metrics["thresholds"].get(task, {}),
        )
        for task, found in metrics["validation"].items()
    }
