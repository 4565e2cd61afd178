"""Words near a word in a model's own embeddings."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch

from nlp_mtl.packing import base_of

PUNCTUATION = string.punctuation + "–—“”‘’…"


class Neighbours:
    """Whole words of the tokenizer's vocabulary, by how near their embeddings are.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        similarity: the least cosine.
        most: at most so many for a word.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> near = Neighbours(tiny_model(["cola"]), similarity=-1.0, most=3)
        >>> len(near.of("Good")), near.of("xyzzy")
        (3, [])
    """

    def __init__(self, model: Any, *, similarity: float = 0.5, most: int = 20):
        self.similarity, self.most = similarity, most
        self._tokenizer = tokenizer = model.tokenizer
        known = tokenizer.get_vocab()
        begins = next((sign for sign in ("Ġ", "▁") if any(piece.startswith(sign) for piece in known)), "")
        special = set(tokenizer.all_special_tokens)
        self.ids = {}
        for piece, number in known.items():
            word = piece.removeprefix(begins) if begins else piece
            if piece.startswith(begins) and word.isalpha() and len(word) > 1 and piece not in special:
                self.ids[word] = number
        self.words = list(self.ids)
        weights = base_of(model.sharing.encoder).get_input_embeddings().weight.detach().float().cpu()
        table = weights[torch.tensor([self.ids[word] for word in self.words], dtype=torch.long)]
        self._raw = table
        table = table - table.mean(0)  # what all words have in common tells nothing apart
        self._table = table / table.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        self._place = {word: i for i, word in enumerate(self.words)}
        self._found: dict[str, list[str]] = {}
        self._split: dict[str, list[list[int]]] = {}

    def _key(self, word: str) -> str | None:
        bare = word.strip(PUNCTUATION)
        key = bare if bare in self._place else bare.lower()
        return key if key in self._place else None

    def number(self, word: str) -> int | None:
        """The token of a word, without the punctuation around it, if it is a single piece."""
        key = self._key(word)
        return None if key is None else self.ids[key]

    def difference(self, word: str, other: str) -> torch.Tensor:
        """[width]: the embedding of a known word minus that of another."""
        one, two = self._key(word), self._key(other)
        assert one is not None and two is not None
        return self._raw[self._place[one]] - self._raw[self._place[two]]

    def of(self, word: str) -> list[str]:
        """The nearest first, with its punctuation; none for a word that is no single piece of the vocabulary."""
        key = self._key(word)
        if key is None:
            return []
        if key not in self._found:
            near = self._table @ self._table[self._place[key]]
            near[self._place[key]] = -2
            values, places = near.topk(min(self.most, len(self.words)))
            pairs = zip(values.tolist(), places.tolist(), strict=True)
            same = key.lower()
            self._found[key] = [
                self.words[i] for value, i in pairs if value >= self.similarity and self.words[i].lower() != same
            ]
        bare = word.strip(PUNCTUATION)
        before, _, after = word.partition(bare)
        others = [other.capitalize() for other in self._found[key]] if bare[0].isupper() else self._found[key]
        return [f"{before}{other}{after}" for other in others]

    def places(self, words: Sequence[str], ids: Sequence[int]) -> list[int | None]:
        """Where the words of a text stand among its tokens; None for words of several pieces, or that were cut off.

        Args:
            words: of one text, in order.
            ids: tokens, in which the text stands once.
        """
        found: list[int | None] = []
        begin = 0
        for word in words:
            at = next(((i, own) for own in self._pieces(word) if (i := _within(own, ids, begin)) is not None), None)
            number = self.number(word)
            if at is None or number is None or number not in at[1]:
                found.append(None)
            else:
                found.append(at[0] + at[1].index(number))
            begin = begin if at is None else at[0] + len(at[1])
        return found

    def _pieces(self, word: str) -> list[list[int]]:
        """A word's tokens, after a space and without one."""
        if word not in self._split:
            ways = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f" {word}", word)]
            self._split[word] = [way for number, way in enumerate(ways) if way and way not in ways[:number]]
        return self._split[word]


def _within(own: Sequence[int], ids: Sequence[int], begin: int) -> int | None:
    """Where some tokens stand among others, from a place on."""
    return next((i for i in range(begin, len(ids) - len(own) + 1) if list(ids[i : i + len(own)]) == list(own)), None)
