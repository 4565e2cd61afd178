"""What a bad input of the catalogue is, and the small files that most of them are made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.errors import ConfigError, NlpMtlError

MISSING = object()  # as a value of `task`, `run` or `row`: the key is left out


@dataclass(frozen=True)
class Bad:
    """One bad input, and the four things that its message must say.

    Attributes:
        id: what is wrong, in a few words; the test's name.
        use: a command line without ``nlp-mtl``, or a Python call; both from the working folder.
        parameter: what the message names: a key, an option, an argument, a column, a file with its line.
        rule: what it must be.
        found: what it is instead.
        way_out: what to do.
        files: files that are written into the working folder first, by path.
        spoil: what else is done to the working folder first.
        error: the type that is raised.
        also: other mistakes of the same input, which the same message must tell.
    """

    id: str
    use: str | list[str] | Callable[[], Any]
    parameter: str
    rule: str
    found: str
    way_out: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    spoil: Callable[[], Any] | None = None
    error: type[NlpMtlError] = ConfigError
    also: tuple[str, ...] = ()


def changed(good: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with some values changed, added or left out."""
    return {key: value for key, value in {**good, **changes}.items() if value is not MISSING}


def task(more: str = "", /, **changes: Any) -> str:
    """The text of a good task file with some keys changed; `more` is appended as it is, from line 7 on."""
    good = {
        "name": "spam",
        "head": "sequence_classification",
        "dataset": {"path": "json", "data_files": "spam.jsonl"},
        "inputs": ["text"],
        "target": "label",
        "labels": ["no", "yes"],
    }
    return yamlfile.dumps(changed(good, changes), flow=True) + more


def run(more: str = "", /, **changes: Any) -> str:
    """The text of a good run file with some keys changed; `training` is merged, `more` is appended as it is."""
    training = {
        "output_dir": "new",
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "eval_strategy": "no",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    good = {"model": "base", "tasks": ["data/mood.yaml", "data/alike.yaml"], "max_length": 64}
    said = changed(good, {**changes, "training": MISSING})
    if "training" in changes and not isinstance(changes["training"], dict):
        said["training"] = changes["training"]
    else:
        said["training"] = changed(training, changes.get("training", {}))
    return yamlfile.dumps(said, flow=True) + more


def lines(*rows: Any) -> str:
    """JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def edit(file: str, **changes: Any) -> None:
    """Change the keys of a JSON file."""
    said = json.loads(Path(file).read_text(encoding="utf-8"))
    Path(file).write_text(json.dumps(changed(said, changes)), encoding="utf-8")
