"""The command line: ``nlp-mtl VERB``. Everything it does is one Python call; heavy modules are imported where used."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_mtl.adapting.command import adapters_app
from nlp_mtl.atomic import write_text
from nlp_mtl.calibration import command as calibration
from nlp_mtl.curves import command as curves
from nlp_mtl.domains import command as domains
from nlp_mtl.errors import ConfigError, NlpMtlError, shown
from nlp_mtl.exporting import command as exporting
from nlp_mtl.forgetting import command as forgetting
from nlp_mtl.hub import command as hub
from nlp_mtl.interpretation import command as interpretation
from nlp_mtl.methods import EPILOG as METHODS_EPILOG
from nlp_mtl.methods import methods
from nlp_mtl.probing import command as probing
from nlp_mtl.robustness import command as robust
from nlp_mtl.screen import command, one_process, print_scores, print_thresholds
from nlp_mtl.searching import command as searching
from nlp_mtl.serving import command as serving
from nlp_mtl.suites import command as suites
from nlp_mtl.taskgroups import command as taskgroups
from nlp_mtl.tasksverbs import DataRoot, tasks_app
from nlp_mtl.transferring import command as before_training
from nlp_mtl.verdicts import command as judging

app = typer.Typer(
    name="nlp-mtl",
    help="Fine-tune one pretrained encoder on several NLP tasks at once.",
    epilog="Try:\n\nnlp-mtl train\n\nnlp-mtl tasks list",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")
app.add_typer(adapters_app, name="adapters")
app.command("export", epilog=exporting.EPILOG)(exporting.export)
app.command("serve", epilog=serving.SERVE_EPILOG)(serving.serve)
app.command("demo", epilog=serving.DEMO_EPILOG)(serving.demo)
app.command("push", epilog=hub.EPILOG)(hub.push)
app.command("methods", epilog=METHODS_EPILOG)(methods)
app.command("report", epilog=judging.EPILOG)(judging.report)
app.command("compare", epilog=judging.COMPARE_EPILOG)(judging.compare)
app.command("calibrate", epilog=calibration.EPILOG)(calibration.calibrate)
app.command("domains", epilog=domains.EPILOG)(domains.domains)
app.command("curve", epilog=curves.EPILOG)(curves.curve)
app.command("probe", epilog=probing.EPILOG)(probing.probe)
app.command("robustness", epilog=robust.EPILOG)(robust.robustness)
app.command("attack", epilog=robust.ATTACK_EPILOG)(robust.attack)
app.command("interpret", epilog=interpretation.EPILOG)(interpretation.interpret)
app.command("transferability", epilog=before_training.EPILOG)(before_training.transferability)
app.command("continual", epilog=forgetting.EPILOG)(forgetting.continual)
app.command("groups", epilog=taskgroups.EPILOG)(taskgroups.groups)
app.command("search", epilog=searching.EPILOG)(searching.search)

RunFolder = Annotated[Path, typer.Argument(help="A run folder or checkpoint; or me/repo[@revision] on the Hub.")]


@app.command(epilog="nlp-mtl train\n\nnlp-mtl train training.seed=1 --dry-run")
def train(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN.yaml] [key=value …]", help="Run file and overrides.")
    ] = None,
    data_root: DataRoot = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest whole checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is already there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and write nothing.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="With --dry-run: write all of it here as JSON; - is the screen.")
    ] = None,
) -> None:
    """Train as a run file says; without one, the quickstart run, or with tasks=… those on the quickstart's model."""
    if json_file is not None and not dry_run:
        raise ConfigError(
            f"train: --json goes with --dry-run, found --json {json_file} alone; add --dry-run, or leave it out: a run "
            "itself writes metrics.json into its folder"
        )
    given = list(words or [])
    files = [word for word in given if "=" not in word]
    overrides = [word for word in given if "=" in word]
    if len(files) > 1:
        raise ConfigError(f"train: one run file at a time, found {', '.join(files)}; overrides are key=value")
    own = any(word.startswith("tasks=") for word in overrides)
    file = Path(files[0]) if files else builtin_run("own" if own else "quickstart")
    if data_root is not None:
        overrides.append(f"data_root={json.dumps(str(data_root))}")
    if json_file is not None and str(json_file) != "-" and not json_file.absolute().parent.is_dir():
        raise ConfigError(
            f"train: --json is a file to write, found {json_file}: there is no folder {json_file.parent}; make it first"
        )
    if dry_run:
        from nlp_mtl.dryrun.show import run_and_show

        typed = [*given, *(["--data-root", str(data_root)] if data_root is not None else [])]
        run_and_show(file, overrides, words=typed, resume=resume, overwrite=overwrite, json_file=json_file)
        return
    from nlp_mtl.run import train as run_training

    run = run_training(file, overrides, resume=resume, overwrite=overwrite)
    if run.stopped:
        if run.trainer is None or not run.trainer.args.process_index:
            print_resume(run.folder, given, data_root)
        raise typer.Exit(130)
    if run.trainer is not None and run.trainer.args.process_index:
        return
    print_scores(run.table(), "validation")
    print_thresholds(run.scores)
    for task, best in run.best_steps.items() if run.trainer is not None else ():
        if best["step"] != (run.trainer.state.best_global_step or run.trainer.state.global_step):  # type: ignore[union-attr]
            print(f"{task}: its own best was {best['score']:.3f} at step {int(best['step'])}")
    text = "a film with a big heart and no brain"
    print(f"\nThe run is in {run.folder}. Next:")
    model = str(run.models[0] if len(run.models) > 1 else run.folder)
    for following in (["predict", model, text], ["evaluate", model, "--split", "test"]):
        print(f"  {command(*following)}")
    print(f"  {command('tasks', 'list')}")


@app.command(
    epilog="nlp-mtl evaluate runs/quickstart --split test\n\nnlp-mtl evaluate runs/quickstart --task quick_ner"
)
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="A run folder or me/repo[@revision]; with --suite, several.")
    ],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; default validation, of --suite mmlu test.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    data_root: DataRoot = None,
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Score as the owners of glue, superglue, advglue or mmlu do.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="With --suite: write it here too; - is the screen.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="With --suite: write the zip file that its server takes.")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill-missing", help="With --submission: the trivial answer for tasks that no run has.")
    ] = False,
    shots: Annotated[
        int | None, typer.Option("--shots", help="With --suite mmlu: solved questions before each, 0 to 5.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", help="With --suite mmlu: at most so many questions of a subject.")
    ] = None,
) -> None:
    """Score a run on a split; an unlabelled split is predicted, into RUN/predictions."""
    one_process("evaluate")
    if suite is not None:
        suites.evaluate_suite(
            runs,
            suite,
            split=split,
            task=task,
            data_root=data_root,
            base=base,
            json_file=json_file,
            submission=submission,
            fill=fill,
            shots=shots,
            rows=rows,
            progress=sys.stderr.isatty(),
        )
        return
    only = {"--json": json_file, "--submission": submission, "--shots": shots, "--rows": rows}
    lonely = [name for name, value in {**only, "--fill-missing": fill or None}.items() if value is not None]
    if len(runs) > 1 or lonely:
        given = f"{len(runs)} runs" if len(runs) > 1 else ", ".join(lonely)
        raise ConfigError(f"evaluate: one run, found {given}; add --suite, or leave that out")
    run, split = runs[0], split or "validation"
    from nlp_mtl.run import evaluate as score

    scores = score(run, split, tasks=task, data_root=data_root, base=base, progress=sys.stderr.isatty())  # type: ignore[arg-type]
    if not scores:
        raise ConfigError(f"{run}: --split is one that a task has, found {split!r}, which none has; name another")
    from nlp_mtl.evaluation import score_table

    print_scores([row for row in score_table(scores, every=True) if row["metric"]], split)
    for name, one in scores.items():
        if not one.metrics:
            file = (run if run.is_dir() else Path()) / "predictions" / f"{name}.{split}.jsonl"  # or of the Hub
            file.parent.mkdir(exist_ok=True)
            write_text(file, "".join(json.dumps(_plain(one.in_words(p))) + "\n" for p in one.decoded))
            print(f"{name}: {one.rows} rows without labels; predictions in {file}")


@app.command(
    epilog="nlp-mtl predict runs/quickstart 'It rained in Paris.'\n\n"
    "nlp-mtl predict runs/quickstart --pair 'It rained.' 'The ground is wet.'"
)
def predict(
    run: RunFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT …]", help="Texts; or objects of columns as JSON.")
    ] = None,
    pair: Annotated[bool, typer.Option("--pair", help="The two TEXTs are one pair.")] = False,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSONL: a string, a pair or an object of columns a line.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write JSONL here instead of to the screen.")] = None,
    dtype: Annotated[
        str, typer.Option(help="Compute in auto, float32, bfloat16 or float16; auto: as it was trained.")
    ] = "auto",
    base: Annotated[
        str | None, typer.Option(help="Where the pretrained model is, if it is not found by its id.")
    ] = None,
) -> None:
    """Answer every task that can read the input, from one encoder pass; one JSON object per input, in their order."""
    from nlp_mtl.predictfile import predict_file

    one_process("predict")
    if file is not None:
        if texts:
            raise ConfigError(f"predict: reads TEXTs or --file, found both ({shown(texts)} and {file}); leave one out")
        beside = sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())  # not among the answers
        count = predict_file(run, file, out, tasks=task, dtype=dtype, base=base, progress=beside)
        if out is not None:
            print(f"{count} inputs answered in {out}")
        return
    if not texts:
        raise ConfigError("predict: reads a TEXT or --file, found neither; give a TEXT, or --file IN.jsonl")
    if pair and len(texts) != 2:
        raise ConfigError(f"predict: --pair takes two TEXTs, found {len(texts)}; put each into quotes")
    from nlp_mtl.prediction import open_model
    from nlp_mtl.prediction import predict as answer

    inputs: list[Any] = [tuple(texts)] if pair else [_row_or_text(text) for text in texts]
    answers = answer(open_model(run, base=base, tasks=task, dtype=dtype), inputs, tasks=task, dtype=dtype)
    lines = [json.dumps(found, ensure_ascii=False, indent=None if out else 1) for found in answers]
    if out is None:
        print("\n".join(lines))
    else:
        write_text(out, "".join(line + "\n" for line in lines))


def print_resume(folder: Path, words: Sequence[str], data_root: Path | None) -> None:
    """How to go on with a run that was stopped, if it can."""
    from nlp_mtl.checkpoint import checkpoints

    if not checkpoints(folder):
        print("stopped; nothing was saved, so it starts anew (training.save_strategy=epoch saves)", file=sys.stderr)
        return
    root = ["--data-root", str(data_root)] if data_root is not None else []
    again = [word for word in words if word != "--overwrite"]
    print(f"stopped; continue with:\n  {command('train', *again, *root, '--resume')}", file=sys.stderr)


def builtin_run(name: str) -> Path:
    """A run file that comes with the package: inside the wheel, or under scripts/runs of a checkout."""
    inside = Path(__file__).parent / "runs" / f"{name}.yaml"
    return inside if inside.is_file() else Path(__file__).parent.parent / "scripts" / "runs" / f"{name}.yaml"


def _row_or_text(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("{") else text
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"predict: {text[:60]!r} begins as an object of columns, but is not JSON ({error.msg}); write "
            '\'{"column": "text"}\''
        ) from None


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


# Libraries that log what a user can do nothing about.
NOISY = ("httpx", "httpx2", "huggingface_hub", "transformers", "datasets", "accelerate", "urllib3", "filelock")


def main() -> None:
    """Entry point: errors of ours are printed without a traceback, one line or one list."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # PEFT reads a name that transformers is about to drop; nobody who trains can do anything about it
    warnings.filterwarnings("ignore", message=r"`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        app()
    except NlpMtlError as error:
        print(f"nlp-mtl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"nlp-mtl: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
