"""Answers of every task to a text, a pair or a row of columns, from one encoder pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlp_mtl.batches import collate, to_device
from nlp_mtl.errors import ConfigError, DataError, suggestion
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.labels import RowsError, Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.template import Template

Input = str | tuple[str, str] | Mapping[str, Any]


def predict(
    model: MultiTaskModel | str | Path, inputs: Input | list[Input], *, tasks: Sequence[str] | None = None
) -> dict[str, Any] | list[dict[str, Any]]:
    """What every task says about an input, or about each of a list.

    Args:
        model: the model, or a run folder.
        inputs: a text (read by the tasks with one input), a pair (by those with two), or a mapping of columns (by every
            task whose columns are all there); or a list of such.
        tasks: only these.

    Returns:
        task → answer, with label names, not numbers; entities and spans with offsets. A task that lacks an input gives
        ``{"missing": [columns]}`` instead. For a list, a list in the same order.

    Raises:
        ConfigError: an unknown task.
        DataError: an input that is neither text, pair nor mapping, or has no text; names input and task.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> answers = predict(tiny_model(["cola", "rte"]), "It rained.")
        >>> sorted(answers["cola"]), answers["rte"]
        (['label', 'score', 'scores'], {'missing': ['sentence2']})
    """
    loaded = model if isinstance(model, MultiTaskModel) else MultiTaskModel.from_pretrained(model)
    if isinstance(inputs, list):
        return list(predict_stream(loaded, inputs, tasks=tasks))
    return next(predict_stream(loaded, [inputs], tasks=tasks))


def predict_stream(
    model: MultiTaskModel, inputs: Iterable[Input], *, tasks: Sequence[str] | None = None, chunk: int = 256
) -> Iterator[dict[str, Any]]:
    """As :func:`predict`, for any number of inputs with bounded memory: `chunk` inputs are encoded at a time."""
    if isinstance(tasks, str):
        raise ConfigError(f"predict: `tasks` is a list of names, found {tasks!r}; write [{tasks!r}]")
    wanted = list(tasks) if tasks is not None else model.tasks
    unknown = [task for task in wanted if task not in model.heads]
    if unknown:
        raise ConfigError(
            [f"predict: {task!r} is not a task of this model{suggestion(task, model.tasks)}" for task in unknown]
        )
    iterator, first = iter(inputs), 0
    while part := list(islice(iterator, chunk)):
        yield from _answer(model, part, wanted, first)
        first += len(part)


def _answer(model: MultiTaskModel, inputs: Sequence[Input], tasks: Sequence[str], first: int) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [{} for _ in inputs]
    rows: list[dict[str, Any]] = []
    readers: list[list[str]] = []
    known: dict[tuple[Any, ...], int] = {}
    owners: dict[str, list[tuple[int, int, dict[str, Any]]]] = {task: [] for task in tasks}
    for task in tasks:
        head = model.heads[task]
        given = [columns_for(head, value, first + number) for number, value in enumerate(inputs)]
        for number, columns in enumerate(given):
            if isinstance(columns, list):
                answers[number][task] = {"missing": columns}
        for can in _alike(given):
            for number, row in _tokenized(model, head, given, can, first):
                notes = head.ask(row, model.tokenizer)
                if notes is None:
                    answers[number][task] = {"missing": [f"{model.tokenizer.mask_token} in the text"]}
                    continue
                row.update(notes)
                key: tuple[Any, ...] = tuple(
                    tuple(row.get(name, ())) for name in ("input_ids", "token_type_ids", "lengths")
                )
                while key in known and _other_words(rows[known[key]], row):
                    key = (*key, "other words")
                if key not in known:  # the same tokens are encoded once, whichever tasks read them
                    known[key] = len(rows)
                    rows.append({})
                    readers.append([])
                rows[known[key]].update({name: np.asarray(v) if isinstance(v, list) else v for name, v in row.items()})
                if task not in readers[known[key]]:
                    readers[known[key]].append(task)
                owners[task].append((number, known[key], {**row, **given[number]}))  # type: ignore[dict-item]
    if not rows:
        return answers
    predictions = _run(model, rows, readers)
    for task, members in owners.items():
        _fill(answers, task, model.heads[task], members, predictions.get(task, {}))
    return [{task: answer[task] for task in tasks} for answer in answers]


def _alike(given: Sequence[Mapping[str, Any] | list[str]]) -> list[list[int]]:
    """The inputs that can be read: texts and lists of words apart, as they are tokenized in different ways."""
    groups: dict[bool, list[int]] = {}
    for number, columns in enumerate(given):
        if not isinstance(columns, list):
            words = any(isinstance(value, (list, tuple)) for value in columns.values())
            groups.setdefault(words, []).append(number)
    return list(groups.values())


def _tokenized(
    model: MultiTaskModel, head: Head, given: Sequence[Any], can: Sequence[int], first: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of the inputs `can`, each with the number of its input; long documents have several."""
    table = {name: [given[number][name] for number in can] for name in head.needed_columns()}
    length = min(head.task.max_length or model.max_length, model.max_length)
    try:
        tokens = head.tokenize(table, model.tokenizer, length, _Inputs(head.task.name, "inputs"))
    except RowsError as error:
        raise DataError(_unreadable(error, [first + number for number in can])) from None
    for place, source in enumerate(tokens["source"]):
        yield can[source], {name: values[place] for name, values in tokens.items()}


class _Inputs(Where):
    """The inputs of a task, for messages: they are no split."""

    def __str__(self) -> str:
        return f"predict: task {self.task!r}"


def _unreadable(error: RowsError, numbers: Sequence[int], *, most: int = 8) -> str:
    """What is wrong with inputs, by their numbers."""
    shown = [f"  input {numbers[row]}: {what}" for row, what in error.mistakes[:most]]
    more = [f"  … and {len(error.mistakes) - most} more"] if len(error.mistakes) > most else []
    ways = f"  way out: correct or leave out what is named, or ask only other tasks than {error.where.task!r}"
    count = len({row for row, _ in error.mistakes})
    return "\n".join([f"{error.where}: {count} input(s) can't be read:", *shown, *more, ways])


def _other_words(known: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether two rows of the same tokens were cut into words in different ways."""
    both = "word_positions" in known and "word_positions" in row
    return both and list(known["word_positions"]) != list(row["word_positions"])


def _run(
    model: MultiTaskModel, rows: Sequence[Mapping[str, Any]], readers: Sequence[Sequence[str]]
) -> dict[str, dict[int, Any]]:
    """One call of the model; predictions by task and row."""
    training = model.training
    model.eval()
    try:
        batch = collate(rows, readers, model.heads)
        moved = to_device(batch, model.device)
        with torch.inference_mode():
            out = model(**moved)
    finally:
        model.train(training)
    found: dict[str, dict[int, Any]] = {}
    for task, logits in out["logits"].items():
        made = model.heads[task].predict(logits, moved["targets"][task])
        found[task] = dict(zip(batch["owners"][task].tolist(), made, strict=True))
    return found


def _fill(
    answers: list[dict[str, Any]],
    task: str,
    head: Head,
    members: Sequence[tuple[int, int, dict[str, Any]]],
    predictions: Mapping[int, Any],
) -> None:
    by_input: dict[int, list[tuple[Any, dict[str, Any]]]] = {}
    for number, row, columns in members:
        by_input.setdefault(number, []).append((predictions[row], columns))
    for number, parts in by_input.items():
        answers[number][task] = head.answer_of(parts)


def columns_for(head: Head, value: Input, number: int) -> dict[str, Any] | list[str]:
    """The columns a head reads from an input, or the names of those it lacks.

    Raises:
        DataError: neither text, pair nor mapping.
    """
    needed = head.needed_columns()
    optional = Template(head.task.template).optional if head.task.template is not None else frozenset()
    if isinstance(value, str):
        asked = [column for column in needed if column not in optional] or needed
        if len(asked) == 1:
            return {**dict.fromkeys(needed), asked[0]: value}
        return asked if head.task.template is not None else asked[1:]  # a template says which column the text would be
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(text, str) for text in value):
        if len(needed) == 2 and needed == head.task.inputs:
            return dict(zip(needed, value, strict=True))
        return [column for column in needed if column not in head.task.inputs] or [
            f"{len(needed)} input(s), not a pair"
        ]
    if isinstance(value, Mapping):
        missing = [column for column in needed if column not in value and column not in optional]
        return missing or {column: value.get(column) for column in needed}
    raise DataError(
        f"input {number}: a text, a pair of texts or a mapping of columns is read, found {str(value)[:60]!r}; give one "
        "of them"
    )
