"""Scores as functions of sums over rows, so that thousands of resamples, and all leave-one-outs, cost little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_mtl import metrics
from nlp_mtl.errors import DataError

Combine = Callable[[np.ndarray], np.ndarray]
_CLASSES = 200  # more would make the sums large; such metrics are called
BLOCKS = 100  # of rows, where a metric must be called without each


@dataclass(frozen=True)
class RowScore:
    """A score of some rows, which can be had for any weights of the rows.

    Attributes:
        value: of all rows.
        rows: how many, or how many groups of them: those that the metric scores as one, such as the answers to a
            question; or blocks at random, where a metric that is no sum or mean has more than 100 rows.
        weighted: [..., rows] weights, whole numbers from 0 → [...] scores.
        left_out: () → [rows], the score without each.
        exact: whether sums are enough; else the metric is called for each resample.
    """

    value: float
    rows: int
    weighted: Callable[[np.ndarray], np.ndarray]
    left_out: Callable[[], np.ndarray]
    exact: bool


def row_score(
    metric: str,
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    given: Mapping[str, Sequence[Any]] | None = None,
) -> RowScore:
    """A metric over rows, ready to be resampled.

    Args:
        metric: its name, as task files have it.
        predictions, references: one for each row, in the form that the metric takes.
        labels: names of the classes.
        given: what else the metric needs, one for each row.

    Raises:
        DataError: what the metric refuses.

    Relations: the delete-a-group jackknife (Kott, 2001, Journal of Official Statistics 17) where blocks are left out.

    Cost: for sums, one product of [resamples, rows] with [rows, sums]; for means of rows' values, a call of the metric
    for each besides; else a call of the metric for each resample, and for each block.

    Example:
        >>> found = row_score("accuracy", [0, 1, 1, 0], [0, 1, 0, 0])
        >>> found.value, found.weighted(np.array([[1, 1, 1, 1], [0, 0, 4, 0]])).tolist()
        (0.75, [0.75, 0.0])
        >>> found.left_out().round(3).tolist()
        [0.667, 0.667, 1.0, 0.667]
    """
    name = metrics.key_of(metric)
    own = {need: given[need] for need in metrics.needs(metric)} if given else None
    value = float(metrics.score([metric], predictions, references, labels=labels, given=own)[name])
    made = _sums(name, predictions, references, labels) if not metrics.needs(metric) else None
    if made is not None:
        stats, combine = made
        if abs(float(combine(stats.sum(0)[None])[0]) - value) < 1e-9:  # the metric as it is, and not nearly
            return _of_sums(value, stats, combine)
    called = _Called(metric, name, predictions, references, labels, own)
    units = _groups(own["groups"]) if own and "groups" in own else [np.array([row]) for row in range(len(predictions))]
    each = called.each(units, value)
    if each is not None:
        stats = np.stack([each, np.ones(len(units))], 1)
        return _of_sums(value, stats, lambda sums: _over(sums[..., 0], sums[..., 1]))
    return called.in_blocks(units, value)


def _of_sums(value: float, stats: np.ndarray, combine: Combine) -> RowScore:
    total = stats.sum(0)
    return RowScore(value, len(stats), lambda w: combine(w @ stats), lambda: combine(total[None] - stats), True)


def _groups(names: Sequence[Any]) -> list[np.ndarray]:
    """The rows of each group: rows of one question do not vary apart from each other."""
    places: dict[Any, list[int]] = {}
    for row, name in enumerate(names):
        places.setdefault(tuple(name) if isinstance(name, list) else name, []).append(row)
    return [np.array(rows) for rows in places.values()]


@dataclass(frozen=True)
class _Called:
    """A metric that is called for some rows."""

    metric: str
    name: str
    predictions: Any
    references: Any
    labels: Any
    given: Any

    def __call__(self, chosen: np.ndarray) -> float:
        picked = {need: [values[i] for i in chosen] for need, values in self.given.items()} if self.given else None
        found = metrics.score(
            [self.metric],
            [self.predictions[i] for i in chosen],
            [self.references[i] for i in chosen],
            labels=self.labels,
            given=picked,
        )
        return float(found[self.name])

    def each(self, units: list[np.ndarray], value: float) -> np.ndarray | None:
        """The metric of each unit alone, if the score of any is their mean, as of answers to questions; else None."""
        half = units[: max(2, min(len(units) // 2, 50))]
        try:
            first = [self(unit) for unit in half]
            if not abs(float(np.mean(first)) - self(np.concatenate(half))) < 1e-9:
                return None
            found = np.array([*first, *(self(unit) for unit in units[len(half) :])])
        except DataError:  # it is not defined on one row
            return None
        return found if abs(float(found.mean()) - value) < 1e-9 else None

    def in_blocks(self, units: list[np.ndarray], value: float) -> RowScore:
        """Units in blocks drawn at random, always the same: with more, leaving each out once would take minutes."""
        order = np.random.default_rng(0).permutation(len(units))
        parts = np.array_split(order, min(len(units), BLOCKS))
        blocks = [np.concatenate([units[place] for place in np.sort(part)]) for part in parts]
        if len(blocks) == len(units):
            blocks = units
        everything = np.arange(len(blocks))

        def weighted(weights: np.ndarray) -> np.ndarray:
            flat = weights.reshape(-1, len(blocks)).astype(int)
            found = [self(np.concatenate([blocks[i] for i in np.repeat(everything, row)])) for row in flat]
            return np.array(found).reshape(weights.shape[:-1])

        def left_out() -> np.ndarray:
            return np.array([self(np.concatenate([blocks[j] for j in np.delete(everything, i)])) for i in everything])

        return RowScore(value, len(blocks), weighted, left_out, False)


def _sums(
    name: str, predictions: Sequence[Any], references: Sequence[Any], labels: Sequence[str] | None
) -> tuple[np.ndarray, Combine] | None:
    """[rows, k] numbers whose sums are enough, and what makes a score of [..., k] sums."""
    if name == "span_f1":
        return _spans(predictions, references)
    if name == "f1_micro" and len(predictions) and isinstance(predictions[0], (list, tuple, np.ndarray)):
        said, true = (np.asarray(side, dtype=float) for side in (predictions, references))
        return np.stack([(said * true).sum(1), said.sum(1), true.sum(1)], 1), lambda s: _f1(
            s[..., 0], s[..., 1], s[..., 2]
        )
    ours, theirs = np.asarray(predictions, dtype=object), np.asarray(references, dtype=object)
    if ours.ndim != 1 or theirs.ndim != 1 or not len(ours) or hasattr(ours[0], "__len__"):
        return None
    if name in ("pearson", "mse", "mae"):
        return _numbers(name, ours.astype(float), theirs.astype(float))
    if name == "accuracy":
        return np.stack([ours == theirs, np.ones(len(ours))], 1).astype(float), lambda s: _over(s[..., 0], s[..., 1])
    if name == "f1":
        positive = len(labels) - 1 if labels else 1
        return _counts(ours == positive, theirs == positive), lambda s: _f1(s[..., 0], s[..., 1], s[..., 2])
    classes = sorted({*ours.tolist(), *theirs.tolist()})
    if len(classes) > _CLASSES:
        return None
    said, true = (np.stack([side == one for one in classes], 1).astype(float) for side in (ours, theirs))
    if name in ("f1_macro", "recall_macro"):
        return np.concatenate([said * true, said, true], 1), _macro(len(classes), name)
    if name == "matthews_correlation":
        right = (said * true).sum(1, keepdims=True)
        return np.concatenate([right, np.ones_like(right), said, true], 1), _matthews(len(classes))
    return None


def _counts(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.stack([said & true, said, true], 1).astype(float)


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their quotient; 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _f1(hits: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    return _over(2 * hits, said + true)


def _macro(classes: int, name: str) -> Combine:
    def combine(sums: np.ndarray) -> np.ndarray:
        hits, said, true = np.split(sums, [classes, 2 * classes], axis=-1)
        each = _f1(hits, said, true) if name == "f1_macro" else _over(hits, true)
        here = (said + true) > 0  # classes that occur
        return _over((each * here).sum(-1), here.sum(-1).astype(float))

    return combine


def _matthews(classes: int) -> Combine:
    def combine(sums: np.ndarray) -> np.ndarray:
        right, rows = sums[..., 0], sums[..., 1]
        said, true = sums[..., 2 : 2 + classes], sums[..., 2 + classes :]
        top = right * rows - (said * true).sum(-1)
        below = (rows**2 - (said**2).sum(-1)) * (rows**2 - (true**2).sum(-1))
        return _over(top, np.sqrt(np.maximum(below, 0)))

    return combine


def _numbers(name: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, Combine]:
    one = np.ones(len(ours))
    if name != "pearson":
        error = (ours - theirs) ** 2 if name == "mse" else np.abs(ours - theirs)
        return np.stack([error, one], 1), lambda s: _over(s[..., 0], s[..., 1])
    x, y = ((side - side.mean()) / (side.std() or 1.0) for side in (ours, theirs))  # small numbers keep their digits

    def combine(sums: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        below = (n * sxx - sx**2) * (n * syy - sy**2)
        below = np.where(below > 1e-16 * n**4, below, 0)  # one value over and over, but for rounding
        return _over(n * sxy - sx * sy, np.sqrt(below))

    return np.stack([one, x, y, x * x, y * y, x * y], 1), combine


def _spans(predictions: Sequence[Any], references: Sequence[Any]) -> tuple[np.ndarray, Combine]:
    from nlp_mtl.metrics.spans import spans_of

    found = []
    for said, true in zip(predictions, references, strict=True):
        ours, theirs = set(spans_of([said])), set(spans_of([true]))
        found.append((len(ours & theirs), len(ours), len(theirs)))
    return np.array(found, dtype=float), lambda s: _f1(s[..., 0], s[..., 1], s[..., 2])
