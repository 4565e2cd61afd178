"""Multiple choice: which of some texts fits a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError
from nlp_mtl.heads.base import Columns, PlacedRow
from nlp_mtl.heads.labels import Where, complain
from nlp_mtl.heads.own import has_own_decoder
from nlp_mtl.heads.pooled import PooledHead, Pooling, in_full, most_frequent, softmax
from nlp_mtl.heads.texts import tokenize_texts
from nlp_mtl.heads.vanilla import seed_of
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("multiple_choice")
class MultipleChoice(PooledHead):
    """One of several choices, each read with the context as a pair; rows may have different numbers of choices.

    Args:
        task: the task; its inputs are joined to the context.
        choices: the columns with the choices, or the one column that holds lists of them.
        pooling, pooler: see :class:`PooledHead`.
    """

    auto_class = "AutoModelForMultipleChoice"
    reads_template = False
    default_metrics = ("accuracy",)

    def __init__(
        self,
        task: Task,
        choices: str | list[str],
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(task, pooling, pooler)
        if isinstance(choices, list) and len(choices) < 2:
            raise ConfigError(f"task {task.name!r}: `choices` names two or more columns, or one that holds lists")
        self.choices = choices

    def reading(self) -> tuple[Any, ...]:
        """The context's columns and the choices'."""
        return ("choices", *self.task.inputs, str(self.choices))

    def needed_columns(self) -> list[str]:
        """The context's columns and the choices'."""
        return [*self.task.inputs, *([self.choices] if isinstance(self.choices, str) else self.choices)]

    def _choices(self, rows: Columns) -> list[list[str]]:
        if isinstance(self.choices, str):
            return [list(values) if isinstance(values, (list, tuple)) else [values] for values in rows[self.choices]]
        return [list(values) for values in zip(*(rows[column] for column in self.choices), strict=True)]

    def tokenize(self, rows: Columns, tokenizer: Any, max_length: int, where: Where) -> dict[str, list[Any]]:
        """One sequence per choice; see :meth:`Head.tokenize`."""
        choices = self._choices(rows)
        mistakes = [(row, f"{len(c)} choice(s), at least 2 are needed") for row, c in enumerate(choices) if len(c) < 2]
        texts = [(f"column {name!r}", row, value) for name in self.task.inputs for row, value in enumerate(rows[name])]
        texts += [(f"choice {i}", row, v) for row, c in enumerate(choices) for i, v in enumerate(c) if len(c) > 1]
        strange = [(what, row, value) for what, row, value in texts if not isinstance(value, str)]
        mistakes += [(row, f"{what} is not text, found {str(value)[:40]!r}") for what, row, value in strange]
        complain(where, sorted(mistakes))
        contexts = [" ".join(values) for values in zip(*(rows[c] for c in self.task.inputs), strict=True)]
        owners = [row for row, options in enumerate(choices) for _ in options]
        pairs = {
            "context": [contexts[row] for row in owners],
            "choice": [choice for options in choices for choice in options],
        }
        flat = tokenize_texts(pairs, ["context", "choice"], tokenizer, max_length, where, owners)
        out: dict[str, list[Any]] = {key: [] for key in flat if key != "source"}
        place = 0
        for options in choices:
            part = slice(place, place + len(options))
            place += len(options)
            for key in out:
                values = flat[key][part]
                out[key].append(any(values) if key == "truncated" else [x for value in values for x in value])
        return {**out, "source": list(range(len(choices)))}

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """The number of the right choice; names are looked up in the data's names, or in `labels`.

        Text such as "1" is read as a number, counted from 0, unless names are written so ("1" and "2" of WinoGrande):
        then it is one of them, or a mistake.
        """
        known = list(names or self.labels or [])
        numbered = any(name.isdigit() for name in known)
        numbers: list[int | None] = []
        mistakes = []
        for row, (value, options) in enumerate(zip(values, self._choices(rows), strict=True)):
            value = value.strip() if isinstance(value, str) else value
            if value is None or value in (-1, ""):
                numbers.append(None)
                continue
            number = known.index(value) if value in known else value
            digits = isinstance(number, str) and number.isdigit() and not numbered
            if digits or (isinstance(number, float) and number.is_integer()):
                number = int(number)
            if not isinstance(number, int) or not 0 <= number < len(options):
                names_here, places = ", ".join(known[: len(options)]), f"0 … {len(options) - 1}"
                if numbered:
                    ways = names_here if isinstance(value, str) else places
                else:
                    ways = f"{places} or {names_here}" if known else places
                mistakes.append((row, f"the right choice {value!r} is not one of {ways}"))
                number = 0
            numbers.append(number)
        complain(where, mistakes)
        return numbers

    def config_changes(self) -> dict[str, Any]:
        """The class scores each choice with one number; there are no label names."""
        return {"num_labels": 2}

    def build_own(self, encoder: nn.Module, seed: int) -> nn.Module:
        """For families without the class (decoders): one score from the pooled state; not exportable."""
        base = base_of(encoder)
        self.exportable, self.why_not = False, f"the family {base.config.model_type!r} has no {self.auto_class}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.task.head_key, seed))
            causal = any(getattr(part, "is_causal", False) for part in base.modules())
            pooling = "last" if causal else "mean" if has_own_decoder(encoder) else "cls"
            return OwnMultipleChoice(base.config.hidden_size, pooling)

    def collate(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """`sequences` [choices of all rows], `counts` [rows], `labels` [rows]."""
        return {
            "sequences": torch.from_numpy(np.concatenate([row.sequences for row in rows])),
            "counts": torch.tensor([len(row.sequences) for row in rows]),
            **self._labels_of(rows),
        }

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, most choices], −inf where a row has fewer."""
        states = self.pooled(module, packed, target["sequences"])[:, None]
        scores = in_full(module, states).logits.flatten()
        return in_rows(scores, target["counts"])

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of cross entropies over rows."""
        return functional.cross_entropy(logits.float(), target["labels"], reduction="sum")

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row the scores [choices]."""
        scores = logits.detach().float().cpu().numpy()
        return [row[:count] for row, count in zip(scores, target["counts"].tolist(), strict=True)]

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[int]:
        """The number of the best choice."""
        return [int(np.argmax(prediction)) for prediction in predictions]

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The best choice, its number, and the probability of each."""
        scores = softmax(prediction)
        best = int(scores.argmax())
        options = self._choices({name: [row[name]] for name in self.needed_columns()})[0]
        return {
            "choice": best,
            "text": options[best],
            "score": round(float(scores[best]), 6),
            "scores": scores.round(6).tolist(),
        }

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[int]:
        """The most frequent place of the right choice."""
        return [most_frequent(train_labels)] * len(labels)


class OwnMultipleChoice(nn.Module):
    """One score per choice from its pooled state, for families without a class for it."""

    def __init__(self, hidden: int, pooling: str):
        super().__init__()
        self.family_pooling = pooling
        self.score = nn.Linear(hidden, 1)

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        """Scores [choices] of states [choices, 1, 1, hidden]."""
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.score(inputs_embeds).flatten())


def in_rows(scores: Tensor, counts: Tensor) -> Tensor:
    """[rows, most choices], −inf where a row has fewer, of the choices of all rows one after the other."""
    layout = Layout(counts.tolist(), scores.device)
    padded = scores.new_full((len(layout.lengths), max(layout.lengths)), float("-inf"))
    owner = torch.arange(len(layout.lengths), device=scores.device).repeat_interleave(counts.to(scores.device))
    return padded.index_put((owner, layout.position_ids), scores)
