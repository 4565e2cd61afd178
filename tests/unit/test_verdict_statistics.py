"""The statistics of verdicts: sums say what metrics say, and the test is the one that it claims to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nlp_mtl import metrics
from nlp_mtl.errors import ConfigError
from nlp_mtl.verdicts.judging import HELPED, NOTHING, Difference, bootstrap, difference, holm, resampled, words
from nlp_mtl.verdicts.rowstats import row_score

CLASSES = ("accuracy", "f1", "f1_macro", "recall_macro", "matthews_correlation", "f1_micro")
NUMBERS = ("pearson", "spearman", "mse", "mae")
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_weighted_sums_are_the_metric_of_repeated_rows(data):
    name = data.draw(st.sampled_from([*CLASSES, *NUMBERS, "span_f1"]))
    rows = data.draw(st.integers(3, 12))
    if name in CLASSES:
        labels = ["a", "b"] if name == "f1" else ["a", "b", "c"]
        values = st.integers(0, len(labels) - 1)
    elif name == "span_f1":
        labels, values = None, st.lists(st.sampled_from(TAGS), min_size=2, max_size=2)
    else:
        labels, values = None, st.integers(-5, 5).map(float)
    ours, theirs = (data.draw(st.lists(values, min_size=rows, max_size=rows)) for _ in range(2))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    if not weights.sum():
        weights[0] = 1
    found = row_score(name, ours, theirs, labels=labels)
    repeated = np.repeat(np.arange(rows), weights)

    def direct(chosen):
        return metrics.score([name], [ours[i] for i in chosen], [theirs[i] for i in chosen], labels=labels)[name]

    assert found.value == pytest.approx(direct(range(rows)))
    assert found.weighted(weights.astype(float)[None])[0] == pytest.approx(direct(repeated), abs=1e-7)
    without = [direct([i for i in range(rows) if i != one]) for one in range(rows)]
    np.testing.assert_allclose(found.left_out(), without, atol=1e-6)


def test_rows_of_a_group_are_drawn_and_left_out_together():
    groups = ["x", "y", "x", "y"]
    found = row_score("group_exact_match", [1, 1, 1, 0], [1, 1, 1, 1], given={"groups": groups})
    assert found.value == 0.5 and found.exact and found.rows == 2
    assert found.weighted(np.array([[1.0, 0], [0, 3], [2, 1]])).tolist() == [1, 0, pytest.approx(2 / 3)]
    assert found.left_out().tolist() == [0, 1]


def test_means_of_rows_are_sums_and_what_is_neither_is_left_out_in_blocks():
    """Answers to questions, any labels of a row, and a correlation of ranks, each against the metric itself."""
    draw = np.random.default_rng(0)
    words = ["the cat", "a cat", "the dog", "rain in the city", ""]
    ours, theirs = ([words[i] for i in draw.integers(0, 5, 60)] for _ in range(2))
    for name in ("f1_answer", "exact_match"):
        found = row_score(name, ours, [[text] for text in theirs])
        assert found.exact and found.rows == 60
        weights = draw.integers(0, 3, 60)
        chosen = np.repeat(np.arange(60), weights)
        direct = metrics.score([name], [ours[i] for i in chosen], [[theirs[i]] for i in chosen])
        assert found.weighted(weights[None].astype(float))[0] == pytest.approx(direct[metrics.key_of(name)])
    said, true = (draw.integers(0, 2, (40, 3)).tolist() for _ in range(2))
    found = row_score("f1_micro", said, true, labels=["a", "b", "c"])
    assert found.exact
    without = [
        metrics.score(["f1_micro"], said[:i] + said[i + 1 :], true[:i] + true[i + 1 :])["f1_micro"] for i in range(40)
    ]
    np.testing.assert_allclose(found.left_out(), without)
    x = draw.normal(size=1000)
    few, many = (row_score("spearman", x[:n].tolist(), (x + draw.normal(size=1000))[:n].tolist()) for n in (60, 1000))
    assert not few.exact and few.rows == 60 and many.rows == 100
    pearson = row_score("pearson", x.tolist(), (x + draw.normal(size=1000)).tolist())

    def error(one):
        left = one.left_out()
        return math.sqrt((one.rows - 1) / one.rows * float(((left - left.mean()) ** 2).sum()))

    assert error(many) == pytest.approx(error(pearson), rel=0.4), "a block stands for its rows"


def test_with_rows_that_all_differ_alike_it_is_the_paired_t_test_over_seeds():
    """Rows that add nothing of their own: what is left is Student's test of the seeds' differences."""
    draw = np.random.default_rng(0)
    truth = [1] * 4000
    ours = [[1] * right + [0] * (4000 - right) for right in (3200, 3240, 3300)]
    theirs = [[1] * right + [0] * (4000 - right) for right in (3000, 3080, 3020)]
    for side in (*ours, *theirs):  # each seed is right on rows of its own
        draw.shuffle(side)
    a, b = ([row_score("accuracy", said, truth) for said in side] for side in (ours, theirs))
    found = difference(a, b)
    each = [x.value - y.value for x, y in zip(a, b, strict=True)]
    assert found.mean == pytest.approx(np.mean(each))
    usual = stats.ttest_1samp(each, 0).pvalue
    assert found.p == pytest.approx(usual, rel=0.15) and found.freedom == pytest.approx(2, rel=0.1)


def test_seeds_that_agree_leave_the_rows_to_decide():
    """One seed three times: no evidence from seeds, so the test is that of the rows' differences."""
    draw = np.random.default_rng(1)
    ours, theirs, truth = (draw.integers(0, 2, 300).tolist() for _ in range(3))
    a, b = (row_score("accuracy", side, truth) for side in (ours, theirs))
    found = difference([a] * 3, [b] * 3)
    rows = [float(x == t) - float(y == t) for x, y, t in zip(ours, theirs, truth, strict=True)]
    assert found.p == pytest.approx(stats.ttest_1samp(rows, 0).pvalue, rel=1e-6)
    assert found.half == pytest.approx(found.rows_half)


def test_seeds_that_agree_to_the_row_by_chance_make_nothing_sure():
    """Each of three seeds gets one row more right, another one each: over rows that is next to nothing."""
    truth, base = [1] * 50, [1] * 40 + [0] * 10
    more = [row_score("accuracy", [*base[:row], 1, *base[row + 1 :]], truth) for row in (40, 41, 42)]
    found = difference(more, [row_score("accuracy", base, truth)] * 3)
    assert found.mean == pytest.approx(0.02) and found.p > 0.05 and found.low < 0
    assert found.p >= found.rows_p and found.half >= found.rows_half


@pytest.mark.parametrize(("rows", "sure"), [(2, False), (40, True)])
def test_where_all_rows_differ_alike_the_sign_test_decides(rows, sure):
    right, wrong = (row_score("accuracy", [said] * rows, [1] * rows) for said in (1, 0))
    assert (difference([right] * 3, [wrong] * 3).p < 0.05) == sure
    assert difference([right], [wrong]).rows_p == pytest.approx(2 * 0.5**rows)
    assert difference([right] * 3, [right] * 3).p == 1


def test_less_is_better_turns_the_sign():
    near, far = ([row_score("mse", [v] * 9 + [v + s / 9], [0.0] * 10) for s in range(3)] for v in (0.1, 0.9))
    assert difference(near, far, better=False).mean > 0 > difference(near, far).mean


def test_fewer_than_three_seeds_decide_nothing():
    a, b = row_score("accuracy", [1, 1, 1, 0], [1, 1, 1, 1]), row_score("accuracy", [0, 0, 1, 0], [1, 1, 1, 1])
    for seeds, said in ((1, "one seed"), (2, "two seeds")):
        found = difference([a] * seeds, [b] * seeds)
        assert math.isnan(found.p) and words(found, found.p) == f"not decidable, {said}"
        assert found.rows_half > 0
    with pytest.raises(ConfigError, match="as many seeds"):
        difference([a], [b, b])
    with pytest.raises(ConfigError, match="same rows"):
        difference([a], [row_score("accuracy", [1], [1])])


def test_models_that_differ_by_chance_are_rarely_told_apart_and_true_differences_are_found():
    """A model is right on a row as the row is hard, and by its seed; both sides alike, or one of them up."""
    draw = np.random.default_rng(2)
    rows, called, missed, trials = 200, 0, 0, 150

    def side(hard, up):
        chance = np.clip(hard + draw.normal(0, 0.02) + up, 0, 1)
        return row_score("accuracy", (draw.random(rows) < chance).astype(int).tolist(), [1] * rows)

    for _ in range(trials):
        hard = draw.beta(2, 1, rows) * 0.9
        one, two, three = ([side(hard, up) for _ in range(3)] for up in (0, 0, 0.15))
        called += difference(one, two).p < 0.05
        missed += not difference(three, two).p < 0.05
    assert called / trials < 0.09  # 0.05, and three standard errors of 150 trials
    assert missed / trials < 0.4


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_the_values_and_bonferroni(values):
    found = holm(values)
    for what, p in values.items():
        assert p <= found[what] <= min(1.0, p * len(values)) + 1e-12
    order = sorted(values, key=lambda what: values[what])
    assert [found[what] for what in order] == sorted(found.values())


def test_words_follow_p_and_the_sign():
    one = Difference(0.1, 0.05, 0.05, 0.01, 2.0, (0.1, 0.1, 0.1), 50)
    assert words(one, 0.01) == HELPED and words(one, 0.06) == NOTHING


def test_bootstrap_draws_the_same_rows_for_all():
    a = row_score("accuracy", [1, 0, 1, 1], [1, 1, 1, 1])
    found = resampled([a, a], resamples=50)
    np.testing.assert_array_equal(found[0], found[1])
    low, high = bootstrap(a)
    assert 0 <= low < a.value < high <= 1
    assert bootstrap(a) == bootstrap(a) != bootstrap(a, seed=1, resamples=30)
