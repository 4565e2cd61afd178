"""What a law is, and how one is tried."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from nlp_mtl.errors import NlpMtlError

_number = itertools.count()


@dataclass(frozen=True)
class Law:
    """A law: for all examples, `holds` raises nothing.

    Attributes:
        name: what it is called.
        about: the reader, or the collation.
        examples: how strategies make examples.
        holds: given an example and an empty folder, raises where the law is broken.
        few: how many examples `make test` tries.
        pinned: examples that broke it once.
    """

    name: str
    about: str
    examples: SearchStrategy[Any]
    holds: Callable[[Any, Path], None]
    few: int
    pinned: Sequence[Any] = ()


LAWS: dict[str, Law] = {}


def law(about: str, examples: SearchStrategy[Any], *, few: int = 20, pinned: Sequence[Any] = ()) -> Callable[..., Any]:
    """Make a function of (example, folder) a law."""

    def note(holds: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
        LAWS[holds.__name__] = Law(holds.__name__, about, examples, holds, few, tuple(pinned))
        return holds

    return note


def ours(read: Callable[[], Any], *names: str) -> Any:
    """What `read` gives, or None where it raises an error of ours whose message holds one of `names`."""
    try:
        return read()
    except NlpMtlError as error:
        said = str(error)
    assert said.strip(), "an error says nothing"
    assert not names or any(name in said for name in names), f"names none of {names}: {said}"
    return None


@contextmanager
def fresh_folder(base: Path, *, keep: bool = False):
    """An empty folder that was never used before, which is the working folder too: readers cache what they read."""
    folder, before = base / f"example{next(_number)}", Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    done = False
    try:
        yield folder
        done = True
    finally:
        os.chdir(before)
        if done or not keep:
            shutil.rmtree(folder, ignore_errors=True)


def try_few(one: Law, base: Path) -> None:
    """Try the pinned examples and a few fixed ones, the same each time."""
    for example in one.pinned:
        with fresh_folder(base) as folder:
            one.holds(example, folder)

    def holds(example: Any) -> None:
        with fresh_folder(base) as folder:
            one.holds(example, folder)

    holds.__name__ = holds.__qualname__ = one.name  # the fixed examples hang on the name
    fixed = settings(
        max_examples=one.few,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    fixed(given(one.examples)(holds))()
