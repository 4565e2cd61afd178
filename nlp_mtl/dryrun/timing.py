"""A few really timed optimizer steps and evaluation batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import (
    IntervalStrategy,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import DefaultFlowCallback
from transformers.trainer_utils import SaveStrategy

from nlp_mtl.batches import Collator, length_sorted
from nlp_mtl.dryrun.memory import state_bytes
from nlp_mtl.dryrun.result import Time
from nlp_mtl.dryrun.steps import PlannedSteps
from nlp_mtl.errors import TrainingError
from nlp_mtl.peak import PeakMemory, synchronize
from nlp_mtl.trainer import MultiTaskTrainer

_WARM_UP = 2  # steps that are done before those that are timed
_BATCHES = 8  # evaluation batches that are timed


# ------------------------------------------------------------------------------------------------ optimizer steps


@dataclass
class Timed:
    """What the timed steps showed.

    Attributes:
        tokens, seconds: [steps] of the steps that count.
        optimizer: bytes of the optimizer's state after the first step; None without a step.
        peak: bytes; None without a step.
        largest: tokens of the largest step that was done.
        warm_up: how many steps were done before.
    """

    tokens: np.ndarray
    seconds: np.ndarray
    optimizer: int | None
    peak: int | None
    largest: int | None
    warm_up: int


def timed_steps(
    trainer: MultiTaskTrainer,
    planned: PlannedSteps,
    *,
    count: int,
    resume_from: Path | None = None,
    progress: bool = False,
) -> Timed:
    """Train for a few steps of the plan in the Trainer's own loop, and stop.

    The steps are of the first epoch (of the one that a resumed run is in): spread evenly over its steps sorted by their
    tokens, and the largest. They are chosen, not made up: their rows are those of the plan. Two steps go before, for
    what is set up once.

    Args:
        trainer: is used up by this: its model is trained a little, and must be thrown away.
        planned: the plan's steps.
        count: how many steps are timed.
        resume_from: a checkpoint to go on from.
        progress: show a bar.

    Raises:
        TrainingError: a loss that is not a number, or no room for the largest step.
    """
    steps_per_epoch, done = planned.found.steps_per_epoch, planned.found.done
    epoch, place = divmod(done, steps_per_epoch)
    if done >= planned.found.steps:
        return Timed(np.zeros(0), np.zeros(0), None, None, None, 0)
    first = chosen_steps(planned.tokens[epoch][place:], count) + place
    rest = np.setdiff1d(np.arange(steps_per_epoch), first)
    order = np.concatenate([rest[rest < place], first, rest[rest >= place]])  # a resumed run passes over `place` steps
    doing = min(planned.found.steps - done, count + _WARM_UP + 1)  # where the epoch has fewer, the next one's
    places = [divmod(done + number, steps_per_epoch) for number in range(doing)]
    tokens = np.array([planned.tokens[epoch][order[step]] for epoch, step in places])
    watch = _Watch(trainer, doing, progress)
    _quieten(trainer, watch)
    trainer.step_order = order.tolist()
    try:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from is not None else None)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"no room on {trainer.args.device} for a step of {int(tokens[len(watch.seconds)])} tokens, one of this "
            "run's; set or lower tokens_per_pass (the step stays the same), lower max_length, use a LoRA, or set "
            "training.activation_checkpointing"
        ) from error
    finally:
        watch.end()
    warm = min(_WARM_UP, doing // 2)
    seconds = np.array(watch.seconds)
    return Timed(tokens[warm:], seconds[warm:], watch.optimizer, watch.memory.peak, int(tokens.max()), warm)


def chosen_steps(tokens: np.ndarray, count: int) -> np.ndarray:
    """The steps to do, in this order: two typical ones, `count` spread evenly over all by size, the largest.

    Args:
        tokens: [steps], at least one.
        count: how many are timed, the largest not counted.

    Example:
        >>> chosen_steps(np.array([5, 9, 1, 7, 3, 8, 2, 6, 4]), 2).tolist()
        [0, 8, 4, 3, 1]
        >>> chosen_steps(np.array([5, 9]), 2).tolist()
        [0, 1]
    """
    if len(tokens) <= count + _WARM_UP + 1:
        return np.arange(len(tokens))
    by_size = np.argsort(tokens, kind="stable")
    largest, others = by_size[-1], by_size[:-1]
    places = ((np.arange(count) + 0.5) / count * len(others)).astype(int)
    free = np.delete(others, places)
    middle = free[np.argsort(np.abs(np.arange(len(free)) - len(free) / 2), kind="stable")[:_WARM_UP]]
    mixed = np.random.default_rng(0).permutation(others[places])  # so that a machine that slows down is no slope
    return np.concatenate([middle, mixed, [largest]])


def _quieten(trainer: MultiTaskTrainer, watch: TrainerCallback) -> None:
    """Nothing is saved, scored or said, no callback of the user's is called, and Ctrl-C ends it at once."""
    args = trainer.args
    args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    args.eval_on_start = args.load_best_model_at_end = False
    args.save_total_limit = None  # no checkpoint is removed either
    for callback in list(trainer.callback_handler.callbacks):
        if not isinstance(callback, DefaultFlowCallback):
            trainer.remove_callback(callback)
    trainer.add_callback(watch)


class _Watch(TrainerCallback):
    """Notes the time of every step, stops after `count`, and looks at the optimizer after the first one."""

    def __init__(self, trainer: MultiTaskTrainer, count: int, progress: bool):
        self._trainer, self._count = trainer, count
        self.seconds: list[float] = []
        self.optimizer: int | None = None
        self.memory = PeakMemory(trainer.args.device)
        self._bar = tqdm(total=count, desc="dry run: timing steps", leave=False, disable=not progress)
        self._last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.memory.begin()
        self._last = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        synchronize(args.device)
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        if self.optimizer is None:
            self.optimizer = state_bytes(self._trainer.optimizer)
        self._bar.update()
        control.should_training_stop = control.should_training_stop or len(self.seconds) >= self._count
        self._last = time.perf_counter()

    def end(self) -> None:
        self.memory.end()
        self._bar.close()


# ----------------------------------------------------------------------------------------------------------- time


@dataclass
class Line:
    """Seconds as a line over tokens: ``base + slope · tokens``, with the spread of the points around it.

    Example:
        >>> line = Line.through(np.array([10, 20, 30]), np.array([2.0, 3.0, 4.0]))
        >>> round(line.base, 6), round(line.slope, 6), float(line.seconds(np.array([40])).round(6)[0])
        (1.0, 0.1, 5.0)
    """

    base: float
    slope: float
    error: float | None

    @classmethod
    def through(cls, tokens: np.ndarray, seconds: np.ndarray) -> Line:
        """The least-squares line, kept from falling and from starting below 0; `error` is that of its mean."""
        tokens = np.asarray(tokens, dtype=float)
        base, slope = float(np.mean(seconds)), 0.0
        if len(tokens) > 2 and np.ptp(tokens) > 0.05 * tokens.mean():
            slope, base = (float(value) for value in np.polyfit(tokens, seconds, 1))
            if base < 0:
                base, slope = 0.0, float(np.sum(seconds) / np.sum(tokens))
            elif slope < 0:
                base, slope = float(np.mean(seconds)), 0.0
        left = np.asarray(seconds) - base - slope * tokens
        error = float(np.sqrt(np.sum(left**2) / (len(left) - 2) / len(left))) if len(left) > 2 else None
        return cls(base, slope, error)

    def seconds(self, tokens: np.ndarray) -> np.ndarray:
        """[…]: seconds for so many tokens."""
        return self.base + self.slope * np.asarray(tokens, dtype=float)


def evaluation_seconds(trainer: MultiTaskTrainer, *, progress: bool = False) -> float | None:
    """Seconds of an evaluation of all tasks' validation rows, without scoring, from a few batches of all lengths."""
    pools = trainer.data.splits.get("validation", [])
    if not pools:
        return None
    evaluator, model = trainer.evaluator, trainer.evaluation_model()
    batches = list(length_sorted(pools, rows=evaluator.batch_rows))
    tokens = np.array([sum(int(pools[pool].tokens[row]) for pool, row, _ in refs) for refs in batches])
    count = min(_BATCHES, len(batches))  # spread evenly over all, which are sorted by length
    chosen = ((np.arange(count) + 0.5) / count * len(batches)).astype(int)
    collator, seconds = Collator(pools, trainer.data.heads), []
    for number in tqdm([chosen[0], *chosen], desc="dry run: timing evaluation", leave=False, disable=not progress):
        began = time.perf_counter()
        evaluator.predict_batch(model, collator, batches[number], {"rows": {}, "loss": {}})
        synchronize(trainer.args.device)
        seconds.append(time.perf_counter() - began)
    line = Line.through(tokens[chosen], np.array(seconds[1:]))  # the first was there to warm up
    return float(line.seconds(tokens).sum()) / trainer.args.world_size


def time_of(planned: PlannedSteps, timed: Timed, evaluation: float | None, others: Sequence[str] = ()) -> Time:
    """What is left of the run, in seconds.

    Args:
        planned: the plan's steps.
        timed: what the timed steps showed.
        evaluation: seconds of one evaluation.
        others: what else is not in the estimate.
    """
    done, count = planned.found.done, planned.found.steps
    tokens = np.concatenate(planned.tokens)[done:] if planned.tokens else np.zeros(0)
    training = error = step = None
    if len(timed.seconds):
        line = Line.through(timed.tokens, timed.seconds)
        training = float(line.seconds(tokens).sum())
        step = training / len(tokens)
        error = None if line.error is None else line.error * len(tokens)
    elif done >= count:
        training = 0.0
    evaluations = (evaluation or 0.0) * planned.found.evaluations
    left_out = ", ".join(["the start", "writing checkpoints", *others])
    return Time(
        timed_steps=len(timed.seconds),
        timed=[
            {"tokens": int(t), "seconds": round(float(s), 6)} for t, s in zip(timed.tokens, timed.seconds, strict=True)
        ],
        step=step,
        training=training,
        training_error=error,
        evaluation=evaluation,
        evaluations=evaluations,
        total=None if training is None else training + evaluations,
        how=f"{len(timed.seconds)} optimizer steps of the plan, done after {timed.warm_up} others: seconds as a line "
        f"over tokens, summed over the {len(tokens)} steps to do; evaluation from up to {_BATCHES} batches in the same "
        f"way. Not in it: {left_out}",
    )
