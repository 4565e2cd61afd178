"""``nlp-mtl groups``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import print_table

EPILOG = "nlp-mtl groups affinity.json --encoders 2\n\nnlp-mtl groups affinity.json --encoders 3 --parted --alone 0.1"


def groups(
    affinity: Annotated[
        Path, typer.Argument(metavar="AFFINITY.json", help="Tasks × tasks, as written by Affinity.save.")
    ],
    encoders: Annotated[int, typer.Option("--encoders", help="At most so many models, one for each group.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="A run file with these tasks: one is made of each group.")
    ] = None,
    parted: Annotated[bool, typer.Option("--parted", help="No task helps in a group that is not its own.")] = False,
    alone: Annotated[float, typer.Option("--alone", help="What a task is worth alone, in the affinity's unit.")] = 0.0,
    method: Annotated[
        str, typer.Option("--method", help="exhaustive, branch_and_bound, clustering, or auto: by the number of tasks.")
    ] = "auto",
    out: Annotated[Path, typer.Option("--out", help="Folder for groups.json, groups.svg and run files.")] = Path(
        "groups"
    ),
) -> None:
    """Which tasks to train together, of how tasks help one another, under a budget of encoders."""
    from nlp_mtl.affinity import Affinity
    from nlp_mtl.atomic import write_text
    from nlp_mtl.taskgroups.plot import draw
    from nlp_mtl.taskgroups.proposal import propose_groups
    from nlp_mtl.taskgroups.runs import group_runs, write_runs

    known, mistakes = Affinity.load(affinity), []
    try:
        found = propose_groups(known, encoders, helpers=not parted, alone=alone, method=method)  # type: ignore[arg-type]
        runs = None if run is None else group_runs(found, run)
    except ConfigError as error:
        mistakes = error.mistakes
    if out.exists() and not out.is_dir():
        mistakes.append(f"groups: --out is a folder, found {out}, which is a file; name another")
    if mistakes:
        raise ConfigError(mistakes)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "groups.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    draw(found, known, out / "groups.svg")
    rows = found.table()
    print_table(tuple(rows[0]), [tuple(row.values()) for row in rows], right=(0, 3))
    print("\n" + "\n".join(found.sentences()))
    for file in [] if runs is None else write_runs(found, runs, out):
        print(f"  nlp-mtl train {file}")
    print(f"groups.json and groups.svg are in {out}")
