"""What a run file may say under ``training:``: fields of TrainingArguments, their values, and the deciding metric."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlp_mtl import metrics, registry
from nlp_mtl.errors import ConfigError, pip_install, suggestion
from nlp_mtl.fields import left_out, read_fields

if TYPE_CHECKING:
    from nlp_mtl.heads.base import Head

# What a run file means where it is silent and TrainingArguments would mean something else.
TRAINING_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "mean_skill",
    "greater_is_better": True,
    "logging_steps": 20,
}

LARGEST = sys.float_info.max  # neither infinite nor not a number
BELOW_ONE = math.nextafter(1, 0)
_LIMITS: dict[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, LARGEST),
    "per_device_eval_batch_size": (1, LARGEST),
    "gradient_accumulation_steps": (1, LARGEST),
    "eval_accumulation_steps": (1, LARGEST),
    "logging_steps": (0, LARGEST),
    "dataloader_num_workers": (0, LARGEST),
    "learning_rate": (0, LARGEST),
    "weight_decay": (0, LARGEST),
    "max_grad_norm": (0, LARGEST),
    "warmup_steps": (0, LARGEST),
    "adam_beta1": (0, BELOW_ONE),
    "adam_beta2": (0, BELOW_ONE),
    "adam_epsilon": (0, LARGEST),
    "num_train_epochs": (0, LARGEST),
    "seed": (0, 2**32 - 1),
    "data_seed": (0, 2**32 - 1),
}
_TRACKERS = {
    "tensorboard": pip_install("tensorboard"),
    "trackio": pip_install("trackio"),
    **{name: f"pip install {name}" for name in ("clearml", "codecarbon", "dvclive", "mlflow", "swanlab")},
    "wandb": "pip install wandb",
    "comet_ml": "pip install comet-ml",
}


def read_training(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values as TrainingArguments takes them, and what is wrong, by field; see :func:`nlp_mtl.fields.read_fields`."""
    from transformers import TrainingArguments

    asked = {key: value for key, value in given.items() if not (key == "max_grad_norm" and value is None)}  # no limit
    read, wrong = read_fields(TrainingArguments, asked, "training")
    for key, (least, most) in _LIMITS.items():
        value = read.get(key)
        if key not in wrong and isinstance(value, (int, float)) and not least <= value <= most:
            end = "below 1" if most == BELOW_ONE else most
            rule = f"at least {least}" if most == LARGEST else f"from {least} to {end}"
            wrong[key] = f"`training.{key}` is {rule}, found {value!r}{left_out(TrainingArguments, key)}"
    if "output_dir" in read and (not str(read["output_dir"] or "").strip() or "\0" in str(read["output_dir"])):
        wrong["output_dir"] = (
            f"`training.output_dir` is the folder of the run, found {given['output_dir']!r}; name one, or leave the "
            "key out for runs/ with the run file's name"
        )
    if "report_to" not in wrong and (mistake := _tracker_mistake(read.get("report_to"))):
        wrong["report_to"] = mistake
    return {**given, **read}, wrong


def _tracker_mistake(asked: Any) -> str | None:
    """What is wrong with ``report_to``: trackers that transformers does not know, or that are not installed."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK as KNOWN
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    names = [name for name in ([asked] if isinstance(asked, str) else asked or []) if name not in ("none", "all")]
    unknown = [
        f"{name!r} is no tracker of transformers{suggestion(name, KNOWN)}" for name in names if name not in KNOWN
    ]
    here = get_available_reporting_integrations() if names else []
    missing = [
        f"{name} is not installed: {_TRACKERS[name]}" for name in names if name in _TRACKERS and name not in here
    ]
    said = "; ".join([*unknown, *missing])
    return f"`training.report_to`: {said}; or report_to: none" if said else None


def metric_mistake(wanted: Any, greater_is_better: Any, heads: Mapping[str, Head]) -> str | None:
    """What is wrong with ``metric_for_best_model``: no task gives it, or the wrong direction is said.

    Args:
        wanted: the name, with or without ``eval_``.
        greater_is_better: what the run file means by `greater_is_better`.
        heads: the run's heads.
    """
    if not isinstance(wanted, str) or not wanted:
        return None
    name = wanted.removeprefix("eval_")
    known = {"mean": True, "mean_skill": True, "loss": False}
    for task, head in heads.items():
        if head.task.splits.get("validation", "validation") is not None:
            known.update(_given_by(task, head))
    if name not in known:
        free = [task for task, head in heads.items() if _gives_more(head)]
        if any(name.startswith(f"{task}_") for task in free):
            return None
        return f"`training.metric_for_best_model`: no task gives {wanted!r}{suggestion(name, known)}"
    if not known[name] and wanted != "loss" and greater_is_better:
        return (
            f"`training.metric_for_best_model`: less of {wanted!r} is better, and greater_is_better is "
            f"{greater_is_better!r}; add `greater_is_better: false`"
        )
    return None


def _given_by(task: str, head: Head) -> dict[str, bool]:
    """What evaluation reports of a task, and whether more of it is better."""
    given = {f"{task}_skill": True, f"{task}_loss": False}
    for metric in head.metrics:
        try:
            key = metrics.key_of(metric)
        except ConfigError:
            continue
        more = metric not in registry.metrics or getattr(registry.metrics[metric], "greater_is_better", True)
        given[f"{task}_{key}"] = bool(more)
        if head.tunes and metric == head.metrics[0]:
            given[f"{task}_{key}_at_half"] = bool(more)
        if metric == "span_f1":
            types = {label[2:] for label in head.labels or [] if label[1:2] == "-"}
            further = ["span_precision", "span_recall", *(f"span_f1_{type_}" for type_ in sorted(types))]
            given.update({f"{task}_{name}": True for name in further})
    return given


def _gives_more(head: Head) -> bool:
    """Whether only evaluation tells all that it gives: its head, a metric or its label list is not known here."""
    made = [type(head).score, *(registry.metrics[name] for name in head.metrics if name in registry.metrics)]
    ours = all(one.__module__.startswith("nlp_mtl.") for one in made) and len(made) > len(head.metrics)
    return not ours or ("span_f1" in head.metrics and head.labels is None)
