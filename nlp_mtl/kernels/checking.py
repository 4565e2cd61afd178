"""The kernels tried on this machine, beside plain torch, before anything relies on them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nlp_mtl.kernels import building, fused, products, updating

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@lru_cache(maxsize=1)
def check_kernels() -> None:
    """Compare every kernel with plain torch on a few numbers, forward and backward; do without all if one is off."""
    if building.compiled() is None:
        return
    state = torch.get_rng_state()
    try:
        with torch.enable_grad(), torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            for dtype, tolerance in _TOLERANCE.items():
                found = {**_differences(dtype), **(_of_optimizers() if dtype == torch.float32 else _of_products())}
                for name, difference in found.items():
                    if not difference < tolerance:
                        building.refuse(f"{name} differs by {difference:.1g} from plain torch on this machine")
                        return
    finally:
        torch.set_rng_state(state)


def _differences(dtype: torch.dtype) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.device("cpu"):
        x, bias, residual = torch.randn(5, 37), torch.randn(37), torch.randn(5, 37)
        weight, shift, asked = torch.randn(37), torch.randn(37), torch.randn(40, 3, 2, 20)
        offsets, order = torch.tensor([0, 37, 40]), torch.tensor([0, 1])
    x, asked = x.to(dtype), asked.to(dtype)
    return {
        "gelu": _difference(
            [x, bias], lambda x, bias: fused.gelu(x, bias), lambda x, bias: functional.gelu(x.float() + bias)
        ),
        "add_norm": _difference(
            [x, bias, residual, weight, shift],
            lambda x, bias, residual, weight, shift: fused.add_norm(x, bias, residual, weight, shift, 1e-5, 0.0)[0],
            lambda x, bias, residual, weight, shift: functional.layer_norm(
                x.float() + bias + residual, (37,), weight, shift, 1e-5
            ),
        ),
        "attention": _difference(
            [asked], lambda asked: fused.attention((asked,), offsets, order, scale=0.3), _attention
        ),
    }


def _of_products() -> dict[str, float]:
    with torch.device("cpu"):
        x, weight, bias = torch.randn(5, 37).bfloat16(), torch.randn(6, 37), torch.randn(6)
        down, up = torch.randn(3, 37) / 4, torch.randn(6, 3)
    return {
        "affine": _difference(
            [x, weight, bias, down, up],
            lambda x, weight, bias, down, up: products.affine(x, [products.Linear(weight, bias, down, up, 0.5)]),
            lambda x, weight, bias, down, up: functional.linear(x.float(), weight + 0.5 * up @ down, bias),
        )
    }


def _of_optimizers() -> dict[str, float]:
    with torch.device("cpu"):
        value, gradient, rows = torch.randn(4, 37), torch.randn(4, 37), torch.tensor([0, 2, 3])
        mean, square, wanted = torch.zeros(4, 37), torch.zeros(4, 37), value.clone()
    wanted[rows] -= 0.1 * gradient[rows].sign()  # what a first step is
    table = np.array([updating.line(value, gradient, mean, square)])
    updating.only_rows(table[0], rows, gradient)
    updating.adamw(table, updating.Pace(0.1, 0.9, 0.999, 1e-12, 0.0, 1.0))
    length = float(gradient[rows].norm())
    return {
        "adamw": float((value - wanted).abs().max()),
        "norm of gradients": abs(updating.norm(table) - length) / length,
    }


def _attention(asked: Tensor) -> Tensor:
    parts = []
    for sequence in asked.float().split([37, 3]):
        query, key, value = (part.transpose(0, 1) for part in sequence.unbind(1))
        parts.append((torch.softmax(query @ key.transpose(1, 2) * 0.3, -1) @ value).transpose(0, 1))
    return torch.cat(parts)


def _difference(inputs: list[Tensor], *functions: object) -> float:
    """The largest between the outputs, or the gradients, of two functions, beside the largest number there is."""
    found = []
    for function in functions:
        given = [x.detach().clone().requires_grad_() for x in inputs]
        out = function(*given)  # type: ignore[operator]
        factors = torch.linspace(-1, 1, out.numel(), device="cpu").view(out.shape)
        found.append([out.detach().float(), *torch.autograd.grad((out.float() * factors).sum(), given)])
    return max(
        float((mine.float() - theirs.float()).abs().max() / theirs.float().abs().max().clamp_min(1e-3))
        for mine, theirs in zip(*found, strict=True)
    )
