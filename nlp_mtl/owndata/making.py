"""From own data to a task; :meth:`nlp_mtl.taskfile.Task.from_data` and ``nlp-mtl tasks new`` call this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, DataError, suggestion
from nlp_mtl.files import local_files, resolve_files
from nlp_mtl.labelnames import in_order
from nlp_mtl.owndata.choosing import Columns, choose_columns
from nlp_mtl.owndata.formats import files_of
from nlp_mtl.owndata.holding_out import choose_splits
from nlp_mtl.owndata.kinds import Kind, kind_of
from nlp_mtl.owndata.looks import Look, Target, is_blank, look
from nlp_mtl.owndata.memory import is_paths, recorded, select, splits_of
from nlp_mtl.owndata.naming import Labels, few
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.registry import parse_spec
from nlp_mtl.sources import load_rows, prepared
from nlp_mtl.taskfile import MEMORY, NAME, Task, validated
from nlp_mtl.template import Template

if TYPE_CHECKING:
    from datasets import Dataset

_NO_LABEL = ("masked_lm",)
_SIMPLE = ("sequence_classification", "regression", "multi_label", "token_classification", "masked_lm")
_MADE_HERE = ("name", "head", "dataset", "inputs", "template", "target", "labels", "examples", "file")
_OF_WORDS = ("text", "tags", "classes", "ids", "nothing")
_NA_OPTIONS = {"keep_default_na", "na_values", "na_filter"}


@dataclass
class _Data:
    """Own data on its way: rows by split, where they are, and what was found."""

    splits: dict[str, Dataset]  # after what the caller says of `prepare`
    raw: dict[str, Dataset]
    spec: dict[str, Any]
    hints: tuple[str | None, str | None] = (None, None)
    notes: list[str] = field(default_factory=list)


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
    mistakes = _wrong_arguments(name, head, labels, more)
    if not is_paths(data) and (options or columns):
        mistakes.append("options, columns: they tell the reader of files, and the data is given as an object")
    try:
        own = _read(data, options or {}, columns)
        own.splits = _prepared(own.raw, own.spec, more.get("prepare", []))
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
    if "prepare" not in more and not mistakes:
        own, looks, chosen = _words_as_words(own, looks, chosen, choose)
    if mistakes or chosen.mistakes:
        raise ConfigError([*mistakes, *chosen.mistakes])
    kind = _kind(own, looks, chosen, head, labels)
    _empty_as_none(own, looks, chosen, kind)
    task = _task(name, own, looks, chosen, kind, template, more)
    if head is not None:
        from nlp_mtl.heads import make_heads

        make_heads([task])  # refuses arguments that the head does not take
    return task


# ------------------------------------------------------------------------------------------------------ its parts


def _wrong_arguments(name: Any, head: Any, labels: Any, more: Mapping[str, Any]) -> list[str]:
    mistakes = []
    if not isinstance(name, str) or not NAME.fullmatch(name):
        mistakes.append(
            f"name: a task name has 1 to 64 letters, digits, '_' or '-', first a letter or digit, found {name!r}; "
            "give another (--name)"
        )
    known = [field for field in Task.model_fields if field not in _MADE_HERE]
    arguments = [*known, "text", "label", "template", "head", "labels", "options", "columns"]
    mistakes += [f"from_data takes no argument {key!r}{suggestion(key, arguments)}" for key in more if key not in known]
    if isinstance(labels, str):
        mistakes.append(f"labels: a list of names, or a mapping value → name, found the text {labels!r}")
    if head is not None and not isinstance(head, str) and not isinstance(dict(head).get("name"), str):
        mistakes.append(f"head: write a kind of head, or {{name: …, arguments}}, found {head!r}")
    elif head is not None:
        kind = head if isinstance(head, str) else str(head["name"])
        if kind not in registry.heads:
            mistakes.append(f"head: unknown head {kind!r}{suggestion(kind, registry.heads.names())}")
    for metric in more.get("metrics") or []:
        if not str(metric).startswith("evaluate:") and metric not in registry.metrics:
            mistakes.append(f"metrics: unknown metric {metric!r}{suggestion(metric, registry.metrics.names())}")
    return mistakes


def _read(data: Any, options: Mapping[str, Any], columns: Sequence[str] | None) -> _Data:
    notes: list[str] = []
    if not is_paths(data):
        splits = splits_of(data, notes)
        return _Data(splits, splits, {}, notes=notes)
    files = files_of(data, options, columns)
    splits = _read_files(files.spec)
    return _Data(splits, splits, files.spec, (files.text, files.label), files.notes)


def _probe(spec: Mapping[str, Any]) -> Task:
    """A task that only says where rows are, for the readers and their messages."""
    return validated({"name": "new", "head": "?", "inputs": ["?"], "dataset": dict(spec)}, "data")


def _read_files(spec: Mapping[str, Any]) -> dict[str, Dataset]:
    task = _probe(spec)
    try:
        return dict(local_files(task, task.dataset, None))
    except DataError as error:
        hint = "\n(options of the reader: options={…} in Python, --option KEY=VALUE on the command line)"
        said = str(error).replace("task 'new': ", "data: ")
        files = [str(file) for group in resolve_files(task, task.dataset, None).values() for file in group]
        if not any(file in said for file in files):
            said = said.replace("data: ", f"data: {', '.join(files[:3])}: ", 1)
        raise DataError(f"{said}{hint if 'options' in said else ''}") from error


def _prepared(splits: dict[str, Dataset], spec: Mapping[str, Any], prepare: Any) -> dict[str, Dataset]:
    """The rows after what the caller says of `prepare`."""
    task = _probe(spec or {"path": "given"})
    for step in _as_list(prepare):
        splits = {split: prepared(task, step, split, rows) for split, rows in splits.items()}
    return splits


def _words_as_words(
    own: _Data, looks: dict[str, Look], chosen: Columns, choose: Callable[[dict[str, Look]], Columns]
) -> tuple[_Data, dict[str, Look], Columns]:
    """CSV readers take words such as NA, None and null for empty cells; in texts and labels they are words."""
    given = own.spec.get("options", {})
    might = [name for name, one in looks.items() if one.empty and one.kind in _OF_WORDS]
    if own.spec.get("path") != "csv" or _NA_OPTIONS & set(given) or not might:
        return own, looks, chosen
    spec = {**own.spec, "options": {**given, "keep_default_na": False, "na_values": [""]}}
    splits = _read_files(spec)
    again = {name: look(splits["train"], name) for name in looks}
    second = choose(again)
    used = [name for name in (*second.inputs, second.target) if name in looks]
    numbers = [name for name in used if looks[name].kind not in _OF_WORDS]
    found = {
        str(new)
        for split, rows in splits.items()
        for name in used
        if name in might and name in rows.column_names
        for old, new in zip(own.splits[split][name][:], rows[name][:], strict=True)
        if old is None and not is_blank(new)
    }
    if second.mistakes or not found or any(again[name].kind != looks[name].kind for name in numbers):
        return own, looks, chosen
    said = (
        f"data: {few(in_order(found))} in {' or '.join(n for n in used if n in might)} are read as words, not as empty"
    )
    return _Data(splits, splits, spec, own.hints, [*own.notes, said]), again, second


def _empty_as_none(own: _Data, looks: Mapping[str, Look], chosen: Columns, kind: Kind) -> None:
    """In a CSV column of several labels in one text, an empty cell says that none holds, and not that none is known."""
    given = own.spec.get("options", {})
    ours = given.get("na_values") == [""]
    several = any(step["name"] == "split_labels" for step in kind.prepare)
    if own.spec.get("path") != "csv" or not several or (_NA_OPTIONS & set(given) and not ours):
        return
    if looks[str(chosen.target)].empty and not any(looks[name].empty for name in chosen.inputs):
        kept = {key: value for key, value in given.items() if key != "na_values"}
        own.spec = {**own.spec, "options": {**kept, "keep_default_na": False}}
        kind.notes.append(f"labels: an empty cell in {chosen.target!r} means that none of them holds")


def _kind(own: _Data, looks: Mapping[str, Look], chosen: Columns, head: Any, labels: Labels) -> Kind:
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
    own: _Data,
    looks: Mapping[str, Look],
    chosen: Columns,
    kind: Kind,
    template: str | None,
    more: Mapping[str, Any],
) -> Task:
    notes = [*own.notes, *chosen.notes, *kind.notes]
    simple = parse_spec(kind.head, "head")[0] in _SIMPLE
    if own.spec:
        dataset, rows = own.spec, None
    else:
        used = [column for column in (*chosen.inputs, chosen.target) if column is not None]
        rows = select(own.raw, used) if simple and "prepare" not in more else own.raw
        dataset = {"path": MEMORY, "memory": recorded(rows).model_dump()}
    optional = Template(template).optional if template is not None else frozenset()
    blank = [column for column in chosen.inputs if looks[column].empty and column not in optional]
    prepare = [*_as_list(more.get("prepare", [])), *kind.prepare]
    if blank:
        prepare.append({"name": "drop_empty", "columns": blank})
        count = sum(any(map(is_blank, cells)) for cells in _cells(own.splits, blank))
        notes.append(f"rows: {count} without {' or '.join(blank)} left out (`prepare: drop_empty`)")
    for most in (2, 1, 0):
        splits = choose_splits(own.splits, chosen.inputs, chosen.target, most=most)
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
    sizes = ", ".join(f"{split} {len(part)}" for split, part in counted.items())
    return task.knowing(rows, [*notes, f"rows: {sizes}"])


def _cells(splits: Mapping[str, Dataset], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of some columns, row by row."""
    for rows in splits.values():
        yield from zip(*(rows[column][:] for column in columns if column in rows.column_names), strict=True)


def _as_list(prepare: Any) -> list[Any]:
    return [prepare] if isinstance(prepare, (str, Mapping)) else list(prepare)
