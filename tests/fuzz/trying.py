"""One process of scripts/fuzz.py: tries examples of laws until it is ended, and says what breaks them."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded

from tests.fuzz.law import Law

ROOT = str(Path(__file__).resolve().parents[2])
ROUND = 100  # examples of a law before the next one's turn


def main(work: Path, seed: int, module: str, only: list[str]) -> int:
    """Try laws in turn, for ever; says on stdout what is tried and what breaks.

    Args:
        work: an empty folder; what is read and written stays there.
        seed: of the examples, and of the law to begin with.
        module: has `load_laws`.
        only: names of laws; none for all.
    """
    laws = importlib.import_module(module).load_laws()
    if unknown := [name for name in only if name not in laws]:
        print(f"--only names laws, found {', '.join(unknown)}; there are {', '.join(laws)}", file=sys.stderr)
        return 2
    chosen = [laws[name] for name in only or laws]
    first = seed % len(chosen)  # another one in each process, so that none hides the others by ending it
    chosen = chosen[first:] + chosen[:first]
    say = Say(work)
    say(laws={one.name: one.about for one in chosen})
    known = set(json.loads((work / "known.json").read_text(encoding="utf-8")))
    for one in chosen:
        for example in one.pinned:
            try_pinned(one, example, known, say)
    for number in itertools.count(seed * 1000):
        for one in chosen:
            try_round(one, number, known, say)
        shutil.rmtree(work / "datasets", ignore_errors=True)
        shutil.rmtree(work / "cache", ignore_errors=True)
    return 0


class Say:
    """The trying process's words: lines of JSON, and the example at hand in a file that outlives it."""

    def __init__(self, work: Path):
        self.work, self.out, self.number = work, sys.stdout, 0
        sys.stdout = sys.stderr

    def __call__(self, **news: Any) -> None:
        """Say something."""
        self.out.write(json.dumps(news) + "\n")
        self.out.flush()

    def trying(self, one: Law, example: Any) -> None:
        """An example begins."""
        (self.work / "example.txt").write_text(repr(example), encoding="utf-8", errors="replace")
        self(at=one.name)

    def folder(self) -> Path:
        """An empty folder, never used before, as working folder; the one before is gone."""
        shutil.rmtree(self.work / f"files{self.number}", ignore_errors=True)
        self.number += 1
        place = self.work / f"files{self.number}"
        place.mkdir()
        os.chdir(place)
        return place


class Broken:
    """What broke a law for the first time, as small as it was made."""

    def __init__(self, one: Law, known: set[str], say: Say):
        self.one, self.known, self.say = one, known, say
        self.kind, self.news = "", {}

    def holds(self, example: Any) -> None:
        """The law for one example; raises what is new."""
        self.say.trying(self.one, example)
        folder = self.say.folder()
        try:
            self.one.holds(example, folder)
        except Exception as error:
            if type(error).__module__.startswith("hypothesis"):  # an example that does not fit
                raise
            kind = kind_of(self.one.name, error)
            if kind in self.known:
                self.say(again=kind)
                return
            if self.kind and kind != self.kind:
                return  # its turn comes later
            self.kind = kind
            trace = "".join(traceback.format_exception(error))[-6000:]
            what = f"{type(error).__name__}: {str(error)[:500]}"
            said = repr(example)
            self.news = {"broken": what, "law": self.one.name, "kind": kind, "trace": trace, "example": said}
            shutil.rmtree(self.say.work / "broken", ignore_errors=True)
            shutil.copytree(folder, self.say.work / "broken")
            raise

    def tell(self) -> None:
        """Say what was found, if anything was."""
        if self.kind:
            self.known.add(self.kind)
            self.say(**self.news, folder=str(self.say.work / "broken"))


def try_pinned(one: Law, example: Any, known: set[str], say: Say) -> None:
    """An example that broke the law once."""
    broken = Broken(one, known, say)
    with suppress(Exception):
        broken.holds(example)
    broken.tell()


def try_round(one: Law, seed: int, known: set[str], say: Say) -> None:
    """Some examples of a law; what breaks it in a new way is made small and told once."""
    broken = Broken(one, known, say)

    def holds(example: Any) -> None:
        broken.holds(example)

    quiet = settings(
        max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    try:
        seeded(seed)(quiet(given(one.examples)(holds)))()
    except BaseException:
        if not broken.kind:
            raise
    broken.tell()


def kind_of(law: str, error: BaseException) -> str:
    """Two errors of one kind were raised in the same place."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames if ROOT in frame.filename][-3:]
    return f"{law}: {type(error).__name__} in {' > '.join(last)} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
