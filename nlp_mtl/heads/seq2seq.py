"""Text from text: translation, summaries, and classification in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError, UnsupportedError, shown
from nlp_mtl.heads import decoders, generating, targets
from nlp_mtl.heads.base import PlacedRow
from nlp_mtl.heads.decoded import Decoded, padded_states
from nlp_mtl.heads.pooled import softmax
from nlp_mtl.heads.targetside import TargetSide
from nlp_mtl.heads.texts import is_text
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task

_LONGEST = 65_536  # tokens of a target: a decoder that is new has as many position embeddings


@heads.register("seq2seq")
class Seq2Seq(TargetSide):
    """Text from text: a decoder that reads the shared encoder's states and writes.

    The decoder and its output layer belong to the head: those of the encoder's own checkpoint (T5, BART), another
    pretrained model with new cross-attention, or a new one. The module is the vanilla `…ForConditionalGeneration` or
    `EncoderDecoderModel` without its encoder. Trained with the true words before each (teacher forcing); the loss is
    summed over the target's tokens, its end included. Texts are written by `generate` of `transformers`.

    A task that lists `labels` is classification in words: the target is the label's text, and the answer is the label
    whose text is likeliest after the input, ``argmax_l Σ_t log p(l_t | l_<t, input)`` with the end token included, so
    that every answer is a label. Metrics and answers are then those of classification.

    Tasks of several kinds may share a decoder by `head_of`: each keeps its own labels, their texts, lengths and
    `generation`; what it does not say is the owner's.

    Args:
        task: the task; its target is a text, or a label where `labels` are listed.
        decoder: a model's name or folder; ``{layers: 3}`` for a new BERT decoder of the encoder's width (also `heads`,
            `intermediate_size`, `dropout`). Left out: the checkpoint's own; for an encoder without one, a new one.
        target_tokenizer: ``{vocab_size: 8000}``, trained on the training split's targets; or a folder with one. Left
            out: the decoder's own.
        max_target_length: tokens of a target, and of what is written where `generation` sets no limit. Of longer
            targets the first are learned, without an end; they are counted.
        generation: fields of `transformers.GenerationConfig`, e.g. ``{num_beams: 4, length_penalty: 1.0}``.
        label_smoothing: share of each label's weight that is spread over the vocabulary, in the loss.
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
    reads_template = True
    for_model = ("decoder", "generation", "label_smoothing")
    by_labels = False
    writes = True
    own_when_lent = ("max_target_length", "generation", "label_smoothing", "label_texts")
    about_labels = ("label_texts",)

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
        if not isinstance(max_target_length, int) or not 2 <= max_target_length <= _LONGEST:
            wrong.append(
                f"{whose}: `max_target_length` is a whole number from 2 to {_LONGEST}, found {shown(max_target_length)}"
            )
        if not 0 <= label_smoothing < 1:
            wrong.append(f"{whose}: `label_smoothing` is from 0 to under 1, found {label_smoothing}; leave it out")
        if task.target is None:
            wrong.append(f"{whose}: seq2seq learns to write a text, found no `target`; name the column it stands in")
        if label_texts is not None:
            wrong += _wrong_texts(label_texts, task, whose)
        elif blank := [label for label in task.labels or [] if not label.strip()]:
            wrong.append(f"{whose}: the label {blank[0]!r} is no text to write; give all labels one in `label_texts`")
        if wrong:
            raise ConfigError(wrong)
        self.decoder, self.target_tokenizer, self.most = decoder, target_tokenizer, max_target_length
        self.smoothing = float(label_smoothing)
        self.texts = None
        if task.labels is not None:
            self.texts = list(label_texts or task.labels)
            self.gives_scores = True  # type: ignore[misc]
            self.metrics = list(task.metrics or ("accuracy",))

    # ------------------------------------------------------------------------------------------------------------ data

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
            decoders.check_fits(made, whose, self.most, self.generation)
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
            most=max(self.most, *(int(self.generation.get(name) or 0) for name in ("max_new_tokens", "max_length"))),
            keeps_vocabulary=self.target_tokenizer is None,
            before=before,
        )
        decoders.check_fits(made, whose, self.most, self.generation)
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
        parts = [generating.summed_loss(some, wanted, self.smoothing) for some, wanted in logits.parts]
        return torch.stack(parts).sum()

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

    def _numbers(self, train_labels: Sequence[Any]) -> list[int]:
        """Class numbers of training labels; those of a lender may be other texts, which are left out."""
        mine = {tuple(ids) for ids in self._label_ids or []}
        return self.references([ids for ids in train_labels if ids is not None and tuple(ids) in mine], None)

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
        known = self._numbers(train_labels)
        counts = np.bincount(known, minlength=len(self.task.labels or []))
        return np.tile(counts / max(1, counts.sum()), (rows, 1))

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """The input itself, no more words than the longest training target has; or the most frequent label."""
        if self._label_ids is not None:
            known = self._numbers(train_labels)
            return [Counter(known).most_common(1)[0][0] if known else 0] * len(labels)
        column = f"target:{self.task.name}"
        names = train_rows if isinstance(train_rows, Mapping) else train_rows.column_names
        seen = [text for text in (train_rows[column][:] if column in names else []) if text]
        most = max((len(text.split()) for text in seen), default=self.most)
        values = zip(*(rows[name][:] for name in self.task.inputs), strict=True)
        return [" ".join(_first_words(parts, most)) for parts in values]


def _first_words(parts: Sequence[Any], most: int) -> list[str]:
    words: list[str] = []
    for part in parts:
        words += [str(word) for word in part] if isinstance(part, (list, tuple)) else str(part or "").split()
    return words[:most]


def _wrong_texts(said: Any, task: Task, whose: str) -> list[str]:
    if task.labels is None:
        return [f"{whose}: `label_texts` stand for the task's `labels`, found none; list them"]
    if (
        not isinstance(said, (list, tuple))
        or len(said) != len(task.labels)
        or not all(is_text(text) and text.strip() for text in said)
    ):
        return [f"{whose}: `label_texts` is a list of {len(task.labels)} texts, one per label, found {shown(said)}"]
    return []
