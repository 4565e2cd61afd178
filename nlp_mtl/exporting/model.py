"""A task as a folder that `AutoModelFor….from_pretrained` loads: the family's own class, or with code of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from nlp_mtl.exporting.checking import Probe, compare
from nlp_mtl.exporting.plain import config_of, encoder_state, head_state, whole_class
from nlp_mtl.heads.pooled import PooledHead, family_pooling
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.weights import quiet_transformers


def write_model(model: MultiTaskModel, task: str, folder: Path) -> None:
    """Write the family's own class with the task's head, LoRA merged, label names in its config.

    Args:
        model: of a run.
        task: a task whose head is exportable.
        folder: where the files go.
    """
    made = whole_class(model, task)
    if chosen := thresholds(model, task):
        made.config.decision_thresholds = chosen
    with quiet_transformers():
        made.save_pretrained(folder)


def write_custom(model: MultiTaskModel, task: str, folder: Path) -> None:
    """Write an encoder with a head that the family's class does not have, and the code that runs it.

    Args:
        model: of a run.
        task: a task whose head reads one vector per sequence.
        folder: where the files go.
    """
    from nlp_mtl.exporting.task_model import TaskConfig, TaskModel

    head, module = model.heads[task], model.module_of(task)
    config = config_of(model, head)
    own = not hasattr(module, "base_model_prefix")  # a head of ours: one linear layer on the vector
    said = TaskConfig(
        family={**config.to_dict(), "model_type": config.model_type, "dtype": "float32"},
        head="linear" if own else head.auto_class,
        pooling=_pooling(model, task),
        choices=head.auto_class == "AutoModelForMultipleChoice",
        id2label=config.id2label,
        label2id=config.label2id,
        problem_type=config.problem_type,
        pad_token_id=config.pad_token_id,
    )
    if chosen := thresholds(model, task):
        said.decision_thresholds = chosen
    said.dtype = torch.float32
    with torch.random.fork_rng(devices=[]):
        made = TaskModel(said).eval()
    state = {f"encoder.{name}": value for name, value in encoder_state(model, task).items()}
    for name, value in head_state(model, task).items():
        state[f"head.{name.removeprefix('score.') if own else name}"] = value
    found = made.load_state_dict(state, strict=False)
    if found.missing_keys:  # the check on rows would find it too; this names it
        raise ValueError(f"the folder with custom code lacks {found.missing_keys[:4]}")
    TaskConfig.register_for_auto_class()
    TaskModel.register_for_auto_class(head.auto_class)
    with quiet_transformers():
        made.save_pretrained(folder)


def _pooling(model: MultiTaskModel, task: str) -> str:
    head = model.heads[task]
    pooling = head.pooling if isinstance(head, PooledHead) else "family"
    return pooling if pooling != "family" else family_pooling(model.module_of(task))


def check_model(model: MultiTaskModel, probed: Probe, tokenizer: Any, folder: Path, *, custom: bool = False) -> float:
    """Load a written folder as a user does and compare its logits with the run's; gives the largest difference."""
    kind = model.heads[probed.task].auto_class
    auto: Any = getattr(transformers, kind)
    with quiet_transformers():
        if custom:
            from nlp_mtl.exporting.task_model import TaskModel

            made = TaskModel.from_pretrained(
                folder
            ).eval()  # the code that was written; a user's process loads it by name
        else:
            made = auto.from_pretrained(folder, trust_remote_code=False).eval()
    return compare(model, probed, tokenizer, lambda inputs: logits_of(made, inputs, kind))


def logits_of(made: Any, inputs: dict[str, torch.Tensor], auto_class: str) -> torch.Tensor:
    """Logits of each sequence of a padded batch: [sequences, labels], or [sequences, length, labels].

    Args:
        made: a vanilla class, or one that behaves as such.
        inputs: each [sequences, length].
        auto_class: which class it is.
    """
    if auto_class == "AutoModelForMultipleChoice":
        inputs = {key: value[:, None] for key, value in inputs.items()}
    out = made(**inputs)
    if auto_class == "AutoModelForQuestionAnswering":
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits


def thresholds(model: MultiTaskModel, task: str) -> dict[str, float]:
    """From which probability a label is given, where the run says so and not simply the more probable one."""
    head: Any = model.heads[task]
    known = getattr(head, "thresholds", None)
    return dict(known.of(head.decided())) if known is not None else {}
