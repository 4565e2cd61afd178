"""Trials are ended early by what evaluations in their training say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_mtl.errors import ConfigError, near, suggestion
from nlp_mtl.registry import parse_spec
from nlp_mtl.searching.backend import optuna_here

KNOWN: dict[str, dict[str, int]] = {"median": {"after": 4, "wait": 0}, "hyperband": {"reduction": 3}, "none": {}}
_LEAST = {"after": 1, "wait": 0, "reduction": 2}


def read_pruning(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """The name and whole arguments of a search's pruning.

    Raises:
        ConfigError: every mistake in it.

    Example:
        >>> read_pruning("median"), read_pruning({"name": "hyperband", "reduction": 2})
        (('median', {'after': 4, 'wait': 0}), ('hyperband', {'reduction': 2}))
    """
    name, given = parse_spec(spec, "pruning")
    if name not in KNOWN:
        raise ConfigError(f"`pruning` is one of {', '.join(KNOWN)}, found {name!r}{near(name, KNOWN)}")
    mistakes = [
        f"`pruning: {name}` takes no {key!r}{suggestion(key, KNOWN[name])}" for key in given if key not in KNOWN[name]
    ]
    mistakes += [
        f"`pruning`: `{key}` is a whole number from {_LEAST[key]}, found {value!r}; leave it out for {KNOWN[name][key]}"
        for key, value in given.items()
        if key in KNOWN[name] and (isinstance(value, bool) or not isinstance(value, int) or value < _LEAST[key])
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return name, {**KNOWN[name], **given}


def pruner_of(spec: str | Mapping[str, Any]) -> Any:
    """The optuna pruner of a search.

    Args:
        spec: ``median``: ended where its best so far is worse than the median of earlier trials at that evaluation;
            ``hyperband``: brackets of successive halving (Li et al., 2018, arXiv 1603.06560); ``none``.
    """
    pruners = optuna_here().pruners
    name, how = read_pruning(spec)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=how["after"], n_warmup_steps=how["wait"])
    return pruners.HyperbandPruner(reduction_factor=how["reduction"]) if name == "hyperband" else pruners.NopPruner()


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
