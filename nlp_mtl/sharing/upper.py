"""The upper layers of an encoder with an adapter for each group of tasks, in one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from nlp_mtl.depth import layers_of
from nlp_mtl.sharing.apart import follow_layouts
from nlp_mtl.tasklora import SHARED, Owners, check_plain, let_apart


def only_plain_lora(encoder: Any, base: nn.Module, depth: int) -> bool:
    """Whether all that is trained of an encoder is one LoRA that rows can be told apart in, above a depth too."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import Linear

    known = getattr(encoder, "peft_config", {})
    if set(known) != {SHARED} or check_plain(vars(known[SHARED]), "lora"):
        return False
    adapted = [part for part in base.modules() if isinstance(part, LoraLayer)]
    above = {id(part) for layer in layers_of(base)[depth:] for part in layer.modules()}
    return all(type(part) is Linear for part in adapted) and any(id(part) in above for part in adapted)


class UpperLora(nn.Module):
    """An upper part of an encoder whose LoRA is copied for each group; the weights below it are not.

    Args:
        part: of :func:`nlp_mtl.depth.part_of`, with PEFT's layers in it.
        group_of: task → group.
    """

    def __init__(self, part: Any, group_of: Mapping[str, str]):
        super().__init__()
        self.part, self.owners = part, Owners(group_of)
        for layer in [one for one in part.modules() if SHARED in getattr(one, "lora_A", ())]:
            kept: list[Any] = [*vars(layer).values(), *layer.children(), *layer._parameters.values()]
            keyed = [one for one in kept if isinstance(one, (dict, nn.ModuleDict)) and SHARED in one]
            for parts in keyed:  # PEFT keeps each field by adapter
                first = parts[SHARED]
                del parts[SHARED]  # before a group of that name gets its own
                for group in self.owners.adapters:
                    parts[group] = copy.deepcopy(first)
            layer._active_adapter = []
        let_apart(part, self.owners)
        follow_layouts(part)

    def adapter(self, group: str) -> Iterator[nn.Parameter]:
        """A group's parameters."""
        named = self.part.named_parameters()
        return (p for name, p in named if p.requires_grad and group in name.split(".")[-3:-1])
