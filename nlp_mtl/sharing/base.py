"""The contract of every sharing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.features import check_frozen
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of

ONE_AT_A_TIME = threading.RLock()  # of all models: a lock of its own could not be copied with a model


class Sharing(nn.Module):
    """Base of all sharings: holds the shared parameters and encodes mixed batches.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one.
        tasks: the tasks' names, without those that use another one's head.
    """

    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    registered_as: ClassVar[str] = ""
    encoder: nn.Module
    log: str = ""

    def __init__(self, encoder: nn.Module, tasks: Sequence[str]):
        super().__init__()
        self.encoder, self.tasks = encoder, list(tasks)
        self.head_of: dict[str, str] = {}

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

    @classmethod
    def keeps_all(cls, **arguments: Any) -> bool:
        """Whether it is made for all tasks of a run also where only some are loaded; `arguments` are the sharing's."""
        return True

    @classmethod
    def by_lenders(cls, arguments: dict[str, Any], head_of: Mapping[str, str]) -> dict[str, Any]:
        """Its arguments with the lenders of heads in place of the tasks that borrow them; it is made for lenders.

        Args:
            arguments: the sharing's.
            head_of: task → the task whose head it uses, itself mostly.

        Raises:
            ConfigError: a task is to have something else than its lender.
        """
        return arguments

    def lend(self, head_of: Mapping[str, str]) -> None:
        """Let tasks use what the sharing has for another one.

        Args:
            head_of: task → the task whose head it uses.
        """
        self.head_of = dict(head_of)

    def key(self, task: str) -> str:
        """The task whose parts a task uses, mostly its own."""
        return self.head_of.get(task, task)

    def encoder_of(self, task: str) -> nn.Module:
        """The encoder that a task's head is built for: its config, its pooler, its embeddings."""
        return self.encoder

    def config_of(self, task: str) -> Any:
        """The config of the ordinary encoder that `task` uses."""
        return base_of(self.encoder).config

    @property
    def ordinary(self) -> bool:
        """Whether `encoder` is, as it stands, what every task uses, so that a run folder may hold it at its root."""
        return True

    @property
    def only_adapters(self) -> bool:
        """Whether tasks differ in PEFT's adapters alone, which may be added, removed, merged, and cut up by FSDP."""
        return False

    @classmethod
    def lora_for(cls, config: Any, tasks: Sequence[str], **arguments: Any) -> Any:
        """The `peft.LoraConfig` that is put on the encoder for a `lora` that a run asks for.

        Args:
            config: what the run asks for; None for no LoRA.
            tasks: the tasks' names.
            arguments: the sharing's.

        Raises:
            ConfigError: it needs one, or another.
        """
        return config

    def read_from(self, layers: Mapping[str, int | str]) -> None:
        """Let tasks read the hidden states after some layer, or a learned mix of all of them.

        Args:
            layers: task → a number of layers, or ``"mix"``; tasks that are not there read the last.

        Raises:
            UnsupportedError: it can't.
        """
        if layers:
            raise UnsupportedError(
                f"head of {', '.join(map(repr, layers))}: `layer` says what is read of one encoder, and sharing "
                f"{self.registered_as!r} has more than that; leave it out, or use sharing: hard"
            )

    def check_length(self, tokens: int) -> None:
        """Refuse texts of so many tokens where more is put before them than the encoder has positions for.

        Raises:
            ConfigError: with the length that fits.
        """

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """Trainable parameters that this task uses and the sharing holds beside the shared ones."""
        return iter(())

    def penalty(self) -> Tensor | None:
        """What is added to a step's loss, of the parameters alone; None for nothing."""
        return None

    def penalty_gradients(self) -> tuple[float, list[nn.Parameter], list[Tensor]] | None:
        """The penalty, parameters, and their gradients, contiguous; None where there is no penalty."""
        value = self.penalty()
        if value is None:
            return None
        trained = [p for p in self.parameters() if p.requires_grad]
        found = torch.autograd.grad(value, trained, allow_unused=True)
        both = [(p, g.contiguous()) for p, g in zip(trained, found, strict=True) if g is not None]
        return float(value.detach()), [p for p, _ in both], [g for _, g in both]

    def tables(self) -> dict[str, dict[str, Any]]:
        """What is worth looking at of what was learned, for reports and ``sharing.json``.

        Returns:
            Name → `title`, `note`, `columns` (names), `rows` (name → a number for each column), `signed` (whether they
            are other than shares from 0 to 1).
        """
        return {}

    def extra_losses(self) -> dict[str, Tensor]:
        """Task → what is added to its loss in this pass, of what :meth:`encode` met; handed out once."""
        return {}

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

    def keep_features(self, most: int | None = None) -> None:
        """Keep what a frozen encoder gives for each text, at most so many bytes of it.

        Raises:
            ConfigError: what tasks read is trained.
        """
        check_frozen(False, ())

    def own_state(self) -> dict[str, Tensor]:
        """Parameters that no ordinary encoder or adapter folder holds, themselves and no copies.

        They are saved in ``sharing.safetensors``, by their names in this module's `state_dict`.
        """
        return {}

    def whole_state(self) -> dict[str, Tensor]:
        """All that was trained or may be: with LoRA all but the pretrained weights, else everything."""
        pretrained = set()
        if any(map(is_adapter, (name for name, _ in self.named_parameters()))):
            pretrained = {name for name, p in self.named_parameters() if name.startswith("encoder.")}
            pretrained -= {name for name in pretrained if is_adapter(name) or ".task_" in name or ".gate." in name}
        return {name: p for name, p in self.named_parameters() if name not in pretrained}

    def adapter(self, task: str, state: Mapping[str, Tensor] | None = None) -> tuple[Any, dict[str, Tensor]] | None:
        """What a task uses beside the pretrained encoder as one ordinary adapter.

        Args:
            task: a task.
            state: the parameters by their names in `encoder`, where they had to be gathered (FSDP).

        Returns:
            A `peft.LoraConfig`, and weights by PEFT's names; None where PEFT itself has the one adapter, or none is.

        Raises:
            UnsupportedError: none that is ordinary.
        """
        if self.ordinary:
            return None
        raise UnsupportedError(
            f"what task {task!r} uses beside the pretrained encoder is no ordinary adapter (sharing: "
            f"{self.registered_as}); --as model or --as onnx where it collapses"
        )

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
