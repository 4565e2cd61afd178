"""LoRA experts: one wide LoRA whose parts count differently for each token, as a gate says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.tasklora import SHARED, Owners

Gates = Literal["task", "token", "example"]


class Rows(Owners):
    """Whose the rows are that come, and for gates on examples what their texts are like.

    Args:
        adapter_of: task → its name here.
    """

    def let_be(self, owner: Tensor, examples: Tensor) -> None:
        """As :meth:`let`, with [rows, width] of what gates on examples read; it is kept with `owner`."""
        owner.examples = examples  # type: ignore[attr-defined]
        self.let(owner)

    @contextmanager
    def among(self, rows: Tensor) -> Iterator[None]:
        """Inside this block, only these of the rows come."""
        now, some = self._now, rows.cpu()
        if isinstance(now, Tensor):
            part = now[some]
            if hasattr(now, "examples"):
                part.examples = now.examples[rows]  # type: ignore[attr-defined]
            now = part
        with self.during(now):
            yield

    def examples(self, rows: int) -> Tensor:
        """[rows, width]: what was said with the owners; zeros for rows that fill up."""
        known: Tensor = self._now.examples  # type: ignore[union-attr]
        return functional.pad(known, (0, 0, 0, rows - len(known)))


class Gate(nn.Module):
    """How much each expert counts for a task's tokens: a softmax over the experts that the task may use.

    Args:
        kind: ``task``, one set of weights per task; ``token`` and ``example``, a linear layer per task on what comes.
        seen: [tasks, experts] of bools, which experts a task may use.
        width: of what a gate on tokens or examples reads.
        top_k: only so many experts count, those with the highest scores; 0 for all.

    Attributes:
        use: [tasks, experts], sums of shares; `met` [tasks], of how many tokens.
    """

    use: Tensor
    met: Tensor
    seen: Tensor

    def __init__(self, kind: Gates, seen: Tensor, width: int, top_k: int = 0):
        super().__init__()
        self.kind, self.top_k = kind, top_k
        tasks, experts = seen.shape
        shape = (tasks, experts) if kind == "task" else (tasks * experts, width)
        self.weight = nn.Parameter(torch.zeros(shape))
        if kind != "task":
            nn.init.normal_(self.weight, std=0.02)  # experts alike at first would all be the highest
        self.register_buffer("seen", seen.clone(), persistent=False)
        self.register_buffer("use", torch.zeros(tasks, experts))
        self.register_buffer("met", torch.zeros(tasks))

    def table(self) -> Tensor:
        """[tasks, experts]: the shares of a gate by task."""
        return self._shares(self.weight.float())

    def forward(self, whose: Tensor, read: Tensor | None) -> tuple[Tensor, dict[int, Tensor]]:
        """Shares of the experts.

        Args:
            whose: [rows, tasks], 1 for the task of each row.
            read: [rows, width]; None for a gate by task.

        Returns:
            [rows, experts], 0 for rows of nobody; and task's number → how unevenly its tokens use the experts, 1 if
            they use them evenly (for gates by task none).
        """
        if self.kind == "task" or read is None:
            return whose @ self.table().to(whose), {}
        tasks, experts = self.seen.shape
        scores = functional.linear(read.float(), self.weight.float()).view(-1, tasks, experts)
        mine = torch.einsum("nte,nt->ne", scores, whose)
        whole = mine.masked_fill(whose @ self.seen.to(whose) < 0.5, -torch.inf)
        nobody = whose.sum(1, keepdim=True) < 0.5
        shares = self._kept(torch.where(nobody, 0.0, whole)).masked_fill(nobody, 0.0)
        return shares, self._unevenness(whole, shares, whose, nobody)

    def _shares(self, scores: Tensor) -> Tensor:
        return self._kept(scores.masked_fill(~self.seen, -torch.inf))

    def _kept(self, scores: Tensor) -> Tensor:
        if 0 < self.top_k < scores.shape[-1]:
            highest = scores.topk(self.top_k, -1).indices
            keep = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, highest, True)
            scores = scores.masked_fill(~keep, -torch.inf)
        return scores.softmax(-1)

    def _unevenness(self, scores: Tensor, shares: Tensor, whose: Tensor, nobody: Tensor) -> dict[int, Tensor]:
        """The load-balancing loss of Switch transformers, by task: experts · Σ chosen share · mean probability."""
        chances = torch.where(nobody, 0.0, scores).softmax(-1).masked_fill(nobody, 0.0)
        chosen = (shares.detach() > 0).float() if self.top_k else shares.detach()
        chosen = chosen / chosen.sum(-1, keepdim=True).clamp_min(1e-9)
        count, seen = whose.sum(0), self.seen
        with torch.no_grad():
            if self.training:
                self.use += whose.t() @ shares.detach()
                self.met += count
        found = {}
        for task in torch.nonzero(count).flatten().tolist():
            mine, experts = whose[:, task] / count[task], int(seen[task].sum())
            found[task] = experts * ((mine @ chosen) * (mine @ chances)).sum()
        return found


@lru_cache(maxsize=1)
def _layer_class() -> type[Any]:
    """PEFT's linear layer with a gate between A and B; PEFT is imported when it is needed."""
    from peft.tuners.lora.layer import Linear

    class ExpertLinear(Linear):
        facts: Rows
        gate: Gate
        rank = 0  # of one expert
        pools = False  # part of a pooler, which heads call; what the encoder itself makes of it nobody reads
        uneven: list[dict[int, Tensor]]

        def gate_of(self, x: Tensor) -> Tensor:
            """[rows, rank of all experts]: what A x [rows, …] is multiplied by."""
            rows = x.numel() // x.shape[-1]
            read = None
            if self.gate.kind == "token":
                read = x.reshape(rows, -1)
            elif self.gate.kind == "example":
                read = self.facts.examples(rows)
            with torch.autocast(x.device.type, enabled=False):
                shares, uneven = self.gate(self.facts.shares(rows, x.device), read)
            if uneven:
                self.uneven.append(uneven)
            return shares.repeat_interleave(self.rank, 1)

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out = self.base_layer(x, *args, **kwargs)
            if self.disable_adapters or (self.pools and self.facts.is_mixed):
                return out
            read = self.lora_dropout[SHARED](x.to(self.lora_A[SHARED].weight.dtype))
            low = self.lora_A[SHARED](read)
            low = low * self.gate_of(x).view(*low.shape).to(low.dtype)
            return out + (self.lora_B[SHARED](low) * self.scaling[SHARED]).to(out.dtype)

    ExpertLinear.__module__, ExpertLinear.__qualname__ = __name__, "ExpertLinear"
    return ExpertLinear


def __getattr__(name: str) -> Any:
    """``ExpertLinear`` by its name, for pickled models."""
    if name == "ExpertLinear":
        return _layer_class()
    raise AttributeError(name)


def seen_by(experts: Sequence[int | None], tasks: int) -> Tensor:
    """[tasks, experts] of bools: which experts a task may use; see :func:`add_gates`.

    Example:
        >>> seen_by([None, 0], 2).tolist()
        [[True, True], [True, False]]
    """
    return torch.tensor([[own in (None, task) for own in experts] for task in range(tasks)])


def add_gates(
    encoder: nn.Module,
    facts: Rows,
    kind: Gates,
    experts: Sequence[int | None],
    *,
    width: int,
    top_k: int,
    one: Gate | None = None,
) -> tuple[list[str], list[str]]:
    """Put a gate into every LoRA of an encoder, in place.

    Args:
        encoder: a PeftModel with one LoRA, of as many times the rank of an expert as there are experts.
        facts: whose rows come.
        kind: of gate.
        experts: for each expert the number of the one task that may use it; None for all.
        width: of what gates on examples read.
        top_k: see :class:`Gate`.
        one: the gate of all layers, which is no part of any; default each has its own.

    Returns:
        The names of the layers, and those of LoRAs that are not on linear layers, where nothing is put.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import Linear

    seen = seen_by(experts, len(facts.adapters))
    done, other = [], []
    for name, layer in encoder.named_modules():
        if not isinstance(layer, LoraLayer) or SHARED not in getattr(layer, "r", {}):
            continue
        if type(layer) not in (Linear, _layer_class()) or SHARED in layer.lora_variant:
            other.append(f"{name.removeprefix('base_model.model.')} ({type(layer).__name__})")
            continue
        layer.__class__ = _layer_class()
        layer.facts, layer.uneven = facts, []
        layer.rank = layer.r[SHARED] // len(experts)
        layer.pools = "pooler" in name.split(".")
        if one is not None:
            layer.__dict__["gate"] = one
            done.append(name)
            continue
        by_text = kind == "example" and not layer.pools  # what a pooler reads is of one text already
        own_kind: Gates = "token" if kind == "example" and layer.pools else kind
        layer.gate = Gate(own_kind, seen, width if by_text else layer.in_features, top_k)
        done.append(name)
    return done, other
