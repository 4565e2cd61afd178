"""Training rows that carry what teachers say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nlp_mtl.data import PoolRows
from nlp_mtl.distillation.outputs import Outputs
from nlp_mtl.heads import Head
from nlp_mtl.heads.taught import Words, kind_of
from nlp_mtl.heads.told import column


@dataclass
class TaughtRows(PoolRows):
    """As :class:`PoolRows`, with teachers.

    Attributes:
        guests: tasks that learn from these rows though they are not theirs: from their teachers alone.
        taught: of its own tasks those that have a teacher here.
        words_of: guests that say something of each word; where rows know of no words, every token is one.
        special: numbers of the tokens that are no words.
        outputs: task → what its teacher says, when it was asked.
    """

    guests: tuple[str, ...] = ()
    taught: tuple[str, ...] = ()
    words_of: tuple[str, ...] = ()
    special: tuple[int, ...] = ()
    outputs: dict[str, Outputs] = field(default_factory=dict)

    @property
    def readers(self) -> tuple[str, ...]:
        """Its own tasks and its guests."""
        return (*self.tasks, *self.guests)

    @cached_property
    def trainable(self) -> np.ndarray:
        """Numbers of the rows that at least one task can learn from."""
        if self.guests or self.taught:
            return np.arange(len(self))
        return np.flatnonzero(np.any([self.labelled(task) for task in self.tasks], axis=0))

    def labelled(self, task: str) -> np.ndarray:
        """[rows]: whether the task can learn from the row: by its label, or by its teacher."""
        if task in self.guests or task in self.taught:
            return np.ones(len(self), dtype=bool)
        return super().labelled(task)

    def row(self, number: int) -> dict[str, Any]:
        """The number columns of a row, and what teachers say of it."""
        found = super().row(number)
        if self.words_of and "word_positions" not in found:
            found["word_positions"] = word_tokens(found["input_ids"], self.special)
        for task in self.guests:  # a task of which only others' rows are wanted does not learn from labels of its own
            found.pop(f"labels:{task}", None)
        for task, said in self.outputs.items():
            found[column(task)] = said.row(number)
        return found


def word_tokens(ids: np.ndarray, special: Sequence[int]) -> np.ndarray:
    """The places of the tokens that are not special ones.

    Example:
        >>> word_tokens(np.array([2, 40, 41, 3]), (2, 3)).tolist()
        [1, 2]
    """
    return np.flatnonzero(~np.isin(ids, list(special)))


def taught_rows(rows: PoolRows, tasks: Sequence[str], heads: Mapping[str, Head], special: Sequence[int]) -> TaughtRows:
    """A pool with teachers for some tasks, whose outputs are not there yet.

    Args:
        rows: the pool, with the tasks that learn from its labels.
        tasks: those that have a teacher here.
        heads: task → head.
        special: numbers of the tokens that are no words.
    """
    guests = tuple(task for task in tasks if task not in rows.tasks)
    return TaughtRows(
        rows.key,
        rows.tasks,
        rows.table,
        rows.facts,
        rows.needs_labels,
        rows.weights,
        guests=guests,
        taught=tuple(task for task in tasks if task in rows.tasks),
        words_of=tuple(task for task in guests if isinstance(kind_of(heads[task]), Words)),
        special=tuple(special),
    )
