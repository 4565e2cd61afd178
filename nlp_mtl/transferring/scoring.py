"""Scores of an encoder for each task, and of each task's labels for each other one, from features computed once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.affinity import Affinity
from nlp_mtl.transferring.estimators.base import PairEstimator, folds_of
from nlp_mtl.transferring.estimators.linear_probe import fitted
from nlp_mtl.transferring.features import TaskFeatures, features_of
from nlp_mtl.transferring.opening import Opened

_MOST = 2  # units (words of a tagging task) for each row, at most


def scores_of(opened: Opened, estimators: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Task → estimator → score; without those that are not of its kind of labels.

    Args:
        opened: the encoder and the rows.
        estimators: by name.
    """
    single = {name: one for name, one in estimators.items() if not isinstance(one, PairEstimator)}
    found: dict[str, dict[str, float]] = {}
    for task in tqdm(opened.tasks, desc="scores", unit="task", disable=not opened.progress):
        features = some_units(features_of(opened, task), opened.seed)
        found[task] = {}
        for name, one in single.items():
            if not len(features.labels) or (features.numbers and not one.of_values):
                continue
            of = [opened.fingerprint(task), name, vars(one), opened.seed]
            score = float(opened.kept("score", of, partial(_score, one, features))["score"])
            if not np.isnan(score):
                found[task][name] = score
    return found


def _score(estimator: Any, features: TaskFeatures) -> dict[str, np.ndarray]:
    """Of rows with any number of labels, the mean over those that some rows have and some have not."""
    each = [estimator(features.units, labels, features.groups) for labels in _columns(features.labels)]
    return {"score": np.asarray(np.mean(each) if each else np.nan, dtype=float)}


def _columns(labels: np.ndarray) -> list[np.ndarray]:
    if labels.ndim == 1:
        return [labels]
    return [column for column in labels.T if 2 <= column.sum() <= len(column) - 2]


def pairs_of(opened: Opened, estimators: Mapping[str, Any]) -> dict[str, Affinity]:
    """Estimator → a matrix of source × target task; NaN where one of them has no classes.

    A task's own probe is asked about rows that it was not fitted to.
    """
    pairs = {name: one for name, one in estimators.items() if isinstance(one, PairEstimator)}
    features = {task: some_units(features_of(opened, task), opened.seed) for task in opened.tasks}
    having = [task for task, one in features.items() if len(one.labels) and not one.numbers and one.labels.ndim == 1]
    if not pairs or len(having) < 2:
        return {}
    of = [
        [(name, vars(one)) for name, one in pairs.items()],
        opened.seed,
        [opened.fingerprint(t) for t in opened.tasks],
    ]
    kept = opened.kept("pairs", of, lambda: _pairs(opened, pairs, features, having))
    said = {
        "model": str(opened.model.base["id"]),
        "rows": {task: len(rows) for task, rows in opened.rows.items()},
        "seed": opened.seed,
        "notes": ["at most 0, in nats; targets with more classes have lower values, so compare within a column"],
    }
    return {name: Affinity(opened.tasks, kept[name], name, said) for name in pairs}


def _pairs(
    opened: Opened, pairs: Mapping[str, Any], features: Mapping[str, TaskFeatures], having: list[str]
) -> dict[str, np.ndarray]:
    many = len(opened.tasks)
    found = {name: np.full((many, many), np.nan) for name in pairs}
    for source in tqdm(having, desc="task pairs", unit="task", disable=not opened.progress):
        own = features[source]
        probe = fitted(own.units, own.labels)
        for target in having:
            one = features[target]
            given = _crossed(own, opened.seed) if target == source else probe.probabilities(one.units)
            for name, estimator in pairs.items():
                place = opened.tasks.index(source), opened.tasks.index(target)
                found[name][place] = estimator.of_pair(given, one.labels)
    return found


def _crossed(own: TaskFeatures, seed: int) -> np.ndarray:
    """[units, classes]: probabilities by a probe of the other half of the rows; 0 for classes that it has not seen."""
    fold, kinds = folds_of(own.groups, 2, seed), np.unique(own.labels)
    found = np.zeros((len(own.labels), len(kinds)))
    for number in (0, 1):
        held = fold == number
        probe = fitted(own.units[~held], own.labels[~held])
        found[np.ix_(np.flatnonzero(held), np.searchsorted(kinds, probe.kinds))] = probe.probabilities(own.units[held])
    return found


def some_units(features: TaskFeatures, seed: int) -> TaskFeatures:
    """At most two units for each row, drawn at random: words of a text have much in common."""
    most = _MOST * len(features.texts)
    if len(features.labels) <= most:
        return features
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features.labels))[:most])
    return TaskFeatures(features.texts, features.units[chosen], features.labels[chosen], features.groups[chosen])


def trivial_of(features: TaskFeatures) -> float | None:
    """What a probe without features scores: the share of the most frequent class, 0 for values."""
    if not len(features.labels):
        return None
    if features.numbers:
        return 0.0
    shares = [float(np.unique(one, return_counts=True)[1].max()) / len(one) for one in _columns(features.labels)]
    return float(np.mean(shares)) if shares else None
