"""The layers of an encoder: what stands after some of them, and the upper ones as a model of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from nlp_mtl.errors import UnsupportedError

_BEFORE = ("embeddings", "embeddings_project", "wte", "wpe", "drop", "embed_tokens", "embed_in", "emb_dropout")
_NORMS = ("norm", "ln_f", "final_norm", "final_layer_norm")
_AFTER = ("pooler", *_NORMS)
ALL = -1  # a depth: after all layers, as the encoder gives it (decoders have a norm there)


class _Enough(Exception):
    """Nothing that comes later in the encoder is wanted."""


def find_layers(base: nn.Module) -> tuple[nn.Module, str] | None:
    """Where an encoder keeps its layers: the module and its attribute; None if they have no weights of their own."""
    for parent in base.modules():
        for name, child in parent.named_children():
            several = isinstance(child, nn.ModuleList) and len(child) > 0
            if several and all(isinstance(layer, GradientCheckpointingLayer) for layer in child.children()):
                return parent, name
    return None


def place_of_layers(base: nn.Module) -> tuple[nn.Module, str]:
    """As :func:`find_layers`.

    Raises:
        UnsupportedError: layers that share their weights (ALBERT), or none.
    """
    found = find_layers(base)
    if found is None:
        raise UnsupportedError(
            f"{type(base).__name__} has no layers with weights of their own, which can't be told apart; choose another "
            "encoder, or what needs no single layers"
        )
    return found


def layers_of(base: nn.Module) -> nn.ModuleList:
    """The encoder's layers, from the embeddings up; raises as :func:`place_of_layers`."""
    parent, name = place_of_layers(base)
    return getattr(parent, name)


def heights(base: nn.Module) -> dict[str, int]:
    """How high each parameter of an encoder stands.

    Returns:
        Name → 0 before the layers (embeddings, what relates positions), 1 for the first layer and so on, one more than
        there are layers for what comes after them (pooler, last norm).

    Raises:
        UnsupportedError: as :func:`place_of_layers`.
    """
    parent, attribute = place_of_layers(base)
    count = len(getattr(parent, attribute))
    place = next(name for name, part in base.named_modules() if part is parent)
    parts = place.split(".") if place else []
    above = [".".join(parts[:depth]) for depth in range(len(parts) + 1)]
    after = tuple(f"{name}.{last}.".lstrip(".") for name in above for last in (*_AFTER, "layer_norm"))
    layers = f"{place}.{attribute}.".lstrip(".")
    found = {}
    for name, _ in base.named_parameters():
        if name.startswith(layers):
            found[name] = 1 + int(name.removeprefix(layers).partition(".")[0])
        else:
            found[name] = count + 1 if name.startswith(after) else 0
    return found


def put_layers(base: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Give an encoder other layers, in place."""
    parent, name = place_of_layers(base)
    setattr(parent, name, nn.ModuleList(layers))


def ends_with_norm(base: nn.Module) -> bool:
    """Whether what an encoder gives is not what its last layer gives, but a norm of it.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> {family: ends_with_norm(tiny_encoder(family)) for family in ("bert", "gpt2", "t5", "bart")}
        {'bert': False, 'gpt2': True, 't5': True, 'bart': False}
    """
    places = (base, place_of_layers(base)[0])  # T5 and mBART keep it inside their encoder, beside the layers
    return any(name in (*_NORMS, "layer_norm") for place in places for name, _ in place.named_children())


def run_to(call: Callable[[], Any], base: nn.Module, depths: Collection[int]) -> dict[int, Tensor]:
    """Run an encoder up to the deepest of some depths, and no further.

    Args:
        call: runs it, and gives what `transformers` gives.
        base: the `transformers` model inside it.
        depths: numbers of layers; 0 for what the first one reads, :data:`ALL` for the end.

    Returns:
        For each depth [batch, length, hidden].
    """
    if set(depths) == {ALL}:
        return {ALL: call().last_hidden_state}
    layers, found = layers_of(base), {}
    last = None if ALL in depths else max(depths)

    def stop_before(number: int) -> Callable[..., None]:
        def see(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found[number] = given[0] if given else named["hidden_states"]
            if number == last:
                raise _Enough  # in a hook before a layer: nothing of that layer was computed or is to be recomputed

        return see

    with ExitStack() as hooks:
        for number in set(depths) - {ALL}:
            handle = layers[number].register_forward_pre_hook(stop_before(number), with_kwargs=True)
            hooks.callback(handle.remove)
        with suppress(_Enough):
            found[ALL] = call().last_hidden_state
    return {depth: found[depth] for depth in depths}


class _Bare(nn.Module):
    """Stands for the embeddings of an upper part: hands on what it is given; their own parts are still found by name.

    Args:
        whole: the embeddings, which are no part of this module.
    """

    def __init__(self, whole: nn.Module):
        super().__init__()
        self.__dict__["whole"] = whole

    def __getattr__(self, name: str) -> Any:
        """What the embeddings have."""
        if name in self.__dict__:
            return self.__dict__[name]
        return getattr(self.__dict__["whole"], name)

    def forward(self, *given: Any, **named: Any) -> Any:
        """The hidden states that came."""
        return next(x for x in (*given, *named.values()) if isinstance(x, Tensor) and x.is_floating_point())


class _Nothing(nn.Module):
    """Stands for position embeddings that are in the hidden states already."""

    def forward(self, ids: Tensor) -> Tensor:
        """0 for each place."""
        return torch.zeros(*ids.shape, 1, device=ids.device)


class _End(GradientCheckpointingLayer):
    """Stands for a layer that is not in this part of an encoder; nothing goes through it.

    Args:
        layer: which one; what an encoder may ask of its layers before it calls them is as there.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.__dict__.update({name: value for name, value in vars(layer).items() if isinstance(value, (str, int))})

    def forward(self, *given: Any, **named: Any) -> Any:
        """Never reached: who runs a lower part stops before."""
        raise RuntimeError("the upper layers of this encoder are not in it")


def part_of(base: nn.Module, start: int, stop: int | None = None) -> Any:
    """A copy of some of an encoder's layers, as a model of the same class.

    From a layer above the first on it reads hidden states as `inputs_embeds`; its embeddings are those of `base`, found
    by their names and not its own. Where layers are left out at the end, so is what comes after them, and
    :func:`run_to` stops there.

    Args:
        base: a `transformers` model.
        start: how many layers are left out; 0 copies the embeddings too.
        stop: the number of the first layer that is left out at the end; default none.
    """
    memo: dict[int, Any] = {}
    count = len(layers_of(base)) if start or stop is not None else 0
    stop = count if stop is None else stop
    if start:
        for name in _BEFORE:
            part = getattr(base, name, None)
            if isinstance(part, nn.Module):
                memo[id(part)] = _Nothing() if name == "wpe" else _Bare(part)
    for number in range(count):
        if not start <= number < stop:
            memo[id(layers_of(base)[number])] = _End(layers_of(base)[number])
    part = copy.deepcopy(base, memo)
    if start:
        put_layers(part, list(layers_of(part))[start:])
        part.whole_config = base.config  # a head is made for the whole encoder
        config: Any = part.config
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[start:]
    if stop < count:
        cut(part, stop - start)
    return part


def cut(base: nn.Module, depth: int) -> None:
    """Take an encoder's layers above a depth out of it, in place, with all that comes after them.

    A stand-in remains, before which :func:`run_to` stops.
    """
    for name in _AFTER:
        if isinstance(getattr(base, name, None), nn.Module):
            setattr(base, name, None if name == "pooler" else nn.Identity())
    layers = list(layers_of(base))
    put_layers(base, [*layers[:depth], _End(layers[depth])])


def only_layers(base: Any, count: int) -> Any:
    """The same encoder, in place, with its first layers alone, as a model that `transformers` makes of its config."""
    put_layers(base, list(layers_of(base))[:count])
    base.config.num_hidden_layers = count
    return base
