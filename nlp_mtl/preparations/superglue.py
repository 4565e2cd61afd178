"""SuperGLUE in its owners' forms: marked words and spans, questions with their answers, gaps with their candidates.

Paper: Wang et al., 2019, "SuperGLUE", arXiv:1905.00537.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nlp_mtl import registry
from nlp_mtl.errors import DataError
from nlp_mtl.preparations.base import Row, expand, rewrite

if TYPE_CHECKING:
    from datasets import Dataset


@registry.preparations.register("cause_or_effect")
def cause_or_effect(rows: Dataset, premise: str = "premise", question: str = "question") -> Dataset:
    """COPA: put the question into words after the premise ("What was the cause of this?")."""
    words = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}

    def change(row: Row) -> Row:
        if row[question] not in words:
            raise DataError(f"column {question!r} holds cause or effect, found {row[question]!r}")
        return {**row, premise: f"{row[premise]} {words[row[question]]}"}

    return rewrite(rows, change)


@registry.preparations.register("mark_word")
def mark_word(
    rows: Dataset,
    sentences: Mapping[str, Sequence[str]] | None = None,
    word: str = "word",
    mark: str = "*",
) -> Dataset:
    """WiC: put marks around the word that is asked about, in each sentence.

    Where the data came without the offset columns (some copies leave them out), the word is looked for: the first word
    of the sentence that begins most like it and shares at least half of it is marked, and otherwise none.

    Args:
        rows: the rows.
        sentences: the text columns, each with the columns of the word's first and after-last character; default those
            of WiC, ``{sentence1: [start1, end1], sentence2: [start2, end2]}``.
        word: the column with the word in its dictionary form.
        mark: what is put before and after it.

    Raises:
        DataError: offsets that do not lie in the sentence.

    Example:
        >>> from datasets import Dataset
        >>> row = {"word": "bank", "sentence1": "She sat on the bank.", "start1": 15, "end1": 19,
        ...        "sentence2": "Banks lend money.", "start2": 0, "end2": 5}
        >>> marked = mark_word(Dataset.from_list([row]))[0]
        >>> marked["sentence1"], marked["sentence2"]
        ('She sat on the *bank*.', '*Banks* lend money.')
    """
    columns = sentences or {"sentence1": ["start1", "end1"], "sentence2": ["start2", "end2"]}
    wrong = {text: ends for text, ends in columns.items() if isinstance(ends, str) or len(ends) != 2}
    if wrong:
        raise DataError(f"`sentences` gives each text column the columns of a start and an end, found {wrong}")

    def change(row: Row) -> Row:
        marked = {}
        for text, ends in columns.items():
            if all(end in row for end in ends):
                span: tuple[int, int] | None = (row[ends[0]], row[ends[1]])
            else:
                span = _word_like(row[word], row[text])
            marked[text] = row[text] if span is None else _marked(row[text], [(*span, mark)])
        return {**row, **marked}

    return rewrite(rows, change)


@registry.preparations.register("mark_spans")
def mark_spans(rows: Dataset, text: str = "text", spans: Mapping[str, str] | None = None) -> Dataset:
    """WSC: put marks around the noun phrase and the pronoun that are asked about.

    A span has two columns, ``<span>_index``, the number of its first word in the text split at white space, and
    ``<span>_text``. It is marked where the text has it at that word, else at its nearest place; upper and lower case,
    other white space and a full stop at its end do not count. A span that the text interrupts (two of WSC's do) is
    marked at its first word.

    Args:
        rows: the rows.
        text: the text column.
        spans: each span with its mark; default ``{span1: "*", span2: "#"}``.

    Raises:
        DataError: a span of which the text has not even the first word.

    Example:
        >>> from datasets import Dataset
        >>> row = {"text": "Ann thanked Eve, since she had helped.", "span1_index": 2, "span1_text": "Eve",
        ...        "span2_index": 4, "span2_text": "she"}
        >>> mark_spans(Dataset.from_list([row]))[0]["text"]
        'Ann thanked *Eve*, since #she# had helped.'
    """
    marks = spans or {"span1": "*", "span2": "#"}

    def change(row: Row) -> Row:
        found = []
        for span, mark in marks.items():
            place = _span_at(row[text], row[f"{span}_text"], row[f"{span}_index"])
            if place is None:
                raise DataError(
                    f"{span}: {row[f'{span}_text']!r} does not stand in the text, neither at word "
                    f"{row[f'{span}_index']} nor elsewhere: {row[text][:80]!r}"
                )
            found.append((*place, mark))
        return {**row, text: _marked(row[text], found)}

    return rewrite(rows, change)


@registry.preparations.register("question_answers")
def question_answers(
    rows: Dataset, question: str = "question", answer: str = "answer", idx: str = "idx", group: str = "question_id"
) -> Dataset:
    """MultiRC: each answer after its question, as one text, and a column that says which question it answers.

    Args:
        rows: one row per answer; `idx` holds the numbers of paragraph and question.
        question: the column with the question, which becomes ``<question> <answer>``.
        answer: the column with the answer.
        idx: the column with the numbers.
        group: the column made, ``"<paragraph>-<question>"``.

    Example:
        >>> from datasets import Dataset
        >>> row = {"question": "Who sang?", "answer": "The choir", "idx": {"paragraph": 3, "question": 7, "answer": 20}}
        >>> made = question_answers(Dataset.from_list([row]))[0]
        >>> made["question"], made["question_id"]
        ('Who sang? The choir', '3-7')
    """

    def change(row: Row) -> Row:
        numbers = row[idx]
        asked = f"{row[question].strip()} {row[answer].strip()}"
        return {**row, question: asked, group: f"{numbers['paragraph']}-{numbers['question']}"}

    return rewrite(rows, change)


@registry.preparations.register("gap_candidates")
def gap_candidates(
    rows: Dataset,
    passage: str = "passage",
    query: str = "query",
    gap: str = "@placeholder",
    entities: str = "entities",
    answers: str = "answers",
    idx: str = "idx",
) -> Dataset:
    r"""ReCoRD: one row per entity that could fill the gap of a query, with the entity put there.

    The passage's ``@highlight`` lines become sentences. Columns made: passage, query, `entity`, answers, `label` (1 if
    the entity is an answer, −1 where there are no answers, as in a test split) and `query_id`, which tells the rows of
    one query.

    Args:
        rows: one row per query.
        passage, query: the columns with the texts.
        gap: what stands for the gap in the query.
        entities: the column with the list of candidates.
        answers: the column with the list of those that are right.
        idx: the column with the numbers of passage and query.

    Raises:
        DataError: a query without the gap, or without candidates.

    Example:
        >>> from datasets import Dataset
        >>> row = {"passage": "Ann met Eve\n@highlight\nThey sang", "query": "@placeholder went home with Ann",
        ...        "entities": ["Ann", "Eve"], "answers": ["Eve"], "idx": {"passage": 0, "query": 4}}
        >>> for made in gap_candidates(Dataset.from_list([row])):
        ...     print(made["query"], "|", made["entity"], made["label"], made["query_id"])
        Ann went home with Ann | Ann 0 0-4
        Eve went home with Ann | Eve 1 0-4
        >>> made["passage"]
        'Ann met Eve. They sang'
    """

    def change(row: Row) -> list[Row]:
        numbers, right = row[idx], row[answers] or []
        if gap not in row[query] or not row[entities]:
            lacks = f"no {gap!r}" if gap not in row[query] else f"nothing in column {entities!r}"
            raise DataError(f"the query {row[query][:80]!r} has {lacks}")
        shared = {
            passage: _sentences(row[passage]),
            answers: right,
            "query_id": f"{numbers['passage']}-{numbers['query']}",
        }
        return [
            {
                **shared,
                query: row[query].replace(gap, entity),
                "entity": entity,
                "label": int(entity in right) if right else -1,
            }
            for entity in row[entities]
        ]

    return expand(rows, change)


_PRONOUN = re.compile(r"\b(?:he|him|his|himself|she|hers?|herself)\b", re.IGNORECASE)


@registry.preparations.register("pronoun_pairs")
def pronoun_pairs(rows: Dataset, texts: Sequence[str], group: str = "pair") -> Dataset:
    r"""Winogender (AX-g): a column that is equal for rows whose texts differ in the gender of pronouns alone.

    Args:
        rows: the rows.
        texts: the columns compared.
        group: the column made: the texts with a sign for every pronoun.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"premise": ["Ann saw him.", "Ann saw her."], "hypothesis": ["Ann saw."] * 2})
        >>> pronoun_pairs(rows, ["premise", "hypothesis"])["pair"][:]
        ['Ann saw ~.\nAnn saw.', 'Ann saw ~.\nAnn saw.']
    """
    return rewrite(rows, lambda row: {**row, group: "\n".join(_PRONOUN.sub("~", row[text]) for text in texts)})


_HIGHLIGHT = re.compile(r"\s*@highlight\s*")
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_ENDS = ".!?\"'”’"


def _sentences(passage: str) -> str:
    """A passage whose ``@highlight`` lines are sentences after one another."""
    *parts, last = [part for part in _HIGHLIGHT.split(passage) if part] or [""]
    return " ".join([*(part if part[-1] in _ENDS else f"{part}." for part in parts), last])


def _marked(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    """A text with marks before and after spans (start, end, mark)."""
    for start, end, _ in spans:
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
            raise DataError(f"characters {start} to {end} are no part of {text[:80]!r} ({len(text)} characters)")
    places = sorted(((place, mark) for start, end, mark in spans for place in (start, end)), reverse=True)
    for place, mark in places:
        text = text[:place] + mark + text[place:]
    return text


def _word_like(word: str, sentence: str) -> tuple[int, int] | None:
    """Where the word stands that begins most like `word`, if it shares at least half of it (and two letters)."""
    wanted, best, place = word.casefold(), max(2, (len(word) + 1) // 2) - 1, None
    for match in _WORD.finditer(sentence):
        shared = 0
        for mine, theirs in zip(match[0].casefold(), wanted, strict=False):
            if mine != theirs:
                break
            shared += 1
        if shared > best:
            best, place = shared, match.span()
    return place


def _span_at(text: str, span: str, index: int) -> tuple[int, int] | None:
    """Where a span stands, nearest to the word number `index`; its first word where the text interrupts it."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    wanted = span.split()
    if not wanted:
        return None
    near = starts[index] if 0 <= index < len(starts) else 0
    wanted[-1] = wanted[-1].rstrip(".") or wanted[-1]
    for words in (wanted, [wanted[0].rstrip(",")]):
        pattern = re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
        found = [match.span() for match in pattern.finditer(text)]
        if found:
            return min(found, key=lambda place: abs(place[0] - near))
    return None
