"""The check of a task from YAML to loss, for tests and for ``nlp-mtl tasks check``, with a tiny model made in code.

Nothing here needs a network, a download or data. Tiny models: :mod:`nlp_mtl.tinymodels`, named here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nlp_mtl import batches, reading
from nlp_mtl.errors import DataError, NlpMtlError
from nlp_mtl.heads import Head, make_heads
from nlp_mtl.heads.labels import Where, metric_column
from nlp_mtl.heads.texts import check_texts
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.registry import not_built
from nlp_mtl.taskfile import Task
from nlp_mtl.template import Template
from nlp_mtl.tinymodels import DECODERS, WORDS, tiny_encoder, tiny_model, tiny_tokenizer, tiny_writer

__all__ = [
    "DECODERS",
    "WORDS",
    "check_rows",
    "check_task",
    "tiny_encoder",
    "tiny_model",
    "tiny_tokenizer",
    "tiny_writer",
]


def check_task(task: Task) -> list[str]:
    """Take a task's example rows the whole way: columns, labels, tokens, batch, loss, metrics, on a tiny model.

    Returns:
        What is wrong, one message each; none if the task works. If its head is not built yet, only columns are checked.
    """
    try:
        if not_built(task.head_name):
            _check_only_texts(task, _example_columns(task, task.inputs), "examples")
            return []
        head = next(iter(make_heads([task.with_(head_of=None)]).values()))
        rows = _example_columns(task, head.needed_columns())
        model = _with_head(head, rows)
        made = _rows_of(head, rows, model.tokenizer)
        batch = batches.collate(made, [[task.name]] * len(made), {task.name: head})
        with torch.no_grad():
            out = model(**batch)
        if head.needs_labels and task.target and not torch.isfinite(out["loss"]):
            return [f"task {task.name!r}: the loss on the example rows is {out['loss'].item()}"]
        predictions = head.predict(out["logits"][task.name], batch["targets"][task.name])
        _score(head, made, rows, predictions)
    except NlpMtlError as error:
        return getattr(error, "mistakes_in_words", None) or str(error).split("\n")
    return []


def _check_only_texts(task: Task, rows: Mapping[str, Sequence[Any]], split: str) -> None:
    """Text in every row of the inputs and, where it is there, of the target: all that can be known without the head."""
    for column, values in rows.items():
        if column in (*task.inputs, task.target):
            check_texts([values], [column], False, Where(task.name, split))


def _example_columns(task: Task, needed: Sequence[str]) -> dict[str, list[Any]]:
    if len(task.examples) < 1:
        raise DataError(f"task {task.name!r}: `examples` is empty; write a row or two in the shape of the data")
    columns = [*needed, *([task.target] if task.target else []), *task.metric_columns.values()]
    optional = Template(task.template).optional if task.template is not None else frozenset()
    for number, row in enumerate(task.examples):
        missing = [column for column in columns if column not in row and column not in optional]
        if missing:
            raise DataError(f"task {task.name!r}: example {number} lacks the column {', '.join(map(repr, missing))}")
    return {column: [row.get(column) for row in task.examples] for column in columns}


def _with_head(head: Head, rows: dict[str, list[Any]]) -> MultiTaskModel:
    if head.labels is None and type(head).label_names is not Head.label_names and head.task.target:
        values = rows[head.task.target]
        numbers = [value for value in values if isinstance(value, int)]
        names = (
            [str(number) for number in range(max(numbers) + 1)] if numbers else sorted({str(v) for v in _flat(values)})
        )
        head.set_labels(names)
    if head.task.target:
        head.meet(tiny_tokenizer(), texts=rows[head.task.target])
    encoder = tiny_encoder("bert")
    return MultiTaskModel.assemble(
        encoder, tiny_tokenizer(), {head.task.name: head}, base={"id": "tiny"}, max_length=128
    ).eval()


def _flat(values: Sequence[Any]) -> list[Any]:
    return [x for value in values for x in (value if isinstance(value, (list, tuple)) else [value])]


def _rows_of(head: Head, rows: dict[str, list[Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """The rows of a mixed batch, from raw rows, without a file or a cache."""
    name, target = head.task.name, head.task.target
    where = Where(name, "examples")
    tokens = head.tokenize(rows, tokenizer, 128, where)
    count = len(next(iter(rows.values())))
    values = rows[target] if target else [None] * count
    names = head.labels if _numbered(values) else None
    labels = head.place_labels(
        head.encode_labels(values, getattr(head, "data_labels", None) or names, rows, where), tokens
    )
    made = []
    for number in range(len(tokens["input_ids"])):
        row = {key: values[number] for key, values in tokens.items()}
        row["input_ids"], notes = head.corrupt(_array(row["input_ids"]), row, (0, number))
        made.append({**row, **notes, f"labels:{name}": labels[number]})
    return made


def _score(head: Head, made: list[dict[str, Any]], rows: dict[str, list[Any]], predictions: Sequence[Any]) -> None:
    """Decode and score, as an evaluation does."""
    name, target = head.task.name, head.task.target
    table = {key: [row[key] for row in made] for key in made[0]}
    table |= {column: [rows[column][source] for source in table["source"]] for column in head.needed_columns()}
    if head.keeps_target and target:
        table[f"target:{name}"] = [rows[target][source] for source in table["source"]]
    for need, column in head.task.metric_columns.items():
        table[metric_column(head.task, need)] = [rows[column][source] for source in table["source"]]
    decoded, labels = head.decode(predictions, table), table[f"labels:{name}"]
    if not head.needs_labels or all(label is not None for label in labels):
        given = head.for_metrics(table, lambda: head.scores(predictions))
        head.score(decoded, head.references(labels, table), given)


def _numbered(values: Sequence[Any]) -> bool:
    return any(isinstance(value, int) for value in _flat(values))


def _array(values: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(values)


def check_rows(task: Task, data_root: Any = None, *, most: int = 200) -> tuple[str, list[str]]:
    """The same on real rows of every split, where the data is found without fetching anything.

    Returns:
        What was looked at, in words, and what is wrong.
    """
    from nlp_mtl import packages, sources
    from nlp_mtl.errors import NotFoundError

    if task.dataset.package and not packages.is_fetched(task.dataset.package):
        return "real rows not at hand", []
    try:
        with reading.offline():
            found = sources.load_rows(task, data_root=data_root)
    except NotFoundError:
        return "real rows not at hand", []
    except NlpMtlError as error:
        return "", str(error).split("\n")
    planned = not_built(task.head_name)
    head = Head(task) if planned else next(iter(make_heads([task.with_(head_of=None)]).values()))
    mistakes, looked = [], []
    for split, rows in found.items():
        if head.labels is None and task.target in rows.column_names:
            head.set_labels(head.label_names(rows, task.target or ""))
        part = rows.select(range(min(most, len(rows))))[:]
        looked.append(f"{split} {min(most, len(rows))} of {len(rows)}")
        try:
            if planned:
                _check_only_texts(task, part, split)
                continue
            tokens = head.tokenize(part, tiny_tokenizer(), 128, Where(task.name, split))
            if task.target and task.target in part:
                head.meet(tiny_tokenizer(), texts=part[task.target])
                from nlp_mtl.tokenizing import number_names

                labels = head.encode_labels(
                    part[task.target], number_names(rows, task.target), part, Where(task.name, split)
                )
                head.place_labels(labels, tokens)
        except NlpMtlError as error:
            mistakes += str(error).split("\n")
    return f"real rows {'have them' if planned else 'work'} ({', '.join(looked)})", mistakes
