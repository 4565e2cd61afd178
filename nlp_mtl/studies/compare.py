"""Ways of training compared over seeds: scores with intervals, Δm, cost, and what the intervals show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError
from nlp_mtl.studies.running import Outcome, run_missing
from nlp_mtl.studies.statistics import Interval, corrected, interval, relative_change, verdict
from nlp_mtl.studies.study import SINGLE, Study, load_study

FORMAT = 1


@dataclass
class Comparison:
    """What a study found.

    Attributes:
        baseline: the way that others are compared with.
        confidence: of the intervals.
        metrics: task → its first metric.
        scores: way → task → an interval of it.
        means: way → of the mean over tasks.
        delta: way → of Δm against single tasks, in per cent; empty without them.
        against: way → of the differences of the mean to the baseline's, seed by seed.
        verdicts: way → what those show.
        cost: way → the median over seeds of its training time over the baseline's of the same seed.
        parameters: way → how many numbers it trains, of all models where each task has its own.
        seeds: way → the seeds that count.
        failed: runs that failed, and why.
        stopped: whether runs are missing because it was stopped.
        folder: where it is written.
    """

    baseline: str
    confidence: float
    metrics: dict[str, str]
    scores: dict[str, dict[str, Interval]]
    means: dict[str, Interval]
    delta: dict[str, Interval]
    against: dict[str, Interval]
    verdicts: dict[str, str]
    cost: dict[str, float]
    parameters: dict[str, int]
    seeds: dict[str, list[int]]
    failed: dict[str, str]
    stopped: bool = False
    folder: Path = Path()

    def table(self) -> list[dict[str, str]]:
        """A row for each way, as text."""
        rows = []
        for way in self.scores:
            row = {"method": way, **{task: str(found) for task, found in self.scores[way].items()}}
            row["mean"] = str(self.means[way])
            row["Δm %"] = _signed(self.delta[way], 1) if way in self.delta else "—"
            row["mean − baseline"] = _signed(self.against[way], 3) if way in self.against else "—"
            row["shown"] = self.verdicts.get(way, "baseline" if way == self.baseline else "—")
            row["trained"] = f"{self.parameters[way] / 1e3:,.0f} k" if way in self.parameters else "—"
            row["time"] = f"{self.cost[way]:.2f} ×" if way in self.cost else "—"
            rows.append(row)
        return rows

    def sentence(self) -> str:
        """One sentence on whether anything beats the baseline."""
        others = {way: found for way, found in self.against.items() if way != SINGLE}
        better = [way for way in others if self.verdicts[way] == "better"]
        worse = [way for way in others if self.verdicts[way] == "worse"]
        wide = {way: corrected(found, self.confidence, len(others)) for way, found in others.items()}
        left = [way for way, found in wide.items() if verdict(found) in ("better", "worse")]
        said = f"Better than {self.baseline!r} in the mean score, by the {self.confidence:.0%} interval of paired "
        said += f"differences: {', '.join(better) or 'none'}. Worse: {', '.join(worse) or 'none'}. After Bonferroni's "
        return said + f"correction for {len(others)} comparison(s) that is left of: {', '.join(left) or 'none'}."

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``compare.json``."""

        def plain(found: Interval) -> dict[str, Any]:
            mean, half = (None if math.isnan(value) else round(value, 6) for value in (found.mean, found.half))
            return {"mean": mean, "half": half, "count": found.count}

        return {
            "format": FORMAT,
            "baseline": self.baseline,
            "confidence": self.confidence,
            "metrics": self.metrics,
            "scores": {way: {task: plain(v) for task, v in found.items()} for way, found in self.scores.items()},
            "means": {way: plain(found) for way, found in self.means.items()},
            "delta_m": {way: plain(found) for way, found in self.delta.items()},
            "mean_minus_baseline": {way: plain(found) for way, found in self.against.items()},
            "verdicts": self.verdicts,
            "time_over_baseline": {way: round(found, 3) for way, found in self.cost.items()},
            "trainable_parameters": self.parameters,
            "seeds": self.seeds,
            "failed": self.failed,
            "stopped": self.stopped,
            "said": self.sentence(),
        }

    def markdown(self) -> str:
        """The table and the sentence."""
        rows = self.table()
        head = list(rows[0])
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row.get(key, "—") for key in head) + " |" for row in rows]
        metrics = ", ".join(f"{task}: {metric}" for task, metric in self.metrics.items())
        said = [f"{what}: {why}" for what, why in self.failed.items()]
        return "\n".join([*lines, "", f"First metrics, validation rows: {metrics}. {self.sentence()}", *said, ""])


def _signed(found: Interval, digits: int) -> str:
    if math.isnan(found.mean):
        return "—"
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:+.{digits}f}{half}"


def compare(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Comparison:
    """Do what is missing of a study, and compare.

    ``compare.json``, ``compare.md`` and ``compare.svg`` are written into its `output_dir`.

    Args:
        source: a study file, or a mapping of its keys; see :class:`nlp_mtl.studies.study.Study`.
        overrides: ``key=value``; see :func:`nlp_mtl.studies.study.load_study`.

    Raises:
        ConfigError: mistakes in the study or its runs, all at once; no run came to an end.
        RunFolderError: a folder of the study holds another run.
    """
    study, runs = load_study(source, overrides)
    outcomes, stopped = run_missing(runs)
    found = compared(study, outcomes)
    found.stopped, found.folder = stopped, Path(study.output_dir)
    folder = found.folder
    write_text(folder / "compare.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "compare.md", found.markdown())
    from nlp_mtl.studies.plot import draw

    draw(found, folder / "compare.svg")
    return found


def compared(study: Study, outcomes: Sequence[Outcome]) -> Comparison:
    """What runs that are done say.

    Tasks that some ways have not (helpers) are left out. A seed counts for a way if all tasks have a score there, and
    in differences if it counts for both.

    Raises:
        ConfigError: no run came to an end.
    """
    done = [outcome for outcome in outcomes if outcome.metrics is not None]
    shared = [outcome for outcome in done if outcome.run.method != SINGLE]
    failed = {
        f"{o.run.method}{' ' + o.run.task if o.run.task else ''}, seed {o.run.seed}": o.error
        for o in outcomes
        if o.error
    }
    if not shared:
        why = "; ".join(f"{what}: {said}" for what, said in failed.items()) or "it was stopped before one was done"
        raise ConfigError(f"compare: no run came to an end ({why}); go on by the same command")
    scored = [o.metrics["first"] for o in shared if o.metrics]
    first: dict[str, Any] = {task: said for task, said in scored[0].items() if all(task in one for one in scored)}
    if not first:
        raise ConfigError("compare: no task is scored in every way; give the ways a task in common")
    higher = {task: said["higher_is_better"] for task, said in first.items()}
    values: dict[str, dict[int, dict[str, float]]] = {}
    seconds: dict[str, dict[int, float]] = {}
    parameters: dict[str, dict[int, int]] = {}
    for outcome in done:
        metrics, run = outcome.metrics or {}, outcome.run
        own = values.setdefault(run.method, {}).setdefault(run.seed, {})
        own.update(
            {task: found[first[task]["metric"]] for task, found in metrics["validation"].items() if task in first}
        )
        times = seconds.setdefault(run.method, {})
        times[run.seed] = times.get(run.seed, 0.0) + metrics["training_seconds"]
        trained = parameters.setdefault(run.method, {})
        trained[run.seed] = trained.get(run.seed, 0) + metrics.get("trainable_parameters", 0)  # 0: an older run
    values = {way: {seed: own for seed, own in by.items() if set(own) >= set(first)} for way, by in values.items()}
    values = {way: by for way, by in values.items() if by}
    whole = [way for way in dict.fromkeys(o.run.method for o in shared) if way in values]
    if not whole:
        raise ConfigError("compare: no run has a score of every task; look at the tasks' validation rows")
    baseline = whole[0]
    single, level = values.get(SINGLE, {}), study.confidence

    def mean(own: Mapping[str, float]) -> float:
        return float(np.mean([own[task] for task in first]))

    def of(make: Any) -> dict[str, Interval]:
        return {way: interval(found, level) for way, by in values.items() if (found := make(way, by))}

    against = of(
        lambda way, by: (
            way != baseline
            and [mean(own) - mean(values[baseline][seed]) for seed, own in by.items() if seed in values[baseline]]
        )
    )
    known = seconds[baseline]
    return Comparison(
        baseline,
        level,
        {task: said["metric"] for task, said in first.items()},
        {way: {t: interval([own[t] for own in by.values()], level) for t in first} for way, by in values.items()},
        of(lambda way, by: [mean(own) for own in by.values()]),
        of(
            lambda way, by: (
                way != SINGLE
                and [relative_change(own, single[seed], higher) for seed, own in by.items() if seed in single]
            )
        ),
        against,
        {way: verdict(found) for way, found in against.items()},
        {
            way: float(np.median(ratios))
            for way, by in seconds.items()
            if (ratios := [value / known[seed] for seed, value in by.items() if known.get(seed)])
        },
        {way: most for way, by in parameters.items() if (most := max(by.values()))},
        {way: sorted(by) for way, by in values.items()},
        failed,
    )
