"""Where the sequences of a packed batch are, and how they are grouped by length.

The packed batch is one row of tokens. Where attention runs on plain torch, sequences of similar length form a group,
padded to its longest, and each group is one batched product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# What one more group costs, in attention scores per head: its launches take as long as these. Measured on a CPU; for
# other devices an estimate (some 50 µs of launches, in which one computes a hundred times as many scores).
_GROUP_COST, _GROUP_COST_ELSEWHERE = 12_000, 1_000_000


@dataclass(frozen=True)
class Group:
    """`rows` sequences padded to `length`, at `start` in the padded tokens; `valid` [rows, length], None if all are."""

    start: int
    rows: int
    length: int
    valid: Tensor | None

    def seen(self, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
        """[rows or 1, 1, length or 1, length] of bools: which places a place sees; None if all see all.

        Empty places see something too, so that no softmax is over nothing.
        """
        near = None
        if causal or (window is not None and window < self.length):
            place = torch.arange(self.length, device=device)
            distance = place[:, None] - place
            near = torch.ones_like(distance, dtype=torch.bool)
            if causal:
                near &= distance >= 0
            if window is not None:
                near &= distance.abs() < window
        if self.valid is None:
            return None if near is None else near[None, None]
        valid = self.valid[:, None, None, :]
        if near is None:
            return valid | ~valid.any(-1, keepdim=True)
        return (valid & near) | torch.eye(self.length, dtype=torch.bool, device=device)


class Layout:
    """Where the sequences of a packed batch are, and how they are grouped for attention.

    Args:
        lengths: number of tokens of each sequence, in the order of the packed batch; each at least 1.
        device: where the index tensors live.

    Attributes:
        read: [tokens] of bools, the tokens that a head reads after the last layer; None, as at first, for all. The
            hidden states of the others may be left out of the work, and are then 0.
        read_by: task → the numbers of the tokens it reads; a task that is not there may read all of them.
        counted: the tasks that some process has rows of, where there are several processes.
        owners: of the adapters that tokens have (:class:`nlp_mtl.tasklora.Owners`); None where all have the same.
        owner: [tokens], whose each token is; see there.
        taps: who keeps the tasks' gradients apart in this pass (:class:`nlp_mtl.gradients.Taps`); None for nobody.

    Example:
        >>> layout = Layout([2, 3])
        >>> layout.tokens, layout.offsets, layout.position_ids.tolist()
        (5, [0, 2, 5], [0, 1, 0, 1, 2])
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu"):
        self.lengths = list(lengths)
        self.device = torch.device(device)
        self.offsets = [0]
        for length in self.lengths:
            self.offsets.append(self.offsets[-1] + length)
        self.tokens = self.offsets[-1]
        self.read: Tensor | None = None
        self.read_by: dict[str, Tensor] = {}
        self.counted: list[str] = []
        self.owners: Any = None
        self.owner: Tensor | None = None
        self.taps: Any = None
        self._heads: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}

    @cached_property
    def position_ids(self) -> Tensor:
        """[tokens]: 0, 1, … within each sequence."""
        lengths = torch.tensor(self.lengths)
        starts = torch.tensor(self.offsets[:-1]).repeat_interleave(lengths)
        return (torch.arange(self.tokens) - starts).to(self.device)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """[sequences + 1] offsets, and [sequences] the sequences, the longest first; for the fused kernels."""
        offsets, lengths = (torch.tensor(x, dtype=torch.int64, device="cpu") for x in (self.offsets, self.lengths))
        return offsets, lengths.argsort(descending=True, stable=True)

    @cached_property
    def cumulative(self) -> Tensor:
        """[sequences + 1], int32, on the device: where each sequence starts, and the tokens; for varlen kernels."""
        return torch.tensor(self.offsets, dtype=torch.int32, device=self.device)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths, default=0)

    @cached_property
    def firsts(self) -> Tensor:
        """[sequences]: index of each sequence's first token."""
        return torch.tensor(self.offsets[:-1], device=self.device)

    @cached_property
    def lasts(self) -> Tensor:
        """[sequences]: index of each sequence's last token."""
        return torch.tensor(self.offsets[1:], device=self.device) - 1

    def tokens_of(self, sequences: Tensor) -> Tensor:
        """[tokens]: all tokens of the given sequences, in their order."""
        offsets = self.offsets
        places = [torch.arange(offsets[i], offsets[i + 1]) for i in sequences.flatten().tolist()]
        return torch.cat(places or [torch.zeros(0, dtype=torch.long)]).to(self.device)

    @cached_property
    def groups(self) -> list[Group]:
        """Sequences of similar length together; see :func:`group_lengths`."""
        return self._plan[0]

    @cached_property
    def scores(self) -> int:
        """Attention scores of one head, over all groups."""
        return sum(group.rows * group.length**2 for group in self.groups)

    def parts(self, flat: Tensor, heads: int) -> Iterator[tuple[Group, Tensor]]:
        """Views [rows · heads, length, length] of a flat tensor of all scores, one per group."""
        begin = 0
        for group in self.groups:
            count = group.rows * heads * group.length**2
            yield group, flat[begin : begin + count].view(group.rows * heads, group.length, group.length)
            begin += count

    def gather_heads(self, heads: int) -> Tensor:
        """[padded tokens · heads]: where each padded place's head stands in [tokens · heads] (token 0 if empty)."""
        return self._of_heads(heads)[0]

    def scatter_heads(self, heads: int) -> Tensor:
        """[tokens · heads]: the padded place of each token's head."""
        return self._of_heads(heads)[1]

    def empty_rows(self, heads: int) -> Tensor | None:
        """The padded places that hold nothing, None if there is none."""
        return self._of_heads(heads)[2]

    def _of_heads(self, heads: int) -> tuple[Tensor, Tensor, Tensor | None]:
        known = self._heads.get(heads)
        if known is None:
            number = torch.arange(heads)
            gathers, holes = [], []
            for group, places, valid in zip(self.groups, *self._plan[1:], strict=True):
                shaped = (places.view(group.rows, 1, group.length) * heads + number[:, None]).expand(-1, heads, -1)
                gathers.append(shaped.flatten())
                holes.append(~valid[:, None].expand(-1, heads, -1).flatten())
            gather, hole = torch.cat(gathers), torch.cat(holes)
            scatter = torch.empty(self.tokens * heads, dtype=torch.long)
            real = (~hole).nonzero().squeeze(1)
            scatter[gather[real]] = real
            rows = hole.nonzero().squeeze(1).to(self.device) if bool(hole.any()) else None
            known = self._heads[heads] = (gather.to(self.device), scatter.to(self.device), rows)
        return known

    @cached_property
    def _plan(self) -> tuple[list[Group], list[Tensor], list[Tensor]]:
        """Groups; for each the token in every padded place (0 in the empty ones), and which are not, on the CPU."""
        order = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        groups, gathers, valids, start, on_cpu = [], [], [], 0, self.device.type == "cpu"
        cost = _GROUP_COST if on_cpu else _GROUP_COST_ELSEWHERE
        for members in group_lengths([_common(self.lengths[i], on_cpu) for i in order], cost):
            rows = [order[i] for i in members]
            length = _common(self.lengths[rows[-1]], on_cpu)
            spare = _common_count(len(rows)) - len(rows) if on_cpu else 0
            within = torch.arange(length)
            valid = within < torch.tensor([*(self.lengths[i] for i in rows), *[0] * spare])[:, None]
            places = torch.tensor([*(self.offsets[i] for i in rows), *[0] * spare])[:, None] + within
            gathers.append(torch.where(valid, places, 0).flatten())
            valids.append(valid)
            groups.append(Group(start, len(valid), length, None if bool(valid.all()) else valid.to(self.device)))
            start += len(valid) * length
        return groups, gathers, valids


def _common(length: int, on_cpu: bool) -> int:
    """A length rounded up: to one of few, so that the CPU's matrix library meets shapes it has prepared before; on
    other devices to a multiple of 8, as their kernels want masks.
    """
    step = 16 if on_cpu else 8
    return length if length <= 8 and on_cpu else -(-length // step) * step


def _common_count(rows: int) -> int:
    """A number of rows rounded up to one of few (at most a sixth more)."""
    step = max(1, 1 << max(0, rows.bit_length() - 3))
    return -(-rows // step) * step


def filled_up(rows: Tensor) -> Tensor:
    """[rows, …] with a few rows of zeros at the end (3 of 100 in the mean), which no sequence and no head looks at.

    The CPU's matrix library writes machine code for every count of rows that it meets: that costs more. On other
    devices the rows as they are.

    Example:
        >>> len(filled_up(torch.ones(1049))), len(filled_up(torch.ones(5)))
        (1088, 8)
    """
    if rows.device.type != "cpu":
        return rows
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, filled_count(len(rows)) - len(rows)))


def filled_count(rows: int) -> int:
    """How many rows :func:`filled_up` makes of so many."""
    step = max(8, 1 << max(0, rows.bit_length() - 5))
    return rows + -rows % step


def few_shapes(rows: Tensor) -> Tensor:
    """As :func:`filled_up` where no gradient is wanted: what a head reads differs in count from pass to pass."""
    return rows if torch.is_grad_enabled() else filled_up(rows)


def group_lengths(ordered: Sequence[int], cost: int = _GROUP_COST) -> list[range]:
    """Cut ascending lengths into groups so that padded squares plus a price per group are least (exact, by stages).

    Args:
        ordered: the lengths.
        cost: the price of a group.

    Example:
        >>> group_lengths([3, 3, 4, 100])
        [range(0, 3), range(3, 4)]
    """
    edges = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]
    edges.append(len(ordered))  # a group ends where the length changes
    best: list[tuple[float, int, int]] = []  # least cost of all up to this edge, previous edge index, start
    for end_index, end in enumerate(edges):
        square = ordered[end - 1] ** 2
        choices: list[tuple[float, int, int]] = [(end * square + cost, -1, 0)]
        for before in range(end_index):
            choices.append((best[before][0] + (end - edges[before]) * square + cost, before, edges[before]))
        best.append(min(choices))
    cuts, index = [], len(edges) - 1
    while index >= 0:
        _, before, start = best[index]
        cuts.append(range(start, edges[index]))
        index = before
    return cuts[::-1]
