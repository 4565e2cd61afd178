"""What leaves the house: the base by its Hub id, tasks without rows and paths; whatever else is local is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nlp_mtl import packages
from nlp_mtl.dataspec import LOCAL_FORMATS
from nlp_mtl.errors import ConfigError
from nlp_mtl.exporting.plain import lora_config_of
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasklora import owners_of

NONE = "none"
_PATH = re.compile(
    r"(?:^|[\s\"'`(=:,])(?:~?/(?!/)[^\s/\"'`]+/[^\s\"'`]*|~/\S*|file:/\S+|\.\./\S*|[A-Za-z]:[\\/][^\s\"'`]+|\\\\[^\s\"'`]+)"
)


def base_for_hub(
    base: Mapping[str, Any], base_model: str | None = None, base_revision: str | None = None, *, adapter: bool
) -> dict[str, Any]:
    """What is recorded of the pretrained model, under its Hub id and revision.

    Args:
        base: what the run records.
        base_model: the Hub id, where the run was trained from a folder; ``none`` for a fully fine-tuned model whose
            start is on no Hub.
        base_revision: its commit.
        adapter: whether the run is an adapter, which is nothing without its base.

    Raises:
        ConfigError: the run knows no Hub id, and none is given.

    Example:
        >>> base_for_hub({"id": "sentence-transformers/all-MiniLM-L6-v2", "package": "…"}, adapter=True)["revision"][:7]
        '1110a24'
    """
    if base_revision is not None and base_model is None:
        raise ConfigError(
            f"push: --base-revision goes with --base-model, found {base_revision!r} alone; name the model too"
        )
    kept = {key: value for key, value in base.items() if key != "package"}
    if base_model == NONE:
        if adapter:
            raise ConfigError(
                "push: --base-model none is for fully fine-tuned runs, found a LoRA, nothing without its base; "
                "name the base's Hub id, or push a task with --as model"
            )
        return {**{key: value for key, value in kept.items() if key != "revision"}, "id": NONE}
    if base_model is not None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w.-]+", base_model) or Path(base_model).exists():
            raise ConfigError(
                f"push: --base-model is the id of a model on the Hub, found {base_model!r}; write name/model"
            )
        known = {**kept, "id": base_model, "revision": base_revision}
        return {key: value for key, value in known.items() if value is not None}
    if base.get("revision"):
        return dict(kept)
    model = packages.package_table().models.get(base["id"])
    if model is not None and model.revision is not None:
        return {**kept, "revision": model.revision}
    none = "" if adapter else ", or --base-model none if it is on no Hub"
    whole = (
        " (`hf upload NAME/MODEL FOLDER` puts it there), or push a task whole with --as model --base-model none"
        if adapter
        else ""
    )
    raise ConfigError(
        f"push: the base model is recorded under its Hub id and revision, found {base['id']!r}, from a folder "
        f"or package of this machine; say which model of the Hub it is: --base-model NAME/MODEL [--base-revision "
        f"COMMIT]{none}{whole}"
    )


@contextmanager
def recorded_as(model: MultiTaskModel, base: Mapping[str, Any]) -> Iterator[None]:
    """Write the model's base as `base` for a while."""
    before, configs = model.base, list(getattr(model.sharing.encoder, "peft_config", {}).values())
    told = [(known.base_model_name_or_path, known.revision) for known in configs]
    model.base = dict(base)
    for known in configs:
        known.base_model_name_or_path, known.revision = base["id"], base.get("revision")
    try:
        yield
    finally:
        model.base = before
        for known, (name, revision) in zip(configs, told, strict=True):
            known.base_model_name_or_path, known.revision = name, revision


def is_adapter(model: MultiTaskModel) -> bool:
    """Whether what was trained is a LoRA."""
    owners = owners_of(model.sharing.encoder)
    if owners is None and not model.sharing.ordinary:
        return hasattr(model.sharing.encoder, "peft_config")
    return not (owners is not None and owners.own_encoder) and lora_config_of(model, model.tasks[0]) is not None


def task_for_hub(said: Mapping[str, Any]) -> dict[str, Any]:
    """A task's spec without example rows and without the places of local files.

    Files of a local format are called after task and split: whoever has rows of that shape puts them there.

    Example:
        >>> said = {"name": "spam", "dataset": {"path": "json", "data_files": {"test": "/home/me/x.jsonl"}}}
        >>> task_for_hub({**said, "examples": [{"text": "a row"}]})["dataset"]
        {'path': 'json', 'data_files': {'test': 'spam-test.jsonl'}}
    """
    task = {key: value for key, value in said.items() if key != "examples"}
    spec = dict(task["dataset"])
    if spec.get("tasks"):  # of which this one reads the texts
        spec["tasks"] = [task_for_hub(one) if isinstance(one, Mapping) else one for one in spec["tasks"]]
    if spec.get("path") in LOCAL_FORMATS and not spec.get("package"):
        given = spec.get("data_files")
        if isinstance(given, Mapping):
            spec["data_files"] = {split: _renamed(files, f"{task['name']}-{split}") for split, files in given.items()}
        else:
            spec["data_files"] = _renamed(given or [], task["name"])
    if mirrors := [name for name in spec.get("mirrors", []) if not _PATH.search(name)]:
        spec["mirrors"] = mirrors
    else:
        spec.pop("mirrors", None)
    return {**task, "dataset": spec}


def _renamed(files: str | Sequence[str], name: str) -> str | list[str]:
    if isinstance(files, str):
        return f"{name}{PurePosixPath(files).suffix[:12]}"
    return [f"{name}-{number}{PurePosixPath(file).suffix[:12]}" for number, file in enumerate(files)]


def check_leaving(folder: Path, own: Sequence[Path] = ()) -> None:
    """Refuse to let a folder go whose files name places of this machine.

    Configs, specs, cards and other texts are read whole; in a tokenizer's vocabulary, which may hold any text, only
    this machine's own folders count.

    Args:
        folder: what would be pushed.
        own: folders whose names must not be in it, such as the run's.

    Raises:
        ConfigError: with file, entry and text.
    """
    here = {str(place.absolute()) for place in (*own, Path.home(), Path.cwd()) if len(place.absolute().parts) > 2}
    wrong = []
    for file in sorted(part for part in folder.rglob("*") if part.is_file()):
        if file.suffix not in (".json", ".md", ".txt", ".yaml", ".jinja", ".jsonl", ".csv"):
            continue
        name, text = file.relative_to(folder).as_posix(), file.read_text(encoding="utf-8", errors="replace")
        for place in sorted(here):
            if place in text:
                wrong.append(f"push: {name} holds no path of this machine, found {place!r}; remove it from the run")
        if file.suffix == ".json" and file.name not in ("tokenizer.json", "vocab.json"):
            wrong += [
                f"push: {name}: `{key}` holds no local path, found {text!r}; change it in the task or run file and "
                "train again, or in the run folder's nlp_mtl.json"
                for key, text in _texts(json.loads(text))
                if _PATH.search(text)
            ]
    if wrong:
        raise ConfigError(wrong)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with the way to it; what people write about a task may speak of anything."""
    if isinstance(value, str) and key.rpartition(".")[2] not in ("description", "citation", "template", "labels"):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and key.rpartition(".")[2] not in ("labels",):
        for part in value:
            yield from _texts(part, key)
