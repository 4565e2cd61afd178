"""The dry run itself: everything a run does before its first step, a few steps, and nothing kept."""

from __future__ import annotations

import copy
import gc
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from nlp_mtl import adapters, checkpoint, config
from nlp_mtl.dryrun.memory import memory_of
from nlp_mtl.dryrun.pooling import probe_pooling
from nlp_mtl.dryrun.result import DryRun, Part
from nlp_mtl.dryrun.rows import task_rows
from nlp_mtl.dryrun.shared import shared_rows
from nlp_mtl.dryrun.steps import planned_steps
from nlp_mtl.dryrun.timing import evaluation_seconds, time_of, timed_steps
from nlp_mtl.errors import ConfigError
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.starting import check_folder, read_run, trainer_of
from nlp_mtl.trainer import MultiTaskTrainer

logger = logging.getLogger("nlp_mtl")


def dry_run(
    source: str | Path | Mapping[str, Any] | config.RunConfig,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    timed: int = 8,
    probe_rows: int = 500,
    progress: bool | None = None,
) -> DryRun:
    """What a run will do, without doing it: ``nlp-mtl train --dry-run``.

    Everything that the run does before its first step is done (so its mistakes are raised here too), then a few steps
    of its plan on its own model, which is thrown away. No run folder and no checkpoint is written, and none is changed;
    tokenized rows stay in the cache, where the run finds them.

    Args:
        source: run file, or a mapping of its keys.
        overrides: ``key=value``; see :func:`nlp_mtl.config.load_config`.
        resume: what is left of the run in the output folder, from its newest whole checkpoint.
        overwrite: a run in the output folder is no mistake; it is left as it is.
        timed: how many optimizer steps are timed; more make the estimate of the time better.
        probe_rows: rows per task for the probe of mean pooling, see :mod:`nlp_mtl.dryrun.pooling`; 0 for no probe.
        progress: show bars; by default as ``training.disable_tqdm`` says.

    Raises:
        ConfigError, DataError, NotFoundError, RunFolderError, UnsupportedError: as a run before it starts.
        TrainingError: what it would raise in its first steps, and no room for the largest of them.
    """
    if timed < 1 or probe_rows < 0:
        raise ConfigError(f"dry_run: `timed` is at least 1 and `probe_rows` at least 0, found {timed}, {probe_rows}")
    settings, args = read_run(source, overrides)
    folder = Path(args.output_dir)
    check_folder(folder, resume, overwrite)
    resume_from = checkpoint.checkpoint_to_resume(folder) if resume else None
    bars = (not args.disable_tqdm if progress is None else progress) and args.process_index == 0
    with tempfile.TemporaryDirectory(prefix="nlp_mtl-dry-run-") as scratch:
        trainer = trainer_of(settings, _harmless(args, scratch), resume_from)
        try:
            found = _look(trainer, resume_from, timed, probe_rows, bars)
        finally:
            del trainer
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    found.run["output_dir"] = str(folder)
    untried = {
        "the callbacks of the run file were made, but not called: an early stop is not foreseen": settings.callbacks,
        "training.push_to_hub was not tried": args.push_to_hub,
    }
    for note in (note for note, there in untried.items() if there):
        logger.warning(note)
        found.notes.append(note)
    return found


def _harmless(args: TrainingArguments, scratch: str) -> TrainingArguments:
    """The same arguments, but what they write goes to a folder that is removed, and nothing goes to a logger or Hub."""
    args = copy.copy(args)
    args.output_dir, args.report_to, args.push_to_hub = scratch, [], False
    return args


def _look(trainer: MultiTaskTrainer, resume_from: Path | None, timed: int, probe_rows: int, bars: bool) -> DryRun:
    """All parts of the result; the steps come last but for evaluation, since they change the model."""
    model: MultiTaskModel = trainer.accelerator.unwrap_model(trainer.model)
    data, args = trainer.data, trainer.args
    trainer.evaluator.check()
    began = time.perf_counter()
    Evaluator(data).check()  # once more: scoring the baselines takes as long as scoring predictions
    scoring = time.perf_counter() - began
    done = _steps_done(resume_from)
    planned = planned_steps(trainer, done=done, progress=bars)
    precision = trainer.accelerator.mixed_precision
    pooling, not_probed = probe_pooling(
        model, data, rows=probe_rows, precision=precision, seed=args.seed, progress=bars
    )
    shared = shared_rows(data, progress=bars)
    parameters = parts_of(model)
    steps = timed_steps(trainer, planned, count=timed, resume_from=resume_from, progress=bars)
    evaluation = evaluation_seconds(trainer, progress=bars)
    return DryRun(
        run={
            "model": model.base["id"],
            "output_dir": "",
            "device": str(args.device),
            "precision": precision,
            "processes": args.world_size,
            "resume_from": str(resume_from) if resume_from is not None else None,
        },
        tasks=task_rows(data, model.max_length),
        steps=planned.found,
        parameters=parameters,
        memory=memory_of(trainer, steps.optimizer, steps.peak, steps.largest),
        time=time_of(planned, steps, None if evaluation is None else evaluation + scoring),
        shared_rows=shared,
        pooling=pooling,
        not_probed=not_probed,
        notes=data.notes(),
    )


def _steps_done(resume_from: Path | None) -> int:
    if resume_from is None:
        return 0
    return int(json.loads((resume_from / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])


def parts_of(model: MultiTaskModel) -> dict[str, Part]:
    """How many numbers every part of a model has; those that two parts share count for the encoder."""
    parts = {name: Part(0, 0) for name in ("encoder", "adapters", "heads", "sharing", "total")}
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        for part in (_part(name), "total"):
            parts[part].all += parameter.numel()
            parts[part].trained += parameter.numel() * parameter.requires_grad
    return parts


def _part(name: str) -> str:
    if name.startswith("modules_."):
        return "heads"
    if not name.startswith("sharing.encoder."):
        return "sharing"
    return "adapters" if adapters.is_adapter(name) else "encoder"
