"""What a task scores by how many training rows it has, in several ways, over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.atomic import write_text
from nlp_mtl.curves.plan import load_curve
from nlp_mtl.errors import ConfigError
from nlp_mtl.studies.running import run_missing
from nlp_mtl.studies.statistics import Interval, interval, verdict

FORMAT = 1


@dataclass
class Curve:
    """What a study of a learning curve found.

    Attributes:
        task: the task.
        metric: its first metric.
        scores: way → rows → seed → score.
        trivial: of the trivial baseline; NaN where it has none.
        confidence: of the intervals.
        failed: runs that failed, and why.
        stopped: whether runs are missing because it was stopped.
        folder: where it is written.
    """

    task: str
    metric: str
    scores: dict[str, dict[int | str, dict[int, float]]]
    trivial: float
    confidence: float
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    folder: Path = Path()

    @property
    def rows(self) -> list[int | str]:
        """The numbers of rows, the fewest first, `all` last."""
        known = {rows for by in self.scores.values() for rows in by}
        return sorted(known, key=lambda rows: math.inf if isinstance(rows, str) else rows)

    def score(self, way: str, rows: int | str) -> Interval | None:
        """An interval over seeds; None where no run is done."""
        found = self.scores[way].get(rows)
        return interval(list(found.values()), self.confidence) if found else None

    def against(self, way: str, rows: int | str) -> Interval | None:
        """Of the differences to the first way, seed by seed; None where there are none."""
        first = self.scores[next(iter(self.scores))].get(rows, {})
        own = self.scores[way].get(rows, {})
        both = [own[seed] - first[seed] for seed in own if seed in first]
        return interval(both, self.confidence) if both else None

    def table(self) -> list[dict[str, str]]:
        """A row for each number of rows: each way's score, and beside the first one the paired difference."""
        found = []
        for rows in self.rows:
            row = {"rows": str(rows)}
            for number, way in enumerate(self.scores):
                row[way] = str(score) if (score := self.score(way, rows)) else "—"
                if number:
                    apart = self.against(way, rows)
                    half = "" if apart is None or math.isnan(apart.half) else f" ± {apart.half:.3f}"
                    row[f"{way} − {next(iter(self.scores))}"] = "—" if apart is None else f"{apart.mean:+.3f}{half}"
            found.append(row)
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``curve.json``."""
        ways: dict[str, Any] = {}
        for way, by in self.scores.items():
            ways[way] = {str(rows): {str(seed): round(one, 6) for seed, one in own.items()} for rows, own in by.items()}
        shown = {
            way: {str(rows): verdict(apart) for rows in by if (apart := self.against(way, rows)) is not None}
            for way, by in list(self.scores.items())[1:]
        }
        return {
            "format": FORMAT,
            "task": self.task,
            "metric": self.metric,
            "confidence": self.confidence,
            "trivial": None if math.isnan(self.trivial) else self.trivial,
            "scores": ways,
            "verdicts": shown,
            "failed": self.failed,
            "stopped": self.stopped,
        }

    def markdown(self) -> str:
        """The table."""
        rows = self.table()
        cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines += ["", f"{self.task}: {self.metric} of the validation rows, by how many training rows it has."]
        return "\n".join([*lines, *(f"\n{what}: {why}" for what, why in self.failed.items()), ""])


def curve(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Curve:
    """Do what is missing of a study of a learning curve, and compare.

    ``curve.json``, ``curve.md`` and ``curve.svg`` are written into its `output_dir`. A seed draws the same rows in
    every way, so differences are paired.

    Args:
        source: a study file, or a mapping of its keys; see :class:`nlp_mtl.curves.plan.CurveStudy`.
        overrides: ``key=value``.

    Raises:
        ConfigError: mistakes in the study or its runs, all at once; no run came to an end.
        RunFolderError: a folder of the study holds another run.
    """
    study, planned = load_curve(source, overrides)
    outcomes, stopped = run_missing([run for runs in planned.values() for run in runs])
    of_run = {outcome.run.folder: outcome for outcome in outcomes}
    scores: dict[str, dict[int | str, dict[int, float]]] = {name: {} for name in study.methods}
    metric, trivial = "", math.nan
    for (way, rows), runs in planned.items():
        for run in runs:
            outcome = of_run.get(run.folder)
            if outcome is None or outcome.metrics is None:
                continue
            metric = outcome.metrics["first"][study.task]["metric"]
            trivial = outcome.metrics["trivial"][study.task].get(metric, math.nan)
            scores[way].setdefault(rows, {})[run.seed] = outcome.metrics["validation"][study.task][metric]
    failed = {f"{one.run.method}, seed {one.run.seed}": one.error for one in outcomes if one.error}
    scores = {way: by for way, by in scores.items() if by}
    if not scores:
        why = "; ".join(f"{what}: {said}" for what, said in failed.items()) or "it was stopped before one was done"
        raise ConfigError(f"curve: no run came to an end ({why}); go on by the same command")
    found = Curve(study.task, metric, scores, trivial, study.confidence, failed, stopped, Path(study.output_dir))
    write_text(found.folder / "curve.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(found.folder / "curve.md", found.markdown())
    from nlp_mtl.curves.plot import draw

    draw(found, found.folder / "curve.svg")
    return found
