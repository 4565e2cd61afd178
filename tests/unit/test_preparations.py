"""Preparations: what each does to small rows, and that they are functions of the rows and nothing else."""

from __future__ import annotations

import copy

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import DataError

# name → (arguments, columns given, columns wanted)
CASES = {
    "drop_empty": [
        (
            {"columns": ["text"]},
            {"text": ["a", "", None, "  ", "b"], "n": [0, 1, 2, 3, 4]},
            {"text": ["a", "b"], "n": [0, 4]},
        ),
        ({"columns": ["n", "words"]}, {"n": [0, None, 2], "words": [["a"], ["b"], []]}, {"n": [0], "words": [["a"]]}),
        ({"columns": ["flag", "x"]}, {"flag": [False, True], "x": [0.0, None]}, {"flag": [False], "x": [0.0]}),
    ],
    "rename": [
        ({"columns": {"a": "text", "gone": "x"}}, {"a": ["1"], "b": ["2"]}, {"text": ["1"], "b": ["2"]}),
        ({"columns": {"a": "b", "b": "a"}}, {"a": ["1"], "b": ["2"]}, {"b": ["1"], "a": ["2"]}),
    ],
    "map_labels": [
        (
            {"column": "y", "names": {"0": "no", "1": "yes"}},
            {"y": [1, 0, None, 1], "x": ["a", "b", "c", "d"]},
            {"y": ["yes", "no", None, "yes"], "x": ["a", "b", "c", "d"]},
        ),
        ({"column": "y", "names": {"pos": "good"}}, {"y": ["pos"]}, {"y": ["good"]}),
        (
            {"column": "y", "names": {"pos": "good"}},
            {"x": ["a split without labels"]},
            {"x": ["a split without labels"]},
        ),
    ],
    "last_rows": [
        ({"count": 2}, {"x": [1, 2, 3]}, {"x": [2, 3]}),
        ({"count": 9}, {"x": [1, 2, 3]}, {"x": [1, 2, 3]}),
    ],
    "question_lines": [
        (
            {},
            {"line": ["NUM:date When was the war ?", "ABBR:exp  What is NASA?"]},
            {
                "text": ["When was the war ?", "What is NASA?"],
                "coarse_label": ["NUM", "ABBR"],
                "fine_label": ["NUM:date", "ABBR:exp"],
            },
        ),
        (
            {"column": "q"},
            {"q": ["HUM:ind Who?"]},
            {"text": ["Who?"], "coarse_label": ["HUM"], "fine_label": ["HUM:ind"]},
        ),
    ],
    "split_words": [
        (
            {"columns": ["words", "tags", "gone"]},
            {"words": ["a  b", "c", "d e"], "tags": [["X", "Y"], ["Z"], ["one too few"]], "n": [1, 2, 3]},
            {"words": [["a", "b"], ["c"]], "tags": [["X", "Y"], ["Z"]], "n": [1, 2]},
        ),
        ({"columns": ["words"]}, {"words": [None, "a"]}, {"words": [[], ["a"]]}),
    ],
    "sms_lines": [
        (
            {},
            {
                "line": [
                    "sms,spam,text",
                    '12,0,"say ""hi"" now"',
                    "13,1,Win, win",
                    "ham\tok, see you ",
                    'spam\tCall 0800"',
                    "2,7,no",
                ]
            },
            {
                "text": ['say "hi" now', "Win, win", "ok, see you", "Call 0800"],
                "label": ["ham", "spam", "ham", "spam"],
            },
        ),
    ],
    "sign_labels": [
        (
            {"column": "mean", "neutral": 0.5},
            {"mean": [-3.2, 0.4, 0.6, -0.5, 0.0], "text": list("abcde")},
            {"mean": [-3.2, 0.6], "text": ["a", "c"], "label": ["negative", "positive"]},
        ),
        ({"column": "mean", "label": "y"}, {"mean": ["1.5", "0"]}, {"mean": ["1.5"], "y": ["positive"]}),
    ],
    "cause_or_effect": [
        (
            {},
            {"premise": ["It rained.", "It rained."], "question": ["cause", "effect"], "label": [0, 1]},
            {
                "premise": ["It rained. What was the cause of this?", "It rained. What happened as a result?"],
                "question": ["cause", "effect"],
                "label": [0, 1],
            },
        ),
    ],
    "choice_texts": [
        (
            {},
            {
                "question": ["q1", "q2", "q3", "q4"],
                "choices": [
                    {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]},
                    {"text": ["e", "f", "g"], "label": ["1", "2", "3"]},
                    {"text": ["h", "i", "j", "k", "l"], "label": ["A", "B", "C", "D", "E"]},
                    {"text": ["m", "n"], "label": ["B", "A"]},
                ],
                "answerKey": ["B", "1", "", "A"],
            },
            {
                "question": ["q1", "q2", "q3", "q4"],
                "choices": [["a", "b", "c", "d"], ["e", "f", "g"], ["h", "i", "j", "k", "l"], ["m", "n"]],
                "answerKey": [1, 0, None, 1],
            },
        ),
        (
            {"column": "options", "answer": "right"},
            {"options": [[{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]] * 2, "right": ["B", None]},
            {"options": [["a", "b"]] * 2, "right": [1, None]},
        ),
        (
            {},
            {"choices": [{"text": ["a", "b"], "label": ["A", "B"]}], "id": ["a split without answers"]},
            {"choices": [["a", "b"]], "id": ["a split without answers"]},
        ),
    ],
    "fill_blank": [
        (
            {"column": "sentence", "choices": ["option1", "option2"]},
            {
                "sentence": ["The cat saw the dog but _ ran.", "_ ran.", None],
                "option1": ["the cat", "A", "a"],
                "option2": ["the dog", "B", "b"],
                "answer": ["1", "", "2"],
            },
            {
                "sentence": ["The cat saw the dog but", "", None],
                "option1": ["the cat ran.", "A ran.", "a"],
                "option2": ["the dog ran.", "B ran.", "b"],
                "answer": ["1", "", "2"],
            },
        ),
        (
            {"column": "x", "choices": ["y"], "blank": "[BLANK]"},
            {"x": ["snake_case is [BLANK] ."], "y": ["fine"]},
            {"x": ["snake_case is"], "y": ["fine ."]},
        ),
    ],
    "unnest": [
        (
            {"column": "t"},
            {"id": [1, 2], "t": [{"de": "ja", "en": "yes"}, {"de": "nein", "en": "no"}]},
            {"id": [1, 2], "de": ["ja", "nein"], "en": ["yes", "no"]},
        ),
        ({"column": "t"}, {"t": [{"a": 1, "b": None}]}, {"a": [1], "b": [None]}),
    ],
    "label_at_least": [
        (
            {"column": "r", "names": ["low", "high"]},
            {"r": [0.0, 0.49, 0.5, 1.0, None]},
            {"r": [0.0, 0.49, 0.5, 1.0, None], "label": ["low", "low", "high", "high", None]},
        ),
        ({"column": "r", "names": ["a", "b"], "label": "y", "at": 3}, {"r": [2, 3]}, {"r": [2, 3], "y": ["a", "b"]}),
    ],
    "labels_at_least": [
        (
            {"columns": ["b", "a"], "label": "y"},
            {"a": [0.5, 0.1, 0.9, None], "b": [0.7, 0.2, 0.4, 0.9]},
            {"a": [0.5, 0.1, 0.9, None], "b": [0.7, 0.2, 0.4, 0.9], "y": [["b", "a"], [], ["a"], None]},
        ),
        ({"columns": ["a"]}, {"a": [True, False]}, {"a": [True, False], "labels": [["a"], []]}),
    ],
    "keep_rows": [
        (
            {"column": "lang", "values": ["en", "de"]},
            {"lang": ["en", "fr", "de", None], "x": [1, 2, 3, 4]},
            {"lang": ["en", "de"], "x": [1, 3]},
        ),
        ({"column": "n", "values": [0]}, {"n": [1, 0]}, {"n": [0]}),
    ],
    "drop_words": [
        (
            {"words": "w", "tags": "t", "tag": "_"},
            {
                "w": [["du", "de", "le", "pain"], ["a"], []],
                "t": [["_", "ADP", "DET", "NOUN"], ["X"], []],
                "n": [1, 2, 3],
            },
            {"w": [["de", "le", "pain"], ["a"], []], "t": [["ADP", "DET", "NOUN"], ["X"], []], "n": [1, 2, 3]},
        ),
        (  # what does not fit is left for the check that names the row
            {"words": "w", "tags": "t", "tag": "_"},
            {"w": [["a", "b"], ["c"]], "t": [["_"], None]},
            {"w": [["a", "b"], ["c"]], "t": [["_"], None]},
        ),
    ],
    "bracketed_slots": [
        (
            {"column": "marked"},
            {
                "marked": [
                    "wake me at [time : nine am] [date : this week]",
                    "hello",
                    "play [song : up]beat's [genre : jazz]",
                ]
            },
            {
                "marked": [
                    "wake me at [time : nine am] [date : this week]",
                    "hello",
                    "play [song : up]beat's [genre : jazz]",
                ],
                "tokens": [["wake", "me", "at", "nine", "am", "this", "week"], ["hello"], ["play", "upbeat's", "jazz"]],
                "slots": [["O", "O", "O", "B-time", "I-time", "B-date", "I-date"], ["O"], ["O", "B-song", "B-genre"]],
            },
        ),
        (
            {"column": "m", "words": "w", "tags": "t"},
            {"m": ["[a : x][b : y] z", "[a:5:30]  p.m.", "left [over", "[no : w [in : w]]"]},
            {
                "m": ["[a : x][b : y] z", "[a:5:30]  p.m."],
                "w": [["xy", "z"], ["5:30", "p.m."]],
                "t": [["B-a", "O"], ["B-a", "O"]],
            },
        ),
    ],
}
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


@pytest.mark.parametrize(("name", "arguments", "given", "wanted"), [case for case in EACH if case[0] != "last_rows"])
def test_preparing_row_by_row_gives_the_same(name, arguments, given, wanted):
    rows = Dataset.from_dict(given)
    singly = [registry.preparations[name](rows.select([i]), **arguments).to_list() for i in range(len(rows))]
    kept = [row for part in singly for row in part]
    assert kept == [dict(zip(wanted, values, strict=True)) for values in zip(*wanted.values(), strict=True)]


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
