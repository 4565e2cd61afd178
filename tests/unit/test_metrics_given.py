"""Metrics that need more than predictions and references: class probabilities, groups, candidates, answers."""

import doctest
import importlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.metrics import needs, score

quick = settings(max_examples=40, deadline=None)
pytestmark = [pytest.mark.filterwarnings("error::UserWarning"), pytest.mark.filterwarnings("error::RuntimeWarning")]

NAMES = ["average_precision", "best_exact_match", "best_f1_answer", "gender_parity", "group_exact_match", "roc_auc"]


def value(name, references, predictions=None, **rows):
    result = registry.metrics[name](references if predictions is None else predictions, references, **rows)
    assert type(result) is float
    return result


def binary(scores):
    return [[1 - score, score] for score in scores]


# ------------------------------------------------------------------------------------------------ scores, by hand


def test_roc_auc_counts_pairs():
    # Positive .8 and .35, negative .1 and .4: of four pairs, only .35 against .4 is in the wrong order.
    assert value("roc_auc", [0, 0, 1, 1], scores=binary([0.1, 0.4, 0.35, 0.8])) == 0.75
    # A tie counts half: .5 against .5 and .1, so (½ + 1) / 2.
    assert value("roc_auc", [0, 0, 1], scores=binary([0.5, 0.1, 0.5])) == 0.75
    assert value("roc_auc", [0, 1], scores=binary([0.9, 0.2])) == 0.0


def test_average_precision_by_hand():
    # From the top: .8 right (1/1), .4 wrong, .35 right (2/3): ½·1 + ½·2/3.
    assert value("average_precision", [0, 0, 1, 1], scores=binary([0.1, 0.4, 0.35, 0.8])) == pytest.approx(5 / 6)


def test_more_labels_are_each_against_the_rest():
    references = [0, 1, 2, 2]
    scores = [[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.7, 0.1, 0.2], [0.2, 0.2, 0.6]]
    # Label 0: .6 against .5 .7 .2, 2 of 3. Label 1: .2 against .3 .1 .2, 1½ of 3. Label 2: .2 .6 against .1 .3, 3 of 4.
    assert value("roc_auc", references, scores=scores) == pytest.approx((2 / 3 + 1 / 2 + 3 / 4) / 3)
    # Label 0 stands second: 1/2. Label 1: behind .3, and level with another: 1/3. Label 2: 1/1 and 2/3.
    assert value("average_precision", references, scores=scores) == pytest.approx((1 / 2 + 1 / 3 + 5 / 6) / 3)


def test_multi_label_is_the_mean_over_labels():
    references, scores = [[1, 0], [0, 1], [1, 1]], [[0.9, 0.2], [0.8, 0.1], [0.3, 0.7]]
    # Column 0: positive .9 .3, negative .8: 1 of 2. Column 1: positive .1 .7, negative .2: 1 of 2.
    assert value("roc_auc", references, scores=scores) == 0.5
    # Column 0: 1/1, then 2/3. Column 1: 1/1, then 2/3.
    assert value("average_precision", references, scores=scores) == pytest.approx(5 / 6)


def test_the_positive_class_is_the_last_label():
    scores = binary([0.9, 0.1])
    for labels in (None, ["no", "yes"]):
        assert value("roc_auc", [1, 0], scores=scores, labels=labels) == 1.0
        assert value("roc_auc", [0, 1], scores=scores, labels=labels) == 0.0


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
def test_constant_scores_are_worth_nothing(rate):
    references = [1] * int(rate * 4) + [0] * (4 - int(rate * 4))
    assert value("roc_auc", references, scores=binary([0.3] * 4)) == 0.5
    assert value("average_precision", references, scores=binary([0.3] * 4)) == rate


def test_labels_that_rank_nothing_are_left_out():
    # Label 2 has no row, and label 1 no row without it.
    assert value("roc_auc", [[1, 1, 0], [0, 1, 0]], scores=[[0.9, 0.1, 0.5], [0.1, 0.9, 0.6]]) == 1.0
    assert value("average_precision", [[1, 0], [0, 0]], scores=[[0.9, 0.1], [0.1, 0.9]]) == 1.0
    for name, undefined in (("roc_auc", 0.5), ("average_precision", 0.0)):
        assert value(name, [0, 0], scores=binary([0.2, 0.9])) == undefined
        assert value(name, [[0], [0]], scores=[[0.2], [0.9]]) == undefined


# ------------------------------------------------------------------------------------------------ scores, laws


@st.composite
def ranked(draw, labels):
    """References in which every label has rows and lacks rows, and scores with ties."""
    rows = draw(st.lists(st.integers(0, labels - 1), max_size=15))
    references = draw(st.permutations([*range(labels), *rows]))
    level = st.lists(st.integers(0, 4), min_size=labels, max_size=labels)
    scores = np.array([draw(level) for _ in references]) + 0.5
    return references, scores / scores.sum(1, keepdims=True)


@quick
@given(rows=ranked(2))
def test_two_labels_equal_scikit_learn_and_the_pairs(rows):
    references, scores = rows
    positive = scores[:, 1]
    assert value("roc_auc", references, scores=scores) == pytest.approx(roc_auc_score(references, positive))
    assert value("average_precision", references, scores=scores) == pytest.approx(
        average_precision_score(references, positive)
    )
    wins = [
        0.5 + 0.5 * np.sign(positive[i] - positive[j])
        for i, j in itertools.product(range(len(references)), repeat=2)
        if references[i] == 1 and references[j] == 0
    ]
    assert value("roc_auc", references, scores=scores) == pytest.approx(np.mean(wins))


@quick
@given(rows=ranked(4))
def test_four_labels_equal_scikit_learn(rows):
    references, scores = rows
    assert value("roc_auc", references, scores=scores) == pytest.approx(
        roc_auc_score(references, scores, multi_class="ovr", average="macro", labels=range(4))
    )
    onehot = np.eye(4, dtype=int)[references]
    expected = average_precision_score(onehot, scores, average="macro")
    assert value("average_precision", references, scores=scores) == pytest.approx(expected)
    assert value("average_precision", onehot.tolist(), scores=scores) == pytest.approx(expected)
    assert value("roc_auc", onehot.tolist(), scores=scores) == pytest.approx(
        value("roc_auc", references, scores=scores)
    )


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
@quick
@given(rows=ranked(3))
def test_only_the_order_of_scores_counts(name, rows):
    references, scores = rows
    assert value(name, references, scores=np.exp(7 * scores)) == pytest.approx(value(name, references, scores=scores))


# ------------------------------------------------------------------------------------------------ groups, by hand


def test_group_exact_match_by_hand():
    # Question a: both right. b: one of two. c: its only answer is right.
    predictions, references = [1, 0, 1, 1, 0], [1, 0, 0, 1, 0]
    groups = ["a", "a", "b", "b", "c"]
    assert value("group_exact_match", references, predictions, groups=groups) == pytest.approx(2 / 3)
    # The same rows in another order: groups need not stand together.
    order = [2, 0, 4, 3, 1]
    assert value(
        "group_exact_match",
        [references[i] for i in order],
        [predictions[i] for i in order],
        groups=[groups[i] for i in order],
    ) == pytest.approx(2 / 3)


def test_groups_of_structs_and_of_label_lists():
    idx = [{"passage": 0, "query": 1}, {"query": 1, "passage": 0}, {"passage": 0, "query": 2}]
    assert value("group_exact_match", [1, 1, 1], [1, 0, 1], groups=idx) == 0.5
    assert value("group_exact_match", [[1, 0], [0, 1]], [np.array([1, 0]), [1, 1]], groups=[1, 2]) == 0.5
    assert value("group_exact_match", [["O"], ["B-X"]], [["O"], ["O"]], groups=[1, 1]) == 0.0


def test_gender_parity_by_hand():
    # Pairs 1 and 3 get one answer each, right or wrong; pair 2 gets two.
    assert value("gender_parity", [0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0], groups=[1, 1, 2, 2, 3, 3]) == pytest.approx(
        2 / 3
    )


# Two gaps. In the first, "Hugo Chavez" has the best score and is half of "President Chavez" (words hugo, chavez and
# president, chavez: 2·1 / (2 + 2)); in the second "The Alps" has it, and articles do not count.
GAPS = {
    "scores": binary([0.2, 0.7, 0.1, 0.6, 0.9]),
    "groups": ["g", "g", "g", "h", "h"],
    "candidates": ["Caracas", "Hugo Chavez", "Bolivar", "Rome", "The Alps"],
    "answers": [["President Chavez", "Bolivar"]] * 3 + [["Alps"]] * 2,
}


def test_the_best_candidate_of_each_gap():
    assert value("best_f1_answer", [0] * 5, **GAPS) == pytest.approx((0.5 + 1) / 2)
    assert value("best_exact_match", [0] * 5, **GAPS) == 0.5


def test_candidates_with_equal_scores_count_as_guessing():
    level = {**GAPS, "scores": binary([0.4] * 5)}
    # First gap: 0, ½ and 1 (Bolivar is an answer too). Second: 0 and 1.
    assert value("best_f1_answer", [0] * 5, **level) == pytest.approx((1.5 / 3 + 1 / 2) / 2)
    assert value("best_exact_match", [0] * 5, **level) == pytest.approx((1 / 3 + 1 / 2) / 2)


# ------------------------------------------------------------------------------------------------ groups, laws


@st.composite
def answered(draw):
    rows = draw(st.lists(st.tuples(*[st.integers(0, 1)] * 2, st.integers(0, 4)), min_size=1, max_size=25))
    return tuple(map(list, zip(*rows, strict=True)))


@quick
@given(rows=answered())
def test_multirc_equals_a_small_reference(rows):
    predictions, references, groups = rows
    questions = {}
    for predicted, expected, group in zip(*rows, strict=True):
        questions.setdefault(group, []).append(predicted == expected)
    em = sum(all(right) for right in questions.values()) / len(questions)
    found = score(["f1", "group_exact_match"], predictions, references, given={"groups": groups})
    assert found["group_exact_match"] == pytest.approx(em)
    # F1a: the F1 of "true" over all answers of all questions
    hits = sum(p and r for p, r in zip(predictions, references, strict=True))
    assert found["f1"] == pytest.approx(2 * hits / ((sum(predictions) + sum(references)) or 1))
    assert found["f1"] == pytest.approx(f1_score(references, predictions, zero_division=0))
    assert value("group_exact_match", references, predictions, groups=list(range(len(references)))) == pytest.approx(
        np.mean(np.equal(predictions, references))
    ), "with a group of its own for every row, it is accuracy"


@quick
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd")), min_size=1, max_size=20))
def test_record_equals_a_small_reference(rows):
    """Rows of (gap, candidate); the answers to every gap are b and c; scores all differ."""
    scores = np.linspace(0.1, 0.9, len(rows))[::-1].copy()
    scores[::2] = scores[::2][::-1]
    best = {}
    for (gap, candidate), number in zip(rows, scores, strict=True):
        if gap not in best or number > best[gap][0]:
            best[gap] = (number, candidate)
    em = sum(candidate in "bc" for _, candidate in best.values()) / len(best)
    given_ = {
        "scores": binary(scores),
        "groups": [gap for gap, _ in rows],
        "candidates": [candidate for _, candidate in rows],
        "answers": [["b", "C."]] * len(rows),
    }
    references = [0] * len(rows)
    assert value("best_exact_match", references, **given_) == pytest.approx(em)
    assert value("best_f1_answer", references, **given_) == pytest.approx(em), "of single words, F1 is exact match"


# ------------------------------------------------------------------------------------------------ what they need


def test_what_they_need():
    assert {name: needs(name) for name in NAMES} == {
        "average_precision": ("scores",),
        "best_exact_match": ("scores", "groups", "candidates", "answers"),
        "best_f1_answer": ("scores", "groups", "candidates", "answers"),
        "gender_parity": ("groups",),
        "group_exact_match": ("groups",),
        "roc_auc": ("scores",),
    }
    assert {name for name in registry.metrics if needs(name)} == set(NAMES)
    assert needs("evaluate:whatever") == ()


def test_score_hands_over_what_is_needed_and_no_more():
    given_ = {"scores": binary([0.1, 0.9]), "groups": [1, 2], "of no use": []}
    found = score(["accuracy", "roc_auc", "group_exact_match"], [0, 1], [0, 1], given=given_)
    assert found == {"accuracy": 1.0, "roc_auc": 1.0, "group_exact_match": 1.0}
    with pytest.raises(ConfigError, match=r"'best_f1_answer' needs `candidates` and `answers` for every row"):
        score(["best_f1_answer"], [0, 1], [0, 1], given=given_)
    with pytest.raises(ConfigError, match="'roc_auc' needs `scores`"):
        score(["roc_auc"], [0, 1], [0, 1])
    with pytest.raises(DataError, match="2 predictions but 3 `groups`"):
        score(["group_exact_match"], [0, 1], [0, 1], given={"groups": [1, 2, 3]})


@pytest.mark.parametrize(
    ("name", "references", "rows", "message"),
    [
        ("roc_auc", [0, 1], {"scores": [0.1, 0.9]}, r"one number per label, found shape \(2,\)"),
        ("roc_auc", [0, 1], {"scores": [[0.1], [0.2, 0.3]]}, "one number per label"),
        ("roc_auc", [0, 1], {"scores": [["x", "y"]] * 2}, "one number per label"),
        ("roc_auc", [0, 1], {"scores": [[0.1, 0.9], [math.nan, 0.5]]}, "the scores of row 1"),
        ("roc_auc", [0, 1, 1], {"scores": binary([0.1, 0.9])}, "do not fit references of shape"),
        ("roc_auc", [0, 1], {"scores": binary([0.1, 0.9]), "labels": ["a", "b", "c"]}, "and 3 labels"),
        ("roc_auc", [[0, 1, 1]], {"scores": binary([0.1])}, "do not fit references of shape"),
        ("roc_auc", [0, 2], {"scores": binary([0.1, 0.9])}, "label numbers below 2"),
        ("roc_auc", [0.0, 0.5], {"scores": binary([0.1, 0.9])}, "label numbers below 2"),
        ("average_precision", [["O"], ["B-X"]], {"scores": binary([0.1, 0.9])}, "label numbers below 2"),
        ("group_exact_match", [0, 1], {"groups": ["a", None]}, "row 1 has no group"),
        ("group_exact_match", [0, 1], {"groups": ["a"]}, "2 predictions but 1 groups"),
        ("gender_parity", [], {"groups": []}, "at least one row"),
        ("best_f1_answer", [0] * 5, {**GAPS, "candidates": [1, 2, 3, 4, 5]}, "candidate of row 0 is no text"),
        ("best_f1_answer", [0] * 5, {**GAPS, "answers": ["Alps"] * 5}, "same list of answers"),
        ("best_f1_answer", [0] * 5, {**GAPS, "answers": [None] * 5}, "same list of answers"),
        (
            "best_exact_match",
            [0] * 5,
            {**GAPS, "answers": [["a"], ["b"], ["c"], ["d"], ["e"]]},
            "in row 1 of group 'g'",
        ),
        ("best_exact_match", [0] * 5, {**GAPS, "candidates": ["a"]}, "5 scores but 1 `candidates`"),
        ("best_exact_match", [0] * 5, {**GAPS, "scores": binary([math.inf] * 5)}, "the scores of row 0"),
    ],
)
def test_bad_input(name, references, rows, message):
    with pytest.raises(DataError, match=message):
        registry.metrics[name](references, references, **rows)


@pytest.mark.parametrize("module", ["groups", "ranking"])
def test_doctests(module):
    assert doctest.testmod(importlib.import_module(f"nlp_mtl.metrics.{module}")).failed == 0
    for name in NAMES:
        for section in ("Range:", "References:", "Example:", ">>> "):
            assert section in registry.metrics[name].__doc__, (name, section)
