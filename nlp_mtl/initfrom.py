"""What `init_from` of a run file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, suggestion

KEYS = ("run", "task", "heads", "merge")


@dataclass(frozen=True)
class InitFrom:
    """What `init_from` of a run file says.

    Attributes:
        run: a run folder or checkpoint, a vanilla folder, or the Hub id of either.
        task: of a run whose tasks use encoders of their own, whose to take.
        heads: task → the task of that run whose head it starts from; by default the one of its own name.
        merge: whether the LoRA of that run is put into the weights and a new one is learned on them; by default a LoRA
            of the same shape goes on to be trained.

    Example:
        >>> InitFrom.of({"run": "runs/first", "heads": {"dvd": "books"}}).heads
        {'dvd': 'books'}
        >>> InitFrom.of("runs/first").run
        'runs/first'
    """

    run: str
    task: str | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    merge: bool = False

    @classmethod
    def of(cls, given: str | Path | Mapping[str, Any]) -> InitFrom:
        """Read it.

        Raises:
            ConfigError: every mistake in it.
        """
        if isinstance(given, (str, Path)):
            given = {"run": str(given)}
        mistakes = [f"init_from: takes no {key!r}{suggestion(str(key), KEYS)}" for key in given if key not in KEYS]
        run, task, heads, merge = (given.get(key) for key in KEYS)
        if not isinstance(run, (str, Path)) or not str(run):
            mistakes.append(f"init_from: `run` is a folder or a Hub id, found {run!r}; write init_from: runs/first")
        if task is not None and not isinstance(task, str):
            mistakes.append(f"init_from: `task` is a task of that run, found {task!r}; name one")
        named = isinstance(heads, Mapping) and all(isinstance(x, str) for pair in heads.items() for x in pair)
        if heads is not None and not named:
            mistakes.append(f"init_from: `heads` says {{task: task of that run}}, found {heads!r}; name tasks")
        if merge is not None and not isinstance(merge, bool):
            mistakes.append(
                f"init_from: `merge` is true or false, found {merge!r}; true puts that run's LoRA into the weights"
            )
        if mistakes:
            raise ConfigError(mistakes)
        return cls(str(run), task, dict(heads or {}), bool(merge))
