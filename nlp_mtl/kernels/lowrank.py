"""LoRA's products where each token has the A and B of its own task, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.kernels import building
from nlp_mtl.kernels.fused import usable

_KINDS = {torch.float32: 0, torch.bfloat16: 1}
_LONGEST = 64  # tokens of a run, so that threads can share a long one
_once = torch.autograd.function.once_differentiable


@dataclass(frozen=True)
class Runs:
    """Tokens that stand next to each other and belong to the same owner.

    Attributes:
        table: [runs, 3], int64: first token, token after the last, and the owner's place in `owners`.
        owners: numbers of the owners, each once; some may have no token.

    Example:
        >>> runs = Runs.of(torch.tensor([7, 7, -1, 2]))
        >>> runs.table.tolist(), runs.owners
        ([[3, 4, 0], [0, 2, 1]], (2, 7))
    """

    table: Tensor
    owners: tuple[int, ...]

    @classmethod
    def of(cls, owner: Tensor, also: Sequence[int] = ()) -> Runs:
        """The runs of tokens.

        Args:
            owner: [tokens], int64 on the CPU; −1 for tokens of nobody.
            also: owners that are to have gradients, of zeros, though they have no token here.
        """
        changes = torch.nonzero(owner[1:] != owner[:-1]).squeeze(1) + 1
        edges = [0, *changes.tolist(), len(owner)] if len(owner) else [0]
        whose = owner[edges[:-1]].tolist() if len(owner) else []
        owners = tuple(sorted({number for number in (*whose, *also) if number >= 0}))
        place = {number: i for i, number in enumerate(owners)}
        lines = [
            (start, min(start + _LONGEST, end), place[number])
            for begin, end, number in zip(edges[:-1], edges[1:], whose, strict=True)
            if number >= 0
            for start in range(begin, end, _LONGEST)
        ]
        lines.sort(key=lambda line: line[2])  # what an owner's A and B are read for comes together
        return cls(torch.tensor(lines, dtype=torch.int64, device="cpu").reshape(-1, 3), owners)

    @staticmethod
    @lru_cache(maxsize=256)
    def all_of(owner: int, tokens: int, also: tuple[int, ...] = ()) -> Runs:
        """All tokens are of one owner; `also` as in :meth:`of`."""
        owners = tuple(sorted({owner, *also}))
        starts = torch.arange(0, tokens, _LONGEST, device="cpu")
        ends = (starts + _LONGEST).clamp_max(tokens)
        return Runs(torch.stack([starts, ends, torch.full_like(starts, owners.index(owner))], 1), owners)

    @cached_property
    def tokens(self) -> int:
        """The token after the last run."""
        return int(self.table[:, 1].max()) if len(self.table) else 0


def fits(x: Tensor, downs: Sequence[Tensor], ups: Sequence[Tensor]) -> bool:
    """Whether the kernels take these: on the CPU, A and B float32 and of one rank."""
    parts = [*downs, *ups]
    whole = all(part.dtype == torch.float32 and part.is_contiguous() for part in parts)
    return bool(downs) and whole and len({len(down) for down in downs}) == 1 and usable(x, *parts)


class Product:
    """``scale · B A x`` for each token by its own task's A and B, and its gradients. Ask :func:`fits` first.

    Args:
        runs: whose tokens are whose.
        downs: for each of `runs.owners` A, [rank, in].
        ups: for each B, [out, rank].
        scale: what the product is multiplied by.
    """

    def __init__(self, runs: Runs, downs: Sequence[Tensor], ups: Sequence[Tensor], scale: float):
        # A and B are not kept: by the backward pass they may have moved (resharding, `.data = …`)
        self.runs, self.scale, self.count = runs, scale, len(downs)
        self.rank, self.width = downs[0].shape
        self.out = len(ups[0])
        self._turned = self._low = torch.empty(0)

    def add_to(self, out: Tensor, x: Tensor, downs: Sequence[Tensor], ups: Sequence[Tensor]) -> None:
        """Add the product to `out` [tokens, out]; x is [tokens, in]; both of one dtype, with adjacent columns."""
        self._turned = ups[0].new_empty(len(ups), self.rank, self.out)
        self._low = ups[0].new_empty(len(x), self.rank)
        places_a, places_b = _addresses(downs), _addresses(ups)  # they must live until the call is over
        _library().lowrank_forward(
            *self._facts(x, self.runs, self.count),
            *(places_a.data_ptr(), places_b.data_ptr(), self.scale, x.data_ptr(), x.stride(0)),
            *(out.data_ptr(), out.stride(0), self._turned.data_ptr(), self._low.data_ptr()),
        )

    def backward(
        self, gradient: Tensor, x: Tensor, dx: Tensor | None, downs: Sequence[Tensor], *, runs: Runs | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `downs` and `ups`; that of x is added to `dx` [tokens, in].

        Args:
            gradient: [tokens, out], as x.
            x: [tokens, in].
            downs: where they are now.
            dx: contiguous, as x; None where it is not needed.
            runs: of a product with one A and B, the rows whose gradients of them are kept apart: there are as many
                gradients as owners; `downs` is then that A so many times.
        """
        count, low, places = len(downs), self._low, _addresses(downs)
        alike = runs is not None
        slope, ups = torch.empty_like(low), low.new_empty(count, self.out, self.rank)
        own, work = low.new_zeros(count, self.rank, self.width), low.new_zeros(count, self.rank, self.out)
        _library().lowrank_backward(
            *self._facts(x, runs or self.runs, count),
            *(places.data_ptr(), self.scale, x.data_ptr(), x.stride(0), gradient.data_ptr()),
            *(gradient.stride(0), int(not alike), self._turned.data_ptr(), low.data_ptr(), slope.data_ptr()),
            *(None if dx is None else dx.data_ptr(), own.data_ptr(), work.data_ptr(), ups.data_ptr()),
        )
        return own, ups

    def _facts(self, x: Tensor, runs: Runs, count: int) -> tuple[int, ...]:
        table = runs.table
        return _KINDS[x.dtype], len(table), table.data_ptr(), count, self.rank, self.width, self.out


def product(x: Tensor, runs: Runs, downs: Sequence[Tensor], ups: Sequence[Tensor], scale: float) -> Tensor:
    """``scale · B A x`` for each token by its own task's A and B; 0 for tokens of nobody.

    Args:
        x: [tokens, in]; at least `runs.tokens` of them.
        runs, downs, ups, scale: see :class:`Product`.

    Returns:
        [tokens, out], as `x`.

    Relations: one shared A and B are LoRA (Hu et al., 2021, arXiv 2106.09685). Many in one batch, at prediction, are
    Punica's and S-LoRA's (Chen et al., 2023, arXiv 2310.18547; Sheng et al., 2023, arXiv 2311.03285); here they are
    trained.
    """
    if runs.tokens > len(x) or x.dim() != 2 or not fits(x, downs, ups):
        raise ValueError("low-rank product: x [tokens, in], A [rank, in] and B [out, rank] in float32, on the CPU")
    return _Product.apply(x.contiguous(), runs, scale, *downs, *ups)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, runs: Runs, scale: float, *parts: Tensor) -> Tensor:
        half = len(parts) // 2
        ctx.product = Product(runs, parts[:half], parts[half:], scale)
        out = x.new_zeros(len(x), ctx.product.out)
        ctx.product.add_to(out, x, parts[:half], parts[half:])
        ctx.save_for_backward(x, *parts)  # also watches for changes of A and B in between
        return out

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parts = ctx.saved_tensors
        dx = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        downs, ups = ctx.product.backward(gradient.contiguous(), x, dx, parts[: len(parts) // 2])
        needs = ctx.needs_input_grad[3:]
        return dx, None, None, *(found if need else None for need, found in zip(needs, [*downs, *ups], strict=True))


def _addresses(parts: Sequence[Tensor]) -> Tensor:
    return torch.tensor([part.data_ptr() for part in parts], dtype=torch.int64, device="cpu")


def _library() -> Any:
    return building.compiled()
