"""Encoder or adapters, heads and what a sharing has of its own: as files of a run folder, and read back."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nlp_mtl.adapters import is_adapter
from nlp_mtl.checkpoint import other_ways
from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError
from nlp_mtl.folding import save_folded
from nlp_mtl.heads.vanilla import tied_keys
from nlp_mtl.packing import base_of
from nlp_mtl.sharing import Sharing
from nlp_mtl.tasklora import SHARED, owners_of

HEADS, SHARING, ENCODER_CONFIG = "heads.safetensors", "sharing.safetensors", "encoder_config.json"
TABLES = "sharing.json"
BELOW = "encoder"  # a folder: the encoder below a LoRA, where it is no pretrained one
_AS_TRAINED = "; use it with the model, tasks and tuning it was trained with, or copy the folder again"


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
        owners = owners_of(encoder)
        if sharing.ordinary:
            encoder.save_pretrained(folder, **more)
        elif owners is None:
            save_apart(sharing, folder, own)
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
    if tables := sharing.tables():
        (folder / TABLES).write_text(json.dumps(tables, indent=1, ensure_ascii=False), encoding="utf-8")
    extra = sharing.own_state()
    if extra:
        if state is not None:
            extra = {name: state[f"sharing.{name}"] for name in extra}
        save_file({name: value.detach().cpu().contiguous() for name, value in extra.items()}, folder / SHARING)


def save_below(folder: Path, encoder: Any, tokenizer: Any) -> None:
    """Write the encoder below adapters, as it is without them, into a folder of its own."""
    plain = copy.deepcopy(encoder)
    with quiet_transformers():
        (plain.unload() if hasattr(plain, "peft_config") else plain).save_pretrained(folder / BELOW)
    tokenizer.save_pretrained(folder / BELOW)


def check_saved(sharing: Sharing) -> None:
    """Refuse a sharing that would train what no file of a run folder holds.

    Raises:
        ConfigError: parameters beside the adapters that a `lora` trains (`bias`, `modules_to_save`, …), in a sharing
            that keeps the adapters by itself.
    """
    if sharing.ordinary or owners_of(sharing.encoder) is not None:
        return
    kept = set(sharing.own_state())
    if lost := [name for name, p in sharing.named_parameters() if p.requires_grad and name not in kept]:
        raise ConfigError(
            f"sharing {sharing.registered_as!r}: keeps a LoRA's A and B and nothing else of `lora`, which trains "
            f"{len(lost)} more parameters, e.g. {lost[0].removeprefix('encoder.base_model.model.')}; leave `bias` and "
            "`modules_to_save` out"
        )


def save_apart(sharing: Sharing, folder: Path, state: Mapping[str, Tensor] | None) -> None:
    """What goes beside ``sharing.safetensors`` where tasks use no one encoder: adapters of tasks, or a config.

    Nothing at the root would load and be wrong: with LoRA each task's ordinary adapter, if it has one, is in its own
    sub-folder; else the encoder's config is there under another name, so that the folder needs no pretrained model.
    """
    if hasattr(sharing.encoder, "peft_config"):
        for task in sharing.tasks:
            try:
                found = sharing.adapter(task, state)
            except UnsupportedError:
                continue
            if found is not None:
                (folder / task).mkdir(exist_ok=True)
                found[0].save_pretrained(folder / task)
                save_file(found[1], folder / task / "adapter_model.safetensors", metadata={"format": "pt"})
    elif not any(".lora_" in name for name, _ in sharing.named_parameters()):
        base_of(sharing.encoder).config.save_pretrained(folder)
        (folder / "config.json").rename(folder / ENCODER_CONFIG)


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
    if not sharing.ordinary and owners_of(encoder) is None:
        ours = theirs = ""
    elif not adapter.is_file() and _holds_adapters(folder / SHARING):
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
    others = {name for name in shared if _of_another_task(name, encoder) or _mixes_for_another(name, modules)}
    shared = {name: value for name, value in shared.items() if name in own or name not in others}
    if different := _different(shared, own):
        raise RunFolderError(f"{folder}: a sharing of another model ({different[0]} differs){_AS_TRAINED}")
    if sharing.ordinary and adapter.is_file():
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        state = _read(adapter)
        if different := _different(state, get_peft_model_state_dict(encoder, save_embedding_layers=False)):
            raise RunFolderError(f"{folder}: an adapter of another model ({different[0]} differs){_AS_TRAINED}")
        set_peft_model_state_dict(encoder, state)
    elif sharing.ordinary and owners_of(encoder) is None:
        _load_encoder(folder, base_of(encoder))
    if own:
        sharing.load_own_state(shared)
    for key, module in modules.items():
        module.load_state_dict(_part(heads, f"{key}."), strict=False)


def _of_another_task(name: str, encoder: nn.Module) -> bool:
    """Whether a parameter belongs to the adapter of a task that this model was made without."""
    owners, parts = owners_of(encoder), name.split(".")
    return owners is not None and is_adapter(name) and parts[-2] not in (SHARED, *owners.adapters)


def _mixes_for_another(name: str, modules: Collection[str]) -> bool:
    """Whether a parameter is how a task without a head here mixes layers."""
    return name.startswith("reads.mixes.") and name.split(".")[2] not in modules


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
    ties: Any = getattr(base, "_tied_weights_keys", None) or {}
    expected = {name: value for name, value in base.state_dict().items() if name not in ties or name in state}
    if different := [name for name in _different(state, expected) if not name.endswith("position_ids")]:
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
