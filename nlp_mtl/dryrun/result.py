"""The result of a dry run: plain values only, so that it is JSON as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class SplitRows:
    """Rows of one split of one task, as the model reads them.

    Attributes:
        rows: how many there are; a long document that is read in windows counts once per window.
        labelled: how many of them the task can learn from, or be scored on.
        tokens: ``p50``, ``p90``, ``p99`` and ``max`` of the tokens per sequence, after cutting.
        truncated: rows that were cut to the maximum length.
        truncated_share: the same over `rows`.
        labels: label → how often it stands there; None where targets are no labels.
        numbers: ``min``, ``mean``, ``max`` and ``std`` of a regression's targets; None elsewhere.
    """

    rows: int
    labelled: int
    tokens: dict[str, int]
    truncated: int
    truncated_share: float
    labels: dict[str, int] | None = None
    numbers: dict[str, float] | None = None


@dataclass
class TaskRows:
    """What a task reads and predicts.

    Attributes:
        head: the kind of head.
        max_length: at most so many tokens per sequence.
        label_map: label → its number, in the order of the numbers; None where targets are no named labels.
        splits: split → its rows.
    """

    head: str
    max_length: int
    label_map: dict[str, int] | None
    splits: dict[str, SplitRows]


@dataclass
class Steps:
    """What the mixing plan makes of the rows.

    Attributes:
        rows_per_step: rows of one optimizer step, over all tasks, processes and micro-batches; where steps are counted
            in tokens, on average.
        tokens_per_step: tokens that every step holds to within one row, where steps are counted in tokens; None where
            they are counted in rows.
        tokens_per_pass: at most so many in one forward and backward pass; None for no limit.
        steps_per_epoch: optimizer steps of an epoch.
        steps: of the whole run.
        done: how many of them the checkpoint has behind it from which `--resume` would go on.
        epochs: `steps` over `steps_per_epoch`.
        rows_per_epoch: for every epoch, task → rows with its label that are shown.
        rows: task → the same over the whole run.
        repeats: task → how often each of its training rows is shown, on average over the whole run.
        tokens: of the whole run.
        evaluations: how often the validation splits are scored, the last scoring after training included.
        checkpoints: how many are written; None if that depends on the scores.
    """

    rows_per_step: int
    tokens_per_step: int | None
    tokens_per_pass: int | None
    steps_per_epoch: int
    steps: int
    done: int
    epochs: float
    rows_per_epoch: list[dict[str, int]]
    rows: dict[str, int]
    repeats: dict[str, float]
    tokens: int
    evaluations: int
    checkpoints: int | None


@dataclass
class Part:
    """Numbers in a part of the model: all, and those that are trained."""

    all: int
    trained: int


@dataclass
class Memory:
    """What training needs, in bytes.

    Attributes:
        weights: of the whole model.
        gradients: one number for every trained one.
        optimizer: the optimizer's state as it was after the first timed step; None without a step.
        peak: the most that was in use while the timed steps were done, all of the above included; None without a step.
        largest_step: tokens of the largest timed step, which is the largest of its epoch.
        how: how `peak` was found.
    """

    weights: int
    gradients: int
    optimizer: int | None
    peak: int | None
    largest_step: int | None
    how: str


@dataclass
class Time:
    """What the run takes on this machine, in seconds.

    Attributes:
        timed_steps: how many optimizer steps the estimate rests on.
        timed: those steps, ``{"tokens": …, "seconds": …}`` each.
        step: seconds of a step, on average over the run.
        training: of all steps that are left to do; `training_error` is its standard error from the timed steps.
        training_error: see `training`; None if it can't be told.
        evaluation: seconds of one evaluation; None if nothing is evaluated.
        evaluations: seconds of all of them.
        total: training and evaluations.
        how: how it was found, and what is left out.
    """

    timed_steps: int
    timed: list[dict[str, float]]
    step: float | None
    training: float | None
    training_error: float | None
    evaluation: float | None
    evaluations: float
    total: float | None
    how: str


@dataclass
class SharedRows:
    """Rows that some tasks score on and some tasks train on.

    Attributes:
        tasks: the tasks scored.
        split: their split.
        train_tasks: the tasks whose training rows hold the same inputs; the same as `tasks` for rows shared within a
            task.
        rows: how many rows of `split` do.
        share: the same over all its rows.
        first: the first of them: ``row`` in `split`, ``train_row`` in the training rows, both from 0.
    """

    tasks: list[str]
    split: str
    train_tasks: list[str]
    rows: int
    share: float
    first: dict[str, int]


@dataclass
class Pooling:
    """What a linear probe on the frozen encoder says about mean pooling for one task.

    Attributes:
        task: the task.
        measure: ``accuracy``, ``accuracy over labels`` or ``explained variance``.
        family: with what the vanilla class reads (`reads`: ``cls`` or ``last``).
        mean: with the mean over tokens.
        difference, error: mean less family, and its standard error over the held-out rows.
        train_rows, held_out_rows: how many rows the probe was fitted and scored on.
        reads: see `family`.
        better: whether the difference is more than twice its error.
        cost: what mean pooling costs at export.
    """

    task: str
    measure: str
    family: float
    mean: float
    difference: float
    error: float
    train_rows: int
    held_out_rows: int
    reads: str
    better: bool
    cost: str


@dataclass
class DryRun:
    """What a run would do.

    Attributes:
        run: model, output_dir, device, precision, processes, resume_from.
        tasks: task → its rows, labels and lengths.
        steps: the mixing plan in numbers.
        parameters: ``encoder``, ``adapters``, ``heads``, ``sharing`` (what a sharing has of its own) and ``total``.
        memory: what training needs.
        time: how long it takes.
        shared_rows: rows on both sides, within tasks and across them.
        pooling: tasks that were probed for mean pooling.
        not_probed: task → why it was not.
        notes: what else is worth knowing, a sentence each; they are logged as well, as warnings.
    """

    run: dict[str, Any]
    tasks: dict[str, TaskRows]
    steps: Steps
    parameters: dict[str, Part]
    memory: Memory
    time: Time
    shared_rows: list[SharedRows]
    pooling: list[Pooling]
    not_probed: dict[str, str]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """All of it as mappings, lists, texts and numbers; ``json.dumps`` takes it."""
        return asdict(self)

    def show(self) -> None:
        """Print it as tables, as the command line does."""
        from nlp_mtl.dryrun.show import print_dry_run

        print_dry_run(self)
