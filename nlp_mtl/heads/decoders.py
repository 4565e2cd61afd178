"""Decoders: the checkpoint's own (T5, BART), another pretrained model with cross-attention, or a fresh one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GenerationConfig,
    PreTrainedModel,
)

from nlp_mtl.errors import ConfigError, UnsupportedError, shown, suggestion
from nlp_mtl.heads.generating import unknown_tokens
from nlp_mtl.heads.targets import end_of, start_of
from nlp_mtl.heads.vanilla import seed_of
from nlp_mtl.packing import base_of, first_position

LAYERS = 3  # of a fresh decoder
_FRESH = ("layers", "heads", "intermediate_size", "dropout")


class Away(nn.Module):
    """Stands where the encoder was: whoever calls the decoder brings the encoder's states."""

    main_input_name = "input_ids"

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def get_output_embeddings(self) -> None:
        """An encoder has none."""

    def forward(self, *unused: Any, **ignored: Any) -> Any:
        """Refused: the states come from the shared encoder."""
        raise RuntimeError("the encoder is shared by all tasks and stands outside this head; give encoder_outputs")


@dataclass
class Built:
    """What was built for a task, beside the weights: enough to build it again without the pretrained models.

    Attributes:
        config: the decoder's config; of a whole family none, it is the encoder's own.
        tied: weights of the decoder that are the encoder's embedding, by name.
        generation: the checkpoint's generation config.
    """

    config: dict[str, Any] | None = None
    tied: list[str] = field(default_factory=list)
    generation: dict[str, Any] = field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"config": self.config, "tied": self.tied, "generation": self.generation}


def checked_decoder(said: Any, whose: str) -> None:
    """Refuse what does not say which decoder is meant.

    Raises:
        ConfigError: all that is wrong with it.
    """
    if said is None or isinstance(said, str):
        return
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"{whose}: `decoder` is a model's name or folder, or {{layers: {LAYERS}}} for a new one, found "
            f"{shown(said)}"
        )
    wrong = [f"{whose}: `decoder` takes no {key!r}{suggestion(str(key), _FRESH)}" for key in said if key not in _FRESH]
    for key in ("layers", "heads", "intermediate_size"):
        value = said.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            wrong.append(f"{whose}: decoder: `{key}` is a whole number from 1, found {shown(value)}; leave it out")
    if not isinstance(said.get("dropout", 0.1), (int, float)) or not 0 <= said.get("dropout", 0.1) < 1:
        wrong.append(f"{whose}: decoder: `dropout` is from 0 to under 1, found {shown(said['dropout'])}; leave it out")
    if wrong:
        raise ConfigError(wrong)


def whole_family(
    encoder: nn.Module, *, source: str | Path | None, name: str, seed: int, before: Built | None
) -> tuple[PreTrainedModel, Built]:
    """The decoder and output layer of the encoder's own family, from the checkpoint where there is one.

    T5 and BART use one embedding for what both parts read and what the decoder writes. Here it is the encoder's: where
    the encoder is trained in full, all tasks train it; under a LoRA or `freeze` it stays as it was.

    Args:
        encoder: whose base is the family's encoder part.
        source: the pretrained folder; None for a decoder of the same shape whose weights come later.
        name, seed: fix the first weights, where no checkpoint has them.
        before: what a run folder says was built.

    Raises:
        UnsupportedError: a LoRA on the embedding that both parts use.
    """
    base: Any = base_of(encoder)
    table = base.get_input_embeddings()
    if hasattr(table, "get_base_layer") and hasattr(table, "lora_embedding_A"):
        raise UnsupportedError(
            f"task {name!r}: {base.config.model_type} uses one embedding in encoder, decoder and output layer, and a "
            "LoRA on it would be in the encoder alone; name `target_modules` without the embedding"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(name, seed))
        if source is None:
            config = copy.deepcopy(base.config)
            config._attn_implementation = "sdpa" if base._supports_sdpa else "eager"
            made = AutoModelForSeq2SeqLM.from_config(config)
        else:
            made = _loaded(AutoModelForSeq2SeqLM, source)
    made = made.float()
    loaded = made.from_checkpoint if source is not None else frozenset()
    inner = made.model if hasattr(made, "model") else made  # BART keeps both parts one level down
    parts = {id(p) for p in inner.encoder.parameters()} | {id(made.get_input_embeddings().weight)}
    place = next(part for part, module in made.named_modules() if module is inner.encoder)
    inner.encoder = Away(made.config)
    every = dict(made.named_parameters(remove_duplicate=False))
    tied = before.tied if before is not None else [key for key, p in every.items() if id(p) in parts]
    weight = getattr(table, "get_base_layer", lambda: table)().weight
    for key in tied:
        owner, _, attribute = key.rpartition(".")
        setattr(made.get_submodule(owner), attribute, weight)
    assert not any(key.startswith(f"{place}.") for key in tied)
    made.tied_outside = frozenset(tied)
    made.from_checkpoint = loaded & {key for key, _ in made.named_parameters()} - set(tied)
    if before is not None:
        made.generation_config = GenerationConfig.from_dict(before.generation)
    return made, Built(None, list(tied), made.generation_config.to_diff_dict())


def own_decoder(
    encoder: nn.Module,
    tokenizer: Any,
    said: Any,
    *,
    folder: Path | None,
    name: str,
    seed: int,
    most: int,
    keeps_vocabulary: bool,
    before: Built | None,
) -> tuple[PreTrainedModel, Built]:
    """A decoder of another family on the encoder, as `EncoderDecoderModel` joins them.

    Args:
        encoder: the shared encoder.
        tokenizer: of the targets.
        said: `decoder` of the task: a name, or a new one's sizes.
        folder: where the pretrained decoder is; None for a new one.
        name, seed: fix the first weights.
        most: places that a new decoder has at least.
        keeps_vocabulary: whether the tokenizer is the pretrained decoder's own, so that its embedding fits.
        before: what a run folder says was built.

    Raises:
        UnsupportedError: a pretrained model that can't look at an encoder.
    """
    base: Any = base_of(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(name, seed))
        if before is not None and before.config is not None:
            known = {key: value for key, value in before.config.items() if key != "model_type"}
            decoder = AutoModelForCausalLM.from_config(AutoConfig.for_model(before.config["model_type"], **known))
        elif folder is not None:
            decoder = _pretrained(folder, tokenizer, keeps_vocabulary, name)
        else:
            decoder = AutoModelForCausalLM.from_config(
                _fresh_config(base.config, tokenizer, said or {}, most, f"task {name!r}")
            )
        first = copy.deepcopy(base.config)
        first._attn_implementation = "eager"  # never saved
        config = EncoderDecoderConfig.from_encoder_decoder_configs(first, decoder.config)
        config.decoder_start_token_id, config.eos_token_id = start_of(tokenizer), end_of(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else config.eos_token_id
        config.vocab_size = decoder.config.vocab_size
        config.tie_word_embeddings = False  # of encoder and decoder; the decoder ties its own
        made = _Joined(encoder=Away(first), decoder=decoder, config=config)
    made = made.float()
    made.tied_outside = frozenset()
    made.from_checkpoint = frozenset(f"decoder.{key}" for key in getattr(decoder, "from_checkpoint", ()))
    made.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    said_of = decoder.config.to_diff_dict()
    said_of = {**said_of, "model_type": decoder.config.model_type}
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"):
        said_of.pop(key, None)
    return made, Built(said_of, [], made.generation_config.to_diff_dict())


def check_fits(made: Any, whose: str, most: int, generation: Mapping[str, Any]) -> None:
    """Refuse what would be met in the middle of a run: lengths without position embeddings, unknown tokens.

    Args:
        made: the decoder's module.
        whose: the task, in words.
        most: `max_target_length`.
        generation: the fields that the task says of how it writes.

    Raises:
        ConfigError: all lengths that are too large, and tokens that its vocabulary does not have.
    """
    inner = made.decoder if isinstance(made, EncoderDecoderModel) else made
    places = getattr(inner.config, "max_position_embeddings", None)
    wrong = unknown_tokens(made, generation, whose)
    if places is not None:  # T5 counts distances
        places -= first_position(inner.base_model)
        said = {"max_target_length": (most, places)}
        for name, room in (("max_new_tokens", places), ("max_length", places + 1)):  # a length counts the start
            if generation.get(name) is not None:
                said[f"generation: {name}"] = (generation[name], room)
        wrong += [
            f"{whose}: `{name}` is at most {room} for this decoder, which has {places} positions, found {found}; lower "
            "it"
            for name, (found, room) in said.items()
            if found > room
        ]
    if wrong:
        raise ConfigError(wrong)


class _Joined(EncoderDecoderModel):
    """`EncoderDecoderModel` around an encoder that is away: there is nothing of it to start."""

    def _init_weights(self, module: nn.Module) -> None:
        if module in self.decoder.modules():
            self.decoder._init_weights(module)
        elif isinstance(module, nn.Linear):  # between different widths
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def _loaded(kind: Any, source: str | Path, **more: Any) -> PreTrainedModel:
    from transformers import logging as transformers_logging

    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        how = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True, **more}
        made, info = kind.from_pretrained(source, output_loading_info=True, **how)
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
    new = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    made.from_checkpoint = frozenset(key for key, _ in made.named_parameters() if key not in new)
    return cast("PreTrainedModel", made)


def _pretrained(folder: Path, tokenizer: Any, keeps_vocabulary: bool, name: str) -> PreTrainedModel:
    """A pretrained model that reads its own words only backwards, with new layers that look at the encoder."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or type(config) not in AutoModelForCausalLM._model_mapping:
        raise UnsupportedError(
            f"task {name!r}: `decoder` is a model that writes word by word and looks at an encoder (BERT, RoBERTa, "
            f"GPT-2, …), found {kind}; name another, or {{layers: {LAYERS}}} for a new one"
        )
    if not hasattr(config, "add_cross_attention"):
        raise UnsupportedError(
            f"task {name!r}: the family {kind!r} has no layers that look at an encoder, so it can't be a `decoder`; "
            f"name a BERT, RoBERTa or GPT-2, or {{layers: {LAYERS}}} for a new one"
        )
    config.is_decoder, config.add_cross_attention = True, True
    if not keeps_vocabulary:
        config.vocab_size = len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
    made = _loaded(AutoModelForCausalLM, folder, config=config, ignore_mismatched_sizes=True)
    if not any("cross" in part for part, _ in made.named_modules()):
        raise UnsupportedError(
            f"task {name!r}: the family {kind!r} makes no layers that look at an encoder, so it can't be a `decoder`; "
            f"name a BERT, RoBERTa or GPT-2, or {{layers: {LAYERS}}} for a new one"
        )
    return made


def _fresh_config(encoder: Any, tokenizer: Any, said: Mapping[str, Any], most: int, whose: str) -> BertConfig:
    """A BERT decoder of the encoder's width."""
    width = int(encoder.hidden_size)
    if said.get("heads") and width % said["heads"]:
        raise ConfigError(
            f"{whose}: decoder: `heads` divides the encoder's width {width}, found {said['heads']}; leave it out for "
            "as many as the encoder has"
        )
    heads = said.get("heads") or getattr(encoder, "num_attention_heads", None) or max(1, width // 64)
    dropout = said.get("dropout", getattr(encoder, "hidden_dropout_prob", getattr(encoder, "dropout", 0.1)))
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=said.get("layers", LAYERS),
        num_attention_heads=int(heads) if width % int(heads) == 0 else 1,
        intermediate_size=said.get("intermediate_size") or 4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=max(512, most),
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        is_decoder=True,
        add_cross_attention=True,
    )
