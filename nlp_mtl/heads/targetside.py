"""The targets' side of a head that writes: their tokenizer, their tokens, and what a run folder keeps of both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nlp_mtl import bases
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads import decoders, targets
from nlp_mtl.heads.base import Columns, Head
from nlp_mtl.heads.labels import Where, class_numbers, complain
from nlp_mtl.heads.texts import is_text

logger = logging.getLogger("nlp_mtl")

FOLDER = "_decoders"  # no task is called so: adapters of tasks have folders of their names


class TargetSide(Head):
    """Base of heads whose targets are texts with a tokenizer of their own.

    Attributes:
        decoder, target_tokenizer, most, generation, texts: see :class:`nlp_mtl.heads.seq2seq.Seq2Seq`; `texts` are the
            labels'.
        tokenizer: of the targets; None before the head has met one.
    """

    label_is_list = True
    keeps_target = True
    decoder: Any
    target_tokenizer: Any
    most: int
    generation: dict[str, Any]
    texts: list[str] | None
    tokenizer: Any = None
    _source: Any = None  # the encoder's tokenizer
    _found: Path | None = None  # the pretrained decoder
    _built: decoders.Built | None = None
    _label_ids: list[list[int]] | None = None

    # ------------------------------------------------------------------------------------------------------ tokenizers

    def meet(self, tokenizer: Any, *, data_root: Any = None, texts: Sequence[Any] | None = None) -> None:
        """Find the decoder and the tokenizer of the targets; see :meth:`Head.meet`."""
        self._source = self._source or tokenizer
        if self.tokenizer is not None:
            return
        if self._built is not None:  # of a run folder, where nothing is looked for
            self._take(tokenizer)
            return
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
        if blurred := [
            text for text, ids in zip(self.texts or [], self._label_ids or [], strict=True) if made.unk_token_id in ids
        ]:
            logger.warning(
                "%s: the vocabulary lacks a part of the label text %r, which is learned as <unk>; another can be given "
                "in `label_texts`",
                whose,
                blurred[0],
            )

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

    def writes_like(self, other: Any) -> bool:
        """Whether both write with the same vocabulary."""
        return targets.signature(self.tokenizer) == targets.signature(other.tokenizer)

    def borrow(self, owner: Head) -> None:
        """Read targets with the tokenizer of the task whose decoder this one uses."""
        if isinstance(owner, TargetSide) and owner.tokenizer is not None:
            self._source, self._found = owner._source, owner._found
            self._take(owner.tokenizer)

    def lent(self, owner: Head, module: nn.Module) -> None:
        """As other heads, and what the decoder was made of; what it says itself must fit that one.

        Raises:
            ConfigError: lengths or tokens that the decoder does not have.
        """
        super().lent(owner, module)
        decoders.check_fits(module, f"task {self.task.name!r}", self.most, self.generation)
        self._built = owner._built if isinstance(owner, TargetSide) else None

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

    def load_files(self, folder: Path) -> None:
        """Read what :meth:`save_files` of the head's owner wrote; without a tokenizer among it, the encoder's is it."""
        place = folder / FOLDER / self.task.head_key
        self._built = decoders.Built(**json.loads((place / "decoder.json").read_text(encoding="utf-8")))
        if (place / "tokenizer.json").is_file():
            self._take(targets.read_tokenizer(place))

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
