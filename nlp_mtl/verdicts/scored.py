"""What a run said of each row, kept beside it: verdicts are made of this, and the encoder runs once for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import RunFolderError
from nlp_mtl.runspec import read_spec
from nlp_mtl.verdicts.rowstats import RowScore, row_score

FORMAT, FOLDER = 1, "scored"
TRAIN_ROWS = 500  # so many training rows are scored, to see how far a run is above its validation score


@dataclass(frozen=True)
class TaskRows:
    """A task's rows of a split, as a run scored them.

    Attributes:
        metric: the task's first.
        better: whether more of it is better.
        score: of all rows.
        predictions, references: one for each row, as the metric takes them.
        given: what the metric needs besides.
        labels: names of the classes; None without.
        metrics: all of the task's metrics.
        rows_key: tells the rows, and their order, from others.
    """

    metric: str
    better: bool
    score: float
    predictions: list[Any]
    references: list[Any]
    given: dict[str, list[Any]]
    labels: list[str] | None
    metrics: dict[str, float]
    rows_key: str

    def row_score(self) -> RowScore:
        """Its score, ready to be resampled."""
        return row_score(self.metric, self.predictions, self.references, labels=self.labels, given=self.given or None)


@dataclass(frozen=True)
class Scored:
    """A run's rows of a split.

    Attributes:
        tasks: task → its rows.
        train: task → the score of some training rows, None of a task without any; empty where that was not asked for.
        asked: the tasks that were looked at; those without labels are not among `tasks`.
    """

    tasks: dict[str, TaskRows]
    train: dict[str, float | None]
    asked: list[str]


def scored_rows(
    folder: str | Path,
    split: str = "validation",
    *,
    tasks: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    train_rows: int = TRAIN_ROWS,
    only_known: bool = False,
    progress: bool = False,
) -> Scored | None:
    """A run's rows of a split; what was scored before, and is still of this run, is read.

    Args:
        folder: the folder of a finished run.
        split: validation or test, with labels.
        tasks: only these.
        data_root: see :func:`nlp_mtl.run.evaluate`.
        train_rows: so many training rows are scored too; 0 for none.
        only_known: give None instead of running the model.
        progress: show a bar.

    Raises:
        RunFolderError: no finished run.

    Cost: the first time, one pass over the split and `train_rows` rows of each task.
    """
    place = Path(folder)
    key = run_key(place)
    file = place / FOLDER / f"{split}.json"
    known = _read(file, key)
    if only_known:
        return known if known is not None and set(tasks or ()) <= set(known.tasks) else None
    known = known or Scored({}, {}, [])
    from nlp_mtl.run import evaluate

    wanted = list(tasks or (task["name"] for task in read_spec(place)["tasks"]))
    rows, train = dict(known.tasks), dict(known.train)
    missing = [task for task in wanted if task not in known.asked]
    if missing and not has_weights(place):
        raise RunFolderError(
            f"{place}: its weights were removed, and its {split} rows were not scored before; train it again (a "
            "verdict keeps the weights of twins with keep_weights=True)"
        )
    if missing:
        found = evaluate(place, split, tasks=missing, data_root=data_root, progress=progress)  # type: ignore[arg-type]
        rows |= {task: _rows_of(scores) for task, scores in found.items() if scores.first is not None}
    unseen = [task for task in wanted if task in rows and task not in train] if train_rows else []
    unseen = unseen if has_weights(place) else []
    if unseen:
        again = evaluate(place, "train", tasks=unseen, data_root=data_root, rows=train_rows)
        train |= {task: float(one.metrics[one.first]) if one.first else None for task, one in again.items()}
    if not missing and not unseen:
        return known
    said = {
        "format": FORMAT,
        "run": key,
        "asked": [*known.asked, *missing],
        "tasks": {task: vars(one) for task, one in rows.items()},
        "train": {**dict.fromkeys(unseen), **train},
    }
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps(said, default=_plain, ensure_ascii=False) + "\n")
    return _read(file, key)  # as it will be read again


def _rows_of(scores: Any) -> TaskRows:
    given = {
        need: _plain(values) if hasattr(values, "tolist") else list(values) for need, values in scores.given.items()
    }
    told = json.dumps([scores.references, given if "scores" not in given else {}], default=_plain)
    return TaskRows(
        scores.first,
        scores.better,
        float(scores.metrics[scores.first]),
        list(scores.decoded),
        list(scores.references),
        given,
        list(scores.labels) if scores.labels else None,
        {name: float(value) for name, value in scores.metrics.items()},
        hashlib.sha256(told.encode()).hexdigest()[:16],
    )


def has_weights(folder: Path) -> bool:
    """Whether a run can be run, and was not only scored."""
    return any(folder.glob("*.safetensors"))


def run_key(folder: Path) -> str:
    """Tells a run from another that was in the same folder before."""
    file = folder / "metrics.json"
    if not file.is_file():
        raise RunFolderError(f"{folder}: no finished run (metrics.json is not there); train it, or go on with --resume")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _read(file: Path, key: str) -> Scored | None:
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["format"] != FORMAT or said["run"] != key:
            return None
        tasks = {task: TaskRows(**one) for task, one in said["tasks"].items()}
        return Scored(tasks, dict(said["train"]), list(said.get("asked", tasks)))
    except (KeyError, TypeError, ValueError):
        return None  # half of it, or of another version: it is made again


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, tuple)):
        return list(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
