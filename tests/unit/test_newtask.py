"""``nlp-mtl tasks new``: what it prints and writes, and that it writes whole files or none."""

import csv
import os
import shlex
from pathlib import Path

import pytest

from nlp_mtl import yamlfile
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError
from nlp_mtl.newtask import repeated
from nlp_mtl.owndata.writing import new_task_file, task_name, task_text
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from nlp_mtl.taskreader import read_task
from nlp_mtl.testing import check_rows, check_task

THINGS = "tea soup bread room view bar lobby garden pool desk lamp stair sofa door tap rug".split()
ROWS = [(f"the {thing} was {how} no {i}", how) for i, thing in enumerate(THINGS * 2) for how in ("good", "bad")]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table(name: str, head, rows) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with Path(name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([head, *rows])
    return name


def files() -> set[str]:
    return {str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*") if path.is_file()}


TABLES = {
    "classes": (["text", "label"], ROWS, []),
    "numbers": (["text", "stars"], [(t, i % 5 + 1) for i, (t, _) in enumerate(ROWS)], []),
    "named": (
        ["text", "mood"],
        [(t, i % 3 - 1) for i, (t, _) in enumerate(ROWS)],
        ["--labels", "-1=bad", "0=fair", "1=good"],
    ),
    "listed": (["text", "mood"], [(t, i % 2) for i, (t, _) in enumerate(ROWS)], ["--labels", "no", "yes"]),
    "score": (["text", "score"], [(t, i / 7) for i, (t, _) in enumerate(ROWS)], []),
    "pair": (["a", "b", "fits"], [(t, f"{t} too", how) for t, how in ROWS], ["--text", "a", "b"]),
    "tags": (
        ["text", "tags"],
        [(t, " ".join("B-THING" if w in THINGS else "O" for w in t.split())) for t, _ in ROWS],
        [],
    ),
    "pos": (
        ["text", "pos"],
        [(t, " ".join("NOUN" if w in THINGS else "X" for w in t.split())) for t, _ in ROWS],
        [],
    ),
    "several": (["text", "topics"], [(t, ["a|b", "b", "c|a"][i % 3]) for i, (t, _) in enumerate(ROWS)], []),
    "template": (
        ["title", "price", "label"],
        [(t, i / 2, how) for i, (t, how) in enumerate(ROWS)],
        ["--template", "{title} costs {price:-nothing}", "--label", "label"],
    ),
    "masked": (["text"], [(t,) for t, _ in ROWS], ["--head", "masked_lm"]),
}


@pytest.mark.parametrize("examples", [0, 2, 3])
@pytest.mark.parametrize(("head", "rows", "words"), TABLES.values(), ids=list(TABLES))
def test_the_task_file_goes_from_yaml_to_a_loss(run, head, rows, words, examples):
    table("mine.csv", head, rows)
    code, out, err = run("tasks", "new", "mine.csv", *words, "--examples", examples)
    assert (code, err) == (0, "")
    assert files() == {"mine.csv", "mine.yaml"}
    task = read_task("mine.yaml")
    if task.head_name != "masked_lm" or examples:
        assert check_task(task) == []
        assert len(task.examples) == (examples or 2)
    assert check_rows(task)[1] == []
    values = [value for example in task.examples for value in example.values()]
    shown = any(row[0] in values or row[0].split() in values for row in rows)
    assert shown == bool(examples), "rows of the data stand there only where they are wanted"
    commands = [line.strip() for line in out.splitlines() if line.startswith("  ") and "mine.yaml" in line]
    assert [shlex.split(line)[-2:] for line in commands] == [["check", "mine.yaml"], ["train", "tasks=mine.yaml"]]


@pytest.mark.parametrize(
    "file", ["hash #1.yaml", "co: lon.yaml", "{brace}.yaml", "[list].yaml", "it's.yaml", 'a "b".yaml', "café ñ.yaml"]
)
def test_the_next_command_names_the_file_whatever_its_name(run, file):
    table("a.csv", ["text", "label"], ROWS)
    code, out, err = run("tasks", "new", "a.csv", "--out", file)
    assert code == 0, err
    words = next(shlex.split(line) for line in out.splitlines() if "tasks=" in line)
    config = load_config({"model": "x", "tasks": ["rte"]}, [words[-1]])
    assert config.tasks == [file]


def test_what_was_inferred_stands_on_the_screen_and_in_the_file(run):
    table("reviews.csv", ["text", "label"], ROWS)
    _, out, _ = run("tasks", "new", "reviews.csv", "max_length=64", "--name", "verdicts", "--tag", "mine", "own")
    task = read_task("verdicts.yaml")
    assert (task.name, task.tags, task.max_length, task.dataset.data_files) == (
        "verdicts",
        ["mine", "own"],
        64,
        "reviews.csv",
    )
    again = Task.from_data("verdicts", "reviews.csv")
    text = " ".join(Path("verdicts.yaml").read_text(encoding="utf-8").replace("\n#", " ").split())
    for note in again.inferred:
        assert f"  {note}\n" in out
        assert " ".join(note.split()) in text
    assert {split: len(rows) for split, rows in load_rows(task).items()} == {
        split: len(rows) for split, rows in load_rows(again).items()
    }


def test_data_files_are_told_from_the_task_files_folder(run, tmp_path, monkeypatch):
    table("data/reviews.csv", ["text", "label"], ROWS)
    Path("tasks").mkdir()
    run("tasks", "new", "data/reviews.csv", "--out", "tasks/mine.yaml")
    assert read_task("tasks/mine.yaml").dataset.data_files == "../data/reviews.csv"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_rows(read_task("../tasks/mine.yaml"))["train"])


def test_splits_are_said_or_told_by_names(run):
    for name in ("train", "test", "a", "b"):
        table(f"{name}.csv", ["text", "label"], ROWS)
    run("tasks", "new", "train=a.csv", "test=b.csv", "--name", "said")
    assert read_task("said.yaml").dataset.data_files == {"train": "a.csv", "test": "b.csv"}
    run("tasks", "new", "train.csv", "test.csv", "--name", "told")
    assert read_task("told.yaml").dataset.data_files == {"train": "train.csv", "test": "test.csv"}
    code, _, err = run("tasks", "new", "train=a.csv", "b.csv")
    assert (code, "say of each file which split it is" in err) == (2, True)


def test_a_file_that_is_there_is_kept_unless_that_is_said(run):
    table("reviews.csv", ["text", "label"], ROWS)
    Path("reviews.yaml").write_text("mine: yes\n")
    code, out, err = run("tasks", "new", "reviews.csv")
    assert (code, out) == (2, "")
    assert "reviews.yaml is there already" in err
    assert "--overwrite" in err
    assert Path("reviews.yaml").read_text() == "mine: yes\n"
    assert run("tasks", "new", "reviews.csv", "--overwrite")[0] == 0
    assert read_task("reviews.yaml").name == "reviews"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["gone.csv"], ["gone.csv: no such file or folder"]),
        (["a.csv", "--label", "lable"], ["no column 'lable'; did you mean 'label'"]),
        (["a.csv", "--out", "a.yml.txt", "--text", "txt"], ["2 mistakes", "ends in .yaml", "no column 'txt'"]),
        (["a.csv", "--out", "no/a.yaml"], ["no: no such folder"]),
        (["a.csv", "--name", "a b"], ["a task name has 1 to 64 letters"]),
        (["a.csv", "--option", "sep"], ["--option: write KEY=VALUE, found 'sep'"]),
        (["a.csv", "--option", "encoding=klingon"], ["unknown encoding 'klingon'"]),
        (["a.csv", "--head", "{name: x"], ["--head", "not valid YAML"]),
        (["a.csv", "--labels", "good=1", "bad"], ["found both"]),
        (["a.csv", "max_lenght=3"], ["did you mean 'max_length'"]),
        (["a.csv", "rows={train: x}"], ["`rows.train`"]),
        (["a.csv", "--examples", "-1"], ["how many rows, from 0"]),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(run, words, parts):
    table("a.csv", ["text", "label"], ROWS)
    code, out, err = run("tasks", "new", *words)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err
    assert files() == {"a.csv"}


def test_a_write_that_fails_leaves_nothing(run, monkeypatch):
    table("a.csv", ["text", "label"], ROWS)
    Path("old.yaml").write_text("old\n")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("tasks", "new", "a.csv", "--out", "old.yaml", "--overwrite")
    assert (code, "No space left" in err) == (2, True)
    assert files() == {"a.csv", "old.yaml"}
    assert Path("old.yaml").read_text() == "old\n"


@pytest.mark.parametrize("label", ["yes", "no # not", "5e-5", "null", "- x", "Ü: '\"", "{a}", "a\tb", "true"])
def test_labels_of_any_spelling_come_back_from_the_file(label):
    table("a.csv", ["text", "label"], [(text, label if how == "good" else "other") for text, how in ROWS])
    task = new_task_file("a.csv", out="a.yaml", text="text", label="label")
    assert set(task.labels) == {label, "other"}
    assert check_rows(task)[1] == []


def test_column_names_can_not_end_the_comment():
    table("a.csv", ["text\nname: evil", "label"], ROWS)
    task = new_task_file("a.csv", name="good")
    assert (task.name, task.inputs) == ("good", ["text\nname: evil"])


def test_a_task_in_memory_has_no_task_file(tmp_path):
    task = Task.from_data("mine", [{"text": text, "label": how} for text, how in ROWS])
    with pytest.raises(ConfigError, match="write them to one first"):
        task_text(task, tmp_path)


def test_names_are_taken_from_files_and_folders():
    assert task_name("my reviews (2024).csv") == "my_reviews_2024"
    assert task_name(["topic/train.csv", "topic/test.csv"]) == "topic"
    assert task_name({"train": ["x/a.csv"], "test": "x/b.csv"}) == "x"
    assert task_name("topic/train.csv") == "topic"
    Path("folder.of.mails").mkdir()
    assert task_name("folder.of.mails") == "folder_of_mails"
    assert task_name("...") == "task"


def test_words_behind_an_option_belong_to_it_unless_they_are_files():
    Path("b.csv").write_text("")
    assert repeated(["--text", "a", "b.csv"]) == ["--text", "a", "b.csv"]
    assert repeated(["--tag", "a", "b.csv"]) == ["--tag", "a", "--tag", "b.csv"]
    assert repeated(["--text", "b.csv", "--name", "x"]) == ["--text", "b.csv", "--name", "x"]
    assert repeated(["--labels", "-1=a", "0=b", "f"]) == ["--labels", "-1=a", "--labels", "0=b", "--labels", "f"]
    assert repeated(["--text", "--name", "x"]) == ["--name", "x", "--text"], "which the parser refuses"
    assert repeated(["a.csv", "--text"]) == ["a.csv", "--text"]
    assert repeated(["--text", "a", "--text", "b"]) == ["--text", "a", "--text", "b"]
    assert repeated(["--text", "a", "--", "b"]) == ["--text", "a", "--", "b"]


def test_yaml_in_flow_style_reads_back():
    data = {"name": "x", "a": [1, "two: 2"], "b": {"c": [], "d": {"e": [None, True]}}, "f": "# no"}
    assert yamlfile.loads(yamlfile.dumps(data, flow=True))[0] == data
