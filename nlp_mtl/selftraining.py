"""Self-training: labels that a model gives to rows it is sure of, for the next model to learn from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_mtl.batches import Collator, length_sorted
from nlp_mtl.data import Data, PoolRows
from nlp_mtl.domainspec import PseudoLabels, unsure
from nlp_mtl.errors import ConfigError
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.heads.token_classification import TokenClassification

if TYPE_CHECKING:
    from nlp_mtl.model import MultiTaskModel

logger = logging.getLogger("nlp_mtl")


@dataclass
class Given:
    """What one task's training rows were given.

    Attributes:
        labels: [rows], as the task's head stores them; None for a row that was given none.
        counts: label → how many rows (of tags: words) have it.
        agreement: the share that agrees with the data's own labels where it has some; None where it has none. It is
            told, and nothing hangs on it.
        key: of the rows' tokens, by which the same rows are known again.
    """

    labels: list[Any]
    counts: dict[str, int]
    agreement: float | None
    key: str

    @property
    def rows(self) -> int:
        """How many rows have a label now."""
        return sum(label is not None for label in self.labels)


def pseudo_labels_of(model: MultiTaskModel, data: Data, asked: PseudoLabels) -> dict[str, Given]:
    """What a model says about training rows, where it is sure enough.

    A row takes the most probable class as its label if that has at least the probability `confidence`, else it has no
    label and is not trained on. Of tags each word is decided by itself. The rows' own labels are taken away before the
    model sees them.

    Args:
        model: a model whose heads for these tasks were trained; it is left as it was.
        data: its tokenized rows, from :func:`nlp_mtl.data.load_data`.
        asked: which rows.

    Returns:
        Task → what its rows were given; :func:`with_labels` puts it into the data.

    Raises:
        ConfigError: tasks without training rows, or of kinds that are never sure; heads that never learned.

    Relations: self-training (Yarowsky, 1995, 10.3115/981658.981684), pseudo-labels (Lee, 2013), for pretrained encoders
    Du et al. (2020, arXiv 2010.02194). Like distillation, but from hard labels, of sure rows only. Several stages are
    several rounds, each labelled by the one before.

    cost: one evaluation of the training rows before the first step.
    """
    if mistakes := [wrong for task in asked.tasks if (wrong := why_not(model, data, asked, task))]:
        raise ConfigError(mistakes)
    return {task: _given(model, data, asked, task) for task in asked.tasks}


def why_not(model: MultiTaskModel, data: Data, asked: PseudoLabels, task: str) -> str:
    """Why a task can't be given labels; empty if it can."""
    if task not in model.heads:
        return f"pseudo_labels: {task!r} is not a task of this model ({', '.join(model.tasks)}); name one"
    head = model.heads[task]
    if reason := unsure(head, asked):
        return reason
    pool, owner = data.pool_of(task, "train"), head.task.head_key
    if pool is None or not len(pool):
        return f"pseudo_labels: {task!r} has no training rows to be labelled; leave it out"
    if model.fresh and owner not in model.begun:
        return (
            f"pseudo_labels: the model that the run starts from says what the labels are, and it has no trained head "
            f"for {task!r}; start from a run that trained {owner!r} (`init_from`, or an earlier stage)"
            + ("" if owner != task else ", or let the task use a trained one (`head_of`)")
        )
    return ""


def _given(model: MultiTaskModel, data: Data, asked: PseudoLabels, task: str) -> Given:
    pool = data.pool_of(task, "train")
    assert pool is not None
    head = model.heads[task]
    predictions = _predict(model, without_labels(replace(pool, tasks=(task,)), task), task)
    labels: list[Any]
    if isinstance(head, TokenClassification):
        labels = [
            _tags(prediction, pool.row(number)["word_positions"], asked.confidence)
            for number, prediction in enumerate(predictions)
        ]
        flat = [tag for row in labels for tag in (row or ()) if tag >= 0]
    else:
        labels = _classes(np.asarray(head.scores(predictions)), asked)
        flat = [label for label in labels if label is not None]
    names = head.labels or []
    counts = {name: flat.count(number) for number, name in enumerate(names)}
    found = Given(labels, counts, agreement(labels, pool.labels(task)), key_of(pool))
    _tell(task, found, len(pool), asked)
    return found


def _predict(model: MultiTaskModel, pool: PoolRows, task: str) -> list[Any]:
    """A prediction for each row, in float32 and without dropout."""
    import torch

    training, collator = model.training, Collator([pool], {task: model.heads[task]})
    evaluator, found = Evaluator(Data({task: model.heads[task]})), {"rows": {}, "loss": {}}  # type: ignore[var-annotated]
    model.eval()
    try:
        with torch.autocast(torch.device(model.device).type, enabled=False):
            for refs in length_sorted([pool], rows=8):
                evaluator.predict_batch(model, collator, refs, found)
    finally:
        model.train(training)
    return [found["rows"][task][0, row] for row in range(len(pool))]


def _classes(scores: np.ndarray, asked: PseudoLabels) -> list[int | None]:
    """[rows]: each row's class or None.

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.05, 0.95]])
        >>> _classes(scores, PseudoLabels(("a",), 0.5, balanced=True))
        [0, None, None, 1]
        >>> _classes(scores, PseudoLabels(("a",), 0.8, most=2))
        [0, None, None, 1]
    """
    classes, sure = scores.argmax(1), scores.max(1)
    chosen = [n for n in np.argsort(-sure, kind="stable").tolist() if sure[n] >= asked.confidence]
    if asked.balanced and chosen:
        there = sorted({int(classes[n]) for n in chosen})
        each = min(sum(classes[n] == kind for n in chosen) for kind in there)
        if asked.most is not None:
            each = min(each, asked.most // len(there))
        chosen = [n for kind in there for n in [n for n in chosen if classes[n] == kind][:each]]
    taken = set(chosen[: asked.most] if asked.most is not None else chosen)
    return [int(kind) if n in taken else None for n, kind in enumerate(classes)]


def _tags(prediction: np.ndarray, positions: Sequence[int], confidence: float) -> list[int] | None:
    """The tags of all words of a row, −1 where none is sure or the word was cut; None if that is all of them."""
    found = iter(prediction.tolist())
    tags = [-1] * len(positions)
    for word, place in enumerate(positions):
        if place >= 0:
            tag, sure = next(found)
            tags[word] = int(tag) if sure >= confidence else -1
    return tags if any(tag >= 0 for tag in tags) else None


def agreement(labels: Sequence[Any], own: Sequence[Any]) -> float | None:
    """The share of given labels that are those of the data; None where it has none.

    Example:
        >>> agreement([0, None, 1], [0, 1, 0])
        0.5
    """
    pairs = [
        pair
        for ours, theirs in zip(labels, own, strict=True)
        if ours is not None and theirs is not None
        for pair in (zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)])
    ]
    known = [(a, b) for a, b in pairs if a >= 0 and b >= 0]
    return sum(a == b for a, b in known) / len(known) if known else None


def _tell(task: str, found: Given, rows: int, asked: PseudoLabels) -> None:
    shown = [f"{count} {name!r}" for name, count in found.counts.items() if count]
    said = ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "") or "none"
    right = "" if found.agreement is None else f"; {found.agreement:.3f} of them agree with the data's own labels"
    logger.info(
        "pseudo_labels: %s: %d of %d rows at confidence %g: %s%s", task, found.rows, rows, asked.confidence, said, right
    )
    if missing := [name for name, count in found.counts.items() if not count]:
        logger.warning(
            "pseudo_labels: %s: no row is surely %s; lower `confidence` if they are to be learned from",
            task,
            ", ".join(map(repr, missing[:6])) + (f" or {len(missing) - 6} more" if len(missing) > 6 else ""),
        )


# ------------------------------------------------------------------------------------------------ labels in the data


def with_labels(data: Data, given: dict[str, Given]) -> Data:
    """The same data with other training labels.

    Args:
        data: tokenized rows; it is left as it was.
        given: task → labels of its training rows.

    Raises:
        ConfigError: labels of other rows than these.
    """
    if other := [task for task, found in given.items() if not _fits(data.pool_of(task, "train"), found)]:
        raise ConfigError(
            f"pseudo_labels: the labels that this run began with are of other rows than those of {', '.join(other)}; "
            "resume it with the data it began with, or begin anew with --overwrite"
        )
    pools = list(data.splits.get("train", []))
    for task, found in given.items():
        for place, pool in enumerate(pools):
            if task in pool.tasks:
                pools[place] = _relabelled(pool, task, found.labels)
    return replace(data, splits={**data.splits, "train": pools})


def _fits(pool: PoolRows | None, found: Given) -> bool:
    return pool is not None and len(pool) == len(found.labels) and key_of(pool) == found.key


def without_labels(pool: PoolRows, task: str) -> PoolRows:
    """The same rows with no label for a task."""
    return _relabelled(pool, task, [None] * len(pool))


def _relabelled(pool: PoolRows, task: str, labels: Sequence[Any]) -> PoolRows:
    import pyarrow
    from datasets import Dataset
    from datasets.table import InMemoryTable

    name, table = f"labels:{task}", pool.table.data.table
    kind = table.schema.field(name).type
    column = pyarrow.chunked_array([pyarrow.array(labels, type=kind)], type=kind)
    changed = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    known = sum(label is not None for label in labels) if pool.needs_labels[task] else len(labels)
    facts = {**pool.facts, task: {**pool.facts[task], "labelled": known}}
    rows = Dataset(InMemoryTable(changed), info=pool.table.info, fingerprint=f"{pool.table._fingerprint}-{task}")
    return replace(pool, table=rows, facts=facts)


def key_of(pool: PoolRows) -> str:
    """A digest of all rows' tokens, in their order."""
    digest = hashlib.blake2b(digest_size=12)
    tokens = pool.columns["input_ids"]
    for row in range(len(pool)):
        digest.update(np.asarray(tokens[row], dtype=np.int32).tobytes() + b"|")
    return digest.hexdigest()
