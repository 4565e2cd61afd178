"""Masked language modelling on any text column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.heads.base import Columns, Head, PlacedRow
from nlp_mtl.heads.labels import Where
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("masked_lm")
class MaskedLM(Head):
    """Guess hidden words: of the tokens chosen, 80 % become the mask token, 10 % a random one, 10 % stay.

    Which tokens are chosen depends on the seed, the row and how often it has been shown, so every showing differs and a
    resumed run sees the same. Only chosen positions go through the output layer.

    Args:
        task: the task; its inputs are texts, it has no target.
        probability: share of tokens chosen, at least one per row.
    """

    auto_class = "AutoModelForMaskedLM"
    default_metrics = ("accuracy",)
    paper = "Devlin et al., 2019, arXiv:1810.04805"
    needs_labels = False
    decodes_rows = False  # scored are tokens
    reads_template = True

    def __init__(self, task: Task, probability: float = 0.15):
        super().__init__(task)
        if not 0 < probability < 1:
            raise ConfigError(f"task {task.name!r}: `probability` is between 0 and 1, found {probability}")
        self.probability = probability
        self._special: np.ndarray | None = None

    def reading(self) -> tuple[Any, ...]:
        """Rows of its own: their tokens are changed, so no other task can read them."""
        return ("masked", self.task.name, *super().reading())

    def manner(self) -> tuple[Any, ...]:
        """As texts: whoever asks has hidden words already."""
        return self._by_place(super().reading())

    def _needs_mask_token(self, tokenizer: Any) -> None:
        if tokenizer.mask_token_id is None:
            raise UnsupportedError(
                f"task {self.task.name!r}: the tokenizer has no mask token; choose a masked-LM encoder"
            )

    def tokenize(self, rows: Columns, tokenizer: Any, max_length: int, where: Where) -> dict[str, list[Any]]:
        """As texts, plus `special` [rows]: which tokens are special, and the mask token's number."""
        self._needs_mask_token(tokenizer)
        out = super().tokenize(rows, tokenizer, max_length, where)
        special = set(tokenizer.all_special_ids)
        out["maskable"] = [[int(token not in special) for token in ids] for ids in out["input_ids"]]
        out["mask_id"] = [tokenizer.mask_token_id] * len(out["input_ids"])
        out["vocabulary"] = [len(tokenizer)] * len(out["input_ids"])
        return out

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Nothing: the targets are the hidden tokens."""
        return [None] * len(values)

    def corrupt(
        self, ids: np.ndarray, columns: Mapping[str, Any], seed: Sequence[int]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Hide tokens; notes where (`chosen`) and what they were (`hidden_ids`)."""
        random = np.random.default_rng(list(seed))
        places = np.flatnonzero(np.asarray(columns["maskable"]))
        chosen = places[random.random(len(places)) < self.probability]
        if not len(chosen) and len(places):
            chosen = places[random.integers(len(places), size=1)]
        kind = random.random(len(chosen))
        new = ids.copy()
        new[chosen[kind < 0.8]] = int(columns["mask_id"])
        swapped = chosen[(kind >= 0.8) & (kind < 0.9)]
        new[swapped] = random.integers(int(columns["vocabulary"]), size=len(swapped))
        return new, {"chosen": chosen, "hidden_ids": ids[chosen]}

    def ask(self, row: Mapping[str, Any], tokenizer: Any) -> dict[str, Any] | None:
        """The mask tokens in the text are what is asked for; without one there is nothing to answer."""
        self._needs_mask_token(tokenizer)
        chosen = np.flatnonzero(np.asarray(row["input_ids"]) == tokenizer.mask_token_id)
        if not len(chosen):
            return None
        return {"chosen": chosen, "hidden_ids": np.zeros(len(chosen), dtype=np.int64), "tokenizer": tokenizer}

    def lacking(self, tokenizer: Any) -> str:
        """A mask."""
        return f"{tokenizer.mask_token} in the text"

    def collate(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """`positions` [chosen tokens], `labels` [chosen tokens], `counts` [rows]."""
        chosen = [row.starts[0] + row.columns["chosen"] for row in rows]
        return {
            "positions": torch.from_numpy(np.concatenate(chosen)).long(),
            "labels": torch.from_numpy(np.concatenate([row.columns["hidden_ids"] for row in rows])).long(),
            "counts": torch.tensor([len(places) for places in chosen]),
        }

    def config_changes(self) -> dict[str, Any]:
        """Nothing: the vocabulary is the encoder's."""
        return {}

    def build_own(self, encoder: nn.Module, seed: int) -> nn.Module:
        """Refused: a decoder sees no later words, and encoder–decoders fill words in with theirs."""
        whole = getattr(base_of(encoder).config, "is_encoder_decoder", False)
        why = "its own class fills in words with the decoder" if whole else "a decoder does not see later words"
        raise UnsupportedError(
            f"task {self.task.name!r}: the family {base_of(encoder).config.model_type!r} has no {self.auto_class} "
            f"({why}); choose an encoder of the BERT family"
        )

    def reads(self, module: nn.Module, layout: Layout, target: Mapping[str, Tensor]) -> Tensor:
        """The chosen tokens."""
        return target["positions"]

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[chosen tokens, vocabulary]."""
        states = packed.hidden[target["positions"]][None]
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        return module(input_ids=ids, inputs_embeds=states).logits[0]

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of cross entropies over chosen tokens."""
        return functional.cross_entropy(logits.float(), target["labels"], reduction="sum")

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row [chosen tokens, 2]: the guess and what it was."""
        both = torch.stack([logits.argmax(-1), target["labels"]], -1).cpu()
        return [part.numpy() for part in both.split(target["counts"].tolist())]

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """The guesses, with what they were: a masked LM's references are made while masking."""
        return list(predictions)

    def score(
        self, decoded: Sequence[Any], references: Sequence[Any], given: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """The metrics over all chosen tokens."""
        flat = np.concatenate([np.asarray(part).reshape(-1, 2) for part in decoded])
        return super().score(flat[:, 0].tolist(), flat[:, 1].tolist())

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The guessed tokens, in the order of the masks."""
        return {"tokens": row["tokenizer"].convert_ids_to_tokens(prediction[:, 0].tolist())}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """The most frequent token of the training rows, everywhere."""
        counted: Counter[int] = Counter()
        for ids, maskable in zip(train_rows["input_ids"], train_rows["maskable"], strict=True):
            counted.update(token for token, free in zip(ids, maskable, strict=True) if free)
        usual = counted.most_common(1)[0][0]
        return [
            np.array([[usual, token] for token, free in zip(ids, maskable, strict=True) if free])
            for ids, maskable in zip(rows["input_ids"], rows["maskable"], strict=True)
        ]
