"""Substitutes for words: which one raises the loss most, to first order, and some at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlp_mtl.batches import Collator, to_device
from nlp_mtl.data import PoolRows
from nlp_mtl.embedded import embedded, from_embeddings, words_of
from nlp_mtl.robustness.neighbours import Neighbours
from nlp_mtl.robustness.rows import tokenized

Slopes = list[tuple[list[int], torch.Tensor]]
_ROWS = 32


def words_in(value: Any) -> list[str]:
    """The words of a text, or of a list of them."""
    return value.split() if isinstance(value, str) else list(value or [])


def shown(text: Sequence[Sequence[str]]) -> str:
    """The columns of a row as one line."""
    return " | ".join(" ".join(words) for words in text)


def with_texts(pool: PoolRows, head: Any, model: Any, names: Sequence[str], texts: Any, rows: np.ndarray) -> PoolRows:
    """Some rows with other words.

    Args:
        pool, head, model: of which rows.
        names: columns.
        texts: for each row of the pool, and each column, its words.
        rows: which rows.
    """
    part = PoolRows(pool.key, pool.tasks, pool.table.select(rows), pool.facts, pool.needs_labels)
    columns = {
        name: [
            " ".join(texts[row][i]) if isinstance(pool.table[name][int(row)], str) else texts[row][i] for row in rows
        ]
        for i, name in enumerate(names)
    }
    return tokenized(part, head, model.tokenizer, model.max_length, columns)


def slopes_of(model: Any, pool: PoolRows, head: Any, *, slopes: bool = True) -> tuple[np.ndarray, Slopes]:
    """The predictions, and for each row its tokens with the loss's gradient of their embeddings.

    Args:
        model, head: whose.
        pool: rows.
        slopes: whether gradients are wanted.

    Returns:
        [rows] classes, and for each row its tokens and [tokens, hidden].
    """
    task, collate = head.task.name, Collator([pool], {head.task.name: head})
    guessed = np.zeros(len(pool), dtype=int)
    found: Slopes = [([], torch.zeros(0))] * len(pool)
    table = words_of(model)
    for begin in range(0, len(pool), _ROWS):
        batch = to_device(collate([(0, row, -1) for row in range(begin, min(begin + _ROWS, len(pool)))]), model.device)
        ids = batch["input_ids"]
        values = embedded(table, ids).detach().requires_grad_(slopes)
        with torch.set_grad_enabled(slopes):
            out = from_embeddings(model, batch, values)
        # a batch has its rows in an order of its own
        rows = [begin + owner for owner in batch["owners"][task].tolist()]
        guessed[rows] = out["logits"][task].argmax(-1).cpu().numpy()
        if not slopes:
            continue
        rise = torch.autograd.grad(out["loss"], values)[0].float().cpu()
        ends = np.cumsum([0, *batch["lengths"].tolist()]).tolist()
        for row, number in zip(rows, batch["targets"][task]["sequences"].tolist(), strict=True):
            part = slice(ends[number], ends[number + 1])
            found[row] = (ids[part].tolist(), rise[part])
    return guessed, found


def flip(
    text: list[list[str]], used: set[tuple[int, int]], near: Neighbours, slope: tuple[list[int], torch.Tensor]
) -> bool:
    """Change the word whose substitute raises the loss most, to first order; whether there was one."""
    ids, rise = slope
    best: tuple[float, int, int, str] | None = None
    at = iter(near.places([word for words in text for word in words], ids))
    for column, words in enumerate(text):
        for place, word in enumerate(words):
            token = next(at)
            if token is None or (column, place) in used:
                continue
            for other in near.of(word):
                gain = float(near.difference(other, word) @ rise[token])
                if best is None or gain > best[0]:
                    best = (gain, column, place, other)
    if best is None or best[0] <= 0:
        return False
    _, column, place, other = best
    text[column][place] = other
    used.add((column, place))
    return True


def at_random(text: list[list[str]], count: int, near: Neighbours, draw: random.Random) -> None:
    """Change so many words, or as many as have a substitute, to any of theirs."""
    free = [(c, p) for c, words in enumerate(text) for p, word in enumerate(words) if near.of(word)]
    for column, place in draw.sample(free, min(count, len(free))):
        text[column][place] = draw.choice(near.of(text[column][place]))
