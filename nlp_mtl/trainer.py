"""The trainer: `transformers.Trainer` with mixed batches, per-task losses and metrics, and safe checkpoints."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import IntervalStrategy, TrainerCallback, TrainingArguments

from nlp_mtl import checkpoint, registry
from nlp_mtl.balancers import StepFacts
from nlp_mtl.batches import Collator, MixedBatchSampler, MixedLoader, MixedRows, pools_of, to_device
from nlp_mtl.callbacks import RowsSeen, StopSafely
from nlp_mtl.data import Data, load_data
from nlp_mtl.errors import ConfigError, DataError, RunFolderError, TrainingError
from nlp_mtl.evaluation import Evaluator, TaskScores, flatten
from nlp_mtl.memory import freed_memory_stays
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.plan import MixingPlan
from nlp_mtl.saving import SafeCheckpoints
from nlp_mtl.settings import Precision, chosen_rates, regroup, settings_for
from nlp_mtl.taskfile import SPLITS, Split
from nlp_mtl.updates import FusedUpdates

logger = logging.getLogger("nlp_mtl")


class MultiTaskTrainer(FusedUpdates, SafeCheckpoints):
    """Trains a :class:`MultiTaskModel` on mixed batches.

    Everything else is the Trainer's: schedules, accumulation, clipping, callbacks, loggers, early stopping, DDP, FSDP.
    ``per_device_train_batch_size`` counts rows over all tasks.

    Args:
        model: the model; it names the tasks.
        args: the Trainer's own arguments.
        balancer: how per-task losses become one update; `name` or ``{name: …, arguments}``.
        sampler: how many rows of each task a batch holds.
        data: tokenized rows; by default those of the model's tasks.
        data_root: where data sets are looked for first.
        precision: ``auto`` takes bf16 where the CPU or GPU has it and `args` asks for neither bf16 nor fp16; ``args``
            leaves it to them.
        learning_rates: other learning rates, by ``heads``, ``encoder`` or a pattern on parameter names, e.g.
            ``{"heads": 1e-3, "encoder.layer.0.*": 1e-5}``.
        callbacks: more callbacks.
        kwargs: what the Trainer takes besides.

    Raises:
        DataError: rows that can't be used, or no task with training rows.
        ConfigError: wrong arguments.
    """

    loss_is_scaled_for_ga = True  # the loss is divided by the counts of the whole step, not of a micro-batch
    step_order: Sequence[int] | None = None  # the steps of an epoch in another order, for a dry run

    def __init__(
        self,
        model: MultiTaskModel,
        args: TrainingArguments | None = None,
        *,
        balancer: registry.Spec = "equal",
        sampler: registry.Spec = "proportional",
        data: Data | None = None,
        data_root: str | Path | None = None,
        precision: Precision = "auto",
        learning_rates: Mapping[str, float] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        **kwargs: Any,
    ):
        args = settings_for(args or TrainingArguments("runs/run"), precision)
        self.strategies = {"balancer": balancer, "sampler": sampler, "learning_rates": dict(learning_rates or {})}
        self.balancer, self.sampler = registry.balancers.build(balancer), registry.samplers.build(sampler)
        self.learning_rates = dict(learning_rates or {})
        if data is None:
            with args.main_process_first(desc="tokenizing"):
                data = load_data(model.heads, model.tokenizer, max_length=model.max_length, data_root=data_root)
        self.data = data = replace(data, heads={**data.heads, **model.heads})  # what heads learn, both must know
        if args.process_index == 0:
            for note in data.notes():
                logger.warning(note)
        if args.eval_strategy != "no" and not data.splits.get("validation"):
            logger.warning("no task has validation rows: nothing is evaluated, and the last model is the one kept")
            args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
        self._train_pools = [pool for pool in data.splits.get("train", []) if len(pool.trainable)]
        self.evaluator = Evaluator(data, batch_rows=args.per_device_eval_batch_size)
        self.tasks, self._size = model.tasks, 0
        self._number = {task: number for number, task in enumerate(self.tasks)}
        for task, head in model.heads.items():
            if (pool := data.pool_of(task, "train")) is not None:
                fresh = model.fresh and head.task.head_key == task
                head.begin(model.module_of(task), pool.labels(task), fresh=fresh)
        pools = pools_of(self._train_pools)
        sizes = {task: size for pool in pools for task, size in zip(pool.tasks, pool.sizes, strict=True)}
        self.balancer.setup(self.tasks, [sizes.get(task, 0) for task in self.tasks])
        self._task_losses = torch.zeros(len(self.tasks), dtype=torch.float64)
        self._task_steps = torch.zeros(len(self.tasks), dtype=torch.float64)
        self.scores: dict[str, TaskScores] = {}
        self._stop, self._began = StopSafely(), False
        self._tuned_at: int | None = None  # the step whose weights the heads' thresholds were chosen for
        folder = Path(args.output_dir)
        missing = [part for part in (folder, *folder.parents) if args.should_save and not part.exists()]
        super().__init__(
            model=model,
            args=args,
            train_dataset=MixedRows(self._train_pools) if self._train_pools else None,
            eval_dataset=MixedRows(data.splits.get("validation", [])),
            processing_class=model.tokenizer,
            callbacks=[self._stop, RowsSeen(self), *(callbacks or [])],
            **kwargs,
        )
        for part in missing:  # the base class makes the output folder at once; a run begins with what is written to it
            with suppress(OSError):  # something was written there in the meantime
                part.rmdir()
        self._pools = pools
        chosen_rates(model, self.learning_rates)  # refused before anything is written
        self.strategies["precision"] = self.accelerator.mixed_precision

    # ------------------------------------------------------------------------------------------------------ data

    def get_train_dataloader(self) -> MixedLoader:
        """Mixed batches; the base class has no hook for a batch sampler, and accelerate would shard it again."""
        if not self._train_pools:
            raise DataError(
                f"train: a task with labelled training rows is needed, found none among {', '.join(self.tasks)}; add "
                "one, or correct `target` and `splits`"
            )
        args = self.args
        self.plan = MixingPlan(
            self.sampler,
            self._pools,
            rows_per_step=self._train_batch_size * args.world_size * args.gradient_accumulation_steps,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            epochs=args.num_train_epochs,
        )
        if args.max_steps > 0:
            self.plan.epochs = args.max_steps / self.plan.steps
        sampler = MixedBatchSampler(
            self.plan,
            [pool.trainable for pool in self._train_pools],
            micro_batches=args.gradient_accumulation_steps,
            process=args.process_index,
            processes=args.world_size,
            order=self.step_order,
        )
        return MixedLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=Collator(self._train_pools, self.data.heads, seed=self.plan.seed, training=True),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def rows_shown(self, epoch: int, steps: int) -> dict[str, int]:
        """Task → rows with its label that the first `steps` steps of an epoch show, over all processes."""
        found: dict[str, int] = {}
        for pool, rows in zip(self._train_pools, self.plan.shown(epoch, steps), strict=True):
            for task in pool.tasks:
                found[task] = int(pool.labelled(task)[pool.trainable[rows]].sum()) if len(rows) else 0
        return found

    def tokens_shown(self, epoch: int, steps: int) -> np.ndarray:
        """[steps]: tokens of each of the first `steps` steps of an epoch, over all processes."""
        counts, total = self.plan.counts(epoch)[:steps], np.zeros(steps, dtype=np.int64)
        for number, (pool, rows) in enumerate(zip(self._train_pools, self.plan.shown(epoch, steps), strict=True)):
            done = np.concatenate([[0], pool.tokens[pool.trainable[rows]].cumsum()])
            ends = counts[:, number].cumsum()
            total += done[ends] - done[ends - counts[:, number]]
        return total

    def _prepare_input(self, data: Any) -> Any:
        """Nested batches to the device; the base class would rebuild mappings by their type."""
        return to_device(data, self.args.device)

    # -------------------------------------------------------------------------------------------------- training

    def train(self, resume_from_checkpoint: str | bool | None = None, *, overwrite: bool = False, **kwargs: Any) -> Any:
        """Train; then the best or last model is in the output folder.

        Args:
            resume_from_checkpoint: a checkpoint folder, or True for the newest whole one.
            overwrite: remove a run of another trainer from the output folder first.

        Raises:
            RunFolderError: the checkpoint is damaged or of another model; the output folder holds another run.
            ConfigError: metrics that can't be computed for their task.
            TrainingError: a loss that is not a number, or no room to save.
        """
        if isinstance(resume_from_checkpoint, bool) and resume_from_checkpoint:
            resume_from_checkpoint = str(checkpoint.checkpoint_to_resume(self.args.output_dir))
        elif resume_from_checkpoint and (wrong := checkpoint.damage(resume_from_checkpoint)):
            way = checkpoint.other_ways(Path(resume_from_checkpoint).parent)
            raise RunFolderError(f"{resume_from_checkpoint}: no checkpoint to resume from, {wrong}; {way}")
        self.evaluator.check()
        if not resume_from_checkpoint and not self._began:
            self._clear_folder(overwrite)
        self._began = True
        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        model.fresh = False
        model.keep_embedding_gradient(self.args.world_size == 1 and self.args.device.type == "cpu")
        gc.collect()
        gc.freeze()  # what is loaded stays; walking through it took a twentieth of the time
        try:
            with freed_memory_stays():
                result = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            gc.unfreeze()
            model.keep_embedding_gradient(False)
            self._stop.release()
            self.is_in_train = False
        if self._stop.stopped:
            last = checkpoint.checkpoints(self.args.output_dir)
            saved = "nothing was saved, `save_strategy` is 'no'; the model can be used as it is"
            if last:
                saved = f"saved {last[-1]}; go on with trainer.train(resume_from_checkpoint=True)"
            logger.warning("stopped by Ctrl-C at step %d; %s", self.state.global_step, saved)
            return result
        if self._tuned_at != self.state.global_step and (tasks := self.evaluator.tunable()):
            self._scores("validation", tasks)
        if self.args.save_strategy != "no":
            self.save_model()
        return result

    def _clear_folder(self, overwrite: bool) -> None:
        """Checkpoints of another run would be taken for this one's when it is resumed."""
        folder = Path(self.args.output_dir)
        holds = self.args.save_strategy != "no" and checkpoint.holds_run(folder)
        self._wait()  # all processes have looked before one of them clears up
        if not holds:
            return
        if not overwrite:
            raise RunFolderError(
                f"{folder} already holds a run: continue it with train(resume_from_checkpoint=True), --resume on the "
                "command line; replace it with train(overwrite=True), --overwrite; or choose another output_dir"
            )
        if self.args.should_save:
            checkpoint.remove_run(folder)
        self._wait()

    @property
    def stopped(self) -> bool:
        """Whether the last training was ended by Ctrl-C."""
        return self._stop.stopped

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts of rows and units per task over the step, before its forward: the loss is divided by them."""
        found = np.zeros((2, len(self.tasks)))  # setting one number of a tensor takes fifty times as long
        for batch in batch_samples:
            for task, target in batch["targets"].items():
                number = self._number[task]
                found[0, number] += len(batch["owners"][task])
                found[1, number] += self.data.heads[task].units(target)
        counts = torch.from_numpy(found)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts.to(device), reduction="sum").cpu()
        return StepFacts(self.state.global_step, counts[0], counts[1])

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The balanced sum of per-task losses, each its sum over the step divided by the step's count of its units."""
        facts: StepFacts = num_items_in_batch
        weights = dict(zip(self.tasks, self.balancer.weights(facts).tolist(), strict=True))
        # every process divides by the count per process, since DDP and FSDP average gradients over processes
        units = dict(zip(self.tasks, (facts.units / self.args.world_size).tolist(), strict=True))
        outputs = model(**inputs, weights=weights, units=units, return_logits=return_outputs)
        self._note_losses(outputs["losses"], facts)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As the base class estimates it; the parameters are counted once and not at every step."""
        self._size = self._size or self.accelerator.unwrap_model(self.model).num_parameters(exclude_embeddings=True)
        return 6 * inputs["input_ids"].numel() * self._size if "input_ids" in inputs else 0

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
        present = facts.present.double() / self.args.gradient_accumulation_steps
        self._task_steps += present / self.args.world_size

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

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with parameters that have a learning rate of their own in groups of their own."""
        optimizer = super().create_optimizer(model)
        if self.learning_rates and not getattr(self, "_regrouped", False):
            self._regrouped = True
            regroup(optimizer, model if model is not None else self.model, self.learning_rates)
        return optimizer

    # ------------------------------------------------------------------------------------------------ evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of every task: ``eval_<task>_<metric>``, ``eval_mean`` and ``eval_mean_skill``.

        Args:
            eval_dataset: the split, default ``"validation"``.
            ignore_keys: not used.
            metric_key_prefix: what metric names begin with.
        """
        usual = eval_dataset is None or eval_dataset is self.eval_dataset
        split = self._split("evaluate", "validation" if usual else eval_dataset)
        self._memory_tracker.start()
        self.scores = self._scores(split)
        found = flatten(self.scores, metric_key_prefix)
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self._memory_tracker.stop_and_update_metrics(found)
        return found

    def predict(
        self, test_dataset: Any = "test", ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> Any:
        """Scores and predictions of a split, unlabelled ones included: task → :class:`TaskScores`."""
        self.scores = self._scores(self._split("predict", test_dataset))
        found = flatten(self.scores, metric_key_prefix)
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, found)
        return self.scores

    def _split(self, what: str, given: Any) -> Split:
        if not isinstance(given, str) or given not in SPLITS:
            raise ConfigError(
                f"{what}: a split, one of {', '.join(SPLITS)}, found {given!r}; rows of your own are a task's, see Task"
            )
        return given

    def evaluation_model(self) -> nn.Module:
        """The model as evaluations call it: wrapped as in training, in eval mode."""
        model = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:  # evaluation without training: autocast as in training
            model = (
                self.accelerator.prepare(model)
                if self.is_fsdp_enabled
                else self.accelerator.prepare_model(model, evaluation_mode=True)
            )
            if self.is_fsdp_enabled:
                self.model = self.model_wrapped = model
        return model.eval()

    def _scores(self, split: Split, tasks: Sequence[str] | None = None) -> dict[str, TaskScores]:
        if split == "validation":
            self._tuned_at = self.state.global_step
        return self.evaluator.evaluate(
            self.evaluation_model(),
            split,
            tasks=tasks,
            tune=split == "validation",
            process=self.args.process_index,
            processes=self.args.world_size,
            gather=gather_object if self.args.world_size > 1 else None,
            progress=self.args.should_log and not self.args.disable_tqdm,
        )

    def best_steps(self) -> dict[str, dict[str, float]]:
        """For every task the evaluation at which its first metric was best: ``{step, score}``."""
        best: dict[str, dict[str, float]] = {}
        for entry in self.state.log_history:
            for task, found in self.scores.items():
                value = entry.get(f"eval_{task}_{found.first}")
                if value is None:
                    continue
                known = best.get(task)
                if known is None or (value > known["score"] if found.better else value < known["score"]):
                    best[task] = {"step": entry["step"], "score": value}
        return best
