"""Task × task affinity from cheap evidence."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import registry
from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import Spec
from nlp_mtl.transferring.opening import Opened, open_tasks


def affinity(
    model: str | Path,
    tasks: Sequence[Any],
    *,
    evidence: Spec | Sequence[Spec] = ("embedding", "gradient_cosine"),
    rows: int = 2000,
    data_root: str | Path | None = None,
    registry_folders: Sequence[str | Path] = (),
    max_length: int | None = 128,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Affinity]:
    """How much tasks may gain from one another, before anything is trained together.

    What was computed of the same encoder and rows before is read from the cache folder.

    Args:
        model: a pretrained folder, a packaged model's name, or a Hub id.
        tasks: names, tags, paths or tasks, two or more.
        evidence: kinds, each a name or ``{name: …, arguments}``; ``nlp-mtl methods evidence`` lists them.
        rows: at most so many training rows of each task.
        data_root, registry_folders, max_length: see :meth:`nlp_mtl.MultiTaskModel.from_base`.
        seed: of which rows, and of what is trained.
        progress: show bars.

    Returns:
        Kind → a matrix; :meth:`nlp_mtl.affinity.Affinity.save` writes it for `nlp-mtl groups`.

    Raises:
        ConfigError: unknown evidence, wrong arguments, one task.
        DataError: tasks with too few rows.
        NotFoundError, UnsupportedError: with the way out.
    """
    wanted = built(evidence)
    opened = open_tasks(
        model,
        tasks,
        rows=rows,
        data_root=data_root,
        registry_folders=registry_folders,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    return affinities_of(opened, wanted)


def built(evidence: Spec | Sequence[Spec]) -> dict[str, Any]:
    """Kinds of evidence by name, with all mistakes at once.

    Raises:
        ConfigError: unknown names, wrong arguments, a kind twice.
    """
    specs = [evidence] if isinstance(evidence, (str, Mapping)) else list(evidence)
    found: dict[str, Any] = {}
    mistakes: list[str] = []
    for spec in specs:
        try:
            name = registry.parse_spec(spec, "evidence")[0]
            if name in found:
                mistakes.append(f"evidence: each kind once, found {name!r} twice; leave one out")
            found[name] = registry.evidences.build(spec)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return found


def affinities_of(opened: Opened, evidence: Mapping[str, Any]) -> dict[str, Affinity]:
    """The matrices of tasks that are open.

    Raises:
        ConfigError: one task.
    """
    if evidence and len(opened.tasks) < 2:
        raise ConfigError(
            f"transferability: evidence is on two tasks or more, found {', '.join(opened.tasks)}; name another task"
        )
    found = {}
    for name, kind in evidence.items():
        begin = time.perf_counter()
        values, said = kind.find(opened)
        said = {
            "model": str(opened.model.base["id"]),
            "rows": {task: len(rows) for task, rows in opened.rows.items()},
            "seed": opened.seed,
            "seconds": round(time.perf_counter() - begin, 1),
            **said,
        }
        found[name] = Affinity(opened.tasks, values, name.replace("_", " "), said)
    return found
