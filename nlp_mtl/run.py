"""One run: from a run file to a folder with model, scores and everything needed to continue it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from nlp_mtl import checkpoint, config, yamlfile
from nlp_mtl.callbacks import AtBegin
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, near
from nlp_mtl.evaluation import Evaluator, TaskScores, score_table
from nlp_mtl.initial import opened
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.peak import PeakMemory
from nlp_mtl.pulling import local_folder
from nlp_mtl.recording import find_files_again, recordable, recorded
from nlp_mtl.settings import autocast
from nlp_mtl.stages import first_stage, scores_in, train_stages, whole_metrics
from nlp_mtl.starting import check_folder, read_run, trainer_of
from nlp_mtl.taskfile import SPLITS, Split, Task
from nlp_mtl.trainer import MultiTaskTrainer

logger = logging.getLogger("nlp_mtl")


@dataclass
class Run:
    """A finished (or stopped) run.

    Attributes:
        folder: the run folder.
        model: the model, in eval mode.
        scores: task → scores on the validation split.
        best_steps: task → the step at which its own first metric was best, and that score.
        stopped: ended by Ctrl-C.
        trainer: the trainer, for its log and state.
        models: of a run in stages, the folders of the last one's models; else empty.
    """

    folder: Path
    model: MultiTaskModel
    scores: dict[str, TaskScores]
    best_steps: dict[str, dict[str, float]] = field(default_factory=dict)
    stopped: bool = False
    trainer: MultiTaskTrainer | None = field(default=None, repr=False)
    models: list[Path] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """One row per task: task, metric, score, trivial baseline, rows."""
        return score_table(self.scores)


def train(
    source: str | Path | Mapping[str, Any] | config.RunConfig,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Run:
    """Do what a run file says.

    Args:
        source: run file, or a mapping of its keys.
        overrides: ``key=value``; see :func:`nlp_mtl.config.load_config`.
        resume: continue the run in the output folder from its newest whole checkpoint.
        overwrite: remove a run that is already in the output folder.
        callbacks: more callbacks, as objects; a run in stages has them in each.

    Raises:
        ConfigError: mistakes in the file, all at once.
        RunFolderError: the output folder holds a run already, or there is nothing to resume.
        UnsupportedError: fewer processes than asked for.
    """
    settings, args = read_run(source, overrides)
    folder = Path(args.output_dir)
    check_folder(folder, resume, overwrite)
    if settings.stages:
        return _train_stages(settings, folder, args.process_index == 0, resume, overwrite, callbacks)
    main = args.process_index == 0
    whole = str(checkpoint.checkpoint_to_resume(folder)) if resume else None
    trainer = trainer_of(settings, args, whole)
    model: MultiTaskModel = trainer.model
    trainer.evaluator.check()
    for callback in callbacks:
        trainer.add_callback(callback)
    if main:  # all that can be known to be wrong is known: now the old run may go
        if overwrite:
            checkpoint.remove_run(folder)
        trainer.add_callback(AtBegin(partial(_record, settings, folder)))
    trainer.accelerator.wait_for_everyone()
    began, memory = time.perf_counter(), PeakMemory(args.device, every=0.1)
    memory.begin()
    try:
        trainer.train(resume_from_checkpoint=whole)
    finally:
        memory.end()
    seconds = time.perf_counter() - began
    if trainer.stopped:
        return Run(folder, model.eval(), {}, stopped=True, trainer=trainer)
    if args.save_strategy == "no":  # that is about checkpoints
        trainer.save_model()
    trainer.evaluate()
    run = Run(folder, model.eval(), trainer.scores, trainer.best_steps(), trainer=trainer)
    if main:
        checkpoint.write_text(folder / "metrics.json", json.dumps(metrics_of(run, seconds, memory.peak), indent=1))
    if args.push_to_hub:
        trainer.push_to_hub()  # again, now with the scores; what is on the Hub already is not sent twice
    return run


def _train_stages(
    settings: config.RunConfig,
    folder: Path,
    main: bool,
    resume: bool,
    overwrite: bool,
    callbacks: Sequence[TrainerCallback],
) -> Run:
    """A run in stages; what it gives is the last one's."""
    if overwrite and checkpoint.holds_run(folder):
        trainer_of(*read_run(first_stage(settings, folder))).evaluator.check()  # before the old run goes
    if main and overwrite:
        checkpoint.remove_run(folder)
    if main:
        _record(settings, folder)
    runs = train_stages(settings, folder, partial(train, callbacks=callbacks), _finished, resume=resume, main=main)
    last: Run = runs[-1]
    if last.stopped:
        return replace(last, folder=folder)
    metrics = whole_metrics(folder)
    if main:
        checkpoint.write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    scores = {task: found for run in runs for task, found in run.scores.items()}
    return replace(last, folder=folder, scores=scores, models=[run.folder for run in runs])


def _finished(folder: Path, model: str) -> Run:
    """A run that was done before."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Run(folder, opened(folder, model).eval(), scores_in(metrics), metrics["own_best"])


def _record(settings: config.RunConfig, folder: Path) -> None:
    """Write the run file into the run folder, which begins with it."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(folder / "run.yaml", yamlfile.dumps(recordable(settings, folder)))


def metrics_of(run: Run, seconds: float, peak: int | None = None) -> dict[str, Any]:
    """What ``metrics.json`` says of a run and its training, which took so many seconds and, at most, bytes."""
    facts = (
        {task: {split: run.trainer.data.facts(task, split) for split in SPLITS} for task in run.scores}
        if run.trainer
        else {}
    )
    return {
        "validation": {task: found.metrics for task, found in run.scores.items()},
        "first": {
            task: {"metric": found.first, "higher_is_better": found.better} for task, found in run.scores.items()
        },
        "trivial": {task: found.trivial for task, found in run.scores.items()},
        "skill": {task: found.skill for task, found in run.scores.items()},
        "thresholds": {task: found.thresholds for task, found in run.scores.items() if found.thresholds},
        "own_best": run.best_steps,
        "data": facts,
        "training_seconds": round(seconds, 1),
        "peak_memory_bytes": peak,
        "trainable_parameters": run.model.num_parameters(only_trainable=True),
        "log": run.trainer.state.log_history if run.trainer else [],
    }


def evaluate(
    folder: str | Path,
    split: Split = "validation",
    *,
    tasks: Sequence[str | Task] | None = None,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    rows: int | None = None,
    predictions: bool = False,
    progress: bool = False,
) -> dict[str, TaskScores]:
    """Scores of a run folder on a split; an unlabelled split gives predictions (`decoded`) and no metrics.

    Args:
        folder: a run folder or checkpoint.
        split: train, validation or test.
        tasks: only these; a :class:`Task` instead of its name brings its rows, e.g. those of :meth:`Task.from_data`,
            which no run folder holds.
        data_root: where data sets are looked for first; default that of the run.
        base: see :meth:`MultiTaskModel.from_pretrained`.
        rows: at most so many of each task, drawn as its `rows` are; of other splits, none more than are needed.
        predictions: hand over what the heads predicted, before it was decoded, e.g. logits.
        progress: show a bar.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"split: one of {', '.join(SPLITS)}, found {split!r}{near(str(split), SPLITS) or '; name one'}"
        )
    if isinstance(tasks, str):
        raise ConfigError(f"evaluate: `tasks` is a list of names, found {tasks!r}; write [{tasks!r}]")
    folder = local_folder(folder)
    model = MultiTaskModel.from_pretrained(folder, base=base)
    names = None if tasks is None else [task.name if isinstance(task, Task) else task for task in tasks]
    unknown = [name for name in names or () if name not in model.heads]
    if unknown:
        raise ConfigError(f"evaluate: {folder} has no task {', '.join(unknown)}; it has {', '.join(model.tasks)}")
    heads = {task: head for task, head in model.heads.items() if names is None or task in names}
    said = recorded(folder)
    root = data_root or said.get("data_root")
    find_files_again(heads, said)
    for task in tasks or ():
        if isinstance(task, Task):
            kept = ("dataset", "splits", "split_seed", "prepare", "rows", "rows_seed", "file")
            given = {key: getattr(task, key) for key in kept}
            own = heads[task.name].task.with_(**given).knowing(task.rows_in_memory, task.inferred)
            heads[task.name].task = own.reading_texts_of(task.inner)
    for head in heads.values() if rows is not None else ():
        most: dict[Split, int] = {one: rows if one == split else 8 for one in SPLITS}  # type: ignore[misc]
        limits = {one: min(count, head.task.rows.get(one, count)) for one, count in most.items()}
        head.task = head.task.with_(rows=limits)
    data = load_data(heads, model.tokenizer, max_length=model.max_length, data_root=root)
    with autocast(model.device, model.strategies.get("precision")):  # as it was trained and scored
        found = Evaluator(data, batch_rows=32, keep_predictions=predictions)
        return found.evaluate(model, split, tasks=names, progress=progress)
