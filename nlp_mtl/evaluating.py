"""How the trainer evaluates: each task by its own metrics, on the splits of its own rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object
from torch import nn

from nlp_mtl.bests import TaskBests
from nlp_mtl.errors import ConfigError
from nlp_mtl.evaluation import Evaluator, TaskScores, flatten
from nlp_mtl.samplers import Sampler
from nlp_mtl.taskfile import SPLITS, Split

logger = logging.getLogger("nlp_mtl")


class MixedEvaluations(TaskBests):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that scores tasks, and lets the sampler learn from that."""

    model: Any
    control: Any
    evaluator: Evaluator
    sampler: Sampler
    scores: dict[str, TaskScores]
    _tuned_at: int | None

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
        if split == "validation":
            self._note_bests()
            if self.is_in_train:
                self._learn_from_scores()
        found = flatten(self.scores, metric_key_prefix)
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self._memory_tracker.stop_and_update_metrics(found)
        return found

    def _learn_from_scores(self) -> None:
        """The sampler may learn from an evaluation, and may end the training."""
        found = {t: (s.metrics[s.first], s.better) for t, s in self.scores.items() if s.first is not None}
        before = self.sampler.version
        self.sampler.observe_scores(self.state.global_step, found)
        if self.sampler.version != before:
            self._tell_shares(self.state.global_step - 1)
        if self.sampler.finished:
            if self.args.process_index == 0:
                logger.info(
                    "stop_tasks: no task gets better any more; training ends at step %d", self.state.global_step
                )
            self.control.should_training_stop = True

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
