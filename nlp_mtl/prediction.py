"""Answers of every task to a text, a pair or a row of columns, from one encoder pass."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nlp_mtl.batches import collate, to_device
from nlp_mtl.errors import ConfigError
from nlp_mtl.inputs import Input, InputReader, Window, read_window
from nlp_mtl.memory import give_back
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.runspec import unknown_tasks
from nlp_mtl.settings import autocast_to, checked_dtype
from nlp_mtl.windows import equal_passes, windows

logger = logging.getLogger("nlp_mtl")
WINDOW = 1024
# What goes through the encoder at once: on a CPU what stays in its caches, elsewhere what keeps the device busy.
TOKENS = {"cpu": 2048}
TOKENS_ELSEWHERE = 32_768
_TEXT = 1_000_000  # characters that a window holds at most, however long its texts are


def predict(
    model: MultiTaskModel | str | Path,
    inputs: Input | list[Input],
    *,
    tasks: Sequence[str] | None = None,
    dtype: str | torch.dtype = "auto",
) -> dict[str, Any] | list[dict[str, Any]]:
    """What every task says about an input, or about each of a list.

    Args:
        model: the model, or a run folder.
        inputs: a text (read by the tasks with one input), a pair (by those with two), or a mapping of columns (by every
            task whose columns are all there); or a list of such.
        tasks: only these.
        dtype: what matrix products compute in: ``auto``, ``float32``, ``bfloat16``, ``float16``, or such a
            `torch.dtype`. ``auto`` is what the model was trained and scored in, where the device has it; for a model
            without a run, bfloat16 where the device has it. Heads that read one vector of a text compute in float32
            always.

    Returns:
        task → answer, with label names, not numbers; entities and spans with offsets. A task that lacks an input gives
        ``{"missing": [columns]}`` instead. For a list, a list in the same order.

    Raises:
        ConfigError: an unknown task or dtype.
        DataError: an input that is neither text, pair nor mapping, or has no text; names input and task.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> answers = predict(tiny_model(["cola", "rte"]), "It rained.")
        >>> sorted(answers["cola"]), answers["rte"]
        (['label', 'score', 'scores'], {'missing': ['sentence2']})
    """
    loaded = model if isinstance(model, MultiTaskModel) else open_model(model, tasks=tasks, dtype=dtype)
    if isinstance(inputs, list):
        return list(predict_stream(loaded, inputs, tasks=tasks, dtype=dtype))
    return next(predict_stream(loaded, [inputs], tasks=tasks, dtype=dtype))


def open_model(
    folder: str | Path,
    *,
    base: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    dtype: str | torch.dtype = "auto",
) -> MultiTaskModel:
    """The model of a run folder, with the heads of the tasks that are asked and no others.

    Args:
        folder: a run folder or checkpoint.
        base: see :meth:`MultiTaskModel.from_pretrained`.
        tasks: only these.
        dtype: what will be asked for; checked here, so that all mistakes are told at once.

    Raises:
        ConfigError: an unknown task or dtype.
        RunFolderError: see :meth:`MultiTaskModel.from_pretrained`.
    """
    mistakes: list[str] = []
    try:
        checked_dtype(dtype)
    except ConfigError as error:
        mistakes = error.mistakes
    try:
        model = MultiTaskModel.from_pretrained(folder, base=base, tasks=tasks)
    except ConfigError as error:
        raise ConfigError([*error.mistakes, *mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    return model


def predict_stream(
    model: MultiTaskModel,
    inputs: Iterable[Input],
    *,
    tasks: Sequence[str] | None = None,
    dtype: str | torch.dtype = "auto",
    window: int = WINDOW,
    tokens_per_pass: int | None = None,
) -> Iterator[dict[str, Any]]:
    """As :func:`predict`, for any number of inputs with bounded memory; answers come in the order of the inputs.

    A window of inputs is read, each different text is tokenized once for all tasks that read it in the same manner, and
    each different row goes through the encoder once, sorted by length, in passes of so many tokens.

    Args:
        model: the model.
        inputs: texts, pairs or mappings; no more than a window is read ahead.
        tasks, dtype: see :func:`predict`.
        window: inputs that are held at a time; fewer where their texts are very long.
        tokens_per_pass: tokens of one pass through the encoder, at most, unless a single row has more; default by the
            device.

    Raises:
        ConfigError, DataError: see :func:`predict`. The inputs before the window of a bad one are answered.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> stream = predict_stream(tiny_model(["cola"]), (text for text in ["It rained.", "Rained it."]))
        >>> [sorted(answer) for answer in stream]
        [['cola'], ['cola']]
    """
    if isinstance(tasks, str):
        raise ConfigError(f"predict: `tasks` is a list of names, found {tasks!r}; write [{tasks!r}]")
    wanted = list(dict.fromkeys(tasks)) if tasks is not None else model.tasks
    if tokens_per_pass is None:
        tokens_per_pass = usual_tokens(model)
    mistakes = unknown_tasks(wanted, model.tasks)
    for name, count in (("window", window), ("tokens_per_pass", tokens_per_pass)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            mistakes.append(f"predict: `{name}` is a whole number from 1, found {count!r}; leave it out for the usual")
    try:
        dtype = checked_dtype(dtype)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    readers = readers_of(model, wanted)
    if (copies := model.sharing.copies(wanted)) > 1:
        logger.info("one adapter per task: a text that all asked tasks read goes through the encoder %d times", copies)
    first = 0
    for part in windows(inputs, window, text=_TEXT):
        answers = answer_window(model, readers, part, first=first, dtype=dtype, tokens_per_pass=tokens_per_pass)
        first += len(part)
        del part  # before the next one is read
        many = len(answers) >= window
        yield from answers
        del answers
        if many:  # more may follow
            give_back()


def readers_of(model: MultiTaskModel, tasks: Iterable[str]) -> list[InputReader]:
    """How some tasks of a model read inputs.

    Args:
        model: the model.
        tasks: their names.
    """
    return [InputReader(model.heads[task], model.max_length) for task in tasks]


def usual_tokens(model: MultiTaskModel) -> int:
    """Tokens of one pass through the encoder that suit the model's device."""
    return TOKENS.get(model.device.type, TOKENS_ELSEWHERE)


def answer_window(
    model: MultiTaskModel,
    readers: Sequence[InputReader],
    inputs: Sequence[Input],
    *,
    dtype: str | torch.dtype,
    tokens_per_pass: int,
    first: int = 0,
    tasks: Sequence[Collection[str]] | None = None,
) -> list[dict[str, Any]]:
    """The answers to some inputs at once: what :func:`predict_stream` does with each window.

    Args:
        model: the model.
        readers: of the tasks that answer.
        inputs: the inputs.
        dtype, tokens_per_pass: see :func:`predict_stream`.
        first: the number of the first input, for messages.
        tasks: for each input the tasks that are asked about it; default all.

    Raises:
        DataError: an input that can't be read.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["cola", "sst2"])
        >>> inputs, asked = ["It rained.", "Rained it."], [["cola"], ["sst2", "cola"]]
        >>> settings = {"dtype": "auto", "tokens_per_pass": usual_tokens(model)}
        >>> answers = answer_window(model, readers_of(model, model.tasks), inputs, tasks=asked, **settings)
        >>> [sorted(answer) for answer in answers]
        [['cola'], ['cola', 'sst2']]
    """
    found = read_window(readers, inputs, model.tokenizer, first, tasks)
    predictions = _run(model, found, dtype, tokens_per_pass)
    answers: list[dict[str, Any]] = [{} for _ in inputs]
    for reader in readers:  # so each answer has its tasks in the order asked for
        made: dict[int, dict[str, Any]] = {
            number: {"missing": lacking} for number, lacking in found.missing[reader.task].items()
        }
        asked, own = found.asked[reader.task], predictions.get(reader.task, {})
        parts = [
            [(own[part.row], {**part.columns, **dict(zip(reader.needed, values, strict=True))}) for part in rows]
            for _, values, rows in asked
        ]
        if parts:
            said = reader.head.answers(parts)
            made.update(zip((number for number, _, _ in asked), said, strict=True))
        for number, answer in made.items():
            answers[number][reader.task] = answer
    return answers


def _run(model: MultiTaskModel, found: Window, dtype: str | torch.dtype, tokens: int) -> dict[str, dict[int, Any]]:
    """The rows through the model; predictions by task and row."""
    predictions: dict[str, dict[int, Any]] = {}
    read = [number for number, tasks in enumerate(found.readers) if tasks]
    training = model.training
    model.eval()
    try:
        # no_grad: in inference mode autocast keeps no weight, and would cast all of them again for every pass
        with torch.no_grad(), autocast_to(model.device, dtype, model.strategies.get("precision")):
            sizes = [sum(found.rows[i]["lengths"]) * model.sharing.copies(found.readers[i]) for i in read]
            for numbers in equal_passes(read, sizes, tokens):
                rows, tasks = [found.rows[i] for i in numbers], [found.readers[i] for i in numbers]
                batch = collate(rows, tasks, model.heads)
                moved = to_device(batch, model.device)
                with model.sharing.alone():
                    logits = model(**moved)["logits"]
                for task, scores in logits.items():
                    made = model.heads[task].predict(scores, moved["targets"][task])
                    owners = [numbers[i] for i in batch["owners"][task].tolist()]
                    predictions.setdefault(task, {}).update(zip(owners, made, strict=True))
    finally:
        model.train(training)
    return predictions
