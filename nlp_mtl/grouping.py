"""From what a run file says of groups and of tasks that stop to the sampler that does it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import TrainingArguments

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.plan import Pool
from nlp_mtl.samplers import Grouped, Sampler, Stopping


def sampler_of(
    spec: registry.Spec, groups: Mapping[str, Any] | None = None, stop_tasks: Mapping[str, Any] | None = None
) -> Sampler:
    """A sampler, among groups, without tasks that stopped.

    Args:
        spec: the sampler.
        groups: arguments of :class:`Grouped`.
        stop_tasks: arguments of :class:`Stopping`.

    Raises:
        ConfigError: all mistakes at once.
    """
    sampler: Sampler = registry.samplers.build(spec)
    wrong = check_arguments("groups", Grouped, groups) + check_arguments("stop_tasks", Stopping, stop_tasks)
    if groups is not None and not wrong:
        try:
            sampler = Grouped(sampler, **groups)
        except ConfigError as error:
            wrong += error.mistakes
    if stop_tasks is not None and not check_arguments("stop_tasks", Stopping, stop_tasks):
        try:
            sampler = Stopping(sampler, **stop_tasks)
        except ConfigError as error:
            wrong += error.mistakes
    if wrong:
        raise ConfigError(wrong)
    return sampler


def check_pools(groups: Mapping[str, Any] | None, pools: Sequence[Pool]) -> None:
    """Refuse groups that part tasks which label the same rows: a row trains all of its tasks.

    Raises:
        ConfigError: with the tasks.
    """
    named = (groups or {}).get("groups", {})
    group_of = {task: task for pool in pools for task in pool.tasks} if named == "each" else {}
    if isinstance(named, Mapping):
        group_of = {task: name for name, members in named.items() for task in members}
    parted = [pool.tasks for pool in pools if groups is not None and len({group_of.get(t) for t in pool.tasks}) > 1]
    if parted:
        raise ConfigError(
            [
                f"groups: {', '.join(tasks)} label the same rows, and a row trains all of its tasks; put them into one "
                "group"
                for tasks in parted
            ]
        )


def check_arguments(key: str, made: Any, given: Mapping[str, Any] | None) -> list[str]:
    """Unknown and missing arguments of a run file's key."""
    if given is None:
        return []
    parameters = list(inspect.signature(made).parameters.values())[1:]
    known = [p.name for p in parameters]
    wrong = [f"{key}: unknown key {name!r}{suggestion(name, known)}" for name in given if name not in known]
    needed = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    return wrong + [f"{key}: `{name}` is needed, found none" for name in needed]


def check_stopping(stop_tasks: Mapping[str, Any] | None, args: TrainingArguments) -> None:
    """Refuse tasks that stop by their scores in a run without scores.

    Raises:
        ConfigError: with the way out.
    """
    if stop_tasks is not None and args.eval_strategy == "no":
        raise ConfigError(
            "stop_tasks: looks at the scores of evaluations, and this run has none (`training.eval_strategy` is no); "
            "evaluate, or leave it out"
        )


def check_auxiliary(model: Any, learning: Collection[str]) -> None:
    """Refuse tasks that are there for the encoder where nothing that others use too is trained: they do nothing.

    Args:
        model: the model.
        learning: the tasks that learn.

    Raises:
        ConfigError: with the way out.
    """
    named = [task for task in model.tasks if task in learning and model.heads[task].auxiliary]
    if named and next(iter(model.sharing.shared_parameters()), None) is None:
        kinds = ", ".join(dict.fromkeys(model.heads[task].task.head_name for task in named))
        raise ConfigError(
            f"tasks: {', '.join(named)} ({kinds}) changes the weights that tasks share, found none that are trained; "
            "train some (`lora`, or no `freeze`), or leave it out of what learns (`train_tasks`)"
        )
