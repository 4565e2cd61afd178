"""A task's features: what the fixed encoder gives for its rows, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nlp_mtl.batches import Collator, to_device
from nlp_mtl.depth import ALL
from nlp_mtl.errors import UnsupportedError
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
            labels rows. Empty where a head reads no single vector for a label.
        labels: [units], class numbers or values.
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
            places, own = places_read(task, head, module, layout, target)
        except UnsupportedError:  # several labels or answers for a row: only its texts are looked at
            continue
        read = packed.means(target["sequences"]) if places is None else packed.hidden[places]
        values = target["labels"].cpu().numpy()
        known = values >= 0 if values.dtype.kind in "iu" else np.ones(len(values), dtype=bool)  # words without a tag
        units.append(read.float().cpu().numpy()[known])
        labels.append(values[known])
        groups.append((part if own is None else part[own])[known])
    assert texts is not None
    if not units:
        return {"texts": texts, "units": texts[:0], "labels": np.zeros(0, dtype=int), "groups": np.zeros(0, dtype=int)}
    order = np.argsort(np.concatenate(groups), kind="stable")
    whole = {"units": units, "labels": labels, "groups": groups}
    return {"texts": texts, **{name: np.concatenate(parts)[order] for name, parts in whole.items()}}
