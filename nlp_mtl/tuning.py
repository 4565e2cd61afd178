"""An encoder with its LoRAs, what is frozen, and how tasks share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlp_mtl import adapters, folding, ia3, regimes, registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.packing import base_of
from nlp_mtl.sharing import Sharing
from nlp_mtl.weights import check_saved


@dataclass(frozen=True)
class Tuning:
    """What is trained of an encoder; see :meth:`nlp_mtl.MultiTaskModel.assemble`."""

    sharing: registry.Spec
    lora: Any
    task_lora: Any
    own_lora: Mapping[str, Any]
    own_encoder: bool
    freeze: str | Sequence[str]
    regime: registry.Spec | None = None


def shared_by(
    encoder: nn.Module,
    tuning: Tuning,
    heads: Mapping[str, str],
    every: Mapping[str, str],
    base: Mapping[str, Any],
    seed: int,
) -> tuple[Sharing, dict[str, Any]]:
    """The sharing around an encoder, and what a run folder records of it.

    Args:
        encoder: a `transformers` base model.
        tuning: what is trained.
        heads: task → the task whose head it uses.
        every: the same for all tasks of the run, where `heads` are only some.
        base: what is recorded of the pretrained model.
        seed: of what is made new.

    Raises:
        ConfigError, UnsupportedError: what does not go together.
    """
    name, arguments = registry.parse_spec(tuning.sharing, "sharing")
    kind = registry.sharings[name]
    if mistakes := registry.sharings.check_arguments(name, arguments, given=2):
        raise ConfigError(mistakes)
    keys = {**every, **heads} if kind.keeps_all(**arguments) else dict(heads)
    arguments = kind.by_lenders(arguments, keys)
    tasks, more = list(dict.fromkeys(keys.values())), tuning.own_lora
    asked = adapters.checked_adapters(tuning.lora, tuning.task_lora).get("lora")
    ia3.check_alone(asked, name, tuning.task_lora)
    widened = kind.lora_for(asked, tasks, **arguments)
    own = {task: None if key in more and more[key] is None else key for task, key in keys.items()}
    adapted = tuning.lora is not None or tuning.task_lora is not None
    if adapted:
        how: dict[str, Any] = {"own": more, "own_encoder": tuning.own_encoder, "seed": seed}
        encoder = adapters.add_lora(base_of(encoder), widened, per_task=tuning.task_lora, adapter_of=own, **how)
        for known in getattr(encoder, "peft_config", {}).values():
            held = tuning.own_encoder or base.get("own")
            known.base_model_name_or_path = None if held else base["id"]
            known.revision = None if held else base.get("revision")
    if tuning.freeze:
        adapters.freeze(encoder, tuning.freeze)
    if tuning.regime is not None:
        regimes.keep_to(encoder, tuning.regime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shared: Sharing = registry.sharings.build({"name": name, **arguments}, encoder, tasks)
    check_saved(shared)
    shared.lend({task: key for task, key in keys.items() if key != task})
    said: dict[str, Any] = {"sharing": tuning.sharing, "lora": adapted}
    if tuning.task_lora is not None:
        said["adapters"] = folding.said_of(encoder)
    elif asked is not None and not shared.ordinary:
        said["adapters"] = {"lora": folding.fields_of(asked)}
    said["freeze"] = [tuning.freeze] if isinstance(tuning.freeze, str) else list(tuning.freeze)
    if tuning.regime is not None:
        said["tuning"] = tuning.regime
    return shared, said
