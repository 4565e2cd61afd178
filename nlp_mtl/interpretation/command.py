"""``nlp-mtl interpret``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_mtl.screen import one_process, print_table

EPILOG = (
    'nlp-mtl interpret runs/quickstart --text "no heart, no brain"\n\n'
    "nlp-mtl interpret runs/quickstart --cka --probes --rows 200"
)


def interpret(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; given twice, a pair.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; several times.")] = None,
    steps: Annotated[int, typer.Option(help="Of integrated gradients.")] = 64,
    cka: Annotated[bool, typer.Option("--cka", help="Compare hidden states with the pretrained encoder's.")] = False,
    other: Annotated[
        list[str] | None, typer.Option("--other", help="With --cka: another run folder; several times.")
    ] = None,
    probes: Annotated[bool, typer.Option("--probes", help="A linear probe for each task and layer.")] = False,
    rows: Annotated[int, typer.Option(help="Of --cka and --probes: at most so many rows.")] = 300,
    seed: Annotated[int, typer.Option(help="Of which rows.")] = 0,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")
    ] = None,
) -> None:
    """What each word adds to each task's answer; where tasks live in the encoder; how alike their hidden states are."""
    one_process("interpret")
    from nlp_mtl.errors import ConfigError
    from nlp_mtl.interpretation import comparing, study

    mistakes = []
    if not (text or cka or probes):
        mistakes.append('interpret: nothing is asked; give --text "…", --cka or --probes')
    if text and len(text) > 2:
        mistakes.append(f"interpret: --text is one text, or two for a pair, found {len(text)}")
    if other and not cka:
        mistakes.append("interpret: --other goes with --cka; add it, or leave --other out")
    if mistakes:
        raise ConfigError(mistakes)
    shows = sys.stderr.isatty()
    made: list[Any] = []
    if text:
        value = text[0] if len(text) == 1 else (text[0], text[1])
        made.append(study.interpret(run, value, task, steps=steps, base=base)[1])
    more: Any = {"rows": rows, "seed": seed, "data_root": data_root, "base": base, "progress": shows}
    if probes:
        made.append(study.probe_run(run, task, **more))
    if cka:
        made.append(comparing.compare_states(run, other or (), tasks=task, **more))
    for found in made:
        print("\n" + "\n".join(found.said))
        for table in found.tables:
            print(f"\n{table.title}" if table.title else "")
            print_table(tuple(table.head), [tuple(row) for row in table.rows])
        print(f"\nThe finding is in {Path(run) / 'findings' / f'{found.name}.json'}")
