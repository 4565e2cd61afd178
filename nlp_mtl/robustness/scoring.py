"""Scores of a model on rows that are held in memory, and the interval of a difference over the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlp_mtl.data import Data, PoolRows
from nlp_mtl.evaluation import Evaluator, TaskScores
from nlp_mtl.verdicts.judging import Difference, difference
from nlp_mtl.verdicts.rowstats import RowScore, row_score


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


def cost(before: TaskScores, after: TaskScores) -> Difference:
    """How much worse the first metric is after than before, over the same rows.

    Args:
        before, after: a task's scores.

    Relations: one seed of :func:`nlp_mtl.verdicts.judging.difference`: an interval and a test over rows, which know
    nothing of other seeds of training.
    """
    return difference([_row_score(before)], [_row_score(after)], better=before.better)


def _row_score(scores: TaskScores) -> RowScore:
    assert scores.first is not None
    given = {need: list(values) for need, values in scores.given.items()} or None
    return row_score(scores.first, scores.decoded, scores.references, labels=scores.labels, given=given)


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
