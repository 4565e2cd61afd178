"""How well a tokenizer covers texts: unknown tokens, tokens per word, words cut into single characters."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nlp_mtl.data import PoolRows

# Scripts that put no spaces between words: Thai to Burmese, Khmer, kana, Han, Hangul syllables stay words.
_UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
UNKNOWN, PER_WORD, IN_LETTERS = 0.01, 2.5, 0.2  # above, a text is covered badly
SAMPLE = 200  # rows that are looked at
_LONGEST = 500  # characters of each


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer makes of some texts.

    Attributes:
        texts, words, tokens: how many there are, without special tokens.
        unknown: the share of tokens that are the unknown token.
        per_word: tokens of words per word.
        in_letters: the share of words of two characters and more that are cut into single characters, or less.
    """

    texts: int
    words: int
    tokens: int
    unknown: float
    per_word: float
    in_letters: float

    @property
    def badly(self) -> str:
        """What is bad about it, in words; empty if nothing is.

        Example:
            >>> Coverage(1, 10, 30, 0.0, 3.0, 0.1).badly
            '3.0 tokens per word'
        """
        said = [
            (self.unknown > UNKNOWN, f"{self.unknown:.1%} unknown tokens"),
            (self.per_word > PER_WORD, f"{self.per_word:.1f} tokens per word"),
            (self.in_letters > IN_LETTERS, f"{self.in_letters:.0%} of the words cut into single characters"),
        ]
        return ", ".join(words for bad, words in said if bad)

    def said(self) -> dict[str, Any]:
        """As it is written down."""
        return {**asdict(self), "badly": self.badly}


def words_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are: runs without spaces, without punctuation at their ends.

    In scripts without spaces every character counts as a word.

    Example:
        >>> [(text[a:b]) for text in ["It's (very) good - 好吃"] for a, b in words_of(text)]
        ["It's", 'very', 'good', '好', '吃']
    """
    found = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        while start < end and _bare(text[start]):
            start += 1
        while end > start and _bare(text[end - 1]):
            end -= 1
        if start < end:
            found.append((start, end))
    return found


def _bare(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PSZC"


def coverage_of(texts: Sequence[str], tokenizer: Any) -> Coverage:
    """How a tokenizer covers texts.

    A token belongs to the word that its last character is in.

    Args:
        texts: some.
        tokenizer: a fast tokenizer.

    Relations: tokens per word is the fertility of Rust et al. (2021, arXiv 2012.15613), who find that it goes with how
    well an encoder does in a language.

    Example:
        >>> from nlp_mtl.testing import tiny_tokenizer
        >>> coverage_of(["good dog", "zzz"], tiny_tokenizer()).per_word
        1.6666666666666667
    """
    return _covered(texts, _uncut(tokenizer), tokenizer.unk_token_id)


def _uncut(tokenizer: Any) -> Any:
    """The tokenizer below, as it is before anything sets lengths; the tokenizer stays as it was."""
    plain = copy.deepcopy(tokenizer.backend_tokenizer)
    plain.no_truncation()
    plain.no_padding()
    return plain


def _covered(texts: Sequence[str], plain: Any, mark: int | None) -> Coverage:
    encoded = plain.encode_batch(list(texts), add_special_tokens=False) if len(texts) else []
    unknown, tokens, words, of_words, longer, cut = 0, 0, 0, 0, 0, 0
    for text, encoding in zip(texts, encoded, strict=True):
        tokens += len(encoding.ids)
        unknown += sum(number == mark for number in encoding.ids) if mark is not None else 0
        places = words_of(text)
        counts = _counts(places, encoding.offsets, len(text))
        words += len(places)
        of_words += sum(counts)
        for (start, end), count in zip(places, counts, strict=True):
            longer += end - start > 1
            cut += end - start > 1 and count >= end - start
    return Coverage(len(texts), words, tokens, unknown / max(tokens, 1), of_words / max(words, 1), cut / max(longer, 1))


def _counts(places: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], length: int) -> list[int]:
    """Tokens of each word."""
    owner = np.full(length + 1, -1)
    for word, (start, end) in enumerate(places):
        owner[start:end] = word
    lasts = np.array([owner[end - 1] for start, end in offsets if end > start], dtype=np.int64)
    return np.bincount(lasts[lasts >= 0], minlength=len(places)).tolist()


def texts_of(pool: PoolRows, columns: Sequence[str], most: int = SAMPLE) -> list[str]:
    """Texts of some rows, evenly over all of them; lists of words as their words.

    Args:
        pool: tokenized rows, with the columns they were made of.
        columns: a task's input columns.
        most: rows.
    """
    step = max(1, len(pool) // most)
    part = pool.table.select(range(0, len(pool), step)[:most])
    return [text for name in columns if name in part.column_names for value in part[name] for text in _texts(value)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:_LONGEST]
    elif isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        yield " ".join(value)[:_LONGEST]


def coverage_notes(heads: Any, pools: Sequence[PoolRows], tokenizer: Any) -> list[str]:
    """What a user should know of tasks whose texts the tokenizer covers badly, from up to 100 rows of each.

    Args:
        heads: task → head.
        pools: tokenized rows.
        tokenizer: the encoder's.
    """
    notes, plain = [], _uncut(tokenizer)
    for pool in pools:
        found = _covered(texts_of(pool, heads[pool.tasks[0]].needed_columns(), 100), plain, tokenizer.unk_token_id)
        if found.words and found.badly:
            notes.append(
                f"{', '.join(pool.tasks)}: the tokenizer covers these texts badly ({found.badly}); an encoder that was "
                "pretrained on such texts would read them better (nlp-mtl domains compares)"
            )
    return notes
