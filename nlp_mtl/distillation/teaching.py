"""What teachers add to the tasks' losses, step by step; and the projections between widths, which are learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.distilspec import DistillationSpec
from nlp_mtl.heads import Head
from nlp_mtl.heads.taught import kind_of
from nlp_mtl.heads.vanilla import seed_of
from nlp_mtl.packing import Packed


class Teaching(nn.Module):
    """Puts a task's loss together: (1 − w) · labels + w · (T² · KL + β · distance of hidden states).

    Each part is a sum over the task's units; the model divides by how many of them have a label or a teacher. Units
    without a teacher count by their labels whole, those without a label by w · (…). Of regression, squared differences
    stand for KL. It is a part of the model only while it is trained.

    Costs: one pass of the teacher over the training rows, once for all runs; four bytes in memory for each number it
    says, and with hidden states for each of their dimensions; at each step next to nothing.

    Args:
        specs: task → what it learns from whom.
        widths: task → hidden sizes of student and teacher, where states are compared.
        seed: of the projections.

    Relations: the loss of Hinton et al. (2015, arXiv 1503.02531), with the annealed share of BAM (Clark et al., 2019,
    arXiv 1907.04829), which takes T = 1; a regression's teacher is treated as in BAM. States of the layer that a head
    reads are compared as the last layers of FitNets (Romero et al., 2014, arXiv 1412.6550) and TinyBERT (Jiao et al.,
    2019, arXiv 1909.10351), which compare layers below too.
    """

    def __init__(
        self, specs: Mapping[str, DistillationSpec], widths: Mapping[str, tuple[int, int]] | None = None, seed: int = 0
    ):
        super().__init__()
        self.specs = dict(specs)
        self.projections = nn.ModuleDict()
        for task, (ours, theirs) in (widths or {}).items():
            if ours != theirs:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed_of(f"projection of {task}", seed))
                    self.projections[task] = nn.Linear(ours, theirs)
        self.shares: dict[str, float] = {}
        self.at(0, 1)

    def at(self, step: int, steps: int) -> None:
        """A step of a training of so many begins: take the teachers' shares for it."""
        self.shares = {task: spec.share(step, steps) for task, spec in self.specs.items()}

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """A task's projection."""
        return self.projections[task].parameters() if task in self.projections else iter(())

    def loss(self, head: Head, module: nn.Module, packed: Packed, scores: Tensor, target: Mapping[str, Any]) -> Tensor:
        """The summed loss of a task's units in a pass.

        Args:
            head: of the task.
            module: its module.
            packed: the states it reads.
            scores: its logits.
            target: with `teacher`, see :func:`nlp_mtl.heads.told.collated`.
        """
        task = head.task.name
        kind: Any = kind_of(head)
        spec, share = self.specs[task], self.shares[task]
        summed = kind.loss(head, scores, target, spec.temperature)
        if spec.hidden and target["teacher"]["states"] is not None:
            summed = summed + spec.hidden * self._distance(kind, head, module, packed, target)
        both, alone = kind.own(head, scores, target)
        total = share * summed if both is None else (1 - share) * both + share * summed
        return total if alone is None else total + alone

    def _distance(self, kind: Any, head: Head, module: nn.Module, packed: Packed, target: Mapping[str, Any]) -> Tensor:
        """The sum over units of the mean squared difference between states."""
        ours, told = kind.states(head, module, packed, target), target["teacher"]
        weights, theirs, known = kind.share_of_state(target), told["states"], told["known"]
        if head.task.name in self.projections:
            ours = self.projections[head.task.name](ours)
        if known is not None:
            ours, theirs, weights = ours[known], theirs[known], None if weights is None else weights[known]
        each = (ours.float() - theirs).square().mean(-1)
        return (each if weights is None else each * weights).sum()
