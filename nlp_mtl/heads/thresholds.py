"""From which probability a label is given: said, or tuned on the validation rows.

Decisions are made on log-odds, so that probabilities near 0 and 1 are still told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nlp_mtl import metrics
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.heads.labels import name_of

SEVERAL = ("f1_micro", "f1_macro")  # first metrics for which the thresholds of several labels are found


class Thresholds:
    """The probability from which each label is given.

    Args:
        task: the task's name, for messages.
        given: ``tuned``, a number for all labels, or a mapping label → number.
        found: with ``tuned``, the numbers found so far, as a run folder records them; none: 0.5.

    Attributes:
        tuned: whether they are chosen on the validation rows.
        found: whether they were.

    Raises:
        ConfigError: neither, or numbers that are not between 0 and 1; all of them at once.

    Example:
        >>> decided = Thresholds("mood", {"joy": 0.5, "fear": 0.2})
        >>> decided.decide(np.array([[-1.0, -1.0], [1.0, -2.0]]), ["joy", "fear"]).tolist()
        [[0, 1], [1, 0]]
    """

    def __init__(self, task: str, given: Any, found: Any = None):
        self.task, self.tuned, self.found = task, given == "tuned", found is not None
        said: Any = found if self.tuned else given
        said = 0.5 if said is None else said
        mapped = isinstance(said, Mapping) and bool(said)
        numbers = {str(name_of(label)): value for label, value in said.items()} if mapped else {"": said}
        rule = "`threshold` is a number between 0 and 1, a mapping label → number, or tuned"
        if self.tuned:
            rule = "`tuned` is a mapping label → number between 0 and 1"
        mistakes = [f"{rule}, found {value!r}" for value in numbers.values() if not _is_probability(value)]
        if found is not None and not self.tuned:
            mistakes.append(f"`tuned` goes with `threshold: tuned`, found {found!r} beside `threshold: {given}`")
        if mistakes:
            raise ConfigError([f"task {task!r}: {mistake}" for mistake in mistakes])
        self.values: dict[str, float] | float = numbers if mapped else float(said)

    def misfits(self, labels: Sequence[str]) -> list[str]:
        """What is wrong with the labels that have a threshold, one message each.

        Args:
            labels: those that a threshold decides.
        """
        if not isinstance(self.values, dict):
            return []
        whose = f"task {self.task!r}: `threshold`"
        mistakes = [
            f"{whose} names {label!r}, which is no label that it decides{suggestion(label, labels)}"
            for label in self.values
            if label not in labels
        ]
        missing = [label for label in labels if label not in self.values]
        if missing:
            shown = ", ".join(map(repr, missing[:6])) + (", …" if len(missing) > 6 else "")
            mistakes.append(f"{whose} gives every label a number (0.5 is the usual one), found none for {shown}")
        return mistakes

    def of(self, labels: Sequence[str]) -> dict[str, float]:
        """Label → threshold."""
        if isinstance(self.values, dict):
            return {label: self.values[label] for label in labels}
        return dict.fromkeys(labels, self.values)

    def decide(self, odds: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """[rows, labels] of 0 and 1, from log-odds of the same shape."""
        return at_least(odds, np.array(list(self.of(labels).values())))


def at_least(odds: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """0 or 1: whether log-odds [rows, labels] reach the thresholds [labels], which are probabilities."""
    return (odds >= _log_odds(np.asarray(thresholds, dtype=np.float64))).astype(np.int64)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return np.log(probability) - np.log1p(-probability)


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


# ------------------------------------------------------------------------------------------------------- the search


def tune_one(odds: np.ndarray, truth: np.ndarray, metric: str, names: Sequence[str]) -> float:
    """The threshold of the second of two labels at which a metric is best; of several, the nearest to 0.5.

    Every way to cut the rows in two by their scores is tried. For the metrics in :data:`COUNTED`, functions of how many
    rows are right and wrong on either side, that is one sort; others are computed once for every distinct score, which
    takes minutes for a slow metric on many rows.

    Args:
        odds: [rows], log-odds of the second label.
        truth: [rows] of 0 and 1.
        metric: the metric, as a task file writes it.
        names: the two labels.

    Example:
        >>> tune_one(np.array([-3.0, -2.0, -1.0, -0.5]), np.array([0, 0, 1, 1]), "f1", ["ham", "spam"])
        0.18242552380635635
    """
    found = candidates(odds)
    if metric in COUNTED:
        hits, given = counts(odds, truth, found)
        values = COUNTED[metric](hits, given, np.int64(truth.sum()), np.int64(len(truth)))
    else:
        key, references = metrics.key_of(metric), truth.tolist()
        decisions = (at_least(odds, threshold).tolist() for threshold in found)
        values = np.array([metrics.score([metric], d, references, labels=names)[key] for d in decisions])
        values = values if metrics.greater_is_better(metric) else -values
    return float(found[_best(values, found)])


def tune_several(odds: np.ndarray, truth: np.ndarray, metric: str) -> list[float]:
    """The thresholds of labels that are decided each on its own, at which `f1_macro` or `f1_micro` is best.

    `f1_macro` is the mean of every label's own F1. For `f1_micro`, a ratio of sums over labels, ``2·ΣTP / (Σ(TP+FP) +
    Σ(TP+FN))``, Dinkelbach's method finds the best of all combinations: with λ the best ratio so far, every label
    takes the cut with the largest ``2·TP − λ·(TP+FP)``, until λ grows no more. The counts are whole numbers, so both
    are exact; of several equally good cuts of a label the nearest to 0.5 is taken.

    Args:
        odds: [rows, labels], log-odds.
        truth: [rows, labels] of 0 and 1.
        metric: one of the two.

    References:
        Dinkelbach, "On Nonlinear Fractional Programming", Management Science 13, 1967.

    Example:
        >>> odds = np.array([[2.0, -3.0], [-1.0, -2.0], [1.0, -1.0], [-2.0, 0.5]])
        >>> [round(t, 3) for t in tune_several(odds, np.array([[1, 0], [0, 1], [1, 0], [0, 1]]), "f1_micro")]
        [0.5, 0.076]
    """
    columns = range(odds.shape[1])
    found = [candidates(odds[:, c]) for c in columns]
    pairs = [counts(odds[:, c], truth[:, c], found[c]) for c in columns]
    if metric == "f1_macro":
        values = [f1_of_counts(*pairs[c], np.int64(truth[:, c].sum()), np.int64(len(truth))) for c in columns]
        return [float(found[c][_best(values[c], found[c])]) for c in columns]
    expected = int(truth.sum())
    above, below = 0, 1  # the best ratio so far
    while True:
        chosen = [_best(below * 2 * hits - above * given, found[c]) for c, (hits, given) in enumerate(pairs)]
        hits = sum(int(pairs[c][0][i]) for c, i in enumerate(chosen))
        given = sum(int(pairs[c][1][i]) for c, i in enumerate(chosen))
        if 2 * hits * below <= above * (given + expected):
            return [float(found[c][i]) for c, i in enumerate(chosen)]
        above, below = 2 * hits, given + expected


def candidates(odds: np.ndarray) -> np.ndarray:
    """Thresholds in rising order, one for every way to cut the scores, and 0.5.

    Each lies half way between two neighbouring scores: there a rounding error, as another batch size makes, changes no
    decision. Scores that agree to five decimals of their log-odds are not told apart, for the same reason.

    Args:
        odds: [rows], log-odds.
    """
    ordered = np.sort(np.asarray(odds, dtype=np.float64))
    apart = np.flatnonzero(np.diff(np.round(ordered, 5)))
    between = (ordered[apart] + ordered[apart + 1]) / 2
    edges = np.concatenate([[ordered[0] - 1.0], between, [ordered[-1] + 1.0, 0.0]])
    found = np.unique(1.0 / (1.0 + np.exp(-np.clip(edges, -700, 700))))
    return found[(found > 0) & (found < 1)]


def counts(odds: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[thresholds] each: rows that have the label and are given it, and rows that are given it."""
    edges = _log_odds(thresholds)
    having = np.sort(odds[truth == 1])
    return len(having) - np.searchsorted(having, edges), len(odds) - np.searchsorted(np.sort(odds), edges)


def _best(values: np.ndarray, thresholds: np.ndarray) -> int:
    """The number of the best value; of those within rounding of it, the one whose threshold is nearest to 0.5."""
    whole = np.issubdtype(values.dtype, np.integer)
    best = np.flatnonzero(values >= values.max() - (0 if whole else 1e-12))
    return int(best[np.argmin(np.abs(thresholds[best] - 0.5))])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where both are 0."""
    return above / np.maximum(below, 1)


def f1_of_counts(hits: np.ndarray, given: np.ndarray, having: Any, rows: Any) -> np.ndarray:
    """F1 of the label."""
    return _ratio(2 * hits, given + having)


def _accuracy(hits: np.ndarray, given: np.ndarray, having: Any, rows: Any) -> np.ndarray:
    return (rows - given - having + 2 * hits) / rows


def _f1_macro(hits: np.ndarray, given: np.ndarray, having: Any, rows: Any) -> np.ndarray:
    """A label that occurs on neither side does not count, as in :func:`nlp_mtl.metrics.f1_macro`."""
    other = f1_of_counts(rows - given - having + hits, rows - given, rows - having, rows)
    occur = (given + having > 0).astype(int) + (2 * rows - given - having > 0).astype(int)
    return (f1_of_counts(hits, given, having, rows) + other) / occur


def _matthews(hits: np.ndarray, given: np.ndarray, having: Any, rows: Any) -> np.ndarray:
    spread = np.sqrt(given.astype(float) * (rows - given) * having * (rows - having))
    return np.where(spread > 0, (hits * rows - given * having) / np.maximum(spread, 1.0), 0.0)


COUNTED: dict[str, Callable[..., np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": f1_of_counts,
    "f1_macro": _f1_macro,
    "f1_micro": _accuracy,
    "matthews_correlation": _matthews,
}
