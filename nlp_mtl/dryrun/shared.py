"""Rows that stand on both sides: validation or test rows of a task among the training rows of it or of another."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.data import Data, PoolRows
from nlp_mtl.dryrun.result import SharedRows
from nlp_mtl.taskfile import Split

_OTHER = re.compile(r"[\W_]+")


def normalised(values: Sequence[Any]) -> str:
    """A row's inputs as they are compared: letters and digits only, without case.

    Spaces and punctuation are left out, since the same sentence stands in one data set as text and in another as words.
    A text without letters and digits is taken as it is. Rows are the same if all their inputs are, in their order.

    Example:
        >>> normalised(["It's  GREAT !", ["don", "'t"]]) == normalised(["it 's great!", "Don't"])
        True
        >>> normalised(["a", "b"]) == normalised(["ab", ""])
        False
    """
    parts = []
    for value in values:
        text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        text = unicodedata.normalize("NFKC", text).casefold()
        parts.append(_OTHER.sub("", text) or text.strip())
    return "\x1f".join(parts)


def shared_rows(data: Data, *, progress: bool = False) -> list[SharedRows]:
    """Every pair of (validation or test rows, training rows) that has rows in common, within tasks and across them.

    Rows are compared by a hash of 64 bits of their :func:`normalised` inputs.

    Args:
        data: the tokenized rows.
        progress: show a bar.
    """
    trained = [pool for pool in data.splits.get("train", []) if len(pool.trainable)]
    sides: tuple[Split, ...] = ("validation", "test")
    scored = [(split, pool) for split in sides for pool in data.splits.get(split, [])]
    if not trained or not scored:
        return []
    total = sum(len(pool) for pool in trained) + sum(len(pool) for _, pool in scored)
    with tqdm(total=total, desc="dry run: comparing rows", leave=False, disable=not progress) as bar:
        known = _TrainingRows([_hashes(pool, data, bar, pool.trainable) for pool in trained])
        shared = []
        for split, pool in scored:
            hashes, numbers = _hashes(pool, data, bar)
            hits = known.look_up(hashes, numbers)
            for number in sorted(hits, key=lambda number: (trained[number].key != pool.key, number)):
                first = min(hits[number])
                shared.append(
                    SharedRows(
                        tasks=list(pool.tasks),
                        split=split,
                        train_tasks=list(trained[number].tasks),
                        rows=len(hits[number]),
                        share=round(len(hits[number]) / len(numbers), 6),
                        first={"row": first, "train_row": hits[number][first]},
                    )
                )
    return shared


class _TrainingRows:
    """The training rows of all pools, sorted by their hashes.

    Args:
        pools: for each pool the rows' hashes and numbers.
    """

    def __init__(self, pools: Sequence[tuple[np.ndarray, np.ndarray]]):
        hashes = np.concatenate([hashes for hashes, _ in pools])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = np.concatenate([numbers for _, numbers in pools])[order]
        self._pools = np.repeat(np.arange(len(pools)), [len(numbers) for _, numbers in pools])[order]

    def look_up(self, hashes: np.ndarray, numbers: np.ndarray) -> dict[int, dict[int, int]]:
        """Training pool → number of a row that stands in it → the first training row that is the same."""
        begin, end = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        hits: dict[int, dict[int, int]] = {}
        for place in np.flatnonzero(end > begin):
            for at in range(begin[place], end[place]):
                of_pool = hits.setdefault(int(self._pools[at]), {})
                row, train_row = int(numbers[place]), int(self._rows[at])
                of_pool[row] = min(train_row, of_pool.get(row, train_row))
        return hits


def _hashes(pool: PoolRows, data: Data, bar: Any, which: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of a pool's rows, and their numbers in the data; a document that was cut into windows counts once."""
    columns = list(dict.fromkeys(data.heads[pool.tasks[0]].needed_columns()))
    source = np.asarray(pool.table.data.table.column("source"))
    which = np.arange(len(source)) if which is None else which
    places = which[np.unique(source[which], return_index=True)[1]]
    hashes = np.empty(len(places), dtype=np.uint64)
    for begin in range(0, len(places), 10_000):
        part = pool.table.select(places[begin : begin + 10_000]).select_columns(columns)[:]
        for number, values in enumerate(zip(*(part[column] for column in columns), strict=True), begin):
            digest = hashlib.blake2b(normalised(values).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashes[number] = int.from_bytes(digest, "big")
        bar.update(len(part[columns[0]]))
    return hashes, source[places]
