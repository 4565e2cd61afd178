"""Two or more domains, seen by one encoder: how far apart they are, and what a head loses from one to the other."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl import checkpoint
from nlp_mtl.atomic import write_text
from nlp_mtl.coverage import Coverage, coverage_of, texts_of
from nlp_mtl.data import Data, PoolRows, load_data
from nlp_mtl.domains.distances import a_distance, coral_distance, mmd
from nlp_mtl.domains.opening import Opened, open_encoders, zero_shot_model
from nlp_mtl.errors import ConfigError, near
from nlp_mtl.evaluation import Evaluator, TaskScores
from nlp_mtl.heads.base import Head
from nlp_mtl.meanpooled import FOLDS, mean_features
from nlp_mtl.settings import autocast
from nlp_mtl.taskfile import SPLITS, Split

logger = logging.getLogger("nlp_mtl")
FORMAT = 1


@dataclass
class Domains:
    """What was found.

    Attributes:
        source: the task that others are compared with.
        distances: encoder (``pretrained``, ``run``) → other task → measure → value.
        scores: task → what the run's head of the source scores on it; empty without a run that learned the source.
        coverage: task → what the tokenizer makes of its texts.
        rows: task → how many rows its features are of, and their split.
        notes: what could not be done and why; badly covered texts.
        folder: where it was written.
    """

    source: str
    distances: dict[str, dict[str, dict[str, float]]]
    scores: dict[str, TaskScores]
    coverage: dict[str, Coverage]
    rows: dict[str, tuple[int, str]]
    notes: list[str] = field(default_factory=list)
    folder: Path = Path()

    def table(self) -> list[dict[str, str]]:
        """A row for each task: score, distances to the source, coverage."""
        metrics = {found.first for found in self.scores.values()}
        score = f"{metrics.pop()} of {self.source}'s head" if len(metrics) == 1 else f"score of {self.source}'s head"
        found = []
        for task, covered in self.coverage.items():
            row = {"task": task, "rows": str(self.rows[task][0])}
            if self.scores:
                own = self.scores.get(task)
                row[score] = f"{own.metrics[own.first]:.3f}" if own is not None and own.first else "—"
            for encoder, of_task in self.distances.items():
                for measure, shown in (("A-distance", ".2f"), ("CORAL", ".2g"), ("MMD²", ".3f")):
                    value = of_task.get(task, {}).get(measure)
                    row[f"{measure} ({encoder})"] = "—" if value is None else format(value, shown)
            row |= {
                "unknown tokens": f"{covered.unknown:.1%}",
                "tokens per word": f"{covered.per_word:.2f}",
                "words in letters": f"{covered.in_letters:.1%}",
            }
            found.append(row)
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``domains.json``."""
        return {
            "format": FORMAT,
            "source": self.source,
            "rows": {task: {"rows": count, "split": split} for task, (count, split) in self.rows.items()},
            "distances": {
                encoder: {task: {name: round(x, 6) for name, x in of.items()} for task, of in tasks.items()}
                for encoder, tasks in self.distances.items()
            },
            "scores": {
                task: {"first": found.first, "metrics": found.metrics, "trivial": found.trivial, "rows": found.rows}
                for task, found in self.scores.items()
            },
            "coverage": {task: found.said() for task, found in self.coverage.items()},
            "notes": self.notes,
        }

    def markdown(self) -> str:
        """The table, on its side, and the notes."""
        rows = self.table()
        cells = [[name, *(row[name] for row in rows)] for name in rows[0]]
        lines = ["| " + " | ".join(row) + " |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]]]
        said = (
            f"Distances are to {self.source}, of mean-pooled features of rows that were held out where there are some. "
            "A-distance: 0 where a linear classifier can't tell the domains apart, 2 where it always can."
        )
        return "\n".join([*lines, "", said, *(f"\n{note}" for note in self.notes), ""])


def compare_domains(
    start: str | Path,
    source: str,
    target: str | Sequence[str],
    *,
    tasks: str | Sequence[str] = (),
    data_root: str | Path | None = None,
    registry: Sequence[str | Path] = (),
    split: str = "validation",
    rows: int = 1000,
    points: int = 300,
    seed: int = 0,
    base: str | Path | None = None,
    out: str | Path = "runs/domains",
) -> Domains:
    """Compare domains, or languages; writes ``domains.json``, ``domains.md`` and ``domains.svg``.

    Of a run, the pretrained encoder is looked at too, and the run's head of the source task is scored on every task
    with the same kind of head and the same labels, without training on it (zero-shot).

    Args:
        start: a run folder, a pretrained folder, a packaged model's name, or a Hub id.
        source: a task's name or file.
        target: another, or several.
        tasks: more tasks to compare with the source.
        data_root: where data sets are looked for first; default that of the run.
        registry: more folders with task files.
        split: whose rows are scored and looked at; training rows of a task that has none.
        rows: at most so many of each task are looked at.
        points: at most so many of each task are drawn.
        seed: of which rows, of folds and of t-SNE.
        base: where a run's pretrained model is, if it is not found by its recorded id.
        out: the folder to write to.

    Raises:
        ConfigError: wrong arguments, all at once.
        NotFoundError, RunFolderError, DataError, HubError, UnsupportedError: with the way out.

    cost: two encoder passes over `rows` rows of each task, and one evaluation.
    """
    others = [*([target] if isinstance(target, str) else target), *([tasks] if isinstance(tasks, str) else tasks)]
    if mistakes := _mistakes(source, others, split, rows, points):
        raise ConfigError(mistakes)
    opened = open_encoders(start, [source, *others], registry=registry, base=base, data_root=data_root)
    first = next(iter(opened.encoders.values()))
    data = load_data(first.heads, first.tokenizer, max_length=first.max_length, data_root=opened.data_root)
    names, notes = list(first.heads), list(opened.notes)
    pools = {task: _pool(data, task, split) for task in names}
    chosen = {task: _some(len(pool), rows, seed) for task, (pool, _) in pools.items()}
    if mistakes := [
        f"domains: at least {FOLDS} rows of each task are needed, found {len(part)} of {task}; leave it out"
        for task, part in chosen.items()
        if len(part) < FOLDS
    ]:
        raise ConfigError(mistakes)
    features = {
        encoder: {task: mean_features(model, pool, task, chosen[task]) for task, (pool, _) in pools.items()}
        for encoder, model in opened.encoders.items()
    }
    measured = {
        encoder: {task: _measured(of_task[names[0]], of_task[task], seed) for task in names[1:]}
        for encoder, of_task in features.items()
    }
    covered = {
        task: coverage_of(texts_of(pool, data.heads[task].needed_columns()), first.tokenizer)
        for task, (pool, _) in pools.items()
    }
    notes += [
        f"{task}: the tokenizer covers these texts badly ({found.badly}); an encoder that was pretrained on such texts "
        "would read them better"
        for task, found in covered.items()
        if found.badly
    ]
    scores, why = _zero_shot(opened, data, names, split)
    found = Domains(
        names[0],
        measured,
        scores,
        covered,
        {task: (len(chosen[task]), which) for task, (_, which) in pools.items()},
        [*notes, *why],
        checkpoint.made_folder(out),
    )
    write_text(found.folder / "domains.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(found.folder / "domains.md", found.markdown())
    from nlp_mtl.domains.plot import draw

    draw(features, found.folder / "domains.svg", points=points, seed=seed)
    return found


def _mistakes(source: str, others: Sequence[str], split: str, rows: int, points: int) -> list[str]:
    mistakes = []
    if not others:
        mistakes.append("domains: `target` names a task to compare with, found none; name one")
    if repeated := sorted({task for task in [source, *others] if [source, *others].count(task) > 1}):
        mistakes.append(f"domains: each task is named once, found {', '.join(repeated)} more often; name others")
    if split not in SPLITS:
        mistakes.append(f"domains: `split` is one of {', '.join(SPLITS)}, found {split!r}{near(split, SPLITS)}")
    for name, value, least in (("rows", rows, FOLDS), ("points", points, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            mistakes.append(f"domains: `{name}` is a number of rows from {least}, found {value!r}; leave it out")
    return mistakes


def _pool(data: Data, task: str, split: str) -> tuple[PoolRows, Split]:
    for which in dict.fromkeys((split, "train", "validation", "test")):
        if (pool := data.pool_of(task, which)) is not None and len(pool):  # type: ignore[arg-type]
            return pool, which  # type: ignore[return-value]
    raise ConfigError(f"domains: {task} has no rows in any split; leave it out")


def _some(count: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def _measured(source: np.ndarray, target: np.ndarray, seed: int) -> dict[str, float]:
    return {
        "A-distance": a_distance(source, target, seed=seed),
        "CORAL": coral_distance(source, target),
        "MMD²": mmd(source, target),
    }


def _zero_shot(opened: Opened, data: Data, names: Sequence[str], split: str) -> tuple[dict[str, TaskScores], list[str]]:
    """What the run's head of the source scores on each task that it fits, and why not on the others."""
    if opened.run is None:
        return {}, []
    if names[0] not in opened.run.heads:
        return {}, [
            f"{names[0]}: the run has no head of it, so nothing is scored; it has {', '.join(opened.run.heads)}"
        ]
    fits: dict[str, Head] = {}
    notes = []
    own = opened.run.heads[names[0]]
    for task in names:
        head = data.heads[task]
        if type(head) is not type(own):
            notes.append(f"{task}: its head is of another kind than that of {names[0]}, so it is not scored")
        elif own.by_labels and set(head.labels or ()) != set(own.labels or ()):
            notes.append(f"{task}: its labels are others than those of {names[0]}, so it is not scored")
        elif data.pool_of(task, split) is None:  # type: ignore[arg-type]
            notes.append(f"{task}: it has no {split} rows, so it is not scored")
        else:
            fits[task] = head
    if not fits:
        return {}, notes
    model = zero_shot_model(opened, names[0], [head.task for head in fits.values()])
    rows = load_data(model.heads, model.tokenizer, max_length=model.max_length, data_root=opened.data_root)
    with autocast(model.device, opened.run.strategies.get("precision")):
        found = Evaluator(rows, batch_rows=32).evaluate(model.eval(), split, tasks=list(fits))  # type: ignore[arg-type]
    return {task: found[task] for task in fits if task in found}, notes
