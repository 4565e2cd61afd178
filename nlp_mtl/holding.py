"""What a model says of its parameters, and holds from step to step so that it is not looked up or made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.memory import KeptGradient
from nlp_mtl.packing import base_of
from nlp_mtl.weights import save_below


class HoldsParameters(nn.Module):
    """The part of :class:`nlp_mtl.MultiTaskModel` that counts its parameters and clears their gradients."""

    sharing: Any
    module_of: Any
    base: dict[str, Any]
    tokenizer: Any
    teaching: Any
    _kept: KeptGradient | None = None
    _held: list[nn.Parameter] | None = None
    _learning: bool = False  # all modules were put into training mode, in this training

    def hold_base(self, name: str) -> None:
        """Save the encoder below the adapters with them, for it is no pretrained one; `name` is what that came from."""
        self.base = {"id": name, "sha256": self.base["sha256"], "own": True}
        for known in getattr(self.sharing.encoder, "peft_config", {}).values():
            known.base_model_name_or_path = known.revision = None

    def save_base(self, folder: Path) -> None:
        """Write the tokenizer, and the encoder below the adapters where it is held."""
        if self.base.get("own"):
            save_below(folder, self.sharing.encoder, self.tokenizer)
        self.tokenizer.save_pretrained(folder)

    def keep_embedding_gradient(self, keep: bool = True) -> bool:
        """Keep the word embeddings' dense gradient between steps; see :class:`nlp_mtl.memory.KeptGradient`.

        Also, the parameters are looked up now and not at every step: ten adapters are thousands of modules.

        Returns:
            Whether it is kept: not if the embeddings are frozen or tied to an output layer.
        """
        if self._kept is not None:
            self._kept.release()
            self._kept = None
        self._held, self._learning = (list(self.parameters()) if keep else None), False
        embedding = base_of(self.sharing.encoder).get_input_embeddings()
        users = sum(any(p is embedding.weight for p in part._parameters.values()) for part in self.modules())
        if keep and isinstance(embedding, nn.Embedding) and embedding.weight.requires_grad and users == 1:
            self._kept = KeptGradient(embedding, self)
        return self._kept is not None

    def train(self, mode: bool = True) -> Any:
        """As in torch; the Trainer calls it before each step, which is a walk through all modules for nothing."""
        if mode and self.training and self._learning:
            return self
        super().train(mode)
        self._learning = mode and self._held is not None
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in torch; a kept embedding gradient is cleared where it was used."""
        if self._kept is not None:
            self._kept.clear()
        elif self._held is not None and set_to_none:
            for parameter in self._held:
                parameter.grad = None
        else:
            super().zero_grad(set_to_none)

    def known_parameters(self) -> list[nn.Parameter]:
        """All parameters; while training those that were looked up at its beginning."""
        return self._held if self._held is not None else list(self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the model has."""
        left_out = set()
        if exclude_embeddings:
            left_out = {id(p) for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        wanted = {
            id(p): p for p in self.parameters() if id(p) not in left_out and (p.requires_grad or not only_trainable)
        }
        return sum(p.numel() for p in wanted.values())

    def nothing_from(self, tasks: Sequence[str]) -> Tensor:
        """0, but through every parameter of these heads, so that all processes reduce the same gradients."""
        parts = [p for task in tasks for p in self.module_of(task).parameters()]
        parts += [p for task in tasks for p in self.sharing.parameters_of(task)]
        parts += [p for task in tasks if self.teaching is not None for p in self.teaching.parameters_of(task)]
        pooler = getattr(base_of(self.sharing.encoder), "pooler", None)
        if parts and isinstance(pooler, nn.Module):
            parts += list(pooler.parameters())
        once = {id(p): p for p in parts if p.requires_grad}
        return sum((p.sum() for p in once.values()), torch.zeros((), device=self.device)) * 0.0
