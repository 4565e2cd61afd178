"""A task as a vanilla PEFT adapter with its head, on the family's own class."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from nlp_mtl.errors import UnsupportedError
from nlp_mtl.exporting.checking import Probe, compare
from nlp_mtl.exporting.model import logits_of, thresholds
from nlp_mtl.exporting.plain import (
    config_of,
    encoder_state,
    is_decoder,
    lora_config_of,
    lora_layers,
    max_length,
    whole_class,
)
from nlp_mtl.folding import folded
from nlp_mtl.ia3 import is_ia3
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import base_of
from nlp_mtl.tasklora import owners_of
from nlp_mtl.weights import quiet_transformers

# not QUESTION_ANS: PEFT's class for it drops `token_type_ids`, and the logits of BERT would be others
TASK_TYPES = {"AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS"}
VLLM = "vllm"  # sub-folder with the layout that vLLM reads


def write_adapter(model: MultiTaskModel, task: str, folder: Path) -> list[str]:
    """Write ``adapter_config.json``, ``adapter_model.safetensors`` with the head, and ``task.json``.

    Args:
        model: of a run with a LoRA.
        task: a task whose head is exportable.
        folder: where the files go; for decoders, ``vllm/`` in it holds the LoRA alone in the layout that vLLM reads.

    Returns:
        What a user should know, one sentence each.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    whole = whole_class(model, task, merge=False)
    prefix, keys = whole.base_model_prefix, _lora_state(model, task)
    held = {name for name, _ in whole.named_modules()}
    config = _config(model, task, whole)
    instead = tuple(f"{prefix}.pooler." for _ in _own_poolers(model, task, prefix))  # trained whole: no LoRA on it
    adapted = {key: f"{prefix}.{_module_of(key)}" for key in keys}
    keys = {key: keys[key] for key, name in adapted.items() if name in held and not name.startswith(instead)}
    with quiet_transformers():
        wrapped: Any = get_peft_model(whole, config)
        state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)  # the head is in it already
        ours = {f"base_model.model.{prefix}.{key}": value for key, value in keys.items()}
        if over := sorted(set(ours) - set(state)):
            raise UnsupportedError(f"export: task {task!r}: the adapter has no place for {', '.join(over[:4])}")
        set_peft_model_state_dict(wrapped, {**state, **ours})
        wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card
    (folder / "task.json").write_text(json.dumps(_said(model, task), indent=1, ensure_ascii=False), encoding="utf-8")
    notes = []
    if model.base.get("revision") is None:
        notes.append(
            f"the base is recorded as {model.base['id']!r}, without a revision of the Hub; where that is no Hub id, "
            "users need a folder of this name"
        )
    if is_decoder(model):
        notes.append(_write_vllm(model, task, folder / VLLM, keys))
    return notes


def _lora_state(model: MultiTaskModel, task: str) -> dict[str, Tensor]:
    """The weights of the LoRA that a task uses, and other parts that PEFT trained, by their names in the encoder."""
    from peft import get_peft_model_state_dict

    encoder: Any = model.sharing.encoder
    if owners_of(encoder) is not None:
        state = folded(encoder, task)[1]
    elif (own := model.sharing.adapter(task)) is not None:
        state = own[1]
    else:
        state = get_peft_model_state_dict(encoder, save_embedding_layers=False)
    return {name.removeprefix("base_model.model."): value.detach().cpu() for name, value in state.items()}


def _module_of(key: str) -> str:
    """The name of the module that a weight adapts, e.g. ``encoder.layer.0.output.dense``."""
    return re.split(r"\.(?:lora|ia3)_", key)[0] if re.search(r"\.(?:lora|ia3)_", key) else key.rpartition(".")[0]


def _config(model: MultiTaskModel, task: str, whole: PreTrainedModel) -> Any:
    """The run's `LoraConfig` for the task's own class: the same layers by their full names, the head saved whole."""
    config = copy.deepcopy(lora_config_of(model, task))
    prefix = whole.base_model_prefix
    names = {name for name, _ in whole.named_modules()}
    saved = [name for name, part in whole.named_children() if name != prefix and any(True for _ in part.parameters())]
    saved += _own_poolers(model, task, prefix)
    saved += [f"{prefix}.{name}" for name in _saved_by_peft(model) if f"{prefix}.{name}" in names]
    config.target_modules = {f"{prefix}.{name}" for name in lora_layers(model) if f"{prefix}.{name}" in names}
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    if is_ia3(config):
        config.feedforward_modules = {f"{prefix}.{name}" for name in _at_inputs(model)} & config.target_modules
    config.modules_to_save, config.inference_mode = saved, True
    config.task_type = TASK_TYPES.get(model.heads[task].auto_class)
    config.base_model_name_or_path, config.revision = model.base["id"], model.base.get("revision")
    if config.task_type is None:
        config.auto_mapping = {"base_model_class": type(whole).__name__, "parent_library": type(whole).__module__}
    return config


def _at_inputs(model: MultiTaskModel) -> set[str]:
    """The names of the layers whose input is scaled, and not what they give (IA3)."""
    parts = base_of(model.sharing.encoder).named_modules()
    return {name for name, part in parts if getattr(part, "is_feedforward", False)}


def _own_poolers(model: MultiTaskModel, task: str, prefix: str) -> list[str]:
    """The pooler inside the encoder, where the task trained one of its own."""
    names = {name for name, _ in model.module_of(task).named_parameters()}
    return [f"{prefix}.pooler"] if any(name.startswith(f"{prefix}.pooler.") for name in names) else []


def _saved_by_peft(model: MultiTaskModel) -> list[str]:
    """Parts of the encoder that PEFT trained whole (`lora.modules_to_save`)."""
    return [name for name, part in base_of(model.sharing.encoder).named_modules() if hasattr(part, "modules_to_save")]


def _said(model: MultiTaskModel, task: str) -> dict[str, Any]:
    head = model.heads[task]
    known: dict[str, Any] = {
        "task": task,
        "head": head.task.head_name,
        "class": head.auto_class,
        "labels": head.labels,
        "num_labels": head.config_changes().get("num_labels"),
        "max_length": max_length(model, task),
        "decision_thresholds": thresholds(model, task),
        "base": {key: value for key, value in model.base.items() if key in ("id", "revision", "sha256")},
    }
    return {key: value for key, value in known.items() if value}


def _write_vllm(model: MultiTaskModel, task: str, folder: Path, keys: dict[str, Tensor]) -> str:
    """The LoRA alone, named as on the family's causal LM; gives what to say of it."""
    config = copy.deepcopy(lora_config_of(model, task))
    if is_ia3(config):
        return "vLLM reads LoRA, and this is IA3, so its layout was not written"
    if config.rank_pattern or config.alpha_pattern:
        return "vLLM reads LoRA of one rank and scale on all layers, so its layout was not written"
    if config.use_dora or config.bias != "none" or config.modules_to_save or any(".lora_" not in key for key in keys):
        return "vLLM reads plain LoRA on linear layers only, so its layout was not written"
    kind: Any = transformers.AutoModelForCausalLM._model_mapping[type(model.config)]
    prefix = kind.base_model_prefix
    folder.mkdir()
    named = {f"base_model.model.{prefix}.{key}": value.contiguous() for key, value in keys.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.target_modules = {name.rpartition(".")[2] for name in lora_layers(model)}
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.task_type, config.inference_mode, config.auto_mapping = "CAUSAL_LM", True, None
    config.base_model_name_or_path, config.revision = model.base["id"], model.base.get("revision")
    config.save_pretrained(folder)
    return f"{VLLM}/ holds the LoRA in the layout that vLLM reads; it has no place for the head"


def check_adapter(model: MultiTaskModel, probed: Probe, tokenizer: Any, folder: Path) -> float:
    """Load a written adapter on the family's class with the pretrained weights, and compare with the run's logits."""
    from peft import PeftModel

    task = probed.task
    head = model.heads[task]
    bare = getattr(transformers, head.auto_class).from_config(config_of(model, head))
    start = encoder_state(model, task, merge=False)
    bare.load_state_dict({f"{bare.base_model_prefix}.{key}": value for key, value in start.items()}, strict=False)
    with quiet_transformers():
        made = PeftModel.from_pretrained(bare, folder).eval()
    return compare(model, probed, tokenizer, lambda inputs: logits_of(made, inputs, head.auto_class))
