"""Rows that can't be trained on: found before the first step, named by task, split and row."""

from __future__ import annotations

from typing import Any

from nlp_mtl.errors import DataError
from tests.catalogue.bad import MISSING, Bad, lines, run, task

GOOD = [{"text": "a good cat", "label": "yes"}, {"text": "a bad dog", "label": "no"}]
WORDS = {"head": "token_classification", "inputs": ["tokens"], "target": "tags", "labels": ["O", "B-LOC", "I-LOC"]}
CHOICES = {"head": {"name": "multiple_choice", "choices": "options"}, "labels": MISSING}
ANSWERS = {"head": "question_answering", "inputs": ["question", "context"], "target": "answers", "labels": MISSING}


def bad_rows(id, *rows: Any, parameter, rule, found, way_out, error=DataError, also=(), good=GOOD, **changes):
    """An entry whose data file holds good rows and then bad ones, read by the good task with some keys changed."""
    files = {"bad.yaml": task(**changes), "spam.jsonl": lines(*good, *rows), "bad_run.yaml": run(tasks=["bad.yaml"])}
    return Bad(id, "train bad_run.yaml", parameter, rule, found, way_out, files=files, error=error, also=also)


ENTRIES = [
    bad_rows(
        "a text that is null",
        {"text": None, "label": "no"},
        parameter="task 'spam', split 'train'",
        rule="row 2: column 'text' is not text",
        found="found 'None'",
        way_out="correct the data, or leave such rows out with `prepare:`",
    ),
    bad_rows(
        "a text of spaces",
        {"text": " \t", "label": "no"},
        parameter="row 2: 'text'",
        rule="hold no text",
        found="task 'spam', split 'train': 1 row(s)",
        way_out="leave such rows out with `prepare:`",
    ),
    bad_rows(
        "half a character",
        {"text": "ok \ud800", "label": "no"},
        parameter="spam.jsonl:3",
        rule="a row is one object {column: value}",
        found="found half a character in {'text': 'ok",
        way_out="write one a line",
    ),
    bad_rows(
        "labels that are not in the list",
        {"text": "a cat", "label": "maybe"},
        {"text": "a dog", "label": "Yes"},
        parameter="row 2",
        rule="is not in the label list",
        found="label 'maybe'",
        way_out="correct the data",
        also=("row 3", "'Yes'"),
    ),
    bad_rows(
        "a number that is no label",
        {"text": "a cat", "label": 2},
        good=[{"text": "a good cat", "label": 1}, {"text": "a bad dog", "label": 0}],
        parameter="row 2: label",
        rule="is outside 0 … 1",
        found="label 2",
        way_out="correct the data",
    ),
    bad_rows(
        "a target that the data lacks",
        target="lable",
        parameter="task 'spam', split 'train': `target`",
        rule="which the data does not have",
        found="'lable'",
        way_out="did you mean 'label'",
    ),
    bad_rows(
        "an input that the data lacks",
        inputs=["txt"],
        parameter="task 'spam', split 'train': `inputs`",
        rule="which the data does not have",
        found="'txt'",
        way_out="did you mean 'text'",
    ),
    bad_rows(
        "no row with a label",
        good=[{"text": "a cat", "label": None}],
        labels=["no", "yes"],
        parameter="train:",
        rule="a task with labelled training rows is needed",
        found="found none among spam",
        way_out="add one, or correct `target`",
    ),
    bad_rows(
        "an infinite score",
        {"text": "a cat", "label": 1e400},
        good=[{"text": "a good cat", "label": 1.5}],
        head="regression",
        labels=MISSING,
        parameter="row 1: target",
        rule="is not a finite number",
        found="inf",
        way_out="correct the data",
    ),
    bad_rows(
        "text as a score",
        {"text": "a cat", "label": "high"},
        good=[],
        head="regression",
        labels=MISSING,
        parameter="row 0",
        rule="number",
        found="'high'",
        way_out="correct the data",
    ),
    bad_rows(
        "fewer tags than words",
        {"tokens": ["a", "city"], "tags": ["O"]},
        good=[],
        **WORDS,
        parameter="row 0",
        rule="a tag for each word is needed",
        found="2 words but 1 tags",
        way_out="correct the data",
    ),
    bad_rows(
        "a tag that is not in the list",
        {"tokens": ["a", "city"], "tags": ["O", "B-PER"]},
        good=[],
        **WORDS,
        parameter="row 0",
        rule="is not in the label list",
        found="B-PER",
        way_out="correct the data",
    ),
    bad_rows(
        "one string where words are tagged",
        {"tokens": "a city", "tags": ["O", "B-LOC"]},
        good=[],
        **WORDS,
        parameter="row 0: column 'tokens'",
        rule="is a list of words where tags are",
        found="found 'a city'",
        way_out="correct the data",
    ),
    bad_rows(
        "one label where several are predicted",
        head="multi_label",
        parameter="row 0: the target",
        rule="is a list of labels",
        found="found 'yes'",
        way_out="correct the data",
    ),
    bad_rows(
        "a single choice",
        {"text": "who", "options": ["a cat"], "label": 0},
        good=[],
        **CHOICES,
        parameter="row 0",
        rule="at least 2 are needed",
        found="1 choice(s)",
        way_out="correct the data",
    ),
    bad_rows(
        "a right choice that is not among them",
        {"text": "who", "options": ["a cat", "a dog"], "label": 2},
        good=[],
        **CHOICES,
        parameter="row 0: the right choice",
        rule="is not one of 0 … 1",
        found="the right choice 2",
        way_out="correct the data",
    ),
    bad_rows(
        "an answer that is not in the context",
        {"question": "who", "context": "the cat was in", "answers": {"text": ["dog"], "answer_start": [4]}},
        good=[],
        **ANSWERS,
        parameter="row 0",
        rule="does not stand in the context at character 4",
        found="'dog'",
        way_out="correct the data",
    ),
    bad_rows(
        "a split that the data lacks",
        splits={"validation": "dev"},
        parameter="`splits.validation`",
        rule="names a split of the data",
        found="found 'dev'",
        way_out="the data has train",
    ),
    bad_rows(
        "a preparation that reads a column that is not there",
        prepare={"name": "keep_rows", "column": "lang", "values": ["en"]},
        parameter="`prepare: keep_rows`",
        rule="which the data does not have",
        found="reads 'lang'",
        way_out="known: text, label",
    ),
    bad_rows(
        "a preparation that leaves no row",
        prepare={"name": "keep_rows", "column": "label", "values": ["maybe"]},
        parameter="task 'spam': the split 'train'",
        rule="one at least is needed",
        found="has no rows",
        way_out="check `splits`, `prepare` and the data",
    ),
    bad_rows(
        "three inputs",
        good=[{"text": "a cat", "b": "a dog", "c": "rain", "label": "yes"}],
        inputs=["text", "b", "c"],
        parameter="`inputs`",
        rule="a text or a pair is read",
        found="names 3 columns",
        way_out="name 1 or 2",
    ),
    bad_rows(
        "a value that a template can't be made of",
        {"text": None, "label": "yes"},
        template="a review: {text}",
        inputs=MISSING,
        parameter="row 2: column 'text'",
        rule="the template needs it",
        found="holds nothing",
        way_out="'{text:-unknown}'",
    ),
]
