"""How the trainer computes its loss: per task, over a step of several micro-batches, passes and processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from transformers import Trainer

from nlp_mtl.balancers import Balancer, StepFacts
from nlp_mtl.batches import passes_of
from nlp_mtl.data import Data
from nlp_mtl.errors import TrainingError, UnsupportedError
from nlp_mtl.heads.told import units_of
from nlp_mtl.penalties import Penalties
from nlp_mtl.rehearsing import look_again, random_state, set_random_state
from nlp_mtl.samplers import Sampler
from nlp_mtl.steps import StepRecord
from nlp_mtl.stepsfile import StepsFile, line_of
from nlp_mtl.tallies import Tally
from nlp_mtl.weighing import Weighing, weighing_for

logger = logging.getLogger("nlp_mtl")


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
    plan: Any
    cosines_every: int
    steps_file: StepsFile | None = None
    _tally: Tally
    _penalties: Penalties
    _weighing: Weighing | None = None
    _unwrapped: tuple[Any, Any] | None = None
    _facts: StepFacts
    _parts: list[Any]
    _left: int
    _begun: bool
    control: Any
    _single: bool
    _before: Any = None
    _step_losses: Tensor
    _number: dict[str, int]
    _size: int
    _task_losses: Tensor
    _task_steps: Tensor

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts of rows and units per task over the step, before its forward: the loss is divided by them."""
        found = np.zeros((3, len(self.tasks)))  # setting one number of a tensor takes fifty times as long
        parts = [part for batch in batch_samples for part in passes_of(batch)]
        for part in parts:
            for task, target in part["targets"].items():
                number = self._number[task]
                found[0, number] += len(part["owners"][task])
                found[1, number] += units_of(self.data.heads[task], target)
        found[2] = len(parts)
        counts = torch.from_numpy(found)
        if self.args.world_size > 1:
            counts = self.over_processes(counts.to(device)).cpu()
        epoch = self.state.global_step // max(1, self.plan.steps) if getattr(self, "plan", None) is not None else 0
        facts = StepFacts(self.state.global_step, counts[0], counts[1], epoch)
        self._task_steps += facts.present.double() / self.args.world_size
        self._facts, self._step_losses = facts, torch.zeros(len(self.tasks), dtype=torch.float64)
        self._parts, self._left = parts, len(parts)
        if (teaching := getattr(self.own_model(), "teaching", None)) is not None:
            teaching.at(self.state.global_step, self.state.max_steps)
        self._begun, self._single = False, int(counts[2].max()) <= self.args.world_size
        return facts

    def _begin_step(self) -> None:
        """Begin to weigh; not before the first pass, for a resumed run sets the random state between the two."""
        if not self._begun:
            self._begun = True
            self._before = random_state() if "new_losses" in self.balancer.needs else None
            self.weighing.begin(self._facts, self.model_wrapped, self._parts, self._single)

    def own_model(self) -> Any:
        """The model below what accelerate wraps; looked for anew only when that is another, for it takes a while."""
        if self._unwrapped is None or self._unwrapped[0] is not self.model:
            self._unwrapped = (self.model, self.accelerator.unwrap_model(self.model))
        return self._unwrapped[1]

    @property
    def weighing(self) -> Weighing:
        """How the tasks of a step are weighed."""
        if self._weighing is None or self._weighing.model is not self.own_model():
            accelerator = self.accelerator
            own = type(self).compute_loss is not MixedLosses.compute_loss
            if own and {"gramian", "jacobian"} & self.balancer.needs:
                raise UnsupportedError(
                    f"balancer {self.balancer.name!r}: takes each task's loss from the model itself, and would never "
                    f"call {type(self).__name__}.compute_loss; leave that out, or use a balancer on losses"
                )
            sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
            self._weighing = weighing_for(
                self,
                self.own_model(),
                self.balancer,
                every=0 if own else self.cosines_every,
                sharded=self.is_fsdp_enabled or accelerator.distributed_type in sharded,
                scaled=accelerator.mixed_precision == "fp16",
            )
        return self._weighing

    def weigh_anew(self) -> None:
        """Other parameters are trained from now on: look up again whose gradients are weighed."""
        self._weighing = None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """As the base class, for each pass of the micro-batch; processes exchange gradients in the last one only."""
        self._begin_step()
        parts, losses = passes_of(inputs), []
        for number, part in enumerate(parts):
            self._left -= 1
            last_here = number == len(parts) - 1
            losses.append(self.weighing.train(model, part, last=not self._left, sync=last_here))
            if self._penalties.looks:
                look_again(self, part, self._left)
        if not self._left:
            scaler = getattr(self.accelerator, "scaler", None)
            sharing = self.own_model().sharing
            self._penalties.add(sharing, 1.0 if scaler is None else scaler.get_scale())
        return torch.stack(losses).sum()

    # ------------------------------------------------------------------------------------ what the weighing asks for

    def plain_pass(self, model: nn.Module, part: Mapping[str, Any], facts: StepFacts, *, sync: bool) -> Tensor:
        """One forward and backward pass of the weighted sum, as the base class makes it."""
        with nullcontext() if sync else self.accelerator.no_sync(model):
            return super().training_step(model, part, facts)

    def outputs(self, model: nn.Module, part: Mapping[str, Any], facts: StepFacts, weights: Any) -> Any:
        """One forward pass in training mode, with the losses noted."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # of schedule-free ones
            self.optimizer.train()
        inputs = self._prepare_inputs(part)
        with self.compute_loss_context_manager():
            return self._outputs(model, inputs, facts, weights)

    def losses_of(self, model: nn.Module, parts: Sequence[Mapping[str, Any]], facts: StepFacts) -> Tensor:
        """[tasks]: the step's losses by forward passes alone, over all processes, with the dropout of its passes."""
        with self.rehearsal(), torch.no_grad():
            if not self._left and self._before is not None:  # the step is made: as its passes were
                set_random_state(self._before)
            for part in parts:
                self.outputs(model, part, facts, None)
            return self.noted()

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Passes inside this block leave no trace: random numbers and losses are afterwards what they were."""
        state, noted, logged = random_state(), self._step_losses, self._task_losses.clone()
        self._step_losses = torch.zeros_like(noted)
        try:
            yield
        finally:
            self._step_losses, self._task_losses = noted, logged
            set_random_state(state)

    def noted(self) -> Tensor:
        """[tasks]: the step's losses noted so far, over all processes."""
        found = self._step_losses.clone()
        return self.over_processes(found.to(self.args.device)).cpu() if self.args.world_size > 1 else found

    @property
    def products_in_bfloat16(self) -> bool:
        """Whether linear layers multiply in bfloat16, on the CPU."""
        return self.accelerator.mixed_precision == "bf16" and self.args.device.type == "cpu"

    def over_processes(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        return self.accelerator.reduce(values, reduction="sum") if self.args.world_size > 1 else values

    def gather(self, thing: Any) -> list[Any]:
        """What each process has."""
        return gather_object([thing]) if self.args.world_size > 1 else [thing]

    def step_done(self) -> StepRecord:
        """What is known of the optimizer step that was just made; balancer and sampler learn from it."""
        facts = self._facts
        losses = torch.where(facts.present, self.noted(), torch.nan)
        self._penalties.after_step()
        self.weighing.done(self.model_wrapped, self._parts)
        rates = facts.rows / facts.rows.sum().clamp_min(1)
        look = self.weighing.look
        seen = (look.norms, look.cosines) if look is not None else (None, None)
        record = StepRecord(facts.step, losses, self.weighing.shown.double().cpu(), rates, *seen)
        before = self.sampler.version
        self.sampler.observe(record, self.tasks)
        if self.sampler.version != before:
            self._tell_shares(record.step)
        if self.sampler.finished:  # a run that had ended and was resumed
            self.control.should_training_stop = True
        self._tally.add(record)
        self._parts = []
        if self.steps_file is not None:
            self.steps_file.add(line_of(record, self.tasks))
        return record

    def _tell_shares(self, step: int) -> None:
        shares = self.sampler.shares()
        if shares and self.args.process_index == 0:
            said = ", ".join(f"{task} {share:.3f}" for task, share in shares.items())
            logger.info("sampler: from step %d on the tasks' shares are %s", step + 3, said)

    # ----------------------------------------------------------------------------------------------------- the losses

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The balanced sum of per-task losses, each its sum over the step divided by the step's count of its units."""
        self._begin_step()
        weights = self.weighing.for_forward()
        outputs = self._outputs(model, inputs, num_items_in_batch, weights, return_logits=return_outputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _outputs(
        self, model: nn.Module, inputs: Mapping[str, Any], facts: StepFacts, weights: Any, return_logits: bool = False
    ) -> Any:
        # every process divides by the count per process, since DDP and FSDP average gradients over processes
        units = dict(zip(self.tasks, (facts.units / self.args.world_size).tolist(), strict=True))
        outputs = model(**inputs, weights=weights, units=units, return_logits=return_logits)
        self._note_losses(outputs["losses"], facts)
        return outputs

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As the base class estimates it; the parameters are counted once and not at every step."""
        self._size = self._size or self.own_model().num_parameters(exclude_embeddings=True)
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
        """Adds ``loss_<task>``, the mean since the last log over steps with the task, and a tally of steps."""
        if "loss" in logs and "learning_rate" in logs:
            both = torch.stack([self._task_losses, self._task_steps])
            if self.args.world_size > 1:
                both = self.accelerator.reduce(both.to(self.args.device), reduction="sum").cpu()
            for task, total, steps in zip(self.tasks, *both.tolist(), strict=True):
                if steps:
                    logs[f"loss_{task}"] = total / steps
            self._task_losses.zero_()
            self._task_steps.zero_()
            logs |= self._tally.take()
            logs |= self._penalties.take()
            if self.steps_file is not None:
                self.steps_file.flush()
        super().log(logs, start_time)
