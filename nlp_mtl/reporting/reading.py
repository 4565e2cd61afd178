"""What a run folder holds that a report is made of; read whole before anything is drawn."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import checkpoint, yamlfile
from nlp_mtl.errors import RunFolderError, shown
from nlp_mtl.paths import no_name
from nlp_mtl.reporting.evaluations import Evaluations

if TYPE_CHECKING:
    import numpy as np

_SECTIONS = ("losses", "weights", "rates", "norms")


@dataclass(frozen=True)
class Steps:
    """``steps.jsonl`` as arrays; NaN where a task was absent, or nothing was seen.

    Attributes:
        numbers: [steps], the optimizer steps, from 0.
        losses, weights, rates: [steps, tasks].
        looked: [looks], which of the steps looked at the tasks' gradients, as places in `numbers`.
        norms: [looks, tasks].
        cosines: [looks, tasks, tasks], symmetric, the diagonal NaN.
    """

    numbers: np.ndarray
    losses: np.ndarray
    weights: np.ndarray
    rates: np.ndarray
    looked: np.ndarray
    norms: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True)
class Reading:
    """A run folder, as far as it goes.

    Attributes:
        name: the folder's own name; no path.
        tasks: in the run's order.
        steps: per step; without lines if the run has no ``steps.jsonl``.
        recorded: whether it has one.
        evaluations: scores over steps, and those at the end.
        source: where those come from: ``metrics.json`` for a finished run, else ``checkpoint-N/trainer_state.json``,
            or "" if there is neither yet.
        settings: the run file, as it was recorded; {} without one.
        strategies: of ``nlp_mtl.json``; {} without one.
        tables: what the sharing learned (``sharing.json``); {} without one.
    """

    name: str
    tasks: list[str]
    steps: Steps
    recorded: bool
    evaluations: Evaluations
    source: str
    settings: Mapping[str, Any]
    strategies: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.source == "metrics.json"

    def strategy(self, kind: str) -> Any:
        """What the run was told of a kind of strategy ("balancer", "sampler"), None if that is not known."""
        usual = {"balancer": "equal", "sampler": "proportional"}[kind] if self.settings else None
        return self.settings.get(kind, self.strategies.get(kind, usual))


def read_folder(folder: str | Path) -> Reading:
    """Read a run folder, of a run that is finished, stopped, or still being trained.

    Raises:
        RunFolderError: no run folder, nothing in it to report, or a file that is damaged.
    """
    from nlp_mtl.stepsfile import NAME, read_steps

    place = Path(folder)
    _check_is_run(folder)
    metrics, source, log = _log_of(place)
    last = checkpoint.checkpoints(place)
    specs = [part for part in (place, *reversed(last)) if (part / checkpoint.SPEC).is_file()]
    spec = _json(specs[0] / checkpoint.SPEC, "tasks") if specs else {}
    lines = read_steps(place)
    recorded = (place / NAME).is_file()
    if not recorded and not source:
        raise RunFolderError(
            f"{folder}: has nothing to report yet: none of {NAME}, metrics.json and checkpoint-N/trainer_state.json is "
            "there; they come with a training whose `save_strategy` is other than 'no'"
        )
    _check_lines(place / NAME, lines)
    validation = metrics.get("validation", {})
    tasks = _tasks_of(spec, lines, validation)
    settings = _settings(place)
    return Reading(
        name=place.resolve().name,
        tasks=tasks,
        steps=arrays_of(lines, tasks),
        recorded=recorded,
        evaluations=Evaluations.of(log, tasks, validation, settings.get("training") or {}),
        source=source,
        settings=settings,
        strategies=spec["strategies"] if isinstance(spec.get("strategies"), dict) else {},
        tables=_tables(place / "sharing.json"),
    )


def arrays_of(lines: Iterable[Mapping[str, Any]], tasks: Iterable[str]) -> Steps:
    """Lines of ``steps.jsonl`` as arrays.

    Args:
        lines: as :func:`nlp_mtl.stepsfile.read_steps` gives them.
        tasks: in the order that the arrays are to have.

    Example:
        >>> found = arrays_of([{"step": 3, "losses": {"b": 0.5}, "cosines": {"a": {"b": -1.0}}}], ["a", "b"])
        >>> found.losses.tolist(), found.cosines[0, 1, 0].item()
        ([[nan, 0.5]], -1.0)
    """
    import numpy as np

    lines, place = list(lines), {task: number for number, task in enumerate(tasks)}
    count, wide = len(lines), len(place)
    looked = [row for row, line in enumerate(lines) if "cosines" in line or "norms" in line]
    found = {key: np.full((count, wide), np.nan) for key in _SECTIONS}
    for key, values in found.items():
        for row, line in enumerate(lines):
            for task, value in line.get(key, {}).items():
                values[row, place[task]] = value
    cosines = np.full((len(looked), wide, wide), np.nan)
    for number, row in enumerate(looked):
        for first, others in lines[row].get("cosines", {}).items():
            for second, value in others.items():
                i, j = place[first], place[second]
                cosines[number, i, j] = cosines[number, j, i] = value
    if wide:
        cosines[:, range(wide), range(wide)] = np.nan
    return Steps(
        numbers=np.array([line["step"] for line in lines], dtype=np.int64),
        losses=found["losses"],
        weights=found["weights"],
        rates=found["rates"],
        looked=np.array(looked, dtype=np.int64),
        norms=found["norms"][looked],
        cosines=cosines,
    )


# ----------------------------------------------------------------------------------------------------------- the files


def _check_is_run(folder: str | Path) -> None:
    place = Path(folder)
    if why := no_name(folder):
        raise _no_run(shown(str(folder)), why, Path())
    if not place.is_dir():
        raise _no_run(str(folder), "it is a file" if place.exists() else "it is not there", place)
    inside = place.resolve()
    if re.fullmatch(r"checkpoint-\d+", inside.name) and not (inside / "steps.jsonl").exists():
        raise RunFolderError(
            f"{folder}: a report is of a whole run, found one of its checkpoints; name the run's folder, {place.parent}"
        )
    known = ("run.yaml", "metrics.json", "steps.jsonl", checkpoint.SPEC)
    if not any((place / name).is_file() for name in known) and not checkpoint.checkpoints(place):
        raise _no_run(str(folder), f"none of {', '.join(known)} is there", place)


def _no_run(folder: str, why: str, near: Path) -> RunFolderError:
    from nlp_mtl.runspec import runs_near

    return RunFolderError(f"{folder}: not a run folder ({why}); {runs_near(near)}")


def _log_of(place: Path) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """``metrics.json``, where the trainer's log is from, and the log: that which goes furthest, so of a resumed run."""
    metrics = _json(place / "metrics.json", "log")
    logs = [("metrics.json", metrics.get("log", []))] if metrics else []
    for folder in (place, *reversed(checkpoint.checkpoints(place))):
        file = folder / "trainer_state.json"
        if said := _json(file, "log_history"):
            logs.append((file.relative_to(place).as_posix(), said["log_history"]))
            break
    if not logs:
        return {}, "", []
    source, log = max(logs, key=lambda known: _last_step(known[1]))  # the first, where they go equally far
    return metrics if source == "metrics.json" else {}, source, log


def _last_step(log: list[dict[str, Any]]) -> float:
    return max((entry.get("step", 0) for entry in log), default=0)


def _json(file: Path, key: str) -> dict[str, Any]:
    """A file that holds a list of mappings under a key; {} if it is not there."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{file}: damaged ({error}); {_way_out(file)}") from None
    entries = found.get(key, []) if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RunFolderError(
            f"{file}: damaged (`{key}` is a list of mappings, found {shown(entries)}); {_way_out(file)}"
        )
    scores = found.get("validation", {})
    if not isinstance(scores, dict) or not all(isinstance(known, dict) for known in scores.values()):
        raise RunFolderError(
            f"{file}: damaged (`validation` is a mapping from tasks to scores, found {shown(scores)}); {_way_out(file)}"
        )
    return found


def _tables(file: Path) -> dict[str, Any]:
    """What a sharing wrote to be looked at; {} if it did not."""
    found = _json(file, "")
    right = all(
        isinstance(told, dict)
        and {"title", "note", "columns", "rows", "signed"} <= set(told)
        and isinstance(told["rows"], dict)
        and all(len(values) == len(told["columns"]) for values in told["rows"].values())
        for told in found.values()
    )
    if not right:
        raise RunFolderError(f"{file}: damaged (no tables of a sharing); {_way_out(file)}")
    return found


def _way_out(file: Path) -> str:
    if file.name == "metrics.json":
        return "copy it again, or remove it: a report then takes the newest checkpoint's log"
    return "copy it again"


def _settings(place: Path) -> dict[str, Any]:
    file = place / "run.yaml"
    said = yamlfile.load(file)[0] if file.is_file() else {}
    return said if isinstance(said, dict) else {}


def _tasks_of(spec: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], validation: Mapping[str, Any]) -> list[str]:
    """In the model's order; those it does not know, in the order of the scores, then of their appearance."""
    found = dict.fromkeys(str(task["name"]) for task in spec.get("tasks", ()) if "name" in task)
    found.update(dict.fromkeys(validation))
    for line in lines:
        for key in _SECTIONS:
            found.update(dict.fromkeys(line.get(key, ())))
        for first, others in line.get("cosines", {}).items():
            found.update(dict.fromkeys([first, *others]))
    return list(found)


def _check_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    for number, line in enumerate(lines, 1):
        wrong = None
        if isinstance(line["step"], bool) or not isinstance(line["step"], int) or line["step"] < 0:
            wrong = f"`step` is a whole number from 0, found {shown(line['step'])}"
        sections = {key: line[key] for key in _SECTIONS if key in line}
        cosines = line.get("cosines", {})
        if not isinstance(cosines, dict):
            wrong = f"`cosines` is a mapping from tasks, found {shown(cosines)}"
        else:
            sections |= {f"cosines.{task}": row for task, row in cosines.items()}
        for key, values in sections.items():
            if not isinstance(values, dict) or not all(_is_number(value) for value in values.values()):
                wrong = f"`{key}` is a mapping from tasks to numbers, found {shown(values)}"
        if wrong:
            raise RunFolderError(f"{file}:{number}: {wrong}; remove the line, or the file: reports then do without")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isinf(value)
