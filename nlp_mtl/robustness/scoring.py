"""Scores of a model on rows that are held in memory, and the interval of a difference over the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_mtl import metrics
from nlp_mtl.data import Data, PoolRows
from nlp_mtl.evaluation import Evaluator, TaskScores


def scored(model: Any, pool: PoolRows, head: Any) -> TaskScores:
    """A task's score on some rows.

    Args:
        model: in eval mode.
        pool: rows of one task.
        head: the task's.
    """
    task = head.task.name
    data = Data({task: head}, {"validation": [pool]})
    return Evaluator(data, batch_rows=32).evaluate(model, "validation", tasks=[task])[task]


def references_of(pool: PoolRows, head: Any) -> list[Any]:
    """What predictions of the rows are compared with."""
    return head.references(pool.labels(head.task.name), pool.table)


def drop(
    head: Any,
    before: Sequence[Any],
    after: Sequence[Any],
    references: Sequence[Any],
    *,
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float] | None:
    """A 95 % bootstrap interval of the first metric before minus after, rows drawn in pairs.

    Args:
        head: the task's.
        before, after: [rows], decoded predictions.
        references: [rows].
        draws: how many times rows are drawn.
        seed: of the draws.

    Returns:
        Lower and upper end; None where the metric needs more than predictions and references, or is not defined on
        drawn rows.

    Relations: the paired bootstrap over rows (Efron and Tibshirani, 1993); it knows nothing of other seeds of training.
    """
    name = head.metrics[0]
    if metrics.needs(name):
        return None
    draw, found = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = draw.integers(0, len(references), len(references))
        said = [references[i] for i in rows]
        one, other = (
            metrics.score([name], [values[i] for i in rows], said, labels=head.labels)[name]
            for values in (before, after)
        )
        if np.isfinite(one) and np.isfinite(other):
            found.append(one - other)
    if len(found) < draws / 2:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def change_rate(before: Sequence[Any], after: Sequence[Any]) -> float:
    """The share of rows with another prediction.

    Example:
        >>> change_rate([0, 1, 1, 0], [0, 1, 0, 0])
        0.25
    """
    differ = [_plain(a) != _plain(b) for a, b in zip(before, after, strict=True)]
    return sum(differ) / len(differ) if differ else 0.0


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
