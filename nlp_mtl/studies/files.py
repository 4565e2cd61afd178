"""Study files: read, with what is said on the command line, and checked; and the run file that a study varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from nlp_mtl import config, yamlfile
from nlp_mtl.errors import ConfigError
from nlp_mtl.explain import explain, no_mapping
from nlp_mtl.runfiles import beside

Kind = TypeVar("Kind", bound=BaseModel)


@dataclass(frozen=True)
class StudyFile(Generic[Kind]):
    """A study file that was read.

    Attributes:
        study: its keys, checked.
        place: the file, for messages.
        keys: of the run file that all runs do, paths told from the working folder.
        rest: ``key=value`` for the runs.
    """

    study: Kind
    place: str
    keys: dict[str, Any]
    rest: list[str]


def read_study(
    kind: type[Kind], source: str | Path | Mapping[str, Any], overrides: Sequence[str], own: Sequence[str]
) -> StudyFile[Kind]:
    """Read a study file.

    Args:
        kind: the class of its keys; `run` is a run file or its keys.
        source: the YAML file, or a mapping of its keys.
        overrides: ``key=value``.
        own: keys that are the study's; the others are the run file's, in all runs.

    Raises:
        ConfigError: every mistake of the file.
    """
    if isinstance(source, Mapping):
        data, place, folder = dict(source), "the study", Path()
        lines: yamlfile.Lines = {}
    else:
        data, lines = yamlfile.load(source)
        place, folder = str(source), Path(source).parent
        if not isinstance(data, dict):
            raise ConfigError(f"{place}: {no_mapping(data, 'a study file', kind)}")
    mine = [word for word in overrides if word.partition("=")[0] in own]
    for word in mine:
        key, _, text = word.partition("=")
        data[key] = yamlfile.loads(text, f"override {key}")[0]
    try:
        study = kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, data, place, lines)) from None
    keys = _run_keys(study.run, folder)  # type: ignore[attr-defined]
    return StudyFile(study, place, keys, [word for word in overrides if word not in mine])


def _run_keys(run: str | dict[str, Any], folder: Path) -> dict[str, Any]:
    if isinstance(run, dict):
        return dict(run)
    file = next((path for path in (folder / run, Path(run)) if path.is_file()), folder / run)
    config.load_config(file)  # its mistakes with its lines
    return beside(yamlfile.load(file)[0], file.parent)
