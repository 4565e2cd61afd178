"""A dry run as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from nlp_mtl import checkpoint
from nlp_mtl.config import RunConfig, load_config
from nlp_mtl.dryrun.making import dry_run
from nlp_mtl.dryrun.result import DryRun, Pooling, Steps, TaskRows
from nlp_mtl.screen import command, print_table
from nlp_mtl.stageplan import stages_of
from nlp_mtl.stages import keys_of
from nlp_mtl.starting import training_arguments
from nlp_mtl.taskfile import SPLITS

_LABELS = 8  # so many of a task's labels are shown, the rest is folded


def print_dry_run(found: DryRun) -> None:
    """Print all parts of a dry run; long label lists are folded, ``to_dict`` has them whole."""
    run = found.run
    several = f", {run['processes']} processes" if run["processes"] > 1 else ""
    print(f"Dry run of {run['output_dir']}: {run['model']} on {run['device']}{several}, precision {run['precision']}")
    if run["resume_from"]:
        print(f"It would go on from {run['resume_from']}, step {found.steps.done}.")
    _print_rows(found)
    _print_labels(found)
    _print_steps(found)
    _print_cost(found)
    _print_shared(found)
    _print_pooling(found)


def run_and_show(
    file: str | Path,
    overrides: Sequence[str],
    *,
    words: Sequence[str],
    resume: bool = False,
    overwrite: bool = False,
    json_file: Path | None = None,
) -> None:
    """What ``nlp-mtl train --dry-run`` does.

    Args:
        file, overrides, resume, overwrite: see :func:`nlp_mtl.dry_run`.
        words: what was typed, to say how the run itself is started.
        json_file: where the whole result is written as JSON, in a folder that is there; ``-`` prints that alone.
    """
    settings = load_config(file, overrides)
    if settings.stages:
        _show_stages(settings, words=words, overwrite=overwrite, json_file=json_file)
        return
    found = dry_run(file, overrides, resume=resume, overwrite=overwrite)
    if int(os.environ.get("RANK", "0")):  # of several processes, the first one speaks
        return
    text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
    if str(json_file) == "-":
        print(text)
        return
    print_dry_run(found)
    if json_file is not None:
        checkpoint.write_text(json_file, text + "\n")
        print(f"\nThe same as JSON, with all labels: {json_file}")
    flags = [flag for flag, given in (("--resume", resume), ("--overwrite", overwrite)) if given]
    print(f"\nNothing was trained or saved. Train with:\n  {command('train', *words, *flags)}")


def _show_stages(settings: RunConfig, *, words: Sequence[str], overwrite: bool, json_file: Path | None) -> None:
    """Each stage as if it started from the pretrained model: what the one before gives is not there yet."""
    place = Path(training_arguments(settings, "run").output_dir)
    found = {}
    for stage in stages_of(keys_of(settings)):
        training = {**(stage.keys.get("training") or {}), "output_dir": str(place / stage.folder)}
        found[stage.name] = dry_run({**stage.keys, "training": training}, overwrite=overwrite)
    if int(os.environ.get("RANK", "0")):
        return
    text = json.dumps({name: one.to_dict() for name, one in found.items()}, indent=1, ensure_ascii=False)
    if str(json_file) == "-":
        print(text)
        return
    for number, (name, one) in enumerate(found.items(), 1):
        print(f"\nStage {number} of {len(found)}: {name}\n")
        print_dry_run(one)
    if json_file is not None:
        checkpoint.write_text(json_file, text + "\n")
    print(f"\nNothing was trained or saved. Train with:\n  {command('train', *words)}")


def _title(text: str) -> None:
    print(f"\n{text}\n")


def _print_rows(found: DryRun) -> None:
    _title("Rows, and tokens per sequence as the model reads them")
    shown = [
        (
            task,
            rows.head,
            split,
            str(part.rows),
            str(part.labelled) if part.labelled != part.rows else "all",
            *(str(part.tokens[at]) for at in ("p50", "p90", "p99", "max")),
            f"{part.truncated} ({part.truncated_share:.1%})" if part.truncated else "—",
            str(rows.max_length),
        )
        for task, rows in found.tasks.items()
        for split, part in rows.splits.items()
    ]
    head = ("task", "head", "split", "rows", "with label", "50 %", "90 %", "99 %", "most", "rows cut", "at tokens")
    print_table(head, shown, right=(3, 4, 5, 6, 7, 8, 9, 10))


def _print_labels(found: DryRun) -> None:
    _title("Labels and how often they stand there")
    shown = [line for task, rows in found.tasks.items() for line in label_lines(task, rows)]
    if shown:
        print_table(("task", "number", "label", *SPLITS), shown, right=(1, 3, 4, 5))
    else:
        print("no task has labels")


def label_lines(task: str, rows: TaskRows, *, most: int = _LABELS) -> list[tuple[str, ...]]:
    """The lines of one task in the table of labels: its most frequent labels, and one line for the others.

    Args:
        task: its name.
        rows: its rows.
        most: how many labels are shown.
    """
    numbers = {split: part.numbers for split, part in rows.splits.items() if part.numbers}
    if numbers:
        first = next(iter(numbers.values()))
        return [
            (
                task,
                "—",
                f"numbers: {name}",
                *(f"{numbers[split][name]:.3g}" if split in numbers else "—" for split in SPLITS),
            )
            for name in first
        ]
    counted = {split: part.labels for split, part in rows.splits.items() if part.labels is not None}
    names = list(rows.label_map or dict.fromkeys(name for counts in counted.values() for name in counts))
    if not names:
        return []
    often = {name: sum(counts.get(name, 0) for counts in counted.values()) for name in names}
    fold = len(names) > most
    kept = set(sorted(names, key=lambda name: -often[name])[: most - 1] if fold else names)

    def count(split: str, these: Sequence[str]) -> str:
        if split not in counted or not sum(counted[split].values()):
            return "—"
        return str(sum(counted[split].get(name, 0) for name in these))

    lines = [
        (task, str((rows.label_map or {}).get(name, name)), name, *(count(split, [name]) for split in SPLITS))
        for name in names
        if name in kept
    ]
    if fold:
        others = [name for name in names if name not in kept]
        lines.append((task, "…", f"{len(others)} more labels", *(count(split, others) for split in SPLITS)))
    return lines


def _print_steps(found: DryRun) -> None:
    steps = found.steps
    _title(
        f"Steps: {steps.steps_per_epoch} an epoch, {steps.steps} in all (epochs: {steps.epochs:g}), {step_size(steps)}"
    )
    first = steps.rows_per_epoch[0] if steps.rows_per_epoch else {}
    shown = [
        (
            task,
            str(first.get(task, 0)),
            str(steps.rows.get(task, 0)),
            f"{steps.repeats[task]:.2f}×" if task in steps.repeats else "—",
        )
        for task in found.tasks
    ]
    print_table(("task", "rows in the first epoch", "rows in all", "each row shown"), shown, right=(1, 2, 3))


def step_size(steps: Steps) -> str:
    """What a step holds, in words."""
    each = f"{steps.rows_per_step} rows each"
    if steps.tokens_per_step is not None:
        each = f"{steps.tokens_per_step} tokens each (about {steps.rows_per_step} rows)"
    return each + (f", in passes of at most {steps.tokens_per_pass} tokens" if steps.tokens_per_pass else "")


def _print_cost(found: DryRun) -> None:
    _title("Parameters")
    parts = [
        (name, f"{part.trained:,}", f"{part.all:,}")
        for name, part in found.parameters.items()
        if part.all or name == "total"
    ]
    print_table(("part", "trained", "all"), parts, right=(1, 2))
    memory, took = found.memory, found.time
    _title("Memory")
    sizes = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "peak, all included": memory.peak,
    }
    print_table(("what", "size"), [(name, size_of(size)) for name, size in sizes.items()], right=(1,))
    print(f"The peak is {memory.how}.")
    _title("Time")
    left = found.steps.steps - found.steps.done
    spread = f" ± {duration(took.training_error)}" if took.training_error is not None else ""
    each = f"{left} × {took.step:.3g} s" if took.step is not None else f"{left} steps"
    scored = f"{found.steps.evaluations} × {duration(took.evaluation)}" if took.evaluation is not None else "none"
    rows = [
        ("training", each, duration(took.training) + spread),
        ("evaluation", scored, duration(took.evaluations)),
        ("in all", "", duration(took.total)),
    ]
    print_table(("what", "", "takes about"), rows)
    print(f"From {took.how}.")


def _print_shared(found: DryRun) -> None:
    _title("Rows on both sides (the same letters and digits)")
    if not found.shared_rows:
        print("none: no validation or test row of any task stands among the training rows of any task")
        return
    shown = [
        (
            "+".join(one.tasks),
            one.split,
            "+".join(one.train_tasks) if one.train_tasks != one.tasks else "its own",
            f"{one.rows} ({one.share:.2%})",
            f"row {one.first['row']} = training row {one.first['train_row']}",
        )
        for one in found.shared_rows
    ]
    print_table(("task", "split", "in the training rows of", "rows", "the first"), shown, right=(3,))


def _print_pooling(found: DryRun) -> None:
    better = [one for one in found.pooling if one.better]
    _title("Mean pooling")
    if better:
        _print_better(better)
    elif found.pooling:
        probed = ", ".join(one.task for one in found.pooling)
        print(f"no task for which a linear probe says that it would score better; probed: {probed}")
    for reason in dict.fromkeys(found.not_probed.values()):
        print(f"Not probed, since {reason}: {', '.join(t for t, why in found.not_probed.items() if why == reason)}")


def _print_better(better: Sequence[Pooling]) -> None:
    shown = [
        (one.task, one.measure, f"{one.family:.3f}", f"{one.mean:.3f}", f"{one.difference:+.3f} ± {one.error:.3f}")
        for one in better
    ]
    print_table(("task", "measure", "family", "mean", "difference"), shown, right=(2, 3, 4))
    print(
        "By a linear probe on the frozen encoder (a pair's texts encoded each by itself), scored on up to "
        f"{max(one.held_out_rows for one in better)} held-out rows; shown where the difference is more than twice its "
        "standard error. Fine-tuning may close the gap."
    )
    chosen = ", ".join(f"{one.task}: {{pooling: mean}}" for one in better)
    print(f"To use it: `heads: {{{chosen}}}` in the run file.")
    for cost in dict.fromkeys(one.cost for one in better):
        print(f"What it costs: {cost}.")


def size_of(count: int | None) -> str:
    """Bytes as people read them.

    Example:
        >>> size_of(1_500_000), size_of(None)
        ('1.5 MB', '—')
    """
    if count is None:
        return "—"
    unit, factor = next(
        (u, f) for u, f in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1)) if count >= f or f == 1
    )
    return f"{count / factor:.1f} {unit}" if factor > 1 else f"{count} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as people read them.

    Example:
        >>> duration(0.25), duration(75), duration(7300), duration(None)
        ('0.25 s', '1 min 15 s', '2 h 1 min', '—')
    """
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
