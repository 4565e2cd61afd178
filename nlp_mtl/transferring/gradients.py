"""Products of the tasks' mean gradients of a shared encoder, with heads warmed up on its fixed features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nlp_mtl.batches import Collator, to_device
from nlp_mtl.depth import heights, layers_of
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads.few import only
from nlp_mtl.heads.pooled import PooledHead
from nlp_mtl.heads.token_classification import TokenClassification
from nlp_mtl.heads.told import units_of
from nlp_mtl.packing import base_of
from nlp_mtl.terms import encoded
from nlp_mtl.transferring.opening import Opened

_SHIFTS = 31  # of a batch's labels among its rows; all there are in batches of 32


@dataclass(frozen=True)
class Gradients:
    """What is known of the tasks' gradients at the pretrained weights.

    Attributes:
        products: [2, m, 2, m], products of mean gradients; the first and second half of each task's rows.
        losses: [2, m], of the halves.
        warm: [m], the last loss on the rows that heads were warmed up on.
    """

    products: np.ndarray
    losses: np.ndarray
    warm: np.ndarray

    @property
    def agreement(self) -> np.ndarray:
        """[m]: how like the mean gradient over all rows another sample's would be, from the cosine of the halves.

        Relations: the correction of split halves by Spearman and Brown (1910, British Journal of Psychology 3).
        """
        many = range(self.products.shape[1])
        across = np.array([self.products[0, task, 1, task] for task in many])
        norms = [np.array([self.products[half, task, half, task] for task in many]) for half in (0, 1)]
        both = np.sqrt(norms[0] * norms[1])
        cosine = np.where(both > 0, across / np.where(both > 0, both, 1.0), 0.0)
        return np.where(cosine > 0, 2 * cosine / (1 + cosine), cosine)


def gradients_of(
    opened: Opened, *, layers: int | None, rows: int, passes: int, rate: float, batch: int = 32
) -> Gradients:
    """Warm heads up on half of the rows, then take the mean gradients over the two quarters that are left.

    Args:
        opened: the encoder and the rows.
        layers: of so many layers from the top; None for all. Embeddings are left out: theirs tell of words alone.
        rows: at most so many rows of each task.
        passes: over the rows that heads are warmed up on.
        rate: learning rate of the heads.
        batch: rows of a step.

    Raises:
        ConfigError: more layers than there are, or more numbers than fit into memory.
    """
    arguments = {"layers": layers, "rows": rows, "passes": passes, "rate": rate, "batch": batch, "seed": opened.seed}
    if (key := f"gradients:{json.dumps(arguments)}") not in opened.known:
        chosen = _chosen(opened, layers)
        of = [arguments, [opened.fingerprint(task) for task in opened.tasks]]
        found = opened.kept("gradients", of, lambda: _computed(opened, chosen, rows, passes, rate, batch))
        opened.known[key] = Gradients(**found)
    return opened.known[key]


def loss_of(model: Any, batch: dict[str, Any], task: str) -> Tensor:
    """A task's mean loss on a batch, with its history."""
    with torch.autocast(torch.device(model.device).type, enabled=False):
        return type(model).forward(model, **{**batch, "targets": {task: batch["targets"][task]}}, return_logits=False)[
            "loss"
        ]


def label_loss(model: Any, batch: dict[str, Any], task: str) -> tuple[Tensor, float]:
    """A task's mean loss less what it is, on average, with the batch's labels dealt anew; and the loss.

    What the difference says of the encoder comes from which row has which label. Else gradients of new heads tell most
    of all how often each label is in the batch, and how sure the head is. Only the losses are computed several times.
    Where labels can't change places (spans of a text, words to write), it is the loss as it is.
    """
    target, head, module = batch["targets"][task], model.heads[task], model.module_of(task)
    inputs: dict[str, Tensor] = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
    with torch.autocast(torch.device(model.device).type, enabled=False):
        packed, _ = encoded(model, inputs, batch["lengths"].tolist(), {task: target}, [])
        scores = head.forward(module, only(packed[task], head.dimensions), target)
        units = units_of(head, target)
        loss = head.loss(scores, target) / units
        many = len(target["labels"])
        if many < 2 or not isinstance(head, (PooledHead, TokenClassification)):
            return loss, float(loss.detach())
        shifts = np.unique(np.linspace(1, many - 1, min(many - 1, _SHIFTS)).astype(int)).tolist()
        dealt = [head.loss(scores, {**target, "labels": target["labels"].roll(by, 0)}) / units for by in shifts]
        return loss - torch.stack(dealt).mean(), float(loss.detach())


def batches(opened: Opened, model: Any, task: str, rows: np.ndarray, size: int) -> list[dict[str, Any]]:
    """Mixed batches of a task's rows, in their order."""
    pool = opened.data.pool_of(task, "train")
    assert pool is not None
    collator = Collator([pool], {name: model.heads[name] for name in pool.tasks})
    parts = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [to_device(collator([(0, int(number), -1) for number in part]), model.device) for part in parts]


def warm_up(
    opened: Opened, model: Any, task: str, rows: np.ndarray, *, passes: int, rate: float, size: int = 16
) -> float:
    """Train a task's head on fixed features; gives the last pass's mean loss.

    Args:
        opened, model, task: whose head.
        rows: numbers of rows.
        passes, rate, size: of AdamW.
    """
    module = model.module_of(task)
    weights = [p for p in module.parameters() if p.requires_grad]
    last = 0.0
    model.eval()
    with fixed(model):
        model.sharing.keep_features()
        each = batches(opened, model, task, rows, size)
        adamw = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01) if weights else None
        for number in range(passes):
            order = np.random.default_rng((opened.seed, number)).permutation(len(each))
            total = 0.0
            for place in order:
                loss = loss_of(model, each[place], task)
                total += float(loss.detach()) / len(each)
                if adamw is not None and loss.requires_grad:
                    adamw.zero_grad()
                    loss.backward()
                    adamw.step()
            last = total
        for parameter in weights:
            parameter.grad = None
        model.sharing.cache = None
    return last


@contextmanager
def fixed(model: Any) -> Iterator[None]:
    """Inside this block nothing of the encoder is trained."""
    encoder = list(model.sharing.encoder.parameters())
    before = [p.requires_grad for p in encoder]
    for parameter in encoder:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in zip(encoder, before, strict=True):
            parameter.requires_grad_(wanted)


def start_alike(model: Any) -> None:
    """Let heads of the same shape begin with the same weights, so that tasks differ by their rows alone."""
    first: dict[Any, dict[str, Tensor]] = {}
    for module in model.modules_.values():
        state = {name: p.detach() for name, p in module.named_parameters()}
        kind = (type(module), tuple((name, tuple(value.shape)) for name, value in state.items()))
        known = first.setdefault(kind, state)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.data_ptr() != known[name].data_ptr():
                    parameter.copy_(known[name])


def _chosen(opened: Opened, layers: int | None) -> list[nn.Parameter]:
    base = base_of(opened.model.sharing.encoder)
    count = len(layers_of(base))
    if layers is not None and layers > count:
        raise ConfigError(f"evidence: `layers` is at most {count} for this encoder, found {layers}; leave it out")
    lowest, at = 1 if layers is None else count - layers + 1, heights(base)
    found = [p for name, p in base.named_parameters() if lowest <= at[name] <= count]
    need = 2 * len(opened.tasks) * sum(p.numel() for p in found) * 4
    if need > psutil.virtual_memory().available // 2:
        raise ConfigError(
            f"evidence: gradients of {len(opened.tasks)} tasks take {need >> 20} MB, more than half of the memory that "
            f"is free; look at fewer layers, `layers: {max(1, count // 3)}`, or at fewer tasks"
        )
    return found


def _computed(
    opened: Opened, chosen: list[nn.Parameter], rows: int, passes: int, rate: float, batch: int
) -> dict[str, np.ndarray]:
    model, many = opened.model, len(opened.tasks)
    before = {name: value.clone() for name, value in model.modules_.state_dict().items()}
    numbers = torch.zeros(2 * many, sum(p.numel() for p in chosen))
    losses, warm = np.zeros((2, many)), np.zeros(many)
    start_alike(model)
    wanted = [p.requires_grad for p in model.sharing.parameters()]
    try:
        for place, task in enumerate(tqdm(opened.tasks, desc="gradients", unit="task", disable=not opened.progress)):
            some = opened.rows[task][:rows]
            cuts = [len(some) // 2, len(some) // 2 + len(some) // 4]
            first, *halves = np.split(some, cuts)
            warm[place] = warm_up(opened, model, task, first, passes=passes, rate=rate, size=batch)
            for parameter in model.sharing.parameters():
                parameter.requires_grad_(False)
            for parameter in chosen:
                parameter.requires_grad_(True)
            for half, part in enumerate(halves):
                gradient, losses[half, place] = mean_gradient(opened, model, task, part, chosen, batch)
                numbers[half * many + place] = gradient
    finally:
        model.modules_.load_state_dict(before)
        for parameter, was in zip(model.sharing.parameters(), wanted, strict=True):
            parameter.requires_grad_(was)
    products = (numbers @ numbers.T).double().numpy().reshape(2, many, 2, many)
    return {"products": products, "losses": losses, "warm": warm}


def mean_gradient(
    opened: Opened, model: Any, task: str, rows: np.ndarray, chosen: list[nn.Parameter], size: int = 32
) -> tuple[Tensor, float]:
    """The gradient of :func:`label_loss`, its mean over rows, flat; and the mean loss. There is no dropout."""
    total, mean = torch.zeros(sum(p.numel() for p in chosen)), 0.0
    for number, part in enumerate(batches(opened, model, task, rows, size)):
        share = min(size, len(rows) - number * size) / len(rows)
        loss, plain = label_loss(model, part, task)
        given = torch.autograd.grad(loss, chosen, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(chosen, given, strict=True)]
        total += share * torch.cat([g.flatten() for g in flat]).float().cpu()
        mean += share * plain
    return total, mean
