"""What a run's scores become when texts are changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from nlp_mtl import metrics, registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.findings import Finding, Table, write_finding
from nlp_mtl.robustness.base import Perturbation, perturbations
from nlp_mtl.robustness.opening import open_run, some_rows
from nlp_mtl.robustness.rows import KINDS, perturbed
from nlp_mtl.robustness.scoring import change_rate, cost, scored
from nlp_mtl.settings import autocast
from nlp_mtl.verdicts.judging import holm

USUAL: tuple[registry.Spec, ...] = (
    "typos",
    {"name": "case", "to": "upper"},
    {"name": "case", "to": "lower"},
    {"name": "case", "to": "title"},
    {"name": "punctuation", "how": "drop"},
    {"name": "punctuation", "how": "add"},
    "word_swap",
    "similar_words",
    "entity_swap",
    {"name": "truncated", "words": 10},
    "appended",
    {"name": "negation", "how": "add"},
    {"name": "negation", "how": "remove"},
)


@dataclass(frozen=True)
class Held:
    """What one perturbation did to one task.

    Attributes:
        task, name: whose texts, and what was done.
        metric: the task's first.
        before, after: its score; `after` is None where labels may change too.
        interval: of what it costs, 95 % over rows: above 0 is worse; None where there is none.
        p: of the test over rows that it costs nothing; None where there is no interval.
        changed: how many rows differ, of `rows`.
        flipped: the share of changed rows with another prediction; None for values.
    """

    task: str
    name: str
    metric: str
    before: float
    after: float | None
    interval: tuple[float, float] | None
    p: float | None
    changed: int
    rows: int
    flipped: float | None


@dataclass
class Robustness:
    """What was found.

    Attributes:
        held: each task under each perturbation.
        notes: what was left out and why.
        better: task → whether more of its metric is better.
    """

    held: list[Held]
    notes: list[str] = field(default_factory=list)
    better: dict[str, bool] = field(default_factory=dict)

    def cost(self, one: Held) -> float:
        """How much worse a score is than before."""
        lost = one.before - (one.before if one.after is None else one.after)
        return lost if self.better.get(one.task, True) else -lost

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text: task, perturbation, before, after, drop, its interval, rows changed, predictions changed."""
        found: list[tuple[str, ...]] = []
        for one in self.held:
            lost = "—" if one.after is None else f"{self.cost(one):+.3f}"
            ends = "—" if one.interval is None else f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}"
            found.append(
                (
                    one.task,
                    one.name,
                    f"{one.before:.3f}",
                    "—" if one.after is None else f"{one.after:.3f}",
                    lost,
                    ends,
                    f"{one.changed}/{one.rows}",
                    "—" if one.flipped is None else f"{one.flipped:.1%}",
                )
            )
        return found

    def said(self) -> list[str]:
        """Sentences: for each task what costs most, and what is shown to cost anything.

        So many perturbations are tried that one would seem to by chance: p-values are corrected for it (Holm).
        """
        found = []
        for task in dict.fromkeys(one.task for one in self.held):
            own = [one for one in self.held if one.task == task and one.after is not None and one.changed]
            if not own:
                continue
            adjusted = holm({one.name: math.nan if one.p is None else one.p for one in own})
            sure = [one.name for one in own if self.cost(one) > 0 and adjusted[one.name] < 0.05]
            worst = max(own, key=self.cost)
            said = (
                f"Shown to cost something, over rows: {', '.join(sure)}" if sure else "None is shown to cost anything"
            )
            score = f"{task}: {worst.metric} is {worst.before:.3f}, and worst under {worst.name}, {worst.after:.3f}."
            found.append(f"{score} {said}.")
        return [*found, *self.notes]

    def finding(self) -> Finding:
        """For the run's report."""
        from nlp_mtl.robustness.plot import draw

        picture = draw(self)
        drawings = [] if picture is None else [picture.drawing()]
        return Finding(
            "robustness",
            "Robustness",
            self.said(),
            [Table("Scores under changed texts", HEAD, self.table())],
            drawings,
            {"held": [vars(one) for one in self.held], "notes": self.notes},
        )


HEAD = (
    "task",
    "perturbation",
    "score",
    "changed texts",
    "cost",
    "95 % over rows",
    "rows changed",
    "predictions changed",
)


def check_robustness(
    run: str | Path,
    tasks: Sequence[str] | None = None,
    *,
    rows: int = 500,
    split: str = "validation",
    using: Sequence[registry.Spec] = USUAL,
    seed: int = 0,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Robustness:
    """Score a run's tasks on changed texts; writes the finding `robustness` beside the run.

    Args:
        run: a run folder.
        tasks: names; default all.
        rows: at most so many labelled rows of each task.
        split: whose rows.
        using: perturbations, `name` or ``{name: …, arguments}``.
        seed: of which rows, and of what is changed.
        data_root: where data sets are looked for first; default that of the run.
        base: see :meth:`MultiTaskModel.from_pretrained`.
        progress: show a bar.

    Raises:
        ConfigError: wrong arguments, all at once.
        RunFolderError, NotFoundError, DataError: with the way out.

    Relations: CheckList (Ribeiro et al., 2020, arXiv:2005.04118): invariance tests, and for negation a directional one.

    cost: one evaluation of the rows for each perturbation.
    """
    made = named(using)
    folder, model, data = open_run(
        "robustness", run, tasks, split=split, rows=rows, seed=seed, data_root=data_root, base=base
    )
    for how in made.values():
        how.setup(model)
    found = Robustness([])
    bar = tqdm(total=len(data.heads) * len(made), desc="robustness", unit="score", disable=not progress, leave=False)
    with bar, autocast(model.device, model.strategies.get("precision")):
        for task, head in data.heads.items():
            pool = some_rows(data, task, split, rows, seed) if head.task.head_name in KINDS else None
            if pool is None:
                why = f"no labelled {split} rows" if head.task.head_name in KINDS else f"head {head.task.head_name}"
                found.notes.append(f"{task} is left out: {why}.")
                bar.update(len(made))
                continue
            found.better[task] = metrics.greater_is_better(head.metrics[0])
            before = scored(model, pool, head)
            for name, how in made.items():
                other, differs = perturbed(pool, head, model.tokenizer, model.max_length, how, name=name, seed=seed)
                if any(differs):
                    after = scored(model, other, head)
                    found.held.append(_held(head, name, how, before, after, differs))
                bar.update()
            silent = [name for name in made if (task, name) not in {(one.task, one.name) for one in found.held}]
            if silent:
                found.notes.append(f"{task}: {', '.join(silent)} changes none of its rows.")
    write_finding(folder, found.finding())
    return found


def named(using: Sequence[registry.Spec]) -> dict[str, Perturbation]:
    """Perturbations by a name that says their arguments.

    Raises:
        ConfigError: unknown ones or wrong arguments, all at once.

    Example:
        >>> list(named(["typos", {"name": "case", "to": "lower"}]))
        ['typos', 'case (lower)']
    """
    found: dict[str, Perturbation] = {}
    mistakes: list[str] = []
    for spec in using:
        try:
            name, arguments = registry.parse_spec(spec, "perturbation")
            said = f"{name} ({', '.join(map(str, arguments.values()))})" if arguments else name
            found[said] = perturbations.build(spec)
        except ConfigError as error:
            mistakes += error.mistakes
    if not using:
        mistakes.append(f"robustness: at least one perturbation, found none; known: {', '.join(perturbations)}")
    if mistakes:
        raise ConfigError(mistakes)
    return found


def _held(
    head: Any,
    name: str,
    how: Perturbation,
    before: TaskScores,
    after: TaskScores,
    differs: Sequence[bool],
) -> Held:
    first = head.metrics[0]
    pairs = [(a, b) for a, b, d in zip(before.decoded, after.decoded, differs, strict=True) if d]
    values = head.task.head_name == "regression"
    lost = None if how.directional else cost(before, after)
    known = lost if lost is not None and not math.isnan(lost.rows_half) else None
    return Held(
        head.task.name,
        name,
        first,
        before.metrics[first],
        None if how.directional else after.metrics[first],
        None if known is None else (known.mean - known.rows_half, known.mean + known.rows_half),
        None if known is None else known.rows_p,
        sum(differs),
        len(differs),
        None if values else change_rate([a for a, _ in pairs], [b for _, b in pairs]),
    )
