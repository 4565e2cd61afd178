"""``nlp-mtl report``, with what it takes to say whether training together helped; and ``nlp-mtl compare``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError, NlpMtlError
from nlp_mtl.screen import command, one_process, print_table

logger = logging.getLogger("nlp_mtl")
EPILOG = "nlp-mtl report runs/quickstart\n\nnlp-mtl report runs/quickstart --baselines --seeds 3 --dry-run"
COMPARE_EPILOG = (
    "nlp-mtl compare scripts/studies/balancing.yaml\n\nnlp-mtl compare runs/quickstart runs/quickstart --fail-if-worse"
)


def report(
    run: Annotated[Path, typer.Argument(help="A run folder; the run may be finished, stopped, or still training.")],
    out: Annotated[Path | None, typer.Option(help="Write report.html, .md and .json here; default RUN.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write report.json here too; - is the screen, and nothing else on it.")
    ] = None,
    see_saw: Annotated[
        float, typer.Option(help="By how much two tasks' scores must move against each other to count.")
    ] = 0.01,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train each task alone too, and say whether together helped.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="With --baselines: pairs of seeds; 3 or more for a verdict.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "--tasks", help="With --baselines: only these; a,b or several times.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", help="With --baselines: hours of training at most, now.")
    ] = None,
    same: Annotated[
        str, typer.Option("--same", help="With --baselines: what twins have as much of, rows or steps.")
    ] = "rows",
    split: Annotated[
        str | None, typer.Option("--split", help="With --baselines: judge on validation or test rows.")
    ] = None,
    place: Annotated[
        Path | None, typer.Option("--baselines-dir", help="Folder of all twins; default: baselines, beside RUN.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --baselines: show the runs and hours, and train nothing.")
    ] = False,
    rows: Annotated[
        bool, typer.Option("--rows/--no-rows", help="Score the rows again, once, for intervals and what they are like.")
    ] = True,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
    ] = None,
) -> None:
    """Draw what a run did, and with --baselines what training together did to each task, into one page."""
    if json_file is not None and str(json_file) != "-" and not json_file.absolute().parent.is_dir():
        raise ConfigError(
            f"report: --json is a file to write, found {json_file}: there is no folder {json_file.parent}; "
            "make it first"
        )
    given = {
        "--seeds": seeds,
        "--task": task,
        "--budget": budget,
        "--split": split,
        "--baselines-dir": place,
        "--dry-run": dry_run or None,
        "--same": None if same == "rows" else same,
    }
    if not baselines and (lonely := [name for name, value in given.items() if value is not None]):
        raise ConfigError(f"report: {', '.join(lonely)} goes with --baselines; add it, or leave that out")
    from nlp_mtl.atomic import write_text
    from nlp_mtl.reporting.report import as_json, readable
    from nlp_mtl.reporting.report import report as draw

    readable(run, out, see_saw)  # before anything is trained, scored or written
    quiet, missing = str(json_file) == "-", 0
    if baselines:
        one_process("report --baselines")
        names = [name for one in task or () for name in one.split(",") if name] or None
        missing = _judged(run, seeds, names, same, split, budget, place, dry_run, data_root, quiet)
        if dry_run:
            return
    if rows and (run / "metrics.json").is_file() and (run / "nlp_mtl.json").is_file():
        from nlp_mtl.verdicts.judge import summaries

        try:
            summaries(run, data_root=data_root, progress=not quiet)
        except NlpMtlError as error:  # its rows are not here: the folder still says much
            logger.warning("the report has no intervals, confusion matrices and summary of rows: %s", error)
    found = draw(run, out=out, see_saw=see_saw)
    text = as_json(found.summary)
    if quiet:
        print(text, end="")
        return
    if json_file is not None:
        write_text(json_file, text)
    told = found.table()
    if told:
        head = tuple(told[0])
        print_table(head, [tuple(row[key] for key in head) for row in told], right=tuple(range(2, len(head))))
    print()
    for sentence in found.sentences():
        print(sentence)
    print(f"\nThe report: {', '.join(map(str, [*found.files, *([json_file] if json_file else [])]))}")
    if missing:
        raise typer.Exit(130)


def _judged(
    run: Path,
    seeds: int | None,
    tasks: list[str] | None,
    same: str,
    split: str | None,
    budget: float | None,
    place: Path | None,
    dry_run: bool,
    data_root: Path | None,
    quiet: bool,
) -> int:
    """Show what is to be trained, train it, show the verdict; how many runs are missing then."""
    from nlp_mtl.verdicts.baselines import plan_of
    from nlp_mtl.verdicts.judge import judge

    plan = plan_of(run, seeds=seeds, tasks=tasks, same=same, place=place)  # type: ignore[arg-type]
    if not quiet:
        print(plan.sentence())
        for one in plan.missing:
            print(f"  {one.task or 'all together'}, seed {one.seed}: {one.folder}")
        for name, why in plan.left_out.items():
            print(f"  no twin of {name}: {why}")
        print()
    if dry_run:
        return 0
    found = judge(plan, split=split, budget=budget, data_root=data_root)
    if not quiet:
        rows = found.table()
        if rows:
            head = tuple(rows[0])
            print_table(head, [tuple(row[key] for key in head) for row in rows], right=(2, 3, 4, 5, 6, 8, 9))
        print()
        for sentence in found.sentences():
            print(sentence)
        if found.missing:
            again = {
                "--seeds": seeds,
                "--tasks": ",".join(tasks or ()),
                "--same": "" if same == "rows" else same,
                "--split": split,
                "--budget": budget,
                "--baselines-dir": place,
                "--data-root": data_root,
            }
            words = [word for name, value in again.items() if value for word in (name, str(value))]
            print(f"go on with:\n  {command('report', str(run), '--baselines', *words)}")
        print()
    return found.missing


def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN … | STUDY.yaml [key=value …]", help="Finished runs; or a study file."),
    ],
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Of runs: end with 1 where one is worse than the first.")
    ] = False,
    split: Annotated[str, typer.Option("--split", help="Of runs: validation, or test.")] = "validation",
    out: Annotated[Path | None, typer.Option("--out", help="Of runs: write compare.json and .md here.")] = None,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Of runs: folder that mirrors data sets under their Hub ids.")
    ] = None,
) -> None:
    """Put finished runs side by side; or do what is missing of a study's runs, and say what its scores show."""
    files = [word for word in words if "=" not in word]
    if not files or not all(Path(file).is_dir() for file in files):
        if folders := [file for file in files if Path(file).is_dir()]:
            others = [file for file in files if file not in folders]
            raise ConfigError(f"compare: run folders or one study file, found both: {', '.join(others)} is no folder")
        if fail_if_worse or out is not None:
            raise ConfigError("compare: --fail-if-worse and --out go with run folders, found a study file")
        from nlp_mtl.studies.command import compare as compare_study

        compare_study(words)
        return
    one_process("compare")
    if wrong := [word for word in words if "=" in word]:
        raise ConfigError(f"compare: runs are compared as they are, found {', '.join(wrong)}; leave it out")
    from nlp_mtl.verdicts.sidebyside import compare_runs

    found = compare_runs(files, split=split, data_root=data_root)
    rows = found.table()
    head = tuple(rows[0])
    print_table(head, [tuple(row[key] for key in head) for row in rows], right=tuple(range(2, len(head))))
    print()
    for sentence in found.sentences():
        print(sentence)
    if out is not None:
        print(f"compare.json and compare.md are in {found.write(out)}")
    if fail_if_worse and found.worse():
        raise typer.Exit(1)
