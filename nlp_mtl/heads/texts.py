"""From text columns to token ids: single texts and pairs, strings and lists of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_mtl.errors import DataError
from nlp_mtl.heads.labels import Where, complain
from nlp_mtl.template import Template


def tokenize_texts(
    rows: Mapping[str, Sequence[Any]],
    inputs: Sequence[str],
    tokenizer: Any,
    max_length: int,
    where: Where,
    owners: Sequence[int] | None = None,
) -> dict[str, list[Any]]:
    """Token ids of one text or a pair per row.

    Args:
        rows: the columns, each [rows], of strings, or of lists of words (one input only).
        inputs: one or two column names.
        tokenizer: a fast tokenizer.
        max_length: at most so many tokens; the longer text of a pair is cut first.
        where: task and split, for messages.
        owners: the row that each text belongs to, if not 0, 1, …; for messages.

    Returns:
        The columns of :meth:`Head.tokenize`, `token_type_ids` if the tokenizer makes them, and for lists of words
        `word_positions` [rows]: the place of each word's first piece, −1 if it was cut.

    Raises:
        DataError: texts that are None or not text, rows with no text, or none that the tokenizer reads; names the rows.
    """
    return encode_texts(rows, inputs, tokenizer, max_length, where, owners)[0]


def encode_texts(
    rows: Mapping[str, Sequence[Any]],
    inputs: Sequence[str],
    tokenizer: Any,
    max_length: int,
    where: Where,
    owners: Sequence[int] | None = None,
) -> tuple[dict[str, list[Any]], Sequence[Any]]:
    """As :func:`tokenize_texts`; gives also the `tokenizers.Encoding` of each row, which knows where its pieces are."""
    if len(inputs) > 2:
        raise DataError(f"{where}: `inputs` names {len(inputs)} columns; a text or a pair is read, so name 1 or 2")
    columns = [list(rows[name]) for name in inputs]
    words = bool(columns[0]) and any(isinstance(value, (list, tuple)) for value in columns[0])
    check_texts(columns, inputs, words, where, owners)
    if words and len(inputs) == 2:
        raise DataError(f"{where}: lists of words are read alone; `inputs` names a pair")
    spaced = words and glues_words(tokenizer)
    if spaced:
        columns = [[[f" {word}" if place else word for place, word in enumerate(value)] for value in columns[0]]]
    encoded = tokenizer(
        *columns,
        truncation=True,
        max_length=max_length,
        is_split_into_words=words,
        return_attention_mask=False,
        verbose=False,
    )
    check_tokens(encoded["input_ids"], where, owners)
    encodings = encoded.encodings
    out: dict[str, list[Any]] = {
        "input_ids": encoded["input_ids"],
        "lengths": [[len(ids)] for ids in encoded["input_ids"]],
        "truncated": [bool(encoding.overflowing) for encoding in encodings],
        "source": list(range(len(encodings))),
    }
    if "token_type_ids" in encoded:
        out["token_type_ids"] = encoded["token_type_ids"]
    if words:
        out["word_positions"] = [
            word_starts(encoding.word_ids, len(value), [end for _, end in encoding.offsets] if spaced else None)
            for encoding, value in zip(encodings, columns[0], strict=True)
        ]
    return out, encodings


def joined(rows: Mapping[str, Sequence[Any]], template: str, where: Where) -> dict[str, list[str]]:
    """The column ``template``: the text that a template makes of each row.

    Raises:
        DataError: rows that lack a value, or hold one that is no text; names them.
    """
    made = Template(template)
    texts, mistakes = [], []
    for row, values in enumerate(zip(*(rows[column] for column in made.columns), strict=True)):
        try:
            texts.append(made.fill(dict(zip(made.columns, values, strict=True))))
        except DataError as error:
            mistakes.append((row, str(error)))
    complain(where, mistakes)
    return {"template": texts}


def glues_words(tokenizer: Any) -> bool:
    """Whether the tokenizer reads a list of words as if nothing stood between them (byte-level BPE as it comes)."""
    listed = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False, verbose=False)["input_ids"]
    return listed != tokenizer("a a", add_special_tokens=False, verbose=False)["input_ids"]


def word_starts(word_ids: Sequence[int | None], count: int, ends: Sequence[int] | None = None) -> list[int]:
    """The place of the first piece of each of `count` words, −1 where a word has none.

    Args:
        word_ids: [pieces], the word of each piece, None for special tokens.
        count: how many words there are.
        ends: [pieces], where each piece ends in its word, if a space was put before all words but the first: a piece
            that is only this space does not begin the word.

    Example:
        >>> word_starts([None, 0, 1, 1, None], 3)
        [1, 2, -1]
    """
    starts = [-1] * count
    for place in range(len(word_ids) - 1, -1, -1):
        word = word_ids[place]
        only_space = ends is not None and word and ends[place] <= 1
        if word is not None and not (only_space and starts[word] >= 0):
            starts[word] = place
    return starts


def check_tokens(ids: Sequence[Sequence[int]], where: Where, owners: Sequence[int] | None = None) -> None:
    """Refuse rows of which the tokenizer leaves nothing (control characters, where it adds no special tokens).

    Raises:
        DataError: names the rows.
    """
    empty = [row for row, tokens in enumerate(ids) if not len(tokens)]
    complain(
        where, [(row if owners is None else owners[row], "the tokenizer makes no token of the text") for row in empty]
    )


def is_text(value: Any) -> bool:
    r"""Whether a value is text, and without halves of characters, which no tokenizer reads.

    Example:
        >>> is_text("rain"), is_text(None), is_text("\ud800")
        (True, False, False)
    """
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)


def check_texts(
    columns: Sequence[Sequence[Any]],
    names: Sequence[str],
    words: bool,
    where: Where,
    owners: Sequence[int] | None = None,
) -> None:
    """Refuse rows whose texts can't be read.

    Raises:
        DataError: a text that is None or not text, a word that is not text, or a row with no text at all.
    """
    mistakes = []
    for place, values in enumerate(zip(*columns, strict=True)):
        row = place if owners is None else owners[place]
        bad = False
        for name, value in zip(names, values, strict=True):
            if words:
                wrong = not isinstance(value, (list, tuple)) or any(not is_text(word) for word in value)
            else:
                wrong = not is_text(value)
            if wrong:
                kind = "a list of words" if words else "text"
                mistakes.append((row, f"column {name!r} is not {kind}, found {str(value)[:40]!r}"))
                bad = True
        if not bad and not any((any(w.strip() for w in v) if words else v.strip()) for v in values):
            mistakes.append((row, f"{' and '.join(repr(n) for n in names)} hold no text"))
    complain(where, mistakes)
