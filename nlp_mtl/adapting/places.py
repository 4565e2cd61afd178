"""Where a changed run goes, and what it keeps of the run it was made from: run file and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint, yamlfile
from nlp_mtl.errors import ConfigError, shown, suggestion
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.paths import no_name
from nlp_mtl.recording import recorded, told_from
from nlp_mtl.tasks import load_tasks

_BY_TASK = ("validation", "trivial", "skill", "thresholds", "own_best", "data")


def out_mistakes(verb: str, out: str | Path) -> list[str]:
    """Why a new run can't be written there: only an empty place will do."""
    folder = Path(out)
    if why := no_name(folder):
        return [f"adapters {verb}: the new run is a folder, found {shown(str(out))} ({why}); name another"]
    if folder.exists() and not folder.is_dir():
        return [f"adapters {verb}: the new run is a folder, found the file {folder}; name another"]
    if folder.is_dir() and any(folder.iterdir()):
        held = "a run" if checkpoint.holds_run(folder) else "files"
        return [f"adapters {verb}: the new run's folder is empty or not there, found {held} in {folder}; name another"]
    return []


def beside(run: str | Path, word: str, task: str) -> Path:
    """The usual place of a changed run: a folder beside it, since a run is never changed where it stands.

    Example:
        >>> beside("runs/glue", "with", "spam").as_posix()
        'runs/glue_with_spam'
    """
    folder = Path(str(run).rstrip("/"))
    return folder.with_name(f"{folder.name}_{word}_{task}")


def unknown(verb: str, tasks: Sequence[str], known: Sequence[str]) -> list[str]:
    """A mistake for each name that the run has no task of."""
    return [
        f"adapters {verb}: {task!r} is not a task of this run{suggestion(task, known)}"
        for task in tasks
        if task not in known
    ]


def keep_records(run: str | Path, out: Path, model: MultiTaskModel, added: Sequence[Any] = ()) -> None:
    """Write the run file, its paths told from the new folder, and the scores that hold for the new run too.

    Args:
        run: the folder it was made from.
        out: the new run.
        model: the new run's.
        added: entries of the run file for tasks that the old run did not have.
    """
    said = recorded(run)
    if said:
        said["tasks"] = [*(_told(item, out) for item in said["tasks"] if _of(item, said, model.tasks)), *added]
        said["registry"] = [told_from(out, item) for item in said["registry"]]
        if said.get("data_root"):
            said["data_root"] = told_from(out, said["data_root"])
        said = {key: value for key, value in said.items() if value != []}
        checkpoint.write_text(out / "run.yaml", yamlfile.dumps(said))


def keep_scores(run: str | Path, out: Path, tasks: Sequence[str], more: Mapping[str, Any] | None = None) -> None:
    """Write ``metrics.json``: what the old run's says of these tasks, and `more` beside it."""
    found: dict[str, Any] = {}
    for place in (Path(run), Path(run).parent):
        if (place / "metrics.json").is_file():
            found = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
            break
    kept = {key: {task: v for task, v in found.get(key, {}).items() if task in tasks} for key in _BY_TASK}
    other = dict(more or {})
    said = {key: {**kept[key], **other.pop(key, {})} for key in _BY_TASK} | other
    if any(said.values()):
        checkpoint.write_text(out / "metrics.json", json.dumps(said, indent=1))


def _told(item: Any, out: Path) -> Any:
    if isinstance(item, Mapping) and "name" in item:
        return {**item, "name": _told(item["name"], out)}
    return told_from(out, item) if isinstance(item, str) and item.endswith((".yaml", ".yml")) else item


def _of(item: Any, said: Mapping[str, Any], tasks: Sequence[str]) -> bool:
    """Whether an entry of a run file stands for a task that is still there, as far as can be known."""
    try:
        return any(task.name in tasks for task in load_tasks([item], registry=said["registry"]))
    except ConfigError:
        return True
