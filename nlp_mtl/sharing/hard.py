"""Hard sharing: one encoder for all tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.errors import ConfigError
from nlp_mtl.features import FeatureCache, check_frozen
from nlp_mtl.folding import merged
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, choose_way, encode_at
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.apart import encode_apart, follow_layouts
from nlp_mtl.sharing.base import ONE_AT_A_TIME, Sharing
from nlp_mtl.sharing.conditioning import Conditions
from nlp_mtl.sharing.reads import Reads
from nlp_mtl.tasklora import Owners, owners_of


@sharings.register("hard")
class Hard(Sharing):
    """One encoder that all tasks share whole; only their heads differ.

    The rows of all tasks go through it in one pass. It collapses to the encoder itself for every task. With one LoRA
    per task (`task_lora`) what is shared is the rest, and it collapses to the encoder with the task's own adapter.

    Args:
        condition: how the encoder is told which task a row is for: a list of ``embedding`` (a vector per task in the
            word embeddings), ``layer_norm`` (weights and biases per task in each norm) and ``prefix`` (learned vectors
            before every row); default not at all. A row that several tasks read goes in once for each of them then.
        prefix_length: of prefixes, in tokens.

    Relations: the base case of every other sharing; with a frozen encoder, feature extraction. See
    :class:`nlp_mtl.sharing.conditioning.Conditions` for the papers of `condition`.
    """

    paper = "Caruana, 1997, Machine Learning 28"

    def __init__(
        self, encoder: nn.Module, tasks: Sequence[str], condition: Sequence[str] | str = (), prefix_length: int = 8
    ):
        super().__init__(encoder, tasks)
        self.way, why = choose_way(encoder)
        self.log = f"encoder pass: {self.way}; {why}"
        self.reads = Reads(encoder, {})
        self.owners = owners_of(encoder)
        self.cache: FeatureCache | None = None
        self.conditions: Conditions | None = None
        if condition:
            if self.owners is not None:
                raise ConfigError(
                    "sharing 'hard': `condition` tells the encoder the task, which adapters of tasks do already; leave "
                    "it or `task_lora` out"
                )
            self.conditions = Conditions(
                encoder, tasks, [condition] if isinstance(condition, str) else condition, prefix_length
            )
            follow_layouts(encoder)
            self.log += f"; conditioned on the task by {', '.join(self.conditions.kinds)}"
        if self.owners is not None:
            follow_layouts(encoder)
            calls = "in the same pass" if self.way == "packed" else "one pass for each"
            self.log += f"; {len(self.owners.adapters)} task adapters, {calls}"

    @classmethod
    def keeps_all(cls, **arguments: Any) -> bool:
        """Not where only adapters tell tasks apart: those of other tasks are left out."""
        return cls is not Hard or bool(arguments.get("condition"))

    def lend(self, head_of: Mapping[str, str]) -> None:
        """See :meth:`Sharing.lend`; adapters know it already."""
        super().lend(head_of)
        if self.conditions is not None:
            self.conditions.owners.adapter_of.update(head_of)

    def check_length(self, tokens: int) -> None:
        """See :meth:`Sharing.check_length`: prefixes take positions."""
        if self.conditions is not None:
            self.conditions.check_length(self.encoder, tokens)

    def train(self, mode: bool = True) -> Hard:
        """Training mode; an encoder without trainable parameters stays in eval mode, so that its features are fixed."""
        super().train(mode)
        if mode and not any(p.requires_grad for p in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def keep_features(self, most: int | None = None) -> None:
        """Keep what the frozen encoder gives; see :class:`nlp_mtl.features.FeatureCache`.

        Raises:
            ConfigError: parts of the encoder are trained, or it is told the task.
        """
        check_frozen(self.ordinary and not any(p.requires_grad for p in self.encoder.parameters()), ())
        self.cache = FeatureCache(encode_at, most)

    def read_from(self, layers: Mapping[str, int | str]) -> None:
        """See :meth:`Sharing.read_from`; what mixes layers is learned."""
        self.reads = Reads(self.encoder, layers, self.head_of)
        if layers:
            said = ", ".join(f"{task} {layer}" for task, layer in layers.items())
            self.log += f"; layers that are read: {said}, of {self.reads.count}{self.reads.note(self.encoder)}"

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """One pass, as far up as one of these tasks reads; see :meth:`Sharing.encode`."""
        trainable = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        if self.way == "stacked" and base_of(self.encoder).main_input_name not in inputs:
            return dict.fromkeys(tasks, self._nothing())
        depths = self.reads.depths(tasks)
        if self.conditions is not None:
            whose, call = self.conditions.owners, self.conditions.call
            each = encode_apart(self.encoder, inputs, layout, self.way, whose, tasks, depths, call)
            return {task: self.reads.of(task, each[task]) for task in tasks}
        with torch.set_grad_enabled(trainable):
            if self.owners is not None:
                each = encode_apart(self.encoder, inputs, layout, self.way, self.owners, tasks, depths)
                return {task: self.reads.of(task, each[task]) for task in tasks}
            look = encode_at if self.cache is None or trainable else self.cache
            found = look(self.encoder, inputs, layout, self.way, depths)
        if self.way == "stacked":  # every row gives as many states, e.g. one per image patch
            rows, some = next(iter(inputs.values())).shape[0], next(iter(found.values()))
            layout = Layout([some.shape[0] // rows] * rows, some.device)
        same = {depth: Packed(hidden, layout) for depth, hidden in found.items()}
        return {task: self.reads.of(task, same) for task in tasks}

    def _nothing(self) -> Packed:
        """For a process without rows: one state of zeros, through every parameter that the others reduce."""
        base = base_of(self.encoder)
        zeros = torch.zeros(1, base.config.hidden_size, device=base.device)
        for parameter in self.shared_parameters():
            zeros = zeros + parameter.sum() * 0.0
        return Packed(zeros, Layout([1], zeros.device))

    def for_head_of(self, task: str) -> AbstractContextManager[None]:
        """The pooler has adapters too."""
        whose = self._whose()
        return nullcontext() if whose is None else whose.during(whose.number(task))

    def _whose(self) -> Owners | None:
        return self.owners if self.conditions is None else self.conditions.owners

    def copies(self, tasks: Sequence[str]) -> int:
        """Once, or once for each adapter or condition."""
        whose = self._whose()
        return 1 if whose is None else len(set(map(whose.number, tasks)))

    def config_of(self, task: str) -> Any:
        """See :meth:`Sharing.config_of`."""
        return self.reads.config_of(task, super().config_of(task))

    @property
    def ordinary(self) -> bool:
        """Whether there is one encoder, without adapters of tasks."""
        return self.owners is None and self.conditions is None

    @property
    def only_adapters(self) -> bool:
        """Unless the encoder is told the task."""
        return self.conditions is None

    @property
    def tells_rows_apart(self) -> bool:
        """A packed batch, with no row copied for another task's adapter and nothing computed again."""
        again = getattr(base_of(self.encoder), "is_activation_checkpointing", False)
        return self.way == "packed" and not again and self.conditions is None

    def alone(self) -> AbstractContextManager[object]:
        """Whose the rows are, and where a pass stops, is kept with the encoder: one must end before another begins."""
        return nullcontext() if self._whose() is None and not self.reads.layers else ONE_AT_A_TIME

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's trainable parameters, without those of task adapters."""
        own = set(self.owners.adapters) if self.owners is not None else set()
        named = self.encoder.named_parameters()
        return (p for name, p in named if p.requires_grad and not own & set(name.split(".")[-3:-1]))

    def own_state(self) -> dict[str, Tensor]:
        """Task adapters and the one beside them as they are, and how layers are mixed."""
        if self.conditions is not None:
            return self.whole_state()
        state: dict[str, Tensor] = {f"reads.{name}": p for name, p in self.reads.named_parameters()}
        if self.owners is not None:
            state |= {f"encoder.{name}": p for name, p in self.encoder.named_parameters() if is_adapter(name)}
        return state

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """How it mixes layers, and its own adapter."""
        yield from self.reads.parameters_of(task)
        name = self.owners.adapter_of[task] if self.owners is not None else None
        for key, parameter in self.encoder.named_parameters() if name is not None else ():
            if name in key.split(".")[-3:-1] and parameter.requires_grad:
                yield parameter

    def collapse(self, task: str) -> PreTrainedModel:
        """The encoder itself, whose LoRAs are still to be merged by who exports it; or its layers that `task` reads."""
        adapter = None if self.owners is None else self.owners.adapter_of[task]
        if self.conditions is not None:
            self.reads.collapsed(task, self.encoder, adapter)  # may refuse
            own = merged(self.encoder)
            plain = self.reads.collapsed(task, own, None) if task in self.reads.layers else own
            return self.conditions.collapsed(plain, self.key(task))
        return self.reads.collapsed(task, self.encoder, adapter)
