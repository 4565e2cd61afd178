"""The trainer: `transformers.Trainer` with mixed batches, per-task losses and metrics, and safe checkpoints."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import IntervalStrategy, TrainerCallback, TrainingArguments

from nlp_mtl import checkpoint, registry
from nlp_mtl.batches import MixedRows, learned_from, pools_of
from nlp_mtl.bests import KeepBest, check_keep_best
from nlp_mtl.callbacks import Advancing, RowsSeen, StepDone, StopSafely
from nlp_mtl.data import Data, load_data
from nlp_mtl.distillation import Distilling
from nlp_mtl.errors import RunFolderError
from nlp_mtl.evaluating import MixedEvaluations
from nlp_mtl.evaluation import Evaluator, TaskScores
from nlp_mtl.features import check_frozen
from nlp_mtl.feeding import MixedBatches, check_budgets
from nlp_mtl.grouping import check_auxiliary, check_pools, check_stopping, sampler_of
from nlp_mtl.heads import Head
from nlp_mtl.hub.training import HubPushes
from nlp_mtl.losses import MixedLosses
from nlp_mtl.memory import freed_memory_stays
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.penalties import Penalties
from nlp_mtl.rates import chosen_rates, factors_of, regroup
from nlp_mtl.regularizers import save_importance
from nlp_mtl.saving import SafeCheckpoints
from nlp_mtl.settings import Precision, check_sharded, settings_for
from nlp_mtl.stepsfile import StepsFile
from nlp_mtl.tallies import Tally
from nlp_mtl.unfreezing import check_changing, unfreezing_of
from nlp_mtl.updates import FusedUpdates

logger = logging.getLogger("nlp_mtl")


class MultiTaskTrainer(FusedUpdates, MixedBatches, MixedLosses, MixedEvaluations, HubPushes, SafeCheckpoints):
    """Trains a :class:`MultiTaskModel` on mixed batches.

    Everything else is the Trainer's: schedules, accumulation, clipping, callbacks, loggers, early stopping, DDP, FSDP.
    ``per_device_train_batch_size`` counts rows over all tasks; with `tokens_per_batch` it does not count.

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
        tokens_per_batch: count a step in tokens and not in rows: so many real tokens, over all processes and micro-
            batches, to within one row; see :class:`nlp_mtl.tokenplan.TokenPlan`. Each step's rows are dealt so that
            processes and micro-batches get about the same tokens. At least the tokens of the longest training row.
        tokens_per_pass: at most so many tokens in one forward and backward pass on one device: a micro-batch of more
            is cut into several, rows of like length together, and their gradients are added, which is the gradient of
            the whole. So this bounds the memory of activations, and changes the result by rounding only (and by which
            dropout masks are drawn). A row that has more tokens is a pass of its own. Under DDP processes may make
            different numbers of passes; under FSDP those with fewer make empty ones. Not with DeepSpeed or LOMO.
        keep_best: ``run``, the checkpoint that is best in the mean (`load_best_model_at_end`); or ``task``, each task's
            adapter and head as they were at its own best evaluation, for models with `task_lora` and nothing else that
            is trained.
        train_tasks: only these learn; the others stay in the model as they are, and are scored. Default all.
        regularizers: what is added to each step's loss that depends on the parameters alone: `name` or
            ``{name: …, arguments}``, or a list of them.
        distillation: teachers, and what is learned from them beside the labels: the fields of
            :class:`nlp_mtl.distilspec.DistillationSpec`, or a list of such.
        groups: tasks that are trained in turn: arguments of :class:`nlp_mtl.samplers.Grouped`.
        stop_tasks: when a task gets no more rows: arguments of :class:`nlp_mtl.samplers.Stopping`.
        layer_decay: the learning rate of each encoder layer is that of the one above times this.
        task_rates: task → what the learning rate of its head and its own adapter is multiplied by.
        cache_features: keep what a frozen encoder gives for each text; see :class:`nlp_mtl.features.FeatureCache`.
        cosines_every: look at the tasks' gradients each so many steps, for the record, where the balancer does not; 0
            for never.
        callbacks: more callbacks.
        kwargs: what the Trainer takes besides.

    Raises:
        DataError: rows that can't be used, or no task with training rows.
        ConfigError: wrong arguments.
        UnsupportedError: token budgets together with what does not go with them.
    """

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
        tokens_per_batch: int | None = None,
        tokens_per_pass: int | None = None,
        keep_best: KeepBest = "run",
        train_tasks: Sequence[str] | None = None,
        regularizers: Sequence[registry.Spec] | registry.Spec = (),
        distillation: Sequence[Mapping[str, Any]] | Mapping[str, Any] = (),
        groups: Mapping[str, Any] | None = None,
        stop_tasks: Mapping[str, Any] | None = None,
        layer_decay: float = 1.0,
        task_rates: Mapping[str, float] | None = None,
        cache_features: bool = False,
        cosines_every: int = 50,
        callbacks: Sequence[TrainerCallback] | None = None,
        **kwargs: Any,
    ):
        args = settings_for(args or TrainingArguments("runs/run"), precision)
        self.strategies = {"balancer": balancer, "sampler": sampler, "learning_rates": dict(learning_rates or {})}
        self.balancer = registry.balancers.build(balancer)
        self.sampler = sampler_of(sampler, groups, stop_tasks)
        check_stopping(stop_tasks, args)
        self.learning_rates = dict(learning_rates or {})
        self._factors = factors_of(model, layer_decay, task_rates or {})
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
        self._train_pools = learned_from(data.splits.get("train", []), train_tasks, model.tasks)
        self._distilling = None
        if distillation:
            more = {"train_tasks": train_tasks, "data_root": data_root, "seed": args.seed}
            self._distilling = Distilling(distillation, model, data, **more)
            self._train_pools = self._distilling.pools(self._train_pools)
            self.strategies["distillation"] = self._distilling.said()
        check_keep_best(keep_best, model, args)
        self.keep_best, self._bests = keep_best, {}
        check_budgets(tokens_per_batch, tokens_per_pass, args, self._train_pools)
        self.tokens_per_batch, self.tokens_per_pass = tokens_per_batch, tokens_per_pass
        self.evaluator = Evaluator(data, batch_rows=args.per_device_eval_batch_size)
        self.tasks, self._size = model.tasks, 0
        self._number = {task: number for number, task in enumerate(self.tasks)}
        for task, head in model.heads.items():
            if (pool := data.pool_of(task, "train")) is not None:
                fresh = model.fresh and head.task.head_key == task and task not in model.begun
                head.begin(model.module_of(task), pool.labels(task), fresh=fresh)
        pools = pools_of(self._train_pools)
        check_pools(groups, pools)
        sizes = {task: size for pool in pools for task, size in zip(pool.tasks, pool.sizes, strict=True)}
        for task, rows in (self._distilling.guests if self._distilling is not None else {}).items():
            sizes[task] = sizes.get(task, 0) + rows
        classes = [len(head.labels or ()) for head in model.heads.values()]
        self.balancer.setup(self.tasks, [sizes.get(task, 0) for task in self.tasks], classes=classes, seed=args.seed)
        self.cosines_every = cosines_every
        self._task_losses = torch.zeros(len(self.tasks), dtype=torch.float64)
        self._task_steps = torch.zeros(len(self.tasks), dtype=torch.float64)
        taught = () if self._distilling is None else [lesson.task for lesson in self._distilling.lessons]
        learning = {*(self.tasks if train_tasks is None else train_tasks), *taught} - set(self.balancer.only_weigh)
        check_auxiliary(model, learning)
        self._tally, self._penalties = Tally(self.tasks), Penalties(regularizers, model, data, learning)
        if regularizers:
            self.strategies["regularizers"] = self._penalties.said(regularizers)
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
            callbacks=[
                self._stop,
                StepDone(self),
                RowsSeen(self),
                Advancing(model.heads.values()),
                *unfreezing_of(self, model),
                *(callbacks or []),
            ],
            **kwargs,
        )
        for part in missing:  # the base class makes the output folder at once; a run begins with what is written to it
            with suppress(OSError):  # something was written there in the meantime
                part.rmdir()
        self._pools = pools
        self.steps_file = StepsFile(args.output_dir) if args.should_save and args.save_strategy != "no" else None
        chosen_rates(model, self.learning_rates)  # refused before anything is written
        check_sharded(model.sharing, self.accelerator, model.heads)
        self._penalties.check(self.accelerator, self.args, self.balancer)
        if self._distilling is not None:
            self._distilling.check(self.accelerator)
        check_changing(model, self.accelerator)
        model.check_whole()
        if cache_features:
            check_frozen(True, [task for task, head in model.heads.items() if type(head).corrupt is not Head.corrupt])
            model.sharing.keep_features()
        if self._train_pools:
            self.weighing.begin  # noqa: B018 - likewise
        self.strategies["precision"] = self.accelerator.mixed_precision

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
        self._began, self._bests = True, {}
        if not resume_from_checkpoint:
            self._penalties.begin(self.args.world_size)
        if self.steps_file is not None and not resume_from_checkpoint:
            self.steps_file.begin_at(0)
        self._ask_teachers(resume_from_checkpoint or None)
        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        model.fresh = False
        model.strategies["precision"] = self.strategies["precision"]  # also what predict takes
        model.keep_embedding_gradient(self.args.world_size == 1 and self.args.device.type == "cpu")
        gc.collect()
        gc.freeze()  # what is loaded stays; walking through it took a twentieth of the time
        try:
            with freed_memory_stays():
                result = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            self.stop_collating()
            if self.steps_file is not None:
                self.steps_file.flush()
            gc.unfreeze()
            model.keep_embedding_gradient(False)
            model.teaching = None
            self._stop.release()
            self.is_in_train = False
        if self._stop.stopped:
            last = checkpoint.checkpoints(self.args.output_dir)
            saved = "nothing was saved, `save_strategy` is 'no'; the model can be used as it is"
            if last:
                saved = f"saved {last[-1]}; go on with trainer.train(resume_from_checkpoint=True)"
            logger.warning("stopped by Ctrl-C at step %d; %s", self.state.global_step, saved)
            return result
        if self._take_bests():
            self._tuned_at = self.state.global_step
        if self._tuned_at != self.state.global_step and (tasks := self.evaluator.tunable()):
            self._scores("validation", tasks)
        if self.args.save_strategy != "no":
            self.save_model()
        self._carry()
        return result

    def _ask_teachers(self, resumed_from: str | None) -> None:
        """Have what teachers say of the training rows, before the first step."""
        if self._distilling is not None:
            self._distilling.begin(
                Path(self.args.output_dir if resumed_from is None else Path(resumed_from).parent),
                resumed=resumed_from is not None,
                keep=self.args.save_strategy != "no",
                main=self.args.process_index == 0,
                processes=self.args.world_size,
            )

    def _carry(self) -> None:
        """Write what a later run's regularizers begin with, of the model that is kept."""
        if not self._penalties.made:
            return
        learned = [task for task in self.tasks if any(task in pool.tasks for pool in self._train_pools)]
        for file, found in self._penalties.carried(learned).items() if self.args.should_save else ():
            Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
            save_importance(Path(self.args.output_dir) / file, found)
        self._wait()  # the next stage reads it on every process

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

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with parameters that have a learning rate of their own in groups of their own."""
        optimizer = super().create_optimizer(model)
        if (self.learning_rates or self._factors) and not getattr(self, "_regrouped", False):
            self._regrouped = True
            regroup(optimizer, model if model is not None else self.model, self.learning_rates, self._factors)
        return optimizer
