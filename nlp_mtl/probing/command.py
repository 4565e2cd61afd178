"""``nlp-mtl probe``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import one_process, print_table

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
EPILOG = f"nlp-mtl probe {MODEL} --task rte\n\nnlp-mtl probe {MODEL} --task stsb --rows 500"


def probe(
    model: Annotated[str, typer.Argument(help="A pretrained folder, a packaged model, or a Hub id.")],
    task: Annotated[list[str], typer.Option("--task", help="A task's name, tag or file; several times.")],
    dimensions: Annotated[
        list[int] | None, typer.Option("--dimensions", help="How many dimensions to keep; 0 for all; several times.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", help="At most so many rows of a split.")] = 2000,
    within: Annotated[float, typer.Option("--within", help="A smaller probe may be so much worse.")] = 0.01,
    pooling: Annotated[str, typer.Option("--pooling", help="What is probed of a text: mean, cls or last.")] = "mean",
    out: Annotated[Path, typer.Option("--out", help="Folder for probe.json and probe.svg.")] = Path("probe"),
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the rows that are drawn.")] = 0,
) -> None:
    """Which layer of an encoder, and which of its dimensions, hold what tasks ask for: linear probes, no training."""
    one_process("probe")
    from nlp_mtl.probing.study import probe as run_probe
    from nlp_mtl.probing.study import write

    found = run_probe(
        model,
        task,
        dimensions=tuple(dimensions or (0, 64, 16)),
        rows=rows,
        within=within,
        pooling=pooling,
        data_root=data_root,
        seed=seed,
        progress=True,
    )
    table = found.table()
    print()
    print_table(tuple(table[0]), [tuple(row.values()) for row in table], right=(2, 3, 4, 5, 6))
    print("\nfor a run file:\n")
    print('freeze: "*"\nheads:')
    for name, said in found.heads().items():
        print(f"  {name}: {json.dumps(said)}")
    print(f"\nprobe.json and probe.svg are in {write(found, out)}")
