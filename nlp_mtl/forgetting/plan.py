"""A study of learning tasks one after the other: its file, and the runs it makes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from nlp_mtl import config, registry
from nlp_mtl.distilspec import without_forgetting
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.replay import BY_ROWS, Replay, rows_met, with_rows
from nlp_mtl.runfiles import FROM_RUNS
from nlp_mtl.stageplan import stages_of
from nlp_mtl.studies.files import read_study
from nlp_mtl.studies.study import PlannedRun, folder_name
from nlp_mtl.tasks import load_tasks

JOINT, REPLAY, LWF = "joint", "replay", "lwf"


class ContinualStudy(BaseModel):
    """All keys of a study of continual learning."""

    model_config = ConfigDict(extra="forbid")

    run: str | dict[str, Any] = Field(
        description="a run file, or its keys; its `tasks` are learned one after the other, in this order"
    )
    methods: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="ways by a name of yours: keys of a run file that are changed; `replay: n`, n rows of each earlier "
        "task beside the new one's, or `replay: {total: n, how: reservoir}` of all; `lwf: {temperature: 2}`, "
        "what was said for earlier tasks before a stage, on the new task's rows; `joint: true`, all tasks at once",
    )
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [0, 1, 2], description="`training.seed` of each run of a way"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    output_dir: str = Field(default="runs/continual", description="folder of the runs and results")

    EXAMPLES: ClassVar[dict[str, str]] = {
        "run": "{model: bert-base-cased, tasks: [cola, mrpc, rte]}",
        "methods": "{naive: {}, replay: {replay: 50}, joint: {joint: true}}",
        "seeds": "[0, 1, 2]",
        "confidence": "0.95",
        "output_dir": "runs/continual",
    }


def load_continual(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[ContinualStudy, list[str], list[PlannedRun]]:
    """A study file, checked; the tasks in their order; and its runs in the order they are done.

    Args:
        source: the YAML file, or a mapping of its keys.
        overrides: ``key=value`` for keys of the run file, in all runs; `output_dir`, `seeds` and `confidence` are the
            study's.

    Raises:
        ConfigError: every mistake of the file, and of the run files it makes.
    """
    read = read_study(ContinualStudy, source, overrides, ("output_dir", "seeds", "confidence"))
    study, place = read.study, read.place
    whole = config.load_config(read.keys, read.rest).model_dump(exclude_unset=True)
    chosen = load_tasks(whole["tasks"], registry=whole.get("registry") or ())
    tasks = [task.name for task in chosen]
    if len(tasks) < 2 or len(tasks) != len(whole["tasks"]):
        raise ConfigError(
            f"{place}: `run.tasks` names two tasks or more, each by itself, found {len(tasks)} in "
            f"{len(whole['tasks'])} place(s); name every task of a tag"
        )
    counted = any(isinstance(method.get(REPLAY), Mapping) for method in study.methods.values())
    sizes = rows_met(chosen, whole.get("data_root")) if counted else None
    runs, mistakes = [], []
    for name, method in study.methods.items():
        for seed in study.seeds:
            where = Path(study.output_dir) / folder_name(name) / f"seed-{seed}"
            try:
                made = sequence(whole, tasks, method, where, seed, sizes)
                config.load_config(made)
            except ConfigError as error:
                mistakes += [f"{place}: {name!r}: {message.removeprefix('the run: ')}" for message in error.mistakes]
                break
            runs.append(PlannedRun(name, seed, where, made))
    if mistakes:
        raise ConfigError(mistakes)
    runs.sort(key=lambda run: study.seeds.index(run.seed))
    return study, tasks, runs


def sequence(
    keys: Mapping[str, Any],
    tasks: Sequence[str],
    method: Mapping[str, Any],
    folder: Path,
    seed: int,
    sizes: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The run file of one way: a stage for each task, in which it learns and all are scored.

    Args:
        keys: of the run file, tasks one by one.
        tasks: their names.
        method: see :class:`ContinualStudy`.
        folder: of the run.
        seed: of the training, and of a reservoir.
        sizes: training rows of each task, which a reservoir needs.

    Raises:
        ConfigError: wrong `replay`, `lwf` or `joint`; a balancer on earlier tasks' rows without any.

    Example:
        >>> made = sequence({"model": "m", "tasks": ["a", "b"]}, ["a", "b"], {"replay": 50}, Path("out"), 0)
        >>> made["stages"][1]["train_tasks"], made["stages"][1]["tasks"]
        (['a', 'b'], [{'name': 'a', 'rows': {'train': 50}}, 'b'])
    """
    joint, replay, mistakes = method.get(JOINT, False), Replay(), []
    try:
        replay = Replay.of(method.get(REPLAY, 0))
    except ConfigError as error:
        mistakes += error.mistakes
    if not isinstance(joint, bool) or (joint and replay):
        mistakes.append(f"`joint` is true or false, and goes without `replay`, found {joint!r}; leave one out")
    kept = method.get(LWF)
    if kept is not None:
        mistakes += _unfit(kept, tasks, whole_too=joint)
    if mistakes:
        raise ConfigError(mistakes)
    changes = {key: value for key, value in method.items() if key not in (REPLAY, JOINT, LWF)}
    training = {**(keys.get("training") or {}), **(changes.pop("training", None) or {})}
    whole: dict[str, Any] = {**keys, **changes, "training": {**training, "seed": seed, "output_dir": str(folder)}}
    given = whole.get("regularizers") or []
    listed = given if isinstance(given, list) else [given]
    told = [registry.parse_spec(spec, "regularizers") for spec in listed]
    if told:
        whole["regularizers"] = [_after(name, arguments, None) for name, arguments in told]
    remembers = _with_memory(whole.get("balancer"))
    if remembers is not None:
        if not replay:
            raise ConfigError(
                f"balancer {remembers['name']!r}: compares with rows of earlier tasks, and this way has none; say "
                "`replay: 50` beside it"
            )
        whole.pop("balancer")  # the first stage has no earlier tasks
    elif replay:
        whole["balancer"] = whole.get("balancer") or BY_ROWS
    if joint:
        return {**whole, "stages": [{"name": "all"}]}
    stages: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        counts = replay.counts((sizes or [0] * len(tasks))[:number], seed)
        items = [
            with_rows(item, counts[place]) if place < number and counts[place] else item
            for place, item in enumerate(whole["tasks"])
        ]
        again = [name for name, count in zip(tasks, counts, strict=False) if count]
        stage: dict[str, Any] = {"name": task, "tasks": items, "train_tasks": [*again, task]}
        if again and remembers is not None:
            stage["balancer"] = {**remembers, "memory": again}
        held = [one for one in tasks[:number] if kept is not None and one in kept.get("tasks", tasks)]
        if held:
            stage["distillation"] = [without_forgetting([], task, {**(kept or {}), "tasks": held})]
        if number and any(registry.regularizers[name].new_lora for name, _ in told):
            stage["init_from"] = {"merge": True}
        if told:
            before = str(folder / stages_of({**whole, "stages": stages})[-1].folder) if stages else None
            stage["regularizers"] = [_after(name, arguments, before) for name, arguments in told]
        stages.append(stage)
    return {**whole, "stages": stages}


def _with_memory(balancer: Any) -> dict[str, Any] | None:
    """A balancer that learns new tasks against earlier ones, without those; None for any other."""
    if balancer is None:
        return None
    name, arguments = registry.parse_spec(balancer, "balancer")
    if "memory" not in inspect.signature(registry.balancers[name]).parameters:
        return None
    return {"name": name, **{key: value for key, value in arguments.items() if key != "memory"}}


def _unfit(kept: Any, tasks: Sequence[str], whole_too: bool) -> list[str]:
    """What is wrong with `lwf`."""
    if not isinstance(kept, Mapping) or whole_too:
        return [f"`lwf` is a mapping, {{temperature: 2}}, and goes without `joint`, found {kept!r}; write lwf: {{}}"]
    try:
        without_forgetting([], "", kept)
    except ConfigError as error:
        return error.mistakes
    return [
        f"`lwf`: `tasks`: {one!r} is not a task of this study{suggestion(one, tasks)}"
        for one in kept.get("tasks", ())
        if one not in tasks
    ]


def _after(name: str, arguments: Mapping[str, Any], before: str | None) -> dict[str, Any]:
    """A regularizer that takes over what the stage before found important, if it is of that kind."""
    own = {"name": name, **arguments}
    takes = inspect.signature(registry.regularizers[name]).parameters
    if "carry" in takes:
        own["carry"] = True
    named = [key for key in FROM_RUNS if key in takes] if before is not None else []
    return {**own, **dict.fromkeys(named, before)}
