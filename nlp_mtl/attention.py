"""Attention within each sequence of a packed batch.

Linear layers see no padding, and no token sees another sequence. On the CPU fused kernels do it where they can
(:mod:`nlp_mtl.kernels`), on other devices a varlen kernel or torch's fused attention (:mod:`nlp_mtl.varlen`); else
plain torch does, by groups of similar length (:class:`nlp_mtl.layout.Layout`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlp_mtl import varlen
from nlp_mtl.dropout import scaled_mask
from nlp_mtl.kernels import fused
from nlp_mtl.layout import Group, Layout


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
        query: [tokens, heads, head size]; tokens after the last sequence's get 0.
        key, value: [tokens, key heads, head size]; fewer heads than `query` are repeated (grouped-query attention).
        layout: where the sequences are.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.
        causal: attend to earlier tokens and itself only.
        window: attend to tokens nearer than this only (`|i − j| < window`).

    Returns:
        [tokens, heads, head size].
    """
    key, value = key.to(query.dtype), value.to(query.dtype)
    beyond = len(query) - layout.tokens
    kernel = "groups" if query.device.type == "cpu" else varlen.chosen(query, dropout)
    if kernel != "groups":
        query, key, value = (x[: layout.tokens] for x in (query, key, value))
        out = varlen.attention(
            kernel, query, key, value, layout, scale=scale, dropout=dropout, causal=causal, window=window
        )
        return _filled(out, beyond)
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    if fused.usable(query) and key.shape == value.shape == query.shape and dropout < 1:
        return fused.attention(
            (query, key, value), *layout.places, scale=scale, dropout=dropout, causal=causal, window=window
        )
    if beyond:
        query, key, value = query[: layout.tokens], key[: layout.tokens], value[: layout.tokens]
    return _filled(_PackedAttention.apply(query, key, value, layout, scale, dropout, causal, window), beyond)


def _filled(out: Tensor, beyond: int) -> Tensor:
    return functional.pad(out, (0, 0, 0, 0, 0, beyond)) if beyond else out


def packed_self_attention(asked: Tensor, layout: Layout, *, scale: float, dropout: float = 0.0) -> Tensor:
    """As :func:`packed_attention`, of queries, keys and values that came out of one product.

    Args:
        asked: [tokens, 3, heads, head size].
        layout, scale, dropout: as there.

    Returns:
        [tokens, heads, head size].
    """
    if fused.usable(asked) and dropout < 1:
        return fused.attention((asked,), *layout.places, scale=scale, dropout=dropout)
    query, key, value = asked.unbind(1)
    return packed_attention(query, key, value, layout, scale=scale, dropout=dropout)


def _bias(group: Group, causal: bool, window: int | None, like: Tensor) -> Tensor | None:
    """What is added to the scores [rows, heads, length, length] of a group: 0, or the least number where not seen."""
    seen = group.seen(causal, window, like.device)
    if seen is None:
        return None
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(
        ~seen, torch.finfo(like.dtype).min
    )


class _PackedAttention(torch.autograd.Function):
    """Forward and backward by hand: few large gathers, products straight into place, one dropout mask per call.

    Heads are gathered as rows of their own, so that every group is one contiguous batch of matrices.
    """

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
        tokens, heads, _ = query.shape
        with torch.autocast(query.device.type, enabled=False):
            q, k, v = (_gather(x, layout) for x in (query, key, value))
            weights = q.new_empty(layout.scores * heads)
            for group, part in layout.parts(weights, heads):
                bias = _bias(group, causal, window, weights)
                gq, gk = _matrices(q, group, heads), _matrices(k, group, heads)
                torch.bmm(gq, gk.transpose(1, 2), out=part).mul_(scale)
                if bias is not None:
                    part.view(group.rows, heads, group.length, group.length).add_(bias)
                torch.softmax(part, -1, out=part)
            dropped, mask = weights, None
            if dropout:
                mask = scaled_mask(weights.shape, dropout, weights)
                dropped = weights * mask
            out = torch.empty_like(q)
            for group, part in layout.parts(dropped, heads):
                torch.bmm(part, _matrices(v, group, heads), out=_matrices(out, group, heads))
            ctx.save_for_backward(q, k, v, weights, mask)
            ctx.layout, ctx.scale, ctx.heads = layout, scale, heads
            return _scatter(out, layout, tokens, heads)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, mask = ctx.saved_tensors
        layout, heads, tokens = ctx.layout, ctx.heads, gradient.shape[0]
        with torch.autocast(gradient.device.type, enabled=False):
            g = _gather(gradient.to(q.dtype), layout)
            empty = layout.empty_rows(heads)
            if empty is not None:
                g.index_fill_(0, empty, 0)
            dropped = weights if mask is None else weights * mask
            dq, dk, dv, dweights = (
                torch.empty_like(q),
                torch.empty_like(k),
                torch.empty_like(v),
                torch.empty_like(weights),
            )
            for (group, part), (_, dpart) in zip(
                layout.parts(dropped, heads), layout.parts(dweights, heads), strict=True
            ):
                gg = _matrices(g, group, heads)
                torch.bmm(part.transpose(1, 2), gg, out=_matrices(dv, group, heads))
                torch.bmm(gg, _matrices(v, group, heads).transpose(1, 2), out=dpart)
            if mask is not None:
                dweights.mul_(mask)
            for (group, part), (_, dpart) in zip(
                layout.parts(weights, heads), layout.parts(dweights, heads), strict=True
            ):
                dscores = torch._softmax_backward_data(dpart, part, -1, part.dtype).mul_(ctx.scale)
                torch.bmm(dscores, _matrices(k, group, heads), out=_matrices(dq, group, heads))
                torch.bmm(dscores.transpose(1, 2), _matrices(q, group, heads), out=_matrices(dk, group, heads))
            return (*(_scatter(x, layout, tokens, heads) for x in (dq, dk, dv)), None, None, None, None, None)


def _gather(x: Tensor, layout: Layout) -> Tensor:
    """[tokens, heads, size] to [padded tokens · heads, size], group by group as [rows, heads, length]."""
    return x.reshape(-1, x.shape[-1]).index_select(0, layout.gather_heads(x.shape[1]))


def _scatter(x: Tensor, layout: Layout, tokens: int, heads: int) -> Tensor:
    """The inverse of :func:`_gather`; padding is left out."""
    return x.index_select(0, layout.scatter_heads(heads)).view(tokens, heads, x.shape[-1])


def _matrices(x: Tensor, group: Group, heads: int) -> Tensor:
    """[rows · heads, length, size]: a group's part of gathered heads."""
    begin = group.start * heads
    return x[begin : begin + group.rows * group.length * heads].view(group.rows * heads, group.length, x.shape[-1])
