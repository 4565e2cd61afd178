"""What each word of a text adds to each task's answer: integrated gradients on the embeddings, by captum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.batches import collate, to_device
from nlp_mtl.embedded import embedded, from_embeddings, gradients_through, words_of
from nlp_mtl.errors import ConfigError, NotFoundError, pip_install
from nlp_mtl.inputs import Input, read_window
from nlp_mtl.prediction import readers_of

KINDS = ("sequence_classification", "regression", "multi_label")


@dataclass(frozen=True)
class Attribution:
    """What words add to one task's answer about one text.

    Attributes:
        task, label: whose, and which answer (the value itself of a regression).
        words: of the text, with special tokens in brackets.
        values: what each adds to the answer's logit, against a text of padding.
        output: that logit.
        delta: what the values lack to add up to the difference from the logit of a text of padding.
    """

    task: str
    label: str
    words: list[str]
    values: list[float]
    output: float
    delta: float


def attributions(
    model: Any, value: Input, tasks: Sequence[str] | None = None, *, steps: int = 64
) -> tuple[list[Attribution], list[str]]:
    """What each word of a text adds to what each task says of it.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`, in eval mode.
        value: a text, a pair, or a mapping of columns, as for :func:`nlp_mtl.predict`.
        tasks: only these.
        steps: points between the padding and the text at which gradients are taken.

    Returns:
        One for each task that gives labels or a value, and why others are left out.

    Raises:
        ConfigError: `steps` that are no whole number from 1.
        UnsupportedError: captum is missing, or tasks do not share one encoder's embeddings.

    Relations: Sundararajan et al. (2017, arXiv:1703.01365) by captum's LayerIntegratedGradients, the baseline being
    padding in the place of every token that is not special. The sum of the values is the difference of the two outputs
    (completeness), up to `delta`, which falls with `steps`.

    cost: `steps` forward and backward passes of the text for each task.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"interpret: `steps` is a whole number from 1, found {steps!r}")
    chosen = [task for task in model.tasks if tasks is None or task in tasks]
    fits = [task for task in chosen if model.heads[task].task.head_name in KINDS]
    notes = [f"{task} is left out: {model.heads[task].task.head_name}" for task in chosen if task not in fits]
    found = []
    with gradients_through(model, "interpret"):
        for task in fits:
            window = read_window(readers_of(model, [task]), [value], model.tokenizer)
            if not window.rows:
                lacks = ", ".join(window.missing[task].get(0, []))
                notes.append(f"{task} is left out: the input lacks {lacks}")
                continue
            batch = to_device(collate(window.rows[:1], [[task]], model.heads), model.device)
            found.append(_of_task(model, task, batch, steps))
    return found, notes


def _of_task(model: Any, task: str, batch: Mapping[str, Any], steps: int) -> Attribution:
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError:
        raise NotFoundError(
            "the package captum, needed for attributions,", ["import captum"], [pip_install("interpret")]
        ) from None
    head, ids = model.heads[task], batch["input_ids"]
    table = _Words(words_of(model))

    def forward(given: Tensor) -> Tensor:  # [points, tokens]: captum puts all points into one batch
        values = table(given)
        rows = [from_embeddings(model, batch, row)["logits"][task].reshape(1, -1) for row in values]
        return torch.cat(rows)

    special = torch.tensor([token in model.tokenizer.all_special_ids for token in ids.tolist()], device=ids.device)
    padding = model.tokenizer.pad_token_id
    start = torch.where(special, ids, torch.full_like(ids, 0 if padding is None else padding))
    with torch.no_grad():
        logits = forward(ids[None])[0]
    target = int(logits.argmax())
    values, delta = LayerIntegratedGradients(forward, table).attribute(
        ids[None],
        baselines=start[None],
        target=target,
        n_steps=steps,
        internal_batch_size=8,
        return_convergence_delta=True,
    )
    words, sums = words_with(model.tokenizer, ids.tolist(), values[0].sum(-1).detach().float().tolist())
    label = (head.labels or [])[target] if head.labels and head.task.head_name != "regression" else head.metrics[0]
    label = "value" if head.task.head_name == "regression" else label
    return Attribution(task, str(label), words, sums, float(logits[target]), float(delta[0]))


class _Words(nn.Module):
    """The embeddings as a layer of its own, which captum hooks; the model's is called elsewhere."""

    def __init__(self, words: nn.Embedding):
        super().__init__()
        self._words = [words]

    def forward(self, ids: Tensor) -> Tensor:
        return embedded(self._words[0], ids)


def words_with(tokenizer: Any, ids: Sequence[int], values: Sequence[float]) -> tuple[list[str], list[float]]:
    """Tokens put together to words, with the sum of their values.

    Args:
        tokenizer: a fast tokenizer.
        ids: [tokens].
        values: [tokens].

    Example:
        >>> from nlp_mtl.testing import tiny_tokenizer
        >>> words_with(tiny_tokenizer(), tiny_tokenizer()("good cats").input_ids, [1, 2, 3, 4, 5])
        (['[CLS]', 'good', 'cats', '[SEP]'], [1, 2, 7, 5])
    """
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    signs = [sign for sign in ("Ġ", "▁") if any(piece.startswith(sign) for piece in pieces)]
    words: list[str] = []
    sums: list[float] = []
    for number, piece, value in zip(ids, pieces, values, strict=True):
        special = number in tokenizer.all_special_ids
        inside = piece.startswith("##") or (bool(signs) and not piece.startswith(signs[0]) and not special)
        before = words and not words[-1].startswith("[") and not words[-1].startswith("<")
        if inside and before:
            words[-1] += piece.removeprefix("##")
            sums[-1] += value
        else:
            words.append(piece.lstrip("Ġ▁") or piece)
            sums.append(value)
    return words, sums
