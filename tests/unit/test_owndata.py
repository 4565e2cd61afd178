"""Own data as Python objects: what is inferred from it, what is refused, and how it travels with the task."""

import random

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

import nlp_mtl as mtl
from nlp_mtl.errors import ConfigError, NotFoundError
from nlp_mtl.heads import make_heads
from nlp_mtl.owndata.memory import fingerprint
from nlp_mtl.owndata.tags import tag_labels, tag_scheme
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task

WORDS = "amber birch cedar dune ember fjord grove heath islet jetty".split()
ROWS = 60
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=6)) + f" no {i}" for i in range(ROWS)]
SENTENCES = [text.split() for text in TEXTS]
MOODS = ["glad" if i % 2 else "sad" for i in range(ROWS)]


def made(columns, **given) -> Task:
    return Task.from_data("mine", columns, **given)


def refused(data, *parts: str, **given) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Task.from_data("mine", data, **given)
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def said(task: Task, key: str) -> str:
    return "\n".join(note for note in task.inferred if note.startswith(f"{key}:"))


# ----------------------------------------------------------------------------------------------------- kind of head

NER = [["B-LOC" if word == "fjord" else "I-LOC" if before == "fjord" and word == "fjord" else "O"
        for before, word in zip(["", *words], words, strict=False)] for words in SENTENCES]  # fmt: skip
POS = [["num" if word.isdigit() else "noun" for word in words] for words in SENTENCES]
IO = [["LOC" if word == "fjord" else "O" for word in words] for words in SENTENCES]
KINDS = {
    "texts": ({"text": TEXTS, "mood": MOODS}, "sequence_classification", ["text"], "mood", ["glad", "sad"]),
    "booleans": (
        {"text": TEXTS, "spam": [i % 3 == 0 for i in range(ROWS)]},
        "sequence_classification",
        ["text"],
        "spam",
        ["false", "true"],
    ),
    "numbers by size": (
        {"text": TEXTS, "stars": [i % 11 + 1 for i in range(ROWS)]},
        "sequence_classification",
        ["text"],
        "stars",
        [str(i) for i in range(1, 12)],
    ),
    "numbers with gaps": (
        {"text": TEXTS, "y": [None if i % 9 == 0 else float(i % 2 + 3) for i in range(ROWS)]},
        "sequence_classification",
        ["text"],
        "y",
        ["3", "4"],
    ),
    "fractions": ({"text": TEXTS, "score": [i / 7 for i in range(ROWS)]}, "regression", ["text"], "score", None),
    "a pair by its names": (
        {"premise": TEXTS, "hypothesis": [f"{t} too" for t in TEXTS], "label": MOODS},
        "sequence_classification",
        ["premise", "hypothesis"],
        "label",
        ["glad", "sad"],
    ),
    "an id beside": (
        {"id": list(range(ROWS)), "key": [f"k{i}" for i in range(ROWS)], "text": TEXTS, "mood": MOODS},
        "sequence_classification",
        ["text"],
        "mood",
        ["glad", "sad"],
    ),
    "lists of labels": (
        {"text": TEXTS, "topics": [["sea", "land"][: i % 3] for i in range(ROWS)]},
        "multi_label",
        ["text"],
        "topics",
        ["land", "sea"],
    ),
    "labels in one text": (
        {"text": TEXTS, "topics": [["sea|land", "land", "sky | sea", "land|sky"][i % 4] for i in range(ROWS)]},
        "multi_label",
        ["text"],
        "topics",
        ["land", "sea", "sky"],
    ),
    "spans": (
        {"tokens": SENTENCES, "tags": NER},
        {"name": "token_classification", "scheme": "iob2"},
        ["tokens"],
        "tags",
        ["O", "B-LOC", "I-LOC"],
    ),
    "spans in texts": (
        {"text": TEXTS, "tags": [" ".join(tags) for tags in NER]},
        {"name": "token_classification", "scheme": "iob2"},
        ["text"],
        "tags",
        ["O", "B-LOC", "I-LOC"],
    ),
    "parts of speech in texts": (
        {"text": TEXTS, "pos": [" ".join(tags) for tags in POS]},
        {"name": "token_classification", "scheme": "none"},
        ["text"],
        "pos",
        ["noun", "num"],
    ),
    "plain types": (
        {"tokens": SENTENCES, "kinds": IO},
        {"name": "token_classification", "scheme": "io"},
        ["tokens"],
        "kinds",
        ["O", "LOC"],
    ),
    "lists of other names": (
        {"sentence": SENTENCES, "spans": NER},
        {"name": "token_classification", "scheme": "iob2"},
        ["sentence"],
        "spans",
        ["O", "B-LOC", "I-LOC"],
    ),
}


def needed(columns) -> dict[str, str]:
    """The arguments without which these columns could be meant in two ways."""
    return (
        {"label": "pos"} if "pos" in columns else {"label": "spans", "text": "sentence"} if "spans" in columns else {}
    )


@pytest.mark.parametrize(("columns", "head", "inputs", "target", "labels"), KINDS.values(), ids=list(KINDS))
def test_the_kind_of_head_is_told_from_the_label_column(columns, head, inputs, target, labels):
    task = made(columns, **needed(columns))
    assert (task.head, task.inputs, task.target, task.labels) == (head, inputs, target, labels)
    assert set(load_rows(task)) == {"train", "validation", "test"}
    assert target in said(task, "head")


@pytest.mark.parametrize("columns", [case[0] for case in KINDS.values()], ids=list(KINDS))
def test_what_is_inferred_trains(columns):
    """Every inferred task goes through the head: tokens, labels, and the metrics that were chosen."""
    from nlp_mtl.data import load_data
    from nlp_mtl.testing import tiny_tokenizer

    given = (
        {"label": "pos"} if "pos" in columns else {"label": "spans", "text": "sentence"} if "spans" in columns else {}
    )
    task = made(columns, **given)
    heads = make_heads([task])
    data = load_data(heads, tiny_tokenizer(), max_length=64)
    pool = data.pool_of("mine", "train")
    head = heads["mine"]
    labels = [label for label in pool.labels("mine") if label is not None]
    assert labels
    rows = pool.table.select([i for i, label in enumerate(pool.labels("mine")) if label is not None])
    references = head.references(labels, rows)
    assert set(head.score(head.trivial(labels, rows, labels, rows), references)) >= set(task.metrics)


@pytest.mark.parametrize("columns", [case[0] for case in KINDS.values()], ids=list(KINDS))
def test_neither_the_order_of_rows_nor_of_columns_changes_what_is_inferred(columns):
    order = random.Random(1).sample(range(ROWS), ROWS)
    other = {name: [columns[name][i] for i in order] for name in reversed(columns)}
    one, two = made(columns, **needed(columns)), made(other, **needed(columns))
    keys = {"head", "inputs", "target", "labels", "metrics", "splits", "prepare"}
    assert one.model_dump(include=keys) == two.model_dump(include=keys)


def test_names_of_a_classlabel_are_kept_in_their_order():
    rows = Dataset.from_dict(
        {"text": TEXTS, "y": [i % 2 for i in range(ROWS)]},
        features=Features({"text": Value("string"), "y": ClassLabel(names=["zebra", "ape"])}),
    )
    assert made(rows).labels == ["zebra", "ape"]
    tagged = Dataset.from_dict(
        {"tokens": SENTENCES, "tags": [[int(tag == "B-LOC") for tag in tags] for tags in NER]},
        features=Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-LOC", "I-LOC"]))}),
    )
    task = made(tagged)
    assert (task.head, task.labels) == ({"name": "token_classification", "scheme": "iob2"}, ["O", "B-LOC", "I-LOC"])


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["B-A", "I-A", "B-A"], ["O"]], "iob2"),
        ([["I-A", "B-A", "I-B"], ["O"]], "iob1"),
        ([["I-A", "I-A"], ["O"]], "iob1"),
        ([["B-A", "O", "I-A"], ["B-A"]], "iob2"),
        ([["A", "O"]], "io"),
        ([["A", "B"]], "none"),
        ([["O"]], "none"),
    ],
)
def test_the_scheme_of_tags(sentences, scheme):
    assert tag_scheme(sentences)[0] == scheme
    names = {tag for tags in sentences for tag in tags}
    assert set(tag_labels(names, scheme)) >= names


def test_schemes_that_are_not_read_are_refused_with_the_way_out():
    tags = [["S-LOC" if tag == "B-LOC" else "B-X" if i == 1 else tag for i, tag in enumerate(row)] for row in NER]
    refused({"tokens": SENTENCES, "tags": tags}, "'S-LOC'", "BIOES", "write S- and U- as B-")


# ---------------------------------------------------------------------------------------------------------- metrics


def test_macro_f1_comes_first_where_labels_are_rare():
    even = made({"text": TEXTS, "mood": MOODS})
    rare = made({"text": TEXTS, "mood": ["glad" if i % 10 == 0 else "sad" for i in range(ROWS)]})
    assert even.metrics == ["accuracy", "f1_macro"]
    assert rare.metrics == ["f1_macro", "accuracy"]
    assert "9 times" in said(rare, "metrics")
    assert "glad has fewer than 10 rows" in said(rare, "rows")
    topics = [["sea"] * (i % 10 == 0) + ["land"] for i in range(ROWS)]
    assert made({"text": TEXTS, "topics": topics}).metrics == ["f1_macro", "f1_micro"]
    assert made({"text": TEXTS, "mood": MOODS}, metrics=["matthews_correlation"]).metrics == ["matthews_correlation"]


# ----------------------------------------------------------------------------------------------------------- labels


def test_labels_may_be_named_in_order_or_by_value():
    numbers = {"text": TEXTS, "y": [i % 3 for i in range(ROWS)]}
    task = made(numbers, labels=["bad", "fair", "good"])
    assert (task.labels, task.prepare) == (["bad", "fair", "good"], [])
    task = made({"text": TEXTS, "y": [i % 3 - 1 for i in range(ROWS)]}, labels={-1: "bad", 0: "fair", 1: "good"})
    assert task.labels == ["bad", "fair", "good"]
    assert sorted(set(load_rows(task)["train"]["y"])) == ["bad", "fair", "good"]
    floats = {"text": TEXTS, "y": [None if i % 9 == 0 else float(i % 2) for i in range(ROWS)]}
    assert set(load_rows(made(floats, labels={0: "no", 1: "yes"}))["train"]["y"]) == {"no", "yes", None}
    assert made({"text": TEXTS, "mood": MOODS}, labels=["sad", "glad", "mad"]).labels == ["sad", "glad", "mad"]


@pytest.mark.parametrize("low", [1, 3])
def test_whole_numbers_are_the_labels_of_that_name_and_not_of_that_place(low):
    from nlp_mtl.data import load_data
    from nlp_mtl.testing import tiny_tokenizer

    stars = [low + i % 3 for i in range(ROWS)]
    task = made({"text": TEXTS, "stars": stars}, splits={"validation": None, "test": None})
    heads = make_heads([task])
    pool = load_data(heads, tiny_tokenizer(), max_length=64).pool_of("mine", "train")
    assert [task.labels[number] for number in pool.labels("mine")] == [str(star) for star in stars]


@pytest.mark.parametrize(
    ("values", "given", "parts"),
    [
        ([i % 3 - 1 for i in range(ROWS)], {}, ["-1 beside 0, 1", "labels={-1: …}", "--labels -1=NAME 0=NAME 1=NAME"]),
        ([i % 4 for i in range(ROWS)], {"labels": ["a", "b"]}, ["the numbers 0, 1, 2, 3", "2 labels are named"]),
        (MOODS, {"labels": ["glad", "sda"]}, ["holds 'sad' too", "did you mean 'sda'"]),
        (MOODS, {"labels": {"glad": "happy"}}, ["holds sad too", "name all values"]),
        (["x"] * ROWS, {}, ["every label in 'y' is 'x'"]),
        ([i // 2 for i in range(ROWS)], {}, ["30 different whole numbers", "(--head)"]),
        ([str(["a", "b"])] * ROWS, {}, ["lists written as text", "to_json"]),
        ([[i % 2, 1] for i in range(ROWS)], {}, ["lists of 0 and 1 for 2 labels", "--labels"]),
        ([[]] * ROWS, {"head": "multi_label", "label": "y"}, ["empty"]),
        ([[{"a": i}] for i in range(ROWS)], {"head": "multi_label", "label": "y"}, ["is no label"]),
        ([None] * ROWS, {"label": "y"}, ["'y' is empty throughout"]),
        ([float(i) + 0.5 for i in range(ROWS)], {"head": "sequence_classification"}, ["no fractions", "--head"]),
        (MOODS, {"head": "regression"}, ["regression predicts numbers", "'sad'"]),
        ([2.5] * ROWS, {}, ["every value of 'y' is 2.5"]),
        (MOODS, {"head": "multi_label", "labels": ["a"]}, ["holds 'glad' too", "holds 'sad' too"]),
    ],
)
def test_labels_that_can_not_be_told_are_refused(values, given, parts):
    refused({"text": TEXTS, "y": values}, *parts, **given)


def test_tags_that_do_not_fit_the_words_are_named_by_row():
    tags = [tags[:-1] if i in (3, 5) else tags for i, tags in enumerate(NER)]
    refused({"tokens": SENTENCES, "tags": tags}, "8 words and 7 tags in row 3", "in row 5", "2 row(s) in all")
    texts = [" ".join(row) for row in tags]
    refused({"text": TEXTS, "tags": texts}, "8 words and 7 tags in row 3", label="tags")
    refused({"tokens": SENTENCES, "tags": [[0] * 8] * ROWS}, "numbers up to 0, and 0 are named", "--labels O B-PER")


# --------------------------------------------------------------------------------------------------------- columns

TWO = {"title": TEXTS, "body": [f"{text} again" for text in TEXTS], "mood": MOODS, "tone": MOODS[1:] + MOODS[:1]}


def test_columns_that_could_be_meant_alike_are_all_named_with_the_argument_to_give():
    error = refused(
        TWO, "'title' (text, 8 words", "'body' (text, 9 words", "'mood' (2 different", "'tone' (2 different"
    )
    assert len(error.mistakes) == 2
    assert any("`text` (--text COL), two for a pair (--text COL COL)" in mistake for mistake in error.mistakes)
    assert any("`label` (--label COL)" in mistake for mistake in error.mistakes)
    assert made(TWO, text=["title", "body"], label="mood").inputs == ["title", "body"]
    assert made(TWO, text="title", label="tone").target == "tone"
    task = made({**TWO, "label": MOODS}, text="title")
    assert task.target == "label"
    assert "'mood'" in said(task, "label")


def test_a_template_joins_columns_and_is_no_text_column():
    task = made({**TWO, "price": list(range(ROWS))}, template="{title} costs {price}: {body}", label="mood")
    assert task.inputs == ["title", "price", "body"]
    assert task.template == "{title} costs {price}: {body}"
    refused(TWO, "no column 'titel'; did you mean 'title'", template="{titel}", label="mood")
    refused(TWO, "`text` or `template`, not both", template="{title}", text="body", label="mood")
    refused(TWO, "character 1", template="{title", label="mood")


def test_all_that_is_wrong_is_told_at_once():
    error = refused(
        TWO, text=["titel", "bdoy"], label="modo", head="sequence_clasification", metrics=["acuracy"], max_lenght=3
    )
    near = ["'max_length'", "'sequence_classification'", "'accuracy'", "'title'", "'body'", "'mood'"]
    assert len(error.mistakes) == len(near)
    for mistake, name in zip(error.mistakes, near, strict=True):
        assert f"did you mean {name}" in mistake
    with pytest.raises(ConfigError, match="a task name has 1 to 64") as caught:
        Task.from_data("my task", TWO, text="title", label="title")
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"text": ["title", "body", "mood"], "label": "tone"}, "a template joins more"),
        ({"text": ["title", "title"], "label": "tone"}, "each column once"),
        ({"text": "title", "label": "title"}, "read and predicted at once"),
        ({"text": "title", "label": "mood", "labels": "glad"}, "found the text 'glad'"),
        ({"text": "title", "label": "mood", "head": {"nam": "x"}}, "write a kind of head"),
        (
            {"text": "title", "label": "mood", "head": {"name": "multi_label", "treshold": 1}},
            "did you mean 'threshold'",
        ),
        ({"text": "title", "label": "mood", "splits": {"train": 0.5}}, "`splits`"),
        ({"label": ["mood"]}, "label: one column's name, found ['mood']"),
        ({"text": 3}, "text: a column's name, or a list of them, found 3"),
        ({"text": ["title", 3]}, "text: a column's name, or a list of them, found ['title', 3]"),
        ({"template": 3}, "template: a text such as '{title}: {body}', found 3"),
        ({"head": 3}, "head: write a kind of head, or {name: …, arguments}, found 3"),
        ({"options": ["x"]}, "options: a mapping key → value, for the reader of files, found ['x']"),
        ({"columns": "x"}, "columns: a list of names, found 'x'"),
        ({"metrics": 3}, "metrics: a name, or a list of names, found 3"),
        ({"metrics": "acuracy"}, "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ({"prepare": 3}, "prepare: a preparation, {name: …, arguments}, or a list of them, found 3"),
        ({"labels": {"glad", "sad"}}, "labels: a list of names, whose order is that of their numbers, found a set"),
        ({"labels": 3}, "labels: a list of names, or a mapping value → name, found 3"),
        ({"text": "title", "label": "mood", "options": {"sep": ";"}}, "the data is given as an object"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, part):
    refused(TWO, part, **given)


# ------------------------------------------------------------------------------------------------------------ splits


def test_rows_held_out_are_the_same_every_time_and_others_with_another_seed():
    columns = {"text": TEXTS * 2, "mood": MOODS * 2}
    task = made(columns)
    first, again = load_rows(task), load_rows(made(columns))
    assert {s: rows["text"][:] for s, rows in first.items()} == {s: rows["text"][:] for s, rows in again.items()}
    other = load_rows(made(columns, split_seed=1))
    assert set(other["test"]["text"]) != set(first["test"]["text"])
    for found in (first, other):
        parts = [set(rows["text"]) for rows in found.values()]
        assert sorted(text for part in parts for text in part) == sorted(TEXTS), "each text once, on one side"
    assert f"{ROWS} training rows have a text that stood before" in said(task, "rows")


def test_splits_are_shares_of_what_is_there():
    assert made({"text": TEXTS[:12], "mood": MOODS[:12]}).splits == {"validation": 0.3}
    many = {"text": [f"{TEXTS[0]} {i}" for i in range(2000)], "mood": (MOODS * 34)[:2000]}
    assert made(many).splits == {"validation": 0.1, "test": 0.1}
    rows = Dataset.from_dict({"text": TEXTS, "mood": MOODS})
    assert made({"train": rows, "test": rows.select(range(20))}).splits == {"validation": 0.15}
    assert made({"train": rows}, splits={"validation": 0.5}).splits == {"validation": 0.5}


def test_the_datas_own_splits_are_taken_by_their_names():
    rows = Dataset.from_dict({"text": TEXTS, "mood": MOODS})
    data = DatasetDict({"training": rows.select(range(40)), "dev": rows.select(range(30, 50)), "unlabelled": rows})
    task = made(data)
    assert {split: len(part) for split, part in load_rows(task).items()} == {"train": 40, "validation": 20}
    assert task.splits == {}
    assert "unlabelled left out" in said(task, "splits")
    assert "10 text(s) of validation are training rows too" in said(task, "rows")
    refused(DatasetDict({"test": rows, "dev": rows}), "one split must be for training")
    both = made(DatasetDict({"train": rows, "dev": rows, "validation": rows.select(range(20))}))
    assert "dev left out, since validation is taken for validation" in said(both, "splits")
    assert len(load_rows(both)["validation"]) == 20
    for name in ("test", "validation", "dev"):
        refused(DatasetDict({name: rows}), f"found {name}; call it 'train', or give its rows themselves")
    assert len(load_rows(made(DatasetDict({"all": rows}), splits={"validation": None}))["train"]) == ROWS


def test_a_test_split_may_lack_the_label():
    rows = Dataset.from_dict({"text": TEXTS, "mood": MOODS})
    task = made({"train": rows, "test": rows.remove_columns("mood").select(range(5))})
    assert load_rows(task)["test"].column_names == ["text"]
    assert "test 5 (no labels)" in said(task, "rows")


def test_rows_without_a_label_are_counted_and_labels_without_a_training_row_named():
    moods = [None if i < 7 else mood for i, mood in enumerate(MOODS)]
    rows = Dataset.from_dict({"text": TEXTS, "mood": moods})
    later = Dataset.from_dict({"text": [f"{text} later" for text in TEXTS], "mood": ["glad", "sad", "odd"] * 20})
    task = made({"train": rows, "validation": later})
    assert f"train {ROWS} (7 without a label), validation {ROWS}" in said(task, "rows")
    assert "no training row has odd" in said(task, "labels")
    numbers = made({"train": rows}, labels=["glad", "sad", "odd"], splits={"validation": None})
    assert "no training row has odd" in said(numbers, "labels")
    assert "no training row" not in said(made({"text": TEXTS, "mood": MOODS}), "labels")


def test_rows_without_a_text_are_not_compared():
    """Rows that are left out have no text in common and no labels."""
    frame = pd.DataFrame({"text": [*TEXTS, None, None, "  "], "mood": [*MOODS, "glad", "sad", "glad"]})
    task = made(frame)
    assert "3 without text left out" in said(task, "rows")
    assert "stood before" not in said(task, "rows") and "different labels" not in said(task, "rows")


def test_one_metric_may_stand_alone():
    assert made({"text": TEXTS, "mood": MOODS}, metrics="accuracy").metrics == ["accuracy"]


def test_columns_of_numbers_are_read_by_a_template():
    columns = {"id": list(range(ROWS)), "mood": MOODS}
    refused(columns, "text: 'id' holds 0 and the like", "(--template '{id}')", text="id")
    assert made(columns, template="{id}").inputs == ["id"]


def test_what_check_and_train_refuse_makes_no_task():
    stars = [float(i) / 7 for i in range(ROWS)]
    refused(
        {"text": TEXTS, "stars": [float("inf"), *stars[1:]]}, "holds inf; correct", label="stars", head="regression"
    )
    refused({"tokens": SENTENCES, "tags": [["O"] * len(words) for words in SENTENCES]}, "every tag in 'tags' is 'O'")


def test_a_number_is_quoted_as_a_number():
    refused({"text": TEXTS, "mood": [0] * ROWS}, "every label in 'mood' is 0;")


def test_columns_of_one_label_each_are_told_the_way_out():
    columns = {
        "text": TEXTS,
        **{name: [int(i % n == 0) for i in range(ROWS)] for n, name in ((2, "toxic"), (3, "rude"))},
    }
    refused(columns, "labels_at_least, columns: [toxic, rude]")
    step = {"name": "labels_at_least", "columns": ["toxic", "rude"]}
    task = made(columns, prepare=step, label="labels")
    assert (task.head_name, task.labels) == ("multi_label", ["rude", "toxic"])


def test_metrics_that_are_said_are_not_told_as_inferred():
    assert not said(made({"text": TEXTS, "mood": MOODS}, metrics=["matthews_correlation"]), "metrics")
    assert said(made({"text": TEXTS, "mood": MOODS}), "metrics")


def test_a_column_that_was_left_out_is_told_where_it_is_missed():
    frame = pd.DataFrame({"text": TEXTS, "mood": MOODS, "odd": [1, "a"] * (ROWS // 2)})
    refused(frame, "no column 'odd'", "the column 'odd' is left out: its values are not all of one kind", label="odd")


def test_labels_that_differ_in_spelling_alone_are_told():
    moods = ["glad", "Glad", "sad", "caf\u00e9", "cafe\u0301"] * (ROWS // 5)
    assert "'Glad', 'glad'; 'cafe\u0301', 'caf\u00e9' differ only" in said(
        made({"text": TEXTS, "mood": moods}), "labels"
    )


def test_texts_with_two_labels_are_counted():
    task = made({"text": TEXTS + TEXTS[:3], "mood": [*MOODS, "sad", "sad", "glad"]})
    assert "2 text(s) stand there with different labels" in said(task, "rows")


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_of_equal_texts_the_one_with_a_label_stays(nothing):
    """Else rows that were labelled after they were collected would lose their labels."""
    data = pd.DataFrame({"text": TEXTS + TEXTS, "mood": [nothing] * 20 + MOODS[20:] + MOODS[:20] + [nothing] * 40})
    task = made(data, text="text", label="mood")
    rows = [row for part in load_rows(task).values() for row in part]
    assert sorted((row["text"], row["mood"]) for row in rows) == sorted(zip(TEXTS, MOODS, strict=True))
    assert "left out but for the first that has a label" in said(task, "rows")
    assert "different labels" not in said(task, "rows")


# ----------------------------------------------------------------------------------------- objects that are taken


def test_data_frames_rows_and_datasets_give_the_same_task():
    columns = {"text": TEXTS, "mood": MOODS}
    frame = pd.DataFrame(columns, index=range(100, 100 + ROWS))
    rows = frame.to_dict("records")
    tasks = [made(data) for data in (columns, frame, rows, Dataset.from_dict(columns), Dataset.from_list(rows))]
    assert all(task.model_dump() == tasks[0].model_dump() for task in tasks), "fingerprints included"
    frame["mood"] = frame["mood"].astype("category")
    assert made(frame).labels == ["glad", "sad"]
    assert made([{"text": text} if i == 7 else {"mood": MOODS[i], "text": text} for i, text in enumerate(TEXTS)]).labels


def test_missing_texts_are_left_out_and_columns_of_several_kinds_too():
    frame = pd.DataFrame({"text": TEXTS, "mood": MOODS, "odd": [1, "a"] * (ROWS // 2)})
    frame.loc[[3, 4], "text"] = [None, "  "]
    task = made(frame)
    assert task.prepare == [{"name": "drop_empty", "columns": ["text"]}]
    assert "2 without text left out" in said(task, "rows")
    assert "'odd' is left out" in said(task, "data")
    assert sum(len(rows) for rows in load_rows(task).values()) == ROWS - 2


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (3, "found int"),
        ([], "has no rows"),
        ({}, "none"),
        ([1, 2], "found list"),
        (pd.DataFrame({"a": [], "b": []}), "has no rows"),
        ({"a": [1], "b": [1, 2]}, "differ in length"),
        (pd.DataFrame({0: ["a b"], 1: [1]}), "a column's name is text, found 0"),
        (pd.DataFrame([["a b", "c"]], columns=["a", "a"]), "stands twice"),
        (Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(), "can't be counted"),
    ],
)
def test_other_objects_are_refused(data, part):
    refused(data, part)


# -------------------------------------------------------------------------------------------------------- in memory


def test_rows_travel_with_the_task_and_nothing_of_them_is_recorded():
    task = made({"text": TEXTS, "mood": MOODS, "secret": TEXTS}, text="text")
    for copy in (task, task.with_(tags=["mine"]), task.model_copy(), mtl.load_tasks([task])[0]):
        assert len(load_rows(copy)["train"]) > 0
        assert copy.inferred == task.inferred
    recorded = task.model_dump_json(exclude_unset=True)
    assert "amber" not in recorded
    assert "amber" not in repr(task)
    assert task.dataset.memory.columns == ["text", "mood"]
    again = Task.model_validate_json(recorded)
    with pytest.raises(NotFoundError) as caught:
        load_rows(again)
    for part in (
        "made in Python by Task.from_data",
        "train 60",
        task.dataset.memory.fingerprint,
        "Task.from_data('mine'",
    ):
        assert part in str(caught.value)


def test_what_was_tokenized_before_is_not_used_without_the_rows():
    from nlp_mtl.data import load_data
    from nlp_mtl.testing import tiny_tokenizer

    task = made({"text": TEXTS, "mood": MOODS})
    load_data(make_heads([task]), tiny_tokenizer(), max_length=32)
    without = Task.model_validate_json(task.model_dump_json(exclude_unset=True))
    with pytest.raises(NotFoundError, match="in memory"):
        load_data(make_heads([without]), tiny_tokenizer(), max_length=32)


def test_a_task_file_can_not_claim_rows_in_memory():
    with pytest.raises(ValueError, match="a task file names a Hub id"):
        Task(name="x", head="regression", inputs=["text"], dataset={"path": "memory"})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.none() | st.integers(-3, 3)), min_size=1, max_size=6), st.data())
def test_a_fingerprint_is_that_of_the_content(rows, data):
    table = Dataset.from_dict({"text": [text for text, _ in rows], "y": [y for _, y in rows]})
    same = Dataset.from_list([{"text": text, "y": y} for text, y in rows], features=table.features)
    assert fingerprint({"train": table}) == fingerprint({"train": same})
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = [(text + "!" if i == place else text, y) for i, (text, y) in enumerate(rows)]
    other = Dataset.from_dict({"text": [t for t, _ in changed], "y": [y for _, y in changed]}, features=table.features)
    assert fingerprint({"train": table}) != fingerprint({"train": other})
    assert fingerprint({"train": table}) != fingerprint({"test": table})


values = st.none() | st.booleans() | st.integers(-2, 40) | st.floats(allow_infinity=False) | st.text(max_size=8)
cells = values | st.lists(st.text(max_size=4) | st.integers(0, 3), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), cells, max_size=3), max_size=8))
def test_any_rows_make_a_task_or_are_refused_in_words(rows):
    try:
        task = Task.from_data("mine", rows)
    except mtl.NlpMtlError as error:
        refusal = str(error)
        assert len(refusal) > 20
    else:
        assert task.inferred
        assert len(load_rows(task)["train"])
