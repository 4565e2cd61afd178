"""Text from text: translation, summaries, and classification in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl import bases
from nlp_mtl.errors import ConfigError, UnsupportedError, shown
from nlp_mtl.heads import decoders, generating, targets
from nlp_mtl.heads.base import Columns, Head, PlacedRow
from nlp_mtl.heads.labels import Where, class_numbers, complain
from nlp_mtl.heads.pooled import softmax
from nlp_mtl.heads.texts import is_text
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task

FOLDER = "_decoders"  # no task is called so: adapters of tasks have folders of their names


@dataclass
class Decoded:
    """What a decoder made of a batch's rows: in training its logits, where nothing is learned what it writes.

    Attributes:
        parts: rows of similar length together: the logits [rows, length, vocabulary] of each label from the true labels
            before it, and the labels [rows, length].
        order: the numbers of the parts' rows.
        loss: the summed loss, where the logits were not kept.
        tokens: what was written, for each row.
        scores: [rows, labels], log-likelihoods of the label texts.
    """

    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    order: list[Tensor] = field(default_factory=list)
    loss: Tensor | None = None
    tokens: list[list[int]] | None = None
    scores: Tensor | None = None

    def logits(self) -> Tensor:
        """[label tokens, vocabulary], row after row."""
        rows: dict[int, Tensor] = {}
        for (logits, labels), numbers in zip(self.parts, self.order, strict=True):
            for number, some, wanted in zip(numbers.tolist(), logits, labels, strict=True):
                rows[number] = some[wanted != generating.IGNORED]
        return torch.cat([rows[number] for number in sorted(rows)])


@heads.register("seq2seq")
class Seq2Seq(Head):
    """Text from text: a decoder that reads the shared encoder's states and writes.

    The decoder and its output layer belong to the head: those of the encoder's own checkpoint (T5, BART), another
    pretrained model with new cross-attention, or a new one. The module is the vanilla `…ForConditionalGeneration` or
    `EncoderDecoderModel` without its encoder. Trained with the true words before each (teacher forcing); the loss is
    summed over the target's tokens, its end included. Texts are written by `generate` of `transformers`.

    A task that lists `labels` is classification in words: the target is the label's text, and the answer is the label
    whose text is likeliest after the input, ``argmax_l Σ_t log p(l_t | l_<t, input)`` with the end token included, so
    that every answer is a label. Metrics and answers are then those of classification.

    Args:
        task: the task; its target is a text, or a label where `labels` are listed.
        decoder: a model's name or folder; ``{layers: 3}`` for a new BERT decoder of the encoder's width (also `heads`,
            `intermediate_size`, `dropout`). Left out: the checkpoint's own; for an encoder without one, a new one.
        target_tokenizer: ``{vocab_size: 8000}``, trained on the training split's targets; or a folder with one. Left
            out: the decoder's own.
        max_target_length: tokens of a target, and of what is written where `generation` sets no limit. Of longer
            targets the first are learned, without an end; they are counted.
        generation: fields of `transformers.GenerationConfig`, e.g. ``{num_beams: 4, length_penalty: 1.0}``.
        label_smoothing: share of each label's weight that is spread over the vocabulary, in training.
        label_texts: what stands for each of the task's labels, in their order; left out, their names.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["multi30k_en_de"], "t5")
        >>> type(model.module_of("multi30k_en_de")).__name__
        'T5ForConditionalGeneration'
    """

    auto_class = "AutoModelForSeq2SeqLM"
    default_metrics = ("bleu", "chrf")
    paper = "Sutskever, Vinyals and Le, 2014, arXiv:1409.3215; T5: Raffel et al., 2020, arXiv:1910.10683"
    label_is_list = True
    keeps_target = True
    reads_template = True
    for_model = ("decoder", "generation", "label_smoothing")

    def __init__(
        self,
        task: Task,
        decoder: Any = None,
        target_tokenizer: Any = None,
        max_target_length: int = 128,
        generation: Any = None,
        label_smoothing: float = 0.0,
        label_texts: Any = None,
    ):
        super().__init__(task)
        whose = f"task {task.name!r}"
        wrong: list[str] = []
        for check, said in ((decoders.checked_decoder, decoder), (targets.checked_target_tokenizer, target_tokenizer)):
            try:
                check(said, whose)
            except ConfigError as error:
                wrong += error.mistakes
        self.generation: dict[str, Any] = {}
        try:
            self.generation = generating.checked_generation(generation, whose)
        except ConfigError as error:
            wrong += error.mistakes
        if not isinstance(max_target_length, int) or max_target_length < 2:
            wrong.append(f"{whose}: `max_target_length` is a whole number from 2, found {shown(max_target_length)}")
        if not 0 <= label_smoothing < 1:
            wrong.append(f"{whose}: `label_smoothing` is from 0 to under 1, found {label_smoothing}; leave it out")
        if task.target is None:
            wrong.append(f"{whose}: seq2seq learns to write a text, found no `target`; name the column it stands in")
        if label_texts is not None:
            wrong += _wrong_texts(label_texts, task, whose)
        if wrong:
            raise ConfigError(wrong)
        self.decoder, self.target_tokenizer, self.most = decoder, target_tokenizer, max_target_length
        self.smoothing = float(label_smoothing)
        self.texts: list[str] | None = None  # of the labels
        if task.labels is not None:
            self.texts = list(label_texts or task.labels)
            self.gives_scores = True  # type: ignore[misc]
            self.metrics = list(task.metrics or ("accuracy",))
        self.tokenizer: Any = None
        self._source: Any = None  # the encoder's tokenizer
        self._found: Path | None = None  # the pretrained decoder
        self._built: decoders.Built | None = None
        self._label_ids: list[list[int]] | None = None

    # ------------------------------------------------------------------------------------------------------ tokenizers

    def meet(self, tokenizer: Any, *, data_root: Any = None, texts: Sequence[Any] | None = None) -> None:
        """Find the decoder and the tokenizer of the targets; see :meth:`Head.meet`."""
        if self.tokenizer is not None:
            return
        self._source = tokenizer
        whose = f"task {self.task.name!r}"
        if isinstance(self.decoder, str):
            found = bases.find_base(self.decoder)
            self._found = found.folder
            self.record(decoder=found.id)  # never a path
        if isinstance(self.target_tokenizer, Mapping):
            size = int(self.target_tokenizer["vocab_size"])
            made = targets.trained_on(self.task, size, data_root, texts)
        elif isinstance(self.target_tokenizer, str):
            made = targets.tokenizer_named(self.target_tokenizer, whose)
            self.record(target_tokenizer=Path(self.target_tokenizer).name)
        else:
            made = tokenizer if self._found is None else targets.read_tokenizer(self._found)
        self._take(made)

    def _take(self, tokenizer: Any) -> None:
        whose = f"task {self.task.name!r}"
        if targets.end_of(tokenizer) is None:
            raise ConfigError(
                f"{whose}: its targets need a tokenizer with a token that ends a text (eos or sep), found none; say "
                "`target_tokenizer: {vocab_size: 8000}`"
            )
        self.tokenizer = tokenizer
        if self.texts is None:
            return
        self._label_ids = targets.token_ids(self.texts, tokenizer, self.most)
        doubled = [t for t, ids in zip(self.texts, self._label_ids, strict=True) if self._label_ids.count(ids) > 1]
        if doubled:
            raise ConfigError(
                f"{whose}: its label texts {', '.join(map(repr, doubled[:4]))} are the same tokens; give others with "
                "`label_texts`, or raise `max_target_length`"
            )

    def borrow(self, owner: Head) -> None:
        """Read targets with the tokenizer of the task whose decoder this one uses."""
        if isinstance(owner, Seq2Seq) and owner.tokenizer is not None:
            self._source, self._found = owner._source, owner._found
            self._take(owner.tokenizer)

    @property
    def own_tokenizer(self) -> bool:
        """Whether the targets have another tokenizer than the encoder's texts."""
        return self.tokenizer is not None and self.tokenizer is not self._source

    def data_spec(self) -> dict[str, Any]:
        """As other heads', and what the targets' tokenizer is."""
        more = {} if self.tokenizer is None else {"targets": targets.signature(self.tokenizer)}
        return {**super().data_spec(), **more}

    def save_files(self, folder: Path) -> None:
        """Write what builds the decoder again, and the targets' tokenizer, into ``_decoders/<task>/``."""
        if self._built is None or self.task.head_key != self.task.name:
            return
        place = folder / FOLDER / self.task.head_key
        place.mkdir(parents=True, exist_ok=True)
        (place / "decoder.json").write_text(json.dumps(self._built.said(), indent=1), encoding="utf-8")
        if self.own_tokenizer:
            self.tokenizer.save_pretrained(place)

    def load_files(self, folder: Path, tokenizer: Any) -> None:
        """Read what :meth:`save_files` of the head's owner wrote."""
        place = folder / FOLDER / self.task.head_key
        said = json.loads((place / "decoder.json").read_text(encoding="utf-8"))
        self._built, self._source = decoders.Built(**said), tokenizer
        self._take(targets.read_tokenizer(place) if (place / "tokenizer.json").is_file() else tokenizer)

    # ------------------------------------------------------------------------------------------------------------ data

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Token ids of the targets, their end included where they were not cut."""
        if self.tokenizer is None:
            raise ConfigError(f"{where}: the head has met no tokenizer; load the rows with load_data")
        if self._label_ids is not None:
            numbers = class_numbers(values, names, self.task.labels or [], where)
            return [None if number is None else self._label_ids[number] for number in numbers]
        mistakes = []
        for row, value in enumerate(values):
            if value is None:
                continue
            if not is_text(value):
                way = "; list `labels` to answer with one of them" if isinstance(value, (int, float)) else ""
                said = f"target {self.task.target!r} is not text, found {str(value)[:40]!r}{way}"
                mistakes.append((row, said))
            elif not value.strip():
                mistakes.append((row, f"target {self.task.target!r} holds no text"))
        complain(where, mistakes)
        known = [place for place, value in enumerate(values) if value is not None]
        found: list[Any] = [None] * len(values)
        made = targets.token_ids([values[place] for place in known], self.tokenizer, self.most)
        for place, ids in zip(known, made, strict=True):
            found[place] = ids
        return found

    def cut_labels(self, labels: Sequence[Any]) -> int:
        """How many targets were longer than `max_target_length`."""
        end = targets.end_of(self.tokenizer)
        return sum(ids is not None and ids[-1] != end for ids in labels)

    def _labels_of(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        if any(row.label is None for row in rows):
            return {}
        labels = [torch.from_numpy(np.array(row.label, dtype=np.int64)) for row in rows]
        return {"labels": nn.utils.rnn.pad_sequence(labels, True, generating.IGNORED)}

    def units(self, target: Mapping[str, Tensor]) -> int:
        """Tokens of the targets."""
        return int((target["labels"] != generating.IGNORED).sum()) if "labels" in target else 0

    # ----------------------------------------------------------------------------------------------------------- model

    def config_changes(self) -> dict[str, Any]:
        """Nothing: the vocabulary is the tokenizer's."""
        return {}

    def build(self, encoder: nn.Module, *, source: Any = None, seed: int = 0) -> nn.Module:
        """The vanilla class without its encoder; see :mod:`nlp_mtl.heads.decoders`."""
        base: Any = base_of(encoder)
        kind, whose = base.config.model_type, f"task {self.task.name!r}"
        before = self._built
        if getattr(base.config, "is_encoder_decoder", False):
            if said := [key for key in ("decoder", "target_tokenizer") if getattr(self, key) is not None]:
                raise ConfigError(
                    f"{whose}: {kind} has a decoder and a vocabulary of its own, found `{'` and `'.join(said)}`; leave "
                    "it out, or choose an encoder such as BERT"
                )
            made, self._built = decoders.whole_family(
                encoder, source=source, name=self.task.head_key, seed=seed, before=before
            )
            return made
        if base.main_input_name != "input_ids" or any(getattr(part, "is_causal", False) for part in base.modules()):
            raise UnsupportedError(
                f"{whose}: seq2seq needs an encoder whose tokens see the whole text (BERT, RoBERTa, T5, BART, …); "
                f"{kind!r} is not one; choose another `model`, or leave the task out"
            )
        made, self._built = decoders.own_decoder(
            encoder,
            self.tokenizer,
            self.decoder,
            folder=self._found,
            name=self.task.head_key,
            seed=seed,
            most=self.most,
            keeps_vocabulary=self.target_tokenizer is None,
            before=before,
        )
        return made

    def forward(self, module: Any, packed: Packed, target: Mapping[str, Tensor]) -> Decoded:  # type: ignore[override]
        """Logits while something may be learned, else what is written, and the loss where there are labels."""
        states, mask = padded_states(packed, target["sequences"])
        labels = target.get("labels")
        found = Decoded()
        if torch.is_grad_enabled() or (module.training and labels is not None):
            if labels is not None:
                for rows in generating.by_length(labels):
                    own, seen, wanted = generating.trimmed(rows, states, mask, labels)
                    found.parts.append((generating.teacher_forced(module, own, seen, wanted), wanted))
                    found.order.append(rows)
            return found
        if labels is not None:
            found.loss = generating.loss_by_parts(module, states, mask, labels, self.smoothing)
        # Writing in float32: under autocast every step would cast all weights again.
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(next(module.parameters()).dtype)
            if self._label_ids is not None:
                found.scores = generating.log_likelihoods(module, states, mask, self._label_ids)
            else:
                config = generating.generation_config(module, self.generation, self.most)
                found.tokens = generating.written(module, states, mask, config)
        return found

    def loss(self, logits: Any, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of cross entropies over the targets' tokens."""
        if logits.loss is not None:
            return logits.loss
        return torch.stack([generating.summed_loss(*part, self.smoothing) for part in logits.parts]).sum()

    # -------------------------------------------------------------------------------------------------------- decoding

    def predict(self, logits: Any, target: Mapping[str, Tensor]) -> list[Any]:
        """Per row the tokens written, or the log-likelihoods of the labels."""
        if logits.scores is not None:
            return list(logits.scores.float().cpu().numpy())
        if logits.tokens is None:
            raise UnsupportedError(
                f"task {self.task.name!r}: texts are written under torch.no_grad(), by a model in eval mode"
            )
        return [np.asarray(ids, dtype=np.int32) for ids in logits.tokens]

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """Texts; where `labels` are listed, class numbers."""
        if self._label_ids is not None:
            return [int(np.argmax(scores)) for scores in predictions]
        return [self.tokenizer.decode(ids.tolist(), skip_special_tokens=True).strip() for ids in predictions]

    def references(self, labels: Sequence[Any], rows: Any) -> list[Any]:
        """A list of the one true text; where `labels` are listed, class numbers."""
        if self._label_ids is not None:
            numbers = {tuple(ids): number for number, ids in enumerate(self._label_ids)}
            return [numbers[tuple(ids)] for ids in labels]
        return [[text] for text in rows[f"target:{self.task.name}"][:]]

    def in_words(self, decoded: Any) -> Any:
        """The text; the label's name."""
        return (self.task.labels or [])[decoded] if self._label_ids is not None else decoded

    def answer(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, Any]:
        """``{"text": …}``; where `labels` are listed, the label and the labels' shares of the probability."""
        if self._label_ids is None:
            return {"text": self.decode([prediction], None)[0]}
        shares = softmax(np.asarray(prediction, dtype=np.float64)).round(6).tolist()
        scores = dict(zip(self.task.labels or [], shares, strict=True))
        label = self.in_words(self.decode([prediction], None)[0])
        return {"label": label, "score": scores[label], "scores": scores}

    def scores(self, predictions: Sequence[Any]) -> np.ndarray:
        """[rows, labels]: the labels' shares of the probability that all of them have together."""
        return softmax(np.asarray(predictions, dtype=np.float64))

    def trivial_scores(self, train_labels: Sequence[Any], rows: int) -> np.ndarray:
        """[rows, labels]: each label's share of the training rows."""
        known = self.references([ids for ids in train_labels if ids is not None], None)
        counts = np.bincount(known, minlength=len(self.task.labels or []))
        return np.tile(counts / max(1, counts.sum()), (rows, 1))

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """The input itself, no more words than the longest training target has; or the most frequent label."""
        if self._label_ids is not None:
            known = self.references([ids for ids in train_labels if ids is not None], None)
            return [Counter(known).most_common(1)[0][0] if known else 0] * len(labels)
        column = f"target:{self.task.name}"
        names = train_rows if isinstance(train_rows, Mapping) else train_rows.column_names
        seen = [text for text in (train_rows[column][:] if column in names else []) if text]
        most = max((len(text.split()) for text in seen), default=self.most)
        values = zip(*(rows[name][:] for name in self.task.inputs), strict=True)
        return [" ".join(_first_words(parts, most)) for parts in values]


def padded_states(packed: Packed, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's states of some sequences, as decoders read them.

    Returns:
        [rows, length, hidden], zeros after each sequence; and [rows, length], 1 for tokens.
    """
    lengths = [packed.layout.lengths[i] for i in sequences.tolist()]
    device = packed.hidden.device
    mask = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
    states = packed.hidden.new_zeros(*mask.shape, packed.hidden.shape[-1])
    states[mask] = packed.hidden[packed.layout.tokens_of(sequences)]
    return states, mask.long()


def _first_words(parts: Sequence[Any], most: int) -> list[str]:
    words: list[str] = []
    for part in parts:
        words += [str(word) for word in part] if isinstance(part, (list, tuple)) else str(part or "").split()
    return words[:most]


def _wrong_texts(said: Any, task: Task, whose: str) -> list[str]:
    if task.labels is None:
        return [f"{whose}: `label_texts` stand for the task's `labels`, found none; list them"]
    if not isinstance(said, (list, tuple)) or len(said) != len(task.labels) or not all(map(is_text, said)):
        return [f"{whose}: `label_texts` is a list of {len(task.labels)} texts, one per label, found {shown(said)}"]
    return []
