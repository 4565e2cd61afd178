"""Token classification: one tag per word (named entities, parts of speech, slots)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, DataError, shown
from nlp_mtl.heads.base import Columns, Head, PlacedRow
from nlp_mtl.heads.class_weights import ClassWeights
from nlp_mtl.heads.labels import Where, class_numbers, complain, name_of, names_in
from nlp_mtl.heads.own import has_own_decoder, own_linear, why_own
from nlp_mtl.heads.spans import Scheme, iob2_labels, misfits, spans_of, to_iob2, words_in
from nlp_mtl.heads.texts import encode_texts
from nlp_mtl.layout import Layout, few_shapes
from nlp_mtl.packing import Packed
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("token_classification")
class TokenClassification(Head):
    """One tag per word, read at the word's first piece.

    Words that were cut by `max_length` are tagged O (or the first label), and so counted as the task's official score
    counts them.

    Args:
        task: the task; its one input holds lists of words, its target lists of tags.
        scheme: how the data marks spans: ``iob2``; ``iob1`` or ``io``, which are converted; ``none`` for tags that mark
            no spans (parts of speech), scored by accuracy.
        class_weights: ``balanced``, so that all tags weigh the same together, n / (k · n_c) each; or a mapping tag (in
            IOB2) → weight, brought to a mean of 1 over the tagged words of the training rows.
    """

    auto_class = "AutoModelForTokenClassification"
    default_metrics = ("span_f1",)
    label_is_list = True
    for_model = ("class_weights",)
    also_gives = ("word_positions", "word_spans")

    def __init__(self, task: Task, scheme: Scheme = "iob2", class_weights: Any = None):
        super().__init__(task)
        if scheme not in ("iob2", "iob1", "io", "none"):
            raise ConfigError(f"task {task.name!r}: `scheme` is iob2, iob1, io or none, found {scheme!r}")
        if len(task.inputs) != 1:
            raise ConfigError(
                f"task {task.name!r}: token classification reads one column of words, found {task.inputs}"
            )
        self.scheme = scheme
        self.data_labels = task.labels
        self.labels = iob2_labels(task.labels, scheme) if task.labels else None
        if task.labels and (wrong := misfits(task.labels, scheme)):
            raise ConfigError(f"task {task.name!r}: {wrong}")
        if scheme == "none" and task.metrics is None:
            self.metrics = ["accuracy"]
        self.class_weights = None if class_weights is None else ClassWeights(task.name, class_weights)
        if mistakes := self._misweighed():
            raise ConfigError(mistakes)

    def _misweighed(self) -> list[str]:
        return self.class_weights.misfits(self.labels) if self.class_weights and self.labels else []

    def set_labels(self, names: Sequence[str] | None) -> None:
        """Label names found in the data, brought to IOB2."""
        if self.labels is None and names is not None:
            if wrong := misfits(names, self.scheme):
                raise DataError(f"task {self.task.name!r}: {wrong}")
            self.data_labels = list(names)
            self.labels = iob2_labels(names, self.scheme)
            if mistakes := self._misweighed():
                raise DataError("\n".join(mistakes))

    def label_names(self, rows: Any, column: str) -> list[str] | None:
        """Names of a list of ClassLabels, or the distinct values, O first."""
        feature: Any = getattr(rows.features[column], "feature", None)
        if getattr(feature, "names", None):
            return list(feature.names)
        lists = [tags for tags in rows[column] if isinstance(tags, (list, tuple))]
        found = names_in((tag for tags in lists for tag in tags), self.task.name)
        return sorted(found, key=lambda tag: tag != "O")

    def tokenize(self, rows: Columns, tokenizer: Any, max_length: int, where: Where) -> dict[str, list[Any]]:
        """As texts; plain text is read too (for predictions), its words found by :func:`words_in`."""
        out, encodings = encode_texts(rows, self.task.inputs, tokenizer, max_length, where)
        if "word_positions" in out:
            return out
        out["word_spans"] = [words_in(value) for value in rows[self.task.inputs[0]]]
        out["word_positions"] = [
            _first_pieces(encoding.offsets, spans) for encoding, spans in zip(encodings, out["word_spans"], strict=True)
        ]
        return out

    def _misfitting(self, words: Sequence[Any], values: Sequence[Any]) -> list[tuple[int, str]]:
        """Rows whose tags are no list, or do not stand one for each word of a list."""
        mistakes = []
        for row, (sentence, tags) in enumerate(zip(words, values, strict=True)):
            if tags is None:
                continue
            if not isinstance(tags, (list, tuple)):
                mistakes.append((row, f"column {self.task.target!r} is a list of tags, found {shown(tags, most=40)}"))
            elif isinstance(sentence, str):
                found = shown(sentence, most=40)
                mistakes.append(
                    (row, f"column {self.task.inputs[0]!r} is a list of words where tags are, found {found}")
                )
            elif isinstance(sentence, (list, tuple)) and len(sentence) != len(tags):
                mistakes.append((row, f"{len(sentence)} words but {len(tags)} tags, and a tag for each word is needed"))
        return mistakes

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Lists of tag numbers, −1 for a word without a tag."""
        if self.labels is None or self.data_labels is None:
            raise DataError(f"{where}: the task has no labels")
        complain(where, self._misfitting(rows[self.task.inputs[0]], values))
        flat = [tag for tags in values for tag in (tags or [])]
        if self.task.labels is None and not names:
            flat = [tag if tag == -1 else name_of(tag) for tag in flat]
        owners = [row for row, tags in enumerate(values) for _ in (tags or [])]
        numbers = iter(class_numbers(flat, names, self.data_labels, where, rows=owners))
        index = {name: number for number, name in enumerate(self.labels)}
        encoded: list[list[int] | None] = []
        for tags in values:
            if tags is None:
                encoded.append(None)
                continue
            own = [next(numbers) for _ in tags]
            if self.scheme in ("iob2", "none"):
                encoded.append([-1 if number is None else number for number in own])
            else:
                named = to_iob2(["O" if n is None else self.data_labels[n] for n in own], self.scheme)
                encoded.append([-1 if n is None else index[tag] for n, tag in zip(own, named, strict=True)])
            if own and all(number is None for number in own):
                encoded[-1] = None
        return encoded

    def begin(self, module: nn.Module, labels: Sequence[Any], *, fresh: bool) -> None:
        """Take the tags' weights."""
        if self.class_weights is None:
            return
        known = [number for tags in labels for number in (tags or []) if number >= 0]
        if known:
            counts = np.bincount(known, minlength=len(self.labels or []))
            self.record(class_weights=self.class_weights.learn(counts, self.labels or []))

    def build_own(self, encoder: nn.Module, seed: int) -> nn.Module:
        """For encoder–decoder families without the class (BART): one linear layer on the states; not exportable."""
        if not has_own_decoder(encoder):
            return super().build_own(encoder, seed)
        self.exportable, self.why_not = False, why_own(encoder, self.auto_class)
        outputs = self.config_changes()["num_labels"]
        return own_linear(encoder, outputs, name=self.task.head_key, seed=seed, by_token=True)

    def collate(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """`positions` [words]: the first piece of every word read; `counts` [rows]; `labels` [words], −1 if none."""
        positions, labels, counts = [], [], []
        for row in rows:
            places = np.asarray(row.columns["word_positions"])
            seen = places >= 0
            positions.append(row.starts[0] + places[seen])
            counts.append(int(seen.sum()))
            if row.label is not None:
                labels.append(np.asarray(row.label)[seen])
        target = {
            "positions": torch.from_numpy(np.concatenate(positions)).long(),
            "counts": torch.tensor(counts),
        }
        if len(labels) == len(rows):
            target["labels"] = torch.from_numpy(np.concatenate(labels)).long()
        return target

    def units(self, target: Mapping[str, Tensor]) -> int:
        """Tagged words."""
        return int((target["labels"] >= 0).sum()) if "labels" in target else 0

    def reads(self, module: nn.Module, layout: Layout, target: Mapping[str, Tensor]) -> Tensor:
        """The first piece of each word."""
        return target["positions"]

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[words, labels]."""
        positions = target["positions"]  # none, where the tokenizer drops every letter; poolers look at a first state
        states = few_shapes(packed.hidden[positions if len(positions) else slice(1)])[None]
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        return module(input_ids=ids, inputs_embeds=states).logits[0, : len(positions)]

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of cross entropies over tagged words, each times its tag's weight."""
        weights = self.class_weights.table(self.labels or [], logits) if self.class_weights else None
        return functional.cross_entropy(
            logits.float(), target["labels"], weight=weights, ignore_index=-1, reduction="sum"
        )

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row [words read, 2]: the tag's number and its probability."""
        best = logits.detach().float().softmax(-1).max(-1)
        both = torch.stack([best.indices.float(), best.values], -1).cpu()
        return [part.numpy() for part in both.split(target["counts"].tolist())]

    def tags(self, prediction: np.ndarray, positions: Sequence[int]) -> list[str]:
        """The tag of every word; words that were cut get O, or the first label."""
        names = self.labels or []
        default = "O" if "O" in names else names[0]
        found = iter(prediction[:, 0].astype(int).tolist())
        return [names[next(found)] if place >= 0 else default for place in positions]

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[list[str]]:
        """Tags of every word; words whose reference is missing are left out in both."""
        return [self.tags(p, places) for p, places in zip(predictions, rows["word_positions"], strict=True)]

    def references(self, labels: Sequence[Any], rows: Any) -> list[list[str]]:
        """Tag names of every word."""
        names = self.labels or []
        return [[names[number] if number >= 0 else "" for number in tags] for tags in labels]

    def score(
        self, decoded: Sequence[Any], references: Sequence[Any], given: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """The metrics over words that have a reference."""
        pairs = [
            [(d, r) for d, r in zip(tags, gold, strict=True) if r != ""]
            for tags, gold in zip(decoded, references, strict=True)
        ]
        return super().score([[d for d, _ in row] for row in pairs], [[r for _, r in row] for row in pairs], given)

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """Entities with offsets (characters of a text, words of a list), or every word's tag if tags mark no spans."""
        tags = self.tags(prediction, row["word_positions"])
        given, places = row[self.task.inputs[0]], row.get("word_spans")
        texts = [given[a:b] for a, b in places] if places is not None else list(given)
        if self.scheme == "none":
            return {"tags": [{"word": word, "tag": tag} for word, tag in zip(texts, tags, strict=True)]}
        sure = iter(prediction[:, 1].tolist())
        scores = [next(sure) if place >= 0 else 0.0 for place in row["word_positions"]]
        entities = []
        for kind, first, after in spans_of(tags):
            if places is not None:
                start, end = places[first][0], places[after - 1][1]
                shown = given[start:end]
            else:
                start, end, shown = first, after, " ".join(texts[first:after])
            score = round(math.fsum(scores[first:after]) / (after - first), 6)
            entities.append({"type": kind, "text": shown, "start": start, "end": end, "score": score})
        return {"entities": entities}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Each word's, or for spans each entity's, most frequent tag in the training rows, looked up word for word."""
        column = self.task.inputs[0]
        train = [
            (words, tags)
            for words, tags in zip(
                train_rows[column][:], self.references([t or [] for t in train_labels], None), strict=True
            )
            if tags
        ]
        if self.scheme == "none":
            return _lookup_words(train, rows[column][:])  # all at once: `datasets` is slow row by row
        return _lookup_spans(train, rows[column][:])


def _first_pieces(pieces: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the first piece that reaches into each word (both in order of the text), −1 if the word was cut."""
    found, number = [], 0
    for start, end in words:
        while number < len(pieces) and pieces[number][1] <= start:
            number += 1
        hit = number < len(pieces) and pieces[number][0] < end and pieces[number][1] > pieces[number][0]
        found.append(number if hit else -1)
    return found


def _lookup_words(
    train: Sequence[tuple[Sequence[str], Sequence[str]]], sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    every: Counter[str] = Counter()
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            seen[word][tag] += 1
            every[tag] += 1
    usual = every.most_common(1)[0][0] if every else "O"
    return [[seen[word].most_common(1)[0][0] if word in seen else usual for word in words] for words in sentences]


def _lookup_spans(
    train: Sequence[tuple[Sequence[str], Sequence[str]]], sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Mark every stretch of words that was an entity in training, longest first."""
    lexicon: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, tags in train:
        for kind, first, after in spans_of(tags):
            lexicon[tuple(words[first:after])][kind] += 1
    longest = max((len(entry) for entry in lexicon), default=0)
    tagged = []
    for words in sentences:
        tags, place = ["O"] * len(words), 0
        while place < len(words):
            for length in range(min(longest, len(words) - place), 0, -1):
                found = lexicon.get(tuple(words[place : place + length]))
                if found:
                    kind = found.most_common(1)[0][0]
                    tags[place : place + length] = [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
                    place += length - 1
                    break
            place += 1
        tagged.append(tags)
    return tagged
