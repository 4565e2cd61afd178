"""``nlp-mtl continual``."""

from __future__ import annotations

from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import command, print_table

EPILOG = (
    "nlp-mtl continual scripts/studies/continual.yaml\n\nnlp-mtl continual scripts/studies/continual.yaml 'seeds=[0]'"
)


def continual(
    words: Annotated[list[str], typer.Argument(metavar="STUDY.yaml [key=value …]", help="Study file and overrides.")],
) -> None:
    """Learn tasks one after the other in several ways: does what is missing, then says what each way forgets."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(
            f"continual: one study file, found {', '.join(files) or 'none'}; e.g. scripts/studies/continual.yaml"
        )
    from nlp_mtl.forgetting.study import continual as run_study

    found = run_study(files[0], [word for word in words if "=" in word])
    rows = found.table()
    head = tuple(rows[0])
    print()
    print_table(head, [tuple(row.values()) for row in rows], right=tuple(range(1, len(head))))
    for what, why in found.failed.items():
        print(f"{what} failed: {why}")
    print(f"continual.json, continual.md and continual.svg are in {found.folder}")
    if found.stopped:
        print(f"stopped; go on with:\n  {command('continual', *words)}")
        raise typer.Exit(130)
