"""Layers that keep the tasks' gradients apart, in the place of the ones they look like, while a step needs it.

Inside such a layer the parameters are read without their history, so that autograd has nothing to add to them; the
backward pass of the layer adds to the slots. What reaches a parameter in any other way still shows in its ``grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from nlp_mtl.gradients.slots import Lookups
from nlp_mtl.gradients.taps import NOBODY, Tap, Taps, add_products, add_sums

_once = torch.autograd.function.once_differentiable


@contextmanager
def tapped(root: nn.Module, taps: Taps) -> Iterator[None]:
    """Inside this block, the layers of `root` whose parameters the slots take are tapped."""
    changed = []
    for module, forward in _tappable(root, taps):
        wrapped = partial(forward, module, module.forward, taps)
        wrapped.tap = True  # type: ignore[attr-defined] # for who asks whether a layer is as it was built
        module.__dict__["forward"] = wrapped
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def is_tap(forward: Any) -> bool:
    """Whether a module's own ``forward`` is one of these."""
    return hasattr(forward, "tap")


def only_looked_up_in(root: nn.Module, taps: Taps) -> list[nn.Parameter]:
    """Parameters that are the weights of embeddings and of nothing else."""
    users: dict[int, list[nn.Module]] = {}
    for module in root.modules():
        for parameter in module._parameters.values():
            if parameter is not None and taps.slots.takes(parameter):
                users.setdefault(id(parameter), []).append(module)
    single = (found[0] for found in users.values() if len(found) == 1)
    return [module.weight for module in single if _looks_up(module)]  # type: ignore[misc]


def _tappable(root: nn.Module, taps: Taps) -> list[tuple[nn.Module, Callable[..., Any]]]:
    known = taps.__dict__.setdefault("known", {})
    if id(root) not in known:
        known[id(root)] = [
            (module, forward)
            for module in root.modules()
            if "forward" not in vars(module)
            and any(p is not None and taps.slots.takes(p) for p in module._parameters.values())
            and (forward := _forward_of(module)) is not None
        ]
    return known[id(root)]


def _forward_of(module: nn.Module) -> Callable[..., Any] | None:
    if type(module) in (nn.Linear, Conv1D):
        return _linear
    if _looks_up(module):
        return _embedding
    if "Norm" in type(module).__name__ and not any(True for _ in module.children()):
        return _per_row
    return None


def _looks_up(module: nn.Module) -> bool:
    plain = isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward
    return plain and module.max_norm is None and not module.scale_grad_by_freq


def _tap_of(taps: Taps, x: Tensor, last: int = 1) -> Tap | None:
    """For rows [..., width]; None where it is not known whose they are, or nothing is learned."""
    if not torch.is_grad_enabled():
        return None
    return taps.tap(x.numel() // max(1, x.shape[-1]) if last else x.numel())


def _dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


# ------------------------------------------------------------------------------------------------------ linear layers


def _linear(module: Any, plain: Callable[..., Tensor], taps: Taps, x: Tensor) -> Tensor:
    tap = _tap_of(taps, x)
    if tap is None:
        return plain(x)
    turned, dtype = isinstance(module, Conv1D), _dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        out = _Linear.apply(rows, module.weight, module.bias, tap, turned)
    return out.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tap: Tap, turned: bool) -> Tensor:
        w = weight.to(x.dtype)
        b = None if bias is None else bias.to(x.dtype)
        ctx.tap, ctx.turned, ctx.parameters = tap, turned, (weight, bias)
        ctx.save_for_backward(x, w)
        return functional.linear(x, w.t() if turned else w, b)

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx = gradient @ (w.t() if ctx.turned else w) if ctx.needs_input_grad[0] else None
        weight, bias = ctx.parameters
        slots = ctx.tap.taps.slots
        if ctx.tap.on:
            if slots.takes(weight):
                add_products(ctx.tap, weight, gradient, x, turned=ctx.turned)
            if bias is not None and slots.takes(bias):
                add_sums(ctx.tap, bias, gradient)
        found = [_ordinary(ctx, 1, lambda: x.t() @ gradient if ctx.turned else gradient.t() @ x, weight, slots)]
        found.append(_ordinary(ctx, 2, lambda: gradient.sum(0), bias, slots))
        return dx, *found, None, None


def _ordinary(ctx: Any, place: int, make: Callable[[], Tensor], parameter: Any, slots: Any) -> Tensor | None:
    """The gradient of a parameter that is trained, but not by task."""
    if parameter is None or not ctx.needs_input_grad[place] or slots.takes(parameter):
        return None
    return make().to(parameter.dtype)


# --------------------------------------------------------------------------------------------------------- embeddings


def _embedding(module: Any, plain: Callable[..., Tensor], taps: Taps, ids: Tensor) -> Tensor:
    tap = _tap_of(taps, ids, 0)
    if tap is None:
        return plain(ids)
    return _Lookup.apply(ids, module.weight, module.padding_idx, tap)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Any, padding: int | None, tap: Tap) -> Tensor:
        ctx.tap, ctx.weight, ctx.padding = tap, weight, padding
        ctx.save_for_backward(ids)
        return functional.embedding(ids, weight)

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        if ctx.tap.on:
            flat, owner = ids.flatten(), ctx.tap.owners().to(ids.device)
            kept = owner != NOBODY
            if ctx.padding is not None:
                kept &= flat != ctx.padding
            values, slots = gradient.reshape(len(flat), -1)[kept], ctx.tap.taps.slots
            if id(ctx.weight) in slots._sparse:
                slots.look_up(ctx.weight, Lookups(flat[kept], owner[kept], values))
            else:
                for task in owner[kept].unique().tolist():
                    mine = owner[kept] == task
                    whole = torch.zeros_like(ctx.weight).index_add_(0, flat[kept][mine], values[mine].to(ctx.weight))
                    slots.add(ctx.weight, task, whole)
        return None, None, None, None


# ------------------------------------------------------------------------------------------------ whatever works by row


def _per_row(module: Any, plain: Callable[..., Tensor], taps: Taps, x: Tensor) -> Tensor:
    tap = _tap_of(taps, x)
    if tap is None:
        return plain(x)
    return _PerRow.apply(x, module, plain, tap, *module.parameters())


class _PerRow(torch.autograd.Function):
    """A layer that does the same to every row, done again by the rows of each task in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, plain: Any, tap: Tap, *parameters: Tensor) -> Tensor:
        kind = x.device.type
        ctx.module, ctx.plain, ctx.tap = module, plain, tap
        ctx.cast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.save_for_backward(x)
        return plain(x)

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        rows, slopes = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        dx, slots = torch.empty_like(rows), ctx.tap.taps.slots
        every = [p for p in ctx.module.parameters() if p.requires_grad]
        others: list[Tensor | None] = [None] * len(list(ctx.module.parameters()))
        kind, dtype, enabled = ctx.cast
        for a, b, task in ctx.tap.segments():
            own = rows[a:b].detach().requires_grad_()
            with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
                out = ctx.plain(own)
            found = torch.autograd.grad(out, [own, *every], slopes[a:b].to(out.dtype))
            dx[a:b] = found[0]
            for parameter, part in zip(every, found[1:], strict=True):
                if not slots.takes(parameter):
                    place = next(i for i, p in enumerate(ctx.module.parameters()) if p is parameter)
                    before = others[place]
                    others[place] = part if before is None else before + part
                elif ctx.tap.on and task != NOBODY:
                    slots.add(parameter, task, part)
        return dx.view(x.shape), None, None, None, *others
