"""Preparations: named, pure functions rows → rows, for what a task file can't say (``prepare: name``).

A preparation takes a `datasets.Dataset` and its arguments and returns a `datasets.Dataset`; it sees one split at a time
and must give the same rows for the same rows.

Example:
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"line": ["NUM:date When was the war ?"]})
    >>> registry.preparations["question_lines"](rows)[0]
    {'text': 'When was the war ?', 'coarse_label': 'NUM', 'fine_label': 'NUM:date'}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def _rewrite(
    rows: Dataset, change: Callable[[dict[str, Any]], dict[str, Any] | None], types: dict[str, Any] | None = None
) -> Dataset:
    """Every row changed by a function; rows for which it gives None are left out.

    `types` gives the columns whose kind changes; then the others keep theirs, and none is guessed from the first rows.

    Raises:
        DataError: what `change` says is wrong with rows, of up to 1000 rows at once.
    """
    from datasets import Features

    def batch(columns: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        names, kept, mistakes = list(columns), [], []
        for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
            try:
                row = change(dict(zip(names, values, strict=True)))
            except DataError as error:
                mistakes.append(f"row {number}: {error}")
                continue
            if row is not None:
                kept.append(row)
        if mistakes:
            more = [f"… and {len(mistakes) - 8} more"] if len(mistakes) > 8 else []
            ways = "way out: correct the data, or leave such rows out with another `prepare:` before"
            raise DataError("\n  ".join([f"{len(mistakes)} row(s) can't be prepared:", *mistakes[:8], *more, ways]))
        keys = list(kept[0]) if kept else names
        return {key: [row[key] for row in kept] for key in keys}

    return rows.map(
        batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        features=None if types is None else Features({**rows.features, **types}),
        desc="preparing rows",
    )


@registry.preparations.register("drop_empty")
def drop_empty(rows: Dataset, columns: list[str]) -> Dataset:
    """Leave out rows in which one of `columns` is None or blank."""

    def is_blank(value: Any) -> bool:
        return value is None or value == [] or (isinstance(value, str) and not value.strip())

    return rows.filter(lambda row: not any(is_blank(row[column]) for column in columns))


@registry.preparations.register("rename")
def rename(rows: Dataset, columns: dict[str, str]) -> Dataset:
    """Rename columns: `{old: new}`; columns that are not there are passed over."""
    return rows.rename_columns({old: new for old, new in columns.items() if old in rows.column_names})


@registry.preparations.register("map_labels")
def map_labels(rows: Dataset, column: str, names: dict[str, str]) -> Dataset:
    """Replace the values of a label column: `{found: wanted}`; a row without a label is kept as it is.

    Raises:
        DataError: a value that `names` does not list.
    """

    def change(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]
        if value is not None and value not in names:
            raise DataError(f"{value!r} in column {column!r} is not among {sorted(names)}")
        return {**row, column: None if value is None else names[value]}

    if column not in rows.column_names:  # a test split without labels
        return rows
    return _rewrite(rows.cast_column(column, _string()), change)


@registry.preparations.register("last_rows")
def last_rows(rows: Dataset, count: int) -> Dataset:
    """Keep the last `count` rows of the file."""
    if count < 1:
        raise DataError(f"`count` is at least 1, found {count}")
    return rows if len(rows) <= count else rows.select(range(len(rows) - count, len(rows)))


@registry.preparations.register("question_lines")
def question_lines(rows: Dataset, column: str = "line") -> Dataset:
    """TREC questions from lines such as ``NUM:date When …``: columns text, coarse_label, fine_label."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        fine, _, text = row[column].partition(" ")
        return {"text": text.strip(), "coarse_label": fine.partition(":")[0], "fine_label": fine}

    return _rewrite(rows, change)


@registry.preparations.register("split_words")
def split_words(rows: Dataset, columns: list[str]) -> Dataset:
    """Make lists of words out of text; rows whose lists differ in length are left out.

    Columns that hold lists already are kept, and columns that are not there are passed over.
    """
    there = [column for column in columns if column in rows.column_names]

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        words = {column: row[column].split() if isinstance(row[column], str) else row[column] or [] for column in there}
        if len({len(value) for value in words.values()}) > 1:
            return None
        return {**row, **words}

    return _rewrite(rows, change)


_SMS_CSV = re.compile(r'^\d+,([01]),"?(.*?)"?$')
_SMS_TSV = re.compile(r'^(ham|spam)\t(.*?)"?$')


@registry.preparations.register("sms_lines")
def sms_lines(rows: Dataset, column: str = "line") -> Dataset:
    """SMS messages from a file of two mixed line formats (``12,0,"text"`` and ``ham<TAB>text``).

    One quoted field of that file swallows 737 lines when it is read as CSV, so it is read line by line.
    """

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        line = row[column]
        if match := _SMS_TSV.match(line):
            return {"text": match[2].replace('""', '"').strip(), "label": match[1]}
        if match := _SMS_CSV.match(line):
            return {"text": match[2].replace('""', '"').strip(), "label": "spam" if match[1] == "1" else "ham"}
        return None

    return _rewrite(rows, change)


@registry.preparations.register("sign_labels")
def sign_labels(rows: Dataset, column: str, label: str = "label", neutral: float = 0.0) -> Dataset:
    """A label ``negative`` / ``positive`` from the sign of a rating; ratings within `neutral` of 0 are left out."""

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        rating = float(row[column])
        if abs(rating) <= neutral:
            return None
        return {**row, label: "positive" if rating > 0 else "negative"}

    return _rewrite(rows, change)


@registry.preparations.register("cause_or_effect")
def cause_or_effect(rows: Dataset, premise: str = "premise", question: str = "question") -> Dataset:
    """COPA: put the question into words after the premise ("What was the cause of this?")."""
    words = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if row[question] not in words:
            raise DataError(f"column {question!r} holds cause or effect, found {row[question]!r}")
        return {**row, premise: f"{row[premise]} {words[row[question]]}"}

    return _rewrite(rows, change)


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
    return _rewrite(rows, change, {**types, answer: Value("int64")} if answer in rows.column_names else types)


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

    return _rewrite(rows, change)


def _string() -> Any:
    from datasets import Value

    return Value("string")


@registry.preparations.register("unnest")
def unnest(rows: Dataset, column: str) -> Dataset:
    """Make the fields of a column of mappings columns of their own (`translation: {de: …, en: …}` → `de`, `en`).

    Raises:
        DataError: the column holds no mappings, or a field has the name of another column.
    """
    from datasets import concatenate_datasets

    flat = rows.select_columns([column]).flatten()
    if flat.column_names == [column]:
        raise DataError(f"column {column!r} holds {rows.features[column]}, not mappings; leave this preparation out")
    flat = flat.rename_columns({name: name.removeprefix(f"{column}.") for name in flat.column_names})
    others = [name for name in rows.column_names if name != column]
    if taken := sorted(set(others) & set(flat.column_names)):
        raise DataError(f"a field of {column!r} has the name of a column: {', '.join(taken)}; rename the column first")
    return concatenate_datasets([rows.select_columns(others), flat], axis=1) if others else flat


@registry.preparations.register("label_at_least")
def label_at_least(rows: Dataset, column: str, names: list[str], label: str = "label", at: float = 0.5) -> Dataset:
    """A label from a number: the first of two `names` below `at`, the second from there on; none where it is missing.

    Raises:
        DataError: `names` are not two.
    """
    if len(names) != 2:
        raise DataError(f"`names` are two, for numbers below `at` and from there on, found {names}")

    def change(row: dict[str, Any]) -> dict[str, Any]:
        number = row[column]
        return {**row, label: None if number is None else names[float(number) >= at]}

    return _rewrite(rows, change)


@registry.preparations.register("labels_at_least")
def labels_at_least(rows: Dataset, columns: list[str], label: str = "labels", at: float = 0.5) -> Dataset:
    """Lists of labels from one column per label: the names of the `columns` whose number (or true) is `at` or more.

    A row in which one of them is missing has no label.
    """
    from datasets import Features, List, Value

    def batch(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        lists = []
        for numbers in zip(*(found[column] for column in columns), strict=True):
            names = [name for name, x in zip(columns, numbers, strict=True) if x is not None and float(x) >= at]
            lists.append(None if None in numbers else names)
        return {label: lists}

    features = Features({**rows.features, label: List(Value("string"))})  # a batch may have empty lists only
    return rows.map(batch, batched=True, features=features, desc="preparing rows")


@registry.preparations.register("keep_rows")
def keep_rows(rows: Dataset, column: str, values: list[Any]) -> Dataset:
    """Keep the rows whose `column` is one of `values`, e.g. one language of a data set that mixes several."""
    return rows.filter(lambda found: [value in values for value in found], batched=True, input_columns=[column])


@registry.preparations.register("drop_words")
def drop_words(rows: Dataset, words: str, tags: str, tag: str) -> Dataset:
    """Leave out the words that carry `tag`, given by name; other columns stay as they are.

    In Universal Dependencies a word that is written as one and analysed as several (French "du": "de" and "le") stands
    in the rows whole, tagged ``_``, before its parts.
    """
    names = getattr(getattr(rows.features[tags], "feature", None), "names", None)
    unwanted = {tag, names.index(tag)} if names and tag in names else {tag}

    def batch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        kept: dict[str, list[Any]] = {words: [], tags: []}
        for sentence, marks in zip(columns[words], columns[tags], strict=True):
            if marks is not None and len(sentence) == len(marks):  # rows that don't fit are told of later, by name
                places = [place for place, mark in enumerate(marks) if mark not in unwanted]
                sentence, marks = [sentence[place] for place in places], [marks[place] for place in places]
            kept[words].append(sentence)
            kept[tags].append(marks)
        return {**columns, **kept}

    return rows.map(batch, batched=True, features=rows.features, desc="preparing rows")


_SLOT = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")


@registry.preparations.register("bracketed_slots")
def bracketed_slots(rows: Dataset, column: str, words: str = "tokens", tags: str = "slots") -> Dataset:
    """Words and IOB2 tags from text with marked slots: ``wake me at [time : nine am]``.

    Words are what white space parts in the text without the marks; a word that a slot covers in part belongs to it, and
    if two slots meet in one word, to the first. Right for languages that write spaces between words. Rows with brackets
    that mark no slot are left out: what they mean is anyone's guess.
    """

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        text, spans, end = "", [], 0
        for match in _SLOT.finditer(row[column]):
            text += row[column][end : match.start()]
            spans.append((match[1], len(text), len(text) + len(match[2])))
            text, end = text + match[2], match.end()
        text += row[column][end:]
        if "[" in text or "]" in text:
            return None
        found, marked = [], []
        begun: set[int] = set()
        for word in re.finditer(r"\S+", text):
            slot = next((n for n, (_, a, b) in enumerate(spans) if a < word.end() and word.start() < b), None)
            found.append(word[0])
            marked.append("O" if slot is None else f"{'I' if slot in begun else 'B'}-{spans[slot][0]}")
            begun |= set() if slot is None else {slot}
        return {**row, words: found, tags: marked}

    return _rewrite(rows, change)
