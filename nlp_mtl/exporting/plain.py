"""A task's part of a run in ordinary `transformers` terms: encoder with its LoRA merged, whole class, tokenizer."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from nlp_mtl import adapters
from nlp_mtl.encoderpart import encoder_part
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.folding import folded, has_adapter, merged
from nlp_mtl.heads import Head
from nlp_mtl.heads.vanilla import tied_keys
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import open_tokenizer
from nlp_mtl.packing import base_of
from nlp_mtl.tasklora import owners_of


def max_length(model: MultiTaskModel, task: str) -> int:
    """Tokens per sequence that a task was trained with."""
    return min(model.heads[task].task.max_length or model.max_length, model.max_length)


def encoder_state(model: MultiTaskModel, task: str, *, merge: bool = True) -> dict[str, Tensor]:
    """The weights of the ordinary encoder that a task uses, by the names `AutoModel` gives, on the CPU.

    Args:
        model: of a run.
        task: one of its tasks.
        merge: with the LoRA merged into them; else as the pretrained model has them.

    Raises:
        UnsupportedError: the task uses no ordinary encoder.
    """
    plain: Any = model.sharing.collapse(task)
    whole: Any = model.sharing.encoder
    if hasattr(whole, "unload") and not merge:
        plain = copy.deepcopy(whole).unload()
    elif hasattr(whole, "unload") and plain is base_of(whole):
        owners = owners_of(whole)
        plain = merged(whole, None if owners is None else owners.adapter_of[task])
    return {name: value.detach().cpu().float() for name, value in plain.state_dict().items()}


def config_of(model: MultiTaskModel, head: Head | None = None, task: str | None = None) -> Any:
    """The config of a task's encoder, or that of a head's class, without traces of this machine or of packing."""
    named = head.task.name if head is not None else task
    config = copy.deepcopy(model.config if named is None else model.sharing.config_of(named))
    for key, value in head.config_changes().items() if head is not None else ():
        setattr(config, key, value)
    config._attn_implementation = "eager"  # never saved; what loads the folder chooses
    config.name_or_path = model.base["id"]
    config.dtype = torch.float32
    return config


def plain_encoder(model: MultiTaskModel, task: str) -> PreTrainedModel:
    """A fresh `AutoModel` with the weights of :func:`encoder_state`, in eval mode."""
    state = encoder_state(model, task)
    config = config_of(model, task=task)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    with torch.random.fork_rng(devices=[]):
        made = AutoModel.from_config(config)
        made = encoder_part(made) if getattr(config, "is_encoder_decoder", False) else made
    load_whole(made, state)
    return made.eval()


def whole_class(model: MultiTaskModel, task: str, *, merge: bool = True) -> PreTrainedModel:
    """The family's own class for a task with its encoder and head, in eval mode.

    Args:
        model: of a run.
        task: a task whose head is exportable.
        merge: see :func:`encoder_state`.
    """
    head, module = model.heads[task], model.module_of(task)
    config, prefix = config_of(model, head), str(module.base_model_prefix)
    state = {f"{prefix}.{name}": value for name, value in encoder_state(model, task, merge=merge).items()}
    own = head_state(model, task)
    tied: Any = getattr(module, "_tied_weights_keys", None) or {}
    if any(not torch.equal(own[name], state[tied[name]]) for name in tied_keys(module) if name in own):
        config.tie_word_embeddings = False  # the encoder's have what the task adds to each word; the head's do not
    with torch.random.fork_rng(devices=[]):
        made = getattr(transformers, head.auto_class).from_config(config)
    load_whole(made, {**state, **own})
    return made.eval()


def head_state(model: MultiTaskModel, task: str) -> dict[str, Tensor]:
    """The weights of a task's head by the vanilla class's names, on the CPU."""
    return {name: value.detach().cpu().float() for name, value in model.module_of(task).state_dict().items()}


def load_whole(made: nn.Module, state: dict[str, Tensor], spare: Collection[str] = ()) -> None:
    """Load weights; the vanilla class may leave out the encoder's pooler, and nothing else.

    Args:
        made: the vanilla class.
        state: the weights.
        spare: names that need not be given: they are tied to others.

    Raises:
        UnsupportedError: weights that one side lacks.
    """
    found = made.load_state_dict(state, strict=False)
    over = [name for name in found.unexpected_keys if ".pooler." not in f".{name}" and "position_ids" not in name]
    given = {id(p) for name, p in made.named_parameters(remove_duplicate=False) if name in state}
    tied = {n for n, p in made.named_parameters(remove_duplicate=False) if id(p) in given}
    missing = [name for name in found.missing_keys if name not in spare and name not in tied]
    if missing or over:
        raise UnsupportedError(
            f"the weights of {type(made).__name__} are not those of this run: it lacks {missing[:4]}, and "
            f"has no place for {over[:4]}; it can't be exported"
        )


def tokenizer_for(model: MultiTaskModel, folder: Path | None, task: str) -> PreTrainedTokenizerBase:
    """The tokenizer as a task needs it: its length, a pad token, padding on the right, only inputs the family takes.

    Args:
        model: of a run.
        folder: of the run, which has the tokenizer as it was saved; None for a model that was never saved.
        task: one of its tasks.
    """
    tokenizer = open_tokenizer(folder) if folder is not None else copy.deepcopy(model.tokenizer)
    backend: Any = tokenizer
    backend.backend_tokenizer.no_truncation()
    backend.backend_tokenizer.no_padding()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = model.tokenizer.pad_token
    pad = getattr(model.config, "pad_token_id", None)
    if is_decoder(model) and pad is not None and pad != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)  # the class looks for the config's
    tokenizer.padding_side = "right"  # decoders classify at the last token that is no padding, counted from the left
    tokenizer.model_max_length = max_length(model, task)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in takes(model)]
    return tokenizer


def is_decoder(model: MultiTaskModel) -> bool:
    """Whether the family's encoder is a causal one, whose tokens do not see later ones."""
    return any(getattr(part, "is_causal", False) for part in base_of(model.sharing.encoder).modules())


def takes(model: MultiTaskModel) -> list[str]:
    """What the family's encoder takes."""
    return list(inspect.signature(type(base_of(model.sharing.encoder)).forward).parameters)


def lora_config_of(model: MultiTaskModel, task: str) -> Any:
    """The `peft.LoraConfig` of what a task uses, or None for full fine-tuning."""
    encoder: Any = model.sharing.encoder
    if owners_of(encoder) is not None:
        return folded(encoder, task)[0] if has_adapter(encoder, task) else None
    if (own := model.sharing.adapter(task) if hasattr(encoder, "peft_config") else None) is not None:
        return own[0]
    known = getattr(encoder, "peft_config", None)
    return next(iter(known.values())) if known else None


def lora_layers(model: MultiTaskModel) -> list[str]:
    """The names of the encoder's modules that adapters are on."""
    names = [name for name, _ in base_of(model.sharing.encoder).named_parameters() if adapters.is_adapter(name)]
    return list(dict.fromkeys(re.split(r"\.(?:lora|ia3)_", name)[0] for name in names))
