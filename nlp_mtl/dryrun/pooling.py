"""Tasks whose rows a mean over tokens would describe better than the token that the vanilla class reads.

Found by a linear probe: ridge regression on features of the frozen encoder, fitted on some training rows and scored on
held-out ones, once with each pooling. It costs one pass over a few hundred rows and says what is in the features before
training; fine-tuning may close the gap. Relations: the probing tasks of SentEval (Conneau and Kiela, 2018,
arXiv:1803.05449), whose features of pairs are used here too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from nlp_mtl.batches import collate, to_device
from nlp_mtl.data import Data, PoolRows
from nlp_mtl.dryrun.result import Pooling
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.pooled import PooledHead, family_pooling
from nlp_mtl.layout import Layout
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.settings import autocast

_FEWEST = 64  # rows on a side, below which nothing is said
_BATCH = 32
Measure = Literal["accuracy", "accuracy over labels", "explained variance"]


def probe_pooling(
    model: MultiTaskModel,
    data: Data,
    *,
    rows: int = 500,
    seconds: float = 60.0,
    precision: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[Pooling], dict[str, str]]:
    """What the probe says about every task that reads one vector per text and could use the mean.

    Args:
        model: with the encoder as it is before training.
        data: the tokenized rows.
        rows: at most so many training rows, and as many held-out rows, per task; 0 for no probe.
        seconds: after so many, no further task is begun.
        precision: ``bf16`` or ``fp16`` to encode as training does.
        seed: which rows are drawn.
        progress: show a bar.

    Returns:
        The tasks probed, and for those that were not, why.
    """
    found, why_not, began = [], {}, time.perf_counter()
    training = model.training
    model.eval()
    try:
        tasks = list(model.heads)
        for task in tqdm(tasks, desc="dry run: probing poolings", leave=False, disable=not progress):
            reason = "it was not asked for" if rows < 1 else unsuitable(model, task)
            if not reason and time.perf_counter() - began > seconds:
                reason = f"{seconds:g} seconds were spent on other tasks"
            sample = None if reason else draw(data, task, rows, seed)
            if sample is None:
                why_not[task] = reason or f"a side has fewer than {_FEWEST} labelled rows"
                continue
            with autocast(model.device, precision):
                found.append(_probe(model, task, sample))
    finally:
        model.train(training)
    return found, why_not


def unsuitable(model: MultiTaskModel, task: str) -> str:
    """Why the probe has nothing to say about a task; empty if it has."""
    head = model.heads[task]
    if not isinstance(head, PooledHead) or head.auto_class != "AutoModelForSequenceClassification":
        return "the head does not read one vector per text"
    if head.task.head_key != task:
        return f"the head is that of {head.task.head_key!r}"
    if head.pooling != "family":
        return f"`pooling: {head.pooling}` is set"
    if family_pooling(model.module_of(task)) == "mean":
        return "the family's own class takes the mean"
    return "the encoder does not read tokens" if getattr(model.sharing, "way", "") == "stacked" else ""


@dataclass
class Sample:
    """Rows for one task's probe: pools and row numbers of both sides."""

    train: tuple[PoolRows, np.ndarray]
    held_out: tuple[PoolRows, np.ndarray]


def draw(data: Data, task: str, rows: int, seed: int) -> Sample | None:
    """Labelled training rows, and validation rows (or other training rows) to score on; None if there are too few."""
    train, validation = data.pool_of(task, "train"), data.pool_of(task, "validation")
    if train is None:
        return None
    random = np.random.default_rng(seed)
    own = random.permutation(np.flatnonzero(train.labelled(task)))
    held = random.permutation(np.flatnonzero(validation.labelled(task))) if validation is not None else own[:0]
    if len(held) < _FEWEST:
        half = min(rows, len(own) // 2)
        validation, held, own = train, own[:half], own[half:]
    if validation is None or min(len(own), len(held), rows) < _FEWEST:
        return None
    return Sample((train, own[:rows]), (validation, held[:rows]))


def _probe(model: MultiTaskModel, task: str, sample: Sample) -> Pooling:
    head = model.heads[task]
    reads = family_pooling(model.module_of(task))
    train, held_out = (features(model, task, reads, *side) for side in (sample.train, sample.held_out))
    targets, measure = targets_of(head, train["labels"])
    truth, _ = targets_of(head, held_out["labels"])
    scores = {way: row_scores(measure, fit(train[way], targets, held_out[way]), truth) for way in ("family", "mean")}
    gain = scores["mean"] - scores["family"]
    difference, error = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
    return Pooling(
        task=task,
        measure=measure,
        family=float(scores["family"].mean()),
        mean=float(scores["mean"].mean()),
        difference=difference,
        error=error,
        train_rows=len(targets),
        held_out_rows=len(truth),
        reads=reads,
        better=difference > 2 * error,
        cost=f"with `pooling: mean` a task can't leave as a vanilla {head.auto_class} folder, since that class does "
        "not take the mean; the run folder itself predicts, scores and resumes as any other",
    )


def features(model: MultiTaskModel, task: str, reads: str, pool: PoolRows, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Frozen features of some rows: ``family`` and ``mean``, [rows, features] each, and their ``labels``.

    A pair's texts are encoded each by itself, and their vectors u and v joined as |u − v| and u · v: what a pair read
    in one go has in common is found by training, and frozen features hardly show it.

    Args:
        model: in eval mode.
        task: whose rows they are.
        reads: ``cls`` or ``last``, what ``family`` takes.
        pool: where the rows stand.
        rows: their numbers in the pool.
    """
    labels = pool.columns[f"labels:{task}"]
    found = {"labels": np.asarray([labels[int(row)] for row in rows])}
    columns = model.heads[task].task.inputs
    if len(columns) < 2:
        found.update(_states(model, task, reads, [pool.row(int(row)) for row in rows]))
        return found
    texts = pool.table.select(rows)
    u, v = (_states(model, task, reads, _tokens(model, list(texts[column]))) for column in columns)
    found.update({way: np.concatenate([np.abs(u[way] - v[way]), u[way] * v[way]], 1) for way in u})
    return found


def _tokens(model: MultiTaskModel, texts: list[str]) -> list[dict[str, Any]]:
    """Single texts as rows of tokens."""
    made = model.tokenizer(texts, truncation=True, max_length=model.max_length, verbose=False)
    empty = model.tokenizer.pad_token_id or 0
    ids = [tokens or [empty] for tokens in made["input_ids"]]
    rows: list[dict[str, Any]] = [{"input_ids": np.asarray(tokens), "lengths": [len(tokens)]} for tokens in ids]
    if "token_type_ids" in made:
        for row in rows:
            row["token_type_ids"] = np.zeros_like(row["input_ids"])
    return rows


@torch.inference_mode()
def _states(model: MultiTaskModel, task: str, reads: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """``family`` and ``mean``, [rows, hidden] each, of rows of one sequence each."""
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    parts: dict[str, list[np.ndarray]] = {"family": [], "mean": []}
    for begin in range(0, len(order), _BATCH):
        chosen = [rows[number] for number in order[begin : begin + _BATCH]]
        batch = to_device(collate(chosen, [()] * len(chosen), {}), model.device)  # sorted, so it keeps their order
        inputs = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
        packed = model.sharing.encode(inputs, Layout(batch["lengths"].tolist(), model.device), [task])[task]
        every = torch.arange(len(chosen), device=model.device)
        read = {"cls": packed.firsts, "last": packed.lasts}[reads]
        for way, states in (("family", read(every)), ("mean", packed.means(every))):
            parts[way].append(states.float().cpu().numpy())
    back = np.argsort(order, kind="stable")
    return {way: np.concatenate(states)[back] for way, states in parts.items()}


def targets_of(head: Head, labels: np.ndarray) -> tuple[np.ndarray, Measure]:
    """[rows, outputs]: what the probe is fitted to, and the measure that goes with it."""
    if head.label_is_list:
        return labels.astype(float), "accuracy over labels"
    if head.labels is None:
        return labels.astype(float)[:, None], "explained variance"
    return np.eye(len(head.labels))[labels], "accuracy"


def fit(train: np.ndarray, targets: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """[held-out rows, outputs]: ridge regression's answers, its penalty chosen by leave-one-out on the training rows.

    Args:
        train: [rows, hidden].
        targets: [rows, outputs].
        held_out: [held-out rows, hidden].
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
    return np.asarray(probe.fit(train.astype(float), targets).predict(held_out.astype(float))).reshape(
        -1, targets.shape[1]
    )


def row_scores(measure: Measure, answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[rows]: a score for each row whose mean is the measure, so that differences have a standard error.

    Example:
        >>> row_scores("accuracy", np.array([[0.2, 0.8], [0.9, 0.3]]), np.array([[0.0, 1.0], [0.0, 1.0]])).tolist()
        [1.0, 0.0]
    """
    if measure == "accuracy":
        return (answers.argmax(1) == truth.argmax(1)).astype(float)
    if measure == "accuracy over labels":
        return ((answers > 0.5) == (truth > 0.5)).mean(1)
    return 1.0 - ((answers - truth) ** 2).sum(1) / (truth.var() or 1.0)
