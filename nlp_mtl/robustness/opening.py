"""A run's model, and the rows that it is looked at on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.data import Data, PoolRows, load_data
from nlp_mtl.errors import ConfigError, near, suggestion
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.pulling import local_folder
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.recording import find_files_again, recorded
from nlp_mtl.taskfile import SPLITS

Opened = tuple[Path, MultiTaskModel, Data]


def open_run(
    verb: str,
    run: str | Path,
    tasks: Sequence[str] | None,
    *,
    split: str,
    rows: int,
    seed: int,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
) -> Opened:
    """Open a run with the data of some of its tasks.

    Args:
        verb: for messages.
        run: a run folder, or a repository of the Hub.
        tasks: names; None for all.
        split, rows, seed: checked here, all mistakes at once.
        data_root: where data sets are looked for first; default that of the run.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Raises:
        ConfigError: wrong arguments, or tasks that the run does not have.
        RunFolderError: no run folder.
    """
    mistakes = []
    if split not in SPLITS:
        mistakes.append(f"{verb}: `split` is one of {', '.join(SPLITS)}, found {split!r}{near(str(split), SPLITS)}")
    for name, value, least in (("rows", rows, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            mistakes.append(f"{verb}: `{name}` is a whole number from {least}, found {value!r}")
    if isinstance(tasks, str):
        mistakes.append(f"{verb}: `tasks` is a list of names, found {tasks!r}; write [{tasks!r}]")
        tasks = None
    if mistakes:
        raise ConfigError(mistakes)
    folder = local_folder(run)
    model = MultiTaskModel.from_pretrained(folder, base=base)
    if unknown := [name for name in tasks or () if name not in model.heads]:
        raise ConfigError([f"{verb}: {run} has no task {name!r}{suggestion(name, model.tasks)}" for name in unknown])
    heads = {task: head for task, head in model.heads.items() if not tasks or task in tasks}
    said = recorded(folder)
    find_files_again(heads, said)
    root = data_root or said.get("data_root")
    data = load_data(heads, model.tokenizer, max_length=model.max_length, data_root=root)
    return Path(folder), model, data


def some_rows(data: Data, task: str, split: str, rows: int, seed: int) -> PoolRows | None:
    """At most so many labelled rows of a task, drawn at random, in their order; None of a split without any."""
    pool = data.pool_of(task, split)  # type: ignore[arg-type]
    if pool is None:
        return None
    known = np.flatnonzero(pool.labelled(task))
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:rows])
    if not len(chosen):
        return None
    with quiet_datasets():
        table = pool.table.select(chosen).flatten_indices()
    return PoolRows(task, (task,), table, {task: {}}, {task: pool.needs_labels[task]})


def is_classification(head: Any) -> bool:
    """Whether a head gives one of its labels to a text or a pair of texts."""
    return head.task.head_name == "sequence_classification"
