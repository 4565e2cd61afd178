"""How per-task adapters leave: what is recorded of them, and shared and own folded into one ordinary adapter."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlp_mtl.tasklora import OF_NO_MATTER, SHARED, owners_of


def said_of(encoder: Any) -> dict[str, Any]:
    """The fields of an encoder's adapters, as run folders record them.

    Returns:
        ``{lora: …, task_lora: …}``; also ``own_lora``, task → the fields of an adapter of other settings, None for none
        of its own, and ``own_encoder: true``, where there are such.
    """
    own = owners_of(encoder)
    assert own is not None
    configs: Any = getattr(encoder, "peft_config", {})
    said: dict[str, Any] = {"lora": fields_of(configs[SHARED])} if SHARED in configs else {}
    each: dict[str, Any] = {name: fields_of(configs[name]) for name in own.adapters}
    said["task_lora"] = each[own.adapters[0]] if each else {}
    more: dict[str, Any] = {task: None for task, name in own.adapter_of.items() if name is None}
    more |= {name: fields for name, fields in each.items() if fields != said["task_lora"]}
    return said | ({"own_lora": more} if more else {}) | ({"own_encoder": True} if own.own_encoder else {})


def fields_of(config: Any) -> dict[str, Any]:
    """The fields of a `LoraConfig` that are not at their defaults, as a run file says them; what JSON holds."""
    from peft import LoraConfig

    usual, said = LoraConfig(), {}
    for name, value in sorted(vars(config).items()):
        plain = sorted(value) if isinstance(value, set) else value
        if name not in OF_NO_MATTER and value != getattr(usual, name, None) and is_plain(plain):
            said[name] = plain
    return said


def is_plain(value: Any) -> bool:
    """Whether a value can stand in JSON as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return isinstance(value, (str, int, float, bool))


def merged(encoder: Any, adapter: str | None = None) -> Any:
    """A copy of an encoder with its LoRAs in its weights.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one.
        adapter: of several adapters, that of a task, beside the one of all.
    """
    own = copy.deepcopy(encoder)
    if not hasattr(own, "merge_and_unload"):  # maybe a part of one, with PEFT's layers in it
        for name, layer in [(n, part) for n, part in own.named_modules() if hasattr(part, "get_base_layer")]:
            layer.merge(safe_merge=True, adapter_names=None if adapter is None else [adapter])
            own.set_submodule(name, layer.get_base_layer())
        return own
    names = [name for name in (SHARED, adapter) if name in own.peft_config]
    return own.merge_and_unload(safe_merge=True, adapter_names=names) if names else own.unload()


def folded(encoder: Any, task: str, state: Mapping[str, Tensor] | None = None) -> tuple[Any, dict[str, Tensor]]:
    """The shared adapter and that of a task as one ordinary adapter, which computes the same.

    Args:
        encoder: with task adapters.
        task: one of its tasks; one without any adapter has nothing to fold.
        state: the parameters by their names in `encoder`, where they had to be gathered (FSDP).

    Returns:
        A `peft.LoraConfig`, and the weights by PEFT's names.

    Relations: `add_weighted_adapter(combination_type="cat")` of PEFT does the same to a model in place.
    """
    own = owners_of(encoder)
    assert own is not None
    name = own.adapter_of[task]
    weights = state if state is not None else dict(encoder.named_parameters())
    tensors, ranks = {}, {}
    for place, layer in encoder.named_modules():
        parts = [one for one in (SHARED, name) if one is not None and one in getattr(layer, "lora_A", ())]
        if not parts:
            continue
        downs = [weights[f"{place}.lora_A.{one}.weight"].detach().cpu() for one in parts]
        ups = [weights[f"{place}.lora_B.{one}.weight"].detach().cpu() * layer.scaling[one] for one in parts]
        tensors[f"{place}.lora_A.weight"] = torch.cat(downs).contiguous()
        tensors[f"{place}.lora_B.weight"] = torch.cat(ups, 1).contiguous()
        ranks[place.removeprefix("base_model.model.")] = sum(map(len, downs))
    return with_ranks(encoder.peft_config[SHARED if name is None else name], ranks), tensors


def with_ranks(config: Any, ranks: Mapping[str, int]) -> Any:
    """A copy of a `LoraConfig` for these layers and ranks, with scale 1."""
    config, found = copy.deepcopy(config), list(ranks.values())
    config.r = config.lora_alpha = max(set(found), key=found.count)
    config.rank_pattern = {place: rank for place, rank in ranks.items() if rank != config.r}
    config.alpha_pattern = dict(config.rank_pattern)
    config.use_rslora, config.inference_mode, config.target_modules = False, True, set(ranks)
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    return config


def has_adapter(encoder: Any, task: str) -> bool:
    """Whether a task of an encoder with task adapters uses any, its own or the shared one."""
    own = owners_of(encoder)
    assert own is not None
    return own.adapter_of[task] is not None or SHARED in getattr(encoder, "peft_config", ())


def save_folded(encoder: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write each task's adapter to a sub-folder of its name, as `PeftModel.from_pretrained` reads it."""
    own = owners_of(encoder)
    assert own is not None
    for task, name in own.adapter_of.items():
        if name in (task, None) and has_adapter(encoder, task):
            config, tensors = folded(encoder, task, state)
            (folder / task).mkdir(exist_ok=True)
            config.save_pretrained(folder / task)
            save_file(tensors, folder / task / "adapter_model.safetensors", metadata={"format": "pt"})
