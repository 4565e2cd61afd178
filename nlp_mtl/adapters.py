"""LoRA on the shared encoder, and freezing parts of it."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.packing import base_of


def lora_config(given: Any) -> Any:
    """A `peft.LoraConfig` from a mapping of its fields; one that is given is handed back.

    Raises:
        ConfigError: a field that `LoraConfig` does not have, with near names, or a value it refuses.

    Example:
        >>> lora_config({"r": 4, "target_modules": "all-linear"}).r
        4
    """
    from peft import LoraConfig

    if isinstance(given, LoraConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"lora: expected the fields of peft.LoraConfig, found {given!r}")
    known = [field.name for field in dataclasses.fields(LoraConfig)]
    unknown = [
        f"lora: peft.LoraConfig has no field {key!r}{suggestion(key, known)}" for key in given if key not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    try:
        return LoraConfig(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"lora: {error}") from None


def add_lora(encoder: PreTrainedModel, given: Any) -> nn.Module:
    """The encoder wrapped by PEFT; only the adapter's parameters stay trainable.

    Args:
        encoder: a `transformers` base model.
        given: a `peft.LoraConfig`, or a mapping of its fields.

    Raises:
        ConfigError: fields that are wrong, or target modules the encoder does not have.
    """
    from peft import get_peft_model

    config = lora_config(given)
    try:
        return get_peft_model(encoder, config)
    except ValueError as error:
        raise ConfigError(f"lora: {error}") from None


def freeze(encoder: nn.Module, patterns: str | Sequence[str]) -> int:
    """Make encoder parameters whose names match a pattern untrainable; returns how many numbers that freezes.

    Args:
        encoder: the shared encoder.
        patterns: shell patterns on the names `AutoModel` gives, e.g. ``embeddings.*``, ``encoder.layer.[0-3].*``; ``*``
            freezes the whole encoder.

    Raises:
        ConfigError: a pattern that matches nothing.
    """
    base = base_of(encoder)
    names = [name for name, _ in base.named_parameters()]
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    mistakes, frozen = [], 0
    for pattern in wanted:
        hits = fnmatch.filter(names, pattern)
        if not hits:
            parts = list(dict.fromkeys(".".join(name.split(".")[:3]) + ".*" for name in names))
            mistakes.append(f"freeze: {pattern!r} matches no parameter of the encoder{suggestion(pattern, parts)}")
        for name in hits:
            parameter = base.get_parameter(name)
            frozen += parameter.numel() if parameter.requires_grad else 0
            parameter.requires_grad_(False)
    if mistakes:
        raise ConfigError(mistakes)
    return frozen
