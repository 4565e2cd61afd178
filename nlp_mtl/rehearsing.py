"""Passes of a step that leave no trace: the random state that is kept, and regularizers' passes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

RandomState = tuple[Tensor, list[Tensor]]


def random_state() -> RandomState:
    """Where torch's random numbers are, on the CPU and on GPUs."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def set_random_state(state: RandomState) -> None:
    """Go back to where :func:`random_state` was."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def look_again(trainer: Any, part: Mapping[str, Any], left: int) -> None:
    """Let regularizers make passes of their own on a part of the step, all with the same dropout.

    Args:
        trainer: a :class:`nlp_mtl.losses.MixedLosses` within a step.
        part: the mixed batch.
        left: how many passes of the step come after this one.
    """
    own, facts = trainer.own_model(), trainer._facts
    weights = dict(zip(trainer.tasks, trainer.weighing.shown.tolist(), strict=True))
    units = dict(zip(trainer.tasks, facts.units.tolist(), strict=True))
    with trainer.rehearsal():
        before = random_state()

        def call(changed: Mapping[str, Any]) -> dict[str, Any]:
            set_random_state(before)
            given = {name: value for name, value in changed.items() if name != "units"}
            own.train()
            with trainer.compute_loss_context_manager():
                return own(**trainer._prepare_inputs(given), weights=weights, units=units)

        trainer._penalties.after_pass(call, {**part, "units": units}, weights, (facts.step, left))
