"""From own data to a task; :meth:`nlp_mtl.taskfile.Task.from_data` and ``nlp-mtl tasks new`` call this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import ConfigError, DataError, shown
from nlp_mtl.owndata.arguments import wrong_arguments, wrong_kinds
from nlp_mtl.owndata.cells import NA_OPTIONS, row_for_names, words_as_words, zeros_kept
from nlp_mtl.owndata.choosing import Columns, choose_columns
from nlp_mtl.owndata.holding_out import choose_splits
from nlp_mtl.owndata.kinds import Kind, kind_of
from nlp_mtl.owndata.looks import Look, Target, is_blank, look
from nlp_mtl.owndata.memory import is_paths, recorded, select
from nlp_mtl.owndata.naming import Labels
from nlp_mtl.owndata.opening import OwnData, after_preparing, as_list, read_data
from nlp_mtl.owndata.telling import rows_said
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.registry import parse_spec
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import MEMORY, Task, validated
from nlp_mtl.template import Template

if TYPE_CHECKING:
    from datasets import Dataset

_NO_LABEL = ("masked_lm",)
_SIMPLE = ("sequence_classification", "regression", "multi_label", "token_classification", "masked_lm", "seq2seq")


@quiet_datasets()
def task_from_data(
    name: str,
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    template: str | None = None,
    head: str | Mapping[str, Any] | None = None,
    labels: Labels = None,
    options: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    **more: Any,
) -> Task:
    """See :meth:`nlp_mtl.taskfile.Task.from_data`.

    Args:
        name, data, text, label, template, head, labels: as there.
        options: what the files' reader takes.
        columns: names of the columns, for CSV files without a line of names and for CoNLL.
        more: other fields of the task; what is said there is not inferred.

    Raises:
        ConfigError: everything that is wrong or can't be told.
        DataError: files or rows that can't be read.
    """
    more = {**more, "metrics": [more["metrics"]]} if isinstance(more.get("metrics"), str) else more
    said = {"text": text, "label": label, "template": template, "head": head, "labels": labels}
    if wrong := wrong_kinds({**said, "options": options, "columns": columns}, more):
        raise ConfigError(wrong)
    mistakes = wrong_arguments(name, head, more)
    if not is_paths(data) and (options or columns):
        mistakes.append("options, columns: they tell the reader of files, and the data is given as an object")
    try:
        own = read_data(data, options or {}, columns)
        own.splits = after_preparing(own.raw, own.spec, more.get("prepare", []))
    except ConfigError as error:
        raise ConfigError([*mistakes, *error.mistakes]) from None
    looks = {column: look(own.splits["train"], column) for column in own.splits["train"].column_names}
    kind_said = None if head is None else parse_spec(head, "head")[0] if not mistakes else None
    choose = partial(
        choose_columns,
        text=text,
        label=label,
        template=template,
        hints=own.hints,
        needs_label=kind_said not in _NO_LABEL,
        several=kind_said not in (None, *_SIMPLE),
    )
    chosen = choose(looks)
    if no_names := row_for_names(own, looks, chosen):
        mistakes.append(no_names)
    if template is None and kind_said in (None, *_SIMPLE):
        mistakes += [_not_read(column, own) for column in chosen.inputs if _is_number(column, own)]
    if "prepare" not in more and not mistakes:
        own, looks, chosen = words_as_words(own, looks, chosen, choose)
        if not chosen.mistakes and kind_said != "regression":
            own, looks, chosen = zeros_kept(own, looks, chosen, choose)
    if mistakes or chosen.mistakes:
        left_out = [note for note in own.notes if "is left out" in note] if chosen.mistakes else []
        raise ConfigError([*mistakes, *chosen.mistakes, *left_out])
    kind = _kind(own, looks, chosen, head, labels)
    _empty_as_none(own, looks, chosen, kind)
    task = _task(name, own, looks, chosen, kind, template, more)
    if head is not None:
        from nlp_mtl.heads import make_heads

        make_heads([task])  # refuses arguments that the head does not take
    return task


# ------------------------------------------------------------------------------------------------------ its parts


def _is_number(column: str, own: OwnData) -> bool:
    kind = str(getattr(own.splits["train"].features.get(column), "dtype", ""))
    return kind.startswith(("int", "uint", "float", "double", "bool", "decimal"))


def _not_read(column: str, own: OwnData) -> str:
    return (
        f"text: {column!r} holds {shown(next(iter(own.splits['train'][column])))} and the like, and text is read; name "
        f"another column (--text COL), or write its values as text: template='{{{column}}}' "
        f"(--template '{{{column}}}')"
    )


def _empty_as_none(own: OwnData, looks: Mapping[str, Look], chosen: Columns, kind: Kind) -> None:
    """In a CSV column of several labels in one text, an empty cell says that none holds, and not that none is known."""
    given = own.spec.get("options", {})
    ours = given.get("na_values") == [""]
    several = any(step["name"] == "split_labels" for step in kind.prepare)
    if own.spec.get("path") != "csv" or not several or (NA_OPTIONS & set(given) and not ours):
        return
    if looks[str(chosen.target)].empty and not any(looks[name].empty for name in chosen.inputs):
        kept = {key: value for key, value in given.items() if key != "na_values"}
        own.spec = {**own.spec, "options": {**kept, "keep_default_na": False}}
        kind.notes.append(f"labels: an empty cell in {chosen.target!r} means that none of them holds")


def _kind(own: OwnData, looks: Mapping[str, Look], chosen: Columns, head: Any, labels: Labels) -> Kind:
    if chosen.target is None:
        return Kind(head if isinstance(head, str) else dict(head), notes=["head: as said; it needs no label"])
    values = [
        value
        for rows in own.splits.values()
        if chosen.target in rows.column_names
        for value in rows[chosen.target][:]
        if not is_blank(value)
    ]
    if not values:
        raise ConfigError(f"label: the column {chosen.target!r} is empty throughout; name another one (--label COL)")
    read = looks[chosen.inputs[0]] if len(chosen.inputs) == 1 else None
    target = Target(chosen.target, tuple(chosen.inputs), own.splits, looks[chosen.target], read, values)
    return kind_of(target, head=head, labels=labels)


def _task(
    name: str,
    own: OwnData,
    looks: Mapping[str, Look],
    chosen: Columns,
    kind: Kind,
    template: str | None,
    more: Mapping[str, Any],
) -> Task:
    kind_notes = [note for note in kind.notes if "metrics" not in more or not note.startswith("metrics:")]
    notes = [*own.notes, *chosen.notes, *kind_notes]
    simple = parse_spec(kind.head, "head")[0] in _SIMPLE
    if own.spec:
        dataset, rows = own.spec, None
    else:
        used = [column for column in (*chosen.inputs, chosen.target) if column is not None]
        rows = select(own.raw, used) if simple and "prepare" not in more else own.raw
        dataset = {"path": MEMORY, "memory": recorded(rows).model_dump()}
    optional = Template(template).optional if template is not None else frozenset()
    blank = [column for column in chosen.inputs if looks[column].empty and column not in optional]
    prepare = [*as_list(more.get("prepare", [])), *kind.prepare]
    splits_read = own.splits
    if blank:
        prepare.append({"name": "drop_empty", "columns": blank})
        splits_read = {split: _filled(rows, blank) for split, rows in own.splits.items()}
        count = sum(len(rows) - len(splits_read[split]) for split, rows in own.splits.items())
        notes.append(f"rows: {count} without {' or '.join(blank)} left out (`prepare: drop_empty`)")
    for most in (2, 1, 0):
        splits = choose_splits(splits_read, chosen.inputs, chosen.target, most=most)
        said: dict[str, Any] = {
            "name": name,
            "head": kind.head,
            "dataset": dataset,
            **({"template": template} if template is not None else {"inputs": chosen.inputs}),
            **({"target": chosen.target} if chosen.target is not None else {}),
            **({"labels": kind.labels} if kind.labels is not None else {}),
            **({"metrics": kind.metrics} if kind.metrics is not None else {}),
            **({"splits": splits.shares} if splits.shares else {}),
            **more,
            **({"prepare": prepare} if prepare else {}),
        }
        task = validated(said, f"task {name!r}").knowing(rows, notes)
        try:  # the whole way once: what is wrong with columns, preparations and splits is said now
            counted = load_rows(task)
            break
        except DataError:
            if not most or "splits" in more or not splits.shares:
                raise
    notes += splits.notes if "splits" not in more else ["splits: as said"]
    return task.knowing(rows, [*notes, *rows_said(task, counted)])


def _filled(rows: Dataset, columns: Sequence[str]) -> Dataset:
    """The rows in which none of these columns is empty."""
    cells = zip(*(rows[column][:] for column in columns if column in rows.column_names), strict=True)
    return rows.select([index for index, values in enumerate(cells) if not any(map(is_blank, values))])
