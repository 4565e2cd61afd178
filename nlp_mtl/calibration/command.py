"""``nlp-mtl calibrate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import command, one_process, print_table

EPILOG = "nlp-mtl calibrate runs/quickstart\n\nnlp-mtl calibrate runs/quickstart --task quick_trec --split test"


def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder or checkpoint.")],
    split: Annotated[str, typer.Option(help="Whose labelled rows: validation or test.")] = "validation",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")
    ] = None,
) -> None:
    """Are a run's probabilities as often right as they say? ECE, Brier score, and the temperature that would help."""
    one_process("calibrate")
    from nlp_mtl.calibration.study import calibrate as look

    found = look(
        run,
        split=split,  # type: ignore[arg-type]
        tasks=task,
        data_root=data_root,
        base=base,
        progress=sys.stderr.isatty(),
    )
    rows = found.table()
    head = tuple(rows[0])
    print_table(head, [tuple(row[key] for key in head) for row in rows], right=tuple(range(1, len(head))))
    print()
    for sentence in found.sentences():
        print(sentence)
    print(f"\nThe diagrams stand in the report: {command('report', str(run))}")
