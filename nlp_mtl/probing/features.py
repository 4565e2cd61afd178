"""A task's features at every layer of a fixed encoder, computed in one pass over its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nlp_mtl.batches import Collator, length_sorted, to_device
from nlp_mtl.depth import ALL, layers_of
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.heads.pooled import PooledHead
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, encode_at


@dataclass(frozen=True)
class Features:
    """What a task's head would read.

    Attributes:
        layers: layer → [units, hidden], float32; layers count from 1, as in a head's `layer`.
        labels: [units]: class numbers, or values.
        groups: [units], the row that a unit is of.
    """

    layers: dict[int, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray


def features_of(model: Any, data: Any, task: str, split: str, *, most: int = 2000, seed: int = 0) -> Features | None:
    """Features of some labelled rows; None of a split without any.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel` with `sharing: hard`.
        data: its tokenized rows.
        task: whose rows and head.
        split: which rows.
        most: at most so many rows, drawn at random.
        seed: of the draw.

    Raises:
        UnsupportedError: a head that reads neither one vector for a label nor one for each.
    """
    head, module, pool = model.heads[task], model.module_of(task), data.pool_of(task, split)
    if pool is None:
        return None
    labelled = np.flatnonzero(pool.labelled(task))
    chosen = np.sort(np.random.default_rng(seed).permutation(labelled)[:most])
    if not len(chosen) or not head.needs_labels:
        return None
    count = len(layers_of(base_of(model.sharing.encoder)))
    depths = {layer: layer if layer < count else ALL for layer in range(1, count + 1)}
    parts: dict[int, list[np.ndarray]] = {layer: [] for layer in depths}
    labels: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    collator = Collator([pool], {name: model.heads[name] for name in pool.tasks})
    wanted = set(chosen.tolist())
    model.eval()
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        for refs in length_sorted([pool], rows=64, tokens=8192):
            here = [ref for ref in refs if ref[1] in wanted]
            if not here:
                continue
            batch = to_device(collator(here), model.device)
            target, layout = batch["targets"][task], Layout(batch["lengths"].tolist(), model.device)
            inputs = {key: batch[key] for key in ("input_ids", "token_type_ids") if key in batch}
            found = encode_at(model.sharing.encoder, inputs, layout, model.sharing.way, set(depths.values()))
            places, own = places_read(task, head, module, layout, target)
            values = target["labels"].cpu().numpy()
            known = (
                values >= 0 if values.dtype.kind in "iu" else np.ones(len(values), dtype=bool)
            )  # words without a tag
            for layer, depth in depths.items():
                packed = Packed(found[depth], layout)
                vectors = packed.hidden[places] if places is not None else packed.means(target["sequences"])
                parts[layer].append(vectors.float().cpu().numpy()[known])
            labels.append(values[known])
            rows = np.array([ref[1] for ref in here])
            groups.append((rows[own] if own is not None else rows)[known])
    return Features(
        {layer: np.concatenate(found) for layer, found in parts.items()}, np.concatenate(labels), np.concatenate(groups)
    )


def places_read(task: str, head: Any, module: Any, layout: Layout, target: Any) -> tuple[Any, np.ndarray | None]:
    """The tokens that are read, one for each label (None: the mean of all), and which row each is of (None: each)."""
    labels = target.get("labels")
    if labels is None or labels.ndim != 1:
        raise UnsupportedError(
            f"probe: task {task!r} has no single label for what its head reads ({head.task.head_name}); probe "
            "classification, regression or tagging"
        )
    if isinstance(head, PooledHead):
        sequences = target["sequences"]
        if sequences.ndim != 1 or len(sequences) != len(labels):
            raise UnsupportedError(f"probe: task {task!r} reads several texts for a label; probe another")
        way = head._way(module)
        return (None if way == "mean" else (layout.firsts if way == "cls" else layout.lasts)[sequences]), None
    places = head.reads(module, layout, target)
    if len(places) != len(labels):
        raise UnsupportedError(
            f"probe: task {task!r} reads {len(places)} tokens for {len(labels)} labels ({head.task.head_name}); probe "
            "classification, regression or tagging"
        )
    if "counts" not in target:
        return places, None
    return places, np.repeat(np.arange(len(target["counts"])), target["counts"].cpu().numpy())
