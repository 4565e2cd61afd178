"""From tokenized rows to mixed batches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.data import PoolRows
from nlp_mtl.dealing import deal, passes
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.heads.base import Head, PlacedRow
from nlp_mtl.heads.told import collated, column
from nlp_mtl.plan import MixingPlan, Pool

_TOKENS = ("input_ids", "token_type_ids")
RowRef = tuple[int, int, int]  # pool, row, how often the row has been shown before (−1: not training)
Pass = tuple[RowRef, ...]  # rows that one forward and backward pass takes together


class MixedRows(torch.utils.data.Dataset[Any]):
    """The rows of some pools, addressed by :data:`RowRef` or :data:`Pass`; reading them is left to the collator."""

    def __init__(self, pools: Sequence[PoolRows]):
        self.pools = list(pools)

    def __len__(self) -> int:
        return sum(len(pool) for pool in self.pools)

    def __getitem__(self, ref: RowRef | Pass) -> RowRef | Pass:
        return ref


class Collator:
    """Rows to a mixed batch: each row once, unpadded, by task and length, with every task's labels.

    Args:
        pools: the pools that row references count in.
        heads: task → head.
        seed: of what heads change at random (masked LM).
        training: leave out tasks that can't learn from a row because it has neither label nor teacher of theirs.

    Returns (when called with row references):
        ``input_ids`` [tokens] (and `token_type_ids`), ``lengths`` [sequences], ``targets`` {task: {…}}, and ``owners``
        {task: [rows]}, which of the references each of the task's rows is. Without any row, one token that no task
        reads: a process may have no rows in a step, but takes part in it.
    """

    def __init__(self, pools: Sequence[PoolRows], heads: Mapping[str, Head], *, seed: int = 0, training: bool = False):
        self.pools, self.heads, self.seed, self.training = list(pools), dict(heads), seed, training

    def __call__(self, refs: Sequence[RowRef]) -> dict[str, Any]:
        """Collate; see the class."""
        rows = [self._read(ref) for ref in refs]
        readers = [
            [task for task in self.pools[ref[0]].readers if not self.training or self._can_learn(task, row)]
            for ref, row in zip(refs, rows, strict=True)
        ]
        return collate(rows, readers, self.heads)

    def _can_learn(self, task: str, row: Mapping[str, Any]) -> bool:
        return (
            not self.heads[task].needs_labels
            or row.get(f"labels:{task}") is not None
            or row.get(column(task)) is not None
        )

    def _read(self, ref: RowRef) -> dict[str, Any]:
        number, row, visit = ref
        pool = self.pools[number]
        columns = pool.row(row)
        seed = (self.seed, zlib.crc32(pool.key.encode()), row, visit + 1)
        for task in pool.tasks:
            columns["input_ids"], notes = self.heads[task].corrupt(columns["input_ids"], columns, seed)
            columns.update(notes)
        return columns


class PassCollator:
    """Passes to a micro-batch: ``{"passes": [one mixed batch for each]}``, which :func:`passes_of` takes apart.

    Args:
        collate: collates one pass.
    """

    def __init__(self, collate: Collator):
        self.collate = collate

    def __call__(self, passes: Sequence[Pass]) -> dict[str, Any]:
        """Collate; see the class."""
        return {"passes": [self.collate(refs) for refs in passes]}


def passes_of(batch: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The mixed batches that a micro-batch is made of: itself, if it was not cut into passes."""
    return batch.get("passes", [batch])


def collate(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[Sequence[str]], heads: Mapping[str, Head]
) -> dict[str, Any]:
    """A mixed batch of rows, each with the tasks that read it; see :class:`Collator`.

    Args:
        rows: number columns: token columns, `lengths`, and ``labels:<task>`` where there are labels.
            Rows of other inputs have ``stacked`` {name: array} instead of tokens, with the same shapes in all rows.
        tasks: for each row the tasks that read it.
        heads: task → head.
    """
    if not rows:
        return {
            "input_ids": torch.zeros(1, dtype=torch.long),
            "lengths": torch.ones(1, dtype=torch.long),
            "targets": {},
        }
    batch: dict[str, Any] = {}
    texts = [number for number, row in enumerate(rows) if "stacked" not in row]
    placed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    if texts:
        readers_of = [tuple(sorted(tasks[number])) for number in texts]
        kinds = {readers: place for place, readers in enumerate(sorted(set(readers_of)))}
        kind = [kinds[readers] for readers in readers_of]
        placed.update(zip(texts, _pack([rows[number] for number in texts], batch, kind), strict=True))
    others = [number for number in range(len(rows)) if number not in placed]
    if others:
        names = rows[others[0]]["stacked"]
        batch["stacked"] = {
            name: torch.from_numpy(np.stack([np.asarray(rows[number]["stacked"][name]) for number in others]))
            for name in names
        }
        placed.update({number: (np.array([i]), np.array([0])) for i, number in enumerate(others)})
    members: dict[str, list[PlacedRow]] = {}
    owners: dict[str, list[int]] = {}
    for number, (row, readers) in enumerate(zip(rows, tasks, strict=True)):
        for task in readers:
            members.setdefault(task, []).append(PlacedRow(row, row.get(f"labels:{task}"), *placed[number]))
            owners.setdefault(task, []).append(number)
    batch["targets"] = {task: collated(heads[task], part) for task, part in members.items()}
    batch["owners"] = {task: torch.tensor(numbers) for task, numbers in owners.items()}
    return batch


def _pack(
    rows: Sequence[Mapping[str, Any]], batch: dict[str, Any], kind: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Put the rows' sequences into the batch, by who reads them and then the shortest first.

    What is done for one task only, its own adapter or its own gradient, then finds its rows together.

    Returns:
        Each row's sequences' numbers and starts.
    """
    counts = [len(row["lengths"]) for row in rows]
    lengths = np.concatenate([np.asarray(row["lengths"]) for row in rows])
    order = np.lexsort((lengths, np.repeat(kind, counts)))
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    starts = np.concatenate([[0], np.cumsum(lengths[order])])[:-1]
    batch["lengths"] = torch.from_numpy(lengths[order]).long()
    for name in _TOKENS:
        if name in rows[0]:
            parts = [part for row, count in zip(rows, counts, strict=True) for part in _split(row, name, count)]
            batch[name] = torch.from_numpy(np.concatenate([parts[i] for i in order])).long()
    first = np.concatenate([[0], np.cumsum(counts)])
    own = [number[first[i] : first[i + 1]] for i in range(len(rows))]
    return [(sequences, starts[sequences]) for sequences in own]


def _split(row: Mapping[str, Any], name: str, count: int) -> list[np.ndarray]:
    whole = np.asarray(row[name])
    return [whole] if count == 1 else np.split(whole, np.cumsum(row["lengths"])[:-1])


def length_sorted(pools: Sequence[PoolRows], *, rows: int, tokens: int = 2048) -> Iterator[list[RowRef]]:
    """Row references of some pools in batches of similar length, for evaluation.

    Args:
        rows: at least so many rows per batch,
        tokens: or, if that is more, as many as have so many tokens.
    """
    lengths = np.concatenate([pool.tokens for pool in pools])
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    row = np.concatenate([np.arange(len(pool)) for pool in pools])
    batch: list[RowRef] = []
    held = 0
    for i in np.argsort(-lengths, kind="stable"):
        batch.append((int(owner[i]), int(row[i]), -1))
        held += int(lengths[i])
        if len(batch) >= rows and held >= tokens:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class MixedBatchSampler(torch.utils.data.Sampler[Any]):
    """This process's micro-batches of an epoch, as row references.

    The plan of a step is cut into as many parts as there are processes times micro-batches, so the parts together are
    the plan whatever their number. The sampler shards by itself: it must not be wrapped by a second sharder.

    Args:
        plan: which rows each step sees; its pools count in `rows_of`.
        rows_of: for each pool, the numbers of the rows that the plan counts in.
        micro_batches: per step and process.
        process, processes: this process's number, and how many there are.
        order: the steps of an epoch in another order, to look at some of them first; None for the plan's.
        tokens: for each pool [rows], the tokens of each row; needed for the following.
        balance: deal a step's rows so that all parts have about the same tokens; else the same rows, in turn.
        tokens_per_pass: cut each micro-batch into passes of at most so many tokens; it is then a list of
            :data:`Pass`, at least one.
        same_passes: give all processes the same number of passes, empty ones where a process needs fewer.
    """

    def __init__(
        self,
        plan: MixingPlan,
        rows_of: Sequence[np.ndarray],
        *,
        micro_batches: int = 1,
        process: int = 0,
        processes: int = 1,
        order: Sequence[int] | None = None,
        tokens: Sequence[np.ndarray] = (),
        balance: bool = False,
        tokens_per_pass: int | None = None,
        same_passes: bool = False,
    ):
        self.plan, self.rows_of, self.tokens = plan, list(rows_of), list(tokens)
        self.micro_batches, self.process, self.processes = micro_batches, process, processes
        self.order, self.epoch = order, 0
        self.balance, self.tokens_per_pass, self.same_passes = balance, tokens_per_pass, same_passes

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps * self.micro_batches

    def __iter__(self) -> Iterator[list[RowRef] | list[Pass]]:
        for step in range(self.plan.steps) if self.order is None else self.order:
            rows = [
                (pool, int(self.rows_of[pool][row]), visit) for pool, row, visit in self.plan.rows(self.epoch, step)
            ]
            parts = self._parts(rows)
            for micro in range(self.micro_batches):
                here = parts[micro * self.processes : (micro + 1) * self.processes]
                yield here[self.process] if self.tokens_per_pass is None else self._passes(here)

    def _parts(self, rows: Sequence[RowRef]) -> list[list[RowRef]]:
        """The step's rows, dealt to all micro-batches of all processes."""
        parts = self.micro_batches * self.processes
        if not self.balance:
            return [list(rows[number::parts]) for number in range(parts)]
        return [[rows[number] for number in part] for part in deal(self._tokens_of(rows), parts)]

    def _passes(self, parts: Sequence[Sequence[RowRef]]) -> list[Pass]:
        """This process's passes of a micro-batch, of which `parts` are the rows of every process."""
        assert self.tokens_per_pass is not None
        cut = {
            process: passes(self._tokens_of(part), self.tokens_per_pass)
            for process, part in enumerate(parts)
            if process == self.process or self.same_passes
        }
        own = [tuple(parts[self.process][number] for number in part) for part in cut[self.process]]
        return own + [()] * (max(map(len, cut.values())) - len(own))

    def _tokens_of(self, rows: Sequence[RowRef]) -> list[int]:
        return [int(self.tokens[pool][row]) for pool, row, _ in rows]


class MixedLoader(torch.utils.data.DataLoader[Any]):
    """A `DataLoader` of mixed batches that tells its sampler the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration gives."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def pools_of(rows: Sequence[PoolRows]) -> list[Pool]:
    """What a mixing plan needs to know of tokenized pools: how many rows can be learned from, and by which task."""
    return [
        Pool(
            pool.key,
            pool.tasks,
            len(pool.trainable),
            tuple(int(pool.labelled(task).sum()) for task in pool.tasks),
            None if pool.weights is None else pool.weights[pool.trainable] / pool.weights[pool.trainable].mean(),
        )
        for pool in rows
    ]


def learned_from(rows: Sequence[PoolRows], wanted: Sequence[str] | None, known: Sequence[str]) -> list[PoolRows]:
    """The pools that there is something to learn from, with the tasks that learn.

    Args:
        rows: the tokenized training rows.
        wanted: tasks that learn; None for all.
        known: the model's tasks.

    Raises:
        ConfigError: tasks that the model does not have, or none that has training rows.
    """
    if wanted is None:
        return [pool for pool in rows if len(pool.trainable)]
    if mistakes := [
        f"train_tasks: {task!r} is not a task of this run{suggestion(str(task), known)}"
        for task in wanted
        if task not in known
    ]:
        raise ConfigError(mistakes)
    parts = [(pool, tuple(task for task in pool.tasks if task in wanted)) for pool in rows]
    found = [pool if tasks == pool.tasks else replace(pool, tasks=tasks) for pool, tasks in parts if tasks]
    if not any(len(pool.trainable) for pool in found):
        raise ConfigError(
            f"train_tasks: one with training rows is needed, found {', '.join(wanted) or 'none'}; name one"
        )
    return [pool for pool in found if len(pool.trainable)]


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Tensors of a nested batch moved to `device`; pinned ones without waiting for it.

    ``lengths`` of a mixed batch stay on the CPU, where the layout is made: to ask the device for them would be to wait
    until it has computed all that came before.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=batch.is_pinned() if torch.cuda.is_available() else False)
    if isinstance(batch, Mapping):
        return {key: value if key == "lengths" else to_device(value, device) for key, value in batch.items()}
    return batch
