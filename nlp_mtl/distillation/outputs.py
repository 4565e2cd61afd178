"""What a teacher says of training rows: computed in one pass, kept in a file, and read back."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nlp_mtl.batches import collate, length_sorted, to_device
from nlp_mtl.data import PoolRows
from nlp_mtl.heads.few import only
from nlp_mtl.heads.taught import kind_of
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.paths import cache_folder
from nlp_mtl.terms import encoded

logger = logging.getLogger("nlp_mtl")
VERSION = 2  # raise it when what is kept changes
_ROWS, _TOKENS = 32, 4096  # of one pass


@dataclass
class Outputs:
    """What a teacher's task says of the rows of a pool; see :mod:`nlp_mtl.heads.taught` for items.

    Attributes:
        counts: [rows], the items of each row.
        values: [items, numbers], float32; NaN where the teacher saw nothing of an item.
        states: [items, hidden], float32, or None.
    """

    counts: np.ndarray
    values: np.ndarray
    states: np.ndarray | None = None

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.counts)])

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The numbers and states of a row's items."""
        begin, end = self._starts[number], self._starts[number + 1]
        return self.values[begin:end], None if self.states is None else self.states[begin:end]

    def in_order(self, columns: Sequence[int] | None) -> Outputs:
        """The same with the numbers in another order, that of the labels of who learns."""
        if columns is None or list(columns) == list(range(self.values.shape[1])):
            return self
        return Outputs(self.counts, np.ascontiguousarray(self.values[:, list(columns)]), self.states)


def outputs_of(model: MultiTaskModel, tasks: Sequence[str], rows: PoolRows, *, hidden: bool) -> dict[str, Outputs]:
    """What some tasks of a model say of a pool's rows: one packed pass in float32, without dropout.

    Args:
        model: the teacher; it is left as it was.
        tasks: its tasks.
        rows: tokenized for it.
        hidden: keep the states that heads read too.

    Example:
        >>> from nlp_mtl.data import load_data
        >>> from nlp_mtl.taskfile import Task
        >>> from nlp_mtl.testing import tiny_model
        >>> rows = [{"text": f"dog {i}", "label": "no" if i % 3 else "yes"} for i in range(30)]
        >>> model = tiny_model([Task.from_data("mine", rows)])
        >>> pool = load_data(model.heads, model.tokenizer, max_length=32).pool_of("mine", "train")
        >>> outputs_of(model, ["mine"], pool, hidden=True)["mine"].states.shape[1]
        32
    """
    kept: dict[str, list[tuple[np.ndarray, np.ndarray | None] | None]] = {task: [None] * len(rows) for task in tasks}
    training, teaching, taps = model.training, model.teaching, model.taps
    model.eval()
    model.teaching = model.taps = None
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            for refs in length_sorted([rows], rows=_ROWS, tokens=_TOKENS):
                given = [rows.row(number) for _, number, _ in refs]
                batch = to_device(collate(given, [list(tasks)] * len(given), model.heads), model.device)
                for task, parts in _said(model, batch, given, hidden).items():
                    for (_, number, _), part in zip(refs, parts, strict=True):
                        kept[task][number] = part
    finally:
        model.train(training)
        model.teaching, model.taps = teaching, taps
    return {task: _together(parts) for task, parts in kept.items()}  # type: ignore[arg-type]


def _said(
    model: MultiTaskModel, batch: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], hidden: bool
) -> dict[str, list[tuple[np.ndarray, np.ndarray | None]]]:
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
    packed, _ = encoded(model, inputs, batch["lengths"].tolist(), batch["targets"])
    found = {}
    for task, target in batch["targets"].items():
        head, module = model.heads[task], model.module_of(task)
        kind: Any = kind_of(head)
        seen = only(packed[task], head.dimensions)
        with model.sharing.for_head_of(task):
            scores = head.forward(module, seen, target)
        values = kind.split(head, scores, target, rows)
        states: list[Any] = [None] * len(rows)
        if hidden:
            states = kind.split_states(kind.states(head, module, seen, target), target, rows)
        found[task] = list(zip(values, states, strict=True))
    return found


def _together(parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> Outputs:
    counts = np.array([len(values) for values, _ in parts], dtype=np.int64)
    values = np.concatenate([values for values, _ in parts]).astype(np.float32)
    states = [states for _, states in parts if states is not None]
    return Outputs(counts, values, np.concatenate(states).astype(np.float32) if states else None)


def cache_key(teacher: str, task: str, rows: PoolRows, hidden: bool) -> str:
    """What outputs are kept under: the teacher's weights, its task, the rows as it reads them, and what is kept.

    Args:
        teacher: see :attr:`nlp_mtl.distillation.teachers.Teacher.identity`.
    """
    files = [Path(item["filename"]) for item in rows.table.cache_files]
    # the folder of tokenized rows is called by a hash of the data, the tokenizer and the tasks
    of_rows = [f"{file.parent.name}/{file.name}" for file in files] or [rows.table._fingerprint]
    said = json.dumps([VERSION, teacher, task, of_rows, len(rows), hidden])
    return hashlib.sha256(said.encode()).hexdigest()[:24]


def cached_file(key: str) -> Path:
    """Where outputs of a key are, or would be."""
    return cache_folder() / "teachers" / f"{key}.safetensors"


def save_outputs(file: Path, outputs: Mapping[str, Outputs]) -> None:
    """Write outputs by name; the file appears when it is whole."""
    found: dict[str, np.ndarray] = {}
    for name, one in outputs.items():
        found |= {f"{name}:counts": one.counts, f"{name}:values": one.values}
        if one.states is not None:
            found[f"{name}:states"] = one.states
    file.parent.mkdir(parents=True, exist_ok=True)
    work = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, work)
        os.replace(work, file)
    finally:
        work.unlink(missing_ok=True)


def load_outputs(file: Path) -> dict[str, Outputs] | None:
    """What :func:`save_outputs` wrote; None where there is no such file, or a damaged one."""
    if not file.is_file():
        return None
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        logger.warning("%s is damaged (%s); what a teacher said is computed again", file, error)
        return None
    names = [name.removesuffix(":values") for name in found if name.endswith(":values")]
    return {
        name: Outputs(found[f"{name}:counts"], found[f"{name}:values"], found.get(f"{name}:states")) for name in names
    }
