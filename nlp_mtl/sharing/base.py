"""The contract of every sharing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed


class Sharing(nn.Module):
    """Base of all sharings: holds the shared parameters and encodes mixed batches.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one.
        tasks: the tasks' names.
    """

    paper: ClassVar[str] = ""
    encoder: nn.Module
    log: str = ""

    def __init__(self, encoder: nn.Module, tasks: Sequence[str]):
        super().__init__()
        self.encoder, self.tasks = encoder, list(tasks)

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """Packed hidden states for each task.

        Args:
            inputs: what the encoder takes; `input_ids` and its like are [tokens], other inputs [rows, …].
            layout: where the sequences are.
            tasks: the tasks that want hidden states.

        Returns:
            For each task, the hidden states of all sequences (those it does not read are of no meaning to it).
        """
        raise NotImplementedError

    def for_head_of(self, task: str) -> AbstractContextManager[None]:
        """Stands around a head's forward, for what heads call of the encoder (its pooler)."""
        return nullcontext()

    def copies(self, tasks: Sequence[str]) -> int:
        """How often a text that these tasks read goes through the encoder."""
        return 1

    @property
    def tells_rows_apart(self) -> bool:
        """Whether each row goes through by itself, in the order of the batch, so that layers can tell whose it is."""
        return False

    def alone(self) -> AbstractContextManager[object]:
        """Stands around a forward pass where several threads may predict."""
        return nullcontext()

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters that more than one task uses."""
        raise NotImplementedError

    def own_state(self) -> dict[str, Tensor]:
        """Parameters that no ordinary encoder or adapter folder holds, themselves and no copies.

        They are saved in ``sharing.safetensors``, by their names in this module's `state_dict`.
        """
        return {}

    @torch.no_grad()
    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over values that :meth:`own_state` gave, of the same names and shapes."""
        for name, tensor in self.own_state().items():
            tensor.copy_(state[name])

    def collapse(self, task: str) -> PreTrainedModel:
        """The ordinary encoder that `task` uses.

        Raises:
            UnsupportedError: there is none, with the reason; then the task can't leave as a vanilla folder.
        """
        raise NotImplementedError
