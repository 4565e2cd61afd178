"""The run folder: what is written, atomically, and how it is read back.

::

    nlp_mtl.json                                   format version, base, task specs, strategies, library versions
    config.json, model.safetensors                 full fine-tuning: the encoder as AutoModel saves it
    adapter_config.json, adapter_model.safetensors LoRA: as PeftModel saves it
    heads.safetensors                              "rte.classifier.weight": task + the vanilla key
    <task>/adapter_…                               LoRA per task: shared and own adapter folded into one, as PEFT's;
                                                   beside config.json, on the encoder that is there
    sharing.safetensors                            only if the sharing has parameters of its own, or adapters per task
    tokenizer files, README.md
    complete.json                                  sizes and sha256 of all files, written last: without it, damaged
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nlp_mtl.adapters import is_adapter
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import RunFolderError, shown
from nlp_mtl.folding import save_folded
from nlp_mtl.heads.vanilla import tied_keys
from nlp_mtl.packing import base_of
from nlp_mtl.sharing import Sharing
from nlp_mtl.tasklora import SHARED, owners_of

logger = logging.getLogger("nlp_mtl")

FORMAT = 1
SPEC, COMPLETE, HEADS, SHARING = "nlp_mtl.json", "complete.json", "heads.safetensors", "sharing.safetensors"
_MOVING = ".moving"  # stands in a run folder while a new model is moved into it
_AS_TRAINED = "; use it with the model, tasks and tuning it was trained with, or copy the folder again"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


# ------------------------------------------------------------------------------------------------ atomic writes


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
    found = [
        (int(match[1]), part) for part in Path(run).glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(part.name))
    ]
    return [part for _, part in sorted(found)]


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
    """Whether a run wrote into the folder: a model, scores or checkpoints."""
    folder = Path(folder)
    return any((folder / name).is_file() for name in (SPEC, "metrics.json")) or bool(checkpoints(folder))


def remove_run(folder: str | Path) -> None:
    """Remove a run: its checkpoints and the files it wrote; whatever else lies in the folder stays."""
    folder = Path(folder)
    try:
        names = list(json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        names = []
    names += [f"predictions/{file.name}" for file in (folder / "predictions").glob("*.jsonl")]
    for name in (COMPLETE, SPEC, _MOVING, "run.yaml", "metrics.json", *names):
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


# -------------------------------------------------------------------------------------------- weights and specs


def save_weights(
    folder: Path, sharing: Sharing, modules: Mapping[str, nn.Module], *, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write encoder or adapter, heads, and what the sharing has of its own.

    Args:
        folder: an existing folder.
        sharing: the sharing.
        modules: head key → the head's module.
        state: the whole model's state dict, where it had to be gathered (FSDP); names begin with ``sharing.encoder.``
            and ``modules_.<head key>.``.
    """
    encoder: Any = sharing.encoder
    own = None if state is None else _part(state, "sharing.encoder.")
    more: dict[str, Any] = {} if own is None else {"state_dict": own}
    if hasattr(encoder, "peft_config"):
        more["save_embedding_layers"] = False  # "auto" asks the Hub whether the vocabulary was changed
    with quiet_transformers():
        if (owners := owners_of(encoder)) is None:
            encoder.save_pretrained(folder, **more)
        else:
            save_folded(encoder, folder, own)
            if owners.own_encoder:
                plain = copy.deepcopy(encoder)
                (plain.unload() if hasattr(plain, "peft_config") else plain).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card; the run writes one
    tensors = {}
    for key, module in modules.items():
        part = dict(module.state_dict()) if state is None else _part(state, f"modules_.{key}.")
        left_out = tied_keys(module)
        tensors.update({f"{key}.{name}": value for name, value in part.items() if name not in left_out})
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, folder / HEADS)
    extra = sharing.own_state()
    if extra:
        if state is not None:
            extra = {name: state[f"sharing.{name}"] for name in extra}
        save_file({name: value.detach().cpu().contiguous() for name, value in extra.items()}, folder / SHARING)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """`transformers` without progress bars and load reports."""
    from transformers import logging as transformers_logging

    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_weights(folder: str | Path, sharing: Sharing, modules: Mapping[str, nn.Module]) -> None:
    """Read weights that :func:`save_weights` wrote into an existing model of the same shape.

    Raises:
        RunFolderError: weights of another model: names or shapes differ; nothing is loaded then.
    """
    folder, encoder = Path(folder), sharing.encoder
    adapter = folder / "adapter_model.safetensors"
    ours, theirs = _tuning(encoder), "LoRA" if adapter.is_file() else "full fine-tuning"
    if not adapter.is_file() and _holds_adapters(folder / SHARING):
        theirs = "LoRA for each task"
    if ours != theirs:
        raise RunFolderError(f"{folder}: is a run with {theirs}, this model is set up for {ours}{_AS_TRAINED}")
    heads, own = _read(folder / HEADS, [f"{key}." for key in modules]), sharing.own_state()
    wrong = []
    for key, module in modules.items():
        expected = {name for name in module.state_dict() if name not in tied_keys(module)}
        found = _part(heads, f"{key}.")
        wrong += [f"{key}.{name}: missing" for name in sorted(expected - set(found))]
        wrong += [f"{key}.{name}: not ours" for name in sorted(set(found) - expected)]
        shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        wrong += [
            f"{key}.{name}: {tuple(value.shape)}, expected {shapes[name]}"
            for name, value in found.items()
            if name in shapes and tuple(value.shape) != shapes[name]
        ]
    if wrong:
        raise RunFolderError(f"{folder}: heads of another model: {'; '.join(wrong[:6])}{_AS_TRAINED}")
    shared = _read(folder / SHARING) if own else {}
    shared = {name: value for name, value in shared.items() if name in own or not _of_another_task(name, encoder)}
    if different := _different(shared, own):
        raise RunFolderError(f"{folder}: a sharing of another model ({different[0]} differs){_AS_TRAINED}")
    if adapter.is_file():
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        state = _read(adapter)
        if different := _different(state, get_peft_model_state_dict(encoder, save_embedding_layers=False)):
            raise RunFolderError(f"{folder}: an adapter of another model ({different[0]} differs){_AS_TRAINED}")
        set_peft_model_state_dict(encoder, state)
    elif owners_of(encoder) is None:
        _load_encoder(folder, base_of(encoder))
    if own:
        sharing.load_own_state(shared)
    for key, module in modules.items():
        module.load_state_dict(_part(heads, f"{key}."), strict=False)


def _of_another_task(name: str, encoder: nn.Module) -> bool:
    """Whether a parameter belongs to the adapter of a task that this model was made without."""
    owners, parts = owners_of(encoder), name.split(".")
    return owners is not None and is_adapter(name) and parts[-2] not in (SHARED, *owners.adapters)


def _tuning(encoder: nn.Module) -> str:
    if owners_of(encoder) is not None:
        return "LoRA for each task"
    return "LoRA" if hasattr(encoder, "peft_config") else "full fine-tuning"


def _holds_adapters(file: Path) -> bool:
    if not file.is_file():
        return False
    with _explained(file), safe_open(file, framework="pt") as opened:
        return any(map(is_adapter, opened.keys()))


def _load_encoder(folder: Path, base: nn.Module) -> None:
    files = sorted(folder.glob("model*.safetensors"))
    state = {name: value for file in files for name, value in _read(file).items()}
    if different := [name for name in _different(state, base.state_dict()) if not name.endswith("position_ids")]:
        raise RunFolderError(f"{folder}: the encoder of another model ({different[0]} differs){_AS_TRAINED}")
    base.load_state_dict(state, strict=False)


def _different(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Names that only one of both has, or whose shapes differ."""
    both = [name for name in found if name in expected and found[name].shape != expected[name].shape]
    return [*both, *(name for name in found if name not in expected), *(name for name in expected if name not in found)]


def _read(file: Path, begins: Sequence[str] = ("",)) -> dict[str, Tensor]:
    """The tensors of a file whose names begin with one of some words."""
    with _explained(file), safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(tuple(begins))}  # noqa: SIM118


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """What goes wrong while a file is read, in our words."""
    try:
        yield
    except FileNotFoundError:
        raise RunFolderError(f"{file.parent}: {file.name} is missing; {other_ways(file.parent)}") from None
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{file} is damaged: {error}; {other_ways(file.parent)}") from None
