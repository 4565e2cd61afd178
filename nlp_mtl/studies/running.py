"""The runs of a study, one after the other; those that are done are not done again."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import checkpoint, yamlfile
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import NlpMtlError, RunFolderError
from nlp_mtl.studies.study import PlannedRun

if TYPE_CHECKING:
    from transformers import TrainerCallback

logger = logging.getLogger("nlp_mtl")


@dataclass(frozen=True)
class Outcome:
    """What a run of a study came to.

    Attributes:
        run: the run.
        metrics: its ``metrics.json``; None if it failed.
        error: why it failed.
    """

    run: PlannedRun
    metrics: dict[str, Any] | None
    error: str = ""


def run_missing(runs: Sequence[PlannedRun]) -> tuple[list[Outcome], bool]:
    """Do what is missing.

    A run that was begun is gone on with; one that fails is told and the others go on.

    Returns:
        What each came to; and whether Ctrl-C ended it before all were tried.

    Raises:
        RunFolderError: a folder that holds another run.
    """
    others = [run for run in runs if _is_other(run)]
    if others:
        raise RunFolderError(
            f"{', '.join(str(run.folder) for run in others[:3])}: another run than the study's is there (its run.yaml "
            "says something else); choose another `output_dir`, or remove the folder"
        )
    found: list[Outcome] = []
    missing = [run for run in runs if _metrics(run.folder) is None]
    if len(missing) < len(runs):
        logger.info("%d of %d runs are done already", len(runs) - len(missing), len(runs))
    began, done = time.monotonic(), 0
    for run in runs:
        known = _metrics(run.folder)
        if known is None:
            what = f"{run.task} alone" if run.task else run.method
            left = _left(time.monotonic() - began, done, len(missing))
            logger.info("run %d of %d: %s, seed %d%s", done + 1, len(missing), what, run.seed, left)
            try:
                stopped = do_run(run)
            except Exception as error:  # of whatever library: the others go on, and the study says which failed
                known_kind = isinstance(error, NlpMtlError)
                said = str(error) if known_kind else f"{type(error).__name__}: {error}"
                logger.warning("%s, seed %d failed: %s", what, run.seed, said, exc_info=not known_kind)
                found.append(Outcome(run, None, said))
                done += 1
                continue
            if stopped:
                return found, True
            known, done = _metrics(run.folder), done + 1
        found.append(Outcome(run, known, "" if known is not None else "it left no metrics.json"))
    return found, False


def do_run(run: PlannedRun, callbacks: Sequence[TrainerCallback] = ()) -> bool:
    """Train, or go on with what was begun; whether it was stopped.

    Args:
        run: what and where.
        callbacks: more callbacks.
    """
    from nlp_mtl.run import train

    resume = bool(checkpoint.checkpoints(run.folder)) or (run.folder / checkpoint.STAGES).is_file()
    begun = checkpoint.holds_run(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / "study.yaml", yamlfile.dumps(_said(run)))
    said = logging.getLogger("nlp_mtl")
    level, said.level = said.level, logging.WARNING  # what each run says of its model is the same every time
    try:
        result = train(run.keys, resume=resume, overwrite=begun and not resume, callbacks=callbacks)
    finally:
        said.level = level
    stopped = result.stopped
    result.trainer = None
    gc.collect()
    return stopped


def _said(run: PlannedRun) -> dict[str, Any]:
    """What tells a run from another: all that it was asked for, but for where it is."""
    training = {key: value for key, value in run.keys.get("training", {}).items() if key != "output_dir"}
    return json.loads(json.dumps({**run.keys, "training": training}, default=str))


def _is_other(run: PlannedRun) -> bool:
    file = run.folder / "study.yaml"
    if file.is_file():
        return bool(yamlfile.load(file)[0] != _said(run))
    return (run.folder / "metrics.json").is_file()


def _metrics(folder: Path) -> dict[str, Any] | None:
    file = folder / "metrics.json"
    if not file.is_file() or not (folder / "study.yaml").is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8"))


def _left(seconds: float, done: int, all_of_them: int) -> str:
    if not done:
        return ""
    minutes = seconds / done * (all_of_them - done) / 60
    return f"; about {minutes:.0f} minutes are left" if minutes >= 1 else "; less than a minute is left"
