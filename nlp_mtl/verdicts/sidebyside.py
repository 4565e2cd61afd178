"""Finished runs side by side, row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.pulling import last_stage
from nlp_mtl.verdicts.judging import LEAST_SEEDS, Difference, difference, holm
from nlp_mtl.verdicts.scored import Scored, scored_rows

FORMAT, _CONFIDENCE = 1, 0.95


@dataclass(frozen=True)
class SideBySide:
    """Runs, compared with the first.

    Attributes:
        names: of the runs, the first is what others are compared with.
        split: which rows.
        metrics: task → its first metric.
        scores: run → task → score, the mean over seeds.
        against: run → task → its difference to the first, above 0 is better.
        shown: run → task → better, worse, or no difference shown.
        seeds: run → how many.
    """

    names: list[str]
    split: str
    metrics: dict[str, str]
    scores: dict[str, dict[str, float]]
    against: dict[str, dict[str, Difference]]
    shown: dict[str, dict[str, str]]
    seeds: dict[str, int]

    def table(self) -> list[dict[str, str]]:
        """A row for each task, as text."""
        rows = []
        for task, metric in self.metrics.items():
            row = {"task": task, "metric": metric, self.names[0]: f"{self.scores[self.names[0]][task]:.3f}"}
            for name in self.names[1:]:
                known = self.against[name].get(task)
                half = math.nan if known is None else known.rows_half if math.isnan(known.half) else known.half
                row[name] = (
                    "—"
                    if known is None
                    else f"{self.scores[name][task]:.3f} ({known.mean:+.3f} ± {half:.3f}, {self.shown[name][task]})"
                )
            rows.append(row)
        return rows

    def worse(self) -> list[str]:
        """Runs and tasks that are shown to be worse than the first run."""
        return [f"{name}: {task}" for name, by in self.shown.items() for task, said in by.items() if said == "worse"]

    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        least = min(self.seeds.values())
        found = [
            f"Compared with {self.names[0]} on {self.split} rows, at 95 % after Holm's correction for all comparisons. "
            f"Worse: {', '.join(self.worse()) or 'none'}."
        ]
        if least < LEAST_SEEDS:
            found.append(
                f"With {least} seed{'s' if least > 1 else ''} the intervals are over rows alone: they say that these "
                "two models differ, not that one way of training is better; folders that hold seed-* runs tell that."
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else round(value, 6)

        return {
            "format": FORMAT,
            "split": self.split,
            "baseline": self.names[0],
            "metrics": self.metrics,
            "scores": self.scores,
            "seeds": self.seeds,
            "against": {
                name: {
                    task: {
                        "mean": plain(one.mean),
                        "half": plain(one.half),
                        "rows_half": plain(one.rows_half),
                        "shown": self.shown[name][task],
                    }
                    for task, one in by.items()
                }
                for name, by in self.against.items()
            },
            "worse": self.worse(),
        }

    def write(self, folder: str | Path) -> Path:
        """``compare.json`` and ``compare.md``; gives the folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        rows = self.table()
        head = list(rows[0])
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row[key] for key in head) + " |" for row in rows]
        write_text(place / "compare.md", "\n".join([*lines, "", *self.sentences(), ""]))
        write_text(place / "compare.json", json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        return place


def compare_runs(
    folders: Sequence[str | Path], *, split: str = "validation", data_root: str | Path | None = None
) -> SideBySide:
    """Put finished runs side by side.

    Args:
        folders: two or more run folders, the first is what others are compared with; or folders whose ``seed-*`` are
            runs of one way with several seeds, as a study leaves them. Only seeds that all have count. Of a run in
            stages it is the last one's model.
        split: validation or test, with labels.
        data_root: see :func:`nlp_mtl.run.evaluate`.

    Raises:
        ConfigError: fewer than two; runs without a task or a seed in common, or whose rows or metrics differ.
        RunFolderError: a folder without a finished run.

    Relations: like a study (:func:`nlp_mtl.studies.compare.compare`), but of runs that are there, with rows in mind.

    Cost: one pass over the split for each run, the first time.
    """
    if len(folders) < 2:
        raise ConfigError(f"compare: two runs or more, found {len(folders)}; or a study file")
    names = _names([Path(folder) for folder in folders])
    ways = {name: _seeds(Path(folder)) for name, folder in zip(names, folders, strict=True)}
    common = set.intersection(*(set(places) for places in ways.values()))
    if not common:
        each = "; ".join(
            f"{name}: {', '.join(places) if '' not in places else 'one run'}" for name, places in ways.items()
        )
        raise ConfigError(f"compare: only runs with the same seed are compared, found none ({each}); name such folders")
    known: dict[str, dict[str, Scored]] = {}
    for name, places in ways.items():
        known[name] = {}
        for seed in sorted(common):
            rows = scored_rows(places[seed], split, data_root=data_root, train_rows=0)
            if rows is not None:
                known[name][seed] = rows
    base, first = known[names[0]], next(iter(known[names[0]].values()))
    shared = [task for task in first.tasks if all(task in one.tasks for by in known.values() for one in by.values())]
    if not shared:
        raise ConfigError(f"compare: no task is scored on {split} rows in all runs; compare runs with a task in common")
    wrong = sorted(
        {
            task
            for task in shared
            for by in known.values()
            for s in by.values()
            if s.tasks[task].rows_key != first.tasks[task].rows_key
        }
    )
    if wrong:
        raise ConfigError(f"compare: {', '.join(wrong)}: the runs have other {split} rows; give them the same data")
    metrics = {task: first.tasks[task].metric for task in shared}
    found = {task: sorted({s.tasks[task].metric for by in known.values() for s in by.values()}) for task in shared}
    if other := [f"{task}: {', '.join(each)}" for task, each in found.items() if len(each) > 1]:
        raise ConfigError(
            f"compare: a task is compared by one metric, found {'; '.join(other)}; name the runs whose task says the "
            "same `metrics`"
        )
    against: dict[str, dict[str, Difference]] = {}
    for name in names[1:]:
        pairs = list(zip(known[name].values(), base.values(), strict=True))
        ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
        against[name] = {
            task: difference(
                [one.tasks[task].row_score() for one in ours],
                [one.tasks[task].row_score() for one in theirs],
                better=first.tasks[task].better,
                confidence=_CONFIDENCE,
            )
            for task in shared
        }
    p = holm(
        {
            f"{name}\n{task}": one.rows_p if math.isnan(one.p) else one.p
            for name, by in against.items()
            for task, one in by.items()
        }
    )
    shown = {
        name: {task: _shown(one, p[f"{name}\n{task}"]) for task, one in by.items()} for name, by in against.items()
    }
    scores = {
        name: {task: float(np.mean([one.tasks[task].score for one in by.values()])) for task in shared}
        for name, by in known.items()
    }
    return SideBySide(names, split, metrics, scores, against, shown, {name: len(by) for name, by in known.items()})


def _shown(found: Difference, p: float) -> str:
    if math.isnan(p) or p >= 1 - _CONFIDENCE:
        return "no difference shown"
    return "better" if found.mean > 0 else "worse"


def _seeds(folder: Path) -> dict[str, Path]:
    if (folder / "metrics.json").is_file():
        return {"": last_stage(folder)}
    found = {
        place.name: last_stage(place) for place in sorted(folder.glob("seed-*")) if (place / "metrics.json").is_file()
    }
    if not found:
        raise RunFolderError(
            f"{folder}: no finished run, and no folder of seed-* runs (metrics.json is not there); name a run's folder"
        )
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names, all different."""
    for parts in range(1, 1 + max(len(folder.resolve().parts) for folder in folders)):
        names = ["/".join(folder.resolve().parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {folder.name}" for number, folder in enumerate(folders, 1)]  # one run twice
