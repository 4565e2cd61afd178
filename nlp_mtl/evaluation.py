"""Evaluation: one pass over all tasks' rows, official metrics per task, and how far each is above trivial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from nlp_mtl import metrics
from nlp_mtl.batches import Collator, RowRef, length_sorted, to_device
from nlp_mtl.data import Data, PoolRows
from nlp_mtl.errors import ConfigError, NlpMtlError
from nlp_mtl.heads.base import Head
from nlp_mtl.taskfile import Split


@dataclass
class TaskScores:
    """What evaluation found for one task.

    Attributes:
        metrics: metric → value; the first decides. Empty for an unlabelled split.
        trivial: metric → value of the trivial baseline; empty where the head is `auxiliary`.
        rows: rows scored.
        loss: mean loss per unit.
        better: whether more of the first metric is better.
        decoded: predictions in the form the metrics take.
        in_words: makes a decoded prediction readable, see :meth:`Head.in_words`.
        thresholds: label → threshold, where they are tuned. Then `metrics` also holds ``<first metric>_at_half``, with
            0.5 in their place: on the rows it was tuned on, the first metric is optimistic.
        references: what `decoded` is compared with, and `given` what the metrics need besides; one for each row.
        labels: names of the classes, of a head that has some.
        predictions: what `decoded` was made of, e.g. logits; where they were asked for.
    """

    metrics: dict[str, float]
    trivial: dict[str, float]
    rows: int
    loss: float | None
    better: bool = True
    decoded: list[Any] = field(repr=False, default_factory=list)
    in_words: Callable[[Any], Any] = field(repr=False, compare=False, default=lambda decoded: decoded)
    thresholds: dict[str, float] = field(default_factory=dict)
    references: list[Any] = field(repr=False, compare=False, default_factory=list)
    given: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)
    labels: list[str] | None = field(repr=False, compare=False, default=None)
    predictions: list[Any] = field(repr=False, compare=False, default_factory=list)

    @property
    def first(self) -> str | None:
        """The metric that decides."""
        return next(iter(self.metrics), None)

    @property
    def skill(self) -> float | None:
        """(score − trivial) / (perfect − trivial) of the first metric: 0 is the baseline, 1 is perfect."""
        if self.first is None or self.first not in self.trivial:
            return None
        score, trivial, perfect = self.metrics[self.first], self.trivial[self.first], 1.0 if self.better else 0.0
        if trivial == perfect:  # nothing to gain, and something to lose
            return -abs(score - trivial)
        return (score - trivial) / (perfect - trivial)


class Evaluator:
    """Scores all tasks of a model on a split; baselines are computed once.

    Args:
        data: the tokenized rows.
        batch_rows: at least so many rows per batch.
        keep_predictions: hand over what the heads predicted, before it is decoded.
    """

    def __init__(self, data: Data, *, batch_rows: int = 8, keep_predictions: bool = False):
        self.data, self.batch_rows, self.keep_predictions = data, batch_rows, keep_predictions
        self._trivial: dict[tuple[str, Split], dict[str, float]] = {}

    def evaluate(
        self,
        model: torch.nn.Module,
        split: Split = "validation",
        *,
        tasks: Sequence[str] | None = None,
        tune: bool = False,
        process: int = 0,
        processes: int = 1,
        gather: Callable[[list[Any]], list[Any]] | None = None,
        progress: bool = False,
    ) -> dict[str, TaskScores]:
        """Scores per task.

        Args:
            model: a :class:`MultiTaskModel`, wrapped or not, in eval mode.
            split: the split.
            tasks: only these.
            tune: choose on this split's rows what the heads tune, before they are scored.
            process, processes, gather: this process's number, how many there are, and what joins their lists.
            progress: show a bar.
        """
        pools = [pool for pool in self.data.splits.get(split, []) if tasks is None or set(tasks) & set(pool.tasks)]
        if not pools:
            return {}
        found = self._predict(model, pools, split, process, processes, progress)
        parts = gather([found]) if gather is not None else [found]
        scores = {}
        for number, pool in enumerate(pools):
            for task in pool.tasks:
                if tasks is None or task in tasks:
                    scores[task] = self._score(task, pool, number, split, parts, tune)
        return {task: scores[task] for task in self.data.heads if task in scores}

    def check(self, split: Split = "validation") -> None:
        """Score the trivial baselines of a split, which finds metrics that don't fit their task before any training.

        Raises:
            ConfigError: all of them; and thresholds that are tuned, but on no rows.
        """
        mistakes = [
            f"task {task!r}: `threshold: tuned` needs labelled validation rows, found none; hold some out "
            "(`splits: {validation: 0.1}`), or give a number"
            for task, head in self.data.heads.items()
            if split == "validation" and head.tunes and not (self._tunable(task) or self._tunable(head.task.head_key))
        ]
        for pool in self.data.splits.get(split, []):
            for task in pool.tasks:
                try:
                    if (labelled := self._labelled(task, pool)) is not None:
                        self._baseline(task, split, *labelled)
                except NlpMtlError as error:
                    head = self.data.heads[task]
                    mistakes.append(
                        f"task {task!r}: `metrics: [{', '.join(head.metrics)}]` can't be computed: {error}; name "
                        f"others, or leave them out for those that {head.task.head_name} has itself"
                    )
        if mistakes:
            raise ConfigError(mistakes)

    def _predict(
        self, model: Any, pools: Sequence[PoolRows], split: Split, process: int, processes: int, progress: bool
    ) -> dict[str, Any]:
        """This process's share: predictions by task, pool and row, and sums of losses."""
        collator = Collator(pools, self.data.heads)
        batches = list(length_sorted(pools, rows=self.batch_rows))
        share = batches[process::processes]
        rounds = -(-len(batches) // processes)  # all processes call the model equally often: sharded ones must
        found: dict[str, Any] = {"rows": {}, "loss": {}}
        for turn in tqdm(range(rounds), desc=f"evaluating ({split})", leave=False, disable=not progress):
            if turn < len(share):
                self.predict_batch(model, collator, share[turn], found)
            else:
                self.predict_batch(model, collator, batches[-1], {"rows": {}, "loss": {}})
        return found

    @torch.inference_mode()
    def predict_batch(self, model: Any, collator: Collator, refs: Sequence[RowRef], found: dict[str, Any]) -> None:
        """Predictions and losses of a batch of rows, added to `found` (``{"rows": {}, "loss": {}}`` to begin with)."""
        device = next(model.parameters()).device
        batch = collator(refs)
        out = model(**to_device(batch, device))
        for task, target in batch["targets"].items():
            head: Head = self.data.heads[task]
            target = to_device(target, device)
            predictions = head.predict(out["logits"][task], target)
            owners = batch["owners"][task].tolist()
            rows = found["rows"].setdefault(task, {})
            rows.update({refs[o][:2]: p for o, p in zip(owners, predictions, strict=True)})
            if task in out["losses"]:
                units = head.units(target)
                total, count = found["loss"].get(task, (0.0, 0))
                found["loss"][task] = (total + float(out["losses"][task]) * units, count + units)

    def tunable(self) -> list[str]:
        """The tasks that have something to tune, and labelled validation rows to tune it on."""
        return [task for task, head in self.data.heads.items() if head.tunes and self._tunable(task)]

    def _tunable(self, task: str) -> bool:
        pool = self.data.pool_of(task, "validation")
        return pool is not None and bool(pool.labelled(task).any())

    def _tune(self, task: str, predictions: Sequence[Any], references: Sequence[Any]) -> None:
        """Tune a head, and those that use it and have no rows of their own to be tuned on."""
        head = self.data.heads[task]
        head.tune(predictions, references)
        for other in self.data.heads.values():
            if other is not head and other.task.head_key == task and not self._tunable(other.task.name):
                other.recall(head.spec)

    def _score(
        self, task: str, pool: PoolRows, number: int, split: Split, parts: Sequence[Mapping[str, Any]], tune: bool
    ) -> TaskScores:
        head = self.data.heads[task]
        rows = {row: p for part in parts for (owner, row), p in part["rows"].get(task, {}).items() if owner == number}
        predictions = [rows[row] for row in range(len(pool))]
        sums = [part["loss"][task] for part in parts if task in part["loss"]]
        loss = sum(s for s, _ in sums) / sum(c for _, c in sums) if sums else None
        labelled = self._labelled(task, pool)
        if labelled is None:
            decoded = head.decode(predictions, pool.table)
            raw = predictions if self.keep_predictions else []
            return TaskScores({}, {}, len(pool), None, decoded=decoded, in_words=head.in_words, predictions=raw)
        rows_with, table, _, references = labelled
        kept = [predictions[i] for i in rows_with]
        if tune and head.tunes:
            self._tune(task, kept, references)
        given = head.for_metrics(table, lambda: head.scores(kept))
        decoded = head.decode(kept, table)
        scored = head.score(decoded, references, given)
        if head.tunes:
            first = next(iter(scored))
            scored[f"{first}_at_half"] = head.score(head.undecided(kept, table), references, given)[first]
        trivial = {} if head.auxiliary else self._baseline(task, split, *labelled)
        better = metrics.greater_is_better(head.metrics[0])
        told = (decoded, head.in_words, head.chosen(), references, given, head.labels)
        raw = kept if self.keep_predictions else []
        return TaskScores(scored, trivial, len(decoded), loss, better, *told, predictions=raw)

    def _labelled(self, task: str, pool: PoolRows) -> tuple[np.ndarray, Any, list[Any], list[Any]] | None:
        """The rows with labels: their numbers, their table, labels and references; None if there are none."""
        numbers = np.flatnonzero(pool.labelled(task))
        if not len(numbers):
            return None
        table = pool.table if len(numbers) == len(pool) else pool.table.select(numbers)
        labels = table[f"labels:{task}"][:]
        return numbers, table, labels, self.data.heads[task].references(labels, table)

    def _baseline(
        self, task: str, split: Split, numbers: np.ndarray, table: Any, labels: Sequence[Any], references: Sequence[Any]
    ) -> dict[str, float]:
        if (task, split) in self._trivial:
            return self._trivial[task, split]
        head = self.data.heads[task]
        train = self.data.pool_of(task, "train") or self.data.pool_of(head.task.head_key, "train")
        owner = task if train is not None and task in train.tasks else head.task.head_key
        seen, read = (labels, table) if train is None else (train.labels(owner), train.table)
        guessed = head.trivial(seen, read, labels, table)
        given = head.for_metrics(table, lambda: head.trivial_scores(seen, len(labels)))
        self._trivial[task, split] = head.score(guessed, references, given)
        return self._trivial[task, split]


def flatten(scores: Mapping[str, TaskScores], prefix: str = "eval") -> dict[str, float]:
    """Scores as the Trainer logs them: ``eval_<task>_<metric>``, ``eval_mean``, ``eval_mean_skill``, ``eval_loss``.

    A tuned threshold is ``eval_<task>_threshold``; those of several labels stand in the run folder only.
    `mean` is over the tasks' first metrics where more is better; `mean_skill` over (score − trivial) / (1 − trivial).
    """
    flat: dict[str, float] = {}
    first, skills, losses = [], [], []
    for task, found in scores.items():
        for metric, value in found.metrics.items():
            flat[f"{prefix}_{task}_{metric}"] = value
        if len(found.thresholds) == 1:
            flat[f"{prefix}_{task}_threshold"] = next(iter(found.thresholds.values()))
        if found.loss is not None:
            flat[f"{prefix}_{task}_loss"] = found.loss
            losses.append(found.loss)
        if found.first is None:
            continue
        if found.better and found.trivial:
            first.append(found.metrics[found.first])
        if found.skill is not None:
            flat[f"{prefix}_{task}_skill"] = found.skill
            skills.append(found.skill)
    for name, values in (("mean", first), ("mean_skill", skills), ("loss", losses)):
        if values:
            flat[f"{prefix}_{name}"] = float(np.mean(values))
    return flat


def score_table(scores: Mapping[str, TaskScores], *, every: bool = False) -> list[dict[str, Any]]:
    """One row per task, or with `every` one per metric: task, metric, score, trivial baseline, rows."""
    return [
        {
            "task": task,
            "metric": metric,
            "score": found.metrics.get(metric) if metric else None,
            "trivial": found.trivial.get(metric) if metric else None,
            "rows": found.rows,
        }
        for task, found in scores.items()
        for metric in (list(found.metrics) if every else [found.first])
    ]
