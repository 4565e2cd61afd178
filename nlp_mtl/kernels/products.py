"""Linear layers over one input as one product in bfloat16, with float32 weights, and with LoRA beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from nlp_mtl.kernels import building
from nlp_mtl.kernels.lowrank import Product, Runs

# Up to this rank a kernel of ours is faster than two more matrix products, which do nothing but move memory then.
THIN = 16
_FROZEN = WeakTensorKeyDictionary()  # by the first weight of a product
_once = torch.autograd.function.once_differentiable


@dataclass(frozen=True)
class PerTask:
    """One LoRA for each task; see :class:`nlp_mtl.kernels.lowrank.Product`."""

    runs: Runs
    downs: tuple[Tensor, ...]
    ups: tuple[Tensor, ...]
    scale: float


@dataclass(frozen=True)
class Tapped(PerTask):
    """One LoRA for all rows, of which the tasks' gradients are kept apart."""

    tap: Any = None


@dataclass(frozen=True)
class Linear:
    """What one linear layer is made of.

    Attributes:
        weight: [out, in], float32.
        bias: [out], float32, or None.
        down, up: [rank, in] and [out, rank], float32: LoRA's A and B; None for a layer without.
        scale: what LoRA's product is multiplied by.
        per_task: what is added for each token by its own task; None for nothing.
        tap: who takes the tasks' gradients of `down` and `up` apart (:class:`nlp_mtl.gradients.taps.Tap`); for ranks up
            to `THIN`.
        gate: [tokens, rank], what each token's A x is multiplied by before B; None for nothing.
    """

    weight: Tensor
    bias: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0
    per_task: PerTask | None = None
    tap: Any = None
    gate: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Weight, bias, A, B."""
        return self.weight, self.bias, self.down, self.up


def affine(x: Tensor, layers: Sequence[Linear]) -> Tensor:
    """What linear layers make of `x`, side by side; ask :func:`nlp_mtl.kernels.fused.usable` first.

    As autocast does it, weights are rounded to bfloat16 and gradients of weights come from a bfloat16 product. But
    there is one product for all of them and for what LoRA's A makes, and gradients of biases are added up in float32.

    Args:
        x: [tokens, in], bfloat16.
        layers: all with a bias, or none.

    Returns:
        [tokens, sum of outs], bfloat16.

    Relations: LoRA is Hu et al. (2021, arXiv 2106.09685), with dropout 0. Weights are not merged first, as W + BA
    rounded to bfloat16 would lose a small BA.
    """
    right = x.dtype == torch.bfloat16 and x.dim() == 2 and len({one.bias is None for one in layers}) == 1
    whole = [part for one in layers for part in one.tensors() if part is not None]
    if not right or any(part.dtype != torch.float32 for part in whole):
        raise ValueError("affine: x [tokens, in] in bfloat16, parts of layers in float32; a bias for all or for none")
    own: list[list[PerTask]] = []
    parts: list[Tensor | None] = []
    for one in layers:
        own.append([one.per_task] if one.per_task is not None else [])
        if one.down is not None and one.up is not None and len(one.down) <= THIN and one.gate is None:
            thin = PerTask(Runs.all_of(0, len(x)), (one.down,), (one.up,), one.scale)
            own[-1].append(thin if one.tap is None else Tapped(thin.runs, thin.downs, thin.ups, thin.scale, one.tap))
            parts += [one.weight, one.bias, None, None, None]
        else:
            parts += [*one.tensors(), one.gate]
    apart = [part for some in own for one in some for part in (*one.downs, *one.ups)]
    scales = tuple(one.scale for one in layers)
    return _Affine.apply(x, (scales, own, _kept([one.weight for one in layers])), *parts, *apart)


def _kept(weights: Sequence[Tensor]) -> Tensor | None:
    """[sum of outs, in], bfloat16: frozen weights below one another, rounded once and not at every step.

    They are as large as what a step's backward pass holds anyway. None for weights that are trained.
    """
    if any(weight.requires_grad or weight.is_inference() for weight in weights):
        return None
    state = tuple((weight.data_ptr(), weight._version, tuple(weight.shape)) for weight in weights)
    known = _FROZEN.get(weights[0])
    if known is None or known[0] != state:
        with torch.no_grad():
            known = _FROZEN[weights[0]] = state, torch.cat([weight.bfloat16() for weight in weights])
    return known[1]


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, facts: tuple[Any, ...], *parts: Tensor | None) -> Tensor:
        scales, own, kept = facts
        weights, biases, downs, ups, gates = (parts[: 5 * len(own)][i::5] for i in range(5))
        sizes = [len(weight) for weight in weights]  # type: ignore[arg-type]
        ranks = [0 if down is None else len(down) for down in downs]
        wide = sum(sizes)
        if kept is not None and not any(ranks):
            read = kept
        else:
            read = x.new_empty(wide + sum(ranks), x.shape[1])  # the weights, and below them LoRA's A
            for place, one in zip(read.split([*sizes, *ranks]), (*weights, *downs), strict=True):
                if one is not None:
                    place.copy_(one)
        if biases[0] is None:
            out = x @ read.t()
        else:
            bias = x.new_zeros(len(read))
            for place, one in zip(bias[:wide].split(sizes), biases, strict=True):
                place.copy_(one)
            out = torch.addmm(bias, x, read.t())
        low = up = gate = None
        if len(read) > wide:
            low, up = out[:, wide:].contiguous(), x.new_zeros(sum(ranks), wide)
            places = zip(_blocks(up, ranks, sizes), ups, scales, strict=True)
            for place, one, scale in places:
                if one is not None:
                    place.copy_(one.t() * scale)
            if any(one is not None for one in gates):
                gate = torch.ones_like(low)
                for place, one in zip(gate.split(ranks, 1), gates, strict=True):
                    if one is not None:
                        place.copy_(one)
            out = torch.addmm(out[:, :wide], low if gate is None else low * gate, up)
        apart = [[_product_of(one) for one in some] for some in own]
        left = list(parts[5 * len(own) :])
        for some, place in zip(apart, out.split(sizes, 1), strict=True):
            for product in some:
                product.add_to(place, x, *_next(left, product.count))
        ctx.facts = scales, sizes, ranks, apart
        ctx.save_for_backward(x, read, low, up, gate, *parts[5 * len(own) :])  # the last are watched for changes
        return out

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, read, low, up, gate, *left = ctx.saved_tensors
        scales, sizes, ranks, apart = ctx.facts
        gradient, needs, wide = gradient.contiguous(), ctx.needs_input_grad, sum(sizes)
        needed = [any(needs[2 : 2 + 5 * len(sizes)][i::5]) for i in range(5)]
        found: list[list[Tensor | None]] = [[None] * len(sizes) for _ in range(5)]
        dx = gradient @ read[:wide] if needs[0] else None
        if needed[0]:
            found[0] = [*(gradient.t() @ x).float().split(sizes)]
        if needed[1]:
            found[1] = [*_column_sums(gradient).split(sizes)]
        if low is not None and (needs[0] or needed[2] or needed[4]):
            slope = gradient @ up.t()
            if needed[4]:
                found[4] = [*(slope * low).float().split(ranks, 1)]
            if gate is not None:
                slope = slope * gate
            if dx is not None:
                dx.addmm_(slope, read[wide:])
            if needed[2]:
                found[2] = [*(slope.t() @ x).float().split(ranks)]
        if low is not None and needed[3]:
            gated = low if gate is None else low * gate
            blocks = _blocks((gated.t() @ gradient).float(), ranks, sizes)
            found[3] = [block.t() * scale for block, scale in zip(blocks, scales, strict=True)]
        parts = [part for i in range(len(sizes)) for part in (found[k][i] for k in range(5))]
        for some, place in zip(apart, gradient.split(sizes, 1), strict=True):
            for product in some:
                own_downs, own_ups = _next(left, product.count)
                if isinstance(product, _TappedProduct) and product.tap.on:
                    product.backward_apart(place, x, dx, own_downs[0], own_ups[0])
                    parts += [None, None]
                    continue
                downs, ups = product.backward(place, x, dx, own_downs)
                # a tap that is off leaves them out: they were counted
                parts += [None, None] if isinstance(product, _TappedProduct) else [*downs, *ups]
        return dx, None, *(part if need else None for part, need in zip(parts, needs[2:], strict=True))


class _TappedProduct(Product):
    tap: Any
    own: tuple[Tensor, Tensor]

    def backward_apart(self, gradient: Tensor, x: Tensor, dx: Tensor | None, down: Tensor, up: Tensor) -> None:
        """As :meth:`Product.backward`, and the gradients of each task go to the tap's slots."""
        runs, slots = self.tap.runs(), self.tap.taps.slots
        downs, ups = self.backward(gradient, x, dx, [down] * len(runs.owners), runs=runs)
        for parameter, found in zip(self.own, (downs, ups), strict=True):
            slots.add_all(parameter, runs.owners, found)


def _product_of(one: PerTask) -> Product:
    if not isinstance(one, Tapped):
        return Product(one.runs, one.downs, one.ups, one.scale)
    made = _TappedProduct(one.runs, one.downs, one.ups, one.scale)
    made.tap, made.own = one.tap, (one.downs[0], one.ups[0])
    return made


def _next(left: list[Any], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """The next product's A and B, taken from the list."""
    downs, ups = left[:count], left[count : 2 * count]
    del left[: 2 * count]
    return downs, ups


def _blocks(whole: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """The blocks on the diagonal."""
    rows = whole.split(list(heights))
    return [row.split(list(widths), 1)[number] for number, row in enumerate(rows)]


def _column_sums(x: Tensor) -> Tensor:
    """[width] in float32, of bfloat16 numbers [rows, width]."""
    library = building.compiled()
    assert library is not None
    sums = x.new_zeros(library.threads(), x.shape[1], dtype=torch.float32)
    library.column_sums(1, *x.shape, x.data_ptr(), sums.data_ptr())
    return sums.sum(0)
