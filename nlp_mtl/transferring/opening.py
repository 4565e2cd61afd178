"""What is looked at before training: an encoder, tasks, and some labelled training rows of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.data import Data, load_data
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.paths import cache_folder

FORMAT = 2  # raise it when what is kept on disk changes
LEAST = 8  # labelled rows of a task


@dataclass
class Opened:
    """An encoder with tasks' rows.

    Attributes:
        model: heads are new; heads that read a text read the mean of its tokens.
        data: the tokenized rows.
        rows: task → numbers of the training rows that are looked at, in the order in which they were drawn.
        seed: of the draw, and of what is trained.
        remake: makes the same model anew, with more arguments of :meth:`MultiTaskModel.from_base`.
        progress: whether bars are shown.
        known: what several kinds of evidence share.
    """

    model: MultiTaskModel
    data: Data
    rows: dict[str, np.ndarray]
    seed: int
    remake: Callable[..., MultiTaskModel]
    progress: bool = False
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names, in order."""
        return tuple(self.rows)

    def fingerprint(self, task: str) -> str:
        """Of the encoder, and of a task's rows as they are read: equal where what is computed of them is equal."""
        if (key := f"fingerprint:{task}") not in self.known:
            pool, head = self.data.pool_of(task, "train"), self.model.heads[task]
            assert pool is not None
            said = [FORMAT, self.model.base, head.task.head_name, getattr(head, "pooling", None), head.labels]
            total = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
            names = sorted(name for name in pool.columns if not name.startswith("labels:") or name == f"labels:{task}")
            for name in names:
                column = pool.columns[name]
                total.update(name.partition(":")[0].encode())  # a copy under another name is the same
                for number in self.rows[task]:
                    total.update(np.asarray(column[int(number)]).tobytes() + b"|")
            self.known[key] = total.hexdigest()
        return str(self.known[key])

    def kept(self, what: str, of: Sequence[Any], make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Arrays from the cache folder, or made now and kept there.

        Args:
            what: names the kind of thing.
            of: all that it depends on; fingerprints and arguments.
            make: makes the arrays.
        """
        key = hashlib.sha256(json.dumps([what, FORMAT, *of], sort_keys=True, default=str).encode()).hexdigest()[:32]
        file = cache_folder() / "transferability" / f"{what}-{key}.npz"
        try:
            with np.load(file, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except FileNotFoundError:
            pass
        except (OSError, ValueError):  # damaged: made again
            file.unlink(missing_ok=True)
        made = dict(make())
        file.parent.mkdir(parents=True, exist_ok=True)
        work = file.with_name(f".{file.name}.writing.npz")
        np.savez(work, **made)  # type: ignore[arg-type]
        work.replace(file)
        return made


def open_tasks(
    model: str | Path,
    tasks: Sequence[Any],
    *,
    rows: int = 2000,
    data_root: str | Path | None = None,
    registry_folders: Sequence[str | Path] = (),
    max_length: int | None = 128,
    seed: int = 0,
    progress: bool = False,
) -> Opened:
    """Open an encoder and draw rows.

    Args:
        model: a pretrained folder, a packaged model's name, or a Hub id.
        tasks: names, tags, paths or tasks.
        rows: at most so many labelled training rows of each.
        data_root, registry_folders, max_length: see :meth:`MultiTaskModel.from_base`.
        seed: of the draw. Tasks with as many rows get rows of the same numbers.
        progress: show bars.

    Raises:
        ConfigError: wrong numbers.
        DataError: tasks with too few labelled training rows, all at once.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < LEAST:
        raise ConfigError(f"transferability: `rows` is a whole number from {LEAST}, found {rows!r}; leave it out")

    def make(**more: Any) -> MultiTaskModel:
        made = MultiTaskModel.from_base(
            model,
            list(tasks),
            data_root=data_root,
            registry_folders=registry_folders,
            max_length=max_length,
            seed=seed,
            **more,
        )
        for head in made.heads.values():
            if hasattr(head, "pooling"):
                head.pooling = "mean"
        return made

    made = make()
    data = load_data(made.heads, made.tokenizer, max_length=made.max_length, data_root=data_root, splits=("train",))
    drawn: dict[str, np.ndarray] = {}
    mistakes = []
    for task in made.tasks:
        pool = data.pool_of(task, "train")
        labelled = np.array([], dtype=int) if pool is None else np.flatnonzero(pool.labelled(task))
        if len(labelled) < LEAST:
            mistakes.append(
                f"transferability: task {task!r} needs {LEAST} labelled training rows, found {len(labelled)}; leave it "
                "out"
            )
        drawn[task] = labelled[np.random.default_rng(seed).permutation(len(labelled))[:rows]]
    if mistakes:
        raise DataError("\n".join(mistakes))
    return Opened(made, data, drawn, seed, make, progress)
