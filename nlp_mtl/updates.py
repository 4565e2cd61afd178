"""The optimizer's step of the trainer: AdamW and clipping by the kernels, where they can do it."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from transformers import Trainer, TrainerCallback

from nlp_mtl.model import MultiTaskModel
from nlp_mtl.optimizers import AdamW


class FusedUpdates(Trainer):
    """A `Trainer` whose AdamW is :class:`nlp_mtl.optimizers.AdamW`; other optimizers stay as they are."""

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """As the base class says, with our AdamW in the place of torch's."""
        found, how = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return (AdamW if found is torch.optim.AdamW else found), how

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The norm in one pass; scaling is left to the step, which reads the gradients anyway."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        plain = self.accelerator.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU)
        ours = isinstance(optimizer, AdamW) and plain and self.accelerator.scaler is None and not self._looks(optimizer)
        own = self.own_model()
        parameters = own.known_parameters() if isinstance(own, MultiTaskModel) else list(model.parameters())
        if not ours or not optimizer.takes(parameters):  # type: ignore[union-attr]
            return super()._clip_grad_norm(model)
        return optimizer.clip(parameters, self.args.max_grad_norm)  # type: ignore[union-attr]

    def _looks(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether somebody looks at the gradients between clipping and the step, and must find them clipped."""
        usual = TrainerCallback.on_pre_optimizer_step
        callbacks = self.callback_handler.callbacks
        return bool(optimizer._optimizer_step_pre_hooks) or any(
            getattr(type(one), "on_pre_optimizer_step", usual) is not usual for one in callbacks
        )
