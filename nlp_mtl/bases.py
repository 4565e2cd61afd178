"""Pretrained encoders by name: a local folder, a packaged model, the Hub's cache, the Hub."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_mtl import packages
from nlp_mtl.errors import NotFoundError, RunFolderError, pip_install, shown
from nlp_mtl.paths import no_name

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.jinja"]


@dataclass(frozen=True)
class Base:
    """A pretrained model that was found.

    Attributes:
        id: what is recorded: the Hub id, or the packaged model's name, or the last part of a local folder.
        folder: where its files are; never recorded.
        revision: the commit on the Hub; of packaged models, the one with the same weights.
        package: the package it comes from, with version.
    """

    id: str
    folder: Path
    revision: str | None = None
    package: str | None = None

    def sha256(self) -> str:
        """Of the weights: of the one file, or of all shards in order."""
        total = hashlib.sha256()
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    total.update(chunk)
        return total.hexdigest()

    def record(self) -> dict[str, Any]:
        """What a run folder says of its base."""
        found = {"id": self.id, "revision": self.revision, "package": self.package, "sha256": self.sha256()}
        return {key: value for key, value in found.items() if value is not None}


def find_base(
    name: str | Path, *, sha256: str | None = None, revision: str | None = None, token: str | bool | None = None
) -> Base:
    """A pretrained model by folder, packaged name or Hub id.

    Args:
        name: what stands after `model:`.
        sha256: what its weights must be, if that is known.
        revision: the commit to take from the Hub; default the newest.
        token: for a model that is not public.

    Raises:
        NotFoundError: nowhere, or without weights in safetensors format; lists what was tried, in order.
        RunFolderError: found, but with other weights.
    """
    base = _find(str(name), revision, token)
    if sha256 is not None and (found := base.sha256()) != sha256:
        raise RunFolderError(
            f"the base model {name!r} has weights with sha256 {found[:12]}…, this run was trained on {sha256[:12]}…; "
            "give the right one with base="
        )
    return base


def find_recorded(record: Mapping[str, Any], where: str | Path | None = None, token: str | bool | None = None) -> Base:
    """The pretrained model that a run records, with the weights it was trained on; raises as :func:`find_base`.

    Args:
        record: what :meth:`Base.record` said.
        where: where it is, if it is not found by its id.
        token: for a model that is not public.
    """
    revision = None if where else record.get("revision")
    return find_base(where or record["id"], sha256=record.get("sha256"), revision=revision, token=token)


def _find(name: str, revision: str | None, token: str | bool | None) -> Base:
    tried = []
    folder = Path("~" if no_name(name) else name).expanduser()
    if not no_name(name) and (folder / "config.json").is_file():
        return Base(folder.resolve().name, _with_weights(folder))
    tried.append(f"local folder: {shown(name)} with a config.json is not there")
    models = packages.package_table().models
    if name in models:
        model = models[name]
        where = packages.fetch(model.package)
        version = packages.package_table().packages[model.package].version
        source = where / model.folder if model.folder else _from_gguf(where / str(model.gguf), name)
        return Base(name, source, revision=model.revision, package=f"{model.package}=={version}")
    tried.append(f"packaged models: {', '.join(sorted(models))}")
    return _from_hub(name, tried, revision, token)


def _with_weights(folder: Path) -> Path:
    """The folder, if it has weights that are read without unpickling.

    Raises:
        NotFoundError: no ``model*.safetensors``.
    """
    if list(folder.glob("model*.safetensors")):
        return folder
    others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
    found = f"; it has {', '.join(others)}, which is not read: nothing is unpickled" if others else ""
    raise NotFoundError(
        f"weights of the model {str(folder)!r} in safetensors format",
        [f"{folder}: config.json is there, model.safetensors is not{found}"],
        [
            "convert it, if you trust it: AutoModel.from_pretrained(old).save_pretrained(new) and the same with "
            "AutoTokenizer, then model: new",
            "copy or download model.safetensors (or all its shards) into the folder",
        ],
    )


def _from_hub(name: str, tried: list[str], revision: str | None, token: str | bool | None) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from nlp_mtl.reading import hub_reachable

    for local in (True, False):
        where = "Hub cache" if local else "Hub"
        if not local:
            reachable, why = hub_reachable()
            if not reachable:
                tried.append(f"Hub: {why}")
                continue
        try:
            folder = Path(
                snapshot_download(name, revision=revision, token=token, allow_patterns=_FILES, local_files_only=local)
            )
        except LocalEntryNotFoundError:
            tried.append(f"{where}: not there")
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            tried.append(f"{where}: {' '.join(str(error).split())[:160]}")
        else:
            if list(folder.glob("model*.safetensors")):
                return Base(name, folder, revision=folder.name)
            tried.append(f"{where}: {name} has no weights in safetensors format")
    raise NotFoundError(
        f"the model {shown(name)}",
        tried,
        [
            "a folder with a pretrained model: model: path/to/folder",
            "run once where the Hub can be reached: its cache is used afterwards",
            f"one of the packaged models: {', '.join(sorted(packages.package_table().models))}",
        ],
    )


def _from_gguf(file: Path, name: str) -> Path:
    """Read a GGUF file back to a folder that `transformers` loads, once."""
    target = packages.cache_folder() / "models" / name
    if (target / "config.json").is_file():
        return target
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise NotFoundError(
            f"the package gguf, needed once to read {name},", ["import gguf"], [pip_install("gguf")]
        ) from None
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers import logging as transformers_logging

    logging.getLogger("nlp_mtl").info("reading %s back from 4 bits, once", name)
    transformers_logging.disable_progress_bar()
    plain: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **plain)
    settings = {
        k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path", "dtype")
    }
    config = AutoConfig.for_model(read.config.model_type, **{k: v for k, v in settings.items() if k != "model_type"})
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(read.state_dict())
    work = target.with_name(f".{target.name}-{os.getpid()}")
    fresh.save_pretrained(work)
    AutoTokenizer.from_pretrained(file.parent, **plain).save_pretrained(work)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(work, target)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        if not (target / "config.json").is_file():
            raise
    return target
