"""What a decoder is given of a packed batch, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlp_mtl.heads.generating import IGNORED
from nlp_mtl.packing import Packed


@dataclass
class Decoded:
    """What a decoder made of a batch's rows: in training its logits, where nothing is learned what it writes.

    Attributes:
        parts: rows of similar length together: the logits [rows, length, vocabulary] of each label from the true labels
            before it, and the labels [rows, length].
        order: the numbers of the parts' rows.
        loss: the summed loss, where the logits were not kept.
        tokens: what was written, for each row.
        scores: [rows, labels], log-likelihoods of the label texts.
    """

    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    order: list[Tensor] = field(default_factory=list)
    loss: Tensor | None = None
    tokens: list[list[int]] | None = None
    scores: Tensor | None = None

    def logits(self) -> Tensor:
        """[label tokens, vocabulary], row after row."""
        rows: dict[int, Tensor] = {}
        for (logits, labels), numbers in zip(self.parts, self.order, strict=True):
            for number, some, wanted in zip(numbers.tolist(), logits, labels, strict=True):
                rows[number] = some[wanted != IGNORED]
        return torch.cat([rows[number] for number in sorted(rows)])


def padded_states(packed: Packed, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's states of some sequences, as decoders read them.

    Returns:
        [rows, length, hidden], zeros after each sequence; and [rows, length], 1 for tokens.
    """
    lengths = [packed.layout.lengths[i] for i in sequences.tolist()]
    device = packed.hidden.device
    mask = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
    states = packed.hidden.new_zeros(*mask.shape, packed.hidden.shape[-1])
    states[mask] = packed.hidden[packed.layout.tokens_of(sequences)]
    return states, mask.long()
