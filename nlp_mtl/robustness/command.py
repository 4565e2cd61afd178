"""``nlp-mtl robustness`` and ``nlp-mtl attack``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_mtl.screen import one_process, print_table

EPILOG = (
    "nlp-mtl robustness runs/quickstart --rows 200\n\n"
    "nlp-mtl robustness runs/quickstart --task quick_movies --using typos"
)
ATTACK_EPILOG = (
    "nlp-mtl attack runs/quickstart --task quick_movies --rows 50\n\n"
    "nlp-mtl attack runs/quickstart --task quick_sms --rows 50 --share 0.3"
)
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")]
Base = Annotated[str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")]


def robustness(
    run: Run,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; several times.")] = None,
    rows: Annotated[int, typer.Option(help="At most so many rows of each task.")] = 500,
    using: Annotated[
        list[str] | None, typer.Option("--using", help="A perturbation, or {name: …, arguments}; several times.")
    ] = None,
    split: Annotated[str, typer.Option(help="Whose rows: train, validation or test.")] = "validation",
    seed: Annotated[int, typer.Option(help="Of which rows, and of what is changed in them.")] = 0,
    data_root: Root = None,
    base: Base = None,
) -> None:
    """Score a run on changed texts: typos, case, punctuation, word and name swaps, length; and negation by itself."""
    one_process("robustness")
    from nlp_mtl.robustness.study import HEAD, USUAL, check_robustness

    specs: Any = [_spec(said) for said in using] if using else USUAL
    found = check_robustness(
        run,
        task,
        rows=rows,
        split=split,
        using=specs,
        seed=seed,
        data_root=data_root,
        base=base,
        progress=sys.stderr.isatty(),
    )
    print()
    print_table(HEAD, found.table(), right=(2, 3, 4, 5, 6, 7))
    print("\n" + "\n".join(found.said()))
    print(f"\nThe finding is in {Path(run) / 'findings' / 'robustness.json'}")


def attack(
    run: Run,
    task: Annotated[list[str], typer.Option("--task", help="A classification task; several times.")],
    rows: Annotated[int, typer.Option(help="At most so many rows of each task.")] = 100,
    share: Annotated[float, typer.Option(help="At most this share of a text's words is changed.")] = 0.2,
    similarity: Annotated[float, typer.Option(help="The least cosine of a word and its substitute.")] = 0.4,
    split: Annotated[str, typer.Option(help="Whose rows: train, validation or test.")] = "validation",
    seed: Annotated[int, typer.Option(help="Of which rows, and of random substitutes.")] = 0,
    data_root: Root = None,
    base: Base = None,
) -> None:
    """Look for the words whose change misleads a run (HotFlip), and compare with random changes of as many."""
    one_process("attack")
    from nlp_mtl.robustness.attack import HEAD, attack_run

    found = attack_run(
        run,
        task,
        rows=rows,
        share=share,
        similarity=similarity,
        split=split,
        seed=seed,
        data_root=data_root,
        base=base,
        progress=sys.stderr.isatty(),
    )
    print()
    print_table(HEAD, found.table(), right=(1, 2, 3, 4, 5, 6))
    for one in found.examples()[:6]:
        print(f"\n{one.task}: {one.before} → {one.after}\n  {one.text}\n  {one.changed}")
    print(f"\nThe finding is in {Path(run) / 'findings' / 'attack.json'}")


def _spec(said: str) -> Any:
    from nlp_mtl import yamlfile
    from nlp_mtl.errors import ConfigError

    if not said.lstrip().startswith("{"):
        return said
    try:
        return yamlfile.loads(said)[0]
    except ConfigError as error:
        raise ConfigError([f"robustness: --using: {message}" for message in error.mistakes]) from None
