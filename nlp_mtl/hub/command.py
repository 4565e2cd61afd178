"""``nlp-mtl push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import one_process

EPILOG = (
    "nlp-mtl push runs/quickstart me/quickstart --private --dry-run\n\n"
    "nlp-mtl push runs/quickstart me/trec --task quick_trec --as model"
)


def push(
    run: Annotated[Path, typer.Argument(help="A run folder or checkpoint.")],
    repo: Annotated[str, typer.Argument(help="The repository, name/repo; made if it is not there.")],
    task: Annotated[str | None, typer.Option(help="With --as model, adapter or onnx: the task.")] = None,
    form: Annotated[
        str, typer.Option("--as", help="run: all of it; or one task, as model, adapter or onnx (see export).")
    ] = "run",
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", "--branch", help="A branch, made from main if it is not there.")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every file with its size; ask no network, push nothing.")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(help="The pretrained model's Hub id, if the run was trained from a folder; or none.")
    ] = None,
    base_revision: Annotated[str | None, typer.Option(help="The commit of --base-model; default the newest.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is here, if it is not found by its id.")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Of the model, as the Hub names it.")] = None,
) -> None:
    """Put a run, or one task of it, on the Hub: by one commit, with its card, without data, paths and checkpoints."""
    one_process("push")
    from nlp_mtl.hub.push import push as push_run

    done = push_run(
        run,
        repo,
        task,
        as_=form,  # type: ignore[arg-type]
        private=True if private else None,
        revision=revision,
        create_pr=create_pr,
        commit_message=message,
        dry_run=dry_run,
        base_model=base_model,
        base_revision=base_revision,
        base=base,
        license=license_,
    )
    wide = max(map(len, done.files))
    for name, size in done.files.items():
        print(f"{name.ljust(wide)}  {size:>12,} bytes")
    total = f"{len(done.files)} files, {sum(done.files.values()) / 1e6:.2f} MB"
    for note in done.notes:
        print(note)
    if dry_run:
        print(f"\n{total} would go to {done.repo}; nothing was sent")
    elif not done.changed:
        print(f"\n{done.repo} holds all of it already: {done.url}")
    else:
        print(f"\n{total} in {done.repo}: {done.pull_request or done.url}")
