"""Each task's adapter and head as they were at its own best evaluation."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasklora import SHARED, owners_of

logger = logging.getLogger("nlp_mtl")
KeepBest = Literal["run", "task"]
_TENSORS, _SAID = "bests.safetensors", "bests.json"


@dataclass
class Best:
    """A task at its best so far.

    Attributes:
        step: of training.
        metric, score: the task's first metric, and its value.
        heads: task → what its head had chosen then; those of tasks that borrow the head too.
        tensors: the adapter's and the head's weights, by their names in the model.
    """

    step: int
    metric: str
    score: float
    heads: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False, default_factory=dict)


class TaskBests(Trainer):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that keeps each task's own best step (`keep_best: task`).

    Tasks that have an adapter of their own, and share nothing that is trained, do not wait for one another: each is
    kept as it was at its own best evaluation, and at the end the model is made of these.

    Relations: early stopping for each task by itself, though all train to the end in one pass.
    """

    keep_best: KeepBest
    scores: dict[str, TaskScores]
    _bests: dict[str, Best]

    def _note_bests(self) -> None:
        """After an evaluation in training: the tasks that were never better."""
        if self.keep_best != "task" or not self.is_in_train:
            return
        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        for task, found in self.scores.items():
            if found.first is None or model.heads[task].task.head_key != task:  # who lends the head decides
                continue
            score, known = found.metrics[found.first], self._bests.get(task)
            if known is not None and not (score > known.score if found.better else score < known.score):
                continue
            heads = {name: copy.deepcopy(head.spec) for name, head in model.heads.items() if head.task.head_key == task}
            tensors = {name: value.detach().cpu().clone() for name, value in _own(model, task).items()}
            self._bests[task] = Best(self.state.global_step, found.first, score, heads, tensors)

    def _take_bests(self) -> bool:
        """At the end: every task as it was at its best; gives whether there were any."""
        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        for task, best in self._bests.items():
            with torch.no_grad():
                for name, value in _own(model, task).items():
                    value.copy_(best.tensors[name])
            for name, spec in best.heads.items():
                model.heads[name].recall(spec if isinstance(spec, dict) else {})
            logger.info("%s: kept as it was at step %d (%s %.4f)", task, best.step, best.metric, best.score)
        return bool(self._bests)

    def _save_bests(self, folder: Path) -> None:
        """Into a checkpoint: what resuming needs."""
        if not self._bests:
            return
        tensors = {
            f"{task}/{name}": value for task, best in self._bests.items() for name, value in best.tensors.items()
        }
        save_file(tensors, folder / _TENSORS)
        said = {task: [best.step, best.metric, best.score, best.heads] for task, best in self._bests.items()}
        write_text(folder / _SAID, json.dumps(said))

    def _load_bests(self, folder: Path) -> None:
        """From a checkpoint, which is whole."""
        self._bests = {}
        if self.keep_best != "task" or not (folder / _SAID).is_file():
            return
        tensors = load_file(folder / _TENSORS)
        for task, (step, metric, score, heads) in json.loads((folder / _SAID).read_text(encoding="utf-8")).items():
            own = {name.removeprefix(f"{task}/"): t for name, t in tensors.items() if name.startswith(f"{task}/")}
            self._bests[task] = Best(step, metric, score, heads, own)


def _own(model: MultiTaskModel, task: str) -> dict[str, Tensor]:
    """What of a model is a task's alone, by its name."""
    names = {f"sharing.encoder.{name}": p for name, p in model.sharing.encoder.named_parameters()}
    adapter = {name: p for name, p in names.items() if "lora_" in name and name.split(".")[-2] == task}
    head = {f"modules_.{task}.{name}": value for name, value in model.modules_[task].state_dict().items()}
    return {**adapter, **head}


def check_keep_best(keep_best: str, model: MultiTaskModel, args: TrainingArguments) -> None:
    """Refuse to keep tasks at their own best steps where they share what is trained.

    Raises:
        ConfigError: with the reason and the way out.
    """
    if keep_best not in ("run", "task"):
        raise ConfigError(f"keep_best: run or task, found {keep_best!r}; leave it out for run")
    if keep_best == "run":
        return
    encoder: Any = model.sharing.encoder
    why = None
    if owners_of(encoder) is None:
        why = "it is for tasks with an adapter of their own; set `task_lora`"
    elif SHARED in encoder.peft_config:
        why = "the adapter that all share (`lora`) trains on after a task's best step; leave `lora` out"
    elif args.fsdp:
        why = "weights are cut up among processes (FSDP); train without, adapters are small"
    elif args.eval_strategy == "no":
        why = "nothing is evaluated in training (`training.eval_strategy` is no, or there are no rows for it); evaluate"
    if why:
        raise ConfigError(f"keep_best: task keeps each task at its own best step, but {why}, or leave out `keep_best`")
