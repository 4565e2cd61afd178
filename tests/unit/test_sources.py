"""Rows of a task: files and mirrors are found in order, read whole or refused by name, and held out for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import reading, sources
from nlp_mtl.errors import ConfigError, DataError, NotFoundError
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task

quick = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def no_data_of_the_user(monkeypatch, tmp_path):
    import datasets

    monkeypatch.delenv("NLP_MTL_DATA_ROOT", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setattr(reading, "hub_reachable", lambda: (False, "can't be reached (a test)"))


def task_of(folder: Path, path: str, files=None, **changes) -> Task:
    dataset = {"path": path, **({"data_files": files} if files else {}), **changes.pop("dataset", {})}
    fields = {
        "name": "spam",
        "head": "sequence_classification",
        "inputs": ["text"],
        "target": "label",
        "dataset": dataset,
    }
    return Task(**{**fields, "file": folder / "spam.yaml", **changes})


def lines_of(folder: Path, lines, **changes) -> Task:
    """A task whose only column is the lines of a text file."""
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    return task_of(folder, "text", "lines.txt", inputs=["line"], target=None, **changes)


def message_of(error: type[Exception], task: Task, **settings) -> str:
    with pytest.raises(error) as caught:
        load_rows(task, **settings)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ local files

ROWS = [{"text": "grün, ja", "label": 1}, {"text": 'say "no"', "label": 0}, {"text": "x", "label": 1}]


def write_csv(file):
    quoted = "\n".join('"{}",{}'.format(row["text"].replace('"', '""'), row["label"]) for row in ROWS)
    file.write_text(f"text,label\n{quoted}\n", encoding="utf-8")


def write_json(file):
    file.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")


def write_parquet(file):
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), file)


@pytest.mark.parametrize(("path", "write"), [("csv", write_csv), ("json", write_json), ("parquet", write_parquet)])
def test_a_local_file_is_read_as_it_is(tmp_path, path, write):
    write(tmp_path / f"a.{path}")
    write(tmp_path / f"b.{path}")
    found = load_rows(task_of(tmp_path, path, {"train": f"a.{path}", "test": [f"a.{path}", f"b.{path}"]}))
    assert list(found) == ["train", "test"]
    assert found["train"].to_list() == ROWS
    assert found["test"].to_list() == ROWS + ROWS


def test_text_gives_lines_without_the_empty_ones(tmp_path):
    task = lines_of(tmp_path, ["one  ", "", "  ", "zwei\u2028drei", "a,b\tc"])
    assert load_rows(task)["train"]["line"][:] == ["one  ", "zwei\u2028drei", "a,b\tc"]
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert load_rows(task)["train"]["line"][:] == ["one", "two"], "no mark, no carriage returns"


def conll(folder: Path, text: str, **options) -> Task:
    (folder / "a.conll").write_text(text, encoding="utf-8")
    dataset = {"options": options} if options else {}
    return task_of(folder, "conll", "a.conll", inputs=["tokens"], target="tags", dataset=dataset)


def test_conll_sentences_end_at_empty_lines(tmp_path):
    text = "\ufeff-DOCSTART- O\n\nEU B-ORG\nrejects O\n\n\nGerman B-MISC\n\t\ncall O"
    rows = load_rows(conll(tmp_path, text))["train"]
    assert rows["tokens"][:] == [["EU", "rejects"], ["German"], ["call"]]
    assert rows["tags"][:] == [["B-ORG", "O"], ["B-MISC"], ["O"]]


def test_conll_columns_and_separator(tmp_path):
    task = conll(tmp_path, "New York\tNNP\tB-LOC\nis\tVBZ\tO\n", columns=["tokens", "pos", "tags"], separator="\t")
    rows = load_rows(task)["train"]
    assert rows[0] == {"tokens": ["New York", "is"], "pos": ["NNP", "VBZ"], "tags": ["B-LOC", "O"]}


words = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5).filter(
    lambda w: not w.startswith("-DOC")
)


@quick
@given(
    sentences=st.lists(st.lists(st.tuples(words, words), min_size=1, max_size=4), min_size=1, max_size=4),
    gap=st.integers(1, 3),
)
def test_conll_round_trip(tmp_path_factory, sentences, gap):
    text = ("\n" * (gap + 1)).join("\n".join(f"{token} {tag}" for token, tag in sentence) for sentence in sentences)
    rows = load_rows(conll(tmp_path_factory.mktemp("conll"), text))["train"]
    assert [list(zip(row["tokens"], row["tags"], strict=True)) for row in rows] == sentences


def test_a_conll_line_with_another_number_of_fields_is_named(tmp_path):
    message = message_of(DataError, conll(tmp_path, "a O\nb O\n\nc X O\n"))
    assert f"task 'spam': {tmp_path / 'a.conll'}:4: 3 fields, expected 2 (tokens, tags)" in message
    assert "columns" in message


def test_files_are_looked_for_beside_the_task_then_in_the_working_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(there)
    task = task_of(here, "text", "sub.txt", inputs=["line"], target=None)
    (there / "sub.txt").write_text("working folder")
    assert load_rows(task)["train"]["line"][:] == ["working folder"]
    (here / "sub.txt").write_text("beside")
    assert load_rows(task)["train"]["line"][:] == ["beside"]
    absolute = task_of(here, "text", str(there / "sub.txt"), inputs=["line"], target=None)
    assert load_rows(absolute)["train"]["line"][:] == ["working folder"]


def test_every_missing_file_is_listed_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    (tmp_path / "folder").mkdir()
    message = message_of(
        NotFoundError, task_of(tmp_path / "tasks", "csv", {"train": ["a.csv", "b.csv"], "test": "folder"})
    )
    assert "a file of task 'spam' was not found" in message
    assert f"1. train: {tmp_path / 'tasks' / 'b.csv'}, then {tmp_path / 'b.csv'}" in message
    assert f"2. test: {tmp_path / 'tasks' / 'folder'}, then {tmp_path / 'folder'}" in message
    assert "a.csv" not in message
    assert "Ways out:" in message


@pytest.mark.parametrize(
    ("path", "content", "line"),
    [
        ("csv", b"text,label\ngr\xfcn,1\n", 2),
        ("json", b'{"text": "a", "label": 1}\n{"text": "gr\xfcn", "label": 1}\n', 2),
        ("text", b"a\nb\ngr\xfcn\n", 3),
        ("conll", b"a O\n\ngr\xfcn O\n", 3),
        ("text", b"a\ncut off \xc3", 2),
        ("conll", b"a O\ncut \xe2\x82", 2),
    ],
)
def test_bytes_that_are_no_text_are_named_with_file_and_line(tmp_path, path, content, line):
    (tmp_path / "bad.txt").write_bytes(content)
    message = message_of(DataError, task_of(tmp_path, path, "bad.txt"))
    assert message.startswith(f"task 'spam': {tmp_path / 'bad.txt'}:{line}: not utf-8 (byte 0x")
    assert "options: {encoding: …}" in message


def test_another_encoding_can_be_asked_for(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\ngrün,1\n".encode("latin-1"))
    task = task_of(tmp_path, "csv", "a.csv", dataset={"options": {"encoding": "latin-1"}})
    assert load_rows(task)["train"]["text"][:] == ["grün"]
    assert "unknown encoding 'klingon'" in message_of(
        DataError, task.with_(dataset={**task.dataset.model_dump(), "options": {"encoding": "klingon"}})
    )


@pytest.mark.parametrize(("path", "key"), [("csv", "seperator"), ("text", "sep"), ("conll", "colums")])
def test_an_option_that_the_reader_does_not_take_is_refused(tmp_path, path, key):
    (tmp_path / "a.txt").write_text("text,label\nx,1\n")
    message = message_of(DataError, task_of(tmp_path, path, "a.txt", dataset={"options": {key: ";"}}))
    assert "`dataset.options`" in message
    assert key in message


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("csv", ""),
        ("csv", "text,label\n"),
        ("json", '{"text": "a"\n'),
        ("parquet", "no"),
        ("text", "\n"),
        ("conll", "\n\n"),
    ],
)
def test_a_file_without_rows_or_of_another_kind_is_refused(tmp_path, path, content):
    (tmp_path / "a.txt").write_text(content)
    assert "task 'spam'" in message_of(DataError, task_of(tmp_path, path, "a.txt"))


@pytest.mark.parametrize(
    "content", ["null", "null\n{}", "\ufeffnull", '\n\n null \n{"text": "a"}', '{"text": "a"}\nnull\n']
)
def test_a_row_that_is_null_is_refused_before_the_reader_ends_the_process(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    message = message_of(DataError, task_of(tmp_path, "json", "a.jsonl"))
    assert "a row is one object {column: value}, found null" in message
    assert f"a.jsonl:{content.count(chr(10), 0, content.index('null')) + 1}:" in message


def write_parquet_of(folder: Path, name: str, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"text": pa.array(["x"] * rows, pa.string())}), folder / name)


@pytest.mark.parametrize(
    ("path", "empty", "full"),
    [
        ("csv", "", "text,label\nx,1\n"),
        ("csv", "\ufeff \n", "text,label\nx,1\n"),
        ("csv", "text,label\n", "text,label\nx,1\n"),
        ("json", "", '{"text": "x", "label": 1}'),
        ("json", "[]", '{"text": "x", "label": 1}'),
        ("parquet", None, None),
    ],
)
@pytest.mark.parametrize("empties", [["train"], ["validation"], ["train", "validation"]])
def test_every_split_without_rows_is_named_with_its_file(tmp_path, path, empty, full, empties):
    for split in ("train", "validation"):
        content = empty if split in empties else full
        if content is None:
            write_parquet_of(tmp_path, f"{split}.x", 0 if split in empties else 2)
        else:
            (tmp_path / f"{split}.x").write_text(content, encoding="utf-8")
    message = message_of(DataError, task_of(tmp_path, path, {s: f"{s}.x" for s in ("train", "validation")}))
    way_out = "put rows into it, or leave the split out of `dataset.data_files`"
    assert message.splitlines() == [
        f"task 'spam': the split {split!r} has no rows: {tmp_path / split}.x holds none; {way_out}" for split in empties
    ]


# ----------------------------------------------------------------------------------------------------- mirrors


def mirror(root: Path, configs: dict[str, dict[str, str]]) -> None:
    """A data set ``me/mail`` in the Hub's layout: configuration → split → csv."""
    folder = root / "me" / "mail"
    said = []
    for config, splits in configs.items():
        said.append(f"- config_name: {config}\n  data_files:")
        for split, text in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            (folder / config / f"{split}-00000-of-00001.csv").write_text(text)
            said.append(f"  - split: {split}\n    path: {config}/{split}-00000-of-00001.csv")
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(said) + "\n---\n")


CSV = "text,label\nx,0\ny,1\n"


def test_a_mirror_in_the_hubs_layout_comes_first(tmp_path, monkeypatch):
    mirror(tmp_path / "root", {"one": {"train": CSV, "validation": CSV}, "two": {"train": "text,label\nz,1\n"}})
    one = task_of(tmp_path, "me/mail", dataset={"name": "one"})
    found = load_rows(one, data_root=tmp_path / "root")
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 2}
    monkeypatch.setenv("NLP_MTL_DATA_ROOT", str(tmp_path / "root"))
    assert load_rows(task_of(tmp_path, "me/mail", dataset={"name": "two"}))["train"]["text"][:] == ["z"]
    other = task_of(tmp_path, "away/mail", dataset={"name": "two", "mirrors": ["gone/mail", "me/mail"]})
    assert load_rows(other)["train"]["text"][:] == ["z"], "`mirrors` names other folders of the root"


def test_a_mirror_may_hold_one_configuration_as_its_default(tmp_path):
    mirror(tmp_path, {"default": {"train": CSV}})
    elsewhere = task_of(tmp_path, "away/all", dataset={"name": "mail", "mirrors": ["me/mail"]})
    assert len(load_rows(elsewhere, data_root=tmp_path)["train"]) == 2
    message = message_of(NotFoundError, task_of(tmp_path, "me/mail", dataset={"name": "mail"}), data_root=tmp_path)
    assert "has no 'mail', it has default" in message, "under its own id the configuration is asked for by name"


def test_a_split_without_rows_in_a_mirror_is_named(tmp_path):
    mirror(tmp_path, {"plain": {"train": CSV, "test": "text,label\n"}})
    task = task_of(tmp_path, "me/mail", dataset={"name": "plain"})
    message = message_of(DataError, task, data_root=tmp_path)
    assert message.startswith("task 'spam': the split 'test' has no rows; put rows into its files")


def test_what_was_tried_is_told_in_order_with_the_ways_out(tmp_path):
    task = task_of(tmp_path, "me/mail", dataset={"name": "one"})
    lines = message_of(NotFoundError, task).split("\n")
    assert lines[0] == "the data set 'me/mail' (one) of task 'spam' was not found. Tried, in order:"
    assert lines[1] == "  1. local mirror: no --data-root given, NLP_MTL_DATA_ROOT not set"
    assert lines[2].startswith("  2. datasets cache: ")
    assert lines[3] == "  3. Hub: can't be reached (a test)"
    assert lines[4] == "Ways out:"
    assert len(lines) == 8
    assert "--data-root DIR" in lines[5]
    assert "me/mail" in lines[5]
    assert "datasets cache" in lines[6]
    assert "data_files" in lines[7]


def test_a_mirror_without_the_configuration_or_without_data_is_told(tmp_path):
    mirror(tmp_path, {"one": {"train": CSV}, "two": {"train": CSV}})
    message = message_of(NotFoundError, task_of(tmp_path, "me/mail", dataset={"name": "three"}), data_root=tmp_path)
    assert f"1. local mirror: {tmp_path / 'me/mail'} has no 'three', it has one, two" in message
    (tmp_path / "me" / "empty").mkdir()
    message = message_of(NotFoundError, task_of(tmp_path, "me/empty"), data_root=tmp_path)
    assert "1. local mirror: " in message
    message = message_of(NotFoundError, task_of(tmp_path, "me/gone"), data_root=tmp_path)
    assert f"1. local mirror: {tmp_path / 'me/gone'} is not there" in message


def test_offline_does_not_ask_the_hub(tmp_path, monkeypatch):
    def ask():
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(reading, "hub_reachable", ask)
    with reading.offline():
        assert "Hub: not asked" in message_of(NotFoundError, task_of(tmp_path, "me/mail"))
    with pytest.raises(AssertionError, match="the Hub was asked"):
        load_rows(task_of(tmp_path, "me/mail"))


def test_the_hub_is_not_reached_where_that_is_switched_off(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.undo()
    reading.hub_reachable.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert reading.hub_reachable() == (False, "HF_HUB_OFFLINE is set")
    reading.hub_reachable.cache_clear()


# ------------------------------------------------------------------------------------------------------ splits


def three_splits(folder: Path, names=("train", "dev", "test"), **changes) -> Task:
    for name in names:
        (folder / f"{name}.txt").write_text(f"{name}\n")
    files = {name: f"{name}.txt" for name in names}
    return task_of(folder, "text", files, inputs=["line"], target=None, **changes)


def shown(task: Task) -> dict[str, list[str]]:
    return {split: rows["line"][:] for split, rows in load_rows(task).items()}


def test_dev_is_taken_as_validation_unless_the_task_says_which(tmp_path):
    assert shown(three_splits(tmp_path)) == {"train": ["train"], "validation": ["dev"], "test": ["test"]}
    both = three_splits(tmp_path, ("train", "dev", "validation"))
    assert shown(both) == {"train": ["train"], "validation": ["validation"]}
    assert shown(both.with_(splits={"validation": "dev"})) == {"train": ["train"], "validation": ["dev"]}
    assert shown(three_splits(tmp_path).with_(splits={"validation": None})) == {"train": ["train"], "test": ["test"]}


def test_splits_may_be_renamed_or_left_out(tmp_path):
    task = three_splits(tmp_path, splits={"train": "dev", "validation": "test", "test": None})
    assert shown(task) == {"train": ["dev"], "validation": ["test"]}
    message = message_of(DataError, task.with_(splits={"validation": "valid"}))
    assert (
        message
        == "task 'spam': `splits.validation` names a split of the data, found 'valid'; the data has train, dev, test"
    )
    message = message_of(DataError, task.with_(splits={"train": None, "validation": None, "test": None}))
    assert "none of the data's splits (train, dev, test) is used" in message


def test_seed_0_holds_out_what_no_seed_did():
    import hashlib

    plain = hashlib.blake2b(b"x", digest_size=8).digest()
    assert plain == hashlib.blake2b(b"x", digest_size=8, salt=(0).to_bytes(8, "big")).digest()


def test_shares_need_training_rows(tmp_path):
    task = three_splits(tmp_path, ("dev", "test"), splits={"validation": 0.5})
    assert "shares of the training rows, and there are none" in message_of(DataError, task)
    task = three_splits(tmp_path, splits={"train": None, "validation": 0.5})
    assert "shares of the training rows, and there are none" in message_of(DataError, task)


texts = st.lists(st.text("abcdef ", min_size=1, max_size=4).filter(str.strip), min_size=12, max_size=40)


def held_out(folder: Path, lines, **splits) -> dict[str, list[str]]:
    """What :func:`load_rows` gives, also where a part is empty (then it refuses, and there is nothing to compare)."""
    try:
        return shown(lines_of(folder, lines, splits=splits))
    except DataError as error:
        assert "has no rows" in str(error)  # noqa: PT017
        return {}


@quick
@given(lines=texts, more=texts)
def test_held_out_rows_stay_where_they_are_when_rows_are_added(tmp_path_factory, lines, more):
    folder = tmp_path_factory.mktemp("shares")
    parts = held_out(folder, lines, validation=0.3, test=0.2)
    if parts:
        together = [line for part in parts.values() for line in part]
        assert sorted(together) == sorted(set(lines)), "every text once, on one side, and none lost"
        for part in parts.values():
            assert part == [line for line in dict.fromkeys(lines) if line in part], "in the order of the file"
    grown = held_out(folder, [*more, *lines], validation=0.3, test=0.2)
    if parts and grown:
        for split, part in parts.items():
            assert set(part) <= set(grown[split])


@quick
@given(
    numbers=st.lists(st.integers(0, 60), min_size=80, max_size=120),
    share=st.sampled_from([0.4, 0.5]),
    seed=st.integers(0, 3),
)
def test_test_rows_may_be_validation_rows_and_equal_texts_stand_on_one_side(tmp_path_factory, numbers, share, seed):
    folder, files = tmp_path_factory.mktemp("parted"), {"train": "train.txt", "validation": "validation.txt"}
    lines = [*map(str, range(30)), *map(str, numbers)]  # texts that are there once, and several times
    (folder / "train.txt").write_text("a\nb\n")
    (folder / "validation.txt").write_text("\n".join(lines))
    part = {"test": {"of": "validation", "share": share}}
    task = task_of(folder, "text", files, inputs=["line"], target=None, splits=part, split_seed=seed)
    found = shown(task)
    assert sorted([*found["validation"], *found["test"]]) == sorted(lines)
    assert not set(found["validation"]) & set(found["test"])
    assert found["train"] == ["a", "b"]
    assert found == shown(task), "the same each time"


def test_a_part_of_the_validation_rows_is_for_test_and_needs_some(tmp_path):
    part = {"of": "validation", "share": 0.5}
    message = message_of(DataError, lines_of(tmp_path, ["a", "b"], splits={"test": part}))
    assert "`splits.test` takes a share of the validation rows, and there are none" in message
    with pytest.raises(ValueError, match="is for test"):
        lines_of(tmp_path, ["a"], splits={"validation": part})
    for wrong in ({"of": "train", "share": 0.5}, {"of": "validation", "share": 1.5}, {"of": "validation"}):
        with pytest.raises(ValueError, match="splits"):
            lines_of(tmp_path, ["a"], splits={"test": wrong})
    lines = [f"text {number}" for number in range(2000)]
    halves = load_rows(lines_of(tmp_path, lines, splits={"validation": 0.5, "test": part}))
    assert abs(len(halves["test"]) - 500) < 80


def test_shares_have_about_their_size(tmp_path):
    parts = shown(lines_of(tmp_path, [f"line {i}" for i in range(2000)], splits={"validation": 0.1, "test": 0.25}))
    assert len(parts["validation"]) == pytest.approx(200, abs=45)  # three standard deviations
    assert len(parts["test"]) == pytest.approx(500, abs=60)
    smaller = shown(lines_of(tmp_path, [f"line {i}" for i in range(2000)], splits={"validation": 0.05}))
    assert set(smaller["validation"]) <= set(parts["validation"]), "a smaller share is part of a larger one"


def test_pairs_are_equal_only_if_both_texts_are(tmp_path):
    rows = ["a,b,0", "a,b,1", "b,a,0", "a,c,0", *(f"x{i},y{i},0" for i in range(40))]
    (tmp_path / "a.csv").write_text("one,two,label\n" + "\n".join(rows) + "\n")
    found = load_rows(task_of(tmp_path, "csv", "a.csv", inputs=["one", "two"], splits={"validation": 0.3}))
    pairs = [(row["one"], row["two"]) for rows in found.values() for row in rows]
    assert len(pairs) == len(set(pairs)) == 43


def test_rows_are_capped_by_a_fixed_draw(tmp_path):
    lines = [f"line {i}" for i in range(50)]
    (train,) = shown(lines_of(tmp_path, lines, rows={"train": 10, "test": 5})).values()
    assert len(set(train)) == 10
    assert set(train) <= set(lines)
    assert train != lines[:10], "drawn, not cut"
    assert shown(lines_of(tmp_path, lines, rows={"train": 10})) == {"train": train}
    assert shown(lines_of(tmp_path, lines, rows={"train": 50})) == {"train": lines}


# -------------------------------------------------------------------------------------- columns and preparations


def test_missing_columns_are_all_named_with_near_ones(tmp_path):
    (tmp_path / "a.csv").write_text("sentence,labels\nx,1\n")
    task = task_of(tmp_path, "csv", {"train": "a.csv", "test": "a.csv"}, inputs=["sentense", "other"])
    lines = message_of(DataError, task).split("\n")
    start = "task 'spam', split 'train': "
    assert (
        lines[0]
        == f"{start}`inputs` names the column 'sentense', which the data does not have; did you mean 'sentence'?"
    )
    assert lines[1].startswith(f"{start}`inputs` names the column 'other'")
    assert lines[2] == f"{start}`target` names the column 'label', which the data does not have; did you mean 'labels'?"
    assert [line for line in lines if "split 'test'" in line and "target" in line] == [], (
        "a test split may have no labels"
    )
    assert len(lines) == 5


def test_an_empty_split_is_named(tmp_path):
    (tmp_path / "blank.csv").write_text("text,label\n ,1\n,0\n")
    task = task_of(tmp_path, "csv", "blank.csv", prepare={"name": "drop_empty", "columns": ["text"]})
    assert message_of(DataError, task).startswith("task 'spam': the split 'train' has no rows")


def test_preparations_run_in_order_on_every_split(tmp_path):
    task = three_splits(
        tmp_path,
        prepare=[{"name": "rename", "columns": {"line": "text"}}, {"name": "split_words", "columns": ["text"]}],
    ).with_(inputs=["text"])
    assert {split: rows["text"][:] for split, rows in load_rows(task).items()} == {
        "train": [["train"]],
        "validation": [["dev"]],
        "test": [["test"]],
    }


def test_a_preparation_that_fails_is_named_with_task_and_split(tmp_path):
    task = lines_of(tmp_path, ["one"], prepare={"name": "drop_empty", "columns": ["lines"]})
    start = "task 'spam', split 'train': `prepare: drop_empty` reads 'lines', which the data does not have"
    assert message_of(DataError, task) == f"{start}; did you mean 'line'?"
    task = lines_of(tmp_path, ["one"], prepare={"name": "map_labels", "column": "line", "names": {"two": "zwei"}})
    assert message_of(DataError, task).startswith("task 'spam', split 'train': `prepare: map_labels`: ")
    task = lines_of(tmp_path, ["one"], prepare={"name": "drop_empty", "colums": ["line"]})
    assert "drop_empty' takes no argument 'colums'; did you mean 'columns'?" in message_of(ConfigError, task)
    task = lines_of(tmp_path, ["one"], prepare="drop_emty")
    assert "unknown preparation 'drop_emty'; did you mean 'drop_empty'" in message_of(ConfigError, task)


# ----------------------------------------------------------------------------------------------------- identity


def test_the_identity_changes_with_the_rows_and_with_nothing_else(tmp_path):
    task = lines_of(tmp_path, ["one", "two"])
    before = sources.identity(task)
    assert sources.identity(task) == before
    assert sources.identity(task.with_(name="other", metrics=["f1"], description="x")) == before
    assert sources.identity(task.with_(rows={"train": 1})) != before
    assert sources.identity(task.with_(prepare={"name": "last_rows", "count": 1})) != before
    assert sources.identity(task.with_(splits={"validation": 0.5})) != before
    lines_of(tmp_path, ["one", "two", "three"])
    assert sources.identity(task) != before
