"""Which task learns from which teacher on which rows: what is asked for, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlp_mtl.data import Data, PoolRows, tokenizer_signature
from nlp_mtl.distillation.teachers import Teacher
from nlp_mtl.distilspec import START, DistillationSpec, unknown_names
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.heads import Head
from nlp_mtl.heads.taught import Words, columns_of, kind_of, reads_alone, why_untaught


@dataclass(frozen=True)
class Lesson:
    """One task that learns from a teacher.

    Attributes:
        task: who learns.
        source: the teacher's task.
        spec: what is asked for.
        teacher: who teaches.
        columns: which of the teacher's numbers stands for each label; None where they are not by label.
        pools: the keys of the pools whose rows it is taught on.
    """

    task: str
    source: str
    spec: DistillationSpec
    teacher: Teacher
    columns: tuple[int, ...] | None
    pools: tuple[str, ...]


def lessons_of(
    specs: Sequence[DistillationSpec],
    model: Any,
    data: Data,
    train_tasks: Sequence[str] | None,
    teacher: Callable[[DistillationSpec], Teacher],
) -> list[Lesson]:
    """The lessons that are asked for.

    Args:
        specs: see there.
        model: the :class:`nlp_mtl.MultiTaskModel` that learns, as it starts.
        data: its rows.
        train_tasks: the tasks that learn from labels; None for all.
        teacher: gives the teacher that a spec names.

    Raises:
        ConfigError: every mistake.
    """
    if wrong := unknown_names(specs, model.tasks):
        raise ConfigError(wrong)
    found: dict[str, Lesson] = {}
    mistakes: list[str] = []
    for spec in specs:
        asked = _Asked(spec, teacher(spec), model, data, train_tasks)
        tasks = asked.tasks()
        mistakes += [
            f"distillation: `of` names {task!r}, which learns from {asked.teacher.name} in no way; add it to `tasks`"
            for task in spec.of
            if task not in tasks
        ]
        if not tasks:
            mistakes.append(asked.nobody())
        for task in tasks:
            if task in found:
                mistakes.append(f"distillation: each task has one teacher, found two for {task!r}; leave one out")
            elif why := asked.refused(task):
                mistakes.append(f"distillation: {task!r} can't learn from {asked.teacher.name}: {why}")
            else:
                found[task] = asked.lesson(task)
    if mistakes:
        raise ConfigError(mistakes)
    return list(found.values())


@dataclass(frozen=True)
class _Asked:
    """One spec, beside what it is asked of."""

    spec: DistillationSpec
    teacher: Teacher
    model: Any
    data: Data
    train_tasks: Sequence[str] | None

    def tasks(self) -> list[str]:
        """The tasks that learn: those named, or all that can."""
        if self.spec.tasks is not None:
            return list(self.spec.tasks)
        known = [task for task in self.model.tasks if self._source(task) in self.teacher.heads]
        if self.spec.on is not None:
            known = [task for task in known if task not in self.spec.on]
        elif self.train_tasks is not None:
            known = [task for task in known if task in self.train_tasks]
        if self.spec.teacher == START:
            known = [task for task in known if not self._is_new(task)]
        return [task for task in known if task in self.spec.of or not why_untaught(self.model.heads[task])]

    def nobody(self) -> str:
        """That no task can learn from it, with the way out."""
        if self.spec.teacher == START:
            return (
                "distillation: `teacher: start` teaches what was learned before this run, found no such task; start it "
                "with `init_from`, or name `tasks`"
            )
        pair = f"{{{self.model.tasks[0]}: {next(iter(self.teacher.heads))}}}"
        return (
            f"distillation: teaches tasks of this run, found {self.teacher.name} with {', '.join(self.teacher.heads)}; "
            f"say which teaches which, of: {pair} and `tasks`"
        )

    def _source(self, task: str) -> str:
        return self.spec.of.get(task, task)

    def _is_new(self, task: str) -> bool:
        return bool(self.model.fresh) and self.model.heads[task].task.head_key not in self.model.begun

    def refused(self, task: str) -> str:
        """Why a task can't learn so, with the way out; empty if it can."""
        head, source = self.model.heads[task], self._source(task)
        if source not in self.teacher.heads:
            return f"it has no task {source!r}{suggestion(source, self.teacher.heads)}"
        theirs = self.teacher.heads[source]
        if why := why_untaught(head):
            return f"{why}; leave the task out (`tasks` names those that are taught)"
        if kind_of(theirs) is not kind_of(head):
            return (
                f"its {source!r} is of another kind ({theirs.task.head_name}, not {head.task.head_name}); name another"
            )
        try:
            columns_of(head, theirs)
        except ValueError as error:
            return f"{error}; use a teacher with the same labels"
        if self.spec.teacher == START and self._is_new(task):
            return "its head begins anew in this run, so that there is nothing to keep; leave the task out"
        for name in self.spec.on or (task,):
            if why := self._unread(task, head, name):
                return why
        return ""

    def _learns(self, task: str) -> bool:
        return self.train_tasks is None or task in self.train_tasks

    def _unread(self, task: str, head: Head, name: str) -> str:
        """Why a task can't be taught on another one's rows."""
        pool = self.data.pool_of(name, "train")
        if pool is None:
            return f"{name!r} has no training rows; say whose rows it is asked about, `on: [task]`"
        if not self._learns(name):
            return f"{name!r} does not learn (`train_tasks`); say whose rows it is asked about, `on: [task]`"
        if task in pool.tasks:
            return ""
        if any(type(self.data.heads[one]).corrupt is not Head.corrupt for one in pool.tasks):
            return f"the rows of {name!r} have other words hidden each time; name another task in `on`"
        if not reads_alone(head):
            return f"its head ({head.task.head_name}) compares the choices of a row, which rows of {name!r} do not have"
        lengths = pool.columns["lengths"].lengths()  # type: ignore[union-attr]
        if (lengths != 1).any():
            return f"a row of {name!r} is several texts, and its head reads one; name another task in `on`"
        words = isinstance(kind_of(head), Words) and "word_positions" not in pool.columns
        if words and not self.same_tokens(pool):
            return (
                f"rows of {name!r} know of no words, and the teacher's tokens are others; use a teacher with this "
                "run's tokenizer and max_length, or rows with words"
            )
        return ""

    def same_tokens(self, pool: PoolRows) -> bool:
        """Whether the teacher reads the same tokens in a pool's rows."""
        return reads_alike(self.teacher, self.model, pool)

    def lesson(self, task: str) -> Lesson:
        """The lesson of a task that is not refused."""
        source = self._source(task)
        columns = columns_of(self.model.heads[task], self.teacher.heads[source])
        pools = [self.data.pool_of(name, "train") for name in self.spec.on or (task,)]
        keys = tuple(dict.fromkeys(pool.key for pool in pools if pool is not None))
        return Lesson(task, source, self.spec, self.teacher, None if columns is None else tuple(columns), keys)


def reads_alike(teacher: Teacher, model: Any, pool: PoolRows) -> bool:
    """Whether a teacher's tokens of a pool's rows are those of the model."""
    if teacher.tokenizer is model.tokenizer and teacher.max_length == model.max_length:
        return True
    own = model.heads[pool.tasks[0]].task.max_length
    lengths = {min(own or most, most) for most in (teacher.max_length, model.max_length)}
    return len(lengths) == 1 and tokenizer_signature(teacher.tokenizer) == tokenizer_signature(model.tokenizer)


def said_of(lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """What a run folder records of lessons: one entry per teacher, by its name and not by where it is."""
    found: dict[int, dict[str, Any]] = {}
    for lesson in lessons:
        spec = lesson.spec
        said: Mapping[str, Any] = {
            "teacher": lesson.teacher.name,
            "tasks": [],
            **({"of": dict(spec.of)} if spec.of else {}),
            **({"on": list(spec.on)} if spec.on is not None else {}),
            "temperature": spec.temperature,
            "weight": spec.weight,
            "annealing": spec.annealing,
            "hidden": spec.hidden,
        }
        found.setdefault(id(spec), dict(said))["tasks"].append(lesson.task)
    return list(found.values())
