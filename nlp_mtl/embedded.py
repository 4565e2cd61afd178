"""Forward passes from embeddings instead of tokens, with a gradient that reaches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import UnsupportedError
from nlp_mtl.packing import base_of


def words_of(model: Any) -> Any:
    """What makes the word embeddings of a model."""
    return base_of(model.sharing.encoder).get_input_embeddings()


def embedded(words: nn.Embedding, ids: Tensor) -> Tensor:
    """[tokens, width]: embeddings, with a dense gradient also where the trainer keeps a sparse one."""
    made = functional.embedding(ids, words.weight, words.padding_idx)
    return made * getattr(words, "embed_scale", 1.0)


def from_embeddings(model: Any, batch: Mapping[str, Any], values: Tensor) -> dict[str, Any]:
    """What the model gives for a mixed batch with these embeddings in place of its tokens'.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        batch: what it takes.
        values: [tokens, width].
    """
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    found: dict[str, Any] = model(**rest, stacked={**(batch.get("stacked") or {}), "inputs_embeds": values})
    return found


def why_not_embedded(model: Any) -> str:
    """Why a model's tasks can't all be told the embeddings of one encoder; empty where they can."""
    sharing, words = model.sharing, words_of(model)
    if not isinstance(words, nn.Embedding):
        return f"{type(words).__name__} makes the embeddings of words here"
    alike = [m for m in sharing.modules() if isinstance(m, nn.Embedding) and m.weight.shape == words.weight.shape]
    if len(alike) > 1 or getattr(sharing, "conditions", None) is not None:
        return f"sharing {sharing.registered_as!r} has more than one encoder that all tasks use alike"
    return ""


@contextmanager
def gradients_through(model: Any, verb: str) -> Iterator[None]:
    """Inside this block gradients reach the embeddings, also of a model of which nothing is trained.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        verb: for messages.

    Raises:
        UnsupportedError: tasks that do not all use the embeddings of one encoder.
    """
    if why := why_not_embedded(model):
        raise UnsupportedError(
            f"{verb}: follows gradients to the embeddings of one encoder, and {why}; use sharing: hard"
        )
    known = [(p, p.requires_grad) for p in model.sharing.encoder.parameters()]
    try:
        for p, _ in known:
            p.requires_grad_(True)
        yield
    finally:
        for p, was in known:
            p.requires_grad_(was)
