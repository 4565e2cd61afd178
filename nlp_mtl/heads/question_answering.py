"""Extractive question answering: where in a context the answer stands, if it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, shown
from nlp_mtl.heads.base import Columns, Head, PlacedRow
from nlp_mtl.heads.labels import Where, complain
from nlp_mtl.heads.texts import check_texts, check_tokens
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("question_answering")
class QuestionAnswering(Head):
    """A span of the context, or no answer.

    A context longer than `max_length` is read in overlapping windows, each a row of its own; the best span over all
    windows of a question wins. A window without the answer points at its first token.

    Args:
        task: the task; inputs are the question and the context, the target is ``{text: […], answer_start: […]}``.
        stride: tokens that neighbouring windows share.
        n_best: how many starts and ends are combined.
        max_answer_length: in tokens.
        no_answer: whether "no answer" may be the answer (SQuAD 2): it is if the first token's score beats every span's.
    """

    auto_class = "AutoModelForQuestionAnswering"
    default_metrics = ("f1_answer", "exact_match")
    label_is_list = True
    keeps_target = True
    decodes_rows = False  # a question's windows have one answer
    paper = "Rajpurkar et al., 2016, arXiv:1606.05250"

    def __init__(
        self, task: Task, stride: int = 128, n_best: int = 20, max_answer_length: int = 30, no_answer: bool = False
    ):
        super().__init__(task)
        if len(task.inputs) != 2:
            raise ConfigError(
                f"task {task.name!r}: question answering reads a question and a context, found {task.inputs}"
            )
        wrong = {k: v for k, v in (("n_best", n_best), ("max_answer_length", max_answer_length)) if v < 1}
        if wrong or stride < 0:
            raise ConfigError(f"task {task.name!r}: counts from 1 are needed, found {wrong or {'stride': stride}}")
        self.stride, self.n_best, self.max_answer_length, self.no_answer = stride, n_best, max_answer_length, no_answer

    def reading(self) -> tuple[Any, ...]:
        """Windows depend on the stride."""
        return ("windows", self.stride, *self.task.inputs)

    def tokenize(self, rows: Columns, tokenizer: Any, max_length: int, where: Where) -> dict[str, list[Any]]:
        """Windows; `offsets` [rows] of flat (start, end) characters in the context, −1 outside it."""
        question, context = (list(rows[name]) for name in self.task.inputs)
        check_texts([question, context], self.task.inputs, words=False, where=where)
        room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        lengths = [len(ids) for ids in tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]]
        stride = min(self.stride, max(0, room // 4))
        too_long = [
            (r, f"the question has {n} tokens, no room for the context in {max_length}")
            for r, n in enumerate(lengths)
            if n + stride + 1 > room
        ]
        complain(where, too_long)
        encoded = tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        source = list(encoded["overflow_to_sample_mapping"])
        check_tokens(encoded["input_ids"], where, source)
        out: dict[str, list[Any]] = {
            "input_ids": encoded["input_ids"],
            "lengths": [[len(ids)] for ids in encoded["input_ids"]],
            "truncated": [False] * len(source),
            "source": source,
            "offsets": [
                [
                    x
                    for pair, part in zip(pairs, encoding.sequence_ids, strict=True)
                    for x in (pair if part == 1 else (-1, -1))
                ]
                for pairs, encoding in zip(encoded["offset_mapping"], encoded.encodings, strict=True)
            ],
        }
        if "token_type_ids" in encoded:
            out["token_type_ids"] = encoded["token_type_ids"]
        return out

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """``{"text", "answer_start"}`` with lists; None without a target.

        Raises:
            DataError: an answer that does not stand in the context where it says; names the row.
        """
        encoded: list[dict[str, list[Any]] | None] = []
        mistakes = []
        for row, (value, context) in enumerate(zip(values, rows[self.task.inputs[1]], strict=True)):
            if value is None:
                encoded.append(None)
                continue
            if not isinstance(value, Mapping) or not {"text", "answer_start"} <= set(value):
                mistakes.append((row, f"the target needs `text` and `answer_start`, found {str(value)[:60]}"))
                encoded.append(None)
                continue
            texts, starts = value["text"], value["answer_start"]
            lists = isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple))
            if not lists or len(texts) != len(starts):
                rule = "`text` and `answer_start` are lists of equal length"
                mistakes.append((row, f"{rule}, found {str(texts)[:40]} and {str(starts)[:40]}"))
                encoded.append(None)
                continue
            for text, start in zip(texts, starts, strict=True):
                if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
                    found = f"{shown(text, most=40)} and {shown(start, most=40)}"
                    mistakes.append((row, f"`text` holds texts and `answer_start` whole numbers, found {found}"))
                elif isinstance(context, str) and context[start : start + len(text)] != text:
                    mistakes.append((row, f"{text[:40]!r} does not stand in the context at character {start}"))
            if not texts and not self.no_answer:
                mistakes.append((row, "no answer given; set `no_answer: true` if there may be none"))
            encoded.append({"text": list(texts), "answer_start": list(starts)})
        complain(where, mistakes)
        return encoded

    def place_labels(self, labels: Sequence[Any], tokenized: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Per window the first and last token of the first answer, (0, 0) if it is not in it."""
        placed = []
        for source, offsets in zip(tokenized["source"], tokenized["offsets"], strict=True):
            label = labels[source]
            placed.append(None if label is None else _token_span(label, np.asarray(offsets).reshape(-1, 2)))
        return placed

    def collate(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """`sequences` [rows], `labels` [rows, 2]."""
        return {"sequences": torch.from_numpy(np.concatenate([row.sequences for row in rows])), **self._labels_of(rows)}

    def config_changes(self) -> dict[str, Any]:
        """Two outputs: start and end."""
        return {"num_labels": 2}

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, most tokens, 2]: start and end scores, −inf beyond a row's tokens."""
        tokens = packed.layout.tokens_of(target["sequences"])
        states = packed.hidden[tokens][None]
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        out = module(input_ids=ids, inputs_embeds=states)
        scores = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
        layout = Layout([packed.layout.lengths[i] for i in target["sequences"].tolist()], scores.device)
        owner = torch.arange(len(layout.lengths), device=scores.device).repeat_interleave(
            torch.tensor(layout.lengths, device=scores.device)
        )
        padded = scores.new_full((len(layout.lengths), max(layout.lengths), 2), float("-inf"))
        return padded.index_put((owner, layout.position_ids), scores)

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum over rows of the mean of the cross entropies of start and end."""
        ends = [
            functional.cross_entropy(logits[..., i].float(), target["labels"][:, i], reduction="sum") for i in (0, 1)
        ]
        return (ends[0] + ends[1]) / 2

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per window the scores [tokens, 2]."""
        scores = logits.detach().float().cpu().numpy()
        return [row[np.isfinite(row[:, 0])] for row in scores]

    def best(self, windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int, float]:
        """The best span over a question's windows: first and after-last character, score; (0, 0) for none.

        Args:
            windows: scores [tokens, 2] and offsets [tokens, 2] of each window.
        """
        best, null = (0, 0, -np.inf), np.inf
        for scores, offsets in windows:
            null = min(null, float(scores[0].sum()))
            inside = np.flatnonzero(offsets[:, 0] >= 0)
            if not len(inside):
                continue
            first = inside[np.argsort(-scores[inside, 0], kind="stable")[: self.n_best]]
            last = inside[np.argsort(-scores[inside, 1], kind="stable")[: self.n_best]]
            length = last[None, :] - first[:, None]
            sums = scores[first, 0][:, None] + scores[last, 1][None, :]
            sums = np.where((length >= 0) & (length < self.max_answer_length), sums, -np.inf)
            i, j = np.unravel_index(int(sums.argmax()), sums.shape)
            if sums[i, j] > best[2]:
                best = (int(offsets[first[i], 0]), int(offsets[last[j], 1]), float(sums[i, j]))
        if best[2] == -np.inf or (self.no_answer and null > best[2]):
            return 0, 0, null
        return best

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[str]:
        """One answer text per question."""
        contexts = rows[self.task.inputs[1]]
        answers = []
        for members in _questions(rows["source"]):
            windows = [(predictions[i], np.asarray(rows["offsets"][i]).reshape(-1, 2)) for i in members]
            start, end, _ = self.best(windows)
            start, end = _trimmed(contexts[members[0]], start, end)
            answers.append(contexts[members[0]][start:end])
        return answers

    def references(self, labels: Sequence[Any], rows: Any) -> list[list[str]]:
        """Acceptable answers per question; none for "no answer"."""
        targets = rows[f"target:{self.task.name}"]
        return [list(targets[members[0]]["text"]) for members in _questions(rows["source"])]

    def answer(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's text, its characters in the context and its score; `prediction` holds all windows."""
        windows = [(scores, np.asarray(offsets).reshape(-1, 2)) for scores, offsets in prediction]
        start, end, score = self.best(windows)
        context = row[self.task.inputs[1]]
        start, end = _trimmed(context, start, end)
        return {"answer": context[start:end], "start": start, "end": end, "score": round(score, 4)}

    def answer_of(self, parts: Sequence[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
        """The best answer over all windows of a context."""
        return self.answer([(prediction, row["offsets"]) for prediction, row in parts], parts[0][1])

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[str]:
        """The first word of the context, or no answer where that is allowed."""
        contexts = rows[self.task.inputs[1]]
        firsts = [contexts[members[0]].split()[:1] for members in _questions(rows["source"])]
        return ["" if self.no_answer or not first else first[0] for first in firsts]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without white space at the edges, which byte-level tokens carry with them."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _questions(source: Sequence[int]) -> Iterator[list[int]]:
    """The windows of each question, which stand together."""
    members: list[int] = []
    for row, question in enumerate(source):
        if members and question != source[members[0]]:
            yield members
            members = []
        members.append(row)
    if members:
        yield members


def _token_span(label: Mapping[str, Sequence[Any]], offsets: np.ndarray) -> list[int]:
    if not label["text"]:
        return [0, 0]
    start = int(label["answer_start"][0])
    end = start + len(label["text"][0])
    inside = (offsets[:, 0] >= 0) & (offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 1] > offsets[:, 0])
    covered = np.flatnonzero(inside)
    context = offsets[offsets[:, 0] >= 0]
    if not len(covered) or not len(context) or context[0, 0] > start or context[-1, 1] < end:
        return [0, 0]
    return [int(covered[0]), int(covered[-1])]
