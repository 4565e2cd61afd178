"""A vanilla `AutoModelFor…` whose encoder is replaced by a stand-in that hands back given hidden states.

So every head computes exactly what the family's own class computes, and can be exported back to it.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from nlp_mtl.errors import UnsupportedError
from nlp_mtl.packing import base_of


class StandIn(nn.Module):
    """Stands where the encoder was: hands back `inputs_embeds` as the last hidden state.

    Args:
        encoder: the real encoder, whose pooler (if it has one) is used; it is not registered as a part.
        pooler: ``"shared"``, the encoder's own pooler; ``"own"``, a copy that this head trains for itself; ``"none"``,
            the hidden state as it is.
    """

    def __init__(self, encoder: nn.Module, pooler: str = "shared"):
        super().__init__()
        self.ready: Tensor | None = None  # pooled states that were computed for all tasks at once, for the next call
        self.passing: Callable[[Tensor], Tensor] | None = None  # what the encoder's vectors go through in the next call
        self._encoder = [encoder]  # in a list, so that it is no part of this module, and a copy of both fits together
        self._kind = pooler
        if pooler == "own" and getattr(base_of(encoder), "pooler", None) is not None:
            self.pooler = _own_copy(base_of(encoder).pooler)

    def _pool(self, hidden: Tensor) -> Tensor:
        """[rows, length, hidden] → [rows, hidden]"""
        if self._kind == "none":
            return hidden[:, 0]
        base = base_of(self._encoder[0])
        return _pooled(base, self if self._kind == "own" else base, hidden)

    @property
    def _pools(self) -> bool:
        return self._kind == "none" or getattr(base_of(self._encoder[0]), "pooler", None) is not None

    def shared_pooling(self) -> Callable[[Tensor], Tensor] | None:
        """The pooler that all tasks share, [rows, length, hidden] → [rows, hidden]; None if this head has another.

        A pooler with an adapter or a gate for each task is not one that all share; tasks without one of their own
        share it.
        """
        if self._kind != "shared" or not self._pools:
            return None
        parts: list[Any] = [self._encoder[0], *base_of(self._encoder[0]).pooler.modules()]
        told = [getattr(part, name, None) for part in parts for name in ("owners", "facts")]
        return self._pool if all(whose is None or whose.is_nobodys for whose in told) else None

    def forward(self, *unused: Any, inputs_embeds: Tensor, **ignored: Any) -> Any:
        """Give back hidden states [rows, length, hidden], and their pooled form [rows, hidden]."""
        pooled, self.ready = self.ready, None
        passing, self.passing = self.passing, None
        if passing is not None and self._kind == "own":  # its pooler is the head's
            inputs_embeds, passing = passing(inputs_embeds), None
        if pooled is None and self._pools:
            pooled = self._pool(inputs_embeds)
        if passing is not None:
            pooled = None if pooled is None else passing(pooled)
            inputs_embeds = passing(inputs_embeds)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


def _own_copy(part: nn.Module) -> nn.Module:
    """A copy that is trained, whatever is frozen, without an adapter around its layers (a new one adds nothing)."""
    holder = nn.ModuleDict({"part": copy.deepcopy(part)})
    for name, layer in list(holder.named_modules()):
        if hasattr(layer, "get_base_layer"):
            holder.set_submodule(name, layer.get_base_layer())
    return holder["part"].requires_grad_(True)


def _pooled(base: Any, owner: Any, hidden: Tensor) -> Tensor:
    """What the family's encoder gives as its pooled output; ALBERT's pooler is a bare linear layer."""
    activation = getattr(base, "pooler_activation", None)
    return owner.pooler(hidden) if activation is None else activation(owner.pooler(hidden[:, 0]))


def has_class(auto_class: str, encoder: nn.Module) -> bool:
    """Whether the encoder's family has such a class, e.g. GPT-2 has no `AutoModelForMultipleChoice`.

    Of encoder–decoder families only T5's token classification reads the encoder alone; the others run the decoder.
    """
    config = base_of(encoder).config
    if getattr(config, "is_encoder_decoder", False) and auto_class != "AutoModelForTokenClassification":
        return False
    return type(config) in getattr(transformers, auto_class)._model_mapping


def build(
    auto_class: str,
    encoder: nn.Module,
    changes: Mapping[str, Any],
    *,
    source: str | Path | None = None,
    pooler: str = "shared",
    name: str = "",
    seed: int = 0,
) -> PreTrainedModel:
    """The family's own class without its encoder.

    Args:
        auto_class: e.g. ``"AutoModelForTokenClassification"``.
        encoder: the shared encoder; gives the config, the pooler and tied embeddings.
        changes: what the config needs for this task (`num_labels`, `id2label`, …).
        source: folder of the pretrained checkpoint; if it has weights for this class beyond the encoder (a masked-LM
            head, say), they are loaded.
        pooler: see :class:`StandIn`.
        name, seed: fix the first weights of this head, whatever other heads are built.

    Returns:
        The module; its `from_checkpoint` names the weights that were loaded.

    Raises:
        UnsupportedError: the family has no such class.
    """
    base = base_of(encoder)
    if not has_class(auto_class, encoder):
        raise UnsupportedError(f"the family {base.config.model_type!r} has no {auto_class}")
    config = copy.deepcopy(getattr(base, "whole_config", base.config))
    for key, value in changes.items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        module = getattr(transformers, auto_class).from_config(config)
    prefix = module.base_model_prefix
    setattr(module, prefix, StandIn(encoder, pooler))
    module.to_empty(device="cpu") if pooler != "own" else _materialise(module, prefix)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed_of(name, seed))
        own = [p for n, p in module.named_parameters() if not n.startswith(f"{prefix}.")]
        for parameter in own:
            parameter.zero_()
        for part_name, part in reversed(list(module.named_modules())):  # parts before the whole
            if part_name.split(".")[0] != prefix:
                module._init_weights(part)
    module.from_checkpoint = _load_pretrained(module, auto_class, config, source, prefix)
    _tie(module, base, prefix)
    return module


def seed_of(name: str, seed: int) -> int:
    """The seed of a head's first weights: depends on the run's seed and the head's name only."""
    return seed * 1_000_003 + zlib.crc32(name.encode())


def _materialise(module: PreTrainedModel, prefix: str) -> None:
    for name, child in module.named_children():
        if name != prefix:
            child.to_empty(device="cpu")


def _load_pretrained(module: PreTrainedModel, auto_class: str, config: Any, source: Any, prefix: str) -> frozenset[str]:
    """Weights of the checkpoint that belong to this class and not to the encoder, where shapes agree; their names."""
    names = _checkpoint_keys(source)
    beyond = {name for name in names if not name.startswith(f"{prefix}.")}
    if not beyond or len(beyond) == len(names):  # a bare encoder, saved without its prefix
        return frozenset()
    if not {name.split(".")[0] for name in beyond} & {part for part, _ in module.named_children()} - {prefix}:
        return frozenset()  # parts of another class: reading the whole checkpoint for every head would bring nothing
    changed, config = config, copy.deepcopy(config)
    loaded = getattr(transformers, auto_class).from_pretrained(
        source,
        config=config,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    whole, info = loaded
    missing = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(f"{prefix}.") and k not in missing}
    state = in_order(state, _labels_in(source), list(changed.id2label.values()))
    module.load_state_dict(state, strict=False)
    return frozenset(state)


def in_order(state: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]) -> dict[str, Tensor]:
    """A head's weights with the rows of its labels in another order.

    What has a row for each label is left out where the labels are others, or where rows and columns can't be told
    apart. Labels without names (``LABEL_0``) are taken as they come.

    Example:
        >>> in_order({"bias": torch.tensor([1.0, 2.0])}, ["yes", "no"], ["no", "yes"])
        {'bias': tensor([2., 1.])}
        >>> in_order({"bias": torch.tensor([1.0, 2.0])}, ["yes", "no"], ["good", "bad"])
        {}
    """
    count = len(theirs)
    if list(theirs) == list(ours) or count != len(ours) or all(name.startswith("LABEL_") for name in theirs):
        return dict(state)
    of_labels = {name: [n for n, size in enumerate(value.shape) if size == count] for name, value in state.items()}
    plain = set(theirs) == set(ours) and all(places in ([], [0]) for places in of_labels.values())
    order = [list(theirs).index(label) for label in ours] if plain else []
    return {
        name: value[order] if of_labels[name] else value
        for name, value in state.items()
        if plain or not of_labels[name]
    }


def _labels_in(folder: Any) -> list[str]:
    """Names of labels that a checkpoint's config has."""
    said = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
    return [str(said[key]) for key in sorted(said, key=int)]


def _checkpoint_keys(source: str | Path | None) -> frozenset[str]:
    """Names of a checkpoint's weights."""
    if source is None:
        return frozenset()
    for name in ("model.safetensors.index.json", "model.safetensors"):
        file = Path(source) / name
        if file.is_file():
            return _keys_in(str(file), file.stat().st_mtime_ns)
    return frozenset()


@lru_cache(maxsize=8)
def _keys_in(file: str, changed: int) -> frozenset[str]:
    """Read once, not for every head; `changed` tells a file from the one that stood there before."""
    if file.endswith(".json"):
        return frozenset(json.loads(Path(file).read_text(encoding="utf-8"))["weight_map"])
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return frozenset(opened.keys())


def _tie(module: PreTrainedModel, base: PreTrainedModel, prefix: str) -> None:
    """Tie what the vanilla class ties: output embeddings to the shared encoder's, and biases within the head."""
    if not getattr(module.config, "tie_word_embeddings", False):
        return
    for target, source in (module._tied_weights_keys or {}).items():
        if source.startswith(f"{prefix}."):
            tied = base.get_parameter(source.removeprefix(f"{prefix}."))
        else:
            tied = module.get_parameter(source)
        owner, _, attribute = target.rpartition(".")
        setattr(module.get_submodule(owner), attribute, tied)


def tied_keys(module: Any) -> set[str]:
    """Names of the head's weights that are the encoder's and must not be saved a second time."""
    if (known := getattr(module, "tied_outside", None)) is not None:  # a decoder's
        return set(known) | _tied_inside(module)
    if not getattr(getattr(module, "config", None), "tie_word_embeddings", False):
        return set()
    prefix = f"{module.base_model_prefix}."
    return {target for target, source in (module._tied_weights_keys or {}).items() if source.startswith(prefix)}


def _tied_inside(module: nn.Module) -> set[str]:
    """Second names of weights that a module has under several: one copy is saved."""
    first: dict[int, str] = {}
    return {
        name for name, p in module.named_parameters(remove_duplicate=False) if first.setdefault(id(p), name) != name
    }
