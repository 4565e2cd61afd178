"""Affinity: how much each task is expected to gain from each other one, whatever the evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, RunFolderError, near

FORMAT = 1


@dataclass(frozen=True)
class Affinity:
    """A matrix of tasks by tasks.

    Attributes:
        tasks: names, m of them.
        values: [m, m], helper × helped: what training row's task does for column's. More is better; symmetric where
            the evidence has no direction. The diagonal is a task with itself; NaN is not known.
        measure: what it is, e.g. ``gradient cosine``.
        said: how it was made: model, rows, seeds, seconds.
    """

    tasks: tuple[str, ...]
    values: np.ndarray
    measure: str
    said: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        many = len(self.tasks)
        if self.values.shape != (many, many) or len(set(self.tasks)) != many:
            raise ConfigError(
                f"affinity: `values` is [{many}, {many}] for {many} tasks of different names, found "
                f"{list(self.values.shape)} and {', '.join(self.tasks)}"
            )

    def symmetric(self) -> np.ndarray:
        """[m, m]: the mean of both directions.

        Example:
            >>> Affinity(("a", "b"), np.array([[1.0, 0.2], [0.4, 1.0]]), "example").symmetric()[0, 1].round(6)
            np.float64(0.3)
        """
        return (self.values + self.values.T) / 2

    def of(self, tasks: Sequence[str]) -> Affinity:
        """The same for some of the tasks, in that order.

        Raises:
            ConfigError: tasks that it has not.
        """
        unknown = [task for task in tasks if task not in self.tasks]
        if unknown:
            raise ConfigError([f"affinity: no task {task!r}{near(task, self.tasks)}" for task in unknown])
        places = [self.tasks.index(task) for task in tasks]
        return Affinity(tuple(tasks), self.values[np.ix_(places, places)], self.measure, self.said)

    def as_json(self) -> dict[str, Any]:
        """For a file; what is not known is null."""
        rows = [[None if math.isnan(value) else float(value) for value in row] for row in self.values]
        return {
            "format": FORMAT,
            "measure": self.measure,
            "tasks": list(self.tasks),
            "values": rows,
            "said": self.said,
        }

    def save(self, file: str | Path) -> None:
        """Write it as JSON."""
        write_text(file, json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> Affinity:
        """Read what :meth:`save` wrote.

        Raises:
            RunFolderError: another file, or a newer format.
        """
        try:
            said = json.loads(Path(file).read_text(encoding="utf-8"))
            if said["format"] > FORMAT:
                raise RunFolderError(f"{file}: format {said['format']}, this version reads {FORMAT}; update nlp_mtl")
            values = np.array([[math.nan if v is None else v for v in row] for row in said["values"]], dtype=float)
            return cls(tuple(said["tasks"]), values, said["measure"], said["said"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"{file}: no affinity ({type(error).__name__}: {error})") from None
