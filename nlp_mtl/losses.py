"""How the trainer computes its loss: per task, over a step of several micro-batches, passes and processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer

from nlp_mtl.balancers import Balancer, StepFacts
from nlp_mtl.batches import passes_of
from nlp_mtl.data import Data
from nlp_mtl.errors import TrainingError
from nlp_mtl.samplers import Sampler
from nlp_mtl.steps import StepRecord


class MixedLosses(Trainer):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that computes, sums and logs per-task losses.

    Every task's loss is divided by its count over the whole step before any forward pass, so that gradients of micro-
    batches and of passes are simply added, however the step's rows are cut.
    """

    loss_is_scaled_for_ga = True  # the loss is divided by the counts of the whole step, not of a micro-batch
    tasks: list[str]
    data: Data
    balancer: Balancer
    sampler: Sampler
    _facts: StepFacts
    _step_losses: Tensor
    _step_weights: Tensor
    _number: dict[str, int]
    _size: int
    _task_losses: Tensor
    _task_steps: Tensor

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts of rows and units per task over the step, before its forward: the loss is divided by them."""
        found = np.zeros((2, len(self.tasks)))  # setting one number of a tensor takes fifty times as long
        for part in (part for batch in batch_samples for part in passes_of(batch)):
            for task, target in part["targets"].items():
                number = self._number[task]
                found[0, number] += len(part["owners"][task])
                found[1, number] += self.data.heads[task].units(target)
        counts = torch.from_numpy(found)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts.to(device), reduction="sum").cpu()
        facts = StepFacts(self.state.global_step, counts[0], counts[1])
        self._task_steps += facts.present.double() / self.args.world_size
        self._facts, self._step_losses = facts, torch.zeros(len(self.tasks), dtype=torch.float64)
        return facts

    def step_done(self) -> StepRecord:
        """What is known of the optimizer step that was just made; the sampler learns from it."""
        facts, losses = self._facts, self._step_losses
        if self.args.world_size > 1:
            losses = self.accelerator.reduce(losses.to(self.args.device), reduction="sum").cpu()
        losses = torch.where(facts.present, losses, torch.nan)
        rates = facts.rows / facts.rows.sum().clamp_min(1)
        record = StepRecord(facts.step, losses, self._step_weights, rates)
        self.sampler.observe(record)
        return record

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """As the base class, for each pass of the micro-batch; processes exchange gradients in the last one only."""
        *first, last = passes_of(inputs)
        losses = []
        for part in first:
            with self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        losses.append(super().training_step(model, last, num_items_in_batch))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The balanced sum of per-task losses, each its sum over the step divided by the step's count of its units."""
        facts: StepFacts = num_items_in_batch
        self._step_weights = self.balancer.weights(facts)
        weights = dict(zip(self.tasks, self._step_weights.tolist(), strict=True))
        # every process divides by the count per process, since DDP and FSDP average gradients over processes
        units = dict(zip(self.tasks, (facts.units / self.args.world_size).tolist(), strict=True))
        outputs = model(**inputs, weights=weights, units=units, return_logits=return_outputs)
        self._note_losses(outputs["losses"], facts)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As the base class estimates it; the parameters are counted once and not at every step."""
        self._size = self._size or self.accelerator.unwrap_model(self.model).num_parameters(exclude_embeddings=True)
        return 6 * sum(part["input_ids"].numel() for part in passes_of(inputs) if "input_ids" in part) * self._size

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """As the base class, once for all passes: processes count together, and may have different numbers of them."""
        known = [part["input_ids"] for part in passes_of(inputs) if "input_ids" in part]
        super()._track_num_input_tokens({"input_ids": torch.cat(known)} if known else inputs)

    def _note_losses(self, losses: Mapping[str, Tensor], facts: StepFacts) -> None:
        if not losses:
            return
        values = torch.stack(list(losses.values())).double().cpu()
        if not torch.isfinite(values).all():
            bad = [task for task, value in zip(losses, values, strict=True) if not torch.isfinite(value)]
            raise TrainingError(
                f"the loss of {', '.join(bad)} is not a number at step {facts.step + 1}; lower learning_rate, set "
                "max_grad_norm, or look at that task's rows"
            )
        numbers = [self._number[task] for task in losses]
        self._task_losses[numbers] += values / self.args.world_size
        self._step_losses[numbers] += values / self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds ``loss_<task>``, the mean over the steps since the last log in which the task was present."""
        if "loss" in logs and "learning_rate" in logs:
            both = torch.stack([self._task_losses, self._task_steps])
            if self.args.world_size > 1:
                both = self.accelerator.reduce(both.to(self.args.device), reduction="sum").cpu()
            for task, total, steps in zip(self.tasks, *both.tolist(), strict=True):
                if steps:
                    logs[f"loss_{task}"] = total / steps
            self._task_losses.zero_()
            self._task_steps.zero_()
        super().log(logs, start_time)
