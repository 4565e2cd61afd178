"""Conditioning: a shared encoder is told which task a row is for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.layers import as_built, bert_like
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Way, base_of, encode_at, first_position
from nlp_mtl.tasklora import Owners

Condition = Literal["embedding", "layer_norm", "prefix"]
KINDS = ("embedding", "layer_norm", "prefix")


class TaskLayerNorm(nn.LayerNorm):
    """A LayerNorm with a weight and a bias of each task added to its own; made of one in place."""

    owners: Owners
    task_weight: nn.Parameter

    def forward(self, input: Tensor) -> Tensor:
        """As `torch.nn.LayerNorm`, for rows that :class:`nlp_mtl.tasklora.Owners` know."""
        plain = functional.layer_norm(input, self.normalized_shape, None, None, self.eps)
        whose = self.owners.shares(input.numel() // input.shape[-1], input.device)
        with torch.autocast(input.device.type, enabled=False):
            tables: list[Any] = [getattr(self, name) for name in ("task_weight", "task_bias") if hasattr(self, name)]
            weight, *bias = ((whose @ table.float()).view(*input.shape[:-1], -1) for table in tables)
        out = plain * (self.weight + weight).to(plain)
        return out + (self.bias + bias[0]).to(plain) if bias else out


class Conditions(nn.Module):
    """What tells an encoder the task of a row; all of it adds nothing at first, but for prefixes.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one; its norms and embeddings are changed in place.
        tasks: the tasks' names.
        kinds: of ``embedding`` (a vector per task is added to every word embedding), ``layer_norm`` (each norm has a
            weight and bias per task), ``prefix`` (learned vectors stand before every row).
        length: of prefixes, in tokens.

    Raises:
        ConfigError: other kinds or lengths.
        UnsupportedError: an encoder without LayerNorms.

    Relations: conditional layer norm is de Vries et al. (2017, arXiv 1707.00683) and CA-MTL's (Pilault et al., 2021,
    arXiv 2009.09139); prefixes are prompt tuning's (Lester et al., 2021, arXiv 2104.08691), which trains nothing else.
    """

    def __init__(self, encoder: nn.Module, tasks: Sequence[str], kinds: Sequence[str], length: int):
        super().__init__()
        wrong = [kind for kind in kinds if kind not in KINDS]
        mistakes = [
            f"sharing 'hard': `condition` is a list of {', '.join(KINDS)}, found {kind!r}; leave it out"
            for kind in wrong
        ]
        if not isinstance(length, int) or not 1 <= length <= 128:
            mistakes.append(f"sharing 'hard': `prefix_length` is from 1 to 128 tokens, found {length!r}")
        if mistakes:
            raise ConfigError(mistakes)
        self.kinds, self.tasks = list(kinds), list(tasks)
        self.owners = Owners({task: task for task in tasks})
        base = base_of(encoder)
        words: Any = base.get_input_embeddings()
        width = words.embedding_dim
        self._places: tuple[Tensor, Tensor] | None = None  # in a packed pass: prefixes' places, and which of a row's
        if "embedding" in kinds:
            self.embedding = nn.Parameter(torch.zeros(len(tasks), width))
        if "prefix" in kinds:
            start = words.weight.detach()
            picked = torch.randperm(len(start), generator=torch.Generator().manual_seed(0))[: length * len(tasks)]
            self.prefix = nn.Parameter(start[picked.to(start.device)].view(len(tasks), length, width).clone())
        if {"embedding", "prefix"} & set(kinds):
            words.register_forward_hook(self._told)
        if "layer_norm" in kinds:
            self._change_norms(base)

    @property
    def length(self) -> int:
        """Tokens that stand before every row."""
        return self.prefix.shape[1] if "prefix" in self.kinds else 0

    def _change_norms(self, base: Any) -> None:
        found = [part for part in base.modules() if type(part) is nn.LayerNorm and part.elementwise_affine]
        if not found:
            raise UnsupportedError(
                f"sharing 'hard': {type(base).__name__} has no LayerNorm to condition (`condition: layer_norm`); use "
                "embedding or prefix"
            )
        for norm in found:
            norm.__class__ = TaskLayerNorm
            norm.owners = self.owners  # type: ignore[assignment]
            for name in ("task_weight", "task_bias") if norm.bias is not None else ("task_weight",):
                norm.register_parameter(name, nn.Parameter(torch.zeros(len(self.tasks), norm.normalized_shape[0])))
        for layer in bert_like(base):
            as_built(layer)

    def _told(self, _: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        """Word embeddings [batch, length, width], with what says whose they are."""
        whose = self.owners.shares(out.numel() // out.shape[-1], out.device)
        if "embedding" in self.kinds:
            out = out + (whose @ self.embedding).view(out.shape).to(out)
        if "prefix" not in self.kinds:
            return out
        vectors, width = self.prefix.flatten(1), out.shape[-1]
        if self._places is None:  # padded rows, all of one task
            front = (whose[:1] @ vectors).view(1, self.length, width).to(out)
            return torch.cat([front.expand(len(out), -1, -1), out[:, self.length :]], 1)
        places, number = self._places
        own = (whose[places] @ vectors).view(len(places), self.length, width)
        mine = own[torch.arange(len(places), device=out.device), number].to(out)
        return out[0].index_copy(0, places, mine)[None]

    def check_length(self, encoder: nn.Module, tokens: int) -> None:
        """Refuse texts of so many tokens where the encoder has no positions for them and prefixes."""
        base = base_of(encoder)
        known = getattr(base.config, "max_position_embeddings", None)
        room = None if known is None else known - first_position(base)
        if room is not None and self.length and tokens + self.length > room:
            raise ConfigError(
                f"sharing 'hard': `prefix_length` {self.length} before {tokens} tokens is more than the encoder's "
                f"{room} positions; set max_length to {room - self.length} or less"
            )

    def call(
        self, encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, way: Way, depths: Collection[int]
    ) -> dict[int, Tensor]:
        """As :func:`nlp_mtl.packing.encode_at`, with prefixes before every row."""
        count = self.length
        if not count:
            return encode_at(encoder, inputs, layout, way, depths)
        self.check_length(encoder, layout.longest)
        longer = Layout([length + count for length in layout.lengths], layout.device)
        places = torch.arange(longer.tokens, device=layout.device)
        own = longer.position_ids >= count
        kept = places[own]
        more = {}
        for name, values in inputs.items():
            more[name] = values.new_zeros(longer.tokens, *values.shape[1:]).index_copy(0, kept, values)
        if "input_ids" in more:
            more["input_ids"][~own] = getattr(base_of(encoder).config, "pad_token_id", None) or 0
        if layout.read is not None:
            longer.read = torch.zeros(longer.tokens, dtype=torch.bool, device=layout.device)
            longer.read[kept] = layout.read
        if layout.owner is not None:
            longer.owners = layout.owners
            longer.owner = layout.owner[torch.searchsorted(kept.cpu(), places.cpu()).clamp_max(len(kept) - 1)]
            self.owners.let(longer.owner)
        self._places = (places[~own], longer.position_ids[~own]) if way == "packed" else None
        try:
            found = encode_at(encoder, more, longer, way, depths)
        finally:
            self._places = None
        return {depth: hidden.index_select(0, kept) for depth, hidden in found.items()}

    def collapsed(self, plain: Any, task: str) -> Any:
        """A merged copy of the encoder with what it is told of `task` in its weights.

        Raises:
            UnsupportedError: prefixes, which are no weights.
        """
        if "prefix" in self.kinds:
            raise UnsupportedError(
                f"task {task!r} has learned vectors before every row (`condition: prefix`), which no ordinary encoder "
                "has; embedding and layer_norm can leave"
            )
        number = self.tasks.index(task)
        with torch.no_grad():
            if "embedding" in self.kinds:
                words = plain.get_input_embeddings()
                words.weight += self.embedding[number].to(words.weight)
                words._forward_hooks.clear()
            norms: list[Any] = [part for part in plain.modules() if isinstance(part, TaskLayerNorm)]
            for norm in norms:
                norm.weight += norm.task_weight[number]
                if norm.bias is not None:
                    norm.bias += norm.task_bias[number]
                    del norm.task_bias
                del norm.task_weight, norm.owners
                norm.__class__ = nn.LayerNorm
        return plain
