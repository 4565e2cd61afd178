"""``nlp-mtl adapters list|add|remove|merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_mtl.errors import ConfigError, NlpMtlError
from nlp_mtl.screen import command, one_process, print_scores, print_table, print_thresholds

adapters_app = typer.Typer(
    help="Adapters after training: list, add a task, remove one, merge several into one.",
    epilog="nlp-mtl adapters list runs/glue\n\nnlp-mtl adapters add runs/glue --task rte",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunFolder = Annotated[Path, typer.Argument(help="A run folder or checkpoint; or me/repo[@revision] on the Hub.")]
Base = Annotated[str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
]


@adapters_app.command("list", epilog="nlp-mtl adapters list runs/glue\n\nnlp-mtl adapters list me/glue")
def list_(run: RunFolder, base: Base = None) -> None:
    """A run's adapters: their tasks, rank, scale, layers, parameters, and the norm of what they add to the weights."""
    from nlp_mtl.adapting.listing import list_adapters

    rows = [
        (
            one.name,
            ", ".join(one.tasks),
            _range(one.ranks),
            _range(one.scales),
            str(one.layers),
            f"{one.parameters:,}",
            f"{one.norm:.3f}",
        )
        for one in list_adapters(run, base=base)
    ]
    if not rows:
        print(f"{run}: full fine-tuning, no adapters")
        return
    head = ("adapter", "tasks", "rank", "scale", "layers", "parameters", "norm of the update")
    print_table(head, rows, right=(2, 3, 4, 5, 6))


@adapters_app.command(
    "add",
    epilog="nlp-mtl adapters add runs/glue --task rte\n\n"
    "nlp-mtl adapters add runs/glue --task cola --out runs/four --keep replay",
)
def add(
    run: RunFolder,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Of a run file: training, task_lora, ….")
    ] = None,
    task: Annotated[str, typer.Option(help="The new task: its name, or a task file.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path | None, typer.Option(help="The new run; default RUN_with_TASK.")] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="How the others are kept: frozen; or the shared weights are trained too: naive, replay, a_gem, lwf, "
            "joint, or a regularizer (ewc, o_lora, …); or '{name: replay, rows: 100}'."
        ),
    ] = "frozen",
    data_root: DataRoot = None,
    base: Base = None,
) -> None:
    """Train one more task, with an adapter and head of its own; the others' logits stay what they were.

    With --keep the shared weights are trained too, and scores before and after are shown.
    """
    import json

    from nlp_mtl import yamlfile
    from nlp_mtl.adapting.adding import add_task
    from nlp_mtl.adapting.keeping import before_and_after

    changes = list(words or [])
    if data_root is not None:
        changes.append(f"data_root={json.dumps(str(data_root))}")
    how = yamlfile.loads(keep, "--keep")[0] if keep.lstrip().startswith("{") else keep
    done = add_task(run, task, out, changes, keep=how, base=base)
    if done.stopped:
        raise typer.Exit(130)
    if done.trainer is not None and done.trainer.args.process_index:
        return
    if how == "frozen":
        print_scores(done.table(), "validation")
    else:
        rows = before_and_after(run, done, base=base)
        print()
        print_table(("task", "metric", "before", "after", "change"), [_compared(row) for row in rows], right=(2, 3, 4))
    print_thresholds(done.scores)
    print(f"\nThe run with it is in {done.folder}; {run} is as it was. Next:")
    print(f"  {command('predict', str(done.folder), 'a film with a big heart and no brain')}")


def _compared(row: dict[str, Any]) -> tuple[str, ...]:
    """A task's scores before and after; of the new task none before."""
    before, after = row["before"], row["after"]
    shown = (
        ("—", f"{after:.3f}", "new") if before is None else (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    )
    return (row["task"], row["metric"], *shown)


@adapters_app.command(
    "remove",
    epilog="nlp-mtl adapters remove runs/glue --task rte\n\n"
    "nlp-mtl adapters remove runs/glue --task rte --out runs/without_rte",
)
def remove(
    run: RunFolder,
    task: Annotated[str, typer.Option(help="The task that goes.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path | None, typer.Option(help="The new run; default RUN_without_TASK.")] = None,
    base: Base = None,
) -> None:
    """Write the run without a task's head and adapter; the others' logits stay what they were."""
    one_process("adapters remove")
    from nlp_mtl.adapting.places import beside
    from nlp_mtl.adapting.removing import remove_adapter

    model = remove_adapter(run, task, out, base=base)
    place = out if out is not None else beside(run, "without", task)
    print(f"{', '.join(model.tasks)} in {place}; {run} is as it was")


@adapters_app.command(
    "merge",
    epilog="nlp-mtl adapters merge runs/glue runs/merged --how ties --density 0.5\n\n"
    "nlp-mtl adapters merge runs/glue runs/merged --tasks rte,mrpc --how svd",
)
def merge(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="The new run, with one LoRA for all its tasks.")],
    tasks: Annotated[str | None, typer.Option(help="Names, with commas between them; default all.")] = None,
    how: Annotated[
        str, typer.Option(help="linear, ties, dare_linear, dare_ties, magnitude_prune, cat, svd, or one with _svd.")
    ] = "linear",
    weights: Annotated[str | None, typer.Option(help="One number for each task, with commas; default equal.")] = None,
    density: Annotated[
        float | None, typer.Option(help="With ties, dare, magnitude_prune: the share that stays.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="With svd: the rank of the result; default the largest.")] = None,
    seed: Annotated[int, typer.Option(help="With dare: of what is left out.")] = 0,
    joint: Annotated[
        str | None, typer.Option(help="A run that trained these tasks on one adapter, to compare.")
    ] = None,
    data_root: DataRoot = None,
    base: Base = None,
) -> None:
    """Merge task adapters into one that the tasks share, their heads kept; scores beside the adapters apart."""
    one_process("adapters merge")
    from nlp_mtl.adapting.merging import merge_adapters
    from nlp_mtl.adapting.scoring import merged_and_others
    from nlp_mtl.pulling import local_folder
    from nlp_mtl.runspec import read_spec

    if joint is not None:
        read_spec(local_folder(joint))  # before anything is written
    names = None if tasks is None else [name.strip() for name in tasks.split(",")]
    given = None if weights is None else _numbers(weights)
    done = merge_adapters(run, out, names, how, weights=given, density=density, rank=rank, seed=seed, base=base)
    print(f"{', '.join(done.tasks)}: merged by {done.how}, rank {done.rank}, in {done.folder}")
    if done.left_out:
        print(f"without {', '.join(done.left_out)}, whose adapters were not merged")
    try:
        rows, notes = merged_and_others(out, run, joint, data_root=data_root, base=base)
    except NlpMtlError as error:
        raise ConfigError(f"{out} is written, but could not be scored: {error}") from error
    for note in notes:
        print(note)
    if rows:
        print()
        kinds = ("merged", "separate", *(("joint",) if joint else ()))
        cells = [(r["task"], r["metric"], *(_score(r[kind]) for kind in kinds), str(r["rows"])) for r in rows]
        print_table(("task", "metric", *kinds, "rows (validation)"), cells, right=tuple(range(2, len(kinds) + 3)))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"adapters merge: --weights are numbers with commas between them, found {text!r}; e.g. 0.5,0.5"
        ) from None


def _score(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _range(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g}–{values[-1]:g}"
