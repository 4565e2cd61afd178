"""What is known of an optimizer step when it is done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step, over all processes, micro-batches and passes; the same numbers on every process.

    Attributes:
        step: from 0.
        losses: [tasks], float64, each task's mean loss; NaN where it had nothing to learn from.
        weights: [tasks], what its gradient or loss counted; 0 where absent.
        rates: [tasks], the task's share of the step's rows; rows that several tasks label count for each.
        norms: [tasks], of the tasks' gradients of the shared parameters; None for a step that did not look.
        cosines: [tasks, tasks], between them; NaN for tasks that are absent or have a gradient of zeros.

    Example:
        >>> one, none = torch.ones(1), None
        >>> StepRecord(0, torch.tensor([0.5, torch.nan]), one, one).present.tolist()
        [True, False]
    """

    step: int
    losses: Tensor
    weights: Tensor
    rates: Tensor
    norms: Tensor | None = None
    cosines: Tensor | None = None

    @property
    def present(self) -> Tensor:
        """[tasks]: which tasks had something to learn from."""
        return ~torch.isnan(self.losses)
