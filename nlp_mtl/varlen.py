"""Attention within each sequence of a packed batch on accelerators: which kernel computes it, and how it is called.

In the order of preference:

* ``flash_attn``: the varlen kernel of the package `flash-attn`, where it is installed. It takes the sequences end to
  end. float16 and bfloat16.
* ``torch_varlen``: torch's own, of the same kind, but without attention dropout: for prediction, evaluation and
  encoders trained without it. float16 and bfloat16.
* ``sdpa_groups``: `torch.nn.functional.scaled_dot_product_attention` over groups of similar length. Any dtype, always
  there. It attends to no more padding than a padded batch does, and the rest of the encoder sees none.

``NLP_MTL_ATTENTION`` names one of them, or ``groups``, the plain products that the CPU takes too. What a kernel can't
take (float32, dropout) goes through ``sdpa_groups``. A kernel that is wrong on a device beside ``sdpa_groups``, tried
once on a few numbers, is not used there. CPUs have kernels of their own (:mod:`nlp_mtl.kernels`).
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlp_mtl.errors import ConfigError
from nlp_mtl.layout import Layout

logger = logging.getLogger("nlp_mtl")

SWITCH = "NLP_MTL_ATTENTION"
NAMES = ("flash_attn", "torch_varlen", "sdpa_groups", "groups")
_HALF = (torch.float16, torch.bfloat16)
_FAULTS = (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)


def fits(name: str, *, dtype: torch.dtype, head_size: int, dropout: float) -> bool:
    """Whether a kernel takes such a call.

    Example:
        >>> fits("torch_varlen", dtype=torch.bfloat16, head_size=64, dropout=0.1)
        False
    """
    if name not in ("flash_attn", "torch_varlen"):
        return True
    shaped = dtype in _HALF and head_size <= 256 and head_size % 8 == 0
    return shaped and (name == "flash_attn" or not dropout) and dropout < 1


def choose(asked: str, there: Container[str], *, dtype: torch.dtype, head_size: int, dropout: float) -> str:
    """The kernel for a call: the one asked for, or of those that are there the first in :data:`NAMES` that takes it.

    Args:
        asked: a name, or ``auto``.
        there: of ``flash_attn`` and ``torch_varlen``, those that work on the device.
        dtype, head_size, dropout: of the call.

    Example:
        >>> choose("auto", ["torch_varlen"], dtype=torch.bfloat16, head_size=64, dropout=0.1)
        'sdpa_groups'
    """
    if asked == "groups":
        return asked
    for name in NAMES[:2]:
        if asked in ("auto", name) and name in there and fits(name, dtype=dtype, head_size=head_size, dropout=dropout):
            return name
    return "sdpa_groups"


def chosen(query: Tensor, dropout: float) -> str:
    """The kernel for queries [tokens, heads, head size] on an accelerator, tried on its device before."""
    said, size = asked(), query.shape[-1]
    there = [
        name
        for name in NAMES[:2]
        if said in ("auto", name)
        and fits(name, dtype=query.dtype, head_size=size, dropout=dropout)
        and _works(name, query.device, query.dtype)
    ]
    return choose(said, there, dtype=query.dtype, head_size=size, dropout=dropout)


def asked() -> str:
    """What the environment asks for.

    Raises:
        ConfigError: a name that is none, or of a kernel that is not installed.
    """
    said = os.environ.get(SWITCH, "auto")
    if said not in ("auto", *NAMES):
        raise ConfigError(f"{SWITCH} is auto, {', '.join(NAMES)}, found {said!r}; leave it out for auto")
    if said in NAMES[:2] and (why := installed(said)[1]):
        raise ConfigError(f"{SWITCH}={said}, but it is not there: {why}; install it, or leave {SWITCH} out for auto")
    return said


def state() -> str:
    """One sentence for the log: what computes attention on CUDA, and what would not be there.

    Raises:
        ConfigError: see :func:`asked`.
    """
    said = asked()
    if said in NAMES[2:]:
        return f"attention on CUDA: {said} ({SWITCH}={said})"
    notes = [f"no {name}: {why}" for name in NAMES[:2] if said == "auto" and (why := installed(name)[1])]
    found = next((name for name in NAMES[:2] if said in ("auto", name) and not installed(name)[1]), None)
    if found is None:
        first = "sdpa_groups"
    else:
        without = "" if found == "flash_attn" else " without attention dropout"
        first = f"{found} in float16 and bfloat16{without}, else sdpa_groups"
    return f"attention on CUDA: {'; '.join([first, *notes])}"


@lru_cache(maxsize=len(NAMES))
def installed(name: str) -> tuple[Callable[..., Any] | None, str]:
    """The function of `flash_attn` or `torch_varlen`; or None, and why it is not there."""
    try:
        if name == "flash_attn":
            # by its name: users install it for their CUDA, no extra of ours may pull it
            return importlib.import_module("flash_attn").flash_attn_varlen_func, ""
        from torch.nn.attention.varlen import varlen_attn
    except _FAULTS as error:
        return None, f"{type(error).__name__}: {str(error)[:80]}"
    if "window_size" not in inspect.signature(varlen_attn).parameters:
        return None, f"that of torch {torch.__version__} knows no window"
    return varlen_attn, ""


def attention(
    name: str,
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
    """Attention within each sequence by a named kernel; see :func:`nlp_mtl.attention.packed_attention`.

    Args:
        name: ``flash_attn``, ``torch_varlen`` or ``sdpa_groups``.
        query: [tokens, heads, head size], exactly the tokens of the sequences.
        key, value: [tokens, key heads, head size], of the same dtype.
        layout, scale, dropout, causal, window: as there.

    Returns:
        [tokens, heads, head size].
    """
    if name == "sdpa_groups":
        return _by_groups(query, key, value, layout, scale, dropout, causal, window)
    function, why = installed(name)
    if function is None:
        raise ConfigError(f"attention: {name} is not there: {why}; use one of {', '.join(NAMES[2:])}")
    reach = -1 if window is None or window >= layout.longest else window - 1
    sides = (reach, 0 if causal else reach)
    places = (layout.cumulative, layout.cumulative, layout.longest, layout.longest)
    if name == "torch_varlen":
        grouped = key.shape[1] != query.shape[1]
        return function(query, key, value, *places, scale=scale, window_size=sides, enable_gqa=grouped)
    more = {"deterministic": True} if torch.are_deterministic_algorithms_enabled() else {}
    return function(
        query, key, value, *places, dropout_p=dropout, softmax_scale=scale, causal=causal, window_size=sides, **more
    )


def _by_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    gather, parts = layout.gather_heads(1), []
    with torch.autocast(query.device.type, enabled=False):
        for group in layout.groups:
            places = gather[group.start : group.start + group.rows * group.length]
            q, k, v = (
                x.index_select(0, places).unflatten(0, (group.rows, group.length)).transpose(1, 2)
                for x in (query, key, value)
            )
            whole = group.valid is None and (window is None or window >= group.length)
            mask = None if whole else group.seen(causal, window, query.device)
            out = functional.scaled_dot_product_attention(
                q, k, v, mask, dropout_p=dropout, is_causal=causal and whole, scale=scale
            )
            parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).index_select(0, layout.scatter_heads(1))


@lru_cache(maxsize=64)
def _works(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel gives on this device what `sdpa_groups` gives in float32, forward and backward."""
    if installed(name)[1]:
        return False
    try:
        with torch.enable_grad(), torch.inference_mode(False), torch.autocast(device.type, enabled=False):
            difference = max(
                _difference(name, device, dtype, causal, window)
                for causal, window in ((False, None), (True, None), (False, 3), (True, 3))
            )
    except _FAULTS as error:
        why = f"{type(error).__name__}: {str(error)[:120]}"
    else:
        if difference < 5e-2:
            return True
        why = f"its numbers differ by {difference:.1g} from plain torch's"
    logger.warning("attention: %s is not used on %s in %s (%s); sdpa_groups is", name, device, dtype, why)
    return False


def _difference(name: str, device: torch.device, dtype: torch.dtype, causal: bool, window: int | None) -> float:
    """The largest between outputs and gradients, beside the largest number there is."""
    layout, found = Layout([5, 1, 12], device), []
    numbers = torch.arange(3 * layout.tokens * 2 * 32, device=device, dtype=torch.float32).mul(0.7).sin()
    factors = torch.linspace(-1, 1, layout.tokens * 2 * 32, device=device).view(layout.tokens, 2, 32)
    for kernel, kind in ((name, dtype), ("sdpa_groups", torch.float32)):
        parts = [x.to(dtype).to(kind).requires_grad_() for x in numbers.view(3, layout.tokens, 2, 32)]
        query, key, value = parts
        out = attention(kernel, query, key, value, layout, scale=0.3, causal=causal, window=window)
        gradients = torch.autograd.grad((out.float() * factors).sum(), parts)
        found.append([x.detach().float() for x in (out, *gradients)])
    return max(float((mine - right).abs().max() / right.abs().max()) for mine, right in zip(*found, strict=True))
