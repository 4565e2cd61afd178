"""The kind of head that own data asks for, its labels and metrics, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.errors import ConfigError, shown
from nlp_mtl.owndata.guessing import guess_head, spelled_lists
from nlp_mtl.owndata.looks import Target, is_blank
from nlp_mtl.owndata.naming import Labels, few, label_names
from nlp_mtl.owndata.tags import tag_labels, tag_scheme
from nlp_mtl.owndata.telling import alike

IMBALANCED = 3.0  # times that the most frequent label may outnumber the rarest before accuracy says little
FEW = 10  # rows of a label, from which little can be learned


@dataclass
class Kind:
    """What a label column asks for.

    Attributes:
        head: kind of head, `name` or ``{name: …, arguments}``.
        labels: names in the order of their numbers; None where there are none.
        metrics: the first decides; None for the head's own.
        prepare: what must be done to the rows first.
        notes: why, in plain sentences.
    """

    head: str | dict[str, Any]
    labels: list[str] | None = None
    metrics: list[str] | None = None
    prepare: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def kind_of(target: Target, *, head: str | Mapping[str, Any] | None = None, labels: Labels = None) -> Kind:
    """The kind of head for a label column, with labels and metrics.

    Args:
        target: the label column, beside what is read.
        head: the kind of head, where it is said.
        labels: label names in the order wanted, or what the column holds → its name.

    Raises:
        ConfigError: what the column holds fits no kind of head, or not the one that is said, or not the labels.
    """
    if head is None:
        name, why, prepare = guess_head(target, named=labels is not None)
    else:
        name = head if isinstance(head, str) else str(head.get("name"))
        why, prepare = "as said", spelled_lists(target, name)
    made = _KINDS.get(name, _other)(target, prepare, labels)
    made.head = made.head or name
    made.notes.insert(0, f"head: {name}, {why}")
    if head is not None and not isinstance(head, str):
        made.head = {**({"name": made.head} if isinstance(made.head, str) else made.head), **head}
    return made


def _classes(target: Target, prepare: list[dict[str, Any]], labels: Labels) -> Kind:
    names = label_names(target, target.filled, labels)
    rows = target.splits.get("train") or next(iter(target.splits.values()))
    counts = Counter(names.of(value) for value in rows[target.name][:] if not is_blank(value))
    metrics, notes = _metrics(counts, ["accuracy", "f1_macro"])
    return Kind("", names.names, metrics, [*prepare, *names.prepare], [names.note, *alike(names.names), *notes])


def _multi_label(target: Target, prepare: list[dict[str, Any]], labels: Labels) -> Kind:
    separator = next((spec["separator"] for spec in prepare if spec["name"] == "split_labels"), None)
    lists = [_parts(value, separator) if isinstance(value, str) else value for value in target.filled]
    if not all(isinstance(value, (list, tuple)) for value in lists):
        raise ConfigError(
            f"label: multi_label predicts a list of labels a row, and {target.name!r} holds {target.look.said()}"
        )
    flat = [item for value in lists for item in value]
    width = len(lists[0])
    if width > 1 and {len(value) for value in lists} == {width} and all(i in (0, 1) for i in flat):
        if labels is None or isinstance(labels, Mapping) or len(labels) != width:
            raise ConfigError(
                f"labels: {target.name!r} holds lists of 0 and 1 for {width} labels; name them in their order with "
                "`labels` (--labels NAME …)"
            )
        chosen, note = list(labels), f"labels: {few(list(labels))}, as named, one for each 0 or 1"
        counts = Counter({name: sum(int(value[i]) for value in lists) for i, name in enumerate(chosen)})
    else:
        names = label_names(target, flat, labels, lists=True)
        chosen, note, counts = names.names, names.note, Counter(map(names.of, flat))
    metrics, notes = _metrics(counts, ["f1_micro", "f1_macro"])
    return Kind("", chosen, metrics, prepare, [note, *alike(chosen), *notes])


def _parts(text: str, separator: str | None) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _tags(target: Target, prepare: list[dict[str, Any]], labels: Labels) -> Kind:
    rows = [value.split() if isinstance(value, str) else value for value in target.filled]
    if not all(isinstance(value, (list, tuple)) for value in rows):
        raise ConfigError(
            f"label: token_classification predicts one tag for each word, and {target.name!r} holds "
            f"{target.look.said()}"
        )
    flat = [tag for tags in rows for tag in tags if tag is not None]
    known = list(target.look.names or (() if isinstance(labels, Mapping) else labels or ()))
    numbers = [tag for tag in flat if not isinstance(tag, str)]
    if numbers and not 0 <= max(numbers) < len(known):
        raise ConfigError(
            f"labels: the tags in {target.name!r} are numbers up to {max(numbers)}, and {len(known)} are named; name "
            "all in "
            "the order of the numbers with `labels` (--labels O B-PER …)"
        )
    named = [[tag if isinstance(tag, str) else known[tag] for tag in tags if tag not in (None, -1)] for tags in rows]
    if len({tag for tags in named for tag in tags}) == 1:
        raise ConfigError(
            f"label: every tag in {target.name!r} is {next(tag for tags in named for tag in tags)!r}; nothing can be "
            "learned from that, name another column"
        )
    scheme, why = tag_scheme(named)
    if known:
        names = label_names(target, flat, labels, lists=True)
        chosen, note = names.names, names.note
    else:
        chosen = tag_labels({tag for tags in named for tag in tags}, scheme)
        note = f"labels: {few(chosen)}" + ("; by type, both B- and I- for each" if scheme == "iob2" else "")
    metrics = ["accuracy", "f1_macro"] if scheme == "none" else ["span_f1"]
    over = "words" if scheme == "none" else "whole spans, as the task's official scores are"
    notes = [f"scheme: {scheme}, since {why}", note, f"metrics: {', '.join(metrics)}, over {over}"]
    return Kind({"name": "token_classification", "scheme": scheme}, chosen, metrics, prepare, notes)


def _number(target: Target, prepare: list[dict[str, Any]], labels: Labels) -> Kind:
    if labels is not None:
        raise ConfigError("labels: a regression predicts a number and has none; leave `labels` out (--labels)")
    numbers = []
    for value in target.filled:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            raise ConfigError(
                f"label: a regression predicts numbers, and {target.name!r} holds {shown(value, most=40)}; name "
                "another column (--label), or another `head` (--head)"
            ) from None
    if odd := [number for number in numbers if not math.isfinite(number)]:
        raise ConfigError(
            f"label: a regression predicts finite numbers, and {target.name!r} holds {odd[0]}; correct the cell, or "
            "leave it empty"
        )
    low, high = min(numbers), max(numbers)
    if low == high:
        raise ConfigError(
            f"label: every value of {target.name!r} is {low:g}; nothing can be learned from that, name another column"
        )
    note = f"metrics: pearson, spearman, correlations with the true numbers ({low:g} to {high:g})"
    return Kind("", None, ["pearson", "spearman"], prepare, [note])


def _other(target: Target, prepare: list[dict[str, Any]], labels: Labels) -> Kind:
    return Kind("", list(labels) if labels is not None else None, prepare=prepare)


_KINDS = {
    "sequence_classification": _classes,
    "multi_label": _multi_label,
    "token_classification": _tags,
    "regression": _number,
}


def _metrics(counts: Counter[str], usual: Sequence[str]) -> tuple[list[str], list[str]]:
    """Metrics, the one that weighs all labels alike first where some are rare; and why."""
    most, least = max(counts.values()), min(counts.values())
    if most >= IMBALANCED * least:
        chosen = ["f1_macro", *(name for name in usual if name != "f1_macro")]
        why = (
            f"macro-F1 first, since the most frequent label has {most / max(least, 1):.0f} times the rows of the rarest"
        )
    else:
        rows = f"{least} to {most} rows" if most > least else f"{most} rows each"
        chosen, why = list(usual), f"since the labels are of like frequency ({rows})"
    notes = [f"metrics: {', '.join(chosen)}; {why}"]
    if rare := [name for name, count in sorted(counts.items()) if count < FEW]:
        verb = "have" if len(rare) > 1 else "has"
        notes.append(f"rows: {few(rare)} {verb} fewer than {FEW} rows, from which little can be learned")
    return chosen, notes
