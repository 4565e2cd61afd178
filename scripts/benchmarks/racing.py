"""Several training scripts measured in turn: all of them are alive, one at a time works, some steps each.

A machine that others use too is a quarter slower at one time than at another. Whole runs one after the other would
measure that; here every contender is given a few steps at a time, round and round, so that all meet the same weather.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMED = Path(__file__).resolve().parent / "timed.py"
UNTIMED = 10  # steps of every contender before its clock counts


@dataclass(frozen=True)
class Contender:
    """A training script with its words.

    Args:
        name: for tables.
        script, words: what is run.
        arguments: take the place of the script's `TrainingArguments`.
        python: in which it runs.
    """

    name: str
    script: Path
    words: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable

    def command(self, out: Path, *more: str) -> list[str]:
        """The command line under the clock."""
        said = ["--args", json.dumps(dict(self.arguments))] if self.arguments else []
        return [self.python, str(TIMED), "--out", str(out), *said, *more, str(self.script), *self.words]


def environment() -> dict[str, str]:
    """What contenders run in: no network, and the package beside this folder, wherever another one is installed."""
    root = str(TIMED.parent.parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}


class Failed(RuntimeError):
    """A contender that came to no end."""


class _Runner:
    """A contender's process, and the pipe by which it is given its turns."""

    def __init__(self, contender: Contender, folder: Path, every: int):
        self.contender, self.folder = contender, folder
        folder.mkdir()
        read, self._give = os.pipe()
        self._hear, write = os.pipe()
        env = environment() | {"NLP_MTL_TURN": f"{read} {write}"}
        self.out = folder / "timed.json"
        with (folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                contender.command(self.out, "--every", str(every)),
                cwd=folder,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(read, write),
            )
        os.close(read)
        os.close(write)
        self.alive = self.until_it_waits()

    def until_it_waits(self) -> bool:
        """Whether it waits for another turn; if not, it has ended."""
        return os.read(self._hear, 1) == b"."

    def turn(self) -> None:
        """Let it work until it waits again or ends."""
        os.write(self._give, b".")
        self.alive = self.until_it_waits()

    def result(self) -> dict[str, Any]:
        """What the clock wrote."""
        if self.process.wait() or not self.out.is_file():
            said = (self.folder / "stderr").read_text(errors="replace")[-2000:]
            raise Failed(f"{self.contender.name}: {' '.join(self.contender.command(self.out))}\n{said}")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def close(self) -> None:
        """End it, if it is still there."""
        self.process.kill()
        self.process.wait()
        os.close(self._give)
        os.close(self._hear)


def race(
    contenders: Sequence[Contender], *, every: int = 10, between: Callable[[], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Run all of them in turn, `every` steps each.

    Args:
        contenders: who.
        every: steps.
        between: called once a lap, while all wait.

    Returns:
        name → what timed.py wrote, or ``{"failed": …}``.
    """
    found: dict[str, dict[str, Any]] = {}
    runners: list[_Runner] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, contender in enumerate(contenders):
                runners.append(_Runner(contender, Path(folder) / str(number), every))
            while any(runner.alive for runner in runners):
                if between is not None:
                    between()
                for runner in runners:
                    if runner.alive:
                        runner.turn()
            for runner in runners:
                try:
                    found[runner.contender.name] = runner.result()
                except Failed as error:
                    found[runner.contender.name] = {"failed": str(error)}
        finally:
            for runner in runners:
                runner.close()
    return found


def speed(steps: Sequence[Sequence[float]], untimed: int = UNTIMED) -> dict[str, float]:
    """Real tokens per second, tokens per step, the steps that count, and their mean squared length.

    The first steps of the process are left out. Where a contender trains several models one after the other, it is also
    counted with the first steps of each training left out, and the faster of the two counts for it.

    Args:
        steps: [training, tokens, sum of squared lengths, seconds, processor seconds] each.
        untimed: how many are left out.

    Example:
        >>> steps = [[0, 10, 100, 5.0, 5.0], [0, 10, 100, 1.0, 1.0], [1, 10, 100, 3.0, 3.0], [1, 10, 100, 1.0, 1.0]]
        >>> speed(steps, untimed=1)["tokens_per_s"]
        10.0
    """
    whole = steps[untimed:]
    seen: dict[float, int] = {}
    each = []
    for step in steps:
        seen[step[0]] = seen.get(step[0], 0) + 1
        if seen[step[0]] > untimed:
            each.append(step)
    if not whole:
        raise ValueError(f"of {len(steps)} steps the first {untimed} are not timed: none is left")
    return max((_rate(part) for part in (whole, each) if part), key=lambda found: found["tokens_per_s"])


def _rate(steps: Sequence[Sequence[float]]) -> dict[str, float]:
    tokens, squares, seconds, spent = (sum(step[place] for step in steps) for place in (1, 2, 3, 4))
    return {
        "tokens_per_s": tokens / seconds,
        "tokens_per_step": tokens / len(steps),
        "squares_per_token": squares / tokens,
        "steps": len(steps),
        "step_s": seconds / len(steps),
        "processors": spent / seconds,  # less than there are threads: others worked beside
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The median, least and most of ours over theirs, round by round.

    Example:
        >>> ratios([4.0, 6.0, 9.0], [2.0, 2.0, 2.0])
        {'median': 3.0, 'least': 2.0, 'most': 4.5}
    """
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {name: round(of(each), 2) for name, of in (("median", statistics.median), ("least", min), ("most", max))}


def costs(said: str, racing: Mapping[str, Contender], rounds: int, over: str) -> dict[str, Any]:
    """Microseconds per token of each way in every round, their medians, and their ratios to one of the ways.

    Args:
        said: before each line that is printed.
        racing: way → contender.
        rounds: how often all race.
        over: the way that the others are compared with.
    """
    per_token = {way: list[float]() for way in racing}
    for turn in range(rounds):
        timed = race(list(racing.values()), every=5)
        for way, racer in racing.items():
            if "failed" in timed[racer.name]:
                raise SystemExit(timed[racer.name]["failed"])
            per_token[way].append(1e6 / speed(timed[racer.name]["steps"])["tokens_per_s"])
            print(f"{said}, round {turn + 1}: {way}: {per_token[way][-1]:.1f} µs a token", flush=True)
    return {
        "us_per_token": {way: [round(value, 2) for value in values] for way, values in per_token.items()},
        "median": {way: round(statistics.median(values), 2) for way, values in per_token.items()},
        "ratio": {way: ratios(values, per_token[over]) for way, values in per_token.items()},
    }


def versions(python: str = sys.executable, names: Sequence[str] = ()) -> dict[str, str]:
    """Versions of packages in a Python, by name."""
    wanted = names or ("torch", "transformers", "peft", "accelerate", "datasets")
    code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *wanted], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
