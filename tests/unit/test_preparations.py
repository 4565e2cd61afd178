"""Preparations: what each does to small rows, and that they are functions of the rows and nothing else."""

from __future__ import annotations

import copy

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import DataError
from tests.unit.preparation_cases import CASES

EACH = [(name, *case) for name, cases in CASES.items() for case in cases]


def test_every_preparation_is_tried_here():
    assert set(CASES) == set(registry.preparations.names())


@pytest.mark.parametrize(("name", "arguments", "given", "wanted"), EACH)
def test_what_it_does(name, arguments, given, wanted):
    made = registry.preparations[name](Dataset.from_dict(given), **arguments)
    assert made[:] == wanted


@pytest.mark.parametrize(("name", "arguments", "given", "wanted"), EACH)
def test_the_same_rows_give_the_same_rows_and_are_left_alone(name, arguments, given, wanted):
    rows, before, arguments_before = Dataset.from_dict(given), copy.deepcopy(given), copy.deepcopy(arguments)
    first = registry.preparations[name](rows, **arguments)
    second = registry.preparations[name](rows, **arguments)
    assert first[:] == second[:]
    assert first._fingerprint == second._fingerprint, "so that what was tokenized is found again"
    assert rows[:] == before
    assert arguments == arguments_before


@pytest.mark.parametrize(
    ("name", "arguments", "given", "wanted"), [case for case in EACH if case[0] not in ("last_rows", "shuffle_labels")]
)
def test_preparing_row_by_row_gives_the_same(name, arguments, given, wanted):
    rows = Dataset.from_dict(given)
    singly = [registry.preparations[name](rows.select([i]), **arguments).to_list() for i in range(len(rows))]
    kept = [row for part in singly for row in part]
    assert kept == [dict(zip(wanted, values, strict=True)) for values in zip(*wanted.values(), strict=True)]


def test_a_split_without_answers_keeps_their_type():
    rows = {"passage": ["p"], "query": ["@placeholder"], "entities": [["a"]], "idx": [{"passage": 0, "query": 1}]}
    features = Dataset.from_dict({**rows, "answers": [["a"]]}).features
    made = registry.preparations["gap_candidates"](Dataset.from_dict({**rows, "answers": [[]]}, features=features))
    assert made[:]["answers"] == [[]]
    assert made.features["answers"] == features["answers"]


def test_labels_of_marked_rows_keep_their_names():
    rows = {"text": ["It was he"], "a_text": ["it"], "a_index": [0], "label": [1]}
    made = registry.preparations["mark_spans"](
        Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["False", "True"])), spans={"a": "*"}
    )
    assert made.features["label"].names == ["False", "True"]
    assert made[0]["text"] == "*It* was he"


def test_a_long_file_whose_first_part_is_dropped():
    rows = Dataset.from_dict({"line": [*(["noise"] * 1500), "ham\thello", *(["noise"] * 1500)]})
    assert registry.preparations["sms_lines"](rows)[:] == {"text": ["hello"], "label": ["ham"]}


def test_many_rows_without_any_label_come_before_the_first_with_one():
    rows = Dataset.from_dict({"a": [*([0.0] * 1500), 1.0]})
    made = registry.preparations["labels_at_least"](rows, columns=["a"])
    assert made["labels"][:] == [*([[]] * 1500), ["a"]]


def test_unnest_reads_the_translations_of_the_hub_and_a_selection_of_rows():
    from datasets import Features, Translation

    pairs = [{"translation": {"de": f"Haus {n}", "en": f"house {n}"}} for n in range(5)]
    rows = Dataset.from_list(pairs, features=Features({"translation": Translation(languages=["de", "en"])}))
    made = registry.preparations["unnest"](rows.select([3, 1]), column="translation")
    assert made[:] == {"de": ["Haus 3", "Haus 1"], "en": ["house 3", "house 1"]}


def test_map_labels_counts_class_labels_by_number():
    rows = Dataset.from_dict({"y": [0, 1]}).cast_column("y", ClassLabel(names=["a", "b"]))
    assert registry.preparations["map_labels"](rows, column="y", names={"0": "A", "1": "B"})[:] == {"y": ["A", "B"]}


def test_drop_words_reads_tags_as_numbers_too():
    tags = Features({"w": List(Value("string")), "t": List(ClassLabel(names=["NOUN", "_"]))})
    rows = Dataset.from_dict({"w": [["du", "pain"]], "t": [[1, 0]]}, features=tags)
    made = registry.preparations["drop_words"](rows, words="w", tags="t", tag="_")
    assert made[:] == {"w": [["pain"]], "t": [[0]]}
    assert made.features == tags, "the names of the numbers are kept"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "date", "time"]), st.lists(st.sampled_from(["a", "b.", "c:d"]), min_size=1))
    )
)
def test_bracketed_slots_are_read_back_as_they_were_written(parts):
    words = [word for _, part in parts for word in part]
    tags = [f"{'BI'[n > 0]}-{slot}" if slot else "O" for slot, part in parts for n in range(len(part))]
    text = " ".join(f"[{slot} : {' '.join(part)}]" if slot else " ".join(part) for slot, part in parts)
    made = registry.preparations["bracketed_slots"](Dataset.from_dict({"m": [text]}), column="m")
    assert (made[0]["tokens"], made[0]["slots"]) == (words, tags)


@pytest.mark.parametrize(
    ("name", "arguments", "given", "words"),
    [
        (
            "map_labels",
            {"column": "y", "names": {"a": "A"}},
            {"y": ["a", "b"]},
            r"'b' in column 'y' is not among \['a'\]",
        ),
        (
            "cause_or_effect",
            {},
            {"premise": ["x"], "question": ["why"]},
            "row 0: column 'question' holds cause or effect, found 'why'",
        ),
        (
            "choice_texts",
            {},
            {"choices": [{"text": ["a", "b"], "label": ["1", "2"]}], "answerKey": ["B"]},
            r"row 0: column 'answerKey' holds one of the row's labels \['1', '2'\], found 'B'",
        ),
        (
            "choice_texts",
            {},
            {"choices": [{"text": ["a", "b"], "label": ["A"]}], "answerKey": ["A"]},
            "row 0: column 'choices' holds a label for each text, found 1 for 2",
        ),
        (
            "choice_texts",
            {},
            {"choices": [["a", "b"]], "answerKey": ["A"]},
            "row 0: column 'choices' holds lists `text` and `label`, found",
        ),
        (
            "fill_blank",
            {"column": "x", "choices": ["y"]},
            {"x": ["all _ is well", "no blank here"], "y": ["a", "b"]},
            "row 1: column 'x' holds texts with a blank '_', found 'no blank here'",
        ),
        (
            "mark_word",
            {},
            {
                "word": ["a"],
                "sentence1": ["a b"],
                "sentence2": ["a"],
                "start1": [0],
                "end1": [1],
                "start2": [0],
                "end2": [9],
            },
            r"characters 0 to 9 are no part of 'a' \(1 characters\)",
        ),
        ("mark_word", {"sentences": {"text": "from"}}, {"text": ["a"]}, "the columns of a start and an end, found"),
        (
            "mark_spans",
            {},
            {"text": ["Ann sang."], "span1_text": ["Eve"], "span1_index": [0], "span2_text": ["x"], "span2_index": [1]},
            "span1: 'Eve' does not stand in the text, neither at word 0 nor elsewhere: 'Ann sang.'",
        ),
        (
            "gap_candidates",
            {},
            {
                "passage": ["p"],
                "query": ["no gap"],
                "entities": [["a"]],
                "answers": [["a"]],
                "idx": [{"passage": 0, "query": 1}],
            },
            "the query 'no gap' has no '@placeholder'",
        ),
        (
            "gap_candidates",
            {"gap": "_"},
            {
                "passage": ["p"],
                "query": ["a _"],
                "entities": [[]],
                "answers": [["a"]],
                "idx": [{"passage": 0, "query": 1}],
            },
            "the query 'a _' has nothing in column 'entities'",
        ),
        ("last_rows", {"count": 0}, {"x": [1]}, "`count` is at least 1, found 0"),
        ("unnest", {"column": "x"}, {"x": [1], "y": [2]}, "column 'x' holds .*int64.*, not mappings"),
        ("unnest", {"column": "x"}, {"x": [{"y": 1}], "y": [2]}, "a field of 'x' has the name of a column: y"),
        ("label_at_least", {"column": "x", "names": ["a"]}, {"x": [1]}, r"`names` are two.* found \['a'\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(name, arguments, given, words):
    with pytest.raises(DataError, match=words):
        registry.preparations[name](Dataset.from_dict(given), **arguments)


def test_all_rows_that_cannot_be_prepared_are_named_at_once():
    rows = Dataset.from_dict({"x": ["a _"] * 5 + ["b", "c _", "d"] + ["e"] * 20, "y": ["f"] * 28})
    with pytest.raises(DataError) as caught:
        registry.preparations["fill_blank"](rows, column="x", choices=["y"])
    said = str(caught.value)
    assert "22 row(s) can't be prepared" in said
    assert "row 5: " in said
    assert "row 7: " in said
    assert "row 6: " not in said
    assert "… and 14 more" in said
    assert "way out" in said


def test_answers_are_numbers_even_where_the_first_thousand_rows_have_none():
    choices = [{"text": ["a", "b"], "label": ["A", "B"]}] * 1200
    rows = Dataset.from_dict({"choices": choices, "answerKey": [""] * 1100 + ["B"] * 100})
    made = registry.preparations["choice_texts"](rows)
    assert made["answerKey"][:] == [None] * 1100 + [1] * 100
    only = registry.preparations["choice_texts"](rows.select(range(10)))
    assert only.features == made.features, "a test split without answers has the same columns as the others"
