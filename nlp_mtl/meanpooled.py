"""Texts as one vector each, the mean of an encoder's hidden states; and whether two sets of them can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nlp_mtl.batches import collate, length_sorted, to_device
from nlp_mtl.data import PoolRows
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.layout import Layout

FOLDS = 5
_MOST = 5_000  # rows of each side that a classifier of domains is fitted to
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # C of a logistic regression, the strongest first


@torch.no_grad()
def mean_features(model: Any, pool: PoolRows, task: str, rows: np.ndarray | None = None) -> np.ndarray:
    """What the encoder gives for rows: the mean over the tokens of each, without dropout and autocast.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`; it is left as it was.
        pool: tokenized rows. Labels are not looked at.
        task: whose hidden states, where tasks share in part only.
        rows: numbers of rows; None for all.

    Returns:
        [rows, hidden]; a row of several texts is the mean of theirs.

    Raises:
        UnsupportedError: rows that are not texts.
    """
    numbers = np.arange(len(pool)) if rows is None else np.asarray(rows)
    if "input_ids" not in pool.columns:
        raise UnsupportedError(f"task {task!r}: domains are told apart by their texts, and its rows have none")
    training, place = model.training, {int(number): at for at, number in enumerate(numbers)}
    found: np.ndarray | None = None
    model.eval()
    try:
        for refs in length_sorted([pool], rows=8):
            wanted = [number for _, number, _ in refs if number in place]
            if not wanted:
                continue
            given = [{name: pool.columns[name][n] for name in _read(pool)} for n in wanted]
            for number, states in zip(wanted, _means(model, given, task), strict=True):
                found = np.zeros((len(numbers), len(states)), dtype=np.float32) if found is None else found
                found[place[number]] = states
    finally:
        model.train(training)
    return np.zeros((0, 1), dtype=np.float32) if found is None else found


def _read(pool: PoolRows) -> list[str]:
    return [name for name in ("input_ids", "token_type_ids", "lengths") if name in pool.columns]


def _means(model: Any, rows: Sequence[Mapping[str, Any]], task: str) -> np.ndarray:
    """[rows, hidden], of one batch."""
    batch = to_device(collate(rows, [()] * len(rows), {}), model.device)
    order = np.lexsort(  # as the batch has them: the shortest text first
        (np.concatenate([np.asarray(row["lengths"]) for row in rows]),)
    )
    owner = np.repeat(np.arange(len(rows)), [len(row["lengths"]) for row in rows])[order]
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
    with torch.autocast(torch.device(model.device).type, enabled=False):
        packed = model.sharing.encode(inputs, Layout(batch["lengths"].tolist(), model.device), [task])[task]
        texts = packed.means(torch.arange(len(owner), device=model.device)).float().cpu().numpy()
    sums = np.zeros((len(rows), texts.shape[1]), dtype=np.float64)
    np.add.at(sums, owner, texts)
    return (sums / np.bincount(owner, minlength=len(rows))[:, None]).astype(np.float32)


def target_probabilities(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How much each row looks like the target to a classifier that was fitted to other rows than it.

    A logistic regression on standardised features, in five folds; both sides weigh the same, whatever their numbers of
    rows, so that odds are a ratio of densities. Its penalty is the one with the least log loss on rows held out: with
    few rows or many features a weaker one gives odds that are far too sure.

    Args:
        source, target: [rows, features]; at least five rows each.
        seed: of the folds.

    Returns:
        [source rows] and [target rows] of probabilities.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(seed)
    features = np.concatenate([source, target]).astype(np.float64)
    side = np.repeat([0, 1], [len(source), len(target)])
    fold = np.concatenate([random.permutation(len(part)) % FOLDS for part in (source, target)])
    found = np.zeros((len(_PENALTIES), len(features)))
    for number in range(FOLDS):
        fitted = [np.flatnonzero((fold != number) & (side == which)) for which in (0, 1)]
        chosen = np.concatenate([random.permutation(rows)[:_MOST] for rows in fitted])
        scale = StandardScaler().fit(features[chosen])
        seen, held_out = scale.transform(features[chosen]), scale.transform(features[fold == number])
        for place, penalty in enumerate(_PENALTIES):
            judge = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000).fit(seen, side[chosen])
            found[place, fold == number] = judge.predict_proba(held_out)[:, 1]
    right = np.clip(np.where(side, found, 1 - found), 1e-12, None)
    losses = -(np.log(right[:, : len(source)]).mean(1) + np.log(right[:, len(source) :]).mean(1))
    best = found[losses.argmin()]
    return best[: len(source)], best[len(source) :]
