"""What heads share that read one vector per sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.own import has_own_decoder, own_linear, why_own
from nlp_mtl.heads.vanilla import StandIn
from nlp_mtl.layout import Layout, few_shapes
from nlp_mtl.packing import Packed
from nlp_mtl.taskfile import Task

Pooling = Literal["family", "mean", "cls", "last"]


class PooledHead(Head):
    """Base of heads that read one vector per sequence.

    Args:
        task: the task.
        pooling: ``family``, as the vanilla class does it (first token for encoders, last for decoders, with its own
            pooler if it has one), which can be exported; ``mean`` of the tokens, ``cls`` (first) or ``last`` token,
            straight into the classifier.
        pooler: for families with a pooler inside the encoder (BERT, ALBERT): ``shared`` by all tasks, or ``own``.
    """

    reads_template = True
    for_model: ClassVar[tuple[str, ...]] = ("pooling", "pooler", "variance", "class_weights", "threshold", "tuned")

    def __init__(self, task: Task, pooling: Pooling = "family", pooler: Literal["shared", "own"] = "shared"):
        super().__init__(task)
        if pooling not in ("family", "mean", "cls", "last"):
            raise ConfigError(f"task {task.name!r}: `pooling` is family, mean, cls or last, found {pooling!r}")
        if pooler not in ("shared", "own"):
            raise ConfigError(f"task {task.name!r}: `pooler` is shared or own, found {pooler!r}")
        self.pooling, self._pooler = pooling, pooler
        if pooling != "family":
            self.exportable = False
            self.why_not = f"`pooling: {pooling}` is not what the vanilla class computes"

    def build_own(self, encoder: nn.Module, seed: int) -> nn.Module:
        """For encoder–decoder families: one linear layer on the mean of the encoder's states; not exportable."""
        if not has_own_decoder(encoder):
            return super().build_own(encoder, seed)
        self.exportable, self.why_not = False, why_own(encoder, self.auto_class)
        outputs = self.config_changes()["num_labels"]
        return own_linear(encoder, outputs, name=self.task.head_key, seed=seed, by_token=False)

    def pooler(self) -> str:
        """The encoder's pooler for the family's own pooling, else none."""
        return self._pooler if self.pooling == "family" else "none"

    def _way(self, module: nn.Module) -> str:
        return self.pooling if self.pooling != "family" else family_pooling(module)

    def reads(self, module: nn.Module, layout: Layout, target: Mapping[str, Tensor]) -> Tensor:
        """The first or last token of each sequence, or all for their mean."""
        way, sequences = self._way(module), target["sequences"]
        if way == "mean":
            return layout.tokens_of(sequences)
        return (layout.firsts if way == "cls" else layout.lasts)[sequences]

    def vectors(self, module: nn.Module, packed: Packed, sequences: Tensor) -> Tensor:
        """[…, hidden]: what is read of the given sequences."""
        read = {"cls": packed.firsts, "last": packed.lasts, "mean": packed.means}[self._way(module)]
        return read(sequences)

    def pooled(self, module: nn.Module, packed: Packed, sequences: Tensor) -> Tensor:
        """[…, 1, hidden]: the vectors of the given sequences, as sequences of one token, for the module's next call."""
        states = self.vectors(module, packed, sequences).unsqueeze(-2)
        if self._way(module) == "cls":
            _pool_once(module, packed, sequences)
        return states

    def logits_of(self, module: nn.Module, states: Tensor) -> Tensor:
        """Run the vanilla class on sequences of one token [rows, 1, hidden]."""
        return in_full(module, states).logits

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, labels]."""
        states = self.pooled(module, packed, target["sequences"])
        return self.logits_of(module, few_shapes(states))[: len(states)]


def _pool_once(module: nn.Module, packed: Packed, sequences: Tensor) -> None:
    """Let a head's next call take its pooled states from one product over all tasks' sequences.

    A pooler inside the encoder is shared: called by each of a hundred heads with a row or two, it makes as many
    gradients of its whole weight, to be added up.
    """
    reader = stand_in(module)
    pool = None if reader is None else reader.shared_pooling()
    if pool is None or reader is None:
        return
    known = packed.shared.get("pooled")
    if known is None:
        states = packed.firsts(torch.arange(len(packed.layout.lengths), device=packed.hidden.device)).unsqueeze(-2)
        taps = packed.layout.taps
        with nullcontext() if taps is None else taps.of_tokens(packed.layout.firsts):
            known = packed.shared["pooled"] = in_full(module, few_shapes(states), pool)
    reader.ready = known[sequences.flatten()]


def stand_in(module: nn.Module) -> StandIn | None:
    """What stands in a head's module where the encoder was, if anything does."""
    found = getattr(module, str(getattr(module, "base_model_prefix", "")), None)
    return found if isinstance(found, StandIn) else None


def in_full(module: nn.Module, states: Tensor, part: Callable[[Tensor], Tensor] | None = None) -> Any:
    """Run a vanilla class (or a part of it) on vectors in float32 where it has such weights, also under autocast.

    It is little work, and bfloat16 would leave three digits of a regression's output.
    """
    full = next((p.dtype for p in module.parameters()), torch.float32) == torch.float32  # they are all of one kind
    with torch.autocast(states.device.type, enabled=not full and torch.is_autocast_enabled(states.device.type)):
        states = states.float() if full else states
        if part is not None:
            return part(states)
        ids = torch.zeros(states.shape[:-1], dtype=torch.long, device=states.device)
        more = {}
        if getattr(getattr(module, "config", None), "classifier_pooling", None) == "mean":
            more["attention_mask"] = torch.ones_like(ids)  # ModernBERT's multiple choice takes the mean with it alone
        try:
            return module(input_ids=ids, inputs_embeds=states, **more)
        finally:  # a call that failed before the stand-in's must not leave its pooled states to the next one
            if (known := stand_in(module)) is not None:
                known.ready = known.passing = None


def family_pooling(module: nn.Module) -> str:
    """What the vanilla class reads of a sequence: mean (ModernBERT can), last (decoders) or cls."""
    own = getattr(module, "family_pooling", None)
    if own is not None:
        return str(own)
    if getattr(module.config, "classifier_pooling", "cls") == "mean":
        return "mean"
    return "last" if hasattr(module, "score") else "cls"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities […, labels] of logits."""
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def most_frequent(labels: Sequence[Any]) -> Any:
    """The most frequent label, 0 if there is none."""
    counted = Counter(label for label in labels if label is not None)
    return counted.most_common(1)[0][0] if counted else 0
