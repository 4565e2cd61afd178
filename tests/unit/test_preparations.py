"""Preparations: what each does to small rows, and that they are functions of the rows and nothing else."""

from __future__ import annotations

import copy

import pytest
from datasets import ClassLabel, Dataset

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
    "mark_word": [
        (
            {},
            {
                "word": ["run", "bank"],
                "sentence1": ["She ran for the bus.", "On the bank"],
                "sentence2": ["A run of luck.", "Banks and a bank."],
                "start1": [4, 7],
                "end1": [7, 11],
                "start2": [2, 0],
                "end2": [5, 5],
            },
            {
                "word": ["run", "bank"],
                "sentence1": ["She *ran* for the bus.", "On the *bank*"],
                "sentence2": ["A *run* of luck.", "*Banks* and a bank."],
                "start1": [4, 7],
                "end1": [7, 11],
                "start2": [2, 0],
                "end2": [5, 5],
            },
        ),
        # A copy without offsets: equal, inflected, with the longest common beginning; "ran" is too far from "run".
        (
            {},
            {
                "word": ["carry", "meeting", "run", "self-help"],
                "sentence1": ["He carried a car .", "Meet me at the meeting .", "She ran .", "A book on Self-help ."],
                "sentence2": ["Carry on .", "No meetings .", "run , run !", "It helps the self ."],
            },
            {
                "word": ["carry", "meeting", "run", "self-help"],
                "sentence1": [
                    "He *carried* a car .",
                    "Meet me at the *meeting* .",
                    "She ran .",
                    "A book on *Self-help* .",
                ],
                "sentence2": ["*Carry* on .", "No *meetings* .", "*run* , run !", "It helps the self ."],
            },
        ),
        (
            {"sentences": {"text": ["from", "to"]}, "mark": "|"},
            {"word": ["b"], "text": ["a b"], "from": [2], "to": [3]},
            {"word": ["b"], "text": ["a |b|"], "from": [2], "to": [3]},
        ),
    ],
    "mark_spans": [
        (
            {},
            {
                "text": [
                    "Ann told Eve many lies about herself, which Eve kept. She should have known.",
                    "The dogs saw the dogs. They barked.",
                    'He said: "She left."',
                    "Ann , who was late , and Eve came . They sat .",
                ],
                "span1_text": ["eve", "the dogs.", "He", "Ann and Eve"],
                "span1_index": [2, 3, 0, 0],
                "span2_text": ["She", "they", "she", "They"],
                "span2_index": [10, 5, 2, 9],
            },
            {
                "text": [
                    "Ann told *Eve* many lies about herself, which Eve kept. #She# should have known.",
                    "The dogs saw *the dogs*. #They# barked.",
                    '*He* said: "#She# left."',
                    "*Ann* , who was late , and Eve came . #They# sat .",
                ],
                "span1_text": ["eve", "the dogs.", "He", "Ann and Eve"],
                "span1_index": [2, 3, 0, 0],
                "span2_text": ["She", "they", "she", "They"],
                "span2_index": [10, 5, 2, 9],
            },
        ),
        # The word number is not where the text has it: the nearest place counts; "Ann" is no part of "Anna".
        (
            {"text": "t", "spans": {"a": "_"}},
            {"t": ["Ann saw Anna and Ann\nLee"], "a_text": ["Ann Lee"], "a_index": [2]},
            {"t": ["Ann saw Anna and _Ann\nLee_"], "a_text": ["Ann Lee"], "a_index": [2]},
        ),
        (
            {"text": "t", "spans": {"a": "_"}},
            {"t": ["Ann saw Anna and Ann"], "a_text": ["Ann"], "a_index": [3]},
            {"t": ["Ann saw Anna and _Ann_"], "a_text": ["Ann"], "a_index": [3]},
        ),
    ],
    "question_answers": [
        (
            {},
            {
                "paragraph": ["p"] * 3,
                "question": ["Who sang? ", "Who sang? ", "When?"],
                "answer": [" Ann", "Eve", "At noon"],
                "idx": [{"paragraph": 2, "question": q, "answer": a} for q, a in ((5, 11), (5, 12), (6, 13))],
                "label": [1, 0, -1],
            },
            {
                "paragraph": ["p"] * 3,
                "question": ["Who sang? Ann", "Who sang? Eve", "When? At noon"],
                "answer": [" Ann", "Eve", "At noon"],
                "idx": [{"paragraph": 2, "question": q, "answer": a} for q, a in ((5, 11), (5, 12), (6, 13))],
                "label": [1, 0, -1],
                "question_id": ["2-5", "2-5", "2-6"],
            },
        ),
    ],
    "gap_candidates": [
        (
            {},
            {
                "passage": ["Ann sang.\n@highlight\nEve heard her\n@highlight\nRome was full", "No lines"],
                "query": ["@placeholder, said @placeholder's aunt", "In @placeholder"],
                "entities": [["Ann", "Eve", "Rome"], ["Oslo"]],
                "entity_spans": [{"text": ["Ann"], "start": [0], "end": [3]}, {"text": [], "start": [], "end": []}],
                "answers": [["Ann", "Eve"], []],
                "idx": [{"passage": 1, "query": 8}, {"passage": 2, "query": 9}],
            },
            {
                "passage": [*["Ann sang. Eve heard her. Rome was full"] * 3, "No lines"],
                "answers": [*[["Ann", "Eve"]] * 3, []],
                "query_id": ["1-8", "1-8", "1-8", "2-9"],
                "query": ["Ann, said Ann's aunt", "Eve, said Eve's aunt", "Rome, said Rome's aunt", "In Oslo"],
                "entity": ["Ann", "Eve", "Rome", "Oslo"],
                "label": [1, 1, 0, -1],
            },
        ),
    ],
    "pronoun_pairs": [
        (
            {"texts": ["premise", "hypothesis"]},
            {
                "premise": ["Her aunt saw him.", "His aunt saw Her.", "Their aunt saw her.", "The shelf hid her."],
                "hypothesis": ["x", "x", "x", "x"],
            },
            {
                "premise": ["Her aunt saw him.", "His aunt saw Her.", "Their aunt saw her.", "The shelf hid her."],
                "hypothesis": ["x", "x", "x", "x"],
                "pair": ["~ aunt saw ~.\nx", "~ aunt saw ~.\nx", "Their aunt saw ~.\nx", "The shelf hid ~.\nx"],
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


def test_map_labels_counts_class_labels_by_number():
    rows = Dataset.from_dict({"y": [0, 1]}).cast_column("y", ClassLabel(names=["a", "b"]))
    assert registry.preparations["map_labels"](rows, column="y", names={"0": "A", "1": "B"})[:] == {"y": ["A", "B"]}


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
            "column 'question' holds cause or effect, found 'why'",
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
    ],
)
def test_rows_that_do_not_fit_are_refused(name, arguments, given, words):
    with pytest.raises(DataError, match=words):
        registry.preparations[name](Dataset.from_dict(given), **arguments)
