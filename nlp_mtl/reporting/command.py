"""``nlp-mtl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import print_table

EPILOG = "nlp-mtl report runs/quickstart\n\nnlp-mtl report runs/quickstart --out reports/quickstart --json -"


def report(
    run: Annotated[Path, typer.Argument(help="A run folder; the run may be finished, stopped, or still training.")],
    out: Annotated[Path | None, typer.Option(help="Write report.html and report.json here; default RUN.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write report.json here too; - is the screen, and nothing else on it.")
    ] = None,
    see_saw: Annotated[
        float, typer.Option(help="By how much two tasks' scores must move against each other to count.")
    ] = 0.01,
) -> None:
    """Draw what a run did: losses, weights, conflict between tasks, and scores, into one page."""
    if json_file is not None and str(json_file) != "-" and not json_file.absolute().parent.is_dir():
        raise ConfigError(
            f"report: --json is a file to write, found {json_file}: there is no folder {json_file.parent}; "
            "make it first"
        )
    from nlp_mtl.atomic import write_text
    from nlp_mtl.reporting.report import as_json
    from nlp_mtl.reporting.report import report as draw

    found = draw(run, out=out, see_saw=see_saw)
    text = as_json(found.summary)
    if str(json_file) == "-":
        print(text, end="")
        return
    if json_file is not None:
        write_text(json_file, text)
    rows = found.table()
    if rows:
        head = tuple(rows[0])
        print_table(head, [tuple(row[key] for key in head) for row in rows], right=tuple(range(2, len(head))))
    print()
    for sentence in found.sentences():
        print(sentence)
    print(f"\nThe report: {', '.join(map(str, [*found.files, *([json_file] if json_file else [])]))}")
