"""Opening a pretrained encoder and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from nlp_mtl import checkpoint
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.packing import base_of


def open_base(folder: Path) -> tuple[PreTrainedTokenizerBase, nn.Module]:
    """The tokenizer and the encoder of a pretrained folder; raises UnsupportedError for slow tokenizers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise UnsupportedError(f"{folder.name}: its tokenizer is not a fast one, which word and character offsets need")
    return tokenizer, load_encoder(folder)


def load_encoder(folder: Path) -> nn.Module:
    """The bare encoder, its weights in fp32; raises UnsupportedError for encoder–decoder models."""
    with checkpoint.quiet_transformers():
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    if getattr(encoder.config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"{encoder.config.model_type}: encoder–decoder models are not supported yet; use an encoder or decoder"
        )
    return encoder


def checked_length(wanted: int | None, tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> int:
    """Tokens per sequence: what is wanted, if the encoder can, else at most 512; raises ConfigError."""
    positions = getattr(base_of(encoder).config, "max_position_embeddings", None) or 512
    limit = min(positions - (2 if positions in (514,) else 0), tokenizer.model_max_length)
    if wanted is not None and not 4 <= wanted <= limit:
        raise ConfigError(f"max_length: from 4 to {limit} for this encoder, found {wanted}")
    return wanted or min(512, limit)


def give_pad_token(tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> None:
    """Decoders come without one; nothing here pads, but an exported model does."""
    config = base_of(encoder).config
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(config, "pad_token_id", None) is None and tokenizer.pad_token_id is not None:
        config.pad_token_id = tokenizer.pad_token_id
