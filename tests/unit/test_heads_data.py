"""From rows to token ids and labels, head by head, and from scores to answers; every mistake said with its row."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.heads.base import PlacedRow
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import make_heads
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

ENCODER, DECODER = tiny_tokenizer(), tiny_tokenizer(decoder=True)
WHERE = Where("demo", "validation", 4000)


def head(kind, inputs=("text",), target="label", labels=None, **arguments):
    """One head of a task without data."""
    spec = {"name": kind, **arguments}
    task = Task(
        name="demo", head=spec, dataset={"path": "nowhere/at_all"}, inputs=list(inputs), target=target, labels=labels
    )
    return make_heads([task])["demo"]


def labels_of(kind, values, names=None, rows=None, **more):
    return head(kind, **more).encode_labels(values, names, rows or {}, WHERE)


def from_file(folder, rows, kind, splits=("train",), tokenizer=ENCODER, max_length=64, **more):
    """A head and its pool of tokenized rows, read from a JSONL file."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {"name": kind, **more.pop("arguments", {})}
    dataset = {"path": "json", "data_files": {splits[0]: str(file)}}
    settings = {"inputs": ["text"], "target": "label", **more}
    heads = make_heads([Task(name="demo", head=spec, dataset=dataset, **settings)])
    data = load_data(heads, tokenizer, max_length=max_length)
    return heads["demo"], data.pool_of("demo", splits[0])


def pieces(ids):
    return ENCODER.convert_ids_to_tokens(list(ids))


# --------------------------------------------------------------------------------------------------------- texts, pairs


def test_texts_are_tokenized_as_the_tokenizer_does():
    out = head("sequence_classification", labels=["a", "b"]).tokenize(
        {"text": ["The cat.", "rain"]}, ENCODER, 64, WHERE
    )
    assert out["input_ids"] == ENCODER(["The cat.", "rain"])["input_ids"]
    assert out["lengths"] == [[5], [3]]
    assert out["truncated"] == [False, False]
    assert out["source"] == [0, 1]


def test_pairs_have_types_and_the_longer_text_is_cut_first():
    pair = head("sequence_classification", inputs=("a", "b"), labels=["x"])
    rows = {"a": ["cat " * 20, "cat"], "b": ["dog dog", "dog"]}
    out = pair.tokenize(rows, ENCODER, 10, WHERE)
    assert out["truncated"] == [True, False]
    assert pieces(out["input_ids"][0]).count("dog") == 2
    assert len(out["input_ids"][0]) == 10
    assert out["token_type_ids"][1] == [0, 0, 0, 1, 1]


def test_a_decoder_gets_no_special_tokens_and_no_types():
    out = head("sequence_classification", inputs=("a", "b"), labels=["x"]).tokenize(
        {"a": ["cat"], "b": ["dog"]}, DECODER, 10, WHERE
    )
    assert DECODER.convert_ids_to_tokens(out["input_ids"][0]) == ["cat", "dog"]
    assert "token_type_ids" not in out


@pytest.mark.parametrize("value", [None, "", "  \n", 7, ["a", None]])
def test_what_is_no_text_is_refused_with_task_split_and_row(value):
    with pytest.raises(DataError) as caught:
        head("sequence_classification", labels=["x"]).tokenize({"text": ["fine", value]}, ENCODER, 10, WHERE)
    assert "task 'demo', split 'validation'" in str(caught.value)
    assert re.search(r"row 400[01]", str(caught.value))
    assert "'text'" in str(caught.value)


def test_one_text_of_a_pair_may_be_empty_but_not_missing():
    pair = head("sequence_classification", inputs=("a", "b"), labels=["x"])
    out = pair.tokenize({"a": ["", "cat"], "b": ["dog", ""]}, ENCODER, 10, WHERE)
    assert [len(ids) for ids in out["input_ids"]] == [4, 4]
    with pytest.raises(DataError, match=r"row 4001: column 'b' is not text, found 'None'"):
        pair.tokenize({"a": ["", "cat"], "b": ["dog", None]}, ENCODER, 10, WHERE)
    with pytest.raises(DataError, match="row 4000: 'a' and 'b' hold no text"):
        pair.tokenize({"a": [" "], "b": [""]}, ENCODER, 10, WHERE)


def test_a_text_of_which_no_token_is_left_is_refused():
    """A decoder adds no special tokens, so a lone control character would be a sequence of length 0."""
    classify = head("sequence_classification", labels=["x"])
    rows = {"text": ["cat", "\u200b"]}
    assert classify.tokenize(rows, ENCODER, 10, WHERE)["lengths"] == [[3], [2]]
    with pytest.raises(DataError, match="row 4001: the tokenizer makes no token"):
        classify.tokenize(rows, DECODER, 10, WHERE)


def test_more_than_two_inputs_are_refused():
    with pytest.raises(DataError, match="name 1 or 2"):
        head("sequence_classification", inputs=("a", "b", "c"), labels=["x"]).tokenize(
            {"a": ["1"], "b": ["2"], "c": ["3"]}, ENCODER, 10, WHERE
        )


# -------------------------------------------------------------------------------------------------------------- classes


def test_class_names_and_numbers_give_the_place_in_the_label_list():
    names = ["low", "mid", "high"]
    assert labels_of("sequence_classification", ["high", "low", "mid"], labels=names) == [2, 0, 1]
    assert labels_of("sequence_classification", [2, 0, 1.0, True], labels=names) == [2, 0, 1, 1]
    assert labels_of("sequence_classification", [None, -1, -1.0, "low"], labels=names) == [None, None, None, 0]


def test_names_of_the_data_in_another_order_are_mapped_by_name():
    values = labels_of(
        "sequence_classification", [0, 1, 2], names=["mid", "high", "low"], labels=["low", "mid", "high"]
    )
    assert values == [1, 2, 0]


def test_other_names_for_the_same_number_of_labels_keep_the_order():
    assert labels_of("sequence_classification", [0, 1], names=["0", "1"], labels=["bad", "good"]) == [0, 1]


def test_another_number_of_labels_than_the_data_has_is_refused():
    with pytest.raises(DataError, match=r"the data has 3 labels .*the task .*2"):
        labels_of("sequence_classification", [0], names=["a", "b", "c"], labels=["a", "b"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5, "fraction"),
        (float("nan"), "fraction"),
        (3, "outside 0 … 2"),
        (-2, "outside 0 … 2"),
        ("hihg", "not in the label list"),
        ([1], "neither a name nor a number"),
        ({"a": 1}, "neither a name nor a number"),
    ],
)
def test_a_wrong_class_is_named_with_its_row(value, said):
    with pytest.raises(DataError) as caught:
        labels_of("sequence_classification", [0, value, 1], labels=["low", "mid", "high"])
    assert "task 'demo', split 'validation'" in str(caught.value)
    assert "row 4001:" in str(caught.value)
    assert said in str(caught.value)


def test_all_wrong_rows_are_named_at_once():
    with pytest.raises(DataError) as caught:
        labels_of("sequence_classification", [9, 0, "x", 0.5], labels=["low", "mid"])
    assert "3 row(s)" in str(caught.value)
    assert all(f"row 400{n}" in str(caught.value) for n in (0, 2, 3))


def test_label_names_come_from_the_data_where_the_task_lists_none(tmp_path):
    rows = [{"text": "cat", "label": label} for label in ["b", "a", None, "c", "a"]]
    task, pool = from_file(tmp_path, rows, "sequence_classification")
    assert task.labels == ["a", "b", "c"]
    assert pool.labels("demo") == [1, 0, None, 2, 0]


@pytest.mark.parametrize("values", [[2, 0, 1, None], [2.0, 0.0, 1.0, None]])
def test_numbers_as_labels_become_names_without_a_fraction(tmp_path, values):
    task, pool = from_file(tmp_path, [{"text": "cat", "label": v} for v in values], "sequence_classification")
    assert task.labels == ["0", "1", "2"]
    assert pool.labels("demo") == [2, 0, 1, None]


def test_fractions_are_no_classes_even_where_the_task_lists_none(tmp_path):
    rows = [{"text": "cat", "label": value} for value in (1.0, 0.5, 2.0)]
    with pytest.raises(DataError, match=r"row 1: label 0\.5 is a fraction"):
        from_file(tmp_path, rows, "sequence_classification")


def test_class_names_of_the_features_are_used(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes", "maybe"])})
    Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features).to_parquet(
        tmp_path / "x.parquet"
    )
    dataset = {"path": "parquet", "data_files": {"train": str(tmp_path / "x.parquet")}}
    for listed, expected in ((None, [1, 0, None]), (["yes", "maybe", "no"], [0, 2, None])):
        task = Task(
            name="demo", head="sequence_classification", dataset=dataset, inputs=["text"], target="label", labels=listed
        )
        heads = make_heads([task])
        pool = load_data(heads, ENCODER, max_length=16).pool_of("demo", "train")
        assert pool.labels("demo") == expected
        assert heads["demo"].labels == (listed or ["no", "yes", "maybe"])


# ----------------------------------------------------------------------------------------------------------- regression


def test_numbers_and_missing_numbers():
    assert labels_of("regression", [1, 2.5, "3.5", None, float("nan")]) == [1.0, 2.5, 3.5, None, None]
    with pytest.raises(DataError, match="row 4001: target 'high' is not a number"):
        labels_of("regression", [1, "high"])


def test_minus_one_is_a_number_unless_the_split_holds_nothing_else(tmp_path):
    rows = [{"text": "cat", "label": 1.0}] * 1000 + [{"text": "dog", "label": -1.0}]
    _, pool = from_file(tmp_path, rows, "regression")
    assert pool.labels("demo")[-1] == -1.0, "batches of 1000 rows must not decide for themselves"
    _, pool = from_file(tmp_path, [{"text": "cat", "label": -1.0}] * 3, "regression")
    assert pool.labels("demo") == [None] * 3


# ---------------------------------------------------------------------------------------------------------- multi-label


def test_the_forms_of_several_labels():
    names = ["p", "q", "r"]
    by_name = labels_of("multi_label", [["q", "p"], [], None, ["r"]], labels=names)
    assert by_name == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], None, [0.0, 0.0, 1.0]]
    assert labels_of("multi_label", [[1, 0], [], None, [2]], labels=names) == by_name
    assert labels_of("multi_label", [[1, 1, 0], [0, 0, 0], None, [0, 0, 1]], labels=names) == by_name
    assert labels_of("multi_label", [[0, 2], [], None, [1]], names=["q", "r", "p"], labels=names) == by_name


def test_one_form_for_the_whole_split(tmp_path):
    """[0, 1] means two labels by number if any row of the split can't be a row of 0 and 1, however far away it is."""
    rows = [{"text": "cat", "label": [0, 1]}] * 1500 + [{"text": "dog", "label": [1]}]
    _, pool = from_file(tmp_path, rows, "multi_label", labels=["p", "q"])
    assert pool.labels("demo")[0] == [1.0, 1.0]
    assert pool.labels("demo")[-1] == [0.0, 1.0]
    _, pool = from_file(tmp_path, rows[:1500], "multi_label", labels=["p", "q"])
    assert pool.labels("demo")[0] == [0.0, 1.0]


def test_wrong_labels_of_several_rows_are_named_at_once():
    with pytest.raises(DataError) as caught:
        labels_of("multi_label", [["p"], ["x"], ["q", "y"]], labels=["p", "q"])
    assert "row 4001: label 'x'" in str(caught.value)
    assert "row 4002: label 'y'" in str(caught.value)
    with pytest.raises(DataError, match="row 4001: the target is a list of labels, found 'p'"):
        labels_of("multi_label", [["p"], "p"], labels=["p", "q"])
    with pytest.raises(DataError, match="row 4000: the target is a list of labels, found '1'"):
        labels_of("multi_label", [1], labels=["p", "q"])


def test_decisions_follow_the_threshold():
    at = head("multi_label", labels=["p", "q"], threshold=0.8)
    logits = [np.array([1.3, 1.5])]  # probabilities 0.786 and 0.818
    assert at.decode(logits, None) == [[0, 1]]
    assert at.answer(logits[0], {})["labels"] == ["q"]


# ----------------------------------------------------------------------------------------------------------------- tags


def tags(**more):
    return head("token_classification", inputs=("words",), target="tags", **more)


def test_a_tag_is_read_at_the_first_piece_of_its_word():
    words = ["the", "zebra", "is", "Zoë", "."]
    task = tags(labels=["O", "B-X", "I-X"])
    out = task.tokenize({"words": [words, ["cat"]]}, ENCODER, 64, WHERE)
    ids, places = out["input_ids"][0], out["word_positions"][0]
    assert [pieces(ids)[place] for place in places] == ["the", "z", "is", "z", "."]
    assert pieces(ids)[places[1] + 1] == "##e"
    labels = task.encode_labels([["O", "B-X", "O", "B-X", "O"], ["O"]], None, {"words": [words, ["cat"]]}, WHERE)
    placed = PlacedRow({"word_positions": np.array(places)}, np.array(labels[0]), np.array([0]), np.array([100]))
    target = task.collate([placed])
    assert (target["positions"] - 100).tolist() == places
    assert target["labels"].tolist() == [0, 1, 0, 1, 0]
    assert task.units(target) == 5


def test_words_without_a_piece_have_no_place_and_teach_nothing():
    task = tags(labels=["O", "B-X", "I-X"])
    out = task.tokenize({"words": [["cat", "\u200b", "dog"]]}, ENCODER, 64, WHERE)
    assert out["word_positions"] == [[1, -1, 2]]
    row = PlacedRow({"word_positions": np.array([1, -1, 2])}, np.array([1, 2, 0]), np.array([0]), np.array([0]))
    target = task.collate([row])
    assert target["positions"].tolist() == [1, 2]
    assert target["labels"].tolist() == [1, 0]


def test_cut_words_count_as_o_in_the_score():
    task = tags(labels=["B-X", "O", "I-X"])
    words = ["cat"] * 6
    out = task.tokenize({"words": [words]}, ENCODER, 5, WHERE)  # [CLS] cat cat cat [SEP]
    assert out["truncated"] == [True]
    assert out["word_positions"] == [[1, 2, 3, -1, -1, -1]]
    predicted = np.array([[0, 0.9], [1, 0.9], [1, 0.9]])
    decoded = task.decode([predicted], {"word_positions": out["word_positions"]})
    assert decoded == [["B-X", "O", "O", "O", "O", "O"]]
    gold = task.references([[0, 1, 1, 1, 0, 2]], None)
    score = task.score(decoded, gold)
    assert (score["span_precision"], score["span_recall"]) == (1.0, 0.5), (
        "the entity that was cut is missed, not left out"
    )


def test_cut_words_of_tags_without_o_get_the_first_label():
    task = tags(labels=["NOUN", "VERB"], scheme="none")
    assert task.metrics == ["accuracy"]
    assert task.decode([np.array([[1, 1.0]])], {"word_positions": [[1, -1]]}) == [["VERB", "NOUN"]]


def test_words_without_a_reference_are_left_out_on_both_sides():
    task = tags(labels=["O", "B-X"], scheme="none")
    encoded = task.encode_labels(
        [["B-X", None, "O"], [None, -1], None], None, {"words": [["a", "b", "c"], ["d", "e"], ["f"]]}, WHERE
    )
    assert encoded == [[1, -1, 0], None, None]
    assert task.score([["B-X", "B-X", "O"]], task.references([[1, -1, 0]], None)) == {"accuracy": 1.0}
    row = PlacedRow({"word_positions": np.array([1, 2, 3])}, np.array([1, -1, 0]), np.array([0]), np.array([0]))
    target = task.collate([row])
    assert task.units(target) == 2
    logits = torch.tensor([[0.0, 9.0], [5.0, 5.0], [9.0, 0.0]])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([1, 0]), reduction="sum")
    assert torch.allclose(task.loss(logits, target), expected)


def test_iob1_and_io_become_iob2():
    words = {"words": [["a", "b", "c", "d", "e"]]}
    one = tags(labels=["O", "I-PER", "B-PER", "I-LOC"], scheme="iob1")
    assert one.labels == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    encoded = one.encode_labels([["I-PER", "I-PER", "B-PER", "I-LOC", "O"]], None, words, WHERE)
    assert one.references(encoded, None) == [["B-PER", "I-PER", "B-PER", "B-LOC", "O"]]
    by_number = one.encode_labels([[1, 1, 2, 3, 0]], ["O", "I-PER", "B-PER", "I-LOC"], words, WHERE)
    assert by_number == encoded
    io = tags(labels=["O", "PER", "LOC"], scheme="io")
    encoded = io.encode_labels([["PER", "PER", "LOC", "O", "PER"]], None, words, WHERE)
    assert io.references(encoded, None) == [["B-PER", "I-PER", "B-LOC", "O", "B-PER"]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=12))
def test_conversion_keeps_the_spans(raw):
    from nlp_mtl.heads.spans import spans_of, to_iob2

    valid = []  # IOB2
    for tag in raw:
        before = valid[-1] if valid else "O"
        valid.append(f"B-{tag[2:]}" if tag[0] == "I" and before[2:] != tag[2:] else tag)
    spans = spans_of(valid)
    first = {span[1] for span in spans}
    ends = {(kind, after) for kind, _, after in spans}
    as_iob1 = [  # B- only where a span follows one of its own type
        tag if tag == "O" else ("B" if i in first and (tag[2:], i) in ends else "I") + tag[1:]
        for i, tag in enumerate(valid)
    ]
    assert to_iob2(as_iob1, "iob1") == valid
    assert to_iob2(valid, "iob2") == valid


def test_tags_and_words_of_different_number_are_named_with_their_row(tmp_path):
    rows = [{"words": ["a", "b"], "tags": ["O", "O"]}] * 1234
    rows[1100] = {"words": ["a", "b"], "tags": ["O"]}
    rows[40] = {"words": ["a"], "tags": ["O", "O", "O"]}
    with pytest.raises(DataError) as caught:
        from_file(tmp_path, rows, "token_classification", inputs=["words"], target="tags", labels=["O", "B-X"])
    assert "task 'demo', split 'train': 2 row(s)" in str(caught.value)
    assert "row 1100: 2 words but 1 tags" in str(caught.value)
    assert "row 40: 1 words but 3 tags" in str(caught.value)


def test_a_wrong_tag_is_named_with_its_row(tmp_path):
    rows = [{"words": ["a", "b"], "tags": ["O", "O"]}] * 1001 + [{"words": ["a"], "tags": ["B-Y"]}]
    with pytest.raises(DataError, match=r"row 1001: label 'B-Y' is not in the label list"):
        from_file(tmp_path, rows, "token_classification", inputs=["words"], target="tags", labels=["O", "B-X"])


@pytest.mark.parametrize("value", [None, [], [" "], ["a", None], ["a", 3], "text"])
def test_rows_that_are_no_list_of_words(value):
    with pytest.raises(DataError, match=r"task 'demo', split 'validation': 1 row.*\n  row 4001: "):
        tags(labels=["O"]).tokenize({"words": [["fine"], value]}, ENCODER, 10, WHERE)


def test_tag_names_from_the_data_have_o_first(tmp_path):
    rows = [{"words": ["a", "b"], "tags": ["B-X", "I-X"]}, {"words": ["c"], "tags": ["O"]}]
    task, pool = from_file(tmp_path, rows, "token_classification", inputs=["words"], target="tags")
    assert task.labels == ["O", "B-X", "I-X"]
    assert pool.labels("demo") == [[1, 2], [0]]


def test_plain_text_is_read_by_its_words():
    text = "Zoë Müller isn't in 東京."
    out = tags(labels=["O", "B-X"]).tokenize({"words": [text]}, ENCODER, 64, WHERE)
    spans = out["word_spans"][0]
    assert [text[a:b] for a, b in spans] == ["Zoë", "Müller", "isn't", "in", "東京", "."]
    found = [pieces(out["input_ids"][0])[place] for place in out["word_positions"][0]]
    assert found == ["z", "m", "is", "in", "[UNK]", "."]


# ------------------------------------------------------------------------------------------------------ multiple choice


def choice(choices, inputs=("context",), **more):
    return head("multiple_choice", inputs=inputs, target="right", choices=choices, **more)


@pytest.mark.parametrize("listed", [False, True])
def test_one_sequence_per_choice(listed):
    task = choice("options" if listed else ["one", "two"])
    rows = {
        "context": ["cat", "rain"],
        "one": ["a", "sun"],
        "two": ["the dog", "city"],
        "options": [["a", "the dog"], ["sun", "city"]],
    }
    out = task.tokenize(rows, ENCODER, 32, WHERE)
    assert out["lengths"] == [[5, 6], [5, 5]]
    starts = np.cumsum([0, *out["lengths"][0]])
    first = [pieces(out["input_ids"][0][a:b]) for a, b in pairwise(starts)]
    assert first == [["[CLS]", "cat", "[SEP]", "a", "[SEP]"], ["[CLS]", "cat", "[SEP]", "the", "dog", "[SEP]"]]
    assert out["source"] == [0, 1]


def test_rows_may_have_different_numbers_of_choices(tmp_path):
    rows = [
        {"context": "cat", "options": ["a", "the dog", "rain"], "right": 2},
        {"context": "dog", "options": ["sun", "city"], "right": 0},
        {"context": "dog", "options": ["sun", "city"], "right": None},
    ]
    arguments = {"choices": "options"}
    task, pool = from_file(tmp_path, rows, "multiple_choice", inputs=["context"], target="right", arguments=arguments)
    assert pool.labels("demo") == [2, 0, None]
    assert [len(length) for length in pool.table["lengths"]] == [3, 2, 2]
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.1, float("-inf")]])
    predictions = task.predict(scores, {"counts": torch.tensor([3, 2])})
    assert [len(p) for p in predictions] == [3, 2]
    assert task.decode(predictions, None) == [2, 0]
    with pytest.raises(DataError, match="row 1: the right choice 2 is not one of 0 … 1"):
        from_file(
            tmp_path,
            [rows[0], {**rows[1], "right": 2}],
            "multiple_choice",
            inputs=["context"],
            target="right",
            arguments=arguments,
        )


def test_the_right_choice_by_number_text_and_name():
    rows = {"one": ["a"] * 6, "two": ["b"] * 6}
    task = choice(["one", "two"], labels=["A", "B"])
    assert task.encode_labels([1, "1", "B", 1.0, None, -1], None, rows, WHERE) == [1, 1, 1, 1, None, None]
    for wrong in (2, "C", 0.5, [1]):
        with pytest.raises(DataError, match="row 4001: the right choice"):
            task.encode_labels([1, wrong], None, {"one": ["a"] * 2, "two": ["b"] * 2}, WHERE)


def test_names_that_look_like_numbers_are_names():
    """WinoGrande counts its options from 1: reading "1" as the second would train on wrong answers without a word."""
    rows = {"one": ["a"] * 5, "two": ["b"] * 5}
    task = choice(["one", "two"], labels=["1", "2"])
    assert task.encode_labels(["1", "2", "", " 2\n", None], None, rows, WHERE) == [0, 1, None, 1, None]
    assert task.encode_labels([0, 1, -1], None, {key: value[:3] for key, value in rows.items()}, WHERE) == [0, 1, None]
    for wrong in ("0", "3"):
        with pytest.raises(DataError, match=f"row 4001: the right choice '{wrong}' is not one of 1, 2\n"):
            task.encode_labels(["1", wrong], None, {"one": ["a"] * 2, "two": ["b"] * 2}, WHERE)


def test_a_row_with_fewer_choices_has_fewer_names():
    rows = {"options": [["a", "b", "c"], ["a", "b"]]}
    task = choice("options", labels=["A", "B", "C"])
    assert task.encode_labels(["C", "B"], None, rows, WHERE) == [2, 1]
    with pytest.raises(DataError, match="row 4001: the right choice 'C' is not one of 0 … 1 or A, B\n"):
        task.encode_labels(["C", "C"], None, rows, WHERE)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"context": None, "options": ["a", "b"]}, "column 'context' is not text, found 'None'"),
        ({"context": "cat", "options": ["a", None]}, "choice 1 is not text, found 'None'"),
        ({"context": "cat", "options": ["a"]}, "1 choice(s), at least 2 are needed"),
        ({"context": "cat", "options": None}, "1 choice(s), at least 2 are needed"),
        ({"context": " ", "options": ["a", "", "b"]}, "hold no text"),
    ],
)
def test_choices_that_cannot_be_read_are_named_with_their_row(row, said):
    """The row, not the number of the sequence: the good row before has four choices."""
    task = choice("options")
    good = {"context": "dog", "options": ["a", "b", "c", "d"]}
    with pytest.raises(DataError) as caught:
        task.tokenize({key: [good[key], row[key]] for key in good}, ENCODER, 32, WHERE)
    assert "task 'demo', split 'validation'" in str(caught.value)
    assert "row 4001: " in str(caught.value)
    assert said in str(caught.value)


def test_an_empty_choice_and_an_empty_context_are_allowed():
    out = choice("options").tokenize({"context": ["cat", ""], "options": [["", "dog"], ["a", "b"]]}, ENCODER, 32, WHERE)
    assert out["lengths"] == [[4, 5], [4, 4]]


# --------------------------------------------------------------------------------------------------- question answering

WORD_POOL = ["cat", "dog", "zebra", "in", "of", "Zoë", "x7", "old", "rain", "東京", "it's", "U.S."]


def answering(**arguments):
    return head("question_answering", inputs=("question", "context"), target="answers", **arguments)


def windows_of(out, source=0):
    return [i for i, owner in enumerate(out["source"]) if owner == source]


def offsets_of(out, window):
    return np.asarray(out["offsets"][window]).reshape(-1, 2)


def test_windows_overlap_by_the_stride_and_cover_the_context():
    context = " ".join(WORD_POOL[i % 8] for i in range(60))
    out = answering(stride=6).tokenize({"question": ["the cat"], "context": [context]}, ENCODER, 40, WHERE)
    members = windows_of(out)
    assert len(members) > 2
    covered = [set() for _ in members]
    for place, window in enumerate(members):
        offsets = offsets_of(out, window)
        assert len(offsets) == len(out["input_ids"][window]) == out["lengths"][window][0] <= 40
        assert pieces(out["input_ids"][window])[:4] == ["[CLS]", "the", "cat", "[SEP]"]
        for start, end in offsets[offsets[:, 0] >= 0]:
            covered[place].add((int(start), int(end)))
    for before, after in pairwise(covered):
        assert len(before & after) == 6
    characters = {c for window in covered for a, b in window for c in range(a, b)}
    assert characters == {i for i, c in enumerate(context) if c != " "}
    assert out["truncated"] == [False] * len(members), "nothing is lost, so nothing is cut"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORD_POOL), min_size=1, max_size=40), st.data())
def test_token_spans_map_back_to_the_answer(words, data):
    context = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(len(words) - 1, first + 3)))
    answer = " ".join(words[first : last + 1])
    start = len(" ".join(words[:first])) + (first > 0)
    task = answering(stride=8)
    out = task.tokenize({"question": ["the cat"], "context": [context]}, ENCODER, 40, WHERE)
    label = task.encode_labels([{"text": [answer], "answer_start": [start]}], None, {"context": [context]}, WHERE)
    placed = task.place_labels(label, out)
    found = 0
    for window, (begin, end) in enumerate(placed):
        offsets = offsets_of(out, window)
        if begin == end == 0:
            inside = offsets[offsets[:, 0] >= 0]
            assert not (inside[0, 0] <= start and start + len(answer) <= inside[-1, 1]), (
                "the window holds the answer whole"
            )
            continue
        found += 1
        assert context[offsets[begin, 0] : offsets[end, 1]] == answer
        scores = np.full((len(offsets), 2), -5.0)
        scores[begin, 0] = scores[end, 1] = 5.0
        a, b, score = task.best([(scores, offsets)])
        if end - begin < task.max_answer_length:
            assert (context[a:b], score) == (answer, 10.0)
    assert found or len(placed) > 1, "an answer is lost only between two windows"


@pytest.mark.parametrize("answer", ["dog", "-", "cat", "cat-dog", "house."])
def test_an_answer_may_touch_its_neighbours(answer):
    context = "a cat-dog,house."
    task = answering()
    out = task.tokenize({"question": ["the cat"], "context": [context]}, ENCODER, 40, WHERE)
    label = {"text": [answer], "answer_start": [context.index(answer)]}
    ((begin, end),) = task.place_labels([label], out)
    offsets = offsets_of(out, 0)
    assert context[offsets[begin, 0] : offsets[end, 1]] == answer


def test_an_answer_in_the_overlap_is_learned_in_both_windows():
    context = " ".join(["cat"] * 60)
    task = answering(stride=6)
    out = task.tokenize({"question": ["dog"], "context": [context]}, ENCODER, 40, WHERE)
    second = offsets_of(out, 1)
    start = int(second[second[:, 0] >= 0][2, 0])  # the third token of the second window
    label = task.encode_labels([{"text": ["cat"], "answer_start": [start]}], None, {"context": [context]}, WHERE)
    placed = task.place_labels(label, out)
    assert [begin > 0 for begin, _ in placed][:2] == [True, True]
    assert placed[2:] == [[0, 0]] * len(placed[2:])


def brute_force(windows, n_best, longest, no_answer):
    """The best of all spans: among the `n_best` starts and ends of a window, the highest sum that is a span."""
    best, null = (0, 0, -np.inf), np.inf
    for scores, offsets in windows:
        null = min(null, float(scores[0].sum()))
        inside = [i for i in range(len(offsets)) if offsets[i, 0] >= 0]
        starts = sorted(inside, key=lambda i: (-scores[i, 0], i))[:n_best]
        ends = sorted(inside, key=lambda i: (-scores[i, 1], i))[:n_best]
        for i in starts:
            for j in ends:
                if i <= j < i + longest and scores[i, 0] + scores[j, 1] > best[2]:
                    best = (int(offsets[i, 0]), int(offsets[j, 1]), float(scores[i, 0] + scores[j, 1]))
    return (0, 0, null) if best[2] == -np.inf or (no_answer and null > best[2]) else best


score = st.floats(-10, 10, width=32)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(score, score), min_size=1, max_size=14), min_size=1, max_size=3),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(0, 2),
    st.booleans(),
)
def test_the_best_span_is_the_best_of_all_spans(rows, n_best, longest, before, no_answer):
    windows = []
    for number, row in enumerate(rows):
        offsets = np.array(
            [(-1, -1) if i < before else (100 * number + 5 * i, 100 * number + 5 * i + 4) for i in range(len(row))]
        )
        windows.append((np.array(row, dtype=np.float32), offsets))
    task = answering(n_best=n_best, max_answer_length=longest, no_answer=no_answer)
    assert task.best(windows)[2] == pytest.approx(brute_force(windows, n_best, longest, no_answer)[2])
    if len({s for row in rows for pair in row for s in pair}) == 2 * sum(map(len, rows)):  # no ties
        assert task.best(windows) == brute_force(windows, n_best, longest, no_answer)


def test_the_best_window_gives_the_answer_and_the_null_score_is_the_least_of_all_windows():
    offsets = np.array([[-1, -1], [0, 3], [4, 7]])
    weak = (np.array([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]), offsets)
    strong = (np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 4.0]]), offsets + np.where(offsets >= 0, 50, 0))
    assert answering().best([weak, strong]) == (54, 57, 8.0)
    assert answering(no_answer=True).best([weak, strong]) == (54, 57, 8.0)
    assert answering(no_answer=True).best([weak]) == (0, 0, 18.0)
    assert answering(no_answer=False).best([weak])[:2] == (0, 7), "where there always is an answer, null never wins"


def test_decoding_and_references_are_one_per_question(tmp_path):
    long = " ".join(["cat"] * 50 + ["dog"])
    rows = [
        {"question": "the dog", "context": long, "answers": {"text": ["dog"], "answer_start": [len(long) - 3]}},
        {
            "question": "in",
            "context": "rain in old city",
            "answers": {"text": ["old city", "city"], "answer_start": [8, 12]},
        },
    ]
    task, pool = from_file(
        tmp_path,
        rows,
        "question_answering",
        inputs=["question", "context"],
        target="answers",
        max_length=40,
        arguments={"stride": 4},
    )
    source = pool.table["source"][:]
    assert len(source) > 2
    assert task.references(pool.labels("demo"), pool.table) == [["dog"], ["old city", "city"]]
    predictions = []
    for label, offsets in zip(pool.labels("demo"), pool.table["offsets"][:], strict=True):
        scores = np.full((len(offsets) // 2, 2), -1.0)
        scores[label[0], 0] += 5 if label[0] else 0
        scores[label[1], 1] += 5 if label[1] else 0
        predictions.append(scores)
    decoded = task.decode(predictions, pool.table)
    assert decoded == ["dog", "old city"]
    assert task.score(decoded, task.references(None, pool.table)) == {"f1_answer": 1.0, "exact_match": 1.0}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"text": ["cat"], "answer_start": [1]}, "does not stand in the context at character 1"),
        ({"text": ["cat"], "answer_start": []}, "lists of equal length"),
        ({"text": "cat", "answer_start": 0}, "lists of equal length"),
        ({"text": ["cat"]}, "needs `text` and `answer_start`"),
        ("cat", "needs `text` and `answer_start`"),
        ({"text": [], "answer_start": []}, "no_answer: true"),
    ],
)
def test_answers_that_do_not_fit_are_named_with_their_row(answers, said):
    good = {"text": ["cat"], "answer_start": [0]}
    with pytest.raises(DataError) as caught:
        answering().encode_labels([good, answers], None, {"context": ["cat dog", "cat dog"]}, WHERE)
    assert "task 'demo', split 'validation'" in str(caught.value)
    assert "row 4001: " in str(caught.value)
    assert said in str(caught.value)


def test_no_answer_points_at_the_first_token():
    task = answering(no_answer=True)
    label = task.encode_labels([{"text": [], "answer_start": []}, None], None, {"context": ["cat dog", "cat"]}, WHERE)
    assert label == [{"text": [], "answer_start": []}, None]
    out = task.tokenize({"question": ["a", "a"], "context": ["cat dog", "cat"]}, ENCODER, 40, WHERE)
    assert task.place_labels(label, out) == [[0, 0], None]


def test_a_question_that_leaves_no_room_is_named_with_its_row():
    with pytest.raises(DataError, match="row 4001: the question has 50 tokens, no room for the context in 32"):
        answering().tokenize({"question": ["cat", "cat " * 50], "context": ["dog", "dog"]}, ENCODER, 32, WHERE)


def test_an_empty_context_is_read_and_answered_with_nothing():
    task = answering()
    out = task.tokenize({"question": ["the cat"], "context": [""]}, ENCODER, 32, WHERE)
    scores = np.zeros((out["lengths"][0][0], 2))
    assert task.decode([scores], {"context": [""], "source": [0], "offsets": out["offsets"]}) == [""]
    said = task.answer_of([(scores, {"context": "", "offsets": out["offsets"][0]})])
    assert said["answer"] == ""
    json.loads(json.dumps(said, allow_nan=False))


# ------------------------------------------------------------------------------------------------------------ masked LM


def masked(**arguments):
    return head("masked_lm", target=None, **arguments)


LONG = (
    "the cat is not in the house of the red dog , it was good rain on the old city and sun no yes bad new blue to at "
)


def hide(task, out, seed, row=0):
    columns = {key: values[row] for key, values in out.items()}
    before = np.array(columns["input_ids"])
    after, notes = task.corrupt(before, columns, seed)
    return before, after, notes


def test_eighty_ten_ten():
    task = masked(probability=0.3)
    out = task.tokenize({"text": [LONG * 3]}, ENCODER, 128, WHERE)
    free = sum(out["maskable"][0])
    counts = {"mask": 0, "other": 0, "same": 0}
    for seed in range(400):
        before, after, notes = hide(task, out, (0, seed))
        assert (before == np.array(out["input_ids"][0])).all(), "the row itself is left alone"
        chosen, hidden = notes["chosen"], notes["hidden_ids"]
        assert (hidden == before[chosen]).all()
        rest = np.setdiff1d(np.arange(len(before)), chosen)
        assert (after[rest] == before[rest]).all()
        counts["mask"] += int((after[chosen] == ENCODER.mask_token_id).sum())
        counts["same"] += int((after[chosen] == before[chosen]).sum())
        counts["other"] += int(((after[chosen] != before[chosen]) & (after[chosen] != ENCODER.mask_token_id)).sum())
        assert after.max() < len(ENCODER)
        assert after.min() >= 0
    total = sum(counts.values())
    assert total / (400 * free) == pytest.approx(0.3, abs=0.01)
    assert counts["mask"] / total == pytest.approx(0.8, abs=0.02)
    assert counts["same"] / total == pytest.approx(0.1, abs=0.02)
    assert counts["other"] / total == pytest.approx(0.1, abs=0.02)


def test_at_least_one_token_is_chosen_and_never_a_special_one():
    task = masked(probability=0.01)
    out = task.tokenize({"text": ["cat", "dog rain"]}, ENCODER, 16, WHERE)
    for row in (0, 1):
        seen = set()
        for seed in range(60):
            _, _, notes = hide(task, out, (seed,), row)
            assert len(notes["chosen"]) >= 1
            seen |= set(notes["chosen"].tolist())
        assert seen == set(range(1, 2 + row)), "every word has its turn, [CLS] and [SEP] never"


def test_a_row_without_a_maskable_token_asks_nothing():
    task = masked()
    out = task.tokenize({"text": ["東"]}, ENCODER, 16, WHERE)
    before, after, notes = hide(task, out, (1,))
    assert (before == after).all()
    assert len(notes["chosen"]) == 0
    row = PlacedRow(notes, None, np.array([0]), np.array([0]))
    assert task.units(task.collate([row])) == 0


def test_same_seed_same_mask_other_visit_other_mask():
    task = masked()
    out = task.tokenize({"text": [LONG]}, ENCODER, 128, WHERE)
    first = hide(task, out, (1, 2, 3))[1]
    assert (hide(task, out, (1, 2, 3))[1] == first).all()
    for other in ((1, 2, 4), (2, 2, 3), (1, 9, 3)):
        assert (hide(task, out, other)[1] != first).any()


def test_the_masks_of_a_batch_depend_on_seed_row_and_visit_only(tmp_path):
    from nlp_mtl.batches import Collator

    task, pool = from_file(tmp_path, [{"text": LONG}, {"text": LONG}], "masked_lm", target=None, max_length=128)

    def ids(seed, *refs):
        batch = Collator([pool], {"demo": task}, seed=seed, training=True)(refs)
        return [row.tolist() for row in batch["input_ids"].split(batch["lengths"].tolist())]

    alone = ids(5, (0, 0, 2))[0]
    assert ids(5, (0, 1, 0), (0, 0, 2))[1] == alone
    assert ids(5, (0, 0, 3))[0] != alone, "the next showing hides other words"
    assert ids(6, (0, 0, 2))[0] != alone
    assert ids(5, (0, 1, 2))[0] != alone, "an equal text in another row is hidden otherwise"


def test_masked_lm_wants_a_mask_token_and_a_probability():
    with pytest.raises(UnsupportedError, match="no mask token"):
        masked().tokenize({"text": ["cat"]}, DECODER, 16, WHERE)
    for wrong in (0, 1, 1.5):
        with pytest.raises(ConfigError, match="probability"):
            masked(probability=wrong)


# ------------------------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("kind", "arguments", "inputs", "said"),
    [
        ("multi_label", {"threshold": 1.0}, ["a"], "threshold"),
        ("token_classification", {"scheme": "bilou"}, ["a"], "scheme"),
        ("token_classification", {}, ["a", "b"], "one column of words"),
        ("question_answering", {}, ["a"], "a question and a context"),
        ("question_answering", {"n_best": 0}, ["a", "b"], "n_best"),
        ("question_answering", {"stride": -1}, ["a", "b"], "stride"),
        ("multiple_choice", {"choices": ["one"]}, ["a"], "two or more columns"),
        ("multiple_choice", {}, ["a"], "choices"),
        ("regression", {"pooling": "max"}, ["a"], "pooling"),
        ("sequence_classification", {"poling": "mean"}, ["a"], "did you mean 'pool"),
        ("sequence_clasification", {}, ["a"], "did you mean 'sequence_classification'"),
    ],
)
def test_arguments_are_checked(kind, arguments, inputs, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        head(kind, inputs=inputs, labels=["x"], **arguments)
    assert "'demo'" in str(caught.value)


# ------------------------------------------------------------------------------------------------- lists of words again


def byte_level():
    """A byte-level BPE as RoBERTa and GPT-2 have it: no space before the first word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["the cat is in New York", "a dog in the rain"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_words_of_a_list_are_not_glued_together_by_byte_level_tokenizers():
    tokenizer, words = byte_level(), ["I", "live", "in", "New", "York"]
    tagger = head("token_classification", ["words"], labels=["O", "B-X", "I-X"])
    listed = tagger.tokenize({"words": [words]}, tokenizer, 64, WHERE)
    text = tagger.tokenize({"words": [" ".join(words)]}, tokenizer, 64, WHERE)
    assert tokenizer.decode(listed["input_ids"][0]) == " ".join(words)
    assert listed["input_ids"] == text["input_ids"]
    assert listed["word_positions"] == text["word_positions"]


def test_an_answer_has_no_white_space_at_its_edges():
    reader = head("question_answering", ["question", "context"])
    context = "the café naïve"
    scores, offsets = np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([[0, 3], [3, 14]])
    found = reader.answer([(scores, offsets)], {"context": context})
    assert found["answer"] == "café naïve"
    assert context[found["start"] : found["end"]] == found["answer"]


# --------------------------------------------------------------------------------------------- labels found in the data


def found_in(tmp_path, kind, labels):
    made, pool = from_file(tmp_path, [{"text": "cat", "label": label} for label in labels], kind)
    return made, pool.labels("demo")


def test_numbers_without_names_are_their_own_names(tmp_path):
    made, labels = found_in(tmp_path, "sequence_classification", [*range(1, 13)])
    assert [made.labels[number] for number in labels] == [str(n) for n in range(1, 13)]
    made, labels = found_in(tmp_path, "multi_label", [[10, 2], [1], [2, 3]])
    assert [[made.labels[n] for n, on in enumerate(row) if on] for row in labels] == [["2", "10"], ["1"], ["2", "3"]]
    rows = [{"text": ["a", "cat"], "label": [1, 12]}, {"text": ["rain"], "label": [2]}]
    made, pool = from_file(tmp_path, rows, "token_classification", arguments={"scheme": "none"})
    assert [[made.labels[n] for n in row] for row in pool.labels("demo")] == [["1", "12"], ["2"]]


def test_labels_that_can_mean_two_things_are_refused(tmp_path):
    with pytest.raises(DataError, match="is -1 a label or its absence"):
        found_in(tmp_path, "sequence_classification", [-1, 1, 1])
    with pytest.raises(DataError, match=r"lists of 0 and 1 for 3 labels; name them in `labels`"):
        found_in(tmp_path, "multi_label", [[0, 1, 1], [1, 0, 0]])
    with pytest.raises(DataError, match="not a finite number"):
        labels_of("regression", [float("inf")])


@pytest.mark.parametrize(
    ("scheme", "labels", "said"),
    [
        ("iob2", ["O", "PER"], "io has plain types"),
        ("iob2", ["O", "I-PER", "I-LOC"], "say `scheme: iob1` or io"),
        ("iob2", ["O", "B-PER", "E-PER", "S-PER"], "BIOES"),
        ("io", ["O", "B-PER", "I-PER"], "is it iob1 or iob2"),
    ],
)
def test_tags_that_do_not_fit_their_scheme_are_refused_at_once(tmp_path, scheme, labels, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        head("token_classification", ["words"], labels=labels, scheme=scheme)
    rows = [{"text": ["cat"] * len(labels), "label": labels}]
    with pytest.raises(DataError, match=re.escape(said)):
        from_file(tmp_path, rows, "token_classification", arguments={"scheme": scheme})


# ---------------------------------------------------------------------------------------------------- `heads:` of a run


def family(**more):
    shared = {"dataset": {"path": "nowhere/at_all"}, "inputs": ["text"], "target": "label", "labels": ["a", "b"]}
    return [
        Task(name="owner", head="sequence_classification", tags=["pair"], **shared),
        Task(name="borrower", head={"name": "sequence_classification"}, head_of="owner", **shared),
        Task(name="tagger", head="token_classification", **{**shared, "labels": ["O", "B-X"]}),
    ]


def test_what_is_said_of_a_head_holds_for_all_who_use_it():
    made = make_heads(family(), {"owner": {"pooling": "mean"}})
    assert made["owner"].pooling == made["borrower"].pooling == "mean"
    made = make_heads(family(), {"pair": {"pooler": "own"}})
    assert made["owner"].pooler() == made["borrower"].pooler() == "own"
    with pytest.raises(ConfigError, match="'borrower' uses the head of 'owner', found `pooling`; say it there"):
        make_heads(family(), {"borrower": {"pooling": "mean"}})


def test_what_is_said_of_all_goes_to_the_heads_that_take_it():
    made = make_heads(family(), {"*": {"pooling": "mean", "scheme": "none"}})
    assert made["owner"].pooling == "mean"
    assert made["tagger"].scheme == "none"
    with pytest.raises(ConfigError, match=r"no head of these tasks takes 'poolin'; did you mean 'pool"):
        make_heads(family(), {"*": {"poolin": "mean"}})


@pytest.mark.parametrize(
    ("kind", "argument"), [("question_answering", "stride"), ("multi_label", "threshold"), ("regression", "variance")]
)
def test_an_argument_of_another_type_is_a_mistake_in_words(kind, argument):
    inputs = ["question", "context"] if kind == "question_answering" else ["text"]
    with pytest.raises(ConfigError, match=r"wrong type|found 'x'"):
        head(kind, inputs, **{argument: "x"})
