"""Training other parameters in other steps, as a regime says (`gradual_unfreezing`)."""

from __future__ import annotations

import logging
from typing import Any

from accelerate.utils import DistributedType
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_mtl import registry
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.packing import base_of
from nlp_mtl.regimes import Regime

logger = logging.getLogger("nlp_mtl")


class Unfreezing(TrainerCallback):
    """Before each step, lets those parameters be trained that a regime names for it.

    What is trained follows from the step alone, so a resumed run goes on as it was. The optimizer holds all of them
    from the beginning, and passes over those without a gradient: neither moments nor weight decay.

    Args:
        trainer: a :class:`nlp_mtl.MultiTaskTrainer`.
        model: its model, with all trained that is trained at some time.
        regime: the regime.
    """

    def __init__(self, trainer: Any, model: Any, regime: Regime):
        self.trainer, self.regime, self.base = trainer, regime, base_of(model.sharing.encoder)
        self.parameters = {name: p for name, p in self.base.named_parameters() if p.requires_grad}
        self.now = set(self.parameters)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Train what this step trains."""
        wanted = self.regime.trained_at(self.base, state.global_step, self.trainer.plan.steps) & set(self.parameters)
        if wanted != self.now:
            numbers = sum(self.parameters[name].numel() for name in wanted)
            logger.info("tuning: from step %d on %d numbers of the encoder are trained", state.global_step, numbers)
            self._train(wanted)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All is trained again, for who trains on."""
        self._train(set(self.parameters))

    def _train(self, wanted: set[str]) -> None:
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in wanted)
        self.now = wanted
        self.trainer.weigh_anew()


def unfreezing_of(trainer: Any, model: Any) -> list[TrainerCallback]:
    """The callback that a model's tuning needs, if it trains other parameters in other steps."""
    spec = model.strategies.get("tuning")
    regime = registry.tunings.build(spec) if spec is not None else None
    return [Unfreezing(trainer, model, regime)] if regime is not None and regime.changes else []


def check_changing(model: Any, accelerator: Any) -> None:
    """Refuse what can't train other parameters in other steps.

    Raises:
        UnsupportedError: with the reason and the way out.
    """
    spec = model.strategies.get("tuning")
    if spec is None or not registry.tunings.build(spec).changes:
        return
    name = registry.parse_spec(spec, "tuning")[0]
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise UnsupportedError(
            f"tuning {name!r}: parameters that are trained later are in one piece with others on several devices with "
            f"{accelerator.distributed_type.value}; use DDP (torchrun without FSDP), or another tuning"
        )
    if not model.sharing.ordinary:
        raise UnsupportedError(
            f"tuning {name!r}: goes down the layers of one encoder, and sharing {model.sharing.registered_as!r} has "
            "more than that; use sharing: hard, or another tuning"
        )
