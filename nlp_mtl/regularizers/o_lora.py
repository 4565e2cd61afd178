"""Orthogonal low-rank adaptation: each task's LoRA reads other directions than those before it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers.base import Gradients, Regularizer, check_number
from nlp_mtl.regularizers.importance import load_tensors

logger = logging.getLogger("nlp_mtl")
EARLIER = "o_lora.safetensors"
ADAPTER = "adapter_model.safetensors"


@regularizers.register("o_lora")
class OLora(Regularizer):
    """Keeps a new LoRA orthogonal to those of earlier tasks, which are in the weights: strength · Σ ‖A Aᵢᵀ‖².

    A [rank, in] is what a layer's LoRA reads, Aᵢ those of the runs before; the norm is Frobenius', summed over layers.
    The run starts with those merged (``init_from: {run: …, merge: true}``) and learns a LoRA of its own; when training
    ends, its A and the earlier ones are saved in the run folder (``o_lora.safetensors``) for the next one.

    Args:
        strength: how much it counts, from 0.
        earlier: a file, or the folder of the run before, whose LoRA counts also if it was trained without this; none in
            the first run.

    Relations: `ewc` holds weights, this leaves free whatever earlier tasks do not read. The paper sums the LoRAs, which
    merging them is; its λ is `strength`.

    Example:
        >>> OLora(strength=0.1).penalty() is None
        True
    """

    paper = "Wang et al., 2023, arXiv:2310.14152"
    cost = (
        "the A of each earlier run in memory; for each adapted layer two products of rank × in × earlier ranks a step"
    )
    carries = new_lora = True
    carries_to = EARLIER

    def __init__(self, strength: float = 0.5, earlier: str | None = None):
        check_number("o_lora", "strength", strength)
        self.strength, self.earlier = strength, earlier
        self._before: dict[str, Tensor] = {}

    def setup(self, model: Any, data: Any) -> None:
        """See :meth:`Regularizer.setup`."""
        super().setup(model, data)
        own = self._own()
        if not own:
            raise ConfigError(
                "regularizer 'o_lora': is about the shared LoRA that is trained, found none; give the run a `lora` "
                "(of IA3 there is none)"
            )
        self._before = {} if self.earlier is None else _fitting(load_earlier(self.earlier), own)
        if self._before and all(_goes_on(p, self._before[name]) for name, p in own.items() if name in self._before):
            raise ConfigError(
                f"regularizer 'o_lora': keeps a new LoRA off that of {self.earlier}, found that one itself, which goes "
                "on to be trained; say init_from: {run: …, merge: true}"
            )

    def _own(self) -> dict[str, nn.Parameter]:
        """Name → A, of the LoRA that is trained and all tasks share."""
        named = self.model.named_parameters()
        return {name: p for name, p in named if name.endswith(".lora_A.default.weight") and p.requires_grad}

    def _terms(self) -> list[tuple[nn.Parameter, Tensor]]:
        return [(p, self._before[name].to(p)) for name, p in self._own().items() if name in self._before]

    def penalty(self) -> Tensor | None:
        """See :meth:`Regularizer.penalty`."""
        parts = [(p @ before.T).square().sum() for p, before in self._terms()] if self._before else []
        return self.strength * torch.stack(parts).sum() if parts else None

    @torch.no_grad()
    def penalty_gradients(self) -> Gradients | None:
        """See :meth:`Regularizer.penalty_gradients`: of each A, 2 · strength · A Aᵢᵀ Aᵢ."""
        terms = self._terms() if self._before else []
        if not terms:
            return None
        products = [p @ before.T for p, before in terms]
        value = self.strength * torch.stack([one.square().sum() for one in products]).sum()
        both = zip(products, terms, strict=True)
        gradients = [(2 * self.strength * (one @ before)).contiguous() for one, (_, before) in both]
        return float(value), [p for p, _ in terms], gradients

    def carried(self, learned: Sequence[str] | None = None) -> dict[str, Tensor]:
        """See :meth:`Regularizer.carried`: what this run's LoRA reads, below what those before it read."""
        own = {name: p.detach().float() for name, p in self._own().items()}
        both = {name: torch.cat([self._before[name].to(p), p]) for name, p in own.items() if name in self._before}
        return {**self._before, **own, **both}

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Regularizer.state_dict`."""
        return {"before": dict(self._before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Regularizer.load_state_dict`."""
        self._before = {name: value.clone() for name, value in state["before"].items()}


def load_earlier(place: str | Path) -> dict[str, Tensor]:
    """What the LoRAs up to some run read, by their names in a model: as it saved them, or its own LoRA alone.

    Raises:
        NotFoundError: the folder has neither.
        ConfigError: the file is damaged.
    """
    folder = Path(place)
    if folder.is_dir() and not (folder / EARLIER).is_file() and (folder / ADAPTER).is_file():
        found = load_tensors("earlier", folder / ADAPTER, [])
        return {
            f"sharing.encoder.{name.removesuffix('.weight')}.default.weight": value
            for name, value in found.items()
            if name.endswith(".lora_A.weight")
        }
    file = folder / EARLIER if folder.is_dir() else folder
    return load_tensors("earlier", file, ["train it with a `lora` and `o_lora`"])


def _fitting(before: Mapping[str, Tensor], own: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    wrong = [name for name, value in before.items() if name in own and value.shape[1] != own[name].shape[1]]
    if wrong or not set(before) & set(own):
        why = f"{wrong[0]} reads another width" if wrong else "no layer that it names has a LoRA here"
        raise ConfigError(
            f"regularizer 'o_lora': `earlier` is of LoRAs on the same encoder, found another's ({why}); start from "
            "that run (`init_from`), with its kind of `lora`"
        )
    return dict(before)


def _goes_on(own: Tensor, before: Tensor) -> bool:
    return len(before) >= len(own) and torch.equal(own.detach().float(), before[-len(own) :].to(own).float())
