"""The arguments of :meth:`nlp_mtl.taskfile.Task.from_data`, checked before any row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from nlp_mtl import registry
from nlp_mtl.errors import shown, suggestion
from nlp_mtl.taskfile import NAME, Task

_MADE_HERE = ("name", "head", "dataset", "inputs", "template", "target", "labels", "examples", "file")


def wrong_kinds(given: Mapping[str, Any], more: Mapping[str, Any]) -> list[str]:
    """Mistakes in the kinds of values, after which nothing else can be asked of them.

    Args:
        given: `text`, `label`, `template`, `head`, `labels`, `options`, `columns`.
        more: other fields of the task.
    """
    rules = {
        "text": ("a column's name, or a list of them", _is_text(given["text"]) or _are_texts(given["text"])),
        "label": ("one column's name", _is_text(given["label"])),
        "template": ("a text such as '{title}: {body}'", _is_text(given["template"])),
        "head": (
            "write a kind of head, or {name: …, arguments}",
            _is_text(given["head"]) or (isinstance(given["head"], Mapping)),
        ),
        "options": ("a mapping key → value, for the reader of files", isinstance(given["options"], Mapping)),
        "columns": ("a list of names", _are_texts(given["columns"])),
        "metrics": ("a name, or a list of names", _are_texts(more.get("metrics"))),
        "prepare": (
            "a preparation, {name: …, arguments}, or a list of them",
            isinstance(more.get("prepare"), (str, Mapping, list, tuple)),
        ),
    }
    values = {**given, "metrics": more.get("metrics"), "prepare": more.get("prepare")}
    mistakes = [
        f"{name}: {rule}, found {shown(values[name])}; correct it, or leave it out"
        for name, (rule, fits) in rules.items()
        if values[name] is not None and not fits
    ]
    labels = given["labels"]
    if isinstance(labels, str):
        mistakes.append(f"labels: a list of names, or a mapping value → name, found the text {labels!r}")
    elif isinstance(labels, Set):
        mistakes.append(
            f"labels: a list of names, whose order is that of their numbers, found a set ({shown(labels)}); write a "
            "list, or leave it out"
        )
    elif labels is not None and not isinstance(labels, (Mapping, Sequence)):
        mistakes.append(f"labels: a list of names, or a mapping value → name, found {shown(labels)}; correct it")
    return mistakes


def wrong_arguments(name: Any, head: Any, more: Mapping[str, Any]) -> list[str]:
    """Mistakes in arguments whose values are of the right kinds: names of heads, metrics and arguments."""
    mistakes = []
    if not isinstance(name, str) or not NAME.fullmatch(name):
        mistakes.append(
            f"name: a task name has 1 to 64 letters, digits, '_' or '-', first a letter or digit, found {name!r}; "
            "give another (--name)"
        )
    known = [field for field in Task.model_fields if field not in _MADE_HERE]
    arguments = [*known, "text", "label", "template", "head", "labels", "options", "columns"]
    mistakes += [f"from_data takes no argument {key!r}{suggestion(key, arguments)}" for key in more if key not in known]
    if isinstance(head, Mapping) and not isinstance(head.get("name"), str):
        mistakes.append(f"head: write a kind of head, or {{name: …, arguments}}, found {head!r}")
    elif head is not None:
        kind = head if isinstance(head, str) else str(head["name"])
        if kind not in registry.heads:
            mistakes.append(f"head: unknown head {kind!r}{suggestion(kind, registry.heads.names())}")
    for metric in more.get("metrics") or []:
        if not metric.startswith("evaluate:") and metric not in registry.metrics:
            mistakes.append(f"metrics: unknown metric {metric!r}{suggestion(metric, registry.metrics.names())}")
    return mistakes


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(item, str) for item in value)
