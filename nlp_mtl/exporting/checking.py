"""Every export is compared with the run before it is put in its place: a wrong one is never written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.batches import collate, to_device
from nlp_mtl.errors import DataError, UnsupportedError
from nlp_mtl.exporting.plain import max_length
from nlp_mtl.heads.labels import Where
from nlp_mtl.heads.multiple_choice import MultipleChoice
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasks import task_registry

TOLERANCE = 1e-5
TEXTS = (
    "It rained.",
    "The old house by the river was sold in 1987, and nobody in Trondheim knew why!",
    "Yes?",
    "Ms Okafor met two friends at the station; they talked for an hour about music, then about the price of bread, and "
    "last about their children, before the train to Lyon left.",
    "A good film with a bad end",
)


@dataclass
class Probe:
    """What a run says about a few rows of a task.

    Attributes:
        task: its name.
        examples: how many of the rows are the task's own examples; the others are made up.
        rows: how many rows there are.
        sequences: token ids (and types) of each sequence, without padding.
        logits: the run's, in the head's own shape.
        target: where the task's rows are among the sequences.
    """

    task: str
    examples: int
    rows: int
    sequences: list[dict[str, list[int]]]
    logits: Tensor
    target: Mapping[str, Tensor]


def probe(model: MultiTaskModel, task: str, tokenizer: Any, rows: Sequence[Mapping[str, Any]] | None = None) -> Probe:
    """Ask the run about the task's example rows and made-up ones.

    Args:
        model: of the run.
        task: one of its tasks.
        tokenizer: the one that is exported.
        rows: rows of the task to compare on; default the examples of the registered task of this name.
    """
    head = model.heads[task]
    own = list(rows) if rows is not None else examples_of(model, task)
    every = [*own, *made_up(model, task)]
    where, length = Where(task, "check of an export"), max_length(model, task)
    made: list[dict[str, Any]] = []
    read = 0
    for place, row in enumerate(every):  # one at a time: texts and lists of words may stand side by side
        columns = {name: [row.get(name)] for name in head.needed_columns()}
        try:
            tokens, known = (head.tokenize(columns, t, length, where) for t in (tokenizer, model.tokenizer))
        except DataError:
            if place < len(own) or (place == len(every) - 1 and not read):
                raise
            continue  # a made-up question that is too long, say
        read += 1
        if tokens["input_ids"] != known["input_ids"]:
            raise UnsupportedError(f"task {task!r}: the exported tokenizer reads {row} in another way than the run's")
        for number in range(len(tokens["input_ids"])):
            part = {name: values[number] for name, values in tokens.items()}
            part["input_ids"], notes = head.corrupt(np.asarray(part["input_ids"]), part, (0, len(made)))
            made.append({**part, **notes})
    batch = collate(made, [[task]] * len(made), {task: head})
    moved = to_device(batch, model.device)
    training = model.training
    model.eval()
    with torch.inference_mode():
        logits = model(**moved)["logits"][task].float().cpu()
    model.train(training)
    lengths = batch["lengths"].tolist()
    given = [name for name in ("input_ids", "token_type_ids") if name in batch]
    parts: dict[str, Any] = {name: batch[name].split(lengths) for name in given}
    sequences = [{name: part[i].tolist() for name, part in parts.items()} for i in range(len(lengths))]
    return Probe(task, len(own), read, sequences, logits, batch["targets"][task])


def examples_of(model: MultiTaskModel, task: str) -> list[Mapping[str, Any]]:
    """Example rows of the registered task of this name, if it reads the same columns; a run folder keeps none."""
    known, head = task_registry().sound().get(task), model.heads[task]
    if head.task.examples:
        return list(head.task.examples)
    if known is None or known.inputs != head.task.inputs or known.head_name != head.task.head_name:
        return []
    return [row for row in known.examples if all(row.get(name) is not None for name in head.needed_columns())]


def made_up(model: MultiTaskModel, task: str) -> list[dict[str, Any]]:
    """Rows of texts of ours in every column that the task reads."""
    head = model.heads[task]
    several = head.choices if isinstance(head, MultipleChoice) and isinstance(head.choices, str) else None
    rows: list[dict[str, Any]] = []
    for number in range(len(TEXTS)):
        texts = [TEXTS[(number + place) % len(TEXTS)] for place in range(len(head.needed_columns()))]
        row: dict[str, Any] = dict(zip(head.needed_columns(), texts, strict=True))
        if several:
            row[several] = list(TEXTS[: 2 + number % 3])
        rows.append(row)
    return rows


def in_our_shape(model: MultiTaskModel, probed: Probe, logits: Sequence[Tensor]) -> Tensor:
    """Logits of each sequence, as the vanilla class gives them, in the shape of the head's own.

    Args:
        model: of the run.
        probed: the rows.
        logits: for each sequence [labels], or [tokens, labels] where the class gives them by token.
    """
    head, target = model.heads[probed.task], probed.target
    if head.auto_class == "AutoModelForSequenceClassification":
        found = torch.stack([logits[i] for i in target["sequences"].tolist()])
        return found.squeeze(-1) if probed.logits.dim() == 1 else found
    if head.auto_class == "AutoModelForMultipleChoice":
        scores = torch.cat([logits[i].flatten() for i in target["sequences"].tolist()])
        return _filled(scores.split(target["counts"].tolist()))
    if head.auto_class == "AutoModelForQuestionAnswering":
        return _filled([logits[i] for i in target["sequences"].tolist()])
    if head.auto_class in ("AutoModelForTokenClassification", "AutoModelForMaskedLM"):
        return torch.cat(list(logits))[target["positions"]]
    raise UnsupportedError(f"task {probed.task!r}: a head of the kind {head.task.head_name!r} has no known outputs")


def _filled(parts: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=float("-inf"))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference between logits, relative to the largest where that is over 1; inf if shapes differ."""
    if ours.shape != theirs.shape or not torch.equal(torch.isfinite(ours), torch.isfinite(theirs)):
        return float("inf")
    finite = torch.isfinite(ours)
    if not finite.any():
        return float("inf")
    scale = max(1.0, float(ours[finite].abs().max()))
    return float((ours - theirs)[finite].abs().max()) / scale


def compare(
    model: MultiTaskModel,
    probed: Probe,
    tokenizer: Any,
    run: Callable[[dict[str, Tensor]], Tensor],
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """Run an export on the rows, all padded together and some alone, and compare.

    Args:
        model: of the run.
        probed: what the run said.
        tokenizer: the exported one, which pads.
        run: from a padded batch of sequences, each input [sequences, length], to the logits of each.
        tolerance: the largest difference allowed.

    Returns:
        The largest difference.

    Raises:
        DataError: it is over the tolerance.
    """
    together = _run(probed.sequences, tokenizer, run)
    alone = [_run([part], tokenizer, run)[0] for part in probed.sequences[:2]]
    found = difference(probed.logits, in_our_shape(model, probed, together))
    for first, second in zip(alone, together, strict=False):
        found = max(found, difference(first, second))
    if not found <= tolerance:
        raise DataError(
            f"export: task {probed.task!r}: the logits of what was written differ from the run's by {found:.2g} on "
            f"{probed.rows} rows, allowed is {tolerance:.0e}; nothing was kept"
        )
    return found


def _run(
    sequences: Sequence[dict[str, list[int]]], tokenizer: Any, run: Callable[[dict[str, Tensor]], Tensor]
) -> list[Tensor]:
    padded = tokenizer.pad([*map(dict, sequences)], return_tensors="pt")
    inputs = {name: values for name, values in padded.items() if name in tokenizer.model_input_names}
    with torch.inference_mode():
        logits = run(inputs).float()
    by_token = logits.dim() == 3 and logits.shape[1] == inputs["input_ids"].shape[1]
    lengths = [len(part["input_ids"]) for part in sequences]
    return [row[:length] if by_token else row for row, length in zip(logits, lengths, strict=True)]
