"""Layers of BERT-like encoders, over a packed batch: the same result as the family's own code, with less work.

The last layer computes only the tokens that a head reads (:mod:`nlp_mtl.trimming`); on the CPU, what stands between
the matrix products goes through fused kernels (:mod:`nlp_mtl.kernels`). Parameters, their names and calls without a
packed batch stay the family's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation

from nlp_mtl.attention import packed_attention, packed_self_attention
from nlp_mtl.kernels import fused
from nlp_mtl.layout import Layout
from nlp_mtl.trimming import Reading, single_attention


def bert_like(base: nn.Module) -> list[nn.Module]:
    """The layers of an encoder built like BERT; none for other families and for decoders."""
    layers = getattr(getattr(base, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not all(map(_known, layers)):
        return []
    return list(layers)


def _known(layer: nn.Module) -> bool:
    attention = getattr(layer, "attention", None)
    own, output = getattr(attention, "self", None), getattr(attention, "output", None)
    parts = [getattr(own, name, None) for name in ("query", "key", "value")]
    for ends in (output, getattr(layer, "output", None)):
        parts += [getattr(ends, name, None) for name in ("dense", "LayerNorm")]
    parts.append(getattr(getattr(layer, "intermediate", None), "dense", None))
    plain = not getattr(layer, "is_decoder", False) and not getattr(layer, "add_cross_attention", False)
    return plain and hasattr(own, "scaling") and all(isinstance(part, nn.Module) for part in parts)


def replace(layers: Sequence[nn.Module]) -> None:
    """Let the layers of an encoder work as this module says, in place; the last one is the one that is trimmed."""
    for layer in layers:
        family = type(layer)
        if not is_replaced(layer):  # the name stays: sharding finds layers by the name of their class
            said = {"forward": _forward, "family": family, "last": layer is layers[-1]}
            layer.__class__ = type(family.__name__, (family,), said)
            _widen_adapters(layer, False)


def is_replaced(layer: nn.Module) -> bool:
    """Whether :func:`replace` was applied."""
    return hasattr(type(layer), "family")


def restore(layers: Sequence[nn.Module]) -> None:
    """Undo :func:`replace`."""
    for layer in layers:
        if is_replaced(layer):
            layer.__class__ = getattr(type(layer), "family")  # noqa: B009 - put there by `replace`
            _widen_adapters(layer, True)


def _widen_adapters(layer: nn.Module, widen: bool) -> None:
    """Whether PEFT turns what a plain LoRA reads into float32, which autocast would only turn back."""
    part: Any
    for part in layer.modules():
        base = getattr(getattr(part, "base_layer", None), "weight", None)
        if hasattr(part, "cast_input_dtype_enabled") and base is not None and base.dtype == torch.float32:
            part.cast_input_dtype_enabled = widen or bool(part.lora_variant)


def _forward(
    self: Any,
    hidden_states: Tensor,
    *args: Any,
    packed_layout: Layout | None = None,
    packed_reading: Reading | None = None,
    **kwargs: Any,
) -> Any:
    reading = packed_reading if self.last else None
    if packed_layout is None or (reading is None and not fused.usable(hidden_states)):
        return type(self).family.forward(self, hidden_states, *args, packed_layout=packed_layout, **kwargs)
    own, states = self.attention.self, hidden_states[0]
    narrow = _half_of(packed_layout, hidden_states)
    if reading is None:
        mixed, residual = _attended(own, narrow, packed_layout), states
    else:
        mixed, residual = _attended_by(own, narrow, reading), states.index_select(0, reading.tokens)
    read = len(mixed)
    if reading is not None:
        mixed, residual = _filled_up(mixed), _filled_up(residual)
    if fused.usable(mixed, residual) and residual.dtype == torch.float32:
        out, half = _feed_forward(self, *_add_norm(self.attention.output, mixed, residual))
    else:
        out, half = self.feed_forward_chunk(self.attention.output(mixed[None], residual[None]))[0], None
    out = out[None, :read]
    # the next layer's products want the narrow copy; recomputation would not find it again
    packed_layout.half = (out, half) if half is not None and not self.gradient_checkpointing else None
    return out


def _half_of(layout: Layout, states: Tensor) -> Tensor:
    """[tokens, hidden] in the dtype that matrix products are computed in: cast once, not by each of them."""
    if layout.half is not None and layout.half[0] is states:
        return layout.half[1]
    kind = states.device.type
    return states[0].to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states[0]


def _attended(own: Any, states: Tensor, layout: Layout) -> Tensor:
    """[tokens, hidden]: what attention gathers for each token."""
    size, parts = own.attention_head_size, (own.query, own.key, own.value)
    how = {"scale": own.scaling, "dropout": own.dropout.p if own.training else 0.0}
    if all(map(_plain, parts)):  # one product for the three
        weight = torch.cat([part.weight.to(states.dtype) for part in parts])
        bias = torch.cat([part.bias for part in parts]) if all(part.bias is not None for part in parts) else None
        if bias is not None or all(part.bias is None for part in parts):
            asked = functional.linear(states, weight, bias).view(len(states), 3, -1, size)
            return packed_self_attention(asked, layout, **how).flatten(1)
    query, key, value = (part(states).view(len(states), -1, size) for part in parts)
    return packed_attention(query, key, value, layout, **how).flatten(1)


def _attended_by(own: Any, states: Tensor, reading: Reading) -> Tensor:
    """[read, hidden]: the same for the tokens read only."""
    heads = (-1, states.shape[-1] // own.attention_head_size, own.attention_head_size)
    key, value = own.key(states).view(heads), own.value(states).view(heads)
    asking = torch.cat([reading.alone, reading.together])
    query = own.query(_filled_up(states.index_select(0, asking))).view(heads)[: len(asking)]
    how = {"scale": own.scaling, "dropout": own.dropout.p if own.training else 0.0}
    ones, parts = len(reading.alone), []
    if ones:
        keys = reading.alone_keys
        parts.append(
            single_attention(
                query[:ones], key.index_select(0, keys), value.index_select(0, keys), reading.owners, **how
            )
        )
    if reading.layout is not None:
        rest = reading.together
        seen = packed_attention(
            query[ones:], key.index_select(0, rest), value.index_select(0, rest), reading.layout, **how
        )
        parts.append(seen.index_select(0, reading.within))
    return torch.cat(parts).flatten(1)


def _feed_forward(layer: Any, states: Tensor, half: Tensor | None) -> tuple[Tensor, Tensor | None]:
    wide, bias = _product(layer.intermediate.dense, states if half is None else half)
    act = layer.intermediate.intermediate_act_fn
    if (type(act) is GELUActivation and act.act is functional.gelu) and fused.usable(wide, bias):
        wide = fused.gelu(wide, bias)
    else:
        wide = act(wide if bias is None else wide + bias)
    return _add_norm(layer.output, wide, states)


def _add_norm(part: Any, states: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
    """An output block: dense, dropout, residual, LayerNorm. Also gives what the next product reads."""
    norm, p = part.LayerNorm, part.dropout.p if part.training else 0.0
    states, bias = _product(part.dense, states)
    if type(norm) is nn.LayerNorm and p < 1 and fused.usable(states) and norm.weight.dtype == torch.float32:
        return fused.add_norm(states, bias, residual, norm.weight, norm.bias, norm.eps, p)
    states = part.dropout(states if bias is None else states + bias)
    return norm(states + residual), None


def _product(dense: Any, states: Tensor) -> tuple[Tensor, Tensor | None]:
    """A linear layer's product, and the bias that is still to be added, if it is."""
    if _plain(dense) and dense.bias is not None and dense.bias.dtype == torch.float32:
        return functional.linear(states, dense.weight), dense.bias
    return dense(states), None


def _plain(dense: Any) -> bool:
    """Whether a layer is its weight and bias and nothing more: no adapter in it, no hook on it."""
    hooked = dense._forward_hooks or dense._forward_pre_hooks or dense._backward_hooks or dense._backward_pre_hooks
    return type(dense) is nn.Linear and not hooked


def _filled_up(rows: Tensor) -> Tensor:
    """With zeros to one of few counts: the CPU's matrix library prepares itself anew for every shape it meets."""
    return functional.pad(rows, (0, 0, 0, -len(rows) % 32)) if rows.device.type == "cpu" else rows
