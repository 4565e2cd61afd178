"""From a run file to the trainer that does it; what can be known to be wrong before the first step is found here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, get_scheduler, set_seed
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from nlp_mtl import checkpoint, config, configchecks
from nlp_mtl.arguments import TRAINING_DEFAULTS
from nlp_mtl.callbacks import Progress
from nlp_mtl.coverage import coverage_notes
from nlp_mtl.errors import ConfigError, RunFolderError, shown
from nlp_mtl.initial import model_again, model_from
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.paths import no_name
from nlp_mtl.reading import short
from nlp_mtl.settings import Precision, check_processes
from nlp_mtl.startrows import StartWritten, start_rows
from nlp_mtl.trainer import MultiTaskTrainer

logger = logging.getLogger("nlp_mtl")


def read_run(
    source: str | Path | Mapping[str, Any] | config.RunConfig, overrides: Sequence[str] = ()
) -> tuple[config.RunConfig, TrainingArguments]:
    """What a run file says, checked, and the Trainer's arguments that it means.

    Raises:
        ConfigError: mistakes in the file, all at once.
        UnsupportedError: fewer processes than asked for.
    """
    settings = source if isinstance(source, config.RunConfig) else config.load_config(source, overrides)
    check_processes()
    args = training_arguments(settings, Path(source).stem if isinstance(source, (str, Path)) else "run")
    _check_loggers(args)
    return settings, args


def training_arguments(settings: config.RunConfig, name: str) -> TrainingArguments:
    """The Trainer's arguments: what the run file says, over :data:`nlp_mtl.arguments.TRAINING_DEFAULTS`.

    Raises:
        ConfigError: a value that TrainingArguments refuses.
    """
    given = {"output_dir": f"runs/{name}", "disable_tqdm": False, **TRAINING_DEFAULTS, **settings.training}
    if given["eval_strategy"] == "no":
        given["load_best_model_at_end"] = settings.training.get("load_best_model_at_end", False)
    elif given["eval_strategy"] != given["save_strategy"] and "load_best_model_at_end" not in settings.training:
        given["load_best_model_at_end"] = given["save_strategy"] == "best"
    if "max_grad_norm" in given and given["max_grad_norm"] is None:
        given["max_grad_norm"] = 0.0
    try:
        return TrainingArguments(**given)
    except (ImportError, ValueError, TypeError, KeyError) as error:
        named = [key for key in settings.training if key in str(error)] or list(settings.training)
        found = ", ".join(f"{key}: {given[key]!r}" for key in named)
        way = "install what is missing" if isinstance(error, ImportError) else "correct one"
        raise ConfigError(f"training: {short(error).rstrip('.')}; found {found}; {way}, or leave it out") from None


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse an output folder that a run can't be written to, or in which another run would be lost.

    Raises:
        RunFolderError: with the way out; nothing is made or changed.
    """
    if resume and overwrite:
        raise RunFolderError("--resume continues a run and --overwrite removes it; use one of them")
    if why := no_name(folder):
        raise RunFolderError(
            f"training.output_dir: the name of a folder, found {shown(str(folder))} ({why}); name another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(
            f"training.output_dir: the folder of the run, found {folder}, which is a file; name another"
        )
    above = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "can't be written to" if above.is_dir() else "is a file"
        raise RunFolderError(f"training.output_dir: {folder} can't be made, since {above} {why}; name another folder")
    holds = checkpoint.holds_run(folder)
    if resume and not holds:
        raise RunFolderError(
            f"--resume: goes on with the run in training.output_dir, found no run to resume in {folder}; start it "
            "without"
        )
    if holds and not resume and not overwrite:
        raise RunFolderError(
            f"{folder} already holds a run: continue it with --resume, replace it with --overwrite, or write elsewhere "
            "with training.output_dir=…"
        )


def trainer_of(
    settings: config.RunConfig, args: TrainingArguments, resume_from: str | Path | None = None
) -> MultiTaskTrainer:
    """The model and trainer of a run, with its rows read and everything checked that can be before the first step.

    Only the metrics are left to check: ``trainer.evaluator.check()``.

    Args:
        settings: the run file.
        args: what :func:`training_arguments` makes of it.
        resume_from: the checkpoint that the run goes on from.

    Raises:
        ConfigError, DataError, NotFoundError, UnsupportedError: with the way out.
        RunFolderError: a checkpoint's run that can't go on with what it began with.
    """
    set_seed(args.seed)
    keys = ("sharing", "lora", "task_lora", "freeze", "tuning", "reinit_top_layers", "heads", "data_root", "max_length")
    how: dict[str, Any] = {key: getattr(settings, key) for key in keys}
    how |= {"registry_folders": settings.registry, "seed": args.seed}
    if settings.init_from is None:
        model = MultiTaskModel.from_base(settings.model, settings.tasks, **how)
    else:
        begin = model_from if resume_from is None else partial(model_again, resume_from=resume_from)
        model = begin(settings.init_from, model=settings.model, tasks=settings.tasks, **how)
    trainer = trainer_with(model, settings, args, resume_from=resume_from)
    trainer.get_train_dataloader()  # makes the plan, which refuses what the sampler can't do
    _check_optimizer(args)
    if trainer.args.eval_strategy == "no" and any(
        isinstance(one, EarlyStoppingCallback) for one in trainer.callback_handler.callbacks
    ):
        raise ConfigError(
            "callbacks: EarlyStoppingCallback looks at the scores of evaluations, and this run has none "
            "(`training.eval_strategy` is no, or no task has validation rows); evaluate, or leave it out"
        )
    return trainer


def trainer_with(
    model: MultiTaskModel,
    settings: config.RunConfig,
    args: TrainingArguments,
    precision: Precision = "auto",
    resume_from: str | Path | None = None,
) -> MultiTaskTrainer:
    """The trainer that a run file means, for a model that is there.

    Args:
        model: the model.
        settings: the run file.
        args: what :func:`training_arguments` makes of it.
        precision: see :class:`MultiTaskTrainer`, where `training` says neither bf16 nor fp16.
        resume_from: the checkpoint that the run goes on from.
    """
    asked = start_rows(model, settings, args, resume_from)
    trainer = MultiTaskTrainer(
        model,
        args,
        balancer=settings.balancer,
        sampler=settings.sampler,
        data=None if asked is None else asked[0],
        data_root=settings.data_root,
        precision="args" if {"bf16", "fp16"} & set(settings.training) else precision,
        learning_rates=settings.learning_rates,
        tokens_per_batch=settings.tokens_per_batch,
        tokens_per_pass=settings.tokens_per_pass,
        keep_best=settings.keep_best,
        train_tasks=settings.train_tasks,
        regularizers=settings.regularizers,
        distillation=settings.distillation,
        groups=settings.groups,
        stop_tasks=settings.stop_tasks,
        layer_decay=settings.layer_decay,
        task_rates=settings.task_rates,
        cache_features=settings.cache_features,
        cosines_every=settings.cosines_every,
        callbacks=[configchecks.callback(spec) for spec in settings.callbacks],
    )
    if args.process_index == 0:
        for note in coverage_notes(trainer.data.heads, trainer.data.splits.get("train", []), model.tokenizer):
            logger.warning(note)
    if asked is not None and args.process_index == 0:
        trainer.add_callback(StartWritten(partial(asked[1].write, args.output_dir)))
    if not args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(Progress())
    trainer.remove_callback(PrinterCallback)
    return trainer


def _check_optimizer(args: TrainingArguments) -> None:
    """Make optimizer and schedule for one number, which fails where their values are wrong or libraries are missing."""
    try:
        kind, given = Trainer.get_optimizer_cls_and_kwargs(args)
        if {"params", "model", "optimizer_dict"} & set(given):  # made for the parameters of the real model only
            return
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **given)
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(1),
            num_training_steps=1,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(
            f"training: the optimizer {args.optim.value!r} with the schedule {args.lr_scheduler_type.value!r} can't be "
            f"made ({short(error)}); correct `optim`, `adam_…`, `lr_scheduler_…`, or leave them out"
        ) from error


def _check_loggers(args: TrainingArguments) -> None:
    """Make what `report_to` names once, which fails where its library is missing."""
    try:
        for kind in get_reporting_integration_callbacks(args.report_to):
            kind()
    except (RuntimeError, ValueError, ImportError) as error:
        raise ConfigError(f"training.report_to: {args.report_to}: {error}; install it, or leave it out") from None
