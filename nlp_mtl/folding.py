"""How per-task adapters leave: what is recorded of them, and shared and own folded into one ordinary adapter."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlp_mtl.tasklora import PLAIN, SHARED, WHERE, owners_of


def said_of(encoder: Any) -> dict[str, Any]:
    """The fields of an encoder's adapters, as run folders record them: ``{lora: …, task_lora: …}``."""
    own = owners_of(encoder)
    assert own is not None
    names = {"lora": SHARED, "task_lora": own.adapters[0]}
    configs = {key: encoder.peft_config[name] for key, name in names.items() if name in encoder.peft_config}
    return {key: _said(config) for key, config in configs.items()}


def _said(config: Any) -> dict[str, Any]:
    from peft import LoraConfig

    usual, said = LoraConfig(), {}
    for name in sorted(PLAIN | WHERE | {"init_lora_weights"}):
        value = getattr(config, name)
        if value != getattr(usual, name):
            said[name] = sorted(value) if isinstance(value, set) else value
    return said


def folded(encoder: Any, task: str, state: Mapping[str, Tensor] | None = None) -> tuple[Any, dict[str, Tensor]]:
    """The shared adapter and that of a task as one ordinary adapter, which computes the same.

    Args:
        encoder: with task adapters.
        task: one of its tasks.
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
        parts = [one for one in (SHARED, name) if one in getattr(layer, "lora_A", ())]
        if not parts:
            continue
        downs = [weights[f"{place}.lora_A.{one}.weight"].detach().cpu() for one in parts]
        ups = [weights[f"{place}.lora_B.{one}.weight"].detach().cpu() * layer.scaling[one] for one in parts]
        tensors[f"{place}.lora_A.weight"] = torch.cat(downs).contiguous()
        tensors[f"{place}.lora_B.weight"] = torch.cat(ups, 1).contiguous()
        ranks[place.removeprefix("base_model.model.")] = sum(map(len, downs))
    config = copy.deepcopy(encoder.peft_config[name])
    found = list(ranks.values())
    config.r = config.lora_alpha = max(set(found), key=found.count)
    config.rank_pattern = {place: rank for place, rank in ranks.items() if rank != config.r}
    config.alpha_pattern = dict(config.rank_pattern)
    config.use_rslora, config.inference_mode, config.target_modules = False, True, set(ranks)
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    return config, tensors


def save_folded(encoder: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write each task's adapter to a sub-folder of its name, as `PeftModel.from_pretrained` reads it."""
    own = owners_of(encoder)
    assert own is not None
    for task, name in own.adapter_of.items():
        if task == name:
            config, tensors = folded(encoder, task, state)
            (folder / name).mkdir()
            config.save_pretrained(folder / name)
            save_file(tensors, folder / name / "adapter_model.safetensors", metadata={"format": "pt"})
