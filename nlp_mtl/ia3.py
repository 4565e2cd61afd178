"""IA3 on the shared encoder: PEFT's adapters that only scale what layers give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.fields import read_fields

_AT_THE_INPUT = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")


def wanted_kind(given: Any, key: str = "lora") -> str:
    """Which of PEFT's methods a mapping asks for: ``LORA``, if it does not say `peft_type`, or ``IA3``.

    Args:
        given: the mapping.
        key: what messages call it.

    Raises:
        ConfigError: another one; prefixes are told where ours are.

    Example:
        >>> wanted_kind({"r": 8}), wanted_kind({"peft_type": "ia3"})
        ('LORA', 'IA3')
    """
    found = given.get("peft_type", "LORA") if isinstance(given, Mapping) else "LORA"
    kind = str(getattr(found, "value", found)).upper()
    if kind in _AT_THE_INPUT:
        raise ConfigError(
            f"{key}: `peft_type` {kind} puts vectors before the text, which PEFT can't do in a packed pass; use "
            "`sharing: {name: hard, condition: prefix}`, prefix tokens for each task"
        )
    if kind not in ("LORA", "IA3"):
        raise ConfigError(f"{key}: `peft_type` is LORA or IA3, found {found!r}{suggestion(kind, ('LORA', 'IA3'))}")
    return kind


def ia3_config(given: Any, key: str = "lora") -> Any:
    """A `peft.IA3Config` from a mapping of its fields; left out, the layers are those that PEFT knows for the family.

    Each adapted layer learns one vector that scales what it gives, or takes (`feedforward_modules`); it can be merged
    away like a LoRA, and leaves as an ordinary PEFT folder.

    Args:
        given: the fields, with ``peft_type: IA3``; or an `IA3Config`, which is handed back.
        key: what messages call it.

    Raises:
        ConfigError: fields that `IA3Config` does not have, with near names, and values it refuses.

    Relations: Liu et al. (2022, arXiv 2205.05638). A LoRA of rank 8 trains some thirty times as many numbers.

    Example:
        >>> sorted(ia3_config({"peft_type": "IA3", "target_modules": ["key", "value"], "feedforward_modules": []})
        ...        .target_modules)
        ['key', 'value']
    """
    from peft import IA3Config

    if isinstance(given, IA3Config):
        return given
    read, wrong = read_fields(IA3Config, {name: one for name, one in given.items() if name != "peft_type"}, key)
    if wrong:
        raise ConfigError(list(wrong.values()))
    try:
        return IA3Config(**read)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}; found {dict(given)!r}") from None


def is_ia3(config: Any) -> bool:
    """Whether an adapter's config is of IA3."""
    return getattr(getattr(config, "peft_type", None), "value", None) == "IA3"


def check_alone(config: Any, sharing: str, per_task: Any) -> None:
    """Refuse IA3 where parts of our own are built on a LoRA's.

    Args:
        config: of the shared adapter, or None.
        sharing: its name.
        per_task: `task_lora`, or None.

    Raises:
        ConfigError: with the way out.
    """
    if is_ia3(config) and (sharing != "hard" or per_task is not None):
        other = f"`sharing: {sharing}`" if sharing != "hard" else "`task_lora`"
        raise ConfigError(f"lora: `peft_type: IA3` goes with `sharing: hard` alone, found {other}; use a LoRA there")
