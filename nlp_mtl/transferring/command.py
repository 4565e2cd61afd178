"""``nlp-mtl transferability``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import command, one_process, print_table

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
EPILOG = f"nlp-mtl transferability {MODEL} --tasks rte,cb\n\nnlp-mtl transferability {MODEL} --tasks glue"


def transferability(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL …", help="Pretrained folders, packaged models, or Hub ids.")
    ],
    tasks: Annotated[str, typer.Option("--tasks", help="Names, tags or files of tasks, with commas.")],
    evidence: Annotated[
        str | None, typer.Option("--evidence", help="Kinds, with commas, or none; see: nlp-mtl methods evidence.")
    ] = None,
    estimators: Annotated[
        str | None, typer.Option("--estimators", help="With commas; default all; see: nlp-mtl methods estimator.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", help="At most so many training rows of a task.")] = 2000,
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens of a text.")] = 128,
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, matrices and pictures.")] = Path(
        "transferability"
    ),
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the rows that are drawn.")] = 0,
) -> None:
    """Before training: how well encoders fit tasks, and which tasks may gain from one another."""
    one_process("transferability")
    from nlp_mtl.registry import evidences
    from nlp_mtl.transferring.study import ESTIMATORS
    from nlp_mtl.transferring.study import transferability as look

    wanted = None if evidence is None else [] if evidence == "none" else _parts(evidence)
    found = look(
        models,
        _parts(tasks),
        evidence=wanted,
        estimators=ESTIMATORS if estimators is None else _parts(estimators),
        rows=rows,
        max_length=max_length,
        data_root=data_root,
        seed=seed,
        out=out,
        progress=sys.stderr.isatty(),
    )
    table = found.table()
    first = 2 if len(found.models) > 1 else 1
    print()
    print_table(tuple(table[0]), [tuple(row.values()) for row in table], right=tuple(range(first, len(table[0]))))
    for one in found.affinities.values():
        print(f"\n{one.measure} (helper × helped)\n")
        cells = [tuple("—" if x != x else f"{x:.2f}" for x in line) for line in one.values]
        lines = [(task, *line) for task, line in zip(one.tasks, cells, strict=True)]
        print_table(("", *one.tasks), lines, right=tuple(range(1, len(one.tasks) + 1)))
    for note in found.notes:
        print(f"\n{note}")
    print(f"\ntransferability.md and pictures are in {found.folder}")
    fit = [name for name in found.affinities if name in evidences and evidences[name].of_labels]
    if fit:
        print(f"  {command('groups', str(out / f'affinity_{fit[0]}.json'), '--encoders', '2')}")


def _parts(words: str) -> list[str]:
    return [part.strip() for part in words.split(",") if part.strip()]
