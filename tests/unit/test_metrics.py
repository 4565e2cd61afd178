"""Every metric against numbers worked out by hand, and against laws that hold for all inputs."""

import doctest
import importlib
import math
import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, UnknownNameError
from nlp_mtl.metrics import greater_is_better, key_of, normalize_answer, resolve, score

quick = settings(max_examples=30, deadline=None)

NAMES = [
    "accuracy",
    "exact_match",
    "f1",
    "f1_answer",
    "f1_favor_against",
    "f1_macro",
    "f1_micro",
    "mae",
    "matthews_correlation",
    "mse",
    "pearson",
    "recall_macro",
    "span_f1",
    "spearman",
]
MODULES = ["", ".answers", ".base", ".classification", ".regression", ".scoring", ".spans"]


# A metric that is undefined has a documented value, not a warning in everybody's log.
pytestmark = [pytest.mark.filterwarnings("error::UserWarning"), pytest.mark.filterwarnings("error::RuntimeWarning")]


def value(name, predictions, references, **labels):
    """The number that decides: the first one where a metric gives several."""
    result = registry.metrics[name](predictions, references, **labels)
    if isinstance(result, dict):
        assert next(iter(result)) == name
        result = result[name]
    assert type(result) is float
    return result


# ------------------------------------------------------------------------------------------------ strategies


def pairs(element, **size):
    """Predictions and references of equal length."""
    return st.lists(st.tuples(element, element), min_size=1, max_size=30, **size).map(
        lambda rows: tuple(map(list, zip(*rows, strict=True)))
    )


label_pairs = pairs(st.integers(0, 3))
number_pairs = pairs(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)))
word_answers = st.lists(st.sampled_from(["the", "whale", "blue", "1920", "a"]), max_size=4).map(" ".join)
answer_pairs = st.lists(st.tuples(word_answers, st.lists(word_answers, max_size=3)), min_size=1, max_size=10).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)


@st.composite
def multi_label_pairs(draw):
    width = draw(st.integers(1, 4))
    rows = st.lists(st.integers(0, 1), min_size=width, max_size=width)
    return draw(pairs(rows))


@st.composite
def sentence(draw, length):
    """Valid IOB2: an I- continues a span of its own type."""
    tags = []
    for _ in range(length):
        choices = ["O", "B-PER", "B-LOC", "B-a-b"]
        if tags and tags[-1] != "O":
            choices.append("I-" + tags[-1][2:])
        tags.append(draw(st.sampled_from(choices)))
    return tags


@st.composite
def tag_pairs(draw):
    lengths = draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    return [draw(sentence(n)) for n in lengths], [draw(sentence(n)) for n in lengths]


FORMS = [
    ("accuracy", label_pairs, 0, 1),
    ("accuracy", multi_label_pairs(), 0, 1),
    ("f1", label_pairs, 0, 1),
    ("f1_favor_against", label_pairs, 0, 1),
    ("f1_macro", label_pairs, 0, 1),
    ("f1_macro", multi_label_pairs(), 0, 1),
    ("f1_micro", label_pairs, 0, 1),
    ("f1_micro", multi_label_pairs(), 0, 1),
    ("matthews_correlation", label_pairs, -1, 1),
    ("recall_macro", label_pairs, 0, 1),
    ("recall_macro", multi_label_pairs(), 0, 1),
    ("pearson", number_pairs, -1, 1),
    ("spearman", number_pairs, -1, 1),
    ("mse", number_pairs, 0, math.inf),
    ("mae", number_pairs, 0, math.inf),
    ("span_f1", tag_pairs(), 0, 1),
    ("exact_match", answer_pairs, 0, 1),
    ("f1_answer", answer_pairs, 0, 1),
]
forms = pytest.mark.parametrize(
    ("name", "form", "low", "high"), FORMS, ids=[f"{f[0]}-{i}" for i, f in enumerate(FORMS)]
)


# ------------------------------------------------------------------------------------------------ laws


@forms
@quick
@given(data=st.data())
def test_range_and_permutation(name, form, low, high, data):
    predictions, references = data.draw(form)
    before = registry.metrics[name](predictions, references)
    order = data.draw(st.permutations(range(len(predictions))))
    after = registry.metrics[name]([predictions[i] for i in order], [references[i] for i in order])
    before, after = (result if isinstance(result, dict) else {name: result} for result in (before, after))
    assert before.keys() == after.keys()
    for key in before:
        assert low - 1e-9 <= before[key] <= high + 1e-9
        assert after[key] == pytest.approx(before[key], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "f1_micro", "recall_macro"])
@quick
@given(rows=label_pairs)
def test_perfect_labels(name, rows):
    assert value(name, rows[1], rows[1]) == 1.0


@quick
@given(rows=label_pairs)
def test_perfect_labels_where_both_kinds_are_needed(rows):
    labels = rows[1]
    assert value("f1", labels, labels) == (1.0 if 1 in labels else 0.0)
    assert value("matthews_correlation", labels, labels) == pytest.approx(1.0 if len(set(labels)) > 1 else 0.0)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "f1_micro", "recall_macro"])
@quick
@given(rows=multi_label_pairs())
def test_perfect_multi_label(name, rows):
    labels = rows[1]
    if name != "accuracy":
        assume(all(any(column) for column in zip(*labels, strict=True)))
    assert value(name, labels, labels) == pytest.approx(1.0)


def test_rows_with_one_label_are_scored_by_that_label():
    """Their 0 is no class of its own: with more labels it is none either."""
    predicted, expected = [[1], [0], [0], [0]], [[1], [1], [0], [0]]
    assert value("f1_macro", predicted, expected) == value("f1_micro", predicted, expected) == pytest.approx(2 / 3)


@quick
@given(rows=number_pairs)
def test_perfect_numbers(rows):
    numbers = rows[1]
    assert value("mse", numbers, numbers) == value("mae", numbers, numbers) == 0.0
    expected = 1.0 if len(set(numbers)) > 1 else 0.0
    assert value("spearman", numbers, numbers) == pytest.approx(expected)
    assert value("pearson", numbers, numbers) == pytest.approx(expected)


@quick
@given(rows=tag_pairs())
def test_perfect_tags(rows):
    tags = rows[1]
    result = registry.metrics["span_f1"](tags, tags)
    some = any(tag != "O" for row in tags for tag in row)
    assert set(result.values()) == ({1.0} if some else {0.0})
    if any(tags):
        assert value("accuracy", tags, tags) == 1.0


@quick
@given(rows=answer_pairs)
def test_perfect_answers(rows):
    references = rows[1]
    first = [max(answers, key=lambda text: len(normalize_answer(text)), default="") for answers in references]
    assert value("exact_match", first, references) == value("f1_answer", first, references) == 1.0


@quick
@given(rows=answer_pairs)
def test_exact_match_is_at_most_f1(rows):
    assert value("exact_match", *rows) <= value("f1_answer", *rows) + 1e-12


@quick
@given(rows=label_pairs)
def test_f1_macro_and_micro_equal_their_definitions(rows):
    def counts(c):
        return [
            sum((p == c) and (r == c) for p, r in zip(*rows, strict=True)),
            sum((p == c) and (r != c) for p, r in zip(*rows, strict=True)),
            sum((p != c) and (r == c) for p, r in zip(*rows, strict=True)),
        ]

    classes = sorted({*rows[0], *rows[1]})
    each = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in map(counts, classes)]
    assert value("f1_macro", *rows) == pytest.approx(sum(each) / len(each))
    tp, fp, fn = (sum(column) for column in zip(*map(counts, classes), strict=True))
    assert value("f1_micro", *rows) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert value("f1_micro", *rows) == pytest.approx(value("accuracy", *rows))
    tp, fp, fn = counts(2)
    assert value("f1", *rows, labels=["a", "b", "c"]) == pytest.approx(2 * tp / ((2 * tp + fp + fn) or 1))
    found = [tp / ((tp + fn) or 1) for tp, fp, fn in map(counts, classes)]
    assert value("recall_macro", *rows) == pytest.approx(sum(found) / len(found))
    two = [2 * tp / ((2 * tp + fp + fn) or 1) for tp, fp, fn in map(counts, (1, 3))]
    assert value("f1_favor_against", *rows, labels=["a", "favor", "b", "against"]) == pytest.approx(sum(two) / 2)


@quick
@given(rows=label_pairs)
def test_recall_macro_of_one_answer_for_all_is_one_of_the_classes(rows):
    references = rows[1]
    assert value("recall_macro", [references[0]] * len(references), references) == pytest.approx(
        1 / len(set(references))
    )


@quick
@given(rows=pairs(st.integers(0, 1)))
def test_matthews_of_two_classes_is_pearson(rows):
    assert value("matthews_correlation", *rows) == pytest.approx(value("pearson", *rows), abs=1e-9)


@quick
@given(rows=number_pairs)
def test_spearman_sees_only_the_order(rows):
    predictions, references = rows
    assert value("spearman", [math.atan(p) for p in predictions], references) == pytest.approx(
        value("spearman", predictions, references), abs=1e-9
    )


def valid_spans(tags):
    """Spans of valid IOB2, in ten lines."""
    spans, start = set(), None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and not tag.startswith("I-"):
            spans.add((start, i, tags[start][2:]))
            start = None
        if tag.startswith("B-"):
            start = i
    return spans


@quick
@given(rows=tag_pairs())
def test_span_f1_equals_sets_of_spans(rows):
    ours, theirs = ({(n, *s) for n, tags in enumerate(side) for s in valid_spans(tags)} for side in rows)
    result = registry.metrics["span_f1"](*rows)
    f1 = lambda a, b: 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0  # noqa: E731
    expected = {
        "span_f1": f1(ours, theirs),
        "span_precision": len(ours & theirs) / len(ours) if ours else 0.0,
        "span_recall": len(ours & theirs) / len(theirs) if theirs else 0.0,
    }
    for type_ in {span[3] for span in ours | theirs}:
        expected[f"span_f1_{type_}"] = f1({s for s in ours if s[3] == type_}, {s for s in theirs if s[3] == type_})
    assert result == pytest.approx(expected)


any_tag = st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y", "E-X", "S-Y"])


@quick
@given(rows=st.lists(pairs(any_tag), min_size=1, max_size=5))
def test_span_f1_equals_seqeval_on_any_tags(rows):
    from seqeval.metrics import f1_score, precision_score, recall_score

    predictions, references = ([row[side] for row in rows] for side in (0, 1))
    result = registry.metrics["span_f1"](predictions, references)
    for key, theirs in (("span_f1", f1_score), ("span_precision", precision_score), ("span_recall", recall_score)):
        assert result[key] == pytest.approx(theirs(references, predictions, zero_division=0))


@quick
@given(
    text=st.text() | st.lists(st.sampled_from(["The", "A.", "an", "t.he", "İ", "“a”", "ΑΣ", "\u00a0"])).map(" ".join)
)
def test_normalize_answer_is_idempotent(text):
    once = normalize_answer(text)
    assert normalize_answer(once) == once
    assert once == once.strip()


# ------------------------------------------------------------------------------------------------ by hand


def test_accuracy():
    assert value("accuracy", [0, 1, 2, 2], [0, 1, 1, 2]) == 3 / 4
    # Tags: 2 + 1 + 0 tokens are right of 3 + 2 + 0, the empty sentence counts for nothing.
    assert value("accuracy", [["A", "B", "C"], ["D", "E"], []], [["A", "B", "X"], ["D", "X"], []]) == 3 / 5
    # Multi-label: the second row has one of two wrong, so all of it is wrong.
    assert value("accuracy", [[1, 0], [1, 1], [0, 0]], [[1, 0], [0, 1], [0, 0]]) == pytest.approx(2 / 3)
    assert value("accuracy", np.array([1, 0]), [1, 1]) == 0.5
    assert value("accuracy", np.array([[1, 0], [0, 1]]), np.array([[1, 0], [1, 1]])) == 0.5


def test_f1():
    # TP 1, FP 1, FN 2: 2 / (2 + 1 + 2).
    assert value("f1", [1, 1, 0, 0], [1, 0, 1, 1]) == pytest.approx(2 / 5)
    # The last of three labels is number 2: TP 1, FP 0, FN 1.
    assert value("f1", [2, 0, 1], [2, 2, 1], labels=["a", "b", "c"]) == pytest.approx(2 / 3)
    assert value("f1", [0, 0], [0, 0]) == 0.0


def test_f1_macro():
    # Class 0: TP 2, FP 0, FN 1 → 4/5. Class 1: TP 1, FP 1, FN 0 → 2/3.
    assert value("f1_macro", [0, 1, 1, 0], [0, 1, 0, 0]) == pytest.approx((4 / 5 + 2 / 3) / 2)
    # Class 2 is never predicted and never right: it would not count.
    assert value("f1_macro", [0, 1, 1, 0], [0, 1, 0, 0], labels=["a", "b", "c"]) == pytest.approx((4 / 5 + 2 / 3) / 2)
    # Columns: TP 1 FP 1 FN 0 → 2/3; TP 1 → 1; nothing at all → 0.
    assert value("f1_macro", [[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0]]) == pytest.approx((2 / 3 + 1 + 0) / 3)
    # Tags, over tokens. A: TP 1, FN 1 → 2/3. B: TP 1, FP 1 → 2/3.
    assert value("f1_macro", [["A", "B"], ["B"]], [["A", "A"], ["B"]]) == pytest.approx(2 / 3)


def test_f1_micro():
    # TP 2, FP 1, FN 1: 4 / 6.
    assert value("f1_micro", [[1, 0], [1, 1]], [[1, 1], [0, 1]]) == pytest.approx(4 / 6)
    assert value("f1_micro", [[0, 0]], [[0, 0]]) == 0.0
    assert value("f1_micro", [0, 1, 2], [0, 1, 1]) == pytest.approx(2 / 3)


def test_recall_macro():
    # Class 0: 2 of 3 found. Class 1: 1 of 1.
    assert value("recall_macro", [0, 1, 1, 0], [0, 1, 0, 0]) == pytest.approx((2 / 3 + 1) / 2)
    # Class 2 is predicted once and never right: it adds 0 to the sum and 1 to the count.
    assert value("recall_macro", [0, 1, 2], [0, 1, 1]) == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Columns: 1 of 1 found; 1 of 2; none to be found.
    assert value("recall_macro", [[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [0, 1, 0]]) == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Tags, over tokens. A: 1 of 2. B: 1 of 1.
    assert value("recall_macro", [["A", "B"], ["B"]], [["A", "A"], ["B"]]) == pytest.approx(3 / 4)


def test_f1_favor_against():
    labels = ["none", "against", "favor"]
    # Favor: TP 1, FP 1, FN 0 → 2/3. Against: TP 1, FP 0, FN 2 → 2/4. None (TP 1, FP 1, FN 0) has no say of its own.
    predictions, references = [2, 2, 1, 0, 0], [2, 1, 1, 1, 0]
    expected = {"f1_favor_against": (2 / 3 + 1 / 2) / 2, "f1_favor": 2 / 3, "f1_against": 1 / 2}
    assert registry.metrics["f1_favor_against"](predictions, references, labels=labels) == pytest.approx(expected)
    # Without labels, TweetEval's order; with them, wherever the names are.
    assert registry.metrics["f1_favor_against"](predictions, references) == pytest.approx(expected)
    turned = [[2 - number for number in side] for side in (predictions, references)]
    assert registry.metrics["f1_favor_against"](*turned, labels=labels[::-1]) == pytest.approx(expected)
    # Nobody says favor: its F1 is 0, not left out of the mean.
    assert value("f1_favor_against", [1, 1], [1, 1], labels=labels) == 0.5
    assert value("f1_favor_against", [0, 0], [0, 0], labels=labels) == 0.0


def test_f1_favor_against_needs_its_labels():
    with pytest.raises(DataError, match="favor is not among con, against; use f1_macro"):
        registry.metrics["f1_favor_against"]([0], [1], labels=["con", "against"])
    with pytest.raises(DataError, match="favor and against is not among a, b"):
        registry.metrics["f1_favor_against"]([0], [1], labels=["a", "b"])


def test_matthews_correlation():
    # TP 1, FP 1, TN 2, FN 0: (1·2 - 1·0) / √(2·1·3·2).
    assert value("matthews_correlation", [1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx(2 / math.sqrt(12))
    assert value("matthews_correlation", [1, 0], [0, 1]) == pytest.approx(-1.0)
    # Three classes; n = 4, 3 right; predicted 1, 1, 2 times, truly 1, 2, 1 times.
    # (3·4 - (1·1 + 1·2 + 2·1)) / √((16 - (1+1+4))·(16 - (1+4+1))) = 7 / 10.
    assert value("matthews_correlation", [0, 1, 2, 2], [0, 1, 1, 2]) == pytest.approx(0.7)
    assert value("matthews_correlation", [1, 1], [1, 1]) == 0.0
    assert value("matthews_correlation", [1, 1], [1, 0]) == 0.0


def test_pearson_and_spearman():
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / √(2·2).
    assert value("pearson", [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(0.5)
    assert value("pearson", [1.0, 2.0], [5.0, -5.0]) == pytest.approx(-1.0)
    # Ranks 1 2 3 4 and 1 2 4 3: Σd² = 2, 1 - 6·2 / (4·15).
    assert value("spearman", [0.1, 0.2, 5.0, 90.0], [1.0, 2.0, 4.0, 3.0]) == pytest.approx(0.8)
    # Equal values share the mean rank: 1.5 1.5 3 and 1 2 3; deviations (-.5, -.5, 1), (-1, 0, 1): 1.5 / √(1.5·2).
    assert value("spearman", [7.0, 7.0, 9.0], [1.0, 2.0, 3.0]) == pytest.approx(1.5 / math.sqrt(3))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_numbers_give_zero(name):
    assert value(name, [2.5, 2.5, 2.5], [1.0, 2.0, 3.0]) == 0.0
    assert value(name, [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == 0.0
    assert value(name, [1.0], [2.0]) == 0.0


def test_correlation_of_values_that_overflow_is_no_nan():
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert value("pearson", [1e308, 1e308, 1.1e308], [1.0, 2.0, 3.0]) == 0.0


def test_errors():
    # Differences 0 and 3.
    assert value("mse", [1.0, 2.0], [1.0, 5.0]) == pytest.approx(9 / 2)
    assert value("mae", [1.0, 2.0], [1.0, 5.0]) == pytest.approx(3 / 2)
    assert value("mse", np.float32([0.5]), [0]) == 0.25


def test_span_f1():
    predictions = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "I-ORG"], []]
    references = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "O"], []]
    # Predicted: PER 0-1, LOC 3, ORG 0-1. True: PER 0-1, ORG 3, ORG 0. One in common, 3 and 3 spans.
    assert registry.metrics["span_f1"](predictions, references) == pytest.approx(
        {
            "span_f1": 1 / 3,
            "span_precision": 1 / 3,
            "span_recall": 1 / 3,
            "span_f1_LOC": 0.0,
            "span_f1_ORG": 0.0,
            "span_f1_PER": 1.0,
        }
    )


def test_span_f1_reads_tags_like_conlleval():
    # An I- after O, or of another type, begins a span: X 1-1, Y 2-2. Strict IOB2 would see no span at all.
    result = registry.metrics["span_f1"]([["O", "I-X", "I-Y"]], [["O", "B-X", "B-Y"]])
    assert result["span_f1"] == 1.0
    # Two B- in a row are two spans, B- I- is one: none in common.
    assert value("span_f1", [["B-X", "B-X"]], [["B-X", "I-X"]]) == 0.0
    # A span does not go on into the next sentence.
    assert value("span_f1", [["B-X"], ["I-X"]], [["B-X"], ["B-X"]]) == 1.0


def test_span_f1_without_spans():
    zero = {"span_f1": 0.0, "span_precision": 0.0, "span_recall": 0.0}
    assert registry.metrics["span_f1"]([["O"]], [["O"]]) == zero
    assert registry.metrics["span_f1"]([[], []], [[], []]) == zero
    assert registry.metrics["span_f1"]([np.array(["O", "O"])], [("O", "O")]) == zero


def test_normalize_answer():
    assert normalize_answer("The  U.S.\tSenate!") == "us senate"
    assert normalize_answer("an apple, a day") == "apple day"
    assert normalize_answer("theatre another") == "theatre another"
    assert normalize_answer("the") == ""
    # Only ASCII punctuation goes; an article next to other punctuation is still a word of its own.
    assert normalize_answer("“Moby-Dick” – A whale…") == "“mobydick” – whale…"
    assert normalize_answer("¿the?") == "¿"


def test_exact_match():
    predictions = ["the Senate.", "in 1920", "", "something"]
    references = [["Senate", "U.S. Senate"], ["1920"], [], []]
    # Right: 1 of 2 with an answer, 1 of 2 without.
    assert registry.metrics["exact_match"](predictions, references) == {
        "exact_match": 0.5,
        "exact_match_has_answer": 0.5,
        "exact_match_no_answer": 0.5,
    }
    assert registry.metrics["exact_match"](predictions[:2], references[:2]) == {"exact_match": 0.5}
    assert registry.metrics["exact_match"](predictions[2:], references[2:]) == {"exact_match": 0.5}


def test_f1_answer():
    predictions = ["in the year 1920", "b b c", "", "word", ""]
    references = [["1920", "year 1920"], ["b c c"], [], [], ["word"]]
    # in year 1920 / year 1920: 2·2 / (3 + 2). b b c / b c c share b and c: 2·2 / (3 + 3). Then 1, 0, 0.
    assert registry.metrics["f1_answer"](predictions, references) == pytest.approx(
        {
            "f1_answer": (0.8 + 2 / 3 + 1) / 5,
            "f1_answer_has_answer": (0.8 + 2 / 3) / 3,
            "f1_answer_no_answer": 0.5,
        }
    )


def test_answers_that_normalise_to_nothing():
    # SQuAD 2.0 passes over them while there are others, so "" is wrong for the first and right for the second.
    result = registry.metrics["exact_match"](["", "the"], [["the", "whale"], ["a"]])
    assert result == {"exact_match": 0.5}


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", NAMES)
def test_unequal_lengths_and_no_rows(name):
    with pytest.raises(DataError, match="2 predictions but 3 references"):
        registry.metrics[name]([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="at least one row"):
        registry.metrics[name]([], [])


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("accuracy", [["A"], ["B", "C"]], [["A"], ["B"]], "row 1 has 2 predicted values but 1 references"),
        ("accuracy", [[], []], [[], []], "every row is empty"),
        ("accuracy", [0, 1], [[0], [1]], "expected two lists"),
        ("accuracy", ["yes"], [1], "label numbers"),
        ("accuracy", [[1], [1, 0]], [[1], [1, 0]], "same length"),
        ("f1_micro", [[0.3, 0.9]], [[0, 1]], "0 and 1 only"),
        ("f1", [[1, 0]], [[1, 0]], "f1_micro or f1_macro"),
        ("f1", [["A"]], [["A"]], "label numbers"),
        ("matthews_correlation", [[1, 0]], [[1, 0]], "f1_micro or f1_macro"),
        ("f1_favor_against", [[1, 0]], [[1, 0]], "f1_micro or f1_macro"),
        ("f1_favor_against", [["A"]], [["A"]], "label numbers"),
        ("pearson", [1.0, math.nan], [1.0, 2.0], "prediction of row 1 is nan"),
        ("mse", [1.0], [math.inf], "reference of row 0 is inf"),
        ("mae", [[1.0]], [[1.0]], "one number"),
        ("mae", ["x"], [1.0], "must be a number"),
        ("span_f1", [["NN", "VB"]], [["NN", "VB"]], "found 'NN', 'VB'"),
        ("span_f1", [[1]], [["O"]], "IOB2"),
        ("span_f1", ["O"], ["O"], "expected two lists"),
        ("span_f1", [["O"]], [["O", "O"]], "row 0 has 1 predicted values but 2 references"),
        ("exact_match", ["a"], ["a"], "list of strings"),
        ("f1_answer", ["a"], [{"text": ["a"]}], "list of strings"),
        ("f1_answer", [None], [["a"]], "row 0"),
    ],
)
def test_bad_input(name, predictions, references, message):
    with pytest.raises(DataError, match=message):
        registry.metrics[name](predictions, references)


# ------------------------------------------------------------------------------------------------ names


def test_registered_names_and_attributes():
    assert set(NAMES) <= set(registry.metrics)
    assert {name for name in NAMES if not greater_is_better(name)} == {"mse", "mae"}
    for name in NAMES:
        function = registry.metrics[name]
        for section in ("Range:", "References:", "Example:", ">>> "):
            assert section in function.__doc__, (name, section)
        assert key_of(name) == name


@pytest.mark.parametrize("module", MODULES)
def test_doctests(module):
    module = importlib.import_module("nlp_mtl.metrics" + module)
    assert doctest.testmod(module).failed == 0


def test_every_metric_has_a_doctest_that_runs():
    finder = doctest.DocTestFinder()
    found = Counter()
    for module in MODULES[1:]:
        for test in finder.find(importlib.import_module("nlp_mtl.metrics" + module)):
            found[test.name.rpartition(".")[2]] += len(test.examples)
    assert all(found[name] for name in NAMES)


def test_import_is_light():
    code = "import sys, nlp_mtl.metrics as m; m.key_of('f1'); print([x for x in sys.argv[1:] if x in sys.modules])"
    heavy = ["numpy", "sklearn", "scipy", "seqeval", "evaluate", "torch"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_metric():
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        resolve("acuracy")


# ------------------------------------------------------------------------------------------------ score


def test_score_flattens_and_keeps_the_order():
    tags = [["B-PER", "O"]]
    assert list(score(["accuracy", "span_f1"], tags, tags)) == [
        "accuracy",
        "span_f1",
        "span_precision",
        "span_recall",
        "span_f1_PER",
    ]
    assert score(["f1"], [0, 2], [2, 2], labels=["a", "b", "c"]) == {"f1": pytest.approx(2 / 3)}
    assert score(["f1", "f1"], [1], [1]) == {"f1": 1.0}
    assert score("f1", [1], [1]) == {"f1": 1.0}


def test_score_refuses():
    with pytest.raises(DataError, match="2 predictions but 1 references"):
        score(["accuracy"], [1, 2], [1])
    with pytest.raises(DataError, match="at least one row"):
        score(["accuracy"], [], [])
    with pytest.raises(UnknownNameError):
        score(["accuracy", "nonsense"], [1], [1])
    with pytest.raises(ConfigError, match="same name"):
        score(["accuracy", "evaluate:some/accuracy"], [1], [1])


@pytest.fixture
def own_metrics(monkeypatch):
    """Metrics of a user's own file, forgotten afterwards."""
    registry.metrics.names()
    monkeypatch.setattr(registry.metrics, "_entries", dict(registry.metrics._entries))
    return registry.metrics.register


def test_a_users_own_metric(own_metrics):
    @own_metrics("fixed")
    def fixed(predictions, references, *, labels=None):
        return {"extra": 2, "accuracy": 0.25, "fixed": np.float32(0.5)}

    # Its own name comes first; "accuracy" is taken by the metric of that name.
    result = score(["fixed", "accuracy"], [1], [1])
    assert result == {"fixed": 0.5, "extra": 2.0, "fixed_accuracy": 0.25, "accuracy": 1.0}
    assert next(iter(result)) == "fixed"
    assert all(type(number) is float for number in result.values())
    assert greater_is_better("fixed")


def test_a_users_metric_without_its_own_name(own_metrics):
    own_metrics("nameless")(lambda predictions, references, *, labels=None: {"other": 1.0})
    with pytest.raises(ConfigError, match="'nameless'"):
        score(["nameless"], [1], [1])


# ------------------------------------------------------------------------------------------------ evaluate


def write_metric(folder, name, values, attribute=""):
    script = f"""
        import datasets
        import evaluate

        class Local(evaluate.Metric):
            {attribute}
            def _info(self):
                number = datasets.Value("int64")
                features = datasets.Features({{"predictions": number, "references": number}})
                return evaluate.MetricInfo(description="local", citation="", inputs_description="", features=features)

            def _compute(self, predictions, references):
                right = sum(p == r for p, r in zip(predictions, references))
                return {values}
    """
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(textwrap.dedent(script))
    return f"evaluate:{folder / name}"


def test_evaluate_folder(tmp_path):
    name = write_metric(
        tmp_path, "my_right", '{"my_right": right, "per-class/F 1": {"a b": 0.5}, "list": [1, 2], "text": "x"}'
    )
    assert key_of(name) == key_of(name + "/") == "my_right"
    expected = {"my_right": 2.0, "per_class_F_1_a_b": 0.5}
    assert resolve(name)([1, 2, 3], [1, 2, 4]) == expected
    # Again, with other rows: nothing is left over from the last call.
    assert score([name, "accuracy"], [1], [1]) == {**expected, "my_right": 1.0, "accuracy": 1.0}
    assert resolve(name) is resolve(name)
    assert greater_is_better(name)


def test_evaluate_metric_without_a_value_of_its_own_name(tmp_path):
    name = write_metric(tmp_path, "several", '{"accuracy": 0.25, "f1": 0.5}', "greater_is_better = False")
    result = score([name, "accuracy"], [1], [1])
    assert result == {"several": 0.25, "several_accuracy": 0.25, "f1": 0.5, "accuracy": 1.0}
    assert next(iter(result)) == "several"
    assert not greater_is_better(name)


def test_evaluate_relative_script_and_error_metric(tmp_path, monkeypatch):
    write_metric(tmp_path, "wer", '{"wer": 0.125}')
    monkeypatch.chdir(tmp_path)
    assert resolve("evaluate:wer/wer.py")([1], [1]) == {"wer": 0.125}
    assert key_of("evaluate:wer/wer.py") == "wer"
    assert not greater_is_better("evaluate:wer")


def test_evaluate_gives_no_number(tmp_path):
    name = write_metric(tmp_path, "wordy", '{"text": "good"}')
    with pytest.raises(ConfigError, match="no number"):
        score([name], [1], [1])


def test_evaluate_that_can_not_be_loaded(tmp_path):
    with pytest.raises(NotFoundError, match=r"(?s)Tried.*nothing.py is not there.*evaluate\.load.*Ways out"):
        resolve(f"evaluate:{tmp_path}/nothing")
    (tmp_path / "empty.py").write_text("import os\n")
    with pytest.raises(NotFoundError, match=r"(?s)empty.py is there.*TypeError"):
        resolve(f"evaluate:{tmp_path}/empty.py")
    with pytest.raises(ConfigError, match="write the name or folder"):
        resolve("evaluate:")
