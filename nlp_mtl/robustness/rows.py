"""Rows whose texts are changed, tokenized anew; labels stay where they are."""

from __future__ import annotations

import random
from typing import Any

from nlp_mtl.data import PoolRows
from nlp_mtl.heads.labels import Where
from nlp_mtl.robustness.base import Perturbation, draw_of

KINDS = ("sequence_classification", "regression", "multi_label", "token_classification", "multiple_choice")


def perturbed(
    pool: PoolRows, head: Any, tokenizer: Any, max_length: int, how: Perturbation, *, name: str = "", seed: int = 0
) -> tuple[PoolRows, list[bool]]:
    """The same rows with their texts changed, and which rows differ.

    Args:
        pool: rows of one task.
        head: the task's.
        tokenizer: the model's.
        max_length: tokens per sequence, at most.
        how: what is done.
        name: of it, for its random numbers.
        seed: of those.

    Raises:
        RowsError: rows that can't be read once they are changed.
    """
    names = [column for column in dict.fromkeys(head.needed_columns()) if column in pool.table.column_names]
    given = {column: pool.table[column][:] for column in names}
    made = {
        column: [
            changed(how, value, draw_of(seed, name, row, "" if how.by_row else column))
            for row, value in enumerate(values)
        ]
        for column, values in given.items()
    }
    differs = [any(made[c][row] != given[c][row] for c in names) for row in range(len(pool))]
    return tokenized(pool, head, tokenizer, max_length, made), differs


def changed(how: Perturbation, value: Any, draw: random.Random) -> Any:
    """What a column holds in one row, changed.

    Args:
        how: what is done.
        value: a text; a list of texts, as options are, of which each is changed; a list of words, which are kept one
            for one; or something else, which stays.
        draw: of random numbers.
    """
    if isinstance(value, list) and any(isinstance(one, str) and " " in one for one in value):
        state = draw.getstate()
        found = []
        for one in value:
            if how.by_row:
                draw.setstate(state)
            found.append(how.changed(one, draw))
        return found
    return how.changed(value, draw)


def tokenized(pool: PoolRows, head: Any, tokenizer: Any, max_length: int, columns: dict[str, list[Any]]) -> PoolRows:
    """The rows of a pool with other texts.

    Args:
        pool: rows of one task, each of one row of the data.
        head, tokenizer, max_length: as for :func:`perturbed`.
        columns: the texts, each [rows].
    """
    from datasets import Dataset

    task = head.task.name
    length = min(head.task.max_length or max_length, max_length)
    found = head.tokenize(columns, tokenizer, length, Where(task, "validation", 0))
    table = {name: pool.table[name][:] for name in pool.table.column_names}
    table.update(columns)
    table.update({name: values for name, values in found.items() if name in table and name != "source"})
    features = pool.table.features
    made = Dataset.from_dict(table, features=features)
    return PoolRows(pool.key, pool.tasks, made, pool.facts, pool.needs_labels)
