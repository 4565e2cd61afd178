"""``nlp-mtl curve``."""

from __future__ import annotations

from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import command, print_table

FILE = "scripts/studies/curve.yaml"
EPILOG = f"nlp-mtl curve {FILE}\n\nnlp-mtl curve {FILE} 'seeds=[0]' 'rows=[16, 64]'"


def curve(
    words: Annotated[list[str], typer.Argument(metavar="STUDY.yaml [key=value …]", help="Study file and overrides.")],
) -> None:
    """A task's learning curve, with and without helpers: does what is missing, then says what the rows give."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(f"curve: one study file, found {', '.join(files) or 'none'}; e.g. {FILE}")
    from nlp_mtl.curves.study import curve as run_study

    found = run_study(files[0], [word for word in words if "=" in word])
    rows = found.table()
    head = tuple(rows[0])
    print(f"\n{found.task}, {found.metric}\n")
    print_table(head, [tuple(row.values()) for row in rows], right=tuple(range(1, len(head))))
    for what, why in found.failed.items():
        print(f"{what} failed: {why}")
    print(f"curve.json, curve.md and curve.svg are in {found.folder}")
    if found.stopped:
        print(f"stopped; go on with:\n  {command('curve', *words)}")
        raise typer.Exit(130)
