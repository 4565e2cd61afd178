"""LoRA (or IA3) on the shared encoder, for all tasks and for each, and freezing parts of it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from nlp_mtl import ia3, tasklora
from nlp_mtl.errors import ConfigError, NlpMtlError, suggestion
from nlp_mtl.fields import left_out, read_fields
from nlp_mtl.packing import base_of

_RULES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("r", "at least 1", lambda number: number >= 1),
    ("lora_alpha", "at least 1", lambda number: number >= 1),
    ("lora_dropout", "from 0 to below 1", lambda number: 0 <= number < 1),
)


def lora_config(given: Any, key: str = "lora") -> Any:
    """A `peft.LoraConfig` from a mapping of its fields; one that is given is handed back.

    Args:
        given: the fields, or a `LoraConfig`; with ``peft_type: IA3`` those of an `IA3Config`, see :mod:`nlp_mtl.ia3`.
        key: what messages call it.

    Raises:
        ConfigError: fields that `LoraConfig` does not have, with near names, and values it refuses.

    Example:
        >>> lora_config({"r": 4, "target_modules": "all-linear"}).r
        4
    """
    from peft import LoraConfig

    if isinstance(given, LoraConfig) or ia3.is_ia3(given):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}: expected the fields of peft.LoraConfig, found {given!r}; e.g. {{r: 8}}")
    if ia3.wanted_kind(given, key) == "IA3":
        return ia3.ia3_config(given, key)
    given = {name: one for name, one in given.items() if name != "peft_type"}
    read, wrong = read_fields(LoraConfig, given, key)
    for name, rule, keeps in _RULES:
        if name not in wrong and isinstance(number := read.get(name), (int, float)) and not keeps(number):
            wrong[name] = f"`{key}.{name}` is {rule}, found {number!r}{left_out(LoraConfig, name)}"
    if wrong:
        raise ConfigError(list(wrong.values()))
    try:
        return LoraConfig(**read)
    except (TypeError, ValueError) as error:
        raise ConfigError(_fault(read, error, key)) from None


def _fault(given: Mapping[str, Any], error: Exception, key: str = "lora") -> str:
    """What PEFT says, with the fields of `given` that its words name."""
    text = " ".join(str(error).split())
    named = [name for name in given if re.search(rf"\b{re.escape(name)}\b", text)]
    found = "; found " + ", ".join(f"`{key}.{name}`: {given[name]!r}" for name in named or given)
    return f"{key}: {text}{found if given else ''}"


_PEFT_SAYS = (AttributeError, KeyError, NotImplementedError, TypeError, ValueError)


def add_lora(
    encoder: PreTrainedModel,
    given: Any,
    *,
    per_task: Any = None,
    adapter_of: Mapping[str, str | None] | None = None,
    own: Mapping[str, Any] | None = None,
    own_encoder: bool = False,
    seed: int = 0,
) -> nn.Module:
    """The encoder wrapped by PEFT; only the adapters' parameters stay trainable.

    Args:
        encoder: a `transformers` base model.
        given: the adapter that all tasks share: a `peft.LoraConfig`, a mapping of its fields, or None for none.
        per_task: the same for one adapter per task; see :mod:`nlp_mtl.tasklora`.
        adapter_of: task → the name of its adapter; None for a task without one.
        own: adapter → what it has instead of `per_task`.
        own_encoder: see :class:`nlp_mtl.tasklora.Owners`.
        seed: of the task adapters' first weights.

    Raises:
        ConfigError: fields that are wrong, or target modules the encoder does not have.
        UnsupportedError: task adapters on layers that are not linear.
    """
    from peft import get_peft_model

    wanted = {key: one for key, one in (("lora", given), ("task_lora", per_task)) if one is not None}
    configs = checked_adapters(given, per_task)
    others = {name: checked_adapters(given, one)["task_lora"] for name, one in (own or {}).items() if one is not None}
    linear, made = tasklora.linear_layers(encoder), encoder
    for key, config in configs.items():
        said = wanted[key] if isinstance(wanted[key], Mapping) else {"target_modules": config.target_modules}
        try:
            if key == "lora":
                made = get_peft_model(encoder, config)
            else:
                how: dict[str, Any] = {"own": others, "own_encoder": own_encoder, "seed": seed, "targets": linear}
                made = tasklora.add_task_lora(made, config, adapter_of or {}, **how)
        except _PEFT_SAYS as error:
            if isinstance(error, NlpMtlError):
                raise
            way = "target_modules: all-linear adapts every linear layer"
            raise ConfigError(f"{_fault(said, error, key).replace('.; found', '; found')}; {way}") from error
    return made


def checked_adapters(shared: Any, per_task: Any) -> dict[str, Any]:
    """The `LoraConfig` of ``lora`` and of ``task_lora``, those that are wanted.

    Raises:
        ConfigError: every mistake in both.
    """
    configs, mistakes = {}, []
    for key, given in (("lora", shared), ("task_lora", per_task)):
        if given is None:
            continue
        try:
            configs[key] = lora_config(given, key)
        except ConfigError as error:
            mistakes += error.mistakes
        fields = vars(configs[key]) if key in configs else given if isinstance(given, Mapping) else {}
        if per_task is not None and not ia3.is_ia3(configs.get(key)):
            mistakes += tasklora.check_plain(fields, key)
        if key == "task_lora" and ia3.is_ia3(configs.get(key)):
            mistakes.append("task_lora: an adapter for each task is a LoRA, found `peft_type: IA3`; use it in `lora`")
    try:
        ia3.check_alone(configs.get("lora"), "hard", per_task)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return configs


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one of PEFT's.

    Example:
        >>> is_adapter("encoder.layer.0.query.lora_A.default.weight"), is_adapter("encoder.layer.0.query.weight")
        (True, False)
    """
    return any(part.startswith(("lora_", "ia3_")) for part in name.split("."))


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
