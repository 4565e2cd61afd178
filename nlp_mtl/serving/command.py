"""``nlp-mtl serve`` and ``nlp-mtl demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.screen import one_process

SERVE_EPILOG = (
    "nlp-mtl serve runs/quickstart --port 8000\n\nnlp-mtl serve runs/quickstart --task quick_ner --task quick_trec"
)
DEMO_EPILOG = "nlp-mtl demo runs/quickstart\n\nnlp-mtl demo runs/quickstart --task quick_ner --port 7861"

RunFolder = Annotated[Path, typer.Argument(help="A run folder or checkpoint.")]
Tasks = Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")]
Host = Annotated[str, typer.Option(help="The address to listen on; the default is reached from this machine only.")]
Dtype = Annotated[str, typer.Option(help="Compute in auto, float32, bfloat16 or float16; auto: as it was trained.")]
Base = Annotated[str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")]


def serve(
    run: RunFolder,
    task: Tasks = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for a free one.")] = 8000,
    max_batch: Annotated[int, typer.Option(help="Inputs of one pass, and of one request, at most.")] = 32,
    max_wait: Annotated[
        float, typer.Option(help="Milliseconds that a pass waits for company, if the last had some.")
    ] = 5,
    queue: Annotated[int, typer.Option(help="Inputs that wait at most; beyond, status 429.")] = 1024,
    max_length_text: Annotated[int, typer.Option(help="Characters of one input at most; beyond, status 413.")] = 20_000,
    max_body: Annotated[int, typer.Option(help="Bytes of one request at most; beyond, status 413.")] = 4_000_000,
    dtype: Dtype = "auto",
    base: Base = None,
) -> None:
    """Answer over HTTP: /predict, /tasks, /health and a page at /docs, until SIGTERM or Ctrl-C."""
    one_process("serve")
    from nlp_mtl.serving.limits import Limits
    from nlp_mtl.serving.server import check_asked, check_port, told_together
    from nlp_mtl.serving.server import serve as run_server

    said = (max_batch, max_wait, queue, max_length_text, max_body)
    told_together(
        lambda: Limits(*said), lambda: check_port(port, "serve"), lambda: check_asked(run, task, dtype, "serve")
    )
    limits = Limits(*said)

    def ready(address: str) -> None:
        print(f"{run} answers at {address} (POST /predict, GET /tasks, /health; page: {address}/docs)", flush=True)

    run_server(run, tasks=task, host=host, port=port, limits=limits, dtype=dtype, base=base, ready=ready)


def demo(
    run: RunFolder,
    task: Tasks = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for a free one.")] = 7860,
    dtype: Dtype = "auto",
    base: Base = None,
) -> None:
    """Show a page with a text box and every task's answer side by side, until Ctrl-C."""
    one_process("demo")
    from nlp_mtl.serving.demo import show_demo
    from nlp_mtl.serving.server import check_asked, check_port, told_together

    told_together(lambda: check_port(port, "demo"), lambda: check_asked(run, task, dtype, "demo"))

    def ready(address: str) -> None:
        print(f"{run} is shown at {address}; Ctrl-C ends it", flush=True)

    show_demo(run, tasks=task, host=host, port=port, dtype=dtype, base=base, ready=ready)
