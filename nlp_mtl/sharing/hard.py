"""Hard sharing: one encoder for all tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, choose_way, encode
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.base import Sharing


@sharings.register("hard")
class Hard(Sharing):
    """One encoder that all tasks share whole; only their heads differ.

    The rows of all tasks go through it in one pass. It collapses to the encoder itself for every task.

    Relations: the base case of every other sharing; with a frozen encoder, feature extraction.
    """

    paper = "Caruana, 1997, Machine Learning 28"

    def __init__(self, encoder: nn.Module, tasks: Sequence[str]):
        super().__init__(encoder, tasks)
        self.way, why = choose_way(encoder)
        self.log = f"encoder pass: {self.way}; {why}"

    def train(self, mode: bool = True) -> Hard:
        """Training mode; an encoder without trainable parameters stays in eval mode, so that its features are fixed."""
        super().train(mode)
        if mode and not any(p.requires_grad for p in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """One pass, the same hidden states for every task; see :meth:`Sharing.encode`."""
        trainable = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        if self.way == "stacked" and base_of(self.encoder).main_input_name not in inputs:
            return dict.fromkeys(tasks, self._nothing())
        with torch.set_grad_enabled(trainable):
            hidden = encode(self.encoder, inputs, layout, self.way)
        if self.way == "stacked":  # every row gives as many states, e.g. one per image patch
            rows = next(iter(inputs.values())).shape[0]
            layout = Layout([hidden.shape[0] // rows] * rows, hidden.device)
        return dict.fromkeys(tasks, Packed(hidden, layout))

    def _nothing(self) -> Packed:
        """For a process without rows: one state of zeros, through every parameter that the others reduce."""
        base = base_of(self.encoder)
        zeros = torch.zeros(1, base.config.hidden_size, device=base.device)
        for parameter in self.shared_parameters():
            zeros = zeros + parameter.sum() * 0.0
        return Packed(zeros, Layout([1], zeros.device))

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's trainable parameters."""
        return (p for p in self.encoder.parameters() if p.requires_grad)

    def collapse(self, task: str) -> PreTrainedModel:
        """The encoder itself; a LoRA inside it is still to be merged by who exports it."""
        return base_of(self.encoder)
