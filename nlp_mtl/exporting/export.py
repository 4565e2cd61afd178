"""One task, or all of them, out of a run: checked against the run, written beside its place, then moved there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nlp_mtl import checkpoint
from nlp_mtl.errors import ConfigError, UnsupportedError, shown, suggestion
from nlp_mtl.exporting import adapter, cards, texts
from nlp_mtl.exporting import model as models
from nlp_mtl.exporting.checking import Probe, probe
from nlp_mtl.exporting.plain import lora_config_of, tokenizer_for
from nlp_mtl.heads.pooled import PooledHead
from nlp_mtl.heads.seq2seq import Seq2Seq
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.paths import no_name
from nlp_mtl.pulling import local_folder
from nlp_mtl.runspec import read_spec
from nlp_mtl.tasklora import owners_of

Form = Literal["model", "adapter", "onnx"]
FORMS = ("model", "adapter", "onnx")
PRECISIONS = ("both", "fp32", "int8")


@dataclass(frozen=True)
class Export:
    """What an export wrote.

    Attributes:
        folder: where.
        form: model, adapter or onnx.
        tasks: the tasks in it.
        rows: on how many rows it was compared with the run, of all tasks together; `examples` of them the tasks' own.
        difference: the largest difference of its logits from the run's there (fp32).
        int8: of an int8 graph, the same, and the share of equal decisions.
        files: bytes by file.
        notes: what a user should know, one sentence each.
    """

    folder: Path
    form: str
    tasks: tuple[str, ...]
    rows: int
    examples: int
    difference: float
    int8: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def export_task(
    run: str | Path | MultiTaskModel,
    task: str | Sequence[str] | None,
    out: str | Path,
    as_: Form = "model",
    *,
    custom_code: bool = False,
    precision: Literal["both", "fp32", "int8"] = "both",
    overwrite: bool = False,
    base: str | Path | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> Export:
    """Write one task so that it is used without this package; only what the task reads goes along.

    Args:
        run: a run folder or checkpoint, a repository of the Hub that holds one, or its model.
        task: the task; None for the only one of a run, or, with ``onnx``, for all tasks in one graph; ``onnx`` also
            takes several.
        out: the folder to write; it must not hold anything.
        as_: ``model``, a vanilla `AutoModelFor…` folder with the LoRA merged; ``adapter``, a vanilla PEFT adapter with
            its head; ``onnx``, a graph in fp32 and int8 for onnxruntime.
        custom_code: with ``model``, for heads that the family's own class can't express: a folder with code of its own,
            which users load with ``trust_remote_code=True``.
        precision: of the ONNX graphs.
        overwrite: replace an earlier export that stands there.
        base: see :meth:`MultiTaskModel.from_pretrained`.
        rows: rows of the task to compare on, beside made-up ones; default the examples of the registered task.

    Returns:
        What was written, and how far its logits are from the run's.

    Raises:
        ConfigError: arguments that are wrong, an `out` that holds something; of all of them at once.
        RunFolderError: no run folder, or one of a newer format.
        UnsupportedError: what can't leave in this form; says what can be had instead.
        DataError: the written logits differ from the run's; nothing is kept.

    Example:
        >>> import tempfile
        >>> from nlp_mtl.testing import tiny_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export_task(tiny_model(["rte", "conll2003"]), "rte", f"{folder}/rte")
        ...     sorted(done.files)[:3], done.difference < 1e-5
        (['README.md', 'config.json', 'model.safetensors'], True)
    """
    folder = Path(out)
    run = run if isinstance(run, MultiTaskModel) else local_folder(run)
    mistakes = _misused(as_, custom_code, precision)
    mistakes += _occupied(folder, run, overwrite)
    if not isinstance(run, MultiTaskModel):
        recorded = [item["name"] for item in read_spec(run)["tasks"]]
        mistakes += _unknown(task, recorded, as_)
    else:
        mistakes += _unknown(task, run.tasks, as_)
    if mistakes:
        raise ConfigError(mistakes)
    own = run if isinstance(run, MultiTaskModel) else MultiTaskModel.from_pretrained(run, base=base)
    source = None if isinstance(run, MultiTaskModel) else Path(run)
    names = [task] if isinstance(task, str) else list(task) if task is not None else own.tasks
    if base_input(own) != "input_ids":
        raise UnsupportedError(f"export: reads text, this encoder reads {base_input(own)}; use nlp_mtl.predict")
    _check_forms(own, names, as_, custom_code)
    tokenizer = tokenizer_for(own, source, names[0])
    tokenizer.model_max_length = max(_length(own, name) for name in names)
    probes = [
        texts.probe_texts(own, name, rows) if _writes(own, name) else probe(own, name, tokenizer, rows)
        for name in names
    ]
    with checkpoint.replacing(folder) as work:
        found = _write(own, names, probes, tokenizer, work, as_, custom_code, precision)
        tokenizer.save_pretrained(work)
        (work / "README.md").write_text(cards.card(own, names, as_, found, custom=custom_code), encoding="utf-8")
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != checkpoint.COMPLETE
    }
    return Export(
        folder,
        as_,
        tuple(names),
        sum(one.rows for one in probes),
        sum(one.examples for one in probes),
        found["difference"],
        found.get("int8", {}),
        files,
        tuple(found["notes"]),
    )


def _write(
    own: MultiTaskModel,
    names: Sequence[str],
    probes: Sequence[Probe],
    tokenizer: Any,
    work: Path,
    form: str,
    custom: bool,
    precision: str,
) -> dict[str, Any]:
    """Write and check one form; gives the largest difference and notes."""
    notes = _notes(own, names)
    if form == "onnx":
        from nlp_mtl.exporting import onnx_files
        from nlp_mtl.exporting.graph import passes

        groups = passes(own, names)
        if len(groups) > 1:
            shared = "; ".join(", ".join(group) for group in groups)
            notes.append(f"{len(groups)} encoder passes in one graph, one for each adapter: {shared}")

        return {**onnx_files.write_onnx(own, probes, tokenizer, work, precision), "notes": notes}
    (task,), (probed,) = names, probes
    if form == "adapter":
        notes += adapter.write_adapter(own, task, work)
        return {"difference": adapter.check_adapter(own, probed, tokenizer, work), "notes": notes}
    if _writes(own, task):
        notes += texts.write_texts(own, task, work)
        return {"difference": texts.check_texts(own, probed, tokenizer, work), "notes": notes}
    (models.write_custom if custom else models.write_model)(own, task, work)
    return {"difference": models.check_model(own, probed, tokenizer, work, custom=custom), "notes": notes}


def _writes(own: MultiTaskModel, name: str) -> bool:
    return isinstance(own.heads[name], Seq2Seq)


def _notes(own: MultiTaskModel, names: Sequence[str]) -> list[str]:
    said = []
    for name in names:
        chosen = models.thresholds(own, name)
        if any(value != 0.5 for value in chosen.values()):
            every = ", ".join(f"{value:.3g} for {label!r}" for label, value in chosen.items())
            said.append(f"{name}: labels are given from a probability of {every}; a pipeline does not know that")
        if own.heads[name].task.template is not None:
            said.append(f"{name}: reads the text that its template makes: {own.heads[name].task.template}")
    return said


def base_input(own: MultiTaskModel) -> str:
    """What the encoder reads: ``input_ids`` for text."""
    from nlp_mtl.packing import base_of

    return str(getattr(base_of(own.sharing.encoder), "main_input_name", "input_ids"))


def _length(own: MultiTaskModel, name: str) -> int:
    from nlp_mtl.exporting.plain import max_length

    return max_length(own, name)


# ----------------------------------------------------------------------------------------------------- refusals


def _misused(as_: str, custom_code: bool, precision: str) -> list[str]:
    said = []
    if as_ not in FORMS:
        said.append(f"export: --as is one of {', '.join(FORMS)}, found {as_!r}{suggestion(str(as_), FORMS)}")
    elif custom_code and as_ != "model":
        said.append(f"export: --custom-code goes with --as model, found --as {as_}; leave one of them out")
    if precision not in PRECISIONS:
        said.append(
            f"export: --precision is one of {', '.join(PRECISIONS)}, found {precision!r}; leave it out for both"
        )
    elif precision != "both" and as_ in FORMS and as_ != "onnx":
        said.append(f"export: --precision goes with --as onnx, found --as {as_}; leave one of them out")
    return said


def _unknown(task: str | Sequence[str] | None, known: Sequence[str], as_: str) -> list[str]:
    if task is None:
        if as_ == "onnx" or len(known) == 1:
            return []
        return [f"export: --as {as_} writes one task, found none named; say --task with one of {', '.join(known)}"]
    names = [task] if isinstance(task, str) else list(task)
    said = [
        f"export: {name!r} is not a task of this run{suggestion(name, known)}" for name in names if name not in known
    ]
    if len(names) > 1 and as_ != "onnx":
        said.append(f"export: --as {as_} writes one task, found {', '.join(names)}; export each into its own folder")
    if len(set(names)) < len(names) or not names:
        said.append(f"export: names each task once, found {shown(names)}")
    return said


def _occupied(folder: Path, run: Any, overwrite: bool) -> list[str]:
    """Why an export can't stand there: only an empty place, or an export of ours that may be replaced."""
    if why := no_name(folder):
        return [f"export: OUT is a folder, found {shown(str(folder))} ({why}); name another"]
    if not folder.exists():
        return []
    if not folder.is_dir():
        return [f"export: OUT is a folder, found the file {folder}; name another"]
    held = [file for file in folder.rglob("*") if file.is_file()]
    if not held and not isinstance(run, MultiTaskModel) and folder.resolve() == Path(run).resolve():
        return [f"export: OUT is not the run's own folder, found {folder}; name another"]
    if not held:
        return []
    if (folder / checkpoint.SPEC).exists():
        return [f"export: OUT is a folder of its own, found a run in {folder}; name another"]
    try:
        listed = set(json.loads((folder / checkpoint.COMPLETE).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    others = [
        name
        for file in held
        if (name := file.relative_to(folder).as_posix()) not in listed and name != checkpoint.COMPLETE
    ]
    if others:
        return [f"export: OUT is empty or not there, found {folder} with {', '.join(sorted(others)[:3])}; name another"]
    if not overwrite:
        return [f"export: OUT is empty or not there, found an export in {folder}; say --overwrite, or name another"]
    return []


def _check_forms(own: MultiTaskModel, names: Sequence[str], as_: str, custom: bool) -> None:
    """Refuse what can't leave in this form, with the reason and what can be had instead."""
    for name in names:
        head = own.heads[name]
        texts.check_can_leave(own, name, as_, custom)
        try:
            own.sharing.collapse(name)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"export: task {name!r} uses no ordinary encoder ({error}), so neither a folder nor a graph can hold "
                "it; use it with nlp-mtl predict"
            ) from error
        owners = owners_of(own.sharing.encoder)
        if as_ == "adapter" and (own.base.get("own") or (owners is not None and owners.own_encoder)):
            raise UnsupportedError(
                f"export: task {name!r}: --as adapter writes a LoRA of the pretrained model, and in this run the "
                "encoder below it was trained too; say --as model"
            )
        if as_ == "adapter" and lora_config_of(own, name) is None:
            raise UnsupportedError(
                f"export: task {name!r}: --as adapter writes a LoRA, and this run trained none; say --as model"
            )
        if as_ == "onnx":
            continue
        pooled = isinstance(head, PooledHead) and head.dimensions is None and not own.config.is_encoder_decoder
        if custom and head.exportable:
            raise UnsupportedError(
                f"export: task {name!r}: {head.auto_class} of the family computes the same; leave out --custom-code"
            )
        if not head.exportable and not (custom and pooled):
            ways = "--as onnx, or --as model --custom-code" if pooled else "--as onnx"
            raise UnsupportedError(
                f"export: task {name!r} can't leave as a vanilla {'adapter' if as_ == 'adapter' else 'folder'}: "
                f"{head.why_not}; what can be had: {ways}"
            )
