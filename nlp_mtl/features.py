"""Features of a frozen encoder, computed once for each text and kept: what heads are then trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError
from nlp_mtl.layout import Layout

logger = logging.getLogger("nlp_mtl")
Encode = Callable[[nn.Module, Mapping[str, Tensor], Layout, Any, Collection[int]], dict[int, Tensor]]


@dataclass
class _Rows:
    """Hidden states of one depth, one after the other; it grows by doubling."""

    states: Tensor
    used: int = 0

    def add(self, more: Tensor) -> int:
        """Append [tokens, hidden]; gives where they begin."""
        start, self.used = self.used, self.used + len(more)
        if self.used > len(self.states):
            grown = self.states.new_empty(max(2 * len(self.states), self.used, 1024), self.states.shape[1])
            grown[:start] = self.states[:start]
            self.states = grown
        self.states[start : self.used] = more
        return start


@dataclass
class FeatureCache:
    """What a frozen encoder gives for each text, at the tokens that heads read.

    A text is known by its tokens and by those of them that are read, so one that comes again in another epoch, for
    another task that reads it alike or in an evaluation is not computed again. The encoder is in eval mode, as every
    frozen one, so the numbers are those of a frozen encoder. What does not fit into `most` bytes is computed each time.

    Args:
        encode: what computes hidden states at depths: :func:`nlp_mtl.packing.encode_at`.
        most: bytes to keep; default half of the memory that is free when the first text comes.

    Relations: training a head on fixed features is the feature extraction of Peters et al. (2019, arXiv 1903.05987) and
    the probes of Liu et al. (2019, arXiv 1903.08855); this makes all epochs but the first cost a head's step.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte"], freeze="*")
        >>> model.sharing.keep_features()
        >>> model.sharing.cache.texts
        0
    """

    encode: Encode
    most: int | None = None
    _known: dict[bytes, dict[int, int]] = field(default_factory=dict, repr=False)
    _rows: dict[int, _Rows] = field(default_factory=dict, repr=False)
    _full: bool = False

    @property
    def texts(self) -> int:
        """How many texts are known; one that is read at other tokens too counts again."""
        return len(self._known)

    @property
    def size(self) -> int:
        """What the kept states take, in bytes."""
        return sum(rows.states.numel() * rows.states.element_size() for rows in self._rows.values())

    def __call__(
        self, encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, way: Any, depths: Collection[int]
    ) -> dict[int, Tensor]:
        """Hidden states [tokens, hidden] by depth, those of tokens that are not read 0; as `encode`."""
        if layout.read is None or "input_ids" not in inputs or set(inputs) - {"input_ids", "token_type_ids"}:
            return self.encode(encoder, inputs, layout, way, depths)
        read = layout.read.cpu().numpy()
        marks = _cut(read, layout)
        keys = _keys(inputs, layout, marks)
        missing = [n for n, key in enumerate(keys) if not self._known.get(key, {}).keys() >= set(depths)]
        if missing and (self._full or len(missing) == len(keys)):
            found = self.encode(encoder, inputs, layout, way, depths)
            self._keep(found, keys, marks, layout.read)
            return found
        if missing:
            self._compute(encoder, inputs, layout, way, depths, missing, keys, marks)
            if self._full:
                return self.encode(encoder, inputs, layout, way, depths)
        places = layout.read.nonzero().squeeze(1)
        counts = np.add.reduceat(read.astype(np.int64), layout.offsets[:-1])
        found = {}
        for depth in depths:
            starts = np.array([self._known[key][depth] for key in keys])
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            rows = self._rows[depth].states
            source = torch.from_numpy(np.repeat(starts, counts) + within).to(rows.device)
            empty = rows.new_zeros(layout.tokens, rows.shape[1])
            found[depth] = empty.index_copy_(0, places, rows.index_select(0, source))
        return found

    def _compute(
        self,
        encoder: nn.Module,
        inputs: Mapping[str, Tensor],
        layout: Layout,
        way: Any,
        depths: Collection[int],
        missing: list[int],
        keys: list[bytes],
        marks: list[bytes],
    ) -> None:
        """Encode some of the sequences, and keep them."""
        assert layout.read is not None
        part = Layout([layout.lengths[number] for number in missing], layout.device)
        tokens = torch.cat([torch.arange(layout.offsets[n], layout.offsets[n + 1]) for n in missing]).to(layout.device)
        part.read = layout.read[tokens]
        found = self.encode(encoder, {name: x[tokens] for name, x in inputs.items()}, part, way, depths)
        self._keep(found, [keys[n] for n in missing], [marks[n] for n in missing], part.read)

    def _keep(self, found: Mapping[int, Tensor], keys: list[bytes], marks: list[bytes], read: Tensor) -> None:
        if self._full:
            return
        if self.most is None:
            self.most = psutil.virtual_memory().available // 2
        states = {depth: hidden.detach()[read] for depth, hidden in found.items()}
        if self.size + sum(part.numel() * part.element_size() for part in states.values()) > self.most:
            self._full = True
            logger.warning(
                "cache_features: the features of %d texts take %d MB, and more are not kept: the rest is computed each "
                "time; use fewer rows, or a head that reads one token",
                self.texts,
                self.size >> 20,
            )
            return
        counts = [np.frombuffer(mark, dtype=bool).sum() for mark in marks]
        ends = np.cumsum(counts)
        for depth, part in states.items():
            rows = self._rows.setdefault(depth, _Rows(part.new_empty(0, part.shape[1])))
            begin = rows.add(part)
            for key, start in zip(keys, begin + ends - counts, strict=True):
                self._known.setdefault(key, {})[depth] = int(start)


def _keys(inputs: Mapping[str, Tensor], layout: Layout, marks: list[bytes]) -> list[bytes]:
    """A text's tokens, of which segment each is, and which of them are read."""
    parts = [_cut(inputs[name].cpu().numpy(), layout) for name in sorted(inputs)]
    return [b"".join(each) for each in zip(*parts, marks, strict=True)]


def _cut(values: np.ndarray, layout: Layout) -> list[bytes]:
    """The bytes of each sequence."""
    whole, size = values.tobytes(), values.itemsize
    return [whole[size * a : size * b] for a, b in zip(layout.offsets, layout.offsets[1:], strict=False)]


def check_frozen(frozen: bool, changing: Collection[str]) -> None:
    """Refuse to keep features that are not the same each time.

    Args:
        frozen: whether nothing of the encoder is trained.
        changing: tasks whose texts are changed at random.

    Raises:
        ConfigError: with the way out.
    """
    if not frozen:
        raise ConfigError(
            "cache_features: keeps what a frozen encoder gives, and this run trains parts of it; add freeze: '*' "
            "(without `lora`, `task_lora`), or leave cache_features out"
        )
    if changing:
        raise ConfigError(
            f"cache_features: {', '.join(changing)} reads its texts with other words hidden each time; leave the task "
            "or cache_features out"
        )
