"""Who teaches: a run folder, a model, or the model that a run starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.bases import find_base
from nlp_mtl.distilspec import START, DistillationSpec
from nlp_mtl.errors import NotFoundError, RunFolderError
from nlp_mtl.heads import Head
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import beside, open_tokenizer
from nlp_mtl.pulling import hub_name, local_folder
from nlp_mtl.runspec import heads_of, read_spec
from nlp_mtl.weights import ENCODER_CONFIG


@dataclass
class Teacher:
    """A teacher; its weights are read when it is asked.

    Attributes:
        name: as it is recorded, without where it is.
        heads: task → head.
        tokenizer: its own.
        max_length: tokens per sequence that it was trained with.
        identity: of its weights and tasks; empty for the model that the run starts from, whose outputs are the run's.
        open: gives the model.
    """

    name: str
    heads: Mapping[str, Head]
    tokenizer: Any
    max_length: int
    identity: str
    open: Callable[[], MultiTaskModel] = field(repr=False)


def teacher_of(spec: DistillationSpec, model: MultiTaskModel) -> Teacher:
    """The teacher that a spec names.

    Args:
        spec: the spec.
        model: the model that is trained, as it starts.

    Raises:
        RunFolderError: not a run folder, or a damaged one.
        HubError: the Hub can't be reached, or has no such repository.
    """
    if isinstance(spec.teacher, MultiTaskModel):
        other = spec.teacher
        return Teacher(
            "a model", other.heads, other.tokenizer, other.max_length, _digest_of_weights(other), lambda: other
        )
    if spec.teacher == START:
        return Teacher(START, model.heads, model.tokenizer, model.max_length, "", lambda: model)
    try:
        folder = local_folder(spec.teacher)
        said = read_spec(folder)
    except RunFolderError as error:
        raise RunFolderError(f"distillation: `teacher`: {error}") from None
    name = str(spec.teacher) if hub_name(spec.teacher) is not None else Path(spec.teacher).resolve().name
    return Teacher(
        name,
        heads_of(said, folder),
        open_tokenizer(folder),
        said["max_length"],
        _digest_of_files(folder),
        lambda: _opened(folder, spec.base, model.source),
    )


def _opened(folder: Path, said: str | None, usual: str | Path | None) -> MultiTaskModel:
    """The model of a run folder; below a LoRA is what is said, what it records, or the base of the run that learns."""
    record = read_spec(folder)["base"]
    whole = (folder / "config.json").is_file() or (folder / ENCODER_CONFIG).is_file()
    if whole or said is not None or beside(folder, record) is not None:
        return MultiTaskModel.from_pretrained(folder, base=said)
    try:
        return MultiTaskModel.from_pretrained(folder)
    except NotFoundError:
        if usual is None:
            raise
        return MultiTaskModel.from_pretrained(folder, base=find_base(usual, sha256=record.get("sha256")).folder)


def _digest_of_files(folder: Path) -> str:
    """Of what a run folder says and of its weights; not of its checkpoints, and not of where it is."""
    total = hashlib.sha256((folder / checkpoint.SPEC).read_bytes())
    own = [file for file in folder.rglob("*.safetensors") if not _of_others(file.relative_to(folder).parts)]
    for file in sorted(own):
        total.update(file.relative_to(folder).as_posix().encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _of_others(parts: tuple[str, ...]) -> bool:
    return parts[-1] in checkpoint.BESIDE or any(part.startswith((".", "checkpoint-")) for part in parts)


def _digest_of_weights(model: MultiTaskModel) -> str:
    total = hashlib.sha256(repr([(task, head.spec, head.labels) for task, head in model.heads.items()]).encode())
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
