"""Task files read: YAML with the fragments it includes, parsed first and checked when asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.errors import ConfigError, near, shown
from nlp_mtl.explain import no_mapping
from nlp_mtl.taskfile import Task, validated

Said = tuple[dict[str, Any], yamlfile.Lines]
Fragments = dict[tuple[Path, Path], Said]  # (root, file) → what it says, with what it includes


@dataclass(frozen=True)
class ParsedTask:
    """What a task file and its fragments say, not yet checked: enough to know a task's name and tags.

    Attributes:
        file: the task file.
        data: the keys and values.
        lines: where they stand.
    """

    file: Path
    data: dict[str, Any]
    lines: yamlfile.Lines

    def checked(self) -> Task:
        """The task; raises ConfigError with all mistakes, each with its line."""
        if "file" in self.data:
            place = f"{self.file}:{self.lines[('file',)]}"
            raise ConfigError(f"{place}: unknown key 'file'; local files stand in `dataset.data_files`")
        return validated({**self.data, "file": self.file}, str(self.file), self.lines)


def parse_task(file: str | Path, *, root: str | Path | None = None, fragments: Fragments | None = None) -> ParsedTask:
    """Parse one task file, without checking what it says.

    Args:
        file: the YAML file.
        root: `include:` may reach files below this folder only; by default the file's own folder.
        fragments: those parsed before, for files that include the same ones; new ones are added.

    Raises:
        ConfigError: it is no YAML mapping, or includes what it must not.
    """
    file = Path(file)
    data, lines = _read_with_includes(file, Path(root) if root else file.parent, (), fragments)
    return ParsedTask(file, data, lines)


def read_task(file: str | Path, *, root: str | Path | None = None) -> Task:
    """Read and check one task file; arguments as for :func:`parse_task`. Raises ConfigError with all its mistakes."""
    return parse_task(file, root=root).checked()


def _read_with_includes(file: Path, root: Path, above: tuple[Path, ...], fragments: Fragments | None) -> Said:
    data, lines = yamlfile.load(file)
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: {no_mapping(data, 'a task file', Task)}")
    included = data.pop("include", None)
    names = [included] if isinstance(included, str) else included or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        place = f"{file}:{lines[('include',)]}"
        raise ConfigError(
            f"{place}: `include` names one file or a list of them, found {included!r}; e.g. [_common.yaml]"
        )
    below: dict[str, Any] = {}  # what the fragments say: later ones win, and this file over all
    for name in names:
        known = fragments.get((root, file.parent / name)) if fragments is not None else None
        if known is None:
            target, place = _resolved(file.parent / name), f"{file}:{lines[('include',)]}: `include`"
            if target is None:
                raise ConfigError(f"{place} names a file, found {shown(name)}; no file can be called so")
            if not target.is_relative_to(root.resolve()):
                raise ConfigError(f"{place} stays inside {root}, found {name!r}; put the file there")
            if target in above:
                raise ConfigError(f"{place} goes round in a circle through {name!r}; leave one of them out")
            if not target.is_file():
                there = [str(other.relative_to(file.parent)) for other in file.parent.rglob("_*.yaml")]
                way = near(name, there) or "; tell it from this file's folder"
                raise ConfigError(f"{place} names a file, found {shown(name)}, which is no such file{way}")
            known = _read_with_includes(target, root, (*above, file.resolve()), fragments)
            if fragments is not None:
                fragments[root, file.parent / name] = known
        base, base_lines = known
        below = _merge(below, copy.deepcopy(base))  # no two tasks hold the same list
        lines = {**dict.fromkeys(base_lines, lines[("include",)]), **lines}  # of this file, whose name stands before
    return _merge(below, data), lines


def _resolved(file: Path) -> Path | None:
    """The file's real path; None if no file can have this name."""
    try:
        file.exists()
        return file.resolve()
    except (OSError, ValueError):
        return None


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
