"""Output layers for families that have no class of their own for a kind of task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.heads.vanilla import seed_of
from nlp_mtl.packing import base_of


class OwnLinear(nn.Module):
    """Dropout and one linear layer on each state.

    Args:
        hidden: the states' width.
        labels: outputs.
        dropout: before the layer.
        by_token: states are tokens of one row [1, tokens, hidden]; else one vector a row [rows, 1, hidden].
    """

    family_pooling = "mean"  # such families have no token that stands for the whole text

    def __init__(self, hidden: int, labels: int, dropout: float, by_token: bool):
        super().__init__()
        self.dropout, self.score = nn.Dropout(dropout), nn.Linear(hidden, labels)
        self.by_token = by_token

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        """Logits [1, tokens, labels], or [rows, labels]."""
        logits = self.score(self.dropout(inputs_embeds))
        return SimpleNamespace(logits=logits if self.by_token else logits[:, 0])


def own_linear(encoder: nn.Module, labels: int, *, name: str, seed: int, by_token: bool) -> OwnLinear:
    """An :class:`OwnLinear` for an encoder; `name` and `seed` fix its first weights."""
    config = base_of(encoder).config
    dropout = next((float(getattr(config, key)) for key in ("dropout_rate", "dropout") if hasattr(config, key)), 0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(name, seed))
        return OwnLinear(int(config.hidden_size), labels, dropout, by_token)


def why_own(encoder: nn.Module, auto_class: str) -> str:
    """Why the family's own class is not used."""
    kind = base_of(encoder).config.model_type
    return f"the family {kind!r} has no {auto_class} that reads the encoder alone"


def has_own_decoder(encoder: nn.Module) -> bool:
    """Whether the encoder is that of an encoder–decoder family."""
    return bool(getattr(base_of(encoder).config, "is_encoder_decoder", False))
