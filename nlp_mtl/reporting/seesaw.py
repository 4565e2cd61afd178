"""See-saw: between two evaluations one task rises while another falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations


@dataclass
class Pair:
    """Two tasks, and where they moved against each other.

    Attributes:
        tasks: their names, in the run's order.
        scored: intervals at whose two ends both were scored.
        intervals: of these, the ones with a see-saw: (step before, step after, the task that rose).
    """

    tasks: tuple[str, str]
    scored: int = 0
    intervals: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the intervals in which both were scored."""
        return len(self.intervals) / self.scored if self.scored else 0.0


def see_saws(
    steps: Sequence[int],
    scores: Mapping[str, Sequence[float | None]],
    better: Mapping[str, bool],
    threshold: float = 0.01,
) -> list[Pair]:
    """Pairs of tasks that moved against each other, most often first; pairs that never did are not listed.

    The rule: in the interval between two evaluations that follow one another, one task's first metric became better by
    more than `threshold` and the other's became worse by more than `threshold`, in the metric's own unit. Less than
    that is taken for chance; on a validation split of 100 rows even a hundredth is one row.

    Args:
        steps: [evaluations].
        scores: task → [evaluations], None where it was not scored.
        better: task → whether more is better; the change of an error counts with its sign turned.
        threshold: from 0.

    Example:
        >>> found = see_saws([10, 20], {"a": [0.5, 0.6], "b": [0.9, 0.8], "c": [0.5, 0.505]}, {})
        >>> [(pair.tasks, pair.intervals, pair.share) for pair in found]
        [(('a', 'b'), [(10, 20, 'a')], 1.0)]
    """
    least = threshold + 1e-9  # 0.51 - 0.5 is no more than a hundredth, whatever floats make of it
    found = [Pair(tasks) for tasks in combinations(scores, 2)]
    for place in range(1, len(steps)):
        moves = {}
        for task, values in scores.items():
            before, after = values[place - 1], values[place]
            if before is not None and after is not None:
                moves[task] = (after - before) * (1 if better.get(task, True) else -1)
        for pair in found:
            first, second = (moves.get(task) for task in pair.tasks)
            if first is None or second is None:
                continue
            pair.scored += 1
            if min(first, second) < -least and max(first, second) > least:
                rose = pair.tasks[0] if first > second else pair.tasks[1]
                pair.intervals.append((steps[place - 1], steps[place], rose))
    return sorted((pair for pair in found if pair.intervals), key=lambda pair: -len(pair.intervals))
