"""What a search varies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlp_mtl import config
from nlp_mtl.errors import ConfigError, near, shown, suggestion
from nlp_mtl.searching.spec import GROUPINGS, STRATEGIES

TAKEN = ("tasks", "stages", "registry", "imports", "data_root")  # one for all trials
TRAINING_TAKEN = ("output_dir", "seed", "resume_from_checkpoint")
_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; whole ones if both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Any, name: str) -> Any:
        """What a trial takes."""
        if self.whole:
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> list[Any]:
        """What is checked beforehand."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Values:
    """Some values; a trial knows them by their text."""

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        """What a trial takes."""
        texts = [text_of(value) for value in self.values]
        return self.values[texts.index(trial.suggest_categorical(name, texts))]

    def ends(self) -> list[Any]:
        """What is checked beforehand."""
        return list(self.values)


Space = dict[str, Range | Values]


def text_of(value: Any) -> str:
    """A value as a trial's parameter says it.

    Example:
        >>> text_of("joint"), text_of({"name": "cagrad", "c": 0.4}), text_of([["a", "b"], ["c"]])
        ('joint', '{"c": 0.4, "name": "cagrad"}', '[["a", "b"], ["c"]]')
    """
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def read_space(
    given: Mapping[str, Any], tasks: Sequence[str], encoders: int, target: str | None
) -> tuple[Space, list[str]]:
    """The space of a search file.

    Args:
        given: key → list of values, or ``{low, high, log, step}``.
        tasks: names, for groups; none if they are not known.
        encoders: at most so many groups.
        target: with one, helpers are chosen and no groups.

    Returns:
        What of it can be read, and every mistake in it.

    Example:
        >>> found, mistakes = read_space({"strategy": ["joint"], "lora.r": {"low": 4, "high": 16}}, ["a"], 2, None)
        >>> found["lora.r"].whole, mistakes
        (True, [])
    """
    space: Space = {}
    mistakes: list[str] = []
    known = [key for key in config.RunConfig.model_fields if key not in TAKEN]
    for key, said in given.items():
        where = f"`space`: {key!r}"
        first, _, rest = str(key).partition(".")
        if key == "grouping" and target is not None:
            mistakes.append(f"{where} goes without `target`, for which helpers are chosen; leave one out")
        elif key not in ("grouping", "strategy") and (
            first not in known or (first == "training" and rest in TRAINING_TAKEN)
        ):
            taken = first in TAKEN or rest in TRAINING_TAKEN
            why = (
                " is the same in all trials; leave it out"
                if taken
                else f" is no key of a run file{suggestion(first, ['grouping', 'strategy', *known])}"
            )
            mistakes.append(where + why)
        else:
            found, wrong = _entry(said)
            if found is None:
                mistakes.append(f"{where} {wrong}")
                continue
            space[key] = found
            if key == "strategy":
                mistakes += _names(where, found, STRATEGIES)
            elif key == "grouping":
                mistakes += _groupings(where, found, tasks, encoders)
    return space, mistakes


def _entry(said: Any) -> tuple[Range | Values | None, str]:
    if isinstance(said, list) and said:
        texts = [text_of(value) for value in said]
        if doubled := sorted({text for text in texts if texts.count(text) > 1}):
            return None, f"has each value once, found twice: {', '.join(doubled)}; drop one"
        return Values(tuple(said)), ""
    if not isinstance(said, Mapping):
        return None, f"is a list of values, or {{low, high}}, found {shown(said)}; e.g. [{shown(said)}]"
    if unknown := [key for key in said if key not in _RANGE]:
        return None, "; ".join(f"takes no {key!r}{suggestion(str(key), _RANGE)}" for key in unknown)
    try:
        low, high, step = (_number(said.get(key)) for key in ("low", "high", "step"))
    except ValueError:
        low = high = step = None
    log = said.get("log", False)
    if low is None or high is None or not low < high or not isinstance(log, bool) or (step is not None and step <= 0):
        return None, f"has numbers low < high, `log` true or false, a `step` above 0, found {shown(dict(said))}"
    if log and (low <= 0 or step is not None):
        return None, f"with `log` is above 0 and has no `step`, found {shown(dict(said))}"
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Range(low, high, log, step), ""


def _number(value: Any) -> Any:
    """A number; YAML reads 1e-5 as text."""
    if value is None or isinstance(value, bool):
        return None
    return value if isinstance(value, int) else float(value)


def _names(where: str, found: Range | Values, known: Sequence[str]) -> list[str]:
    if isinstance(found, Range):
        return [f"{where} is a list of {', '.join(known)}, found a range; e.g. [{known[0]}]"]
    return [
        f"{where} knows {', '.join(known)}, found {one!r}{near(str(one), known)}"
        for one in found.values
        if one not in known
    ]


def _groupings(where: str, found: Range | Values, tasks: Sequence[str], encoders: int) -> list[str]:
    if isinstance(found, Range):
        return _names(where, found, GROUPINGS)
    mistakes = _names(where, Values(tuple(one for one in found.values if not isinstance(one, list))), GROUPINGS)
    for groups in [one for one in found.values if isinstance(one, list)]:
        if not all(isinstance(group, list) and group for group in groups):
            mistakes.append(f"{where}: groups are lists of tasks, found {shown(groups)}; e.g. [[rte, mrpc], [cola]]")
            continue
        if not tasks:
            continue
        named = [task for group in groups for task in group]
        mistakes += [
            f"{where}: no task {one!r}{near(str(one), tasks)}" for one in dict.fromkeys(named) if one not in tasks
        ]
        if missing := [task for task in tasks if task not in named]:
            mistakes.append(
                f"{where}: every task is in a group, found none with {', '.join(missing)} in {shown(groups)}"
            )
        if doubled := sorted({str(task) for task in named if named.count(task) > 1}):
            mistakes.append(f"{where}: a task is in one group, found twice in {shown(groups)}: {', '.join(doubled)}")
        if len(groups) > encoders:
            mistakes.append(
                f"{where}: at most {encoders} groups (`encoders`), found {len(groups)} in {shown(groups)}; raise it"
            )
    return mistakes


def check_values(space: Space, keys: Mapping[str, Any]) -> list[str]:
    """Mistakes of run files with one value changed, each once.

    Args:
        space: of the search.
        keys: the run file that is varied, which is right.
    """
    mistakes = []
    for name, entry in space.items():
        if name in ("grouping", "strategy"):
            continue
        for value in entry.ends():
            try:
                config.load_config(keys, [f"{name}={json.dumps(value)}"])
            except ConfigError as error:
                said = [message.removeprefix("the run:").strip() for message in error.mistakes]
                mistakes += [f"`space`: {name!r}: {text_of(value)}: {message}" for message in said]
    return list(dict.fromkeys(mistakes))
