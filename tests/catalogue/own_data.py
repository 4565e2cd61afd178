"""Own data: what `tasks new` and `Task.from_data` can't infer, or must not guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

import nlp_mtl as mtl
from nlp_mtl.errors import DataError
from tests.catalogue.bad import Bad, lines

ROWS = [{"text": f"film {i} was {'dull' if i % 3 else 'a joy'}", "label": "no" if i % 3 else "yes"} for i in range(12)]
NEW = "tasks new spam.jsonl --text text --label label --name mine"


def of(data: Any, name: str = "mine", **more: Any) -> Any:
    """A call of `Task.from_data`."""
    return lambda: mtl.Task.from_data(name, data, **more)


ENTRIES = [
    Bad(
        "a file that is not there",
        "tasks new spma.jsonl --text text --label label",
        parameter="data",
        rule="no such file or folder",
        found="spma.jsonl",
        way_out="did you mean",
    ),
    Bad(
        "a column that is not there",
        "tasks new spam.jsonl --text txt --label lable",
        parameter="text:",
        rule="the data has text, label",
        found="no column 'txt'",
        way_out="did you mean 'text'",
        also=("'lable'",),
    ),
    Bad(
        "a task file that is there already",
        "tasks new spam.jsonl --text text --label label",
        parameter="out:",
        rule="is there already",
        found="spam.yaml",
        way_out="--overwrite",
    ),
    Bad(
        "a task file in a folder that is not there",
        NEW + " --out mine/spam.yaml",
        parameter="out:",
        rule="no such folder",
        found="mine",
        way_out="make it, or name another one (--out)",
    ),
    Bad(
        "a name that no task may have",
        "tasks new spam.jsonl --text text --label label --name 'my spam'",
        parameter="name:",
        rule="letters, digits, '_' or '-'",
        found="found 'my spam'",
        way_out="give another (--name)",
    ),
    Bad(
        "fewer example rows than none",
        NEW + " --examples -1",
        parameter="examples",
        rule="from 0",
        found="found -1",
        way_out="with 0 they are made up",
    ),
    Bad(
        "an option that is no pair",
        NEW + " --option latin-1",
        parameter="--option",
        rule="write KEY=VALUE",
        found="found 'latin-1'",
        way_out="e.g. encoding=latin-1",
    ),
    Bad(
        "names for some of the values only",
        NEW + " --labels no=ham yes",
        parameter="--labels",
        rule="names, or VALUE=NAME for all values",
        found="found both: no=ham yes",
        way_out="write one kind",
    ),
    Bad(
        "a label list that lacks one",
        NEW + " --labels yes maybe",
        parameter="labels",
        rule="known: yes, maybe",
        found="'label' holds 'no' too",
        way_out="name all values",
    ),
    Bad(
        "a head that there is not",
        NEW + " --head regresion",
        parameter="head:",
        rule="unknown head",
        found="'regresion'",
        way_out="did you mean 'regression'",
    ),
    Bad(
        "a regression on words",
        NEW + " --head regression",
        parameter="label:",
        rule="a regression predicts numbers",
        found="'label' holds 'no'",
        way_out="another `head` (--head)",
    ),
    Bad(
        "a key that no task has",
        NEW + " max_lenght=3",
        parameter="from_data",
        rule="takes no argument",
        found="'max_lenght'",
        way_out="did you mean 'max_length'",
    ),
    Bad(
        "a table of a kind that is not read",
        "tasks new book.xlsx --text text --label label",
        files={"book.xlsx": b"PK\x03\x04junk"},
        parameter="data: book",
        rule="is not read",
        found=".xlsx",
        way_out="save the sheet as CSV, in UTF-8",
    ),
    Bad(
        "a file that is no table",
        "tasks new notes.csv --text text --label label",
        files={"notes.csv": "just one line without any table\n"},
        error=DataError,
        parameter="data: the split 'train'",
        rule="has no rows",
        found="notes.csv holds none",
        way_out="put rows into it",
    ),
    Bad(
        "files of which one names no split",
        "tasks new train.jsonl more.jsonl --text text --label label",
        files={"train.jsonl": lines(*ROWS), "more.jsonl": lines(*ROWS)},
        parameter="data",
        rule="of which split is",
        found="more.jsonl",
        way_out="train=FILE test=FILE",
    ),
    Bad(
        "files with a split beside files without",
        "tasks new train=spam.jsonl data/mood-train.jsonl --text text --label label",
        parameter="files",
        rule="say of each file which split it is, or of none",
        found="found train=spam.jsonl data/mood-train.jsonl",
        way_out="e.g. train=a.csv test=b.csv",
    ),
    Bad(
        "an empty folder",
        "tasks new done/nothing --text text --label label",
        spoil=lambda: Path("done/nothing").mkdir(),
        parameter="data:",
        rule="holds neither data files nor sub-folders with texts",
        found="done/nothing",
        way_out="own data is CSV or TSV",
    ),
    Bad(
        "a column of another encoding",
        "tasks new cafe.csv --text text --label label",
        files={"cafe.csv": "text,label\ncafé,yes\nthé,no\n".encode("latin-1")},
        error=DataError,
        parameter="cafe.csv:2",
        rule="UTF-8",
        found="byte",
        way_out="encoding",
    ),
    Bad(
        "labels that are all one",
        of([{"text": f"film {i}", "label": "yes"} for i in range(8)]),
        parameter="label: every label in 'label'",
        rule="nothing can be learned from that",
        found="is 'yes'",
        way_out="name another column",
    ),
    Bad(
        "many whole numbers as labels",
        of([{"text": f"film {i}", "label": i} for i in range(80)], label="label"),
        parameter="label",
        rule="could be classes or an amount",
        found="80 different whole numbers",
        way_out="say `head`",
    ),
    Bad(
        "lists written as text",
        of([{"text": f"film {i}", "label": f"['a', '{i % 3}']"} for i in range(12)], label="label"),
        parameter="label",
        rule="holds lists written as text",
        found="['a', '0']",
        way_out="write JSONL or parquet",
    ),
    Bad(
        "a label that is empty throughout",
        of([{"text": f"film {i}", "label": None} for i in range(8)], text="text", label="label"),
        parameter="label:",
        rule="is empty throughout",
        found="'label'",
        way_out="name another one (--label COL)",
    ),
    Bad(
        "no split for training",
        of({"test": ROWS, "held_out": ROWS}),
        parameter="data",
        rule="one split must be for training",
        found="found test, held_out",
        way_out="call it 'train'",
    ),
    Bad(
        "data that is no table",
        of(3),
        parameter="data",
        rule="takes",
        found="found int",
        way_out="give one of these",
    ),
    Bad(
        "rows that are streamed",
        lambda: mtl.Task.from_data("mine", Dataset.from_list(ROWS).to_iterable_dataset()),
        parameter="data",
        rule="can't be counted or read twice",
        found="an IterableDataset",
        way_out="give Dataset.from_list",
    ),
    Bad(
        "a column twice",
        of(pd.DataFrame([["a cat", "yes", "b"]], columns=["text", "label", "text"])),
        parameter="data",
        rule="stands twice",
        found="'text'",
        way_out="rename one",
    ),
    Bad(
        "a template of a column that is not there",
        of(ROWS, template="{titel}: {text}", label="label"),
        parameter="template",
        rule="no column",
        found="'titel'",
        way_out="known: text, label",
    ),
    Bad(
        "tags that are not as many as the words",
        of([{"tokens": ["a", "b"], "tags": ["O"]}, {"tokens": ["c"], "tags": ["B-X"]}] * 6),
        parameter="label:",
        rule="does not hold one tag for each word of 'tokens'",
        found="2 words and 1 tags in row 0",
        way_out="correct them, or say `head: multi_label`",
    ),
]
