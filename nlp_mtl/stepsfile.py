"""``steps.jsonl``: what every optimizer step of a run was, one line each.

A line is ``{"step": 0, "losses": {task: …}, "weights": {…}, "rates": {…}}``, and of steps that looked at the tasks'
gradients also ``"norms": {…}`` and ``"cosines": {task: {task: …}}``, each pair once. Absent tasks are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import RunFolderError
from nlp_mtl.steps import StepRecord

NAME = "steps.jsonl"


def line_of(record: StepRecord, tasks: Sequence[str]) -> dict[str, Any]:
    """A step as a line says it.

    Example:
        >>> import torch
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> line_of(StepRecord(0, torch.tensor([0.5, torch.nan]), one, one / 2), ["rte", "cola"])
        {'step': 0, 'losses': {'rte': 0.5}, 'weights': {'rte': 1.0}, 'rates': {'rte': 0.5}}
    """
    here = record.present.tolist()

    def named(values: Tensor) -> dict[str, float]:
        return {
            task: _short(value)
            for task, value, present in zip(tasks, values.tolist(), here, strict=True)
            if present and math.isfinite(value)
        }

    found: dict[str, Any] = {"step": record.step}
    for key in ("losses", "weights", "rates"):
        found[key] = named(getattr(record, key))
    if record.norms is not None and record.cosines is not None:
        found["norms"] = named(record.norms)
        rows = record.cosines.tolist()
        found["cosines"] = {
            tasks[i]: {tasks[j]: _short(rows[i][j]) for j in range(i + 1, len(tasks)) if math.isfinite(rows[i][j])}
            for i in range(len(tasks))
            if any(math.isfinite(rows[i][j]) for j in range(i + 1, len(tasks)))
        }
    return found


def _short(value: float) -> float:
    return float(f"{value:.6g}")


class StepsFile:
    """The lines of a run that is being written.

    Args:
        folder: the run folder; nothing is made in it before the first :meth:`flush`.
    """

    def __init__(self, folder: str | Path):
        self.file, self._new = Path(folder) / NAME, list[str]()

    def add(self, line: dict[str, Any]) -> None:
        """Keep a line, to be written with the next ones."""
        self._new.append(json.dumps(line, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Write what is kept at the end of the file."""
        if self._new:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write("".join(self._new))
            self._new.clear()

    def begin_at(self, step: int) -> None:
        """Forget what the file says of this step and later ones: they are made again."""
        self._new.clear()
        if not self.file.is_file():
            return
        kept = [json.dumps(line, ensure_ascii=False) + "\n" for line in _whole_lines(self.file) if line["step"] < step]
        write_text(self.file, "".join(kept))


def read_steps(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run folder, in their order; none if it has no such file.

    Raises:
        RunFolderError: a line that is no such line.
    """
    file = Path(folder) / NAME
    return list(_whole_lines(file)) if file.is_file() else []


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    lines: Iterable[str] = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):  # the process was killed while it wrote
            return
        try:
            found = json.loads(line)
            found["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{file}:{number}: a line of JSON with a `step`, found {line[:60]!r} ({error}); remove the line, or "
                "the file: reports then begin later"
            ) from None
        yield found
