"""What a run folder says for its card: scores, how it was trained, negative transfer, energy."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.errors import RunFolderError

# what is told of `training:`; paths, loggers and where it was computed are not
_TOLD = """max_steps num_train_epochs per_device_train_batch_size gradient_accumulation_steps learning_rate
lr_scheduler_type warmup_steps weight_decay optim adam_beta1 adam_beta2 adam_epsilon max_grad_norm
label_smoothing_factor bf16 fp16 seed data_seed load_best_model_at_end metric_for_best_model
neftune_noise_alpha""".split()
_SCORES = ("validation", "trivial", "skill", "thresholds", "own_best", "training_seconds")


def facts_of(run: Path | None) -> dict[str, Any]:
    """What the files beside a run's model say; a file that is not there says nothing.

    Args:
        run: a run folder, or a checkpoint in one; None for a model that was never saved.

    Returns:
        ``scores`` (of ``metrics.json``, without the log), ``training`` (of ``run.yaml``, numbers and names only),
        ``negative_transfer`` (of ``report.json``: task → number, or a mapping with ``difference``, how much better or
        worse the task is than alone) and ``emissions`` (of codecarbon's ``emissions.csv``).
    """
    if run is None:
        return {}
    place = run if (run / "run.yaml").is_file() or (run / "metrics.json").is_file() else run.parent
    found: dict[str, Any] = {}
    if place == run and (scores := _json(run / "metrics.json")):  # a checkpoint's scores are not the run's
        found["scores"] = {key: scores[key] for key in _SCORES if key in scores}
    if (place / "run.yaml").is_file():
        found["training"] = _training(yamlfile.load(place / "run.yaml")[0] or {})
    if transfer := (_json(place / "report.json") or {}).get("negative_transfer"):
        found["negative_transfer"] = transfer
    if emissions := _emissions(place / "emissions.csv"):
        found["emissions"] = emissions
    return found


def _json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file}: damaged ({error}), so the card can't tell it; repair or remove it") from None
    return said if isinstance(said, dict) else None


def _training(said: Mapping[str, Any]) -> dict[str, Any]:
    given = said.get("training") or {}
    told = {key: given[key] for key in _TOLD if key in given}
    own = {
        key: said[key]
        for key in ("learning_rates", "tokens_per_batch", "tokens_per_pass", "max_length")
        if said.get(key)
    }
    return {**told, **own}


def _emissions(file: Path) -> dict[str, Any] | None:
    """The last line of codecarbon's file, without the place's coordinates and the machine's names of runs."""
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return None
    last = rows[-1]
    found: dict[str, Any] = {}
    for key in ("emissions", "energy_consumed", "duration"):
        try:
            found[key] = float(last.get(key) or "")
        except ValueError:
            continue
    for key in ("country_name", "cpu_model", "gpu_model"):
        if last.get(key):
            found[key] = last[key]
    return found if "emissions" in found else None
