"""Encoders that tasks use, and their mean hidden states of the same texts at every layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlp_mtl.data import PoolRows
from nlp_mtl.exporting.plain import plain_encoder
from nlp_mtl.interpretation.cka import cka

Text = tuple[list[int], list[int]]  # token ids and token types
_ROWS = 32


def encoders_of(model: Any, *, name: str = "") -> dict[str, Any]:
    """The encoders of a model's tasks as ordinary ones: one for all where they share it whole, else one for each.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        name: put before the names, where there are several runs.

    Raises:
        UnsupportedError: a sharing whose parts make no ordinary encoder.
    """
    before = f"{name}: " if name else ""
    if model.sharing.ordinary:
        return {name or "run": plain_encoder(model, model.tasks[0])}
    return {f"{before}{task}": plain_encoder(model, task) for task in model.tasks}


def texts_of(pool: PoolRows) -> list[Text]:
    """What the encoder reads of some rows: one text for each, or several, as a row of choices has."""
    ids, lengths = pool.table["input_ids"][:], pool.table["lengths"][:]
    kinds = "token_type_ids" in pool.table.column_names
    types = pool.table["token_type_ids"][:] if kinds else [[0] * len(row) for row in ids]
    found: list[Text] = []
    for tokens, kind, sizes in zip(ids, types, lengths, strict=True):
        ends = np.cumsum([0, *sizes]).tolist()
        found += [(tokens[a:b], kind[a:b]) for a, b in itertools.pairwise(ends)]
    return found


@torch.no_grad()
def states_of(encoder: Any, texts: Sequence[Text]) -> list[np.ndarray]:
    """The mean hidden state of each text before the first layer and after each.

    Args:
        encoder: an ordinary `transformers` encoder.
        texts: token ids and types of each.

    Returns:
        For each depth [texts, hidden].
    """
    encoder.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]))
    parts: list[list[np.ndarray]] = []
    typed = getattr(encoder.config, "type_vocab_size", 0) > 1
    for begin in range(0, len(order), _ROWS):
        chosen = [texts[i] for i in order[begin : begin + _ROWS]]
        lengths = torch.tensor([len(ids) for ids, _ in chosen], device=encoder.device)
        ids, types = (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(encoder.device)
            for rows, value in (
                ([torch.as_tensor(ids) for ids, _ in chosen], encoder.config.pad_token_id or 0),
                ([torch.as_tensor(types) for _, types in chosen], 0),
            )
        )
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        more = {"token_type_ids": types} if typed else {}
        found = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more).hidden_states
        means = [(h.float() * mask[..., None]).sum(1) / lengths[:, None] for h in found]
        parts.append([one.cpu().numpy() for one in means])
    back = np.argsort(order)
    return [np.concatenate(layer)[back] for layer in zip(*parts, strict=True)]


def alike(states: dict[str, list[np.ndarray]]) -> np.ndarray:
    """[encoders, encoders]: CKA of the last layers."""
    names = list(states)
    return np.array([[cka(states[one][-1], states[other][-1]) for other in names] for one in names])


def by_layer(layers: list[np.ndarray], reference: list[np.ndarray], texts: slice = slice(None)) -> list[float]:
    """An encoder's CKA with a reference one, layer by layer; of as many layers as both have.

    Args:
        layers, reference: for each depth [texts, hidden].
        texts: which of them are compared.
    """
    return [cka(one[texts], other[texts]) for one, other in zip(layers, reference, strict=False)]
