"""A study file: one run, changed in a few ways, with several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from nlp_mtl import config
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import parse_spec
from nlp_mtl.studies.files import read_study
from nlp_mtl.tasks import load_tasks

SINGLE = "single tasks"
# what a task alone has no use for
_OF_SEVERAL = ("balancer", "sampler", "groups", "task_rates", "sharing", "tree", "distillation")


class Study(BaseModel):
    """All keys of a study file."""

    model_config = ConfigDict(extra="forbid")

    run: str | dict[str, Any] = Field(description="a run file, or its keys; all runs of the study do this, but for:")
    balancers: list[str | dict[str, Any]] = Field(
        default_factory=list, description="names, or `{name: …, arguments}`; the first is what others are compared with"
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="more ways by a name of yours: keys of a run file that are changed"
    )
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [0, 1, 2], description="`training.seed` of each run of a way"
    )
    single: bool = Field(
        default=True,
        description="also train each task alone, for Δm: as many epochs over its rows, so fewer steps than together; "
        "with `max_steps`, as many steps",
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    output_dir: str = Field(default="runs/compare", description="folder of the runs and results")

    EXAMPLES: ClassVar[dict[str, str]] = {
        "run": "glue_ner.yaml",
        "balancers": "[equal, uncertainty, {name: cagrad, c: 0.4}]",
        "methods": "{low rate: {learning_rates: {encoder: 1.0e-5}}}",
        "seeds": "[0, 1, 2]",
        "single": "true",
        "confidence": "0.95",
        "output_dir": "runs/compare",
    }


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        method: what it is compared as; :data:`SINGLE` for a task alone.
        seed: its seed.
        folder: where it is, or will be.
        keys: its run file.
        task: the task that is alone in it, else "".
    """

    method: str
    seed: int
    folder: Path
    keys: dict[str, Any]
    task: str = ""


def load_study(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[Study, list[PlannedRun]]:
    """A study file, checked, and its runs in the order they are done.

    Args:
        source: the YAML file, or a mapping of its keys.
        overrides: ``key=value`` for keys of the run file, in all runs; ``output_dir=…`` for the study's.

    Raises:
        ConfigError: every mistake of the file, and of the run files it makes.
    """
    read = read_study(Study, source, overrides, ("output_dir", "seeds", "single", "confidence"))
    study, place, keys, rest = read.study, read.place, read.keys, read.rest
    methods, mistakes = _methods(study, place)
    if mistakes:
        raise ConfigError(mistakes)
    runs, base = [], Path(study.output_dir)
    for name, changes in methods.items():
        try:  # refused here, and not after hours
            checked = config.load_config({**keys, **changes}, rest)
        except ConfigError as error:
            mistakes += [f"{place}: {name!r}: {message.removeprefix('the run: ')}" for message in error.mistakes]
            continue
        for seed in study.seeds:
            runs.append(_planned(name, seed, base / folder_name(name), checked.model_dump(exclude_unset=True)))
    if mistakes:
        raise ConfigError(mistakes)
    if study.single:
        whole = config.load_config({**keys, **next(iter(methods.values()))}, rest).model_dump(exclude_unset=True)
        names = [task.name for task in load_tasks(whole["tasks"], registry=whole.get("registry", ()))]
        for name, item in zip(names, one_by_one(whole), strict=True):
            alone = {key: value for key, value in whole.items() if key not in _OF_SEVERAL}
            for seed in study.seeds:
                runs.append(_planned(SINGLE, seed, base / "single" / name, {**alone, "tasks": [item]}, name))
    runs.sort(key=lambda run: study.seeds.index(run.seed))  # a study that is stopped has whole seeds
    return study, runs


def _methods(study: Study, place: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    found: dict[str, dict[str, Any]] = {}
    mistakes = []
    for spec in study.balancers:
        try:
            name, arguments = parse_spec(spec, "balancers")
        except ConfigError as error:
            mistakes += [f"{place}: {message}" for message in error.mistakes]
            continue
        told = [f"{key} {'…' if isinstance(value, (dict, list)) else value}" for key, value in arguments.items()]
        shown = f"{name} ({', '.join(told)})" if told else name
        if shown in found:
            mistakes.append(
                f"{place}: `balancers`: {shown!r} stands twice; leave one out, or give one a name under `methods`"
            )
        found[shown] = {"balancer": spec}
    for name, changes in study.methods.items():
        if name in found or name == SINGLE:
            mistakes.append(f"{place}: `methods`: {name!r} is taken; give it another name")
        found[name] = changes
    if not found:
        mistakes.append(f"{place}: a study compares ways, found none; name `balancers` or `methods`")
    folders: dict[str, str] = {}
    for name in found:
        if (other := folders.setdefault(folder_name(name), name)) != name:
            mistakes.append(f"{place}: {name!r} and {other!r} would have one folder; give one another name")
    return found, mistakes


def folder_name(method: str) -> str:
    """A way's name as that of a folder."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in method.lower())
    return "-".join(part for part in kept.split("-") if part)


def one_by_one(keys: Mapping[str, Any]) -> list[Any]:
    """The tasks, each by itself as the run file says it."""
    found: list[Any] = []
    for item in keys["tasks"]:
        names = [task.name for task in load_tasks([item], registry=keys.get("registry", ()))]
        if len(names) == 1:
            found.append(item)
        elif isinstance(item, dict):
            found += [{**item, "name": name} for name in names]
        else:
            found += names
    return found


def _planned(method: str, seed: int, folder: Path, keys: Mapping[str, Any], task: str = "") -> PlannedRun:
    place = folder / f"seed-{seed}"
    training = {**keys.get("training", {}), "seed": seed, "output_dir": str(place)}
    return PlannedRun(method, seed, place, {**keys, "training": training}, task)
