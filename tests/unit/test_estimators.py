"""Scores of encoder × task and of task × task, beside slow formulas, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.transferring.estimators import KNN, LEEP, NCE, HScore, LinearProbe, LogME
from nlp_mtl.transferring.estimators.base import folds_of
from nlp_mtl.transferring.estimators.nce import conditional_entropy

OF_UNITS = [name for name in registry.estimators if not hasattr(registry.estimators[name], "of_pair")]


def drawn(seed, rows=60, width=5, classes=3):
    """Features with classes in them."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    features = random.normal(size=(rows, width)) + 1.5 * random.normal(size=(classes, width))[labels]
    return features, labels, np.arange(rows)


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 99), st.sampled_from([(30, 4), (12, 20)]))
def test_logme_is_the_largest_evidence(seed, size):
    random = np.random.default_rng(seed)
    x = random.normal(size=size)
    y = x @ random.normal(size=size[1]) + random.normal(size=size[0])

    def negative(logs):
        spread = np.exp(-logs[0]) * x @ x.T + np.exp(-logs[1]) * np.eye(len(x))
        return -multivariate_normal(np.zeros(len(x)), spread, allow_singular=True).logpdf(y) / len(x)

    best = min(
        (minimize(negative, start, method="Nelder-Mead") for start in ([0, 0], [2, -1])), key=lambda one: one.fun
    )
    found = LogME(rounds=2000)(x, y, np.arange(len(x)))
    assert found <= -best.fun + 1e-6
    assert found == pytest.approx(-best.fun, abs=5e-3)


def test_logme_of_classes_is_the_mean_over_one_against_the_others():
    x, labels, groups = drawn(3)
    each = [LogME()(x, (labels == kind).astype(float), groups) for kind in range(3)]
    assert LogME()(x, labels, groups) == pytest.approx(np.mean(each))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(2, 4))
def test_h_score_is_the_slow_formula_and_sees_no_invertible_map(seed, classes):
    x, labels, groups = drawn(seed, classes=classes)
    means = np.stack([x[labels == kind].mean(0) for kind in labels])
    slow = np.trace(np.linalg.inv(np.cov(x.T, bias=True)) @ np.cov(means.T, bias=True))
    plain = HScore(shrinkage=0)
    assert plain(x, labels, groups) == pytest.approx(slow, rel=1e-6)
    assert 0 <= slow <= classes - 1 + 1e-9
    turn = np.random.default_rng(seed + 1).normal(size=(5, 5)) + 3 * np.eye(5)
    assert plain(x @ turn + 4, labels, groups) == pytest.approx(slow, rel=1e-5)
    assert HScore()(x, labels, groups) < slow


def test_shrinkage_keeps_few_rows_from_looking_perfect():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(40, 60)), random.integers(0, 2, 40)
    assert HScore(shrinkage=0)(x, labels, np.arange(40)) == pytest.approx(1.0, abs=1e-6)
    assert HScore()(x, labels, np.arange(40)) < 0.1


@pytest.mark.parametrize("k", [1, 3, 5])
def test_knn_is_scikit_learn_s_with_each_row_left_out(k):
    x, labels, groups = drawn(k, rows=40)
    values = x[:, 0] * 2 + 1
    right, near = 0, []
    for row in range(40):
        others = np.arange(40) != row
        model = KNeighborsClassifier(k, metric="cosine").fit(x[others], labels[others])
        votes = model.predict_proba(x[[row]])[0]
        right += np.isclose(votes[labels[row]], votes.max()) and np.isclose(votes, votes.max()).sum() == 1
        near.append(KNeighborsRegressor(k, metric="cosine").fit(x[others], values[others]).predict(x[[row]])[0])
    ties = KNN(k=k)(x, labels, groups) - right / 40
    assert ties == pytest.approx(0) if k == 1 else 0 <= ties + 1e-9 <= 0.3
    assert KNN(k=k)(x, values, groups) == pytest.approx(np.corrcoef(near, values)[0, 1])


def test_units_of_a_row_are_no_neighbours_and_in_one_fold():
    random = np.random.default_rng(0)
    x = np.repeat(random.normal(size=(30, 4)), 2, axis=0)
    labels, groups = np.repeat(random.integers(0, 2, 30), 2), np.repeat(np.arange(30), 2)
    assert KNN(k=1)(x, labels, np.arange(60)) == 1.0
    assert KNN(k=1)(x, labels, groups) < 0.9
    folds = folds_of(groups, 3, 0)
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [20, 20, 20]


def test_the_probe_of_values_is_ridge_on_rows_held_out():
    x, _, groups = drawn(1)
    y = x @ np.arange(5.0) + np.random.default_rng(0).normal(size=60)
    fold, found = folds_of(groups, 3, 0), np.zeros(60)
    for number in range(3):
        seen = fold != number
        mean, spread = x[seen].mean(0), x[seen].std(0)
        found[~seen] = Ridge(alpha=10.0).fit((x[seen] - mean) / spread, y[seen]).predict((x[~seen] - mean) / spread)
    assert LinearProbe()(x, y, groups) == pytest.approx(np.corrcoef(found, y)[0, 1])
    assert LinearProbe()(x, np.zeros(60, dtype=int), groups) == 1.0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 4))
def test_leep_and_nce_are_their_formulas(seed, sources, targets):
    random = np.random.default_rng(seed)
    theta = random.dirichlet(np.ones(sources), size=25)
    labels = random.integers(0, targets, 25)
    total = 0.0
    for row in range(25):
        expected = 0.0
        for z in range(sources):
            given_z = sum(theta[i, z] for i in range(25) if labels[i] == labels[row]) / theta[:, z].sum()
            expected += given_z * theta[row, z]
        total += np.log(expected)
    assert LEEP().of_pair(theta, labels) == pytest.approx(total / 25, abs=1e-12)
    assert LEEP().of_pair(theta, labels) <= 0
    z, entropy = theta.argmax(1), 0.0
    for value in set(z.tolist()):
        share = np.bincount(labels[z == value]) / (z == value).sum()
        entropy -= (z == value).mean() * sum(p * np.log(p) for p in share if p > 0)
    assert NCE().of_pair(theta, labels) == pytest.approx(-entropy, abs=1e-12)
    assert LEEP().of_pair(np.eye(sources)[z], labels) == pytest.approx(NCE().of_pair(theta, labels), abs=1e-12)
    assert conditional_entropy(labels, labels) == 0.0
    counts = np.bincount(labels) / 25
    assert conditional_entropy(z, labels) >= sum(p * np.log(p) for p in counts if p > 0) - 1e-12


@pytest.mark.parametrize("name", OF_UNITS)
@pytest.mark.parametrize("values", [False, True])
def test_shuffled_labels_score_lower(name, values):
    score = registry.estimators.build(name)
    if values and not score.of_values:
        pytest.skip(f"{name} is of classes")
    x, labels, groups = drawn(7, rows=150)
    given_ = x[:, 0] + x[:, 1] if values else labels
    shuffled = np.random.default_rng(0).permutation(given_)
    assert score(x, given_, groups) > score(x, shuffled, groups) + 0.05
    assert score(x, given_, groups) == score(x, given_, groups)


def test_every_estimator_is_told_of(tmp_path):
    for name in registry.estimators:
        made = registry.estimators[name]
        assert made.paper and made.cost and "Relations:" in made.__doc__ and ">>>" in made.__doc__, name
    for name in registry.evidences:
        made = registry.evidences[name]
        assert made.paper and made.cost and "Relations:" in made.__doc__, name


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"name": "knn", "k": 0}, "`k` is a number from 1"),
        ({"name": "h_score", "shrinkage": 2}, "ledoit_wolf or a number from 0 to 1"),
        ({"name": "linear_probe", "folds": 1}, "`folds` is a number from 2"),
        ({"name": "logme", "rounds": 0}, "`rounds` is a number from 1"),
    ],
)
def test_wrong_arguments_are_refused(spec, rule):
    with pytest.raises(ConfigError, match=rule):
        registry.estimators.build(spec)
