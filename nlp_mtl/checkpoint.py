"""The run folder: written atomically, and known to be whole before it is read. Weights: :mod:`nlp_mtl.weights`.

::

    nlp_mtl.json                                   format version, base, task specs, strategies, library versions
    config.json, model.safetensors                 full fine-tuning: the encoder as AutoModel saves it
    adapter_config.json, adapter_model.safetensors LoRA: as PeftModel saves it
    encoder/                                       below a LoRA that stands on another one, merged in: that encoder
    heads.safetensors                              "rte.classifier.weight": task + the vanilla key
    <task>/adapter_…                               LoRA per task: shared and own adapter folded into one, as PEFT's;
                                                   beside config.json, on the encoder that is there
    sharing.safetensors                            only if the sharing has parameters of its own, or adapters per task
    tokenizer files, README.md
    complete.json                                  sizes and sha256 of all files, written last: without it, damaged
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import RunFolderError, shown

logger = logging.getLogger("nlp_mtl")

FORMAT = 1
SPEC, COMPLETE = "nlp_mtl.json", "complete.json"
STAGES = "stages.json"  # of a run in stages: which folders they are in
_MOVING = ".moving"  # stands in a run folder while a new model is moved into it
# beside a model:
TEACHER = "teacher.safetensors"  # what the model said of training rows that a run started from
BESIDE = (
    "run.yaml",
    "metrics.json",
    "steps.jsonl",
    "start_rows.json",
    "report.json",
    "report.html",
    "report.md",
    TEACHER,
)
_OF_STUDIES = ("predictions/*.jsonl", "findings/*.json", "scored/*.json")  # beside a model, and only of it
_CARRIED = ("importance.safetensors", "o_lora.safetensors")  # what regularizers left for a later run
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """Write a folder beside its place and move it there when everything is written and on disk.

    Whatever fails, be it a full disk or a kill, leaves the place as it was.
    """
    folder = Path(folder)
    work = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        seal(work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    commit(work, folder)


def commit(work: Path, folder: Path) -> None:
    """Move a sealed folder to its place; one that is already there is removed last."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(work, folder)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def seal(folder: str | Path) -> None:
    """Write ``complete.json``: sizes and sha256 of all files, each flushed to disk first."""
    folder = Path(folder)
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != COMPLETE:
            files[file.relative_to(folder).as_posix()] = {
                "bytes": file.stat().st_size,
                "sha256": _digest(file, flush=True),
            }
    write_text(folder / COMPLETE, json.dumps({"files": files}, indent=1))


def damage(folder: str | Path) -> str | None:
    """What is wrong with a sealed folder, or None if every file is as it was written."""
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such folder"
    try:
        files = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        sizes = {folder / name: (known["bytes"], known["sha256"]) for name, known in files.items()}
    except FileNotFoundError:
        return f"damaged: {COMPLETE} is missing, the write was cut off"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"damaged: {COMPLETE} can't be read"
    for file, (size, digest) in sizes.items():
        name = file.relative_to(folder)
        if not file.is_file():
            return f"damaged: {name} is missing"
        if file.stat().st_size != size or _digest(file) != digest:
            return f"damaged: {name} is not as it was written"
    return None


def checkpoints(run: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    try:
        names = os.listdir(run)
    except FileNotFoundError:  # not made yet, or just being moved: another process may be at work on it
        return []
    found = [(int(match[1]), Path(run, name)) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    return [part for _, part in sorted(found)]


def drop_weights(run: str | Path) -> None:
    """Forget the weights of a run that was scored, of its stages and checkpoints too; scores and run files stay."""
    for folder in [*Path(run).rglob("checkpoint-*")]:
        shutil.rmtree(folder, ignore_errors=True)
    for file in [*Path(run).rglob("*.safetensors")]:
        file.unlink(missing_ok=True)


def last_good_checkpoint(run: str | Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are passed over with a warning."""
    for folder in reversed(checkpoints(run)):
        wrong = damage(folder)
        if wrong is None:
            return folder
        logger.warning("%s is %s; it is skipped", folder, wrong)
    return None


def checkpoint_to_resume(run: str | Path) -> Path:
    """The newest whole checkpoint of a run.

    Raises:
        RunFolderError: there is none.
    """
    found = last_good_checkpoint(run)
    if found is None:
        raise RunFolderError(
            f"--resume: goes on from a whole checkpoint, found no whole checkpoint in {run}; start without --resume"
        )
    return found


def install(work: Path, folder: Path) -> None:
    """Move the files of a sealed folder into the run folder; one that was cut off in between is known by a mark."""
    files = [file for file in work.rglob("*") if file.is_file()]
    (folder / _MOVING).touch()
    for file in sorted(files, key=lambda file: file.name == COMPLETE):
        target = folder / file.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    shutil.rmtree(work, ignore_errors=True)
    (folder / _MOVING).unlink()


def made_folder(folder: str | Path) -> Path:
    """A folder to write to, made if it is not there.

    Raises:
        RunFolderError: it can't be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(
            f"a run is written to a folder, found {shown(str(folder))} ({why}); name another"
        ) from None
    return Path(folder)


def check_whole(folder: str | Path) -> None:
    """Refuse a folder that is not as it was written.

    Raises:
        RunFolderError: files that changed or are missing; a save that was cut off.
    """
    folder = Path(folder)
    if (folder / _MOVING).exists():
        raise RunFolderError(f"{folder}: the last save was cut off; take {folder}/checkpoint-N, or train with --resume")
    sealed = (folder / COMPLETE).is_file() or _CHECKPOINT.fullmatch(folder.name)
    if sealed and (wrong := damage(folder)):
        raise RunFolderError(f"{folder}: {wrong}; {other_ways(folder)}")


def other_ways(folder: str | Path) -> str:
    """What to do about a run folder that can't be used, as the end of a message."""
    places = [folder for folder in reversed(checkpoints(folder)) if (folder / COMPLETE).is_file()]
    return f"take {places[0]}" if places else "copy the folder again, or train again"


def holds_run(folder: str | Path) -> bool:
    """Whether a run wrote into the folder: a model, scores, stages or checkpoints."""
    folder = Path(folder)
    return any((folder / name).is_file() for name in (SPEC, "metrics.json", STAGES)) or bool(checkpoints(folder))


def stage_folders(folder: str | Path) -> list[Path]:
    """The folders of a run's stages that are there, in their order; none of a run without."""
    file = Path(folder) / STAGES
    if not file.is_file():
        return []
    try:
        named = [str(stage["folder"]) for stage in json.loads(file.read_text(encoding="utf-8"))["stages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file}: damaged ({error}); copy the folder again, or train again") from None
    return [Path(folder) / name for name in named if "/" not in name and (Path(folder) / name).is_dir()]


def remove_run(folder: str | Path) -> None:
    """Remove a run: its checkpoints and the files it wrote; whatever else lies in the folder stays."""
    folder = Path(folder)
    for stage in stage_folders(folder):
        for place in (*stage.glob("*/"), stage):
            remove_run(place)
            with suppress(OSError):  # something else lies there
                place.rmdir()
    (folder / STAGES).unlink(missing_ok=True)
    try:
        names = list(json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        names = []
    names += [file.relative_to(folder).as_posix() for kind in _OF_STUDIES for file in folder.glob(kind)]
    for name in (COMPLETE, SPEC, _MOVING, *BESIDE, *_CARRIED, *names):
        if (folder / name).resolve().is_relative_to(folder.resolve()):
            (folder / name).unlink(missing_ok=True)
    for part in [*checkpoints(folder), *folder.glob(".checkpoint-*"), *folder.glob(".model*")]:
        shutil.rmtree(part)


def _digest(file: Path, *, flush: bool = False) -> str:
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            total.update(chunk)
        if flush:
            os.fsync(stream.fileno())
    return total.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
