"""Preparations for multiple choice: choices and answers brought into the form the head reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.errors import DataError
from nlp_mtl.preparations.base import rewrite

if TYPE_CHECKING:
    from datasets import Dataset


@registry.preparations.register("choice_texts")
def choice_texts(rows: Dataset, column: str = "choices", answer: str = "answerKey") -> Dataset:
    """ARC, CommonsenseQA, OpenBookQA: labelled choices become a list of texts, and the answer the number of its choice.

    `column` holds ``{text: [texts], label: [labels]}``, or a list of ``{text, label}``. Rows may differ in how many
    choices they have and in how these are labelled (A, B, … or 1, 2, …). An answer that is None or empty, as in test
    rows without labels, becomes None.

    Raises:
        DataError: an answer that is not among the row's labels, or not one label for each text.
    """
    from datasets import List, Value

    def change(row: dict[str, Any]) -> dict[str, Any]:
        given = row[column]
        if isinstance(given, list) and all(isinstance(choice, dict) for choice in given):
            given = {key: [choice[key] for choice in given] for key in ("text", "label")}
        if not isinstance(given, dict) or not all(isinstance(given[key], list) for key in ("text", "label")):
            raise DataError(f"column {column!r} holds lists `text` and `label`, found {str(given)[:60]!r}")
        texts, labels = given["text"], [str(label) for label in given["label"]]
        if len(texts) != len(labels):
            raise DataError(f"column {column!r} holds a label for each text, found {len(labels)} for {len(texts)}")
        changed = {**row, column: texts}
        if answer in row:
            wanted = "" if row[answer] is None else str(row[answer]).strip()
            if wanted and wanted not in labels:
                raise DataError(f"column {answer!r} holds one of the row's labels {labels}, found {wanted!r}")
            changed[answer] = labels.index(wanted) if wanted else None
        return changed

    types = {column: List(Value("string"))}
    return rewrite(rows, change, {**types, answer: Value("int64")} if answer in rows.column_names else types)


@registry.preparations.register("fill_blank")
def fill_blank(rows: Dataset, column: str, choices: list[str], blank: str = "_") -> Dataset:
    """WinoGrande: the text before the blank stays in `column`; each choice is followed by the text after the blank.

    Raises:
        DataError: a text without a blank.
    """

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(row[column], str):  # the head names such rows
            return row
        before, found, after = row[column].partition(blank)
        if not found:
            raise DataError(f"column {column!r} holds texts with a blank {blank!r}, found {row[column][:60]!r}")
        filled = {choice: row[choice] and f"{row[choice]}{after}" for choice in choices}
        return {**row, column: before.rstrip(), **filled}

    return rewrite(rows, change)
