"""A mixed batch through an encoder with one adapter per task: each sequence by the adapter of who reads it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from nlp_mtl.depth import ALL
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.layers import is_replaced
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, Way, base_of, encode_at
from nlp_mtl.tasklora import NOBODY, Owners, follow

Encode = Callable[[nn.Module, Mapping[str, Tensor], Layout, Way, Collection[int]], dict[int, Tensor]]


def encode_apart(
    encoder: nn.Module,
    inputs: Mapping[str, Tensor],
    layout: Layout,
    way: Way,
    owners: Owners,
    tasks: Sequence[str],
    depths: Collection[int] = (ALL,),
    call: Encode = encode_at,
) -> dict[str, dict[int, Packed]]:
    """Hidden states for each task, each sequence by what is its own task's.

    A sequence that tasks with different adapters read goes in once for each of them. A family that packs takes one
    pass for all, another takes one for each adapter.

    Args:
        encoder: with parts that ask `owners` whose the rows are, e.g. task adapters.
        inputs, layout, tasks: as in :meth:`nlp_mtl.sharing.Sharing.encode`.
        way: how the family takes a batch.
        owners: the encoder's.
        depths: after how many layers.
        call: runs the encoder.

    Returns:
        For each task and depth the hidden states of all sequences; those it does not read are of no meaning to it.
    """
    texts = way != "stacked"
    count = len(layout.lengths) if texts else len(next(iter(inputs.values())))
    source, owner, copy_of = _copies(count, owners, {task: sequences_of(task, layout, count) for task in tasks})
    whole = len(source) == count  # nothing is read by two adapters, so nothing is copied
    index = torch.tensor(source)
    owners.also = tuple(sorted(set(map(owners.number, layout.counted)) - {NOBODY}))
    if not whole:
        rows = layout.tokens_of(index) if texts else index.to(layout.device)
        inputs = {name: value.index_select(0, rows) for name, value in inputs.items()}
        if layout.taps is not None:  # the rows are others now
            layout.taps.see(None, layout.read_by)
        layout = part_of(layout, index) if texts else layout
    if way == "packed":
        layout.owners = owners
        layout.owner = torch.tensor(owner).repeat_interleave(torch.tensor(layout.lengths))
        owners.let(layout.owner)
        found = call(encoder, inputs, layout, way, depths)
    else:
        found = _one_by_one(encoder, inputs, layout, way, owners, torch.tensor(owner), depths, call)
    if not texts:  # every row gives as many states, e.g. one per image patch
        some = next(iter(found.values()))
        layout = Layout([len(some) // len(source)] * len(source), some.device)
    if whole:
        same = {depth: Packed(hidden, layout) for depth, hidden in found.items()}
        return dict.fromkeys(tasks, same)
    made: dict[int, dict[int, Packed]] = {}
    for number, copy in copy_of.items():
        rows, part = layout.tokens_of(copy), part_of(layout, copy)
        made[number] = {depth: Packed(hidden[rows], part) for depth, hidden in found.items()}
    return {task: made[owners.number(task)] for task in tasks}


def follow_layouts(encoder: nn.Module) -> None:
    """Let every layer say whose its rows are, from the layout it is called with.

    A layer whose activations are recomputed runs again in the backward pass, when other rows may have gone through the
    encoder. What runs again is its `forward`, without the layer's own hooks, so they are on its parts, of which
    attention is the first and is called with the layout. Layers of :mod:`nlp_mtl.layers` do so by themselves.
    """
    for layer in base_of(encoder).modules():
        if isinstance(layer, GradientCheckpointingLayer) and not is_replaced(layer):
            for part in layer.children():
                part.register_forward_pre_hook(_follow, with_kwargs=True)


def _follow(part: nn.Module, given: tuple[object, ...], named: dict[str, object]) -> None:
    layout = named.get("packed_layout")
    if isinstance(layout, Layout):
        follow(layout)


def sequences_of(task: str, layout: Layout, count: int) -> list[int]:
    """The sequences that a task reads."""
    known = layout.read_by.get(task)
    if known is None:
        return list(range(count))
    return torch.searchsorted(torch.tensor(layout.offsets[1:]), known.cpu(), right=True).unique().tolist()


def _copies(
    count: int, owners: Owners, read_by: Mapping[str, Sequence[int]]
) -> tuple[list[int], list[int], dict[int, Tensor]]:
    """Which sequences go in for which adapters.

    Returns:
        The sequence of each copy; its adapter's number; and for each adapter [sequences] the copy it takes: its own, or
        for sequences it does not read any.
    """
    wanted: list[set[int]] = [set() for _ in range(count)]
    for task, sequences in read_by.items():
        for sequence in sequences:
            wanted[sequence].add(owners.number(task))
    pairs = [(sequence, number) for sequence, numbers in enumerate(wanted) for number in sorted(numbers or {NOBODY})]
    place = {pair: i for i, pair in enumerate(pairs)}
    first = {sequence: i for i, (sequence, _) in reversed(list(enumerate(pairs)))}
    copy_of = {
        number: torch.tensor([place.get((sequence, number), first[sequence]) for sequence in range(count)])
        for number in map(owners.number, read_by)
    }
    return [sequence for sequence, _ in pairs], [number for _, number in pairs], copy_of


def part_of(layout: Layout, sequences: Tensor) -> Layout:
    """The layout of some sequences, one after the other."""
    made = Layout([layout.lengths[i] for i in sequences.tolist()], layout.device)
    made.read = layout.read[layout.tokens_of(sequences)] if layout.read is not None else None
    return made


def _one_by_one(
    encoder: nn.Module,
    inputs: Mapping[str, Tensor],
    layout: Layout,
    way: Way,
    owners: Owners,
    owner: Tensor,
    depths: Collection[int],
    call: Encode,
) -> dict[int, Tensor]:
    """For each depth [tokens, hidden], in as many calls as there are adapters."""
    numbers = owner.unique().tolist()
    if len(numbers) > 1 and torch.is_grad_enabled() and getattr(base_of(encoder), "is_activation_checkpointing", False):
        raise UnsupportedError(
            f"task_lora: {type(base_of(encoder)).__name__} takes one call for each adapter, and recomputing "
            "(activation_checkpointing) would not know whose activations they are; leave one of both out"
        )
    parts: dict[int, list[Tensor]] = {depth: [] for depth in depths}
    places = []
    for number in numbers:
        mine = torch.nonzero(owner == number).squeeze(1)
        rows = layout.tokens_of(mine) if way == "padded" else mine.to(layout.device)
        owners.let(int(number))
        chosen = {name: value.index_select(0, rows) for name, value in inputs.items()}
        found = call(encoder, chosen, part_of(layout, mine) if way == "padded" else layout, way, depths)
        for depth, hidden in found.items():
            parts[depth].append(hidden.view(len(rows), -1, hidden.shape[-1]))
        places.append(rows)
    back = torch.cat(places).argsort()
    return {depth: torch.cat(hidden)[back].flatten(0, 1) for depth, hidden in parts.items()}
