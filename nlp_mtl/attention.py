"""Attention within each sequence of a packed batch.

The packed batch is one row of tokens; a :class:`Layout` says where its sequences are. Sequences of similar length form
a group, padded to its longest, and each group is one batched product. Linear layers never see that padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.dropout import scaled_mask

# What one more group costs, in attention scores per head: measured, small launches cost about as much as these.
_GROUP_COST = 1500


@dataclass(frozen=True)
class Group:
    """`rows` sequences padded to `length`, at `start` in the padded tokens; `valid` [rows, length], None if all are."""

    start: int
    rows: int
    length: int
    valid: Tensor | None


class Layout:
    """Where the sequences of a packed batch are, and how they are grouped for attention.

    Args:
        lengths: number of tokens of each sequence, in the order of the packed batch; each at least 1.
        device: where the index tensors live.

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

    @cached_property
    def position_ids(self) -> Tensor:
        """[tokens]: 0, 1, … within each sequence."""
        lengths = torch.tensor(self.lengths)
        starts = torch.tensor(self.offsets[:-1]).repeat_interleave(lengths)
        return (torch.arange(self.tokens) - starts).to(self.device)

    @cached_property
    def firsts(self) -> Tensor:
        """[sequences]: index of each sequence's first token."""
        return torch.tensor(self.offsets[:-1], device=self.device)

    @cached_property
    def lasts(self) -> Tensor:
        """[sequences]: index of each sequence's last token."""
        return torch.tensor(self.offsets[1:], device=self.device) - 1

    @cached_property
    def groups(self) -> list[Group]:
        """Sequences of similar length together; see :func:`group_lengths`."""
        return self._plan[0]

    @cached_property
    def gather(self) -> Tensor | None:
        """[padded tokens]: the token that stands in each padded place (token 0 in the empty ones).

        None if the packed order is the padded order.
        """
        return self._plan[1]

    @cached_property
    def scatter(self) -> Tensor:
        """[tokens]: the padded place of each token."""
        return self._plan[2]

    @cached_property
    def empty(self) -> Tensor | None:
        """[empty places]: the padded places that hold no token, None if there is none."""
        return self._plan[3]

    @cached_property
    def _plan(self) -> tuple[list[Group], Tensor | None, Tensor, Tensor | None]:
        order = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        groups, gathers, scatter = [], [], torch.empty(self.tokens, dtype=torch.long)
        start = 0
        for members in group_lengths([self.lengths[i] for i in order]):
            rows = [order[i] for i in members]
            length = self.lengths[rows[-1]]
            counts = torch.tensor([self.lengths[i] for i in rows])
            within = torch.arange(length)
            valid = within < counts[:, None]
            places = torch.tensor([self.offsets[i] for i in rows])[:, None] + within
            gathers.append(torch.where(valid, places, 0).flatten())
            scatter[places[valid]] = start + valid.flatten().nonzero().squeeze(1)
            groups.append(Group(start, len(rows), length, None if bool(valid.all()) else valid.to(self.device)))
            start += len(rows) * length
        gather = torch.cat(gathers)
        in_order = start == self.tokens and torch.equal(gather, torch.arange(self.tokens))
        taken = torch.zeros(start, dtype=torch.bool)
        taken[scatter] = True
        empty = None if start == self.tokens else (~taken).nonzero().squeeze(1).to(self.device)
        return groups, None if in_order else gather.to(self.device), scatter.to(self.device), empty


def group_lengths(ordered: Sequence[int]) -> list[range]:
    """Cut ascending lengths into groups so that padded squares plus a price per group are least (exact, by stages).

    Example:
        >>> group_lengths([3, 3, 4, 100])
        [range(0, 3), range(3, 4)]
    """
    edges = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]
    edges.append(len(ordered))  # a group ends where the length changes
    best: list[tuple[float, int, int]] = []  # least cost of all up to this edge, previous edge index, start
    for end_index, end in enumerate(edges):
        square = ordered[end - 1] ** 2
        choices = [(end * square + _GROUP_COST, -1, 0)]
        for before in range(end_index):
            choices.append((best[before][0] + (end - edges[before]) * square + _GROUP_COST, before, edges[before]))
        best.append(min(choices))
    cuts, index = [], len(edges) - 1
    while index >= 0:
        _, before, start = best[index]
        cuts.append(range(start, edges[index]))
        index = before
    return cuts[::-1]


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """Softmax attention of every token to the tokens of its own sequence.

    Args:
        query: [tokens, heads, head size].
        key, value: [tokens, key heads, head size]; fewer heads than `query` are repeated (grouped-query attention).
        layout: where the sequences are.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.
        causal: attend to earlier tokens and itself only.
        window: attend to tokens nearer than this only (`|i − j| < window`).

    Returns:
        [tokens, heads, head size].
    """
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    return _PackedAttention.apply(query, key.to(query.dtype), value.to(query.dtype), layout, scale, dropout, causal, window)


def _bias(group: Group, causal: bool, window: int | None, like: Tensor) -> Tensor | None:
    """What is added to the scores [rows, heads, length, length] of a group: 0, or the least number where not seen."""
    seen = None if group.valid is None else group.valid[:, None, None, :]
    if causal or (window is not None and window < group.length):
        place = torch.arange(group.length, device=like.device)
        distance = place[:, None] - place
        near = torch.ones_like(distance, dtype=torch.bool)
        if causal:
            near &= distance >= 0
        if window is not None:
            near &= distance.abs() < window
        seen = near if seen is None else seen & near
    if seen is None:
        return None
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, torch.finfo(like.dtype).min)


class _PackedAttention(torch.autograd.Function):
    """Forward and backward by hand: gathers instead of scatter-adds, one mask per product, no autocast round trips."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        scale: float,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        tokens, heads, size = query.shape
        saved: list[Tensor | None] = []
        with torch.autocast(query.device.type, enabled=False):
            q, k, v = (_pad(x, layout) for x in (query, key, value))
            out = torch.empty_like(q)
            for group in layout.groups:
                gq, gk, gv = (_view(x, group) for x in (q, k, v))
                scores = torch.matmul(gq, gk.transpose(2, 3)).mul_(scale)
                bias = _bias(group, causal, window, scores)
                weights = torch.softmax(scores if bias is None else scores.add_(bias), -1)
                mask = scaled_mask(weights.shape, dropout, weights) if dropout else None
                _view(out, group).copy_(torch.matmul(weights if mask is None else weights * mask, gv))
                saved += [weights, mask]
            ctx.save_for_backward(q, k, v, *saved)
            ctx.layout, ctx.scale = layout, scale
            return _unpad(out, layout)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        layout: Layout = ctx.layout
        with torch.autocast(gradient.device.type, enabled=False):
            g = _pad(gradient.to(q.dtype), layout)
            if layout.empty is not None:
                g.index_fill_(0, layout.empty, 0)
            dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
            for number, group in enumerate(layout.groups):
                weights, mask = saved[2 * number], saved[2 * number + 1]
                gg, gq, gk, gv = (_view(x, group) for x in (g, q, k, v))
                dropped = weights if mask is None else weights * mask
                _view(dv, group).copy_(torch.matmul(dropped.transpose(2, 3), gg))
                dweights = torch.matmul(gg, gv.transpose(2, 3))
                if mask is not None:
                    dweights.mul_(mask)
                dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype).mul_(ctx.scale)
                _view(dq, group).copy_(torch.matmul(dscores, gk))
                _view(dk, group).copy_(torch.matmul(dscores.transpose(2, 3), gq))
            return (*(_unpad(x, layout) for x in (dq, dk, dv)), None, None, None, None, None)


def _pad(x: Tensor, layout: Layout) -> Tensor:
    return x.contiguous() if layout.gather is None else x.index_select(0, layout.gather)


def _unpad(x: Tensor, layout: Layout) -> Tensor:
    return x if layout.gather is None else x.index_select(0, layout.scatter)


def _view(x: Tensor, group: Group) -> Tensor:
    part = x[group.start : group.start + group.rows * group.length]
    return part.view(group.rows, group.length, *x.shape[1:]).transpose(1, 2)
