"""Taps: what a layer's backward pass needs to know to keep the tasks' gradients apart.

Rows of one task are a few runs of the packed batch, and no row's loss is another's. So the gradient of a layer's weight
by one task is the product over that task's rows, and all of them together cost what the whole costs (the idea is that
of per-example gradients, Goodfellow, 2015, arXiv 1510.01799, with tasks in the place of examples).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.gradients.slots import Slots
from nlp_mtl.kernels.lowrank import Runs
from nlp_mtl.layout import Layout, filled_count

NOBODY = -1
Segment = tuple[int, int, int]  # first row, row after the last, task's number (−1: nobody's)


class Taps:
    """Whose the rows are that go through an encoder, for the layers that keep the tasks' gradients apart.

    Tasks that label the same rows can't be told apart in one backward pass; they are of different colours, and each
    colour has a backward pass of its own over the same graph.

    Args:
        slots: where the gradients go.
        tasks: the tasks' names; their places are their numbers.

    Attributes:
        on: whether backward passes add to the slots.
        colours: tasks, by colour, of the batch that was seen last.
        colour: that of the backward pass that comes.
    """

    def __init__(self, slots: Slots, tasks: Sequence[str]):
        self.slots, self.tasks = slots, list(tasks)
        self.on, self.colour = True, 0
        self.colours: list[list[str]] = []
        self._owner: list[Tensor] = []  # for each colour [tokens]
        self._now: Tensor | int | None = None  # which tokens come, the task's number of a head, None for all

    # ------------------------------------------------------------------------------------------------------- who owns

    def see(self, layout: Layout | None, read_by: Mapping[str, Tensor]) -> None:
        """Look at a packed batch.

        Args:
            layout: where its sequences are; None for one that is not packed: then no tap takes anything.
            read_by: task → the numbers of the tokens that its head reads.
        """
        self._now, self._owner, self.colours, self.colour = None, [], [], 0
        if layout is None:  # nothing is told apart in it
            self.colours = [list(read_by)]
            return
        lengths = torch.tensor(layout.lengths)
        ends = torch.tensor(layout.offsets[1:])
        taken: list[Tensor] = []  # for each colour [sequences] of the tasks' numbers
        for task, tokens in read_by.items():
            mine = torch.searchsorted(ends, tokens.cpu(), right=True).unique()
            colour = next((i for i, owner in enumerate(taken) if bool((owner[mine] == NOBODY).all())), len(taken))
            if colour == len(taken):
                taken.append(torch.full((len(lengths),), NOBODY))
                self.colours.append([])
            taken[colour][mine] = self.tasks.index(task)
            self.colours[colour].append(task)
        self._owner = [owner.repeat_interleave(lengths) for owner in taken]

    @contextmanager
    def among(self, rows: Tensor) -> Iterator[None]:
        """Inside this block, only these of the tokens come."""
        before = self._now
        self._now = rows.cpu() if before is None else before[rows.cpu()] if isinstance(before, Tensor) else before
        try:
            yield
        finally:
            self._now = before

    @contextmanager
    def of_tokens(self, tokens: Tensor) -> Iterator[None]:
        """Inside this block, what comes are these tokens of the whole batch."""
        before, self._now = self._now, tokens.cpu()
        try:
            yield
        finally:
            self._now = before

    @contextmanager
    def of_head(self, task: str) -> Iterator[None]:
        """Inside this block, all rows are of one task's head."""
        before, self._now = self._now, self.tasks.index(task)
        try:
            yield
        finally:
            self._now = before

    @property
    def knows(self) -> bool:
        """Whether the rows of the batch that was seen last can be told apart."""
        return bool(self._owner)

    def owners_now(self, rows: int) -> Tensor:
        """[rows]: whose the rows of the whole batch are, in this backward pass; −1 for nobody."""
        return Tap(self, None, rows).owners()

    def takes(self, *parameters: Tensor | None) -> bool:
        """Whether gradients of one of these are kept apart."""
        return any(p is not None and self.slots.takes(p) for p in parameters)

    def tap(self, rows: int) -> Tap | None:
        """For a layer that reads so many rows now; None where nobody knows whose they are."""
        now = self._now
        if not self._owner:
            return None
        if not isinstance(now, int):
            known = len(self._owner[0]) if now is None else len(now)
            if rows not in (known, filled_count(known)):
                return None
        return Tap(self, now, rows)


class Tap:
    """Whose the rows are that one layer read; asked in the backward pass."""

    def __init__(self, taps: Taps, where: Tensor | int | None, rows: int):
        self.taps, self._where, self.rows = taps, where, rows
        self._owner = taps._owner  # a later batch has others

    @property
    def on(self) -> bool:
        """Whether this backward pass keeps the tasks' gradients."""
        return self.taps.on

    def _owners(self) -> Tensor:
        owner = self._owner[self.taps.colour]
        owner = owner if self._where is None else owner[self._where]
        spare = self.rows - len(owner)
        return torch.cat([owner, owner.new_full((spare,), NOBODY)]) if spare else owner

    def segments(self) -> list[Segment]:
        """All rows, in runs of one task or of nobody."""
        if isinstance(self._where, int):
            return [(0, self.rows, self._where)]
        return _known(self._owner[self.taps.colour], self._where, self.rows, self._owners, "segments")

    def runs(self) -> Runs:
        """The rows that are somebody's, for the kernels; their owners are all tasks, by number."""
        count = self.taps.slots.tasks
        if isinstance(self._where, int):
            return Runs.all_of(self._where, self.rows, tuple(range(count)))
        return _known(
            self._owner[self.taps.colour], self._where, self.rows, lambda: Runs.of(self._owners(), range(count)), "runs"
        )

    def owners(self) -> Tensor:
        """[rows]: the tasks' numbers, −1 for nobody."""
        if isinstance(self._where, int):
            return torch.full((self.rows,), self._where)
        return self._owners()


def _known(owner: Tensor, where: Tensor | None, rows: int, make: Any, kind: str) -> Any:
    """What follows from whose the tokens are, made once for all layers of a batch."""
    memory = owner.__dict__.setdefault("known", {})
    key = kind, id(where), rows
    if key not in memory:
        found = make()
        memory[key] = (segments_of(found) if kind == "segments" else found), where  # `where` lives as long as its id
    return memory[key][0]


def segments_of(owner: Tensor) -> list[Segment]:
    """Runs of the same number.

    Example:
        >>> segments_of(torch.tensor([1, 1, 0, -1]))
        [(0, 2, 1), (2, 3, 0), (3, 4, -1)]
    """
    if not len(owner):
        return []
    changes = (torch.nonzero(owner[1:] != owner[:-1]).squeeze(1) + 1).tolist()
    edges = [0, *changes, len(owner)]
    return list(zip(edges[:-1], edges[1:], owner[edges[:-1]].tolist(), strict=True))


# ------------------------------------------------------------------------------------------------ what layers hand over


def add_products(tap: Tap, weight: nn.Parameter, gradient: Tensor, x: Tensor, *, turned: bool = False) -> None:
    """Each task's gradient of a linear layer's weight.

    Args:
        tap: whose the rows are.
        weight: [out, in], or [in, out] where it is `turned`.
        gradient: [rows, out].
        x: [rows, in], of the same dtype.
    """
    for task, parts in _by_task(tap).items():
        g, own = _rows_of(gradient, x, parts)
        tap.taps.slots.add_product(weight, task, *((own.t(), g) if turned else (g.t(), own)))


def add_sums(tap: Tap, vector: nn.Parameter, gradient: Tensor) -> None:
    """Each task's gradient of a vector that was added to every row; `gradient` [rows, width]."""
    for task, parts in _by_task(tap).items():
        total = sum(
            (gradient[a:b].sum(0, dtype=_wide(gradient)) for a, b in parts), torch.zeros((), device=gradient.device)
        )
        tap.taps.slots.add(vector, task, total)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _by_task(tap: Tap) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for a, b, task in tap.segments():
        if task != NOBODY:
            found.setdefault(task, []).append((a, b))
    return found


def _rows_of(gradient: Tensor, x: Tensor, parts: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The rows of one task; on the CPU in bfloat16 with zeros below, so that the library meets few counts of rows."""
    count = sum(b - a for a, b in parts)
    if gradient.device.type != "cpu" or gradient.dtype != torch.bfloat16:
        if len(parts) == 1:
            ((a, b),) = parts
            return gradient[a:b], x[a:b]
        return torch.cat([gradient[a:b] for a, b in parts]), torch.cat([x[a:b] for a, b in parts])
    whole = filled_count(count)
    if len(parts) == 1 and whole <= len(x):
        ((a, b),) = parts
        start = min(a, len(x) - whole)  # other tasks' rows meet zeros
        g = gradient.new_zeros(whole, gradient.shape[1])
        g[a - start : b - start] = gradient[a:b]
        return g, x[start : start + whole]
    g, own = gradient.new_zeros(whole, gradient.shape[1]), x.new_zeros(whole, x.shape[1])
    at = 0
    for a, b in parts:
        g[at : at + b - a], own[at : at + b - a] = gradient[a:b], x[a:b]
        at += b - a
    return g, own
