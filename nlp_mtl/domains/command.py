"""``nlp-mtl domains``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import one_process, print_table

EPILOG = (
    "nlp-mtl domains runs/quickstart --source quick_movies --target quick_tweets\n\n"
    "nlp-mtl domains runs/quickstart --source quick_sms --target quick_trec"
)


def domains(
    start: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a pretrained model.")],
    source: Annotated[str, typer.Option(help="The task that the others are compared with.")],
    target: Annotated[list[str], typer.Option(help="A task to compare; may be given several times.")],
    tasks: Annotated[str, typer.Option(help="More of them, with commas between.")] = "",
    split: Annotated[str, typer.Option(help="Whose rows are looked at and scored.")] = "validation",
    rows: Annotated[int, typer.Option(help="Look at so many rows of each task.")] = 1000,
    points: Annotated[int, typer.Option(help="Draw so many rows of each task.")] = 300,
    seed: Annotated[int, typer.Option(help="Of which rows, of folds, of t-SNE.")] = 0,
    out: Annotated[Path, typer.Option(help="Write domains.json, domains.md and domains.svg here.")] = Path(
        "runs/domains"
    ),
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Where a run's pretrained model is, if it is not found by its id.")
    ] = None,
) -> None:
    """Compare domains or languages: distances, what a run's head scores in each, how well the tokenizer covers them."""
    one_process("domains")
    from nlp_mtl.domains.look import compare_domains

    found = compare_domains(
        start,
        source,
        target,
        tasks=[name for name in tasks.split(",") if name],
        data_root=data_root,
        split=split,
        rows=rows,
        points=points,
        seed=seed,
        base=base,
        out=out,
    )
    table = found.table()
    names = list(table[0])
    print()
    print_table(
        ("", *(row["task"] for row in table)),
        [(name, *(row[name] for row in table)) for name in names[1:]],
        right=tuple(range(1, len(table) + 1)),
    )
    for note in found.notes:
        print(note)
    print(f"domains.json, domains.md and domains.svg are in {found.folder}")
