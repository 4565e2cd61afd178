"""What the command line shows: tables, and commands that can be typed as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl.errors import UnsupportedError


def program() -> str:
    """What to type to run this program: its name, or its path where it is not on the PATH (a .venv not activated)."""
    if shutil.which("nlp-mtl"):
        return "nlp-mtl"
    called = Path(sys.argv[0])
    if called.name != "nlp-mtl":
        return f"{sys.executable} -m nlp_mtl.cli"
    inside = called.is_absolute() and called.is_relative_to(Path.cwd())
    return str(called.relative_to(Path.cwd()) if inside else called)


def command(*words: str) -> str:
    """A command line of this program that can be typed, where it trains on as many processes as this one."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trains = words[:1] in (("train",), ("compare",)) or words[:2] == ("adapters", "add")
    name = f"torchrun --nproc_per_node {processes} -m nlp_mtl.cli" if processes > 1 and trains else program()
    return f"{name} {shlex.join(words)}"


def one_process(verb: str) -> None:
    """Refuse a verb that writes or listens, where torchrun started it several times: each would do it over the other.

    Raises:
        UnsupportedError: with the way out.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise UnsupportedError(
            f"{verb}: is the work of one process, found WORLD_SIZE={processes}; call it without torchrun (train and "
            "adapters add take several)"
        )


def print_scores(rows: list[dict[str, Any]], split: str) -> None:
    """The table of scores beside trivial baselines."""
    if not rows:
        return
    shown = [
        (
            row["task"],
            row["metric"],
            f"{row['score']:.3f}",
            f"{row['trivial']:.3f}" if row["trivial"] is not None else "—",
            str(row["rows"]),
        )
        for row in rows
    ]
    print()
    print_table(("task", "metric", "score", "trivial baseline", f"rows ({split})"), shown, right=(2, 3, 4))


def print_thresholds(scores: Mapping[str, Any]) -> None:
    """A line for each task whose thresholds were tuned on the rows that were scored."""
    for task, found in scores.items():
        if found.thresholds:
            shown = [f"{value:.3f} for {label!r}" for label, value in found.thresholds.items()]
            said = ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
            half = found.metrics[f"{found.first}_at_half"]
            print(f"{task}: thresholds tuned on these rows ({said}); {found.first} at 0.5 is {half:.3f}")


def print_table(
    head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...] = (), indent: str = ""
) -> None:
    """Columns as wide as their content; the last one is left as it is."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, tuple("-" * width for width in widths), *rows]:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print((indent + "  ".join(cells)).rstrip())
