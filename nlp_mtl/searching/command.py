"""``nlp-mtl search``."""

from __future__ import annotations

from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import command, one_process, print_table

FILE = "scripts/searches/grouping.yaml"
EPILOG = f"nlp-mtl search {FILE}\n\nnlp-mtl search scripts/searches/helpers.yaml 'budget={{trials: 4}}'"


def search(
    words: Annotated[list[str], typer.Argument(metavar="SEARCH.yaml [key=value …]", help="Search file and overrides.")],
) -> None:
    """Search over groups of tasks, helpers, strategies and settings, and compare what is found with honest controls."""
    one_process("search")
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise ConfigError(f"search: one search file, found {', '.join(files) or 'none'}; e.g. {FILE}")
    from nlp_mtl.searching.search import search as run_search

    found = run_search(files[0], [word for word in words if "=" in word])
    if found.finals:
        rows = found.table()
        print()
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows], right=(2, 3, 4, 5, 6))
    if found.stopped:
        print(f"stopped; go on with:\n  {command('search', *words)}")
        raise typer.Exit(130)
    print("\n" + "\n".join(found.sentences()))
    print(f"\nsearch.md, search.json and search.svg are in {found.folder}")
    if found.best is not None:
        name = "best.yaml" if found.simpler is None else "simpler.yaml"
        print(f"  {command('train', str(found.folder / name))}")
