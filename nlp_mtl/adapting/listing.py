"""Which adapters a run has, how large they are and how much they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasklora import SHARED, owners_of


@dataclass(frozen=True)
class Adapter:
    """One LoRA of a run.

    Attributes:
        name: what PEFT calls it; ``default`` is the one that all tasks share.
        tasks: the tasks that use it.
        ranks: the ranks of its layers, each once, rising.
        scales: what its layers' products are multiplied by, each once, rising.
        layers: how many layers it adapts.
        parameters: how many numbers it has.
        norm: the Frobenius norm of what it adds to the weights, over all layers.
    """

    name: str
    tasks: tuple[str, ...]
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    layers: int
    parameters: int
    norm: float


def list_adapters(run: str | Path | MultiTaskModel, *, base: str | Path | None = None) -> list[Adapter]:
    """The adapters of a run, the shared one first; none for full fine-tuning.

    Args:
        run: a run folder, a repository of the Hub, or the model of one.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Raises:
        RunFolderError: not a run folder, or damaged.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte", "cola"], lora={"r": 2}, task_lora={"r": 4, "target_modules": ["query"]})
        >>> [(one.name, one.tasks, one.ranks, one.layers) for one in list_adapters(model)]
        [('default', ('rte', 'cola'), (2,), 4), ('rte', ('rte',), (4,), 2), ('cola', ('cola',), (4,), 2)]
    """
    model = run if isinstance(run, MultiTaskModel) else MultiTaskModel.from_pretrained(run, base=base)
    encoder: Any = model.sharing.encoder
    owners = owners_of(encoder)
    if owners is None:
        names = list(getattr(encoder, "peft_config", ()))
        used = dict.fromkeys(names, model.tasks)
    else:
        names = [name for name in (SHARED, *owners.adapters) if name in getattr(encoder, "peft_config", ())]
        used = {name: [t for t in model.tasks if name in (SHARED, owners.adapter_of[t])] for name in names}
    return [_described(encoder, name, tuple(used[name])) for name in names]


def _described(encoder: Any, name: str, tasks: tuple[str, ...]) -> Adapter:
    ranks, scales, layers, numbers, square = set(), set(), 0, 0, 0.0
    for layer in encoder.modules():
        parts = _parts(layer, name)
        if parts is None:
            continue
        down, up = (part.detach().double().cpu() for part in parts)
        ranks.add(len(down))
        scales.add(float(layer.scaling[name]))
        layers, numbers = layers + 1, numbers + down.numel() + up.numel()
        square += float(((up.T @ up) * (down @ down.T)).sum()) * layer.scaling[name] ** 2  # the norm of B·A, without it
    return Adapter(
        name, tasks, tuple(sorted(ranks)), tuple(sorted(scales)), layers, numbers, float(torch.tensor(square).sqrt())
    )


def _parts(layer: Any, name: str) -> tuple[Tensor, Tensor] | None:
    """A [rank, in] and B [out, rank] of a layer's adapter; None if it has none of this name."""
    linear: Mapping[str, Any] = getattr(layer, "lora_A", {})
    if name in linear:
        return linear[name].weight.flatten(1), layer.lora_B[name].weight.flatten(1)
    words: Mapping[str, Any] = getattr(layer, "lora_embedding_A", {})
    return (words[name], layer.lora_embedding_B[name]) if name in words else None
