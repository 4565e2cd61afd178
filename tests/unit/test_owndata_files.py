"""Own data in files: format, separator, columns, splits; and files that can't be read."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from nlp_mtl.errors import ConfigError, DataError, NlpMtlError
from nlp_mtl.owndata.csvfiles import csv_dialect
from nlp_mtl.sources import identity, load_rows
from nlp_mtl.taskfile import Task

THINGS = "tea soup bread room view bar lobby garden pool desk lamp stair sofa door tap rug".split()
ROWS = [(f"the {word} was {how} no {i}", how) for i, word in enumerate(THINGS * 2) for how in ("good", "bad")]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
NER = "".join(
    f"Ada NNP B-NP B-PER\nsees VBZ B-VP O\n{word} NN B-NP O\n\n"
    f"Bergen NNP B-NP B-LOC\nsees VBZ B-VP O\n{word} RB B-ADVP O\n\n"
    for word in THINGS
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(*paths, **given) -> Task:
    return Task.from_data("mine", list(paths) if len(paths) > 1 else paths[0], **given)


def all_rows(task: Task) -> set[tuple[str, str]]:
    return {
        (str(text), str(label))
        for rows in load_rows(task).values()
        for text, label in zip(rows[task.inputs[0]], rows[task.target], strict=True)
    }


def refused(*paths, kind: type[NlpMtlError] = ConfigError, parts=(), **given) -> str:
    with pytest.raises(kind) as caught:
        made(*paths, **given)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("name", "write", "options"),
    [
        ("a.csv", lambda file: FRAME.to_csv(file, index=False), {}),
        ("a.tsv", lambda file: FRAME.to_csv(file, index=False, sep="\t"), {"sep": "\t"}),
        ("a.csv", lambda file: FRAME.to_csv(file, index=False, sep=";"), {"sep": ";"}),
        ("a.csv", lambda file: FRAME.to_csv(file, index=False, sep="|"), {"sep": "|"}),
        ("a.csv", lambda file: FRAME.to_csv(file, index=False, encoding="utf-8-sig"), {}),
        ("a.csv", lambda file: FRAME.to_csv(file, index=False, encoding="utf-16"), {"encoding": "utf-16"}),
        ("A.CSV", lambda file: FRAME.to_csv(file, index=False), {}),
        ("a.data", lambda file: FRAME.to_csv(file, index=False), {}),
        ("a.jsonl", lambda file: FRAME.to_json(file, orient="records", lines=True), {}),
        ("a.json", lambda file: FRAME.to_json(file, orient="records"), {}),
        (
            "a.json",
            lambda file: Path(file).write_text(json.dumps({"v": 1, "data": FRAME.to_dict("records")})),
            {"field": "data"},
        ),
        ("a.parquet", lambda file: FRAME.to_parquet(file), {}),
        ("a.bin", lambda file: FRAME.to_parquet(file), {}),
    ],
)
def test_tables_of_every_format_give_the_same_rows(name, write, options):
    write(name)
    task = made(name)
    assert task.dataset.options == options
    assert (task.inputs, task.target, task.labels) == (["text"], "label", ["bad", "good"])
    assert all_rows(task) == set(ROWS)
    assert task.dataset.data_files == name


@pytest.mark.parametrize("sign", ["[1]", "*", "?", "[!x]", "{a,b}"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "text"])
def test_a_name_is_a_name_and_no_pattern(sign, suffix):
    """`we*ird.csv` is that file, and not `wei99ird.csv` beside it too."""
    write = {
        "csv": lambda file, frame: frame.to_csv(file, index=False),
        "jsonl": lambda file, frame: frame.to_json(file, orient="records", lines=True),
        "parquet": lambda file, frame: frame.to_parquet(file),
        "text": lambda file, frame: Path(file).write_text("".join(f"{text}\n" for text in frame["text"])),
    }[suffix]
    other = FRAME.assign(text=FRAME["text"] + " (not this one)")
    for folder, name in (("my proj", "we" + sign + "ird"), ("my " + sign, "plain")):
        Path(folder).mkdir()
        file = f"{folder}/{name}.{suffix}"
        write(file, FRAME)
        for beside in ("we1ird", "wei99ird", "weaird"):
            write(f"{folder}/{beside}.{suffix}", other)
        if suffix == "text":
            spec = {"path": "text", "data_files": file}
            task = Task(name="lines", head="masked_lm", dataset=spec, inputs=["line"])
            assert set(load_rows(task)["train"]["line"]) == set(FRAME["text"])
        else:
            assert all_rows(made(file)) == set(ROWS)


def test_a_damaged_file_is_named_also_where_its_name_looks_like_a_pattern():
    Path("ba[d].parquet").write_bytes(b"PAR1junk")
    FRAME.to_parquet("good.parquet")
    refused({"train": "good.parquet", "test": "ba[d].parquet"}, kind=DataError, parts=["ba[d].parquet: can't be read"])


def test_columns_without_a_line_of_names_are_named():
    FRAME.to_csv("a.csv", index=False, header=False)
    task = made("a.csv", columns=["said", "verdict"])
    assert all_rows(task) == set(ROWS)
    refused("a.csv", parts=["no column 'verdict'"], label="verdict")
    FRAME.to_json("a.jsonl", orient="records", lines=True)
    refused("a.jsonl", parts=["name their columns themselves"], columns=["said", "verdict"])


@pytest.mark.parametrize(("suffix", "sep"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("given", [{}, {"text": "text", "label": "label"}])
def test_a_first_line_that_is_a_row_is_no_line_of_names(suffix, sep, given):
    FRAME.to_csv(f"a.{suffix}", index=False, header=False, sep=sep)
    refused(f"a.{suffix}", parts=["first line looks like a row", "'good'", "(--columns TEXT LABEL)"], **given)
    assert all_rows(made(f"a.{suffix}", columns=["said", "verdict"])) == set(ROWS)


def test_numbers_without_a_line_of_names_are_no_names():
    FRAME.assign(label=[i % 3 for i in range(len(FRAME))]).to_csv("a.csv", index=False, header=False)
    refused("a.csv", parts=["first line looks like a row", "'0'"])


def test_amounts_without_a_line_of_names_are_no_names():
    FRAME.assign(label=[i / 7 for i in range(1, 1 + len(FRAME))]).to_csv("a.csv", index=False, header=False)
    refused("a.csv", parts=["first line looks like a row", "'0.14285"])


def test_a_line_of_names_between_the_rows_is_named():
    """Two files with a line of names each, put into one."""
    text = FRAME.to_csv(index=False)
    Path("a.csv").write_text(text + text.replace("no ", "more "))
    refused("a.csv", parts=[f"names (text, label) stands again as row {len(FRAME)}", "take it out"], label="label")


def test_a_column_of_digits_that_is_not_there_is_refused():
    FRAME.to_csv("a.csv", index=False)
    parts = ["`options.dtype` names the column 'lable'", "did you mean 'label'"]
    refused("a.csv", kind=DataError, parts=parts, options={"dtype": {"lable": "str"}})


def test_zeros_in_front_of_labels_are_kept():
    labels = ["01", "1", "007"] * (len(FRAME) // 3) + ["1"] * (len(FRAME) % 3)
    frame = FRAME.assign(label=labels)
    frame.to_csv("a.csv", index=False)
    task = made("a.csv")
    assert task.labels == made(frame).labels == ["01", "1", "007"]
    assert task.dataset.options == {"dtype": {"label": "str"}}
    assert "01, 007 in label are read as words" in "".join(task.inferred)
    assert "whole numbers" not in "".join(task.inferred)
    assert {label for _, label in all_rows(task)} == set(labels)


def test_numbers_without_zeros_in_front_stay_numbers():
    FRAME.assign(label=[i % 3 for i in range(len(FRAME))]).to_csv("a.csv", index=False)
    assert made("a.csv").dataset.options == {}
    FRAME.assign(label=["0.5", "1.25", "00"] * (len(FRAME) // 3) + ["1"] * (len(FRAME) % 3)).to_csv("b.csv")
    assert made("b.csv", text="text", label="label", head="regression").dataset.options == {}


def test_a_column_that_stands_twice_is_refused():
    Path("a.csv").write_text("text,label,text\n" + "".join(f"{text},{label},x\n" for text, label in ROWS))
    refused("a.csv", parts=["a.csv: the column 'text' stands twice", "--columns"])
    assert made("a.csv", columns=["a", "b", "c"], text="a", label="b").inputs == ["a"]


def test_words_for_nothing_are_words_also_beside_columns_of_numbers():
    rows = [("N/A" if not i else text, label, "NA" if i % 7 == 0 else i % 5) for i, (text, label) in enumerate(ROWS)]
    pd.DataFrame(rows, columns=["text", "label", "price"]).to_csv("a.csv", index=False)
    for given in ({"label": "label"}, {"text": "text", "label": "label"}):
        assert ("N/A", "good") in all_rows(made("a.csv", **given)), given
    task = made("a.csv", text="text", label="price", head="regression")
    assert "data: N/A in text are read as empty, since such words stand for no number in price" in task.inferred


def test_quotes_without_a_partner_do_not_swallow_lines():
    lines = ["text\tlabel", *(f'"{i} inches, said the {how} one\t{how}' for i, (_, how) in enumerate(ROWS))]
    Path("a.tsv").write_text("\n".join(lines) + "\n")
    task = made("a.tsv")
    assert task.dataset.options == {"sep": "\t", "quoting": 3}
    assert len(all_rows(task)) == len(ROWS)
    FRAME.assign(text=[f'say "{text}", twice' for text, _ in ROWS]).to_csv("b.csv", index=False)
    assert {text for text, _ in all_rows(made("b.csv"))} == {f'say "{text}", twice' for text, _ in ROWS}


def test_a_separator_in_quotes_is_part_of_the_text():
    FRAME.assign(text=[f"{text}; {text}; yes" for text, _ in ROWS]).to_csv("a.csv", index=False)
    assert csv_dialect(Path("a.csv")).options == {}
    FRAME.assign(text=[f"{text}, {text}" for text, _ in ROWS]).to_csv("b.csv", index=False, sep=";")
    assert csv_dialect(Path("b.csv")).options == {"sep": ";"}


def test_short_rows_are_told_and_long_ones_refused():
    Path("short.csv").write_text("text,label\n" + "".join(f"{t},{lb}\n" for t, lb in ROWS) + "no label here\n")
    task = made("short.csv")
    assert any("1 row(s) have fewer than 2 fields (first in line 66)" in note for note in task.inferred)
    Path("long.csv").write_text("text,label\n" + "".join(f"{t},{lb}\n" for t, lb in ROWS) + "a, b,good\n")
    refused("long.csv", kind=DataError, parts=["line 66", "saw 3"])
    Path("wide.csv").write_text("text,label\n" + "".join(f"{i},{t},{lb}\n" for i, (t, lb) in enumerate(ROWS)))
    refused("wide.csv", kind=DataError, parts=["more fields than there are names", "wide.csv"])


def test_words_that_csv_readers_take_for_nothing_are_read_as_words():
    rows = [(text, "None" if i % 2 else "NA") for i, (text, _) in enumerate(ROWS)]
    pd.DataFrame([*rows, ("n/a", "None"), ("nothing said here", "")], columns=["text", "label"]).to_csv(
        "a.csv", index=False
    )
    task = made("a.csv")
    assert task.labels == ["NA", "None"]
    assert ("n/a", "None") in all_rows(task)
    assert any("NA, None, n/a in" in note and "are read as words" in note for note in task.inferred)
    scores = [(text, "NA" if i % 3 else i / 7) for i, (text, _) in enumerate(ROWS)]
    pd.DataFrame(scores, columns=["text", "score"]).to_csv("b.csv", index=False)
    task = made("b.csv")
    assert (task.head, task.dataset.options) == ("regression", {})


def test_an_empty_cell_of_labels_in_one_text_means_that_none_holds():
    topics = [["sea|land", "land", "", "sea"][i % 4] for i in range(len(ROWS))]
    FRAME.assign(label=topics).to_csv("a.csv", index=False)
    task = made("a.csv")
    assert (task.head, task.labels) == ("multi_label", ["land", "sea"])
    found = load_rows(task)["train"]["label"][:]
    assert [] in found
    assert None not in found


# ---------------------------------------------------------------------------------------------------------- CoNLL


@pytest.mark.parametrize(
    ("keep", "columns", "target"),
    [
        ([0, 3], ["tokens", "tags"], "tags"),
        ([0, 1, 3], ["tokens", "pos", "tags"], "tags"),
        ([0, 1, 2, 3], ["tokens", "pos", "chunk", "tags"], "tags"),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t"])
@pytest.mark.parametrize("name", ["ner.conll", "ner.txt"])
def test_conll_with_two_three_and_four_columns(keep, columns, target, separator, name):
    lines = [separator.join(line.split()[i] for i in keep) if line else "" for line in NER.split("\n")]
    Path(name).write_text("\n".join(lines))
    task = made(name)
    assert task.dataset.options == {"columns": columns}
    assert (task.inputs, task.target) == (["tokens"], target)
    assert task.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    if len(columns) == 4:
        assert made(name, label="chunk").labels[:3] == ["O", "B-ADVP", "I-ADVP"]
        assert made(name, label="pos").head == {"name": "token_classification", "scheme": "none"}
        named = made(name, columns=["tokens", "a", "b", "ner"], label="ner")
        assert (named.dataset.options["columns"], named.target) == (["tokens", "a", "b", "ner"], "ner")


def test_conll_with_numbers_in_front_and_with_spaces_in_tokens():
    sentences = [[line.split() for line in part.split("\n")] for part in NER.strip().split("\n\n")]
    lines = [line for s in sentences for line in [*(f"{n}\t{w[0]}\t{w[3]}" for n, w in enumerate(s, 1)), ""]]
    Path("a.conll").write_text("\n".join(lines))
    assert made("a.conll").dataset.options == {"columns": ["number", "tokens", "tags"]}
    Path("b.conll").write_text("\n".join(line.replace("Bergen", "New York") for line in lines))
    task = made("b.conll")
    assert task.dataset.options == {"columns": ["number", "tokens", "tags"], "separator": "\t"}
    assert ["New York", "sees", "tea"] in [words for rows in load_rows(task).values() for words in rows["tokens"]]


def test_conll_with_more_columns_must_be_told_their_names():
    Path("a.conll").write_text(
        NER.replace(" O", " x y O").replace(" B-PER", " x y B-PER").replace(" B-LOC", " x y B-LOC")
    )
    refused("a.conll", parts=["6 columns", "--columns tokens … tags"])
    assert made("a.conll", columns=["tokens", "p", "c", "x", "y", "tags"], splits={"validation": None}).target == "tags"
    refused("a.conll", kind=DataError, parts=["a.conll:1: 6 fields, expected 2"], columns=["tokens", "tags"])


# -------------------------------------------------------------------------------------------------------- folders


def write_folder(folder: Path, rows=ROWS) -> None:
    for i, (text, label) in enumerate(rows):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i:03}.txt").write_text(f"{text}\n\n", encoding="utf-8")


def test_folders_of_texts_are_read_with_their_names_as_labels(tmp_path):
    write_folder(tmp_path / "mail")
    (tmp_path / "mail" / "README").write_text("not a mail")
    (tmp_path / "mail" / ".git").mkdir()
    (tmp_path / "mail" / "good" / ".hidden").write_text("not a mail")
    task = made("mail")
    assert task.dataset.model_dump(exclude_unset=True) == {"path": "folders", "data_files": "mail"}
    assert (task.inputs, task.target, task.labels) == (["text"], "label", ["bad", "good"])
    assert all_rows(task) == set(ROWS)
    before = identity(task)
    (tmp_path / "mail" / "good" / "new.txt").write_text("a new one")
    assert identity(task) != before


def test_folders_of_splits_are_recognised(tmp_path):
    write_folder(tmp_path / "imdb" / "train")
    write_folder(tmp_path / "imdb" / "test", ROWS[:7])
    (tmp_path / "imdb" / "train" / "urls.txt").write_text("not a row")
    task = made("imdb")
    assert task.dataset.data_files == {"train": "imdb/train", "test": "imdb/test"}
    assert len(load_rows(task)["test"]) == 7
    assert task.splits == {"validation": 0.15}
    write_folder(tmp_path / "imdb" / "train", [("nobody knows", "unsup")])
    assert made("imdb").labels == ["bad", "good", "unsup"]
    task = made("imdb", options={"labels": ["good", "bad"]})
    assert task.labels == ["bad", "good"]
    refused(
        "imdb",
        parts=["no sub-folder 'goood'; did you mean 'good'"],
        kind=DataError,
        options={"labels": ["goood", "bad"]},
    )


def test_a_folder_of_tables_is_read_by_the_names_in_it(tmp_path):
    (tmp_path / "data").mkdir()
    for name, frame in (("train-00000-of-00001", FRAME), ("dev", FRAME[:5]), ("my_test", FRAME[:3])):
        frame.to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    (tmp_path / "data" / "README.md").write_text("about")
    task = made("data")
    assert {split: len(rows) for split, rows in load_rows(task).items()} == {
        "train": len(ROWS),
        "validation": 5,
        "test": 3,
    }
    for split in ("train", "dev"):
        (tmp_path / "parted" / split).mkdir(parents=True)
        FRAME.to_csv(tmp_path / "parted" / split / "part.csv", index=False)
    assert set(load_rows(made("parted"))) == {"train", "validation"}


def test_texts_in_other_encodings_are_named_and_can_be_read(tmp_path):
    write_folder(tmp_path / "mail")
    (tmp_path / "mail" / "good" / "x.txt").write_bytes("Grüße vom Fjord".encode("latin-1"))
    refused("mail", kind=DataError, parts=["x.txt:1: not utf-8 (byte 0xfc)", "--option KEY=VALUE"])
    task = made("mail", options={"encoding": "latin-1"})
    assert ("Grüße vom Fjord", "good") in all_rows(task)
    assert made("mail", options={"pattern": "0*.txt"}).labels == ["bad", "good"]


# ---------------------------------------------------------------------------------------------------------- splits


def test_files_are_split_by_what_is_said_or_by_their_names():
    for name in ("train.csv", "valid.csv", "test.csv", "one.csv", "two.csv"):
        FRAME.to_csv(name, index=False)
    assert made("train.csv", "test.csv").dataset.data_files == {"train": "train.csv", "test": "test.csv"}
    assert made("one.csv", "two.csv").dataset.data_files == ["one.csv", "two.csv"]
    assert made("test.csv").dataset.data_files == "test.csv"
    said = {"train": ["one.csv", "train.csv"], "test": "two.csv"}
    assert Task.from_data("mine", said).dataset.data_files == said
    refused("train.csv", "one.csv", parts=["of which split is one.csv?", "train=FILE"])
    refused("valid.csv", "test.csv", parts=["no file's name says train"])
    with pytest.raises(ConfigError, match="a split is train, validation or test, found 'dev'"):
        Task.from_data("mine", {"train": "one.csv", "dev": "two.csv"})


def test_a_test_file_may_lack_the_label():
    FRAME.to_csv("train.csv", index=False)
    FRAME[["text"]].to_csv("test.csv", index=False)
    rows = load_rows(made("train.csv", "test.csv"))["test"]
    assert rows["text"][:] == [text for text, _ in ROWS]


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.xlsx", b"PK", ["save the sheet as CSV"]),
        ("a.csv.gz", b"x", ["unpack it first"]),
        ("a.pkl", b"x", ["nothing is unpickled here"]),
        ("a.feather", b"x", ["Task.from_data"]),
        ("a.txt", b"a line\nanother line\n", ["lines of text have no label"]),
        ("a.dat", b"\x00\x01", ["is neither a table nor CoNLL"]),
    ],
)
def test_files_of_other_kinds_are_refused_with_the_way_out(name, content, parts):
    Path(name).write_bytes(content)
    refused(name, parts=[name, *parts])


def test_what_is_not_there_is_told_with_near_names(tmp_path):
    FRAME.to_csv("reviews.csv", index=False)
    refused("reveiws.csv", parts=["reveiws.csv: no such file or folder; did you mean 'reviews.csv'"])
    refused("gone/a.csv", "reveiws.csv", parts=["2 mistakes"])
    (tmp_path / "empty").mkdir()
    refused("empty", parts=["holds neither data files nor sub-folders with texts"])
    FRAME.to_json("a.jsonl", orient="records", lines=True)
    refused("reviews.csv", "a.jsonl", parts=["of one kind, found csv: reviews.csv; json: a.jsonl"])
    from datasets import Dataset

    Dataset.from_pandas(FRAME).save_to_disk("saved")
    refused("saved", parts=["load_from_disk"])


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", "text,label\ngrün,x\n".encode("latin-1"), "a.csv:2: not utf-8"),
        ("a.jsonl", b'{"text": \n', "a.jsonl:1: a row is one object {column: value}, found"),
        ("a.parquet", b"no parquet", "not a parquet file"),
        ("a.conll", b"a O\nb\n\n", "a.conll:2: 1 fields, expected 2"),
    ],
)
def test_damaged_files_are_told_as_everywhere(name, content, part):
    Path(name).write_bytes(content)
    refused(name, kind=DataError, parts=["data: ", part])


def test_options_that_the_reader_does_not_take_are_refused():
    FRAME.to_csv("a.csv", index=False)
    refused("a.csv", kind=DataError, parts=["seperator", "--option KEY=VALUE"], options={"seperator": ";"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_of_the_system():
    FRAME.to_csv("a.csv", index=False)
    Path("a.csv").chmod(0)
    with pytest.raises(OSError, match=r"a\.csv"):
        made("a.csv")
