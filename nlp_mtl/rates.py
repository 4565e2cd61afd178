"""Learning rates of their own for parts of a model: by patterns, by task, and by layer."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from nlp_mtl.depth import heights
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.packing import base_of
from nlp_mtl.tasklora import owners_of


def regroup(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    rates: Mapping[str, float],
    factors: Mapping[int, float] | None = None,
) -> None:
    """Move parameters that have a learning rate of their own to groups of their own.

    Args:
        optimizer: of the model.
        model: the model.
        rates: see :func:`chosen_rates`.
        factors: see :func:`factors_of`; they multiply those rates, or the optimizer's.
    """
    chosen, factors = chosen_rates(model, rates), factors or {}
    for group in list(optimizer.param_groups):
        moved: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            key = id(parameter)
            if key in chosen or factors.get(key, 1.0) != 1.0:
                rate = float(chosen.get(key, group["lr"])) * factors.get(key, 1.0)
                moved.setdefault(rate, []).append(parameter)
        away = {id(p) for some in moved.values() for p in some}
        group["params"] = [p for p in group["params"] if id(p) not in away]
        for rate, parameters in moved.items():
            optimizer.add_param_group(
                {**{k: v for k, v in group.items() if k != "params"}, "params": parameters, "lr": rate}
            )
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def chosen_rates(model: nn.Module, rates: Mapping[str, float]) -> dict[int, float]:
    """The learning rate of each parameter (by its `id`) that has one of its own; the last match counts.

    Args:
        model: the model.
        rates: by ``heads``, ``encoder`` or a pattern on names.

    Raises:
        ConfigError: patterns that match nothing, rates that are none.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    parts = {"heads": "modules_.", "encoder": "sharing."}
    chosen: dict[int, float] = {}
    mistakes = []
    for key, rate in rates.items():
        hits = [
            i
            for i, name in names.items()
            if (name.startswith(parts[key]) if key in parts else _is_meant(name.removeprefix("sharing."), key))
        ]
        if not hits:
            mistakes.append(
                f"learning_rates: {key!r} matches no trainable parameter{suggestion(key, ['heads', 'encoder'])}"
            )
        if not isinstance(rate, (int, float)) or rate < 0:
            mistakes.append(f"learning_rates: {key!r} needs a number from 0, found {rate!r}")
        chosen.update(dict.fromkeys(hits, rate))
    if mistakes:
        raise ConfigError(mistakes)
    return chosen


def _is_meant(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"encoder.{pattern}")


def factors_of(model: Any, layer_decay: float, task_rates: Mapping[str, float]) -> dict[int, float]:
    """What the learning rate of each parameter (by its `id`) is multiplied by; those that are not there by 1.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        layer_decay: the top layer's rate is multiplied by it once, the next one's twice, and so on; the embeddings'
            once more than the lowest layer's. Heads, poolers and final norms are as they are. From 0 to 1.
        task_rates: task → factor from 0, for its head and its own adapter.

    Raises:
        ConfigError: all mistakes at once.

    Relations: layer-wise rates are ULMFiT's (Howard and Ruder, 2018, arXiv 1801.06146), with the form of ELECTRA's
    (Clark et al., 2020, arXiv 2003.10555).
    """
    wrong = []
    if not 0 < layer_decay <= 1:
        wrong.append(f"layer_decay: above 0 and at most 1, found {layer_decay}; leave it out for 1")
    for task, factor in task_rates.items():
        if task not in model.heads:
            wrong.append(f"task_rates: {task!r} is not a task{suggestion(task, model.tasks)}")
        if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 <= factor < float("inf"):
            wrong.append(f"task_rates: {task!r} needs a factor from 0, found {factor!r}")
    encoder = model.sharing.encoder
    layers = [part for part in base_of(encoder).modules() if isinstance(part, GradientCheckpointingLayer)]
    if layer_decay != 1 and len(layers) < 2:
        wrong.append(
            f"layer_decay: {type(base_of(encoder)).__name__} has no layers with weights of their own; leave it out"
        )
    if layer_decay != 1 and not model.sharing.ordinary and owners_of(encoder) is None:
        wrong.append(
            f"layer_decay: counts the layers of one encoder, and sharing {model.sharing.registered_as!r} has more than "
            "that; leave it out"
        )
    if wrong:
        raise ConfigError(wrong)
    found: dict[int, float] = {}
    if layer_decay != 1:
        high = heights(base_of(encoder))
        for place, parameter in base_of(encoder).named_parameters():
            if (height := high[place]) <= len(layers):
                found[id(parameter)] = layer_decay ** (len(layers) + 1 - height)
    owners = owners_of(encoder)
    for task, factor in task_rates.items():
        shared = {id(p) for p in encoder.parameters()}  # a head may be tied to them
        own = [p for p in model.module_of(task).parameters() if id(p) not in shared]
        name = owners.adapter_of[task] if owners is not None else None
        if name is not None:
            own += [p for key, p in encoder.named_parameters() if f".{name}." in key and "lora_" in key]
        known = {id(p) for p in own}
        own += [p for p in model.sharing.parameters_of(task) if id(p) not in known]
        for parameter in own:
            found[id(parameter)] = found.get(id(parameter), 1.0) * factor
    return found
