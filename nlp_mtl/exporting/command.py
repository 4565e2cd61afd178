"""``nlp-mtl export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import one_process

EPILOG = (
    "nlp-mtl export runs/quickstart exports/trec --task quick_trec\n\n"
    "nlp-mtl export runs/quickstart exports/all --as onnx"
)


def export(
    run: Annotated[Path, typer.Argument(help="A run folder or checkpoint; or me/repo on the Hub.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    task: Annotated[
        list[str] | None, typer.Option(help="The task; with --as onnx several, or none for all in one graph.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--as", help="model: a transformers folder; adapter: a PEFT adapter with its head; onnx: a graph."
        ),
    ] = "model",
    custom_code: Annotated[
        bool, typer.Option("--custom-code", help="With --as model: code in the folder, for heads no class computes.")
    ] = False,
    precision: Annotated[str, typer.Option(help="With --as onnx: fp32, int8 or both.")] = "both",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")
    ] = None,
) -> None:
    """Write a task so that it is used without nlp_mtl, after comparing its logits with the run's."""
    one_process("export")
    from nlp_mtl.exporting.export import export_task

    names = list(task or [])
    if len(names) > 1 and form != "onnx":
        raise ConfigError(
            f"export: --as {form} writes one task, found --task {' --task '.join(names)}; export each into a folder of "
            "its own"
        )
    wanted = None if not names else names[0] if len(names) == 1 else names
    done = export_task(
        run,
        wanted,
        out,
        form,  # type: ignore[arg-type]
        custom_code=custom_code,
        precision=precision,  # type: ignore[arg-type]
        overwrite=overwrite,
        base=base,
    )
    for name, size in done.files.items():
        print(f"{name}  {size / 1e6:.2f} MB" if size >= 5e3 else name)
    rows = f"{done.rows} rows" + (f", {done.examples} of them the tasks' examples" if done.examples else "")
    print(f"\nlogits equal the run's on {rows}: largest difference {done.difference:.1e}")
    for name, small in done.int8.items():
        print(f"int8, {name}: largest difference {small['difference']:.2g}, {small['same']:.0%} equal decisions")
    for note in done.notes:
        print(note)
    print(f"{', '.join(done.tasks)} in {done.folder}; its README.md says how to load it")
