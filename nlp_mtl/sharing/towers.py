"""Sharings with copies of an encoder's layers: what they have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.depth import cut, layers_of, part_of, put_layers
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.folding import merged
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, choose_way, encode, encode_at
from nlp_mtl.sharing import apart
from nlp_mtl.sharing.base import ONE_AT_A_TIME, Sharing
from nlp_mtl.tasklora import owners_of


class Towers(Sharing):
    """The lower layers are shared; above them each group of tasks has layers of its own.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one; LoRAs in copied layers are copied too.
        tasks: the tasks' names.
        groups: group → its tasks; each task is in one.
        depth: how many layers are shared; with all, nothing is copied.

    Raises:
        UnsupportedError: an encoder whose layers can't be parted, or with adapters of tasks.
    """

    def __init__(self, encoder: nn.Module, tasks: Sequence[str], groups: Mapping[str, Sequence[str]], depth: int):
        super().__init__(encoder, tasks)
        if owners_of(encoder) is not None:
            raise UnsupportedError(
                f"sharing {self.registered_as!r}: copies layers for tasks, and with `task_lora` tasks have adapters of "
                "their own beside; use `lora`, or leave both out"
            )
        self.way, why = choose_way(encoder)
        if self.way == "stacked":
            raise UnsupportedError(f"sharing {self.registered_as!r}: reads texts, and of this encoder {why}; use hard")
        base = base_of(encoder)
        self.count = len(layers_of(base))
        self.depth = depth
        self.group_of = {task: group for group, members in groups.items() for task in members}
        self.groups = {group: [task for task in tasks if task in members] for group, members in groups.items()}
        self.towers = nn.ModuleDict()
        before = _probe(self, Towers.encode)
        if depth < self.count:
            self._grow()
        if not (difference := float((_probe(self, type(self).encode) - before).abs().max())) < 1e-4:
            raise UnsupportedError(
                f"sharing {self.registered_as!r}: {type(base).__name__} in parts differs from itself by "
                f"{difference:.1g}, so its layers can't be parted; use another sharing"
            )
        shared = f"{depth} of {self.count} layers shared, {len(self.groups)} groups above"
        self.log = f"encoder pass: {self.way}; {why}; {shared}"

    def _grow(self) -> None:
        """Copy the upper layers for every group, and take them out of what is shared."""
        base = base_of(self.encoder)
        for group in self.groups:
            self.towers[group] = part_of(base, self.depth)
        if self.depth:
            cut(base, self.depth)
        else:  # nothing is shared: what stands for the encoder is the first one, and no part of this module
            del self.encoder
            self.__dict__["encoder"] = next(iter(self.towers.values()))

    def lend(self, head_of: Mapping[str, str]) -> None:
        """See :meth:`Sharing.lend`: they are in the same group."""
        super().lend(head_of)
        self.group_of.update({task: self.group_of[other] for task, other in head_of.items()})

    @property
    def ordinary(self) -> bool:
        """Only where nothing is copied."""
        return not self.towers

    def encoder_of(self, task: str) -> nn.Module:
        """The upper part of the task's group, which has the pooler."""
        return self.towers[self.group_of[task]] if self.towers else self.encoder

    def train(self, mode: bool = True) -> Towers:
        """Training mode; without trainable parameters it stays in eval mode, so that its features are fixed."""
        super().train(mode)
        if mode and not any(p.requires_grad for p in self.parameters()):
            self.eval()
        return self

    def alone(self) -> AbstractContextManager[object]:
        """Where a pass stops is kept with the parts; an encoder that is whole needs nothing of the kind."""
        return nullcontext() if self.ordinary else ONE_AT_A_TIME

    def lower(self, inputs: Mapping[str, Tensor], layout: Layout) -> Mapping[str, Tensor]:
        """What the upper parts read: the hidden states after the shared layers, computed once; or what came."""
        if not self.depth:
            return inputs
        found = encode_at(self.encoder, inputs, layout, self.way, (self.depth,))
        return {"inputs_embeds": found[self.depth]}

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """The shared part in one pass over all rows, each group's part over the rows that its tasks read."""
        if not self.towers:
            return dict.fromkeys(tasks, Packed(encode(self.encoder, inputs, layout, self.way), layout))
        if layout.taps is not None:
            layout.taps.see(None, layout.read_by)
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())):
            given, found = self.lower(inputs, layout), {}
            for group in dict.fromkeys(self.group_of[task] for task in tasks):
                readers = [task for task in tasks if self.group_of[task] == group]
                found[group] = Packed(self._above(group, readers, given, layout), layout)
        return {task: found[self.group_of[task]] for task in tasks}

    def _above(self, group: str, readers: Sequence[str], given: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """[tokens, hidden]: what a group's part makes of the rows that some of its tasks read; 0 for others."""
        count = len(layout.lengths)
        rows = sorted({row for task in readers for row in apart.sequences_of(task, layout, count)})
        if len(rows) == count:
            return encode(self.towers[group], given, layout, self.way)
        index = torch.tensor(rows)
        tokens, part = layout.tokens_of(index), apart.part_of(layout, index)
        mine = {name: value.index_select(0, tokens) for name, value in given.items()}
        hidden = encode(self.towers[group], mine, part, self.way)
        return hidden.new_zeros(layout.tokens, hidden.shape[-1]).index_copy(0, tokens, hidden)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Of the shared layers, and of the groups of more than one task."""
        parts = [self.encoder] if self.depth or not self.towers else []
        parts += [self.towers[g] for g, members in self.groups.items() if len(members) > 1 and self.towers]
        return (p for part in parts for p in part.parameters() if p.requires_grad)

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """The upper part of the task's group, if no other task is in it."""
        group = self.group_of[task]
        if not self.towers or len(self.groups[group]) > 1:
            return iter(())
        return (p for p in self.towers[group].parameters() if p.requires_grad)

    def own_state(self) -> dict[str, Tensor]:
        """All that was trained or may be: with LoRA the adapters, else shared and upper parts whole."""
        if not self.towers:
            return {}
        adapted = any(map(is_adapter, (name for name, _ in self.named_parameters())))
        return {name: p for name, p in self.named_parameters() if is_adapter(name) or not adapted}

    def collapse(self, task: str) -> PreTrainedModel:
        """The shared layers and those of the task's group above them, LoRAs merged."""
        if not self.towers:
            return base_of(self.encoder)
        tower = merged(self.towers[self.group_of[task]])
        if not self.depth:
            return tower
        return joined(merged(self.encoder), tower)


def joined(lower: Any, upper: Any) -> Any:
    """One encoder of a lower part that :func:`nlp_mtl.depth.cut` left and an upper one, both used up."""
    layers = [*list(layers_of(lower))[:-1], *layers_of(upper)]
    for part, module in upper.named_children():
        if isinstance(getattr(lower, part, None), nn.Identity) or getattr(lower, part, 0) is None:
            setattr(lower, part, module)
    put_layers(lower, layers)
    lower.config = copy.deepcopy(upper.whole_config)
    return lower


@torch.no_grad()
def _probe(sharing: Towers, encode_with: Callable[..., Any]) -> Tensor:
    """[groups, tokens, hidden]: what the groups' tasks get of two short sequences."""
    base, training = base_of(sharing.encoder), sharing.training
    size, device = base.config.vocab_size, next(base.parameters()).device
    ids = (torch.arange(14) * 7919 % (size - 5) + 5).to(device)
    sharing.eval()
    try:
        firsts = [members[0] for members in sharing.groups.values() if members]
        found = encode_with(sharing, {"input_ids": ids}, Layout([5, 9], device), firsts)
        return torch.stack([found[task].hidden for task in firsts])
    finally:
        sharing.train(training)
