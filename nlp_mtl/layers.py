"""Layers of BERT-like encoders, over a packed batch: the same result as the family's own code, with less work.

The last layer computes only the tokens that a head reads (:mod:`nlp_mtl.trimming`); on the CPU, what stands between
the matrix products goes through fused kernels (:mod:`nlp_mtl.kernels`). Parameters, their names and calls without a
packed batch stay the family's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace as replace_fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation

from nlp_mtl.attention import packed_attention, packed_self_attention
from nlp_mtl.dropout import Dropout
from nlp_mtl.gradients.modules import is_tap
from nlp_mtl.gradients.taps import Taps
from nlp_mtl.kernels import fused, lowrank, products
from nlp_mtl.layout import Layout, filled_up
from nlp_mtl.tasklora import follow, per_task
from nlp_mtl.trimming import Reading, single_attention

_LORA = ("peft.tuners.lora.layer.Linear", "nlp_mtl.tasklora.TaskLinear", "nlp_mtl.experts.ExpertLinear")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


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
    after = getattr(layer, "intermediate", None)
    parts += [getattr(after, "dense", None), getattr(after, "intermediate_act_fn", None)]
    parts += [getattr(part, "dropout", None) for part in (own, output, getattr(layer, "output", None))]
    plain = not getattr(layer, "is_decoder", False) and not getattr(layer, "add_cross_attention", False)
    whole = hasattr(own, "scaling") and hasattr(own, "attention_head_size") and hasattr(layer, "feed_forward_chunk")
    return plain and whole and all(isinstance(part, nn.Module) for part in parts)


def replace(layers: Sequence[nn.Module]) -> None:
    """Let the layers of an encoder work as this module says, in place; the last one is the one that is trimmed."""
    for layer in layers:
        if not is_replaced(layer):
            layer.__dict__["parts"] = _kinds(layer)
            layer.__class__ = _class_of(type(layer), layer is layers[-1])  # type: ignore[arg-type]


def is_replaced(layer: nn.Module) -> bool:
    """Whether :func:`replace` was applied."""
    return hasattr(type(layer), "family")


def as_built(layer: nn.Module) -> None:
    """Take what a replaced layer is made of now for what it was made of: somebody of ours exchanged a part."""
    if is_replaced(layer):
        layer.__dict__["parts"] = _kinds(layer)


def restore(layers: Sequence[nn.Module]) -> None:
    """Undo :func:`replace`."""
    for layer in filter(is_replaced, layers):
        layer.__class__ = getattr(type(layer), "family")  # noqa: B009 - put there by `replace`
        del layer.__dict__["parts"]


@cache
def _class_of(family: type[nn.Module], last: bool) -> type[nn.Module]:
    """The family's layer with a `forward` of ours; the name stays, since sharding finds layers by it."""
    said = {"forward": _forward, "family": family, "last": last, "__reduce_ex__": _reduced, "__module__": __name__}
    return type(family.__name__, (family,), said)


def _reduced(self: Any, protocol: int) -> tuple[Any, ...]:
    """How it is pickled and copied: the class is made anew."""
    return _empty_of, (type(self).family, type(self).last), self.__dict__


def _empty_of(family: type[nn.Module], last: bool) -> nn.Module:
    made = _class_of(family, last)  # type: ignore[arg-type]
    return made.__new__(made)


def _parts(layer: Any) -> list[nn.Module]:
    """The modules whose work is done here, without calling them."""
    attention, after = layer.attention, layer.intermediate
    ends = [part for end in (attention.output, layer.output) for part in (end, end.LayerNorm, end.dropout)]
    return [attention, attention.self, attention.self.dropout, after, after.intermediate_act_fn, *ends]


def _kinds(layer: Any) -> tuple[type, ...]:
    return tuple(Dropout if type(part) is nn.Dropout else type(part) for part in _parts(layer))


def _is_bare(module: Any) -> bool:
    """Whether calling a module means its class's `forward` and nothing more."""
    kept = vars(module)
    own = kept.get("forward")
    return (own is None or is_tap(own)) and not any(kept.get(hooks) for hooks in _HOOKS)


def _is_as_built(layer: Any) -> bool:
    """Whether nobody hooked, wrapped or exchanged one of the modules that are not called."""
    return all(map(_is_bare, _parts(layer))) and _kinds(layer) == layer.parts


def _forward(
    self: Any,
    hidden_states: Tensor,
    *args: Any,
    packed_layout: Layout | None = None,
    packed_reading: Reading | None = None,
    **kwargs: Any,
) -> Any:
    if packed_layout is not None:
        follow(packed_layout)
    reading = packed_reading if self.last else None
    worth = reading is not None or fused.usable(hidden_states)
    if packed_layout is None or not worth or not _is_as_built(self):
        out = type(self).family.forward(self, hidden_states, *args, packed_layout=packed_layout, **kwargs)
        return out if reading is None else out[:, reading.tokens]
    states, kind = hidden_states[0], hidden_states.device.type
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    with _adapters_read_what_comes(self, cast != states.dtype):
        own, narrow = self.attention.self, _narrow_copy(self, hidden_states, states, cast)
        if reading is None:
            mixed, residual, read = _attended(own, narrow, packed_layout), states, len(states)
        else:
            mixed, residual = _attended_by(own, narrow, packed_layout, reading), states.index_select(0, reading.tokens)
            read, mixed, residual = len(mixed), filled_up(mixed), filled_up(residual)
        with nullcontext() if reading is None else _of(packed_layout, reading.tokens):
            if fused.usable(mixed, residual) and residual.dtype == torch.float32:
                taps = packed_layout.taps
                states, half = _add_norm(self.attention.output, mixed, residual, taps, narrow=True)
                out, half = _feed_forward(self, states, half, taps, narrow=not self.last)
            else:
                out, half = self.feed_forward_chunk(self.attention.output(mixed[None], residual[None]))[0], None
    found = out[None, :read]
    if half is not None and read == len(half) and _is_bare(self):  # a hook may ask for the gradient, or write
        found.packed_half = (half, _version(found))
    return found


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _narrow_copy(layer: Any, hidden_states: Tensor, states: Tensor, dtype: torch.dtype) -> Tensor:
    """What the products of a layer read: made once, by the layer before if it was one of these.

    A copy has a gradient of its own, so whoever wants that of the hidden states must get them without one.
    """
    half, version = getattr(hidden_states, "packed_half", (None, None))
    if half is None or half.dtype != dtype or version != _version(hidden_states) or not _is_bare(layer):
        return states.to(dtype)
    return half if half.requires_grad == hidden_states.requires_grad else states.to(dtype)


@contextmanager
def _adapters_read_what_comes(layer: nn.Module, narrow: bool) -> Iterator[None]:
    """PEFT turns what a LoRA reads into float32, which autocast would only turn back: not inside this block."""
    parts: list[Any] = []
    if narrow:  # walking through the modules of ten adapters takes as long as a product
        if (known := layer.__dict__.get("adapted")) is None:
            known = layer.__dict__["adapted"] = [p for p in layer.modules() if hasattr(p, "cast_input_dtype_enabled")]
        parts = [p for p in known if p.cast_input_dtype_enabled and not getattr(p, "lora_variant", None)]
    for part in parts:
        part.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for part in parts:
            part.cast_input_dtype_enabled = True


def _of(layout: Layout, rows: Tensor) -> AbstractContextManager[object]:
    """Inside this block only these rows of a packed batch come: layers with adapters of tasks must know whose."""
    found = ExitStack()
    for whose in (layout.owners, layout.taps):
        if whose is not None:
            found.enter_context(whose.among(rows))
    return found


def _attended(own: Any, states: Tensor, layout: Layout) -> Tensor:
    """[tokens, hidden]: what attention gathers for each token."""
    size, parts = own.attention_head_size, (own.query, own.key, own.value)
    how = {"scale": own.scaling, "dropout": own.dropout.p if own.dropout.training else 0.0}
    layers = [_linear(part, states, layout.taps) for part in parts]
    if all(one is not None and one.bias is not None for one in layers):  # one product for the three
        asked = products.affine(states, layers).view(len(states), 3, -1, size)  # type: ignore[arg-type]
        return packed_self_attention(asked, layout, **how).flatten(1)
    if all(_plain(part, layout.taps) for part in parts):
        weight = torch.cat([part.weight.to(states.dtype) for part in parts])
        bias = torch.cat([part.bias for part in parts]) if all(part.bias is not None for part in parts) else None
        if bias is not None or all(part.bias is None for part in parts):
            asked = functional.linear(states, weight, bias).view(len(states), 3, -1, size)
            return packed_self_attention(asked, layout, **how).flatten(1)
    query, key, value = (part(states).view(len(states), -1, size) for part in parts)
    return packed_attention(query, key, value, layout, **how).flatten(1)


def _attended_by(own: Any, states: Tensor, layout: Layout, reading: Reading) -> Tensor:
    """[read, hidden]: the same for the tokens read only."""
    heads = (-1, states.shape[-1] // own.attention_head_size, own.attention_head_size)
    key, value = own.key(states).view(heads), own.value(states).view(heads)
    asking = torch.cat([reading.alone, reading.together])
    with _of(layout, asking):
        query = own.query(filled_up(states.index_select(0, asking))).view(heads)[: len(asking)]
    how = {"scale": own.scaling, "dropout": own.dropout.p if own.dropout.training else 0.0}
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


def _feed_forward(
    layer: Any, states: Tensor, half: Tensor | None, taps: Taps | None, *, narrow: bool = False
) -> tuple[Tensor, Tensor | None]:
    wide, bias = _product(layer.intermediate.dense, states if half is None else half, taps)
    act = layer.intermediate.intermediate_act_fn
    if type(act) is GELUActivation and act.act is functional.gelu and fused.usable(wide, bias):
        wide = fused.gelu(wide, bias)
    else:
        wide = act(wide if bias is None else wide + bias)
    return _add_norm(layer.output, wide, states, taps, narrow=narrow)


def _add_norm(
    part: Any, states: Tensor, residual: Tensor, taps: Taps | None, *, narrow: bool = False
) -> tuple[Tensor, Tensor | None]:
    """An output block: dense, dropout, residual, LayerNorm. `narrow` asks for what the next product reads."""
    norm, p = part.LayerNorm, part.dropout.p if part.dropout.training else 0.0
    states, bias = _product(part.dense, states, taps)
    vectors = [getattr(norm, name, None) for name in ("weight", "bias")]
    exact = all(x is not None and x.dtype == torch.float32 for x in (residual, *vectors))
    if type(norm) is nn.LayerNorm and exact and p < 1 and fused.usable(states, residual):
        tap = taps.tap(len(states)) if taps is not None and taps.takes(norm.weight, norm.bias) else None
        return fused.add_norm(states, bias, residual, norm.weight, norm.bias, norm.eps, p, narrow=narrow, tap=tap)
    states = part.dropout(states if bias is None else states + bias)
    return norm(states + residual), None


def _product(dense: Any, states: Tensor, taps: Taps | None) -> tuple[Tensor, Tensor | None]:
    """A linear layer's product, and the bias that is still to be added, if it is."""
    if _plain(dense, taps) and dense.bias is not None and dense.bias.dtype == torch.float32:
        return functional.linear(states, dense.weight), dense.bias
    if layer := _linear(dense, states, taps):  # a LoRA
        return products.affine(states, [replace_fields(layer, bias=None)]), layer.bias
    return dense(states), None


def _linear(dense: Any, states: Tensor, taps: Taps | None) -> products.Linear | None:
    """A linear layer, with or without one LoRA, that can be part of a product in bfloat16; None for others."""
    if states.dtype != torch.bfloat16 or not fused.usable(states):
        return None
    plain = _plain(dense, taps)
    layer = products.Linear(dense.weight, dense.bias) if plain else _one_lora(dense, states, taps)
    if layer is None or any(x is not None and x.dtype != torch.float32 for x in layer.tensors()):
        return None
    return layer


def _one_lora(dense: Any, states: Tensor, taps: Taps | None) -> products.Linear | None:
    """The parts of PEFT's LoRA on a linear layer: adapters as the paper has them, nothing merged, no dropout.

    One for all rows, or one for each task, or both.
    """
    if f"{type(dense).__module__}.{type(dense).__name__}" not in _LORA or not _is_bare(dense):
        return None
    names = [name for name in dense.active_adapters if name in dense.lora_A]
    if len(names) > 1 or dense.disable_adapters or dense.merged or dense.lora_variant:
        return None
    if not _plain(dense.base_layer, taps):
        return None
    own, apart = getattr(dense, "owners", None), None
    parts = [part for name in dense.lora_A for part in (dense.lora_A[name], dense.lora_B[name])]
    quiet = [_is_bare(p) and (type(p) is nn.Identity or not p.training or not p.p) for p in dense.lora_dropout.values()]
    if not all(quiet) or not all(_plain(part) and part.bias is None for part in parts):
        return None
    if (
        own is not None
        and (apart := per_task(dense, len(states)))
        and not lowrank.fits(dense.weight, apart.downs, apart.ups)
    ):
        return None
    base = dense.base_layer
    if not names:
        return products.Linear(base.weight, base.bias, per_task=apart) if own is not None else None
    down, up = (part[names[0]].weight for part in (dense.lora_A, dense.lora_B))
    tap = None
    if (
        taps is not None
        and taps.takes(down, up)
        and ((tap := taps.tap(len(states))) is None or len(down) > products.THIN)
    ):
        return None
    gate = dense.gate_of(states) if hasattr(dense, "gate_of") else None
    return products.Linear(base.weight, base.bias, down, up, float(dense.scaling[names[0]]), apart, tap, gate)


def _plain(dense: Any, taps: Taps | None = None) -> bool:
    """Whether a layer is its weight and bias and nothing more: no adapter in it, no hook on it, no tap."""
    if type(dense) is not nn.Linear or not _is_bare(dense):
        return False
    return taps is None or not taps.takes(dense.weight, dense.bias)
