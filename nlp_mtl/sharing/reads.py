"""Which layer's hidden states a task reads: the last, another one, or a learned mix of all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.depth import ALL, ends_with_norm, layers_of, only_layers
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.folding import merged
from nlp_mtl.packing import Packed, base_of

MIX = "mix"


class Mix(nn.Module):
    """A weighted mean of the hidden states after each layer, times a factor; both are learned.

    Args:
        count: how many layers there are; what the first one reads is mixed in too.

    Relations: the scalar mix of ELMo (Peters et al., 2018, arXiv 1802.05365); with all weight on the last layer, what
    heads read otherwise.

    Example:
        >>> mix = Mix(1)
        >>> mix([torch.zeros(1, 2), torch.ones(1, 2)]).tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, count: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count + 1))
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """[tokens, hidden] of as many [tokens, hidden] as there are layers, and one more."""
        shares = self.weights.softmax(0)
        return self.factor * sum(share * one for share, one in zip(shares, states, strict=True))


class Reads(nn.Module):
    """Where each task reads an encoder.

    Args:
        encoder: the shared encoder.
        layers: task → a number of layers from 1, or ``"mix"``; other tasks read what the encoder gives.
        head_of: task → the task whose head, and so whose mix, it uses.

    Raises:
        ConfigError: numbers of layers that the encoder does not have, of all tasks at once.
        UnsupportedError: an encoder whose layers can't be told apart.
    """

    def __init__(self, encoder: nn.Module, layers: Mapping[str, int | str], head_of: Mapping[str, str] | None = None):
        super().__init__()
        self.head_of = dict(head_of or {})
        self.count = len(layers_of(base_of(encoder))) if layers else 0
        wrong = [
            f"head of {task!r}: `layer` is a whole number from 1 to {self.count}, or mix, found {layer!r}; leave it "
            f"out for {self.count}"
            for task, layer in layers.items()
            if layer != MIX
            and not (isinstance(layer, int) and not isinstance(layer, bool) and 1 <= layer <= self.count)
        ]
        if wrong:
            raise ConfigError(wrong)
        self.layers = {task: ALL if layer == self.count else layer for task, layer in layers.items()}
        mixed = dict.fromkeys(self.head_of.get(task, task) for task, layer in layers.items() if layer == MIX)
        self.mixes = nn.ModuleDict({task: Mix(self.count) for task in mixed})

    def depths(self, tasks: Sequence[str]) -> set[int]:
        """What these tasks need of the encoder."""
        if not self.layers:
            return {ALL}
        found: set[int] = set()
        for layer in (self.layers.get(task, ALL) for task in tasks):
            found |= {*range(self.count), ALL} if isinstance(layer, str) else {layer}
        return found

    def of(self, task: str, found: Mapping[int, Packed]) -> Packed:
        """What a task reads, of what the encoder gave at some depths."""
        layer = self.layers.get(task, ALL)
        if not isinstance(layer, str):
            return found[layer]
        states = [found[depth].hidden for depth in [*range(self.count), ALL]]
        return Packed(self.mixes[self.head_of.get(task, task)](states), found[ALL].layout)

    def note(self, encoder: nn.Module) -> str:
        """What is to be known of where some tasks read; empty for nothing."""
        below = [task for task, layer in self.layers.items() if isinstance(layer, int) and layer != ALL]
        if not below or not ends_with_norm(base_of(encoder)):
            return ""
        return (
            f"; {', '.join(below)}: before the norm that {type(base_of(encoder)).__name__} ends with, so no vanilla "
            "folder can hold what is read"
        )

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """How a task mixes layers."""
        task = self.head_of.get(task, task)
        return self.mixes[task].parameters() if task in self.mixes else iter(())

    def config_of(self, task: str, config: Any) -> Any:
        """The encoder's config with as many layers as a task reads."""
        layer = self.layers.get(task, ALL)
        if layer == ALL or isinstance(layer, str):
            return config
        config = copy.deepcopy(config)
        config.num_hidden_layers = layer
        return config

    def collapsed(self, task: str, encoder: Any, adapter: str | None) -> PreTrainedModel:
        """The encoder, or for a task that reads a lower layer a merged copy that ends there.

        Args:
            task: a task.
            encoder: the shared encoder.
            adapter: the name of the task's own adapter in it, or None.

        Raises:
            UnsupportedError: no ordinary encoder gives what the task reads.
        """
        layer = self.layers.get(task, ALL)
        if layer == ALL:
            return base_of(encoder)
        if isinstance(layer, str):
            raise UnsupportedError(f"task {task!r} reads a mix of all layers (`layer: mix`), which no encoder gives")
        if ends_with_norm(base_of(encoder)):
            raise UnsupportedError(
                f"task {task!r} reads layer {layer}, before the norm that {type(base_of(encoder)).__name__} ends with"
            )
        return only_layers(merged(encoder, adapter), int(layer))
