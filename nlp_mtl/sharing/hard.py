"""Hard sharing: one encoder for all tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, choose_way, encode
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.apart import encode_apart, follow_layouts
from nlp_mtl.sharing.base import Sharing
from nlp_mtl.tasklora import owners_of

_ONE_AT_A_TIME = threading.RLock()  # of all models: a lock of its own could not be copied with a model


@sharings.register("hard")
class Hard(Sharing):
    """One encoder that all tasks share whole; only their heads differ.

    The rows of all tasks go through it in one pass. It collapses to the encoder itself for every task. With one LoRA
    per task (`task_lora`) what is shared is the rest, and it collapses to the encoder with the task's own adapter.

    Relations: the base case of every other sharing; with a frozen encoder, feature extraction.
    """

    paper = "Caruana, 1997, Machine Learning 28"

    def __init__(self, encoder: nn.Module, tasks: Sequence[str]):
        super().__init__(encoder, tasks)
        self.way, why = choose_way(encoder)
        self.log = f"encoder pass: {self.way}; {why}"
        self.owners = owners_of(encoder)
        if self.owners is not None:
            follow_layouts(encoder)
            calls = "in the same pass" if self.way == "packed" else "one pass for each"
            self.log += f"; {len(self.owners.adapters)} task adapters, {calls}"

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
            if self.owners is not None:
                return encode_apart(self.encoder, inputs, layout, self.way, self.owners, tasks)
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

    def for_head_of(self, task: str) -> AbstractContextManager[None]:
        """The pooler has adapters too."""
        return nullcontext() if self.owners is None else self.owners.during(self.owners.number(task))

    def copies(self, tasks: Sequence[str]) -> int:
        """Once, or once for each adapter."""
        return 1 if self.owners is None else len(set(map(self.owners.number, tasks)))

    @property
    def tells_rows_apart(self) -> bool:
        """A packed batch, with no row copied for another task's adapter and nothing computed again."""
        again = getattr(base_of(self.encoder), "is_activation_checkpointing", False)
        return self.way == "packed" and not again

    def alone(self) -> AbstractContextManager[object]:
        """Whose the rows are is kept with the encoder, so that one pass must end before another begins."""
        return nullcontext() if self.owners is None else _ONE_AT_A_TIME

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's trainable parameters, without those of task adapters."""
        own = set(self.owners.adapters) if self.owners is not None else set()
        named = self.encoder.named_parameters()
        return (p for name, p in named if p.requires_grad and not own & set(name.split(".")[-3:-1]))

    def own_state(self) -> dict[str, Tensor]:
        """Task adapters and the one beside them as they are; see :meth:`Sharing.own_state`."""
        if self.owners is None:
            return {}
        return {f"encoder.{name}": p for name, p in self.encoder.named_parameters() if is_adapter(name)}

    def collapse(self, task: str) -> PreTrainedModel:
        """The encoder itself; the LoRAs inside it that `task` uses are still to be merged by who exports it."""
        return base_of(self.encoder)
