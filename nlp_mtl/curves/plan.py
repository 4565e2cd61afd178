"""A study of a task's learning curve: its file, and the runs it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from nlp_mtl import config
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.studies.files import read_study
from nlp_mtl.studies.study import PlannedRun, folder_name
from nlp_mtl.tasks import load_tasks

Rows = Annotated[int, Field(ge=1)] | Literal["all"]


class CurveStudy(BaseModel):
    """All keys of a study of a learning curve."""

    model_config = ConfigDict(extra="forbid")

    run: str | dict[str, Any] = Field(description="a run file, or its keys; all runs of the study do this, but for:")
    task: str = Field(description="the task whose training rows are counted; all ways have it")
    rows: Annotated[list[Rows], Field(min_length=1)] = Field(
        default_factory=lambda: list[Rows]([16, 64, 256, 1024, "all"]),
        description="how many training rows it has, or `all`",
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: dict[str, dict[str, Any]]({"run": {}}),
        min_length=1,
        description="ways by a name of yours: keys of a run file that are changed, e.g. other `tasks` beside it, or "
        "`stages`; the first is what others are compared with",
    )
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [0, 1, 2],
        description="`training.seed` of each run, and of the draw of its rows",
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    output_dir: str = Field(default="runs/curve", description="folder of the runs and results")

    EXAMPLES: ClassVar[dict[str, str]] = {
        "run": "{model: bert-base-cased, tasks: [mrpc]}",
        "task": "mrpc",
        "rows": "[16, 64, 256, all]",
        "methods": "{alone: {}, with helpers: {tasks: [mrpc, stsb, rte]}}",
        "seeds": "[0, 1, 2]",
        "confidence": "0.95",
        "output_dir": "runs/curve",
    }


def load_curve(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[CurveStudy, dict[tuple[str, Rows], list[PlannedRun]]]:
    """A study file, checked, and its runs by way and number of rows.

    Args:
        source: the YAML file, or a mapping of its keys.
        overrides: ``key=value`` for keys of the run file, in all runs; `output_dir`, `seeds`, `rows` and `confidence`
            are the study's.

    Raises:
        ConfigError: every mistake of the file, and of the run files it makes.
    """
    read = read_study(CurveStudy, source, overrides, ("output_dir", "seeds", "rows", "confidence"))
    study, found, mistakes = read.study, {}, []
    for name, changes in study.methods.items():
        for rows in study.rows:
            try:
                checked = config.load_config({**read.keys, **changes}, read.rest).model_dump(exclude_unset=True)
                runs = [with_rows(checked, study.task, rows, seed) for seed in study.seeds]
            except ConfigError as error:
                mistakes += [f"{read.place}: {name!r}: {one.removeprefix('the run: ')}" for one in error.mistakes]
                break
            place = Path(study.output_dir) / folder_name(name) / f"rows-{rows}"
            what = f"{name}, {rows} rows"
            found[name, rows] = [
                _planned(what, keys, place, study.task, seed) for keys, seed in zip(runs, study.seeds, strict=True)
            ]
    if mistakes:
        raise ConfigError(mistakes)
    return study, found


def with_rows(keys: Mapping[str, Any], task: str, rows: int | str, seed: int = 0) -> dict[str, Any]:
    """A run file in which a task has so many training rows, drawn by the seed, in all stages too.

    Raises:
        ConfigError: no such task.

    Example:
        >>> with_rows({"tasks": ["mrpc", "rte"]}, "mrpc", 16)["tasks"]
        [{'name': 'mrpc', 'rows': {'train': 16}, 'rows_seed': 0}, 'rte']
    """
    whole = dict(keys)
    names = [one.name for one in load_tasks(whole["tasks"], registry=whole.get("registry") or ())]
    if task not in names:
        raise ConfigError(f"`task` is one of the run's, found {task!r}{suggestion(task, names)}")
    parts = [whole, *(dict(stage) for stage in whole.get("stages") or ())]
    for part in parts:
        if "tasks" in part:
            part["tasks"] = [_counted(item, task, rows, seed, whole.get("registry") or ()) for item in part["tasks"]]
    if whole.get("stages"):
        whole["stages"] = parts[1:]
    return whole


def _counted(item: Any, task: str, rows: int | str, seed: int, registry: Sequence[str]) -> Any:
    if rows == "all" or [one.name for one in load_tasks([item], registry=registry)] != [task]:
        return item
    said = dict(item) if isinstance(item, Mapping) else {"name": item}
    return {**said, "rows": {**(said.get("rows") or {}), "train": rows}, "rows_seed": seed}


def _planned(method: str, keys: Mapping[str, Any], place: Path, task: str, seed: int) -> PlannedRun:
    folder = place / f"seed-{seed}"
    training = {**(keys.get("training") or {}), "seed": seed, "output_dir": str(folder)}
    return PlannedRun(method, seed, folder, {**keys, "training": training}, task)
