"""A way of training several tasks, as one run file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl import config
from nlp_mtl.arguments import TRAINING_DEFAULTS
from nlp_mtl.searching.spec import FROZEN, JOINT, SEQUENTIAL, TUNED
from nlp_mtl.taskgroups.proposal import Group
from nlp_mtl.taskgroups.runs import with_tasks

COMMON = ("model", "registry", "data_root", "imports", "max_length")
EPOCHS = 3.0  # of TrainingArguments


@dataclass(frozen=True)
class Choice:
    """What is chosen.

    Attributes:
        groups: tasks that are trained together, each group by an encoder of its own.
        strategy: joint, sequential, joint then tuned, frozen.
        changes: keys of the run file, dots go deeper.
    """

    groups: tuple[Group, ...]
    strategy: str = JOINT
    changes: Mapping[str, Any] = field(default_factory=dict)

    def said(self) -> str:
        """In a few words."""
        parts = [" | ".join(_group(group) for group in self.groups)]
        parts += [self.strategy] if self.strategy != JOINT else []
        parts += [f"{key} {_short(value)}" for key, value in self.changes.items()]
        return "; ".join(parts)


def _group(group: Group) -> str:
    helped = f" (with {' + '.join(group.helpers)})" if group.helpers else ""
    return " + ".join(group.serves) + helped


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Way:
    """A choice as a run file.

    Attributes:
        keys: of the run file.
        serves: task → the folder below the run's in which it is scored, "" for the run's own.
        rows: training rows that are shown, each as often as it is shown.
        models: how many encoders are left at the end.
    """

    keys: dict[str, Any]
    serves: dict[str, str]
    rows: int
    models: int


@dataclass(frozen=True)
class _Part:
    name: str
    members: tuple[str, ...]
    learn: tuple[str, ...]
    share: float
    after: str | None
    serves: tuple[str, ...]


def make_way(
    keys: Mapping[str, Any],
    items: Mapping[str, Any],
    choice: Choice,
    rows: Mapping[str, int],
    *,
    times: float = 1.0,
    best_by: str | None = None,
) -> Way:
    """The run file of a choice. Several groups are stages that each start anew.

    All ways show as many rows: strategies with two trainings of a task halve both, and `max_steps` is shared out by
    rows.

    Args:
        keys: of the run file that is varied, without stages.
        items: task → its entry in `tasks`.
        choice: what is chosen.
        rows: task → training rows.
        times: how many times the run file's epochs, or steps, are done.
        best_by: the metric that decides a training's best step where several tasks are scored and only one counts.

    Raises:
        ConfigError: a run file that is wrong.

    Relations: `joint then tuned` is MT-DNN's recipe (Liu et al., 2019, arXiv 1901.11504), `sequential` with a target
    STILTs (Phang et al., 2018, arXiv 1811.01088).
    """
    members = list(dict.fromkeys(task for group in choice.groups for task in group.tasks))
    whole = {**keys, "tasks": [items[task] for task in members]}
    texts = [f"{key}={json.dumps(value)}" for key, value in choice.changes.items()]
    whole = config.load_config(whole, texts).model_dump(exclude_unset=True)
    if choice.strategy == FROZEN:
        whole = {
            key: said for key, said in whole.items() if key not in ("lora", "task_lora", "tuning", "reinit_top_layers")
        }
        whole["freeze"] = "*"
    parts = [part for number, group in enumerate(choice.groups, 1) for part in _parts(group, number, choice)]
    everything = sum(rows[task] for task in members)
    made: list[tuple[_Part, dict[str, Any]]] = []
    shown = 0
    for part in parts:
        own = with_tasks(whole, items, part.members)
        if part.learn != part.members:
            own["train_tasks"] = list(part.learn)
        training, count = _effort(whole.get("training") or {}, part, rows, everything, times)
        if best_by and len(part.members) > 1 and part.serves:
            said = {**TRAINING_DEFAULTS, **(whole.get("training") or {})}
            if said["eval_strategy"] != "no" and "metric_for_best_model" not in (whole.get("training") or {}):
                training["metric_for_best_model"] = best_by
        made.append((part, {**own, "training": training}))
        shown += count
    models = len({part.name for part in parts if part.serves})
    if len(made) == 1:
        part, own = made[0]
        found = {**own, "training": {**(whole.get("training") or {}), **own["training"]}}
        way = Way(found, dict.fromkeys(part.serves, ""), shown, 1)
    else:
        way = _in_stages(whole, made, shown, models)
    config.load_config(way.keys)
    return way


def _parts(group: Group, number: int, choice: Choice) -> list[_Part]:
    """The trainings of a group, one after the other."""
    name = f"group-{number}" if len(choice.groups) > 1 else "together"
    if len(group.tasks) == 1 or choice.strategy in (JOINT, FROZEN):
        return [_Part(name, group.tasks, group.tasks, 1.0, None, group.serves)]
    if choice.strategy == TUNED:
        found = [_Part(name, group.tasks, group.tasks, 0.5, None, ())]
        return [*found, *(_Part(f"{name}-{task}", (task,), (task,), 0.5, name, (task,)) for task in group.serves)]
    if choice.strategy != SEQUENTIAL:
        raise ValueError(choice.strategy)
    if group.helpers:
        first = _Part(f"{name}-helpers", group.helpers, group.helpers, 1.0, None, ())
        return [first, _Part(f"{name}-served", group.serves, group.serves, 1.0, first.name, group.serves)]
    found = []
    for place, task in enumerate(group.tasks):
        last = place + 1 == len(group.tasks)
        before = found[-1].name if found else None
        found.append(_Part(f"{name}-{task}", group.tasks, (task,), 1.0, before, group.serves if last else ()))
    return found


def _effort(
    training: Mapping[str, Any], part: _Part, rows: Mapping[str, int], everything: int, times: float
) -> tuple[dict[str, Any], int]:
    """What a training does of the whole run's epochs or steps; and how many rows that shows."""
    own = sum(rows[task] for task in part.learn)
    steps = int(training.get("max_steps") or -1)
    if steps > 0:
        batch = int(training.get("per_device_train_batch_size") or TRAINING_DEFAULTS["per_device_train_batch_size"])
        batch *= int(training.get("gradient_accumulation_steps") or 1)
        due = max(1, math.ceil(steps * part.share * times * own / everything - 1e-9))
        return {"max_steps": due}, due * batch
    epochs = float(training.get("num_train_epochs") or EPOCHS) * part.share * times
    return {"num_train_epochs": round(epochs, 6)}, round(epochs * own)


def _in_stages(whole: Mapping[str, Any], made: Sequence[tuple[_Part, dict[str, Any]]], shown: int, models: int) -> Way:
    """Several trainings as stages of one run file; a group's first one starts where the run file says."""
    start = whole.get("init_from")
    stages: list[dict[str, Any]] = []
    serves: dict[str, str] = {}
    for number, (part, own) in enumerate(made, 1):
        stage = {"name": part.name, **{key: said for key, said in own.items() if key not in COMMON}}
        stage["init_from"] = part.after or start
        stages.append(stage)
        serves |= dict.fromkeys(part.serves, f"{number}-{part.name}")
    keys = {key: whole[key] for key in COMMON if key in whole}
    keys |= {"tasks": whole["tasks"], "stages": stages, "training": dict(whole.get("training") or {})}
    return Way({**keys, **({"init_from": start} if start is not None else {})}, serves, shown, models)
