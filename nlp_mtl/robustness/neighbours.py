"""Words near a word in a model's own embeddings."""

from __future__ import annotations

from typing import Any

import torch

from nlp_mtl.packing import base_of


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
        tokenizer = model.tokenizer
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

    def _key(self, word: str) -> str | None:
        key = word if word in self._place else word.lower()
        return key if key in self._place else None

    def number(self, word: str) -> int | None:
        """The token of a word, if it is a single piece."""
        key = self._key(word)
        return None if key is None else self.ids[key]

    def difference(self, word: str, other: str) -> torch.Tensor:
        """[width]: the embedding of a known word minus that of another."""
        one, two = self._key(word), self._key(other)
        assert one is not None and two is not None
        return self._raw[self._place[one]] - self._raw[self._place[two]]

    def of(self, word: str) -> list[str]:
        """The nearest first; none for a word that is no single piece of the vocabulary."""
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
        return [other.capitalize() for other in self._found[key]] if word[:1].isupper() else list(self._found[key])
