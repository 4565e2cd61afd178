"""Head objects for tasks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nlp_mtl import metrics, registry
from nlp_mtl.errors import ConfigError, UnknownNameError, suggestion
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.few import checked_dimensions
from nlp_mtl.taskfile import Task

logger = logging.getLogger("nlp_mtl")


EVERYWHERE = ("layer", "dimensions")  # arguments that every kind of head takes


def make_heads(tasks: Sequence[Task], more: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Head]:
    """One head per task, with arguments from its file and from `more` (by task, tag or ``"*"``).

    Raises:
        ConfigError: heads that are unknown or not built yet, unknown arguments, of all tasks at once.
    """
    mistakes, made = [], {}
    built = [task.name for task in tasks if not registry.not_built(task.head_name)]
    known = {"*", *(task.name for task in tasks), *(tag for task in tasks for tag in task.tags)}
    for key, given in (more or {}).items():
        if key not in known:
            said = f"heads: names a task or tag of this run, or '*', found {key!r}"
            mistakes.append(said + suggestion(str(key), sorted(known)))
        mistakes += _mistyped(key, given, tasks)
    owners = {task.name: task for task in tasks}
    for task in tasks:
        owner = owners.get(task.head_of or "", task)
        if owner is not task:  # one output layer: the same numbers, read in the same way
            kind = _kind(task)
            if others := [key for key in (more or {}).get(task.name, {}) if key not in kind.own_when_lent]:
                mistakes.append(
                    f"heads: {task.name!r} uses the head of {owner.name!r}, found "
                    f"`{'` and `'.join(map(str, others))}`; say it there"
                )
            if task.labels is None and owner.labels and kind.by_labels:
                task = task.with_(labels=owner.labels)
        spec = _spec(owner, more or {}) if owner is task else _lent(owner, task, more or {})
        try:
            check_built(task, built)
            head = _built(spec, task)
        except ConfigError as error:
            whose = f"task {task.name!r}: "
            mistakes += [whose + mistake.removeprefix(whose) for mistake in error.mistakes]
            continue
        head.spec = spec
        mistakes += [f"task {task.name!r}: {m}" for m in _wrong_metrics(head)]
        made[task.name] = head
    if mistakes:
        raise ConfigError(mistakes)
    return made


def _built(spec: registry.Spec, task: Task) -> Head:
    """A head; which layer and dimensions it reads are arguments of every kind of head."""
    name, arguments = registry.parse_spec(spec, "head")
    layer, dimensions = arguments.pop("layer", None), arguments.pop("dimensions", None)
    head: Head = registry.heads.build({"name": name, **arguments}, task)
    if hasattr(nn.ModuleDict(), task.head_key):
        raise ConfigError(
            f"task {task.name!r}: {task.head_key!r} is a name that PyTorch's modules have for themselves; rename the "
            "task"
        )
    if layer is not None and layer != "mix" and (not isinstance(layer, int) or isinstance(layer, bool)):
        raise ConfigError(
            f"task {task.name!r}: `layer` is a number of the encoder's layers, or mix for a learned mix of all, found "
            f"{layer!r}; leave it out for the last"
        )
    head.layer, head.dimensions = layer, checked_dimensions(task.name, dimensions)
    if head.dimensions is not None:
        head.exportable, head.why_not = False, "`dimensions` is not what the vanilla class computes"
    return head


def meet(heads: Mapping[str, Head], tokenizer: Any, data_root: Any = None) -> None:
    """Let heads find what they need to read targets, owners before those that use their modules; see :meth:`Head.meet`.

    Args:
        heads: task → head.
        tokenizer: the encoder's.
        data_root: where data sets are looked for first.
    """
    for head in heads.values():
        owner = heads.get(head.task.head_key, head)
        owner.meet(tokenizer, data_root=data_root)
        if head is not owner:
            head.borrow(owner)


def check_built(task: Task, others: Sequence[str] = ()) -> None:
    """Refuse a task whose kind of head is planned (:data:`nlp_mtl.registry.PLANNED_HEADS`) and not there yet.

    Args:
        task: the task.
        others: tasks asked for together with it whose heads are there, for the message.

    Raises:
        ConfigError: names task and head, and what works.
    """
    needs = registry.not_built(task.head_name)
    if needs:
        rest = f"leave it out and go on with {', '.join(others)}" if others else "choose other tasks"
        raise ConfigError(
            f"task {task.name!r}: its head {task.head_name!r} is not built yet: {needs}; {rest}. Heads that are built: "
            f"{', '.join(registry.heads)}"
        )


def _spec(task: Task, more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The task's own arguments, and those said of it, of a tag or of all; what a head does not take is for others."""
    name, arguments = registry.parse_spec(task.head, "head")
    for key, given in more.items():
        if key == task.name:
            arguments.update(given)
        elif key == "*" or key in task.tags:
            arguments.update({k: v for k, v in given.items() if name in registry.heads and _takes(name, k)})
    return {"name": name, **arguments}


def _kind(task: Task) -> type[Head]:
    known = task.head_name in registry.heads
    return registry.heads[task.head_name] if known else Head


def _lent(owner: Task, task: Task, more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of the task that owns the module, and over them what the other says that does not touch it."""
    kind, own = _kind(task), _spec(task, more)
    others = kind.about_labels if task.labels != owner.labels else ()
    theirs = {key: value for key, value in _spec(owner, more).items() if key not in others}
    return {**theirs, **{key: value for key, value in own.items() if key in kind.own_when_lent}}


def _takes(head: str, argument: str) -> bool:
    return argument in EVERYWHERE or argument in inspect.signature(registry.heads[head]).parameters


def _mistyped(key: str, given: Mapping[str, Any], tasks: Sequence[Task]) -> list[str]:
    """Arguments said of a tag or of all that none of these tasks' heads takes."""
    group = [task for task in tasks if key == "*" or key in task.tags]
    names = {name for task in group if (name := registry.parse_spec(task.head, "head")[0]) in registry.heads}
    known = {p for name in names for p in list(inspect.signature(registry.heads[name]).parameters)[1:]} | {*EVERYWHERE}
    whose = "these tasks" if key == "*" else repr(key)
    return [
        f"heads: no head of {whose} takes {argument!r}{suggestion(argument, known)}"
        for argument in given
        if group and argument not in known
    ]


def _wrong_metrics(head: Head) -> list[str]:
    """Metrics that are not known, or need what the task can't give."""
    mistakes = []
    for name in head.metrics:
        if not name.startswith(metrics.PREFIX) and name not in registry.metrics:
            mistakes += UnknownNameError("metric", name, registry.metrics.names()).mistakes
            continue
        mistakes += [_unmet(head, name, need) for need in metrics.needs(name)]
    return [mistake for mistake in mistakes if mistake]


def _unmet(head: Head, metric: str, need: str) -> str:
    """Why a metric can't have what it needs besides predictions and references, or nothing."""
    wanted, kind = f"metric {metric!r} needs `{need}`", head.task.head_name
    if need == "scores":
        heads = ", ".join(name for name in registry.heads if registry.heads[name].gives_scores)
        return "" if head.gives_scores else f"{wanted}, which the head {kind!r} does not give; heads that do: {heads}"
    if not head.decodes_rows:
        return f"{wanted} of every prediction, but the head {kind!r} does not make one prediction per row"
    if need not in head.task.metric_columns:
        found = suggestion(need, head.task.metric_columns) if head.task.metric_columns else ""
        return f"{wanted}, a column of the rows; name it: `metric_columns: {{{need}: COLUMN}}`{found}"
    return ""


def head_of_spec(item: Mapping[str, Any]) -> Head:
    """The head of a task as ``nlp_mtl.json`` records it.

    Raises:
        ConfigError: a head that is unknown or not built yet.
    """
    task = Task(**item)
    check_built(task)
    head = _built(task.head, task)
    head.spec = item["head"]
    if head.tunes and not head.chosen():
        logger.warning(
            "task %r: `threshold: tuned`, but this checkpoint was saved without an evaluation; 0.5 is used", task.name
        )
    return head
