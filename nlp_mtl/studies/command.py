"""``nlp-mtl compare``."""

from __future__ import annotations

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import command, print_table


def compare(words: list[str]) -> None:
    """Compare ways of training over seeds: does what is missing of a study's runs, then says what the scores show."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(
            f"compare: one study file, found {', '.join(files) or 'none'}; e.g. scripts/studies/balancing.yaml"
        )
    from nlp_mtl.studies.compare import compare as run_study

    found = run_study(files[0], [word for word in words if "=" in word])
    rows = found.table()
    head = tuple(rows[0])
    print()
    print_table(head, [tuple(row.get(key, "—") for key in head) for row in rows], right=tuple(range(1, len(head) - 2)))
    print(f"\n{found.sentence()}")
    for what, why in found.failed.items():
        print(f"{what} failed: {why}")
    print(f"compare.json, compare.md and compare.svg are in {found.folder}")
    if found.stopped:
        print(f"stopped; go on with:\n  {command('compare', *words)}")
        raise typer.Exit(130)
