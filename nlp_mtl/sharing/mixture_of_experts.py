"""Mixture of experts: LoRA experts that all tasks share, and gates that say how much each counts."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.experts import Gate, Gates, Rows, add_gates, seen_by
from nlp_mtl.folding import merged
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, Way, base_of, encode_at
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.apart import encode_apart, follow_layouts
from nlp_mtl.sharing.base import ONE_AT_A_TIME
from nlp_mtl.sharing.hard import Hard
from nlp_mtl.tasklora import SHARED


@sharings.register("mixture_of_experts")
class MixtureOfExperts(Hard):
    """Several LoRAs on every layer, and gates that say how much each counts for a task, a token or a text.

    All experts stand side by side as one wide LoRA, so a step computes them in the products it makes anyway. With gates
    by task every task collapses to an ordinary adapter (a weighted one); with gates on tokens or texts it does not. One
    expert is hard sharing.

    Args:
        experts: how many LoRAs all tasks share; each has the rank of the run's `lora`.
        gates: ``task``, a learned weight for each task and expert; ``token``, a softmax layer per task on what each
            layer reads (MMoE); ``example``, the same on the mean of the text's word embeddings.
        private: how many more experts each task has for itself (CGC, PLE).
        top_k: only the k highest experts count; 0 for all. Needs gates on tokens or texts.
        balance: how much uneven use of the experts costs (the load-balancing loss), from 0; same gates. It is taken of
            each pass by itself, so it depends on how a step is cut into passes and processes.
        per_layer: of gates by task, one for each layer instead of one for the encoder, where an expert is a skill that
            a task has in all layers or in none. Gates learn slowly at the rate of adapters: `learning_rates: {gate.*:
            0.02}`.

    Relations: gates by task are Polytropon's soft form (Ponti et al., 2023, arXiv 2202.13914) and MTL-LoRA's (Yang et
    al., 2024, arXiv 2410.09437); gates on tokens are MMoE's (Ma et al., 2018, KDD), with private experts CGC (Tang et
    al., 2020, RecSys), top-k and its loss Switch transformers' (Fedus et al., 2021, arXiv 2101.03961). Those have
    feed-forward experts; here they are LoRAs.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> lora = {"r": 2, "target_modules": "all-linear"}
        >>> model = tiny_model(["rte", "mrpc"], sharing={"name": "mixture_of_experts", "experts": 3}, lora=lora)
        >>> model.sharing.use()["rte"]
        [0.333, 0.333, 0.333]
    """

    paper = "Ponti et al., 2023, arXiv:2202.13914; Ma et al., 2018, KDD; Tang et al., 2020, RecSys"
    cost = "a LoRA of as many times the rank as there are experts"

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Sequence[str],
        experts: int = 4,
        gates: Gates = "task",
        private: int = 0,
        top_k: int = 0,
        balance: float = 0.0,
        per_layer: bool = False,
    ):
        super().__init__(encoder, tasks)
        self.gates, self.balance = gates, balance
        self.facts = Rows({task: task for task in tasks})
        self.columns = [f"expert {number + 1}" for number in range(experts)]
        self.columns += [f"{task}'s own {number + 1}" for task in tasks for number in range(private)]
        own = [None] * experts + [number for number in range(len(tasks)) for _ in range(private)]
        if gates == "example" and self.way != "packed":
            raise UnsupportedError(
                f"sharing 'mixture_of_experts': gates on texts need a family that packs, found {self.way}; use gates: "
                "token or task"
            )
        width = base_of(encoder).get_input_embeddings().embedding_dim
        one = Gate("task", seen_by(own, len(tasks)), width) if gates == "task" and not per_layer else None
        self.names, other = add_gates(encoder, self.facts, gates, own, width=width, top_k=top_k, one=one)
        self.gate = one
        if other or not self.names:
            raise UnsupportedError(
                f"sharing 'mixture_of_experts': gates plain LoRA on linear layers only, found {', '.join(other[:3])}; "
                "name linear layers in lora.target_modules, without DoRA"
            )
        follow_layouts(encoder)
        kinds = f"{experts} experts" + (f" and {private} of each task's own" if private else "")
        self.log += f"; {kinds} in {len(self.names)} layers, gates by {gates}"

    def lend(self, head_of: Mapping[str, str]) -> None:
        """See :meth:`Sharing.lend`."""
        super().lend(head_of)
        self.facts.adapter_of.update(head_of)

    @classmethod
    def lora_for(cls, config: Any, tasks: Sequence[str], **arguments: Any) -> Any:
        """A LoRA as wide as all experts together, with the scale of one; see :meth:`Sharing.lora_for`."""
        said = {"experts": 4, "gates": "task", "private": 0, "top_k": 0, "balance": 0.0, **arguments}
        experts, private, top_k, balance = said["experts"], said["private"], said["top_k"], said["balance"]
        wrong, who = [], "sharing 'mixture_of_experts': "
        if config is None:
            wrong.append(f"{who}its experts are LoRAs, and the run has no `lora`; add one, e.g. lora: {{r: 8}}")
        elif config.rank_pattern or config.alpha_pattern or config.use_dora:
            wrong.append(
                f"{who}experts have one rank and scale and no DoRA, found other fields in `lora`; leave them out"
            )
        if not isinstance(experts, int) or experts < 0 or (isinstance(private, int) and experts + private < 1):
            wrong.append(f"{who}`experts` is at least 1 (0 beside `private`), found {experts!r}")
        if not isinstance(private, int) or private < 0:
            wrong.append(f"{who}`private` is a number of experts from 0, found {private!r}")
        if said["gates"] not in ("task", "token", "example"):
            wrong.append(f"{who}`gates` is task, token or example, found {said['gates']!r}")
        elif said["gates"] == "task" and (top_k or balance):
            wrong.append(f"{who}`top_k` and `balance` are of gates on tokens or texts; leave them out, or gates: token")
        if not wrong and not 0 <= top_k <= experts + private:
            wrong.append(f"{who}`top_k` is from 0 to {experts + private} experts, found {top_k!r}")
        if not isinstance(balance, (int, float)) or not 0 <= balance < float("inf"):
            wrong.append(f"{who}`balance` is a number from 0, found {balance!r}")
        if wrong:
            raise ConfigError(wrong)
        wide, count = copy.deepcopy(config), experts + private * len(tasks)
        wide.r *= count
        wide.lora_alpha *= count**0.5 if config.use_rslora else count
        return wide

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """One pass over all rows, each token by its own task's gate; see :meth:`Sharing.encode`."""
        for layer in self._layers():
            layer.uneven.clear()
        depths = self.reads.depths(tasks)
        each = encode_apart(self.encoder, inputs, layout, self.way, self.facts, tasks, depths, self._call)
        return {task: self.reads.of(task, each[task]) for task in tasks}

    def _call(
        self, encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, way: Way, depths: Collection[int]
    ) -> dict[int, Tensor]:
        if self.gates == "example" and layout.owner is not None:
            with torch.no_grad():
                words = base_of(encoder).get_input_embeddings()(inputs["input_ids"])
                means = Packed(words, layout).means(torch.arange(len(layout.lengths), device=words.device))
            lengths = torch.tensor(layout.lengths, device=words.device)
            self.facts.let_be(layout.owner, means.repeat_interleave(lengths, 0))
        return encode_at(encoder, inputs, layout, way, depths)

    def extra_losses(self) -> dict[str, Tensor]:
        """How unevenly each task's tokens used the experts, times `balance`; the mean over layers."""
        found: dict[str, list[Tensor]] = {}
        for layer in self._layers():
            for met in layer.uneven:
                for number, value in met.items():
                    found.setdefault(self.tasks[number], []).append(value)
            layer.uneven.clear()
        if not self.balance:
            return {}
        return {task: self.balance * torch.stack(values).mean() for task, values in found.items()}

    def use(self, by_layer: bool = False) -> dict[str, Any]:
        """How much each task uses each expert: task → shares, the mean over layers, or one list per layer.

        Of gates on tokens or texts, the mean over what came in training.
        """
        tables = []
        for layer in [self] if self.gate is not None else self._layers():
            gate: Any = layer.gate
            tables.append(gate.table() if gate.kind == "task" else gate.use / gate.met.clamp_min(1)[:, None])
        whole = torch.stack(tables, 1).detach().cpu()
        each = whole if by_layer else whole.mean(1)
        return {task: _rounded(row.tolist()) for task, row in zip(self.tasks, each, strict=True)}

    def tables(self) -> dict[str, dict[str, Any]]:
        """How much each task uses each expert; see :meth:`Sharing.tables`."""
        return {
            "gates": {
                "title": "Which task uses which expert",
                "note": "Share of each expert in a task's sum"
                + ("" if self.gate is not None else f", the mean over {len(self.names)} layers")
                + ("." if self.gates == "task" else " and all tokens met in training."),
                "columns": list(self.columns),
                "rows": self.use(),
                "signed": False,
            }
        }

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Experts and gates."""
        yield from super().shared_parameters()
        if self.gate is not None:
            yield from self.gate.parameters()

    def _layers(self) -> Iterator[Any]:
        return (self.encoder.get_submodule(name) for name in self.names)

    def for_head_of(self, task: str) -> AbstractContextManager[None]:
        """The pooler has gates too."""
        return self.facts.during(self.facts.number(task))

    def copies(self, tasks: Sequence[str]) -> int:
        """Once for each task."""
        return len(set(map(self.key, tasks)))

    @property
    def only_adapters(self) -> bool:
        """No: gates weigh what all share."""
        return False

    @property
    def ordinary(self) -> bool:
        """No: it is one for each task at best."""
        return False

    @property
    def tells_rows_apart(self) -> bool:
        """Tasks' gradients come by a backward pass each: they meet in experts and gates."""
        return False

    def alone(self) -> AbstractContextManager[object]:
        """Whose the rows are is kept with the encoder."""
        return ONE_AT_A_TIME

    def own_state(self) -> dict[str, Tensor]:
        """The experts, the gates, and how they were used."""
        parts = [*self.encoder.named_parameters(), *self.encoder.named_buffers()]
        gates = {f"encoder.{name}": p for name, p in parts if is_adapter(name) or ".gate." in name}
        if self.gate is not None:
            gates |= {f"gate.{name}": p for name, p in self.gate.state_dict(keep_vars=True).items()}
        return {**super().own_state(), **{name: p for name, p in gates.items() if not name.endswith(".seen")}}

    def adapter(self, task: str, state: Mapping[str, Tensor] | None = None) -> tuple[Any, dict[str, Tensor]]:
        """The experts as one ordinary adapter: each counts as the task's gate says.

        Raises:
            UnsupportedError: gates that look at the tokens or the text.
        """
        self._check_gates(task)
        weights = state if state is not None else dict(self.encoder.named_parameters())
        number, tensors = self.facts.number(task), {}
        for name, layer in zip(self.names, self._layers(), strict=True):
            shares = layer.gate.table()[number].detach().cpu().repeat_interleave(layer.rank)
            tensors[f"{name}.lora_A.weight"] = weights[f"{name}.lora_A.{SHARED}.weight"].detach().cpu().contiguous()
            up = weights[f"{name}.lora_B.{SHARED}.weight"].detach().cpu()
            tensors[f"{name}.lora_B.weight"] = (up * shares).contiguous()
        whole: Any = self.encoder
        config = copy.deepcopy(whole.peft_config[SHARED])
        config.inference_mode = True
        return config, tensors

    def collapse(self, task: str) -> PreTrainedModel:
        """The encoder with the task's weighted experts in its weights."""
        self._check_gates(task)
        number = self.facts.number(task)
        own = copy.deepcopy(self.encoder)
        for name in self.names:
            layer: Any = own.get_submodule(name)
            with torch.no_grad():
                layer.lora_B[SHARED].weight *= layer.gate.table()[number].repeat_interleave(layer.rank)
            layer.__class__ = layer.__class__.__mro__[1]
            layer._modules.pop("gate", None)
        return merged(own)

    def _check_gates(self, task: str) -> None:
        if self.gates != "task":
            kind = "every token" if self.gates == "token" else "every text"
            raise UnsupportedError(
                f"task {task!r} mixes its experts anew for {kind} (sharing: mixture_of_experts with gates on "
                f"{self.gates}s), which no ordinary encoder does; gates: task can leave"
            )


def _rounded(values: Any) -> Any:
    return [_rounded(value) for value in values] if isinstance(values, list) else round(values, 3)
