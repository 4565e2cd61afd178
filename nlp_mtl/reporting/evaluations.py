"""Scores over steps, as the trainer's log has them, and where tasks were at their best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NO_METRICS = ("loss", "skill", "threshold")


@dataclass(frozen=True)
class Evaluations:
    """Evaluations on the validation split.

    Attributes:
        steps: [evaluations], after how many optimizer steps, in training.
        scores: task → its first metric at each of them, None where it was not scored.
        metrics: task → the name of that metric; tasks without validation rows are not in it.
        better: task → whether more of it is better.
        final: task → the score at the end, of the model that was kept.
        run_best: {"step", "metric", "score"} of the evaluation that decided for the run, or None.
    """

    steps: list[int] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    better: dict[str, bool] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    run_best: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        log: Sequence[Mapping[str, Any]],
        tasks: Sequence[str],
        validation: Mapping[str, Mapping[str, float]],
        training: Mapping[str, Any],
    ) -> Evaluations:
        """Out of a log.

        Args:
            log: the trainer's `log_history`. What follows the entry that ends training is the score of the model that
                was kept, and no point of the curve.
            tasks: their names.
            validation: task → metric → score at the end, the first metric first; {} if the run is not finished.
            training: the run file's `training`, for what decided on the best checkpoint.
        """
        end = next((place for place, entry in enumerate(log) if "train_runtime" in entry), len(log))
        first: dict[int, Mapping[str, Any]] = {}
        for entry in log[:end]:
            if "step" in entry and any(key.startswith("eval_") for key in entry):
                first.setdefault(entry["step"], entry)
        curve = dict(sorted(first.items()))
        after = [entry for entry in log[end:] if any(key.startswith("eval_") for key in entry)]
        metrics = {}
        for task in tasks:
            named = next(iter(validation.get(task) or ()), None)
            found = named or first_metric(task, tasks, [*curve.values(), *after])
            if found is not None:
                metrics[task] = found
        keys = {task: f"eval_{task}_{metric}" for task, metric in metrics.items()}
        ends = {task: (validation.get(task) or {}).get(metric) for task, metric in metrics.items()}
        for entry in after:
            ends |= {task: entry[key] for task, key in keys.items() if ends[task] is None and key in entry}
        return cls(
            steps=list(curve),
            scores={task: [_number(entry.get(key)) for entry in curve.values()] for task, key in keys.items()},
            metrics=metrics,
            better={task: is_better(task, metric, [*curve.values(), *after]) for task, metric in metrics.items()},
            final={task: score for task, given in ends.items() if (score := _number(given)) is not None},
            run_best=_run_best(curve, training),
        )

    def best(self, task: str) -> dict[str, Any] | None:
        """{"step", "score"} of the first evaluation at which a task was best; None without evaluations in training.

        Example:
            >>> Evaluations([2, 4, 6], {"rte": [0.5, 0.7, 0.7]}, {"rte": "accuracy"}, {"rte": True}).best("rte")
            {'step': 4, 'score': 0.7}
        """
        known = [(score, step) for step, score in zip(self.steps, self.scores.get(task, ()), strict=False)]
        scored = [(score, step) for score, step in known if score is not None]
        if not scored:
            return None
        score, step = min(scored, key=lambda one: (-one[0] if self.better[task] else one[0], one[1]))
        return {"step": step, "score": score}

    def at(self, task: str, step: int | None) -> float | None:
        """The task's score at an evaluation."""
        if step is None or step not in self.steps or task not in self.scores:
            return None
        return self.scores[task][self.steps.index(step)]


def first_metric(task: str, tasks: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> str | None:
    """The first metric of a task in entries of the log, where ``eval_<task>_…`` may also begin another task's key.

    Example:
        >>> first_metric("a", ["a", "a_b"], [{"eval_a_b_f1": 1.0, "eval_a_accuracy": 0.5, "eval_a_loss": 1.0}])
        'accuracy'
    """
    start = f"eval_{task}_"
    longer = tuple(f"eval_{other}_" for other in tasks if f"eval_{other}_".startswith(start) and other != task)
    for entry in entries:
        for key in entry:
            if key.startswith(start) and not key.startswith(longer) and key.removeprefix(start) not in _NO_METRICS:
                return key.removeprefix(start)
    return None


def is_better(task: str, metric: str, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether more of a metric is better: as it is registered, else as the task's skill rises or falls with it."""
    from nlp_mtl import registry

    if metric in registry.metrics:
        return bool(getattr(registry.metrics[metric], "greater_is_better", True))
    pairs = [(_number(e.get(f"eval_{task}_{metric}")), _number(e.get(f"eval_{task}_skill"))) for e in entries]
    known = sorted((score, skill) for score, skill in pairs if score is not None and skill is not None)
    return not known or known[-1][1] >= known[0][1]


def _run_best(curve: Mapping[int, Mapping[str, Any]], training: Mapping[str, Any]) -> dict[str, Any] | None:
    """As the trainer decides it: by `metric_for_best_model`, the first of equals."""
    metric = str(training.get("metric_for_best_model") or "mean_skill").removeprefix("eval_")
    more = training.get("greater_is_better")
    more = not metric.endswith("loss") if more is None else bool(more)
    scored = [(_number(entry.get(f"eval_{metric}")), step) for step, entry in curve.items()]
    known = [(score if more else -score, -step) for score, step in scored if score is not None]
    if not known:
        return None
    score, step = max(known)
    return {"step": -step, "metric": metric, "score": score if more else -score}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        return None
    return float(value)
