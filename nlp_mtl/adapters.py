"""LoRA on the shared encoder, and freezing parts of it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.fields import left_out, read_fields
from nlp_mtl.packing import base_of

_RULES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("r", "at least 1", lambda number: number >= 1),
    ("lora_alpha", "at least 1", lambda number: number >= 1),
    ("lora_dropout", "from 0 to below 1", lambda number: 0 <= number < 1),
)


def lora_config(given: Any) -> Any:
    """A `peft.LoraConfig` from a mapping of its fields; one that is given is handed back.

    Raises:
        ConfigError: fields that `LoraConfig` does not have, with near names, and values it refuses.

    Example:
        >>> lora_config({"r": 4, "target_modules": "all-linear"}).r
        4
    """
    from peft import LoraConfig

    if isinstance(given, LoraConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"lora: expected the fields of peft.LoraConfig, found {given!r}; e.g. {{r: 8}}")
    read, wrong = read_fields(LoraConfig, given, "lora")
    for key, rule, keeps in _RULES:
        if key not in wrong and isinstance(number := read.get(key), (int, float)) and not keeps(number):
            wrong[key] = f"`lora.{key}` is {rule}, found {number!r}{left_out(LoraConfig, key)}"
    if wrong:
        raise ConfigError(list(wrong.values()))
    try:
        return LoraConfig(**read)
    except (TypeError, ValueError) as error:
        raise ConfigError(_fault(read, error)) from None


def _fault(given: Mapping[str, Any], error: Exception) -> str:
    """What PEFT says, with the fields of `given` that its words name."""
    text = " ".join(str(error).split())
    named = [key for key in given if re.search(rf"\b{re.escape(key)}\b", text)]
    found = "; found " + ", ".join(f"`lora.{key}`: {given[key]!r}" for key in named or given)
    return f"lora: {text}{found if given else ''}"


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
    said = given if isinstance(given, Mapping) else {"target_modules": config.target_modules}
    try:
        return get_peft_model(encoder, config)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        way = "target_modules: all-linear adapts every linear layer"
        raise ConfigError(f"{_fault(said, error).replace('.; found', '; found')}; {way}") from error


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one of PEFT's.

    Example:
        >>> is_adapter("encoder.layer.0.query.lora_A.default.weight"), is_adapter("encoder.layer.0.query.weight")
        (True, False)
    """
    return any(part.startswith("lora_") for part in name.split("."))


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
            modules = [name.split(".")[:-1] for name in names]
            parts = dict.fromkeys(".".join(module[:depth]) + ".*" for depth in (1, 3) for module in modules)
            mistakes.append(f"freeze: {pattern!r} matches no parameter of the encoder{suggestion(pattern, parts)}")
        for name in hits:
            parameter = base.get_parameter(name)
            frozen += parameter.numel() if parameter.requires_grad else 0
            parameter.requires_grad_(False)
    if mistakes:
        raise ConfigError(mistakes)
    return frozen
