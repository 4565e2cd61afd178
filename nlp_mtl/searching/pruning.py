"""Trials are ended early by what evaluations in their training say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def pruner_of(name: str) -> Any:
    """The optuna pruner of a search.

    Args:
        name: median: worse at its best so far than half of the earlier trials at this evaluation, from the fifth trial
            on; hyperband: brackets of successive halving; none.
    """
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    return pruners.HyperbandPruner() if name == "hyperband" else pruners.NopPruner()


class Reports(TrainerCallback):
    """Tells a trial each evaluation's score, and ends the training if the trial is to be pruned.

    The step of an evaluation is its number, counted in the log, so that a training that is resumed counts on.

    Args:
        trial: an optuna trial.
        score: task → score gives the trial's.
        first: task → its first metric, of the tasks that count.
    """

    def __init__(self, trial: Any, score: Callable[[Mapping[str, float]], float], first: Mapping[str, str]):
        self._trial, self._score, self._first = trial, score, dict(first)
        self._known = set(trial.study.trials[trial.number].intermediate_values)
        self._training, self.pruned, self.done = False, False, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on evaluations count."""
        self._training = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Report, and ask."""
        names = {task: f"eval_{task}_{metric}" for task, metric in self._first.items()}
        if not self._training or not metrics or any(name not in metrics for name in names.values()):
            return
        one = next(iter(names.values()))
        number = sum(one in entry for entry in state.log_history)
        if number not in self._known:
            self._trial.report(self._score({task: metrics[name] for task, name in names.items()}), number)
        if state.global_step < state.max_steps and self._trial.should_prune():
            self.pruned = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note how much of it was done."""
        self._training, self.done = False, state.global_step / max(1, state.max_steps)
