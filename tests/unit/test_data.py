"""From task files to tokenized rows: read once, kept, counted, and refused as a whole with every reason."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.columns import read_column
from nlp_mtl.data import load_data
from nlp_mtl.errors import DataError, NotFoundError
from nlp_mtl.heads import MaskedLM, SequenceClassification, TokenClassification
from nlp_mtl.model import make_heads
from nlp_mtl.packages import cache_folder
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch, own_cache):
    """A cache that no other test has written to."""
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


ROWS = [{"text": "the cat", "label": "a"}, {"text": "a dog in the rain", "label": "b"}, {"text": "sun", "label": None}]


@pytest.fixture
def data(tmp_path):
    """A data set of two splits."""
    return {
        "path": "json",
        "data_files": {
            "train": write(tmp_path / "train.jsonl", ROWS),
            "validation": write(
                tmp_path / "dev.jsonl", [{"text": "the cat", "label": "a"}, {"text": "blue", "label": "b"}]
            ),
        },
    }


def classify(data, name="demo", **more):
    settings = {"head": "sequence_classification", "inputs": ["text"], "target": "label", "dataset": data, **more}
    return Task(name=name, **settings)


def load(*tasks, tokenizer=TOKENIZER, max_length=32, **more):
    return load_data(make_heads(list(tasks)), tokenizer, max_length=max_length, **more)


@pytest.fixture
def counted(monkeypatch):
    """How often rows were tokenized: (head, rows) of each call of `Head.tokenize`, which still does its work."""
    calls = []
    for kind in (SequenceClassification, TokenClassification, MaskedLM):
        original = kind.tokenize

        def tokenize(self, rows, *args, original=original):
            calls.append((self.task.name, len(next(iter(rows.values())))))
            return original(self, rows, *args)

        monkeypatch.setattr(kind, "tokenize", tokenize)
    return calls


def entries():
    folder = cache_folder() / "tokenized"
    return sorted(part.name for part in folder.iterdir()) if folder.is_dir() else []


# ------------------------------------------------------------------------------------------------------------ the cache


def test_a_second_call_tokenizes_nothing(data, counted):
    first = load(classify(data))
    assert counted
    counted.clear()
    second = load(classify(data))
    assert counted == []
    for split in ("train", "validation"):
        ours, theirs = first.pool_of("demo", split), second.pool_of("demo", split)
        assert ours.table.to_list() == theirs.table.to_list()
        assert ours.facts == theirs.facts
    assert second.heads["demo"].labels == first.heads["demo"].labels == ["a", "b"], "label names are kept too"
    assert len(entries()) == 1


def test_reading_changes_no_file(data):
    load(classify(data))
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in cache_folder().rglob("*") if file.is_file()}
    assert files
    pool = load(classify(data)).pool_of("demo", "train")
    pool.row(0)["input_ids"].sum()
    assert {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in cache_folder().rglob("*") if file.is_file()
    } == files
    with pytest.raises(ValueError, match="read-only"):
        pool.row(0)["input_ids"][0] = 1


def test_two_at_once_leave_one_whole_entry(data, monkeypatch):
    """Both tokenize into folders of their own; the second to finish finds the first one's in its place."""
    original, inner = SequenceClassification.tokenize, []

    def tokenize(self, *args):
        if not inner:  # in the midst of the first process's work, a second one does all of it
            inner.append(None)
            with monkeypatch.context() as second:
                second.setattr(os, "getpid", lambda: 1)
                inner.append(load(classify(data)))
        return original(self, *args)

    monkeypatch.setattr(SequenceClassification, "tokenize", tokenize)
    outer = load(classify(data))
    tables = [found.pool_of("demo", "train").table.to_list() for found in (outer, inner[1])]
    assert tables[0] == tables[1]
    assert len(entries()) == 1, "no half-written folder stays"


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 4},
        {"prepare": [{"name": "drop_empty", "columns": ["label"]}]},
        {"rows": {"validation": 1}},
        {"labels": ["b", "a"]},
    ],
)
def test_a_change_of_the_task_makes_a_new_entry(data, counted, change):
    load(classify(data))
    counted.clear()
    load(classify(data, **change))
    assert counted
    assert len(entries()) == 2


def test_words_for_people_make_no_new_entry(data, counted):
    load(classify(data))
    counted.clear()
    load(classify(data, description="another", tags=["x"], metrics=["f1_macro"], version=2))
    assert counted == []


def test_a_change_of_the_file_is_noticed(data, tmp_path):
    assert len(load(classify(data)).pool_of("demo", "train")) == 3
    write(tmp_path / "train.jsonl", [*ROWS, {"text": "new", "label": "a"}])
    assert len(load(classify(data)).pool_of("demo", "train")) == 4


def test_a_change_of_the_same_size_is_noticed(data, tmp_path):
    before = load(classify(data)).pool_of("demo", "train").table["input_ids"][0]
    file = tmp_path / "train.jsonl"
    old = file.stat()
    file.write_text(file.read_text(encoding="utf-8").replace("the cat", "the dog"), encoding="utf-8")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000))
    assert load(classify(data)).pool_of("demo", "train").table["input_ids"][0] != before


def test_another_tokenizer_makes_a_new_entry(data, counted):
    load(classify(data))
    counted.clear()
    load(classify(data), tokenizer=tiny_tokenizer(decoder=True))
    assert counted
    counted.clear()
    other = tiny_tokenizer()
    other.add_tokens(["cat"])
    other.add_special_tokens({"additional_special_tokens": ["<x>"]})
    load(classify(data), tokenizer=other)
    assert counted
    counted.clear()
    load(classify(data), max_length=7)
    assert counted


def test_a_side_of_truncation_makes_a_new_entry(tmp_path, counted):
    data = {"path": "json", "data_files": write(tmp_path / "x.jsonl", [{"text": "cat " * 9 + "dog", "label": "a"}])}
    other = tiny_tokenizer()
    other.truncation_side = "left"
    first = load(classify(data), max_length=6).pool_of("demo", "train").row(0)["input_ids"]
    second = load(classify(data), tokenizer=other, max_length=6).pool_of("demo", "train").row(0)["input_ids"]
    assert TOKENIZER.decode(first, skip_special_tokens=True).split()[-1] == "cat"
    assert TOKENIZER.decode(second, skip_special_tokens=True).split()[-1] == "dog"


def test_truncating_by_hand_before_makes_no_new_entry(data, counted):
    """A tokenizer remembers how it was called last; that is not a part of what it is."""
    load(classify(data))
    counted.clear()
    used = tiny_tokenizer()
    used("a text", truncation=True, max_length=5, padding="max_length")
    load(classify(data), tokenizer=used)
    assert counted == []


# ------------------------------------------------------------------------------------------------------------ the facts


def test_facts_count_rows_labels_truncation_and_rows_on_both_sides(data):
    found = load(classify(data), max_length=6)
    assert found.facts("demo", "train") == {"rows": 3, "labelled": 2, "truncated": 1, "in_train": 0}
    assert found.facts("demo", "validation") == {"rows": 2, "labelled": 2, "truncated": 0, "in_train": 1}
    assert found.notes() == [
        "demo, train: 3 rows, 1 cut to the maximum length; 1 without a label, skipped for this task",
        "demo, validation: 2 rows, 1 also among the training rows",
    ]
    assert found.facts("demo", "test") == {}
    assert found.pool_of("demo", "test") is None


def test_only_the_wanted_splits_are_given(data):
    assert list(load(classify(data), splits=["validation"]).splits) == ["validation"]


def test_a_test_split_needs_no_target(tmp_path):
    rows = [{"text": "sun"}, {"text": "rain"}]
    file = write(tmp_path / "x.jsonl", rows)
    found = load(classify({"path": "json", "data_files": {"test": file}}, labels=["a", "b"]))
    assert found.facts("demo", "test") == {"rows": 2, "labelled": 0, "truncated": 0, "in_train": 0}
    with pytest.raises(DataError, match="'label'"):
        load(classify({"path": "json", "data_files": {"validation": file}}, labels=["a", "b"]))


def test_row_gives_numbers_only_and_labels_of_every_task(data):
    pool = load(classify(data)).pool_of("demo", "train")
    row = pool.row(1)
    assert row["input_ids"].tolist() == TOKENIZER("a dog in the rain")["input_ids"]
    assert row["lengths"].tolist() == [7]
    assert row["labels:demo"] == 1
    assert pool.row(2)["labels:demo"] is None
    assert pool.tokens.tolist() == [4, 7, 3]
    assert pool.trainable.tolist() == [0, 1]


# --------------------------------------------------------------------------------------- several tasks on the same rows

WORDS = [
    {"words": ["play", "the", "cat"], "intent": "music", "slots": ["O", "O", "B-X"]},
    {"words": ["rain", "in", "city"], "intent": "weather", "slots": None},
    {"words": ["play", "dog"], "intent": None, "slots": ["O", "B-X"]},
    {"words": ["no"], "intent": None, "slots": None},
]


def intent_and_slots(tmp_path, lines=WORDS, **more):
    data = {"path": "json", "data_files": {"train": write(tmp_path / "snips.jsonl", lines)}}
    intent = Task(name="intent", head="sequence_classification", inputs=["words"], target="intent", dataset=data)
    slots = Task(name="slots", head="token_classification", inputs=["words"], target="slots", dataset=data)
    return intent, slots.with_(**more)


def test_tasks_on_the_same_rows_are_one_pool(tmp_path, counted):
    found = load(*intent_and_slots(tmp_path))
    assert [pool.tasks for pool in found.splits["train"]] == [("intent", "slots")]
    assert sum(rows for _, rows in counted) == 2 * len(WORDS), "a sample and the rows, once for both tasks"
    pool = found.pool_of("slots", "train")
    assert pool is found.pool_of("intent", "train")
    assert pool.labels("intent") == [0, 1, None, None]
    assert pool.labels("slots") == [[0, 0, 1], None, [0, 1], None]


def test_a_row_without_a_tasks_label_is_skipped_for_that_task_only(tmp_path):
    from nlp_mtl.batches import Collator

    found = load(*intent_and_slots(tmp_path))
    pool = found.pool_of("intent", "train")
    assert pool.labelled("intent").tolist() == [True, True, False, False]
    assert pool.labelled("slots").tolist() == [True, False, True, False]
    assert pool.trainable.tolist() == [0, 1, 2]
    batch = Collator([pool], found.heads, training=True)([(0, row, 0) for row in (2, 1, 0)])
    assert {task: numbers.tolist() for task, numbers in batch["owners"].items()} == {"intent": [1, 2], "slots": [0, 2]}
    assert batch["targets"]["intent"]["labels"].tolist() == [1, 0]
    assert batch["targets"]["slots"]["labels"].tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    "change", [{"max_length": 3}, {"rows": {"train": 2}}, {"prepare": [{"name": "last_rows", "count": 2}]}]
)
def test_tasks_that_read_other_rows_are_other_pools(tmp_path, change):
    found = load(*intent_and_slots(tmp_path, **change))
    assert [pool.tasks for pool in found.splits["train"]] == [("intent",), ("slots",)]


def test_tasks_that_read_otherwise_are_other_pools(tmp_path):
    data = {
        "path": "json",
        "data_files": {"train": write(tmp_path / "x.jsonl", [{"a": "cat", "b": "dog", "label": "x"}])},
    }
    one = classify(data, name="one", inputs=["a"])
    two = classify(data, name="two", inputs=["a", "b"])
    three = Task(name="three", head="masked_lm", inputs=["a"], dataset=data)
    found = load(one, two, three)
    assert [pool.tasks for pool in found.splits["train"]] == [("one",), ("two",), ("three",)]


def test_every_task_of_a_pool_needs_its_column(tmp_path):
    with pytest.raises(DataError, match=r"task 'slots', split 'train'.*'slot'"):
        load(*intent_and_slots(tmp_path, target="slot"))
    assert entries() == []


def test_a_mistake_names_the_task_that_has_it(tmp_path):
    rows = [*WORDS, {"words": ["a", "b"], "intent": "music", "slots": ["O"]}]
    with pytest.raises(DataError) as caught:
        load(*intent_and_slots(tmp_path, lines=rows))
    assert "task 'slots', split 'train'" in str(caught.value)
    assert "row 4: 2 words but 1 tags" in str(caught.value)
    assert "intent" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_all_mistakes_of_all_tasks_and_splits_are_said_at_once(tmp_path):
    one = {
        "path": "json",
        "data_files": {
            "train": write(tmp_path / "a.jsonl", [{"text": "", "label": "a"}, {"text": "cat", "label": "z"}]),
            "validation": write(tmp_path / "b.jsonl", [{"text": "cat", "label": "y"}]),
        },
    }
    two = {"path": "json", "data_files": {"train": write(tmp_path / "c.jsonl", [{"text": "cat", "label": "high"}])}}
    words = intent_and_slots(tmp_path, lines=[{"words": [" "], "intent": "x", "slots": ["O", "O"]}])
    with pytest.raises(DataError) as caught:
        load(
            classify(one, name="first", labels=["a", "b"]),
            Task(name="second", head="regression", dataset=two, inputs=["text"], target="label"),
            *words,
        )
    said = str(caught.value)
    for task, split, what in [
        ("first", "train", "row 0: 'text' hold no text"),
        ("first", "train", "row 1: label 'z'"),
        ("first", "validation", "row 0: label 'y'"),
        ("second", "train", "row 0: target 'high' is not a number"),
        ("intent", "train", "row 0: 'words' hold no text"),
        ("slots", "train", "row 0: 1 words but 2 tags"),
    ]:
        assert f"task {task!r}, split {split!r}" in said
        assert what in said
    assert entries() == [], "nothing half-made stays behind"


def test_a_row_deep_in_the_file_is_named_by_its_number(tmp_path):
    rows = [{"text": "cat", "label": "a"}] * 2345
    rows[2222] = {"text": None, "label": "a"}
    rows[1111] = {"text": "dog", "label": "b"}
    data = {"path": "json", "data_files": write(tmp_path / "x.jsonl", rows)}
    with pytest.raises(DataError) as caught:
        load(classify(data, labels=["a", "c"]))
    assert "row 2222: column 'text' is not text" in str(caught.value)
    assert "row 1111: label 'b'" in str(caught.value)
    assert "2 row(s)" in str(caught.value)
    assert entries() == []


def test_many_mistakes_are_counted_and_some_are_shown(tmp_path):
    data = {"path": "json", "data_files": write(tmp_path / "x.jsonl", [{"text": "cat", "label": "q"}] * 1500)}
    with pytest.raises(DataError) as caught:
        load(classify(data, labels=["a"]))
    assert "1500 row(s)" in str(caught.value)
    assert "and 1492 more" in str(caught.value)


def test_a_mended_file_is_read_after_a_failure(tmp_path):
    file = tmp_path / "x.jsonl"
    data = {"path": "json", "data_files": write(file, [{"text": "", "label": "a"}])}
    with pytest.raises(DataError):
        load(classify(data))
    write(file, [{"text": "cat", "label": "a"}])
    assert len(load(classify(data)).pool_of("demo", "train")) == 1


def test_an_empty_split_is_refused_with_its_name(tmp_path):
    data = {
        "path": "json",
        "data_files": {
            "train": write(tmp_path / "a.jsonl", [{"text": "cat", "label": "a"}]),
            "validation": write(tmp_path / "b.jsonl", [{"text": " ", "label": "a"}]),
        },
    }
    with pytest.raises(DataError, match=r"task 'demo': the split 'validation' has no rows"):
        load(classify(data, prepare=[{"name": "drop_empty", "columns": ["text"]}]))


def test_a_missing_column_is_said_with_a_near_one(data):
    with pytest.raises(DataError, match=r"`inputs` names the column 'txt'.*did you mean 'text'"):
        load(classify(data, inputs=["txt"]))
    with pytest.raises(DataError, match=r"'labels'.*did you mean 'label'"):
        load(classify(data, target="labels"))
    with pytest.raises(DataError, match="column 'two'"):
        load(classify(data, head={"name": "multiple_choice", "choices": ["text", "two"]}))


def test_a_missing_file_is_said_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(NotFoundError, match=r"nothing\.jsonl"):
        load(classify({"path": "json", "data_files": str(tmp_path / "nothing.jsonl")}))


def test_what_is_missing_for_several_tasks_is_said_at_once(tmp_path):
    gone = [classify({"path": "json", "data_files": str(tmp_path / f"{n}.jsonl")}, name=n) for n in ("one", "two")]
    with pytest.raises(NotFoundError) as caught:
        load(*gone)
    assert all(f"a file of task '{n}' was not found" in str(caught.value) for n in ("one", "two"))
    rows = [{"text": None, "label": "a"}, {"text": "x", "label": "b"}]
    bad = {"path": "json", "data_files": write(tmp_path / "bad.jsonl", rows)}
    with pytest.raises(DataError) as both:
        load(gone[0], classify(bad, name="three"), gone[1])
    for said in ("a file of task 'one'", "task 'three', split 'train': 1 row(s)", "a file of task 'two'"):
        assert said in str(both.value)


def test_borrowed_labels_must_be_the_owners(tmp_path):
    one = {"path": "json", "data_files": write(tmp_path / "a.jsonl", [{"text": "cat", "label": v} for v in "abc"])}
    two = {"path": "json", "data_files": write(tmp_path / "b.jsonl", [{"text": "cat", "label": v} for v in "bc"])}
    owner, borrower = classify(one, name="owner"), classify(two, name="borrower", head_of="owner")
    with pytest.raises(DataError, match=r"'owner' and 'borrower' share a head.*list `labels` in 'owner'"):
        load(owner, borrower)
    found = load(owner.with_(labels=["c", "b", "a"]), borrower)
    assert found.pool_of("borrower", "train").labels("borrower") == [1, 0]


# -------------------------------------------------------------------------------------------------------------- columns


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.lists(st.integers(-5, 5), max_size=4), max_size=8), st.integers(1, 3))
def test_ragged_columns_give_back_what_went_in(rows, chunk):
    import pyarrow as pa

    parts = [pa.table({"x": pa.array(rows[i : i + chunk], pa.list_(pa.int32()))}) for i in range(0, len(rows), chunk)]
    table = pa.concat_tables(parts) if parts else pa.table({"x": pa.array([], pa.list_(pa.int32()))})
    column = read_column(table.slice(1) if len(rows) > 1 else table, "x")
    expected = rows[1:] if len(rows) > 1 else rows
    assert [None if column[i] is None else column[i].tolist() for i in range(len(expected))] == expected
    assert len(column) == len(expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=8), st.integers(1, 3))
def test_number_columns_give_back_what_went_in(rows, chunk):
    import pyarrow as pa

    table = pa.concat_tables(
        [pa.table({"x": pa.array(rows[i : i + chunk], pa.int64())}) for i in range(0, len(rows), chunk)]
    )
    column = read_column(table, "x")
    assert [column[i] for i in range(len(rows))] == rows
    assert len(column) == len(rows)


# ------------------------------------------------------------------------------------------------- what the cache knows


def test_arguments_of_the_model_alone_are_not_a_reason_to_read_again(data, counted):
    load(classify(data))
    counted.clear()
    load_data(make_heads([classify(data)], {"demo": {"pooling": "mean"}}), TOKENIZER, max_length=32)
    assert not counted


def test_arguments_that_change_labels_are_read_again(tmp_path):
    rows = [{"words": ["Ada", "Lund", "Bo"], "tags": ["I-PER", "I-PER", "B-PER"]}, {"words": ["x"], "tags": ["O"]}]
    files = {"path": "json", "data_files": {"train": write(tmp_path / "x.jsonl", rows)}}
    labels = ["O", "I-PER", "B-PER"]
    task = Task(name="ner", head="token_classification", dataset=files, inputs=["words"], target="tags", labels=labels)
    tags = {}
    for scheme in ("iob2", "iob1"):
        heads = make_heads([task], {"ner": {"scheme": scheme}})
        pool = load_data(heads, TOKENIZER, max_length=32).pool_of("ner", "train")
        tags[scheme] = [heads["ner"].labels[number] for number in pool.labels("ner")[0]]
    assert tags == {"iob2": ["I-PER", "I-PER", "B-PER"], "iob1": ["B-PER", "I-PER", "B-PER"]}


def test_a_changed_preparation_of_ones_own_is_run_again(tmp_path, data, monkeypatch):
    import importlib.util

    from nlp_mtl import registry

    task = classify(data, prepare=["first_rows_of_mine"])
    for count in (2, 1):
        file = tmp_path / "mine.py"
        file.write_text(
            "from nlp_mtl import registry\n\n"
            "@registry.preparations.register('first_rows_of_mine')\n"
            f"def first_rows_of_mine(rows):\n    return rows.select(range({count}))\n" + "#" * count
        )
        spec = importlib.util.spec_from_file_location(f"mine{count}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(__import__("sys").modules, f"mine{count}", module)
        registry.preparations._entries.pop("first_rows_of_mine", None)
        __import__("linecache").clearcache()
        spec.loader.exec_module(module)
        assert len(load(task).pool_of("demo", "train")) == count
    registry.preparations._entries.pop("first_rows_of_mine")
