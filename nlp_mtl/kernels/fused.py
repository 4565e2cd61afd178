"""The fused kernels as differentiable functions. Ask :func:`usable` first; there is no other path in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.kernels import building

_KINDS = {torch.float32: 0, torch.bfloat16: 1}
_once = torch.autograd.function.once_differentiable


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and take these tensors: on the CPU, float32 or bfloat16."""
    fit = all(x is None or (x.device.type == "cpu" and x.dtype in _KINDS) for x in tensors)
    return fit and building.compiled() is not None


def gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU of `x + bias`.

    Args:
        x: [tokens, width]. Hendrycks & Gimpel (2016, arXiv 1606.08415), by the error function.
        bias: [width], float32; left out, none.

    Returns:
        [tokens, width], as `x`; within 1e-6 of torch's in float32.
    """
    _require(
        x.dim() == 2 and x.dtype in _KINDS and _is_vector(bias, x.shape[1]), "gelu: x [tokens, width], bias [width]"
    )
    return _Gelu.apply(x, bias)


def add_norm(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    weight: Tensor,
    shift: Tensor,
    eps: float,
    dropout: float,
    *,
    narrow: bool = False,
    tap: Any = None,
) -> tuple[Tensor, Tensor | None]:
    """LayerNorm of `residual + dropout(x + bias)`, in one pass forward and one backward.

    Args:
        x: [tokens, width].
        bias: [width], float32; None for none.
        residual: [tokens, width], float32.
        weight, shift: [width], float32, of the LayerNorm.
        eps: of the LayerNorm.
        dropout: probability, of the numbers of `x + bias`, below 1; drawn from torch's generator.
        narrow: also give a copy in bfloat16, for the matrix product that follows.
        tap: who takes the tasks' gradients of `weight` and `shift` apart (:class:`nlp_mtl.gradients.taps.Tap`).

    Returns:
        [tokens, width] in float32; and the copy, None if there is none (`x` is float32).
    """
    fit = residual.dtype == torch.float32 and residual.shape == x.shape and x.dim() == 2 and x.dtype in _KINDS
    vectors = weight is not None and shift is not None and all(_is_vector(v, x.shape[1]) for v in (bias, weight, shift))
    _require(fit and vectors, "add_norm: x and residual [tokens, width], bias, weight and shift [width]")
    return _AddNorm.apply(x, bias, residual, weight, shift, eps, dropout, narrow, tap)


def attention(
    parts: Sequence[Tensor],
    offsets: Tensor,
    order: Tensor,
    *,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """Softmax attention within each sequence of a packed batch; scores are never stored.

    Args:
        parts: queries, keys and values, each [tokens, heads, head size], of one dtype; or one [tokens, 3, heads, head
            size] that holds them.
        offsets: [sequences + 1], int64; tokens after the last one get 0.
        order: [sequences], int64: the sequences, the longest first.
        scale, dropout, causal, window: as in :func:`nlp_mtl.attention.packed_attention`.

    Returns:
        [tokens, heads, head size].

    Relations: like FlashAttention (Dao et al., 2022, arXiv 2205.14135) in keeping the log of the sums only, but for
    the CPU, and over sequences of very different lengths.
    """
    query, key, value = parts[0].unbind(1) if len(parts) == 1 else parts
    same = query.shape == key.shape == value.shape and query.dtype == key.dtype == value.dtype
    _require(same and query.dtype in _KINDS, "attention: queries, keys and values of one shape and dtype")
    places = all(x.dtype == torch.int64 and x.device.type == "cpu" for x in (offsets, order))
    _require(places and 0 <= int(offsets[-1]) <= len(query), "attention: offsets within the tokens")
    window = 0 if not window or window >= len(query) else window
    return _Attention.apply(offsets, order, (scale, dropout, causal, window), *parts)


def _require(right: bool, what: str) -> None:
    """What comes next reads memory by its address."""
    if not right:
        raise ValueError(f"fused kernels: {what}")


def _is_vector(x: Tensor | None, width: int) -> bool:
    if x is None:
        return True
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.shape == (width,) and x.is_contiguous()


def _library() -> Any:
    return building.compiled()


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _drawn(dropout: float) -> tuple[int, float, int]:
    """(threshold of 32 random bits, scale of what is kept, seed)."""
    if not dropout:
        return 0, 1.0, 0
    cut = max(1, min(round(dropout * 2**32), 2**32 - 1))
    return cut, 2**32 / (2**32 - cut), int(torch.randint(0, 2**62, (), dtype=torch.int64))


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        out, slope = torch.empty_like(x), torch.empty_like(x) if any(ctx.needs_input_grad) else None
        rows, width = x.shape
        _library().gelu_forward(
            _KINDS[x.dtype], rows, width, _address(x), _address(bias), _address(out), _address(slope)
        )
        ctx.save_for_backward(slope)  # the derivative takes the room of `x` and makes the way back one product
        ctx.biased = bias is not None
        return out

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        rows, width = slope.shape
        gradient, dx = gradient.to(slope.dtype).contiguous(), torch.empty_like(slope)
        sums = slope.new_zeros(_library().threads(), width, dtype=torch.float32) if ctx.biased else None
        _library().gelu_backward(
            _KINDS[slope.dtype], rows, width, _address(slope), _address(gradient), _address(dx), _address(sums)
        )
        return dx, None if sums is None else sums.sum(0)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        weight: Tensor,
        shift: Tensor,
        eps: float,
        p: float,
        narrow: bool,
        tap: Any,
    ) -> tuple[Tensor, Tensor | None]:
        x, residual = x.contiguous(), residual.contiguous()
        rows, width = x.shape
        total, y = torch.empty_like(residual), torch.empty_like(residual)
        half = torch.empty_like(x) if narrow and x.dtype == torch.bfloat16 else None
        facts = total.new_empty(rows, 2)
        cut, scale, seed = _drawn(p)
        _library().norm_forward(
            _KINDS[x.dtype], rows, width, *map(_address, (x, bias, residual, weight, shift)), eps,
            cut, scale, seed, *map(_address, (total, facts, y, half)),
        )  # fmt: skip
        ctx.save_for_backward(total, facts, weight)
        ctx.how, ctx.dtype, ctx.biased = (cut, scale, seed), x.dtype, bias is not None
        ctx.tap, ctx.own = tap, (weight, shift)
        ctx.set_materialize_grads(False)
        return y, half

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor | None, half: Tensor | None) -> tuple[Tensor | None, ...]:
        total, facts, weight = ctx.saved_tensors
        rows, width = total.shape
        gradient = None if gradient is None else gradient.float().contiguous()
        half = None if half is None else half.bfloat16().contiguous()
        dx, dresidual = total.new_empty(rows, width, dtype=ctx.dtype), torch.empty_like(total)
        parts = [(0, rows, -1)] if ctx.tap is None else ctx.tap.segments()
        whole = total.new_zeros(3, width)
        for a, b, task in parts:
            sums = total.new_zeros(_library().threads(), 3, width)
            given = [None if x is None else x[a:b] for x in (gradient, half, total, facts)]
            _library().norm_backward(
                _KINDS[ctx.dtype], b - a, width, *map(_address, (*given, weight)), *ctx.how,
                *map(_address, (dx[a:b], dresidual[a:b], sums)), a,
            )  # fmt: skip
            found = sums.sum(0)
            whole += found
            if ctx.tap is not None and ctx.tap.on and task >= 0:
                for parameter, part in zip(ctx.own, found, strict=False):
                    if ctx.tap.taps.takes(parameter):
                        ctx.tap.taps.slots.add(parameter, task, part)
        dweight, dshift, dbias = whole
        if ctx.tap is not None:
            dweight, dshift = (None if ctx.tap.taps.takes(p) else d for p, d in zip(ctx.own, whole, strict=False))
        return dx, dbias if ctx.biased else None, dresidual, dweight, dshift, None, None, None, None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, offsets: Tensor, order: Tensor, how: tuple[Any, ...], *parts: Tensor) -> Tensor:
        factor, p, causal, window = how
        parts = tuple(x.contiguous() if x.dim() == 4 else _by_token(x) for x in parts)
        query, key, value = parts[0].unbind(1) if len(parts) == 1 else parts
        out = _zero_beyond(query.new_empty(query.shape), offsets)
        logs = query.new_empty(query.shape[:2], dtype=torch.float32)
        ctx.how = (float(factor), int(causal), window, *_drawn(p))
        ctx.save_for_backward(offsets, order, logs, *parts)
        given = _arguments(query, key, value, offsets, order)
        if _library().attention_forward(*given, *ctx.how, _address(out), _address(logs)):
            raise MemoryError("attention: no memory for one sequence's keys and values")
        return out

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        offsets, order, logs, *parts = ctx.saved_tensors
        query, key, value = parts[0].unbind(1) if len(parts) == 1 else parts
        gradient = gradient.to(query.dtype).contiguous()
        whole = [_zero_beyond(x.new_empty(x.shape), offsets) for x in parts]
        found = whole[0].unbind(1) if len(parts) == 1 else whole
        given = _arguments(query, key, value, offsets, order)
        if _library().attention_backward(
            *given, *ctx.how, _address(logs), _address(gradient), *map(_address, found), found[0].stride(0)
        ):
            raise MemoryError("attention: no memory for one sequence's keys and values")
        return (None, None, None, *whole)


def _zero_beyond(x: Tensor, offsets: Tensor) -> Tensor:
    x[int(offsets[-1]) :] = 0  # the kernel writes what stands in a sequence
    return x


def _by_token(x: Tensor) -> Tensor:
    """As it is if the heads of a token stand side by side, else a copy."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def _arguments(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, order: Tensor) -> list[Any]:
    _, heads, size = query.shape
    parts = [part for x in (query, key, value) for part in (_address(x), x.stride(0))]
    return [_KINDS[query.dtype], len(order), _address(order), _address(offsets), heads, size, *parts]
