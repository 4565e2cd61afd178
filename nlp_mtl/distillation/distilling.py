"""A training's distillation from beginning to end: who is asked about which rows, when, and what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType, broadcast_object_list

from nlp_mtl import checkpoint
from nlp_mtl.data import Data, PoolRows, load_data
from nlp_mtl.distillation.lessons import Lesson, lessons_of, reads_alike, said_of
from nlp_mtl.distillation.outputs import Outputs, cache_key, cached_file, load_outputs, outputs_of, save_outputs
from nlp_mtl.distillation.rows import TaughtRows, taught_rows
from nlp_mtl.distillation.teachers import Teacher, teacher_of
from nlp_mtl.distillation.teaching import Teaching
from nlp_mtl.distilspec import specs_of
from nlp_mtl.errors import DataError, RunFolderError, UnsupportedError

logger = logging.getLogger("nlp_mtl")


class Distilling:
    """What :class:`nlp_mtl.trainer.MultiTaskTrainer` knows of distillation.

    Args:
        given: the entries of `distillation`, see :class:`nlp_mtl.distilspec.DistillationSpec`.
        model: the model that learns, as it starts.
        data: its rows.
        train_tasks: the tasks that learn from labels; None for all.
        data_root: where data sets are looked for first.
        seed: of projections.

    Raises:
        ConfigError: what can't be learned so, all mistakes at once.
    """

    def __init__(
        self,
        given: Any,
        model: Any,
        data: Data,
        *,
        train_tasks: Sequence[str] | None = None,
        data_root: Any = None,
        seed: int = 0,
    ):
        self.model, self.data, self.data_root, self.seed = model, data, data_root, seed
        self._learn = set(model.tasks if train_tasks is None else train_tasks)
        self.lessons = lessons_of(specs_of(given), model, data, train_tasks, lambda spec: teacher_of(spec, model))
        self._special = tuple(model.tokenizer.all_special_ids)
        self._pools: dict[str, TaughtRows] = {}
        self.teaching: Teaching | None = None
        self._known: dict[str, Outputs] | None = None

    def pools(self, rows: Sequence[PoolRows]) -> list[PoolRows]:
        """The pools that are trained on, with teachers; rows without a label of their task are learned from too.

        Args:
            rows: those that there is something to learn from by labels.
        """
        found, learned = [], {pool.key: pool for pool in rows}
        for pool in self.data.splits.get("train", []):
            own = learned.get(pool.key)
            if tasks := [lesson.task for lesson in self.lessons if pool.key in lesson.pools]:
                if own is None:  # nothing in it has a label
                    own = replace(pool, tasks=tuple(task for task in pool.tasks if task in self._learn))
                own = self._pools[pool.key] = taught_rows(own, tasks, self.data.heads, self._special)
            if own is not None:
                found.append(own)
        return found

    @property
    def guests(self) -> dict[str, int]:
        """Task → how many rows of others it learns from."""
        found: dict[str, int] = {}
        for pool in self._pools.values():
            for task in pool.guests:
                found[task] = found.get(task, 0) + len(pool)
        return found

    def check(self, accelerator: Any) -> None:
        """Refuse projections that would be cut up.

        Raises:
            UnsupportedError: with the way out.
        """
        sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if sharded and any(lesson.spec.hidden for lesson in self.lessons):
            raise UnsupportedError(
                f"distillation: `hidden` learns projections that are thrown away, found "
                f"{accelerator.distributed_type.value}, which cuts up all that is learned; use DDP (torchrun without "
                "FSDP), or leave `hidden` out"
            )

    def begin(self, folder: Path, *, resumed: bool, keep: bool, main: bool, processes: int) -> None:
        """Ask the teachers, or read what they said, and let the model learn from it.

        The first process asks; the others are told, to the bit.

        Args:
            folder: the run's, which keeps what the model said that the run starts from.
            resumed: a training goes on.
            keep: whether the run writes checkpoints, so that it may be resumed.
            main, processes: whether this is the first process, and how many there are.
        """
        said: dict[str, Outputs] | None = self._known if resumed else None
        if said is None and main:
            said = self._asked(folder / checkpoint.TEACHER, resumed, keep)
        if processes > 1:
            told = [said]
            broadcast_object_list(told, from_process=0)
            said = told[0]
        assert said is not None
        self._known = said
        for key, pool in self._pools.items():
            taught = [lesson for lesson in self.lessons if key in lesson.pools]
            pool.outputs = {one.task: said[_name(key, one)].in_order(one.columns) for one in taught}
        if self.teaching is None:  # else an optimizer knows its projections
            specs = {lesson.task: lesson.spec for lesson in self.lessons}
            self.teaching = Teaching(specs, self._widths(said), self.seed).to(self.model.device)
        self.model.teaching = self.teaching

    def end(self) -> None:
        """The training ended: nothing of it stays in the model."""
        self.model.teaching = None

    def _widths(self, said: Mapping[str, Outputs]) -> dict[str, tuple[int, int]]:
        found = {}
        for lesson in self.lessons:
            states = said[_name(lesson.pools[0], lesson)].states
            if lesson.spec.hidden and states is not None:
                found[lesson.task] = (int(self.model.sharing.config_of(lesson.task).hidden_size), states.shape[1])
        return found

    def _asked(self, file: Path, resumed: bool, keep: bool) -> dict[str, Outputs]:
        """What all teachers say, by pool and task."""
        found: dict[str, Outputs] = {}
        teachers = {id(lesson.teacher): lesson.teacher for lesson in self.lessons}
        for number, teacher in teachers.items():
            mine = [lesson for lesson in self.lessons if id(lesson.teacher) == number]
            if not teacher.identity and resumed:
                continue
            opened: list[Any] = []
            for key in self._pools:
                if here := [lesson for lesson in mine if key in lesson.pools]:
                    found |= self._of_pool(teacher, opened, key, here)
        own = [lesson for lesson in self.lessons if not lesson.teacher.identity]
        if own and resumed:
            found |= self._kept(file, own)
        elif own and keep:
            save_outputs(file, {_name(key, one): found[_name(key, one)] for one in own for key in one.pools})
        return found

    def _of_pool(self, teacher: Teacher, opened: list[Any], key: str, lessons: Sequence[Lesson]) -> dict[str, Outputs]:
        """What a teacher says of a pool's rows; `opened` holds its model as soon as it was needed."""
        rows, found = self._as_read(teacher, key, lessons), {}
        hidden = any(lesson.spec.hidden for lesson in lessons)
        sources = list(dict.fromkeys(lesson.source for lesson in lessons))
        by_source: dict[str, Outputs] = {}
        keys = {source: cache_key(teacher.identity, source, rows, hidden) for source in sources}
        for source in sources if teacher.identity else ():
            if (known := load_outputs(cached_file(keys[source]))) is not None:
                by_source[source] = known["said"]
        if missing := [source for source in sources if source not in by_source]:
            logger.info(
                "distillation: asking %s about %d rows of %s for %s",
                teacher.name,
                len(rows),
                key,
                ", ".join(missing),
            )
            if not opened:
                opened.append(teacher.open().to(self.model.device))
            asked = outputs_of(opened[0], missing, rows, hidden=hidden)
            by_source |= asked
            for source, one in asked.items() if teacher.identity else ():
                save_outputs(cached_file(keys[source]), {"said": one})
        for lesson in lessons:
            found[_name(key, lesson)] = by_source[lesson.source]
        return found

    def _as_read(self, teacher: Teacher, key: str, lessons: Sequence[Lesson]) -> PoolRows:
        """A pool's rows as the teacher reads them, in the same order."""
        pool = next(pool for pool in self.data.splits["train"] if pool.key == key)
        rows: PoolRows | None = pool
        if not reads_alike(teacher, self.model, pool):
            heads = {task: self.model.heads[task] for task in pool.tasks}
            read = load_data(
                heads, teacher.tokenizer, max_length=teacher.max_length, data_root=self.data_root, splits=("train",)
            )
            rows = read.pool_of(pool.tasks[0], "train")
        if rows is None or len(rows) != len(pool) or rows.table["source"][:] != pool.table["source"][:]:
            raise DataError(
                f"distillation: {teacher.name} makes {0 if rows is None else len(rows)} rows of the training rows of "
                f"{key}, where this run makes {len(pool)}; use a teacher with this run's tokenizer and max_length"
            )
        tasks = [lesson.task for lesson in lessons]
        return taught_rows(rows, tasks, self.data.heads, tuple(teacher.tokenizer.all_special_ids))

    def _kept(self, file: Path, lessons: Sequence[Lesson]) -> dict[str, Outputs]:
        """What the model said that the run started from."""
        found = load_outputs(file)
        for key in self._pools:
            for lesson in lessons:
                one = None if found is None else found.get(_name(key, lesson))
                if key in lesson.pools and (one is None or len(one.counts) != len(self._pools[key])):
                    raise RunFolderError(
                        f"{file}: what the model said that this run started from is missing or of other rows, and "
                        "`teacher: start` can't be asked again; start the run again with --overwrite"
                    )
        return found or {}

    def said(self) -> list[dict[str, Any]]:
        """What a run folder records."""
        return said_of(self.lessons)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: what it learned from whom, and the projections."""
        return {"said": self.said(), "projections": {} if self.teaching is None else self.teaching.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state of the same lessons."""
        if self.teaching is not None:
            self.teaching.load_state_dict(state["projections"])


def check_state(state: Mapping[str, Any] | None, distilling: Distilling | None, folder: str) -> None:
    """Refuse to go on from a checkpoint of a run that learned from other teachers.

    Raises:
        RunFolderError: with the way out.
    """
    theirs, ours = (state or {}).get("said", []), [] if distilling is None else distilling.said()
    if theirs != ours:
        names = [", ".join(one["teacher"] for one in said) or "none" for said in (theirs, ours)]
        what = (
            f"its teachers are {names[0]}, this run's are {names[1]}" if names[0] != names[1] else "its values differ"
        )
        raise RunFolderError(
            f"{folder}: a checkpoint of a run with another distillation: {what}; resume with the run file it was begun "
            "with, or train into another folder"
        )


def _name(key: str, lesson: Lesson) -> str:
    return f"{key}:{lesson.task}"
