"""What `distillation` of a run file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, suggestion

START = "start"
_OF_LWF = {"temperature": 2.0, "weight": 1.0}  # of the paper
KEYS = ("teacher", "tasks", "of", "on", "temperature", "weight", "annealing", "hidden", "base")


@dataclass(frozen=True)
class DistillationSpec:
    """One teacher, and what is learned from it.

    Attributes:
        teacher: a run folder, the Hub id of one, ``start`` for the model that the run starts from, or in Python a
            :class:`nlp_mtl.MultiTaskModel`.
        tasks: the tasks that learn from it; None for all that it has.
        of: task → the teacher's task that teaches it; by default the one of its own name.
        on: the tasks whose training rows it is asked about; None for each task's own.
        temperature: what logits of both are divided by; the loss against them is multiplied by its square.
        weight: the teacher's share of the loss, from 0 to 1; labels have the rest.
        annealing: ``none``, or ``linear``: the share falls to 0 over the training.
        hidden: how much the mean squared distance between hidden states counts beside that between logits; 0 for not.
        base: the pretrained model below a teacher with LoRA, where it is not found by what the teacher records.

    Example:
        >>> DistillationSpec.of_key({"teacher": "runs/big", "annealing": "linear"}).weight
        1.0
        >>> DistillationSpec.of_key({"teacher": "start", "on": "mrpc", "hidden": True}).on
        ('mrpc',)
    """

    teacher: Any
    tasks: tuple[str, ...] | None = None
    of: Mapping[str, str] = field(default_factory=dict)
    on: tuple[str, ...] | None = None
    temperature: float = 2.0
    weight: float = 0.5
    annealing: str = "none"
    hidden: float = 0.0
    base: str | None = None

    @classmethod
    def of_key(cls, given: Any) -> DistillationSpec:
        """Read one.

        Raises:
            ConfigError: every mistake in it.
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"distillation: says {{teacher: …}}, or a list of such, found {given!r}; name a teacher")
        wrong = [f"distillation: takes no {key!r}{suggestion(str(key), KEYS)}" for key in given if key not in KEYS]
        teacher, of, annealing = given.get("teacher"), given.get("of"), given.get("annealing", "none")
        if teacher is None or teacher == "" or isinstance(teacher, (Mapping, list, int, float)):
            wrong.append(
                "distillation: `teacher` is a run folder, or start for the model that this run starts from, found "
                f"{teacher!r}; write teacher: runs/big"
            )
        if annealing not in ("none", "linear"):
            wrong.append(f"distillation: `annealing` is none or linear, found {annealing!r}; leave it out for none")
        named = of is None or (isinstance(of, Mapping) and all(isinstance(x, str) for pair in of.items() for x in pair))
        if not named:
            wrong.append(f"distillation: `of` says {{task: the teacher's task}}, found {of!r}; name tasks")
        tasks, on = (_names(key, given.get(key), wrong) for key in ("tasks", "on"))
        usual = 1.0 if annealing == "linear" else 0.5
        temperature = _number("temperature", given.get("temperature", 2.0), 2.0, wrong, positive=True)
        weight = _number("weight", given.get("weight", usual), usual, wrong, most=1.0)
        said = given.get("hidden", False)
        said = said.get("weight", 1.0) if isinstance(said, Mapping) and set(said) <= {"weight"} else said
        hidden = float(said) if isinstance(said, bool) else _number("hidden", said, 0.0, wrong)
        base = given.get("base")
        if base is not None and not isinstance(base, (str, Path)):
            wrong.append(f"distillation: `base` is a folder or a Hub id, found {base!r}; leave it out")
        if wrong:
            raise ConfigError(wrong)
        given_base = None if base is None else str(base)
        return cls(teacher, tasks, dict(of or {}), on, temperature, weight, annealing, hidden, given_base)

    def share(self, step: int, steps: int) -> float:
        """The teacher's share of the loss at a step of a training of so many.

        Example:
            >>> one = DistillationSpec("runs/big", weight=0.8, annealing="linear")
            >>> [round(one.share(step, 4), 2) for step in range(4)]
            [0.8, 0.6, 0.4, 0.2]
        """
        return self.weight * (1 - step / max(1, steps)) if self.annealing == "linear" else self.weight

    def named(self) -> list[tuple[str, str]]:
        """The names of the run's tasks in it, each with the key it stands under."""
        parts = {"tasks": self.tasks or (), "of": self.of, "on": self.on or ()}
        return [(key, name) for key, names in parts.items() for name in names]


def specs_of(given: Any) -> list[DistillationSpec]:
    """The entries of `distillation`: one mapping, or a list.

    Raises:
        ConfigError: every mistake in them.
    """
    entries = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    found, wrong = [], []
    for entry in entries:
        try:
            found.append(entry if isinstance(entry, DistillationSpec) else DistillationSpec.of_key(entry))
        except ConfigError as error:
            wrong += error.mistakes
    if wrong:
        raise ConfigError(wrong)
    return found


def without_forgetting(earlier: Sequence[str], new: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Learning without forgetting: heads of earlier tasks are held to what they said on the new task's rows.

    Args:
        earlier: the tasks that were learned before.
        new: the one that is learned.
        said: fields that are not the paper's; of those that say who learns from whom only `tasks`, which of the earlier
            tasks are held (default all).

    Raises:
        ConfigError: every mistake in `said`.

    Relations: Li & Hoiem, 2016, arXiv 1606.09282, with temperature 2; like distillation from the model that the run
    starts from.

    Example:
        >>> without_forgetting(["rte"], "mrpc", {"weight": 0.5})["on"]
        ['mrpc']
    """
    if taken := [key for key in said if key in ("teacher", "of", "on", "base")]:
        raise ConfigError(
            f"`lwf` says itself who learns from whom, found {', '.join(map(repr, taken))}; leave that out"
        )
    try:
        DistillationSpec.of_key({"teacher": START, **said})
    except ConfigError as error:
        raise ConfigError([message.replace("distillation:", "`lwf`:") for message in error.mistakes]) from None
    return {"teacher": START, "tasks": list(earlier), "on": [new], **_OF_LWF, **said}


def unknown_names(specs: Sequence[DistillationSpec], tasks: Sequence[str]) -> list[str]:
    """A mistake for each name that is no task of the run.

    Example:
        >>> unknown_names([DistillationSpec("start", tasks=("rtee",))], ["rte", "cola"])
        ["distillation: `tasks`: 'rtee' is not a task of this run; did you mean 'rte'?"]
    """
    return [
        f"distillation: `{key}`: {name!r} is not a task of this run{suggestion(name, tasks)}"
        for spec in specs
        for key, name in spec.named()
        if name not in tasks
    ]


def _names(key: str, given: Any, wrong: list[str]) -> tuple[str, ...] | None:
    names = [given] if isinstance(given, str) else given
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        wrong.append(f"distillation: `{key}` is a list of tasks, found {given!r}; name some, or leave it out")
        return None
    return tuple(dict.fromkeys(names))


def _number(
    key: str, given: Any, usual: float, wrong: list[str], *, positive: bool = False, most: float = float("inf")
) -> float:
    fits = isinstance(given, (int, float)) and not isinstance(given, bool)
    if fits and (given > 0 if positive else given >= 0) and given <= most and given < float("inf"):
        return float(given)
    rule = "above 0" if positive else "from 0 to 1" if most == 1 else "from 0"
    form = "true, {weight: …} or a number" if key == "hidden" else "a number"
    wrong.append(f"distillation: `{key}` is {form} {rule}, found {given!r}; left out, it is {usual:g}")
    return usual
