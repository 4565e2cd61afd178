"""A task's features: what the fixed encoder gives for its rows, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nlp_mtl.batches import Collator, to_device
from nlp_mtl.depth import ALL
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.heads.multi_label import MultiLabel
from nlp_mtl.heads.multiple_choice import MultipleChoice
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, encode_at
from nlp_mtl.probing.features import places_read
from nlp_mtl.transferring.opening import Opened


@dataclass(frozen=True)
class TaskFeatures:
    """What an encoder gives for a task.

    Attributes:
        texts: [rows, hidden], the mean of each row's tokens.
        units: [units, hidden], what the task's head would read for each label; as many as there are rows, where a task
            labels rows; of multiple choice each option. Empty where a head reads no single vector for a label.
        labels: [units], class numbers or values, of an option whether it is the right one; [units, labels] of 0 and 1
            where a row has any number of labels.
        groups: [units], the row that a unit is of.
    """

    texts: np.ndarray
    units: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    @property
    def numbers(self) -> bool:
        """Whether labels are values, and not classes."""
        return self.labels.dtype.kind == "f"


def features_of(opened: Opened, task: str) -> TaskFeatures:
    """Compute a task's features, or read them.

    Args:
        opened: the encoder and the rows.
        task: one of its tasks.

    cost: one pass of the encoder over the task's rows, the first time.
    """
    if (key := f"features:{task}") not in opened.known:
        found = opened.kept("features", [opened.fingerprint(task)], lambda: _computed(opened, task))
        opened.known[key] = TaskFeatures(**found)
    return opened.known[key]


def batches_of(lengths: np.ndarray, *, rows: int = 64, tokens: int = 8192) -> list[np.ndarray]:
    """Places of rows in batches of similar length, the longest first.

    Example:
        >>> [part.tolist() for part in batches_of(np.array([1, 9, 5]), rows=2)]
        [[1, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    found: list[np.ndarray] = []
    begin = held = 0
    for place, row in enumerate(order):
        if place > begin and (place - begin >= rows or held + lengths[row] > tokens):
            found.append(order[begin:place])
            begin, held = place, 0
        held += int(lengths[row])
    return [*found, order[begin:]]


@torch.inference_mode()
def _computed(opened: Opened, task: str) -> dict[str, np.ndarray]:
    model, pool, rows = opened.model, opened.data.pool_of(task, "train"), opened.rows[task]
    assert pool is not None
    head, module = model.heads[task], model.module_of(task)
    collator = Collator([pool], {name: model.heads[name] for name in pool.tasks})
    texts: np.ndarray | None = None
    units, labels, groups = [], [], []
    model.eval()
    for part in batches_of(pool.tokens[rows]):
        batch = to_device(collator([(0, int(number), -1) for number in rows[part]]), model.device)
        if "lengths" not in batch:
            raise UnsupportedError(f"transferability: the rows of task {task!r} are no texts; leave it out")
        layout = Layout(batch["lengths"].tolist(), model.device)
        inputs = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
        with torch.autocast(torch.device(model.device).type, enabled=False):
            found = encode_at(model.sharing.encoder, inputs, layout, model.sharing.way, (ALL,))[ALL]
        packed = Packed(found, layout)
        lengths = [np.asarray(pool.columns["lengths"][int(number)]) for number in rows[part]]
        counts = [len(one) for one in lengths]
        owner = np.repeat(np.arange(len(part)), counts)[np.lexsort((np.concatenate(lengths),))]  # as it is packed
        each = packed.means(torch.arange(len(owner), device=model.device)).float().cpu().numpy()
        texts = np.zeros((len(rows), each.shape[1]), dtype=np.float32) if texts is None else texts
        np.add.at(texts, part[owner], each / np.asarray(counts, dtype=np.float32)[owner][:, None])
        target = batch["targets"][task]
        try:
            places, own, values = _read(task, head, module, layout, target)
        except UnsupportedError:  # answers somewhere in a text: only its texts are looked at
            continue
        read = packed.means(target["sequences"]) if places is None else packed.hidden[places]
        known = values >= 0 if values.dtype.kind in "iu" else np.ones(len(values), dtype=bool)  # words without a tag
        known = np.asarray(known if known.ndim == 1 else known.all(1))
        rows_of = part[batch["owners"][task].cpu().numpy()]  # a batch has its rows in an order of its own
        units.append(read.float().cpu().numpy()[known])
        labels.append(values[known])
        groups.append((rows_of if own is None else rows_of[own])[known])
    assert texts is not None
    if not units:
        return {"texts": texts, "units": texts[:0], "labels": np.zeros(0, dtype=int), "groups": np.zeros(0, dtype=int)}
    order = np.argsort(np.concatenate(groups), kind="stable")
    whole = {"units": units, "labels": labels, "groups": groups}
    return {"texts": texts, **{name: np.concatenate(parts)[order] for name, parts in whole.items()}}


def _read(task: str, head: Any, module: Any, layout: Layout, target: Any) -> tuple[Any, np.ndarray | None, np.ndarray]:
    """As :func:`places_read`, with the labels; also of options, and of rows with any number of labels."""
    labels = target.get("labels")
    if isinstance(head, MultipleChoice):
        counts, sequences = target["counts"].cpu().numpy(), target["sequences"]
        own = np.repeat(np.arange(len(counts)), counts)
        option = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        return _places(head, module, layout, sequences), own, (option == labels.cpu().numpy()[own]).astype(int)
    if isinstance(head, MultiLabel):
        return _places(head, module, layout, target["sequences"]), None, labels.cpu().numpy().astype(int)
    places, own_or_none = places_read(task, head, module, layout, target)
    return places, own_or_none, labels.cpu().numpy()


def _places(head: Any, module: Any, layout: Layout, sequences: Any) -> Any:
    way = head._way(module)
    return None if way == "mean" else (layout.firsts if way == "cls" else layout.lasts)[sequences]
