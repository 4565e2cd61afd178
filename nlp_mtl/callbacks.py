"""Callbacks: stop safely on Ctrl-C, log how many rows of each task an epoch saw, show progress in few lines."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger("nlp_mtl")


class AtBegin(TrainerCallback):
    """Calls a function once, when all is made and loaded and the first step is about to come.

    Args:
        action: called without arguments.
    """

    def __init__(self, action: Callable[[], None]):
        self.action, self._done = action, False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Call it."""
        if not self._done:
            self._done = True
            self.action()


class StopSafely(TrainerCallback):
    """The first Ctrl-C lets the step finish, saves a checkpoint and ends training; the second one stops at once.

    `stopped` is true afterwards. Outside the main thread signals can't be caught, and nothing is changed.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over SIGINT."""
        self.stopped = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.stopped:
            self.release()
            raise KeyboardInterrupt
        self.stopped = True
        print("\nCtrl-C: finishing this step and saving; once more to stop at once", file=sys.stderr)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End training after this step if Ctrl-C came, to whichever process."""
        if args.world_size > 1:  # a process that stopped alone would leave the others waiting
            flag = torch.tensor(float(self.stopped), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.stopped = bool(flag)
        if self.stopped:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
            control.should_evaluate = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give SIGINT back."""
        self.release()

    def release(self) -> None:
        """Give SIGINT back to who had it before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


class RowsSeen(TrainerCallback):
    """Logs ``rows_<task>`` at the end of every epoch: rows that it saw with the task's label, over all processes."""

    def __init__(self, trainer: Any):
        self._trainer = trainer

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the counts of the steps done."""
        plan = self._trainer.plan
        epoch, done = divmod(state.global_step, plan.steps)
        epoch, done = (epoch - 1, plan.steps) if done == 0 else (epoch, done)
        due = control.should_log  # the base class takes any log for the one that is due
        self._trainer.log({f"rows_{task}": count for task, count in self._trainer.rows_shown(epoch, done).items()})
        control.should_log = due


class StepDone(TrainerCallback):
    """Lets a trainer know, after each optimizer step and before anything is saved, that it is done."""

    def __init__(self, trainer: Any):
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say so."""
        self._trainer.step_done()


class Advancing(TrainerCallback):
    """Tells heads before each step what part of the training is done; see :meth:`nlp_mtl.heads.Head.advance`.

    It follows from the step alone, so a resumed run goes on as it was.

    Args:
        heads: the model's heads.
    """

    def __init__(self, heads: Iterable[Any]):
        self._heads = list(heads)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell them."""
        for head in self._heads:
            head.advance(state.global_step / max(1, state.max_steps))


class Progress(TrainerCallback):
    """A bar with the mean loss while training, and one line per evaluation; takes the place of the Trainer's own."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the bar, at the step a resumed run has reached."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the loss."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """One line of scores."""
        if self._bar is None or not metrics or "eval_mean" not in metrics:
            return
        skills = {k.removeprefix("eval_").removesuffix("_skill"): v for k, v in metrics.items() if k.endswith("_skill")}
        shown = "  ".join(f"{task} {value:.2f}" for task, value in skills.items() if task != "mean")
        epoch = f"epoch {state.epoch:.2f}" if state.epoch is not None else ""
        self._bar.write(f"{epoch}  mean score {metrics['eval_mean']:.3f}   above trivial (0 … 1): {shown}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
