"""Importance weighting: source rows that look like the target are shown more often."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nlp_mtl.data import Data, PoolRows
from nlp_mtl.domainspec import ImportanceWeighting
from nlp_mtl.errors import ConfigError
from nlp_mtl.meanpooled import FOLDS, mean_features, target_probabilities
from nlp_mtl.selftraining import key_of

if TYPE_CHECKING:
    from nlp_mtl.model import MultiTaskModel

logger = logging.getLogger("nlp_mtl")
_FEW = 0.2  # of the rows: an effective sample size below is told


@dataclass
class Weights:
    """The weights of one source task's training rows.

    Attributes:
        weights: [rows], above 0, mean 1.
        key: of the rows' tokens, by which the same rows are known again.
    """

    weights: list[float]
    key: str

    @property
    def effective(self) -> float:
        """The effective sample size, (Σw)² ÷ Σw²: as many rows that weigh alike would tell as much."""
        found = np.asarray(self.weights)
        return float(found.sum() ** 2 / (found**2).sum())


def importance_weights(
    model: MultiTaskModel, data: Data, asked: ImportanceWeighting, *, seed: int = 0
) -> dict[str, Weights]:
    """How much more probable each source row is among the target's texts than among the source's.

    A logistic regression on the encoder's mean-pooled features tells target from source texts; a row's weight is the
    odds that it gives, from folds that the row was not in, brought to a mean of 1 over the task's rows, at most `clip`.
    Labels play no part.

    A weight says how often a row is shown (sampling–importance resampling: :func:`nlp_mtl.plan.drawn` draws the rows of
    each showing anew), and does not multiply its loss. So every kind of head, balancer, micro-batch and token budget
    works as ever, a loss is still a mean over rows, and a step's size does not hang on a few heavy rows; over the
    showings the gradient is that of weighted losses.

    Args:
        model: the model that the run starts from; its encoder is asked, and left as it was.
        data: its tokenized rows.
        asked: source, target, clip.
        seed: of the folds.

    Returns:
        Source task → weights of its training rows; :func:`with_weights` puts them into the data.

    Raises:
        ConfigError: tasks without enough training rows.

    Relations: covariate shift (Shimodaira, 2000, 10.1016/S0378-3758(00)00115-4); weights of instances for texts (Jiang
    and Zhai, 2007, ACL P07-1034); odds of a classifier as a density ratio (Bickel et al., 2007). Like data selection,
    but no row is left out for good.

    cost: one encoder pass over all rows of source and target, and a linear classifier in five folds.
    """
    mistakes = [
        f"importance_weighting: {task!r} needs at least {FOLDS} training rows, found {len(pool) if pool else 0}; leave "
        "it out"
        for task in (*asked.source, *asked.target)
        if (pool := data.pool_of(task, "train")) is None or len(pool) < FOLDS
    ]
    if mistakes:
        raise ConfigError(mistakes)
    pools = {task: _pool(data, task) for task in (*asked.source, *asked.target)}
    features = {task: mean_features(model, pool, task) for task, pool in pools.items()}
    source = np.concatenate([features[task] for task in asked.source])
    target = np.concatenate([features[task] for task in asked.target])
    alike, _ = target_probabilities(source, target, seed=seed)
    odds = np.clip(alike / np.maximum(1 - alike, 1e-12), 1e-6, 1e6)
    found, begin = {}, 0
    for task in asked.source:
        part = odds[begin : begin + len(pools[task])]
        begin += len(part)
        found[task] = Weights([round(float(w), 6) for w in clipped(part, asked.clip)], key_of(pools[task]))
        _tell(task, found[task], asked)
    return found


def clipped(odds: np.ndarray, clip: float) -> np.ndarray:
    """Odds times a number that brings them to a mean of 1, where none counts as more than `clip`.

    So at least 1 in `clip` rows counts, and with 1 all do alike.

    Args:
        odds: [rows], above 0.
        clip: at least 1.

    Example:
        >>> clipped(np.array([9.0, 0.1, 0.2]), 2.0).round(2).tolist()
        [2.0, 0.33, 0.67]
    """
    low, high = 0.0, clip / float(odds.min())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * odds, clip).mean() < 1 else (low, middle)
    found = np.minimum(high * odds, clip)
    return found / found.mean()


def _pool(data: Data, task: str) -> PoolRows:
    pool = data.pool_of(task, "train")
    assert pool is not None
    return pool


def with_weights(data: Data, given: dict[str, Weights]) -> Data:
    """The same data, its training rows shown by their weights.

    Args:
        data: tokenized rows; it is left as it was.
        given: task → weights of its training rows. Rows that several of them label take the mean of their weights.

    Raises:
        ConfigError: weights of other rows than these.
    """
    pools, wrong = list(data.splits.get("train", [])), []
    for place, pool in enumerate(pools):
        own = [given[task] for task in pool.tasks if task in given]
        if any(len(one.weights) != len(pool) or one.key != key_of(pool) for one in own):
            wrong += [task for task in pool.tasks if task in given]
        elif own:
            pools[place] = replace(pool, weights=np.mean([one.weights for one in own], axis=0))
    if wrong:
        raise ConfigError(
            f"importance_weighting: the weights that this run began with are of other rows than those of "
            f"{', '.join(wrong)}; resume it with the data it began with, or begin anew with --overwrite"
        )
    return replace(data, splits={**data.splits, "train": pools})


def _tell(task: str, found: Weights, asked: ImportanceWeighting) -> None:
    shown = np.quantile(found.weights, [0.05, 0.5, 0.95])
    logger.info(
        "importance_weighting: %s for %s: %d rows count as %.0f that weigh alike; weights from %.2f (5 %%) by %.2f "
        "(median) to %.2f (95 %%), the largest %.2f",
        task,
        ", ".join(asked.target),
        len(found.weights),
        found.effective,
        *shown,
        max(found.weights),
    )
    if found.effective < _FEW * len(found.weights):
        logger.warning(
            "importance_weighting: a classifier tells %s from %s so well that few rows carry the training (%.0f of "
            "%d); lower `clip`, or leave it out",
            task,
            ", ".join(asked.target),
            found.effective,
            len(found.weights),
        )
