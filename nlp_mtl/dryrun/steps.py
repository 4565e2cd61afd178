"""Steps, rows and tokens of the actual mixing plan, and how often the run stops to evaluate or to save."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback
from transformers.trainer_utils import SaveStrategy

from nlp_mtl.dryrun.result import Steps
from nlp_mtl.tokenplan import TokenPlan
from nlp_mtl.trainer import MultiTaskTrainer


@dataclass
class PlannedSteps:
    """The plan's steps one by one.

    Attributes:
        tokens: per epoch, [steps]: tokens of each step.
        found: the plan in numbers.
    """

    tokens: list[np.ndarray]
    found: Steps


def planned_steps(trainer: MultiTaskTrainer, *, done: int = 0, progress: bool = False) -> PlannedSteps:
    """All steps of a run, from the plan that its trainer makes.

    Args:
        trainer: a trainer that has not been trained; its `plan` is made.
        done: steps that a checkpoint has behind it.
        progress: show a bar.

    Raises:
        DataError: no task has training rows.
        ConfigError: a sampler whose arguments don't fit the tasks.
    """
    args = trainer.args
    trainer.get_train_dataloader()
    plan = trainer.plan
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * plan.steps)
    epochs = range(-(-steps // plan.steps))
    rows, tokens, shown = [], [], 0
    for epoch in tqdm(epochs, desc="dry run: planning epochs", leave=False, disable=not progress):
        part = min(plan.steps, steps - epoch * plan.steps)
        rows.append(trainer.rows_shown(epoch, part))
        tokens.append(trainer.tokens_shown(epoch, part))
        shown += int(plan.counts(epoch)[:part].sum())
    total = Counter[str]()
    for counts in rows:
        total.update(counts)
    sizes = {
        task: int(pool.labelled(task).sum()) for pool in trainer.data.splits.get("train", []) for task in pool.tasks
    }
    evaluations, checkpoints = stops(args, steps, plan.steps, done=done)
    evaluated = bool(trainer.data.splits.get("validation"))
    found = Steps(
        rows_per_step=round(shown / max(steps, 1)) if isinstance(plan, TokenPlan) else plan.rows_per_step,
        tokens_per_step=round(plan.tokens_per_step) if isinstance(plan, TokenPlan) else None,
        tokens_per_pass=trainer.tokens_per_pass,
        steps_per_epoch=plan.steps,
        steps=steps,
        done=done,
        epochs=round(steps / plan.steps, 6),
        rows_per_epoch=rows,
        rows=dict(total),
        repeats={task: round(total[task] / size, 6) for task, size in sizes.items() if size},
        tokens=int(sum(part.sum() for part in tokens)),
        evaluations=(evaluations + 1) * evaluated,  # the best or last model is scored once more at the end
        checkpoints=checkpoints,
    )
    return PlannedSteps(tokens, found)


def stops(args: TrainingArguments, steps: int, steps_per_epoch: int, *, done: int = 0) -> tuple[int, int | None]:
    """How often a run evaluates and saves, by asking the Trainer's own callback after every step and epoch.

    Args:
        args: the Trainer's arguments.
        steps: of the whole run.
        steps_per_epoch: of an epoch.
        done: steps done before.

    Returns:
        Evaluations while training; checkpoints, None where a score decides about them.

    Example:
        >>> stops(TrainingArguments(eval_strategy="steps", eval_steps=4, save_strategy="epoch", use_cpu=True), 10, 5)
        (3, 2)
    """
    state, control, flow = TrainerState(max_steps=steps), TrainerControl(), DefaultFlowCallback()
    state.compute_steps(args, steps)
    evaluations, saves = int(bool(args.eval_on_start) and done < steps), 0
    for step in range(done + 1, steps + 1):
        state.global_step, state.epoch = step, step / steps_per_epoch
        last = step % steps_per_epoch == 0 or step == steps
        for event in ("on_step_end", "on_epoch_end") if last else ("on_step_end",):
            control._new_step()
            getattr(flow, event)(args, state, control)
            evaluations, saves = evaluations + control.should_evaluate, saves + control.should_save
    return evaluations, None if args.save_strategy == SaveStrategy.BEST else saves
