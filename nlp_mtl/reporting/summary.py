"""``report.json``: what a run folder says, in numbers.

::

    format        1; a newer version of the format adds keys or raises this number
    run           the folder's name
    finished      false while a run is trained, or when it was stopped
    source        the file that the scores are from
    balancer, sampler      as the run file says them; null if that is not known
    steps         {recorded, first, last, looked}; looked: at the tasks' gradients
    tasks         {task: {steps, loss: {first, last, mean}, weight: {mean, least, most}, rate, norm,
                   metric, greater_is_better, best: {step, score}, at_run_best, final}}
    gradients     {cosine: {a: {b: mean}}, conflicting: {a: {b: share of looks below 0}}, seen: {a: {b: looks}},
                   conflicting_share, cosine_mean, steps_with_conflict} or null
    validation    {steps, scores: {task: […]}, run_best: {step, metric, score}} or null
    see_saw       {threshold, intervals, pairs: [{tasks, count, scored, intervals: [[from, to, rose]]}]} or null
    missing       what could not be measured, each a sentence
    findings      {name: numbers} of what was found out since: verdict, scores, data, calibration, robustness …

Every pair of tasks stands once, under the one that comes first in ``tasks``. What is not known is null or left out;
there is no NaN. ``loss.first`` and ``loss.last`` are means over the first and last tenth of the task's steps; ``rate``
is its mean share of the rows, 0 where it was absent; ``weight`` counts only steps in which it was present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlp_mtl.reporting.reading import Reading, Steps
from nlp_mtl.reporting.seesaw import see_saws

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1


def summed_up(run: Reading, threshold: float = 0.01) -> dict[str, Any]:
    """What ``report.json`` says of a run.

    Args:
        run: the folder, read.
        threshold: of see-saws, see :func:`nlp_mtl.reporting.seesaw.see_saws`.
    """
    steps, scored = run.steps, run.evaluations
    whole = scored.run_best["step"] if scored.run_best else None
    tasks: dict[str, dict[str, Any]] = {}
    for place, task in enumerate(run.tasks):
        tasks[task] = {
            **_of_steps(steps, place),
            "metric": scored.metrics.get(task),
            "greater_is_better": scored.better.get(task),
            "best": scored.best(task),
            "at_run_best": scored.at(task, whole),
            "final": scored.final.get(task),
        }
    pairs = see_saws(scored.steps, scored.scores, scored.better, threshold)
    several = len(scored.steps) > 1 and len(scored.scores) > 1
    return {
        "format": FORMAT,
        "run": run.name,
        "finished": run.finished,
        "source": run.source,
        "balancer": run.strategy("balancer"),
        "sampler": run.strategy("sampler"),
        "steps": {
            "recorded": len(steps.numbers),
            "first": int(steps.numbers[0]) if len(steps.numbers) else None,
            "last": int(steps.numbers[-1]) if len(steps.numbers) else None,
            "looked": len(steps.looked),
        },
        "tasks": tasks,
        "gradients": conflict(steps.cosines, run.tasks),
        "validation": {"steps": scored.steps, "scores": scored.scores, "run_best": scored.run_best}
        if scored.steps
        else None,
        "see_saw": {
            "threshold": threshold,
            "intervals": len(scored.steps) - 1,
            "pairs": [
                {
                    "tasks": list(pair.tasks),
                    "count": len(pair.intervals),
                    "scored": pair.scored,
                    "intervals": [list(interval) for interval in pair.intervals],
                }
                for pair in pairs
            ],
        }
        if several
        else None,
        "missing": missing(run),
    }


def conflict(cosines: np.ndarray, tasks: list[str]) -> dict[str, Any] | None:
    """Means and shares of the cosines between tasks' gradients; None if none was seen.

    Args:
        cosines: [looks, tasks, tasks], NaN where a pair was not seen.
        tasks: their names.

    Example:
        >>> import numpy as np
        >>> found = conflict(np.array([[[np.nan, c], [c, np.nan]] for c in (0.5, -0.25, np.nan)]), ["a", "b"])
        >>> found["cosine"], found["conflicting"], found["seen"], found["steps_with_conflict"]
        ({'a': {'b': 0.125}}, {'a': {'b': 0.5}}, {'a': {'b': 2}}, 0.5)
    """
    import numpy as np

    first, second = np.triu_indices(len(tasks), 1)
    pairs = cosines[:, first, second]
    seen, below = np.isfinite(pairs), np.nan_to_num(pairs, nan=0.0) < 0
    if not seen.any():
        return None
    counts, totals = seen.sum(0), np.where(seen, pairs, 0.0).sum(0)
    found: dict[str, dict[str, dict[str, Any]]] = {"cosine": {}, "conflicting": {}, "seen": {}}
    for i, j, count, total, under in zip(first, second, counts, totals, below.sum(0), strict=True):
        if count:
            here = {"cosine": float(total / count), "conflicting": float(under / count), "seen": int(count)}
            for key, value in here.items():
                found[key].setdefault(tasks[i], {})[tasks[j]] = value
    looks = seen.any(1)
    return {
        **found,
        "conflicting_share": float(below.sum() / seen.sum()),
        "cosine_mean": float(totals.sum() / seen.sum()),
        "steps_with_conflict": float(below.any(1).sum() / looks.sum()),
    }


def most_conflicting(gradients: dict[str, Any] | None, most: int = 6) -> list[tuple[str, str]]:
    """Pairs that conflict in the largest share of looks; of equals, those with the lower mean cosine."""
    if gradients is None:
        return []
    known = [
        (-share, gradients["cosine"][first][second], first, second)
        for first, row in gradients["conflicting"].items()
        for second, share in row.items()
    ]
    return [(first, second) for _, _, first, second in sorted(known, key=lambda one: one[:2])[:most]]


def missing(run: Reading) -> list[str]:
    """What could not be measured, and why."""
    said, steps, scored = [], run.steps, run.evaluations
    if not run.finished and run.source:
        said.append(
            f"The end: there is no metrics.json of it. The run is still being trained, was stopped, or was trained "
            f"without nlp_mtl.train; scores are those of {run.source}."
        )
    elif not run.source:
        said.append("Scores: the run has saved no checkpoint yet, which its log comes with.")
    if not run.recorded:
        said.append(
            "Losses, weights, rates and gradients per step: the run has no steps.jsonl; runs with a `save_strategy` "
            "other than 'no' keep one."
        )
    elif not len(steps.numbers):
        said.append("Losses, weights, rates and gradients per step: steps.jsonl has no whole line yet.")
    elif len(run.tasks) < 2:
        said.append("Conflict: the run has one task, and nothing that it could be in conflict with.")
    elif not len(steps.looked):
        why = (
            "`cosines_every` is 0 in the run file"
            if run.settings.get("cosines_every") == 0
            else "no step looked: `cosines_every` is 0, or the tasks share no parameter that is trained"
        )
        said.append(f"Gradient norms and cosines: {why}.")
    if run.source and not scored.steps:
        once = ", only after it" if scored.final else ""
        said.append(f"Scores over steps: nothing was evaluated in training{once} (`training.eval_strategy`).")
    elif len(scored.steps) == 1:
        said.append("See-saws: there was one evaluation in training, and it takes two to see a change.")
    unscored = [task for task in run.tasks if task not in scored.metrics]
    if scored.steps and unscored:
        said.append(f"Scores of {', '.join(unscored)}: no metric of a validation split is in the log.")
    return said


def _of_steps(steps: Steps, place: int) -> dict[str, Any]:
    import numpy as np

    def mean(values: np.ndarray) -> float | None:
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else None

    losses, weights = (values[:, place][np.isfinite(values[:, place])] for values in (steps.losses, steps.weights))
    tenth = max(1, len(losses) // 10)
    return {
        "steps": len(losses),
        "loss": {"first": mean(losses[:tenth]), "last": mean(losses[-tenth:]), "mean": mean(losses)},
        "weight": {
            "mean": mean(weights),
            "least": float(weights.min()) if len(weights) else None,
            "most": float(weights.max()) if len(weights) else None,
        },
        "rate": mean(np.nan_to_num(steps.rates[:, place], nan=0.0)),
        "norm": mean(steps.norms[:, place]),
    }
