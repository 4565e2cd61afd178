"""The encoder pass over a mixed batch: packed where the family can, else padded by length groups, else as it comes.

Packed: the tokens of all rows stand in one row without padding, positions restart with every sequence, and attention
(:mod:`nlp_mtl.attention`) stays within each. Whether a family can is found by trying two short sequences
(:func:`choose_way`), not from a list.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nlp_mtl import varlen
from nlp_mtl.attention import packed_attention
from nlp_mtl.depth import ALL, run_to
from nlp_mtl.kernels import building
from nlp_mtl.kernels.checking import check_kernels
from nlp_mtl.layers import bert_like, is_replaced, replace, restore
from nlp_mtl.layout import Layout, filled_up, group_lengths
from nlp_mtl.trimming import reading_of

IMPLEMENTATION = "nlp_mtl_packed"
_FAULTS = (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError)
Way = Literal["packed", "padded", "stacked"]

_in_packed_call: ContextVar[bool] = ContextVar("nlp_mtl_packed_call", default=False)


@dataclass
class Packed:
    """Hidden states of a mixed batch.

    Attributes:
        hidden: [tokens, hidden], the sequences one after the other, without padding.
        layout: where each sequence is.
        shared: by name, what several heads need of it and is computed once.
    """

    hidden: Tensor
    layout: Layout
    shared: dict[str, Tensor] = field(default_factory=dict)

    def firsts(self, sequences: Tensor) -> Tensor:
        """[…, hidden]: the first token of the given sequences."""
        return self.hidden[self.layout.firsts[sequences]]

    def lasts(self, sequences: Tensor) -> Tensor:
        """[…, hidden]: the last token of the given sequences."""
        return self.hidden[self.layout.lasts[sequences]]

    def means(self, sequences: Tensor) -> Tensor:
        """[…, hidden]: the mean over the tokens of the given sequences."""
        owner = torch.arange(len(self.layout.lengths), device=self.hidden.device).repeat_interleave(
            torch.tensor(self.layout.lengths, device=self.hidden.device)
        )
        sums = torch.zeros(len(self.layout.lengths), self.hidden.shape[-1], device=self.hidden.device)
        sums = sums.index_add(0, owner, self.hidden.float())
        lengths = torch.tensor(self.layout.lengths, device=self.hidden.device, dtype=torch.float32)
        return (sums / lengths[:, None])[sequences].to(self.hidden.dtype)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls: packed if a layout came along, else its own sdpa."""
    if packed_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise ValueError("packed attention knows no softcap, sinks or position bias")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    out = packed_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packed_layout,
        scale=scaling if scaling is not None else query.shape[-1] ** -0.5,
        dropout=dropout,
        causal=bool(causal),
        window=sliding_window,
    )
    return out[None], None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _in_packed_call.get() else sdpa_mask(*args, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)


@contextmanager
def _packed_call() -> Iterator[None]:
    token = _in_packed_call.set(True)
    try:
        yield
    finally:
        _in_packed_call.reset(token)


def base_of(encoder: nn.Module) -> PreTrainedModel:
    """The `transformers` model inside an encoder that may be wrapped by PEFT."""
    return encoder.get_base_model() if hasattr(encoder, "get_base_model") else encoder  # type: ignore[operator]


def choose_way(encoder: nn.Module) -> tuple[Way, str]:
    """How this encoder can take a mixed batch, found by trying.

    Returns:
        The way, and one sentence that says why, for the log.
    """
    base = base_of(encoder)
    if getattr(base, "main_input_name", "input_ids") != "input_ids":
        return "stacked", f"its input is {base.main_input_name}, not tokens"
    if not getattr(base, "_supports_attention_backend", False):
        return "padded", f"{base.config.model_type} has attention of its own that can't be replaced"
    before, on_cpu = base.config._attn_implementation, next(base.parameters()).device.type == "cpu"
    if on_cpu:
        check_kernels()
    kernels = f"; {building.state()}" if on_cpu else ""
    if torch.cuda.is_available():  # a model is made on the CPU and moved by the trainer
        kernels += f"; {varlen.state()}"
    try:
        base.set_attn_implementation(IMPLEMENTATION)
        difference = _probe(encoder)
    except _FAULTS as error:
        base.set_attn_implementation(before)
        return "padded", f"{base.config.model_type} can't run packed ({type(error).__name__}: {str(error)[:80]})"
    tolerance = 1e-4 if base.dtype == torch.float32 else 3e-2
    if not difference < tolerance:
        base.set_attn_implementation(before)
        return "padded", f"{base.config.model_type}: sequences packed together differ by {difference:.1g} from alone"
    why = f"sequences packed together equal the same sequences alone (largest difference {difference:.0e})"
    if layers := bert_like(base):
        replace(layers)
        try:
            if _probe(encoder) < tolerance and _probe(encoder, some=True) < tolerance:
                return "packed", f"{why}; the last layer computes what heads read{kernels}"
        except _FAULTS as error:
            why += f"; its layers can't be run by parts ({type(error).__name__}: {str(error)[:80]})"
        restore(layers)
    return "packed", why + kernels


@torch.no_grad()
def _probe(encoder: nn.Module, *, some: bool = False) -> float:
    """Largest difference, relative to the largest value, between two sequences packed together and each alone.

    With `some`, one token of the first sequence and several of the second are read, and only those are compared.
    """
    base = base_of(encoder)
    window = getattr(base.config, "sliding_window", None) or 0
    lengths = [5, 2 * window + 7 if 0 < window <= 128 else 9]
    vocabulary, device = base.config.vocab_size, next(base.parameters()).device
    low = min(5, vocabulary - 1)
    ids = (torch.arange(sum(lengths)) * 7919 % (vocabulary - low) + low).to(device)
    pad = getattr(base.config, "pad_token_id", None)
    ids[ids == pad] = low if low != pad else low - 1
    training = encoder.training
    encoder.eval()
    try:
        layout = Layout(lengths, device)
        if some:
            number = torch.arange(sum(lengths), device=device)
            layout.read = (number == 0) | ((number >= lengths[0]) & (number % 3 == 0))
        together = encode(encoder, {"input_ids": ids}, layout, "packed")
        alone = [
            encoder(input_ids=part[None], attention_mask=torch.ones_like(part[None])).last_hidden_state[0]
            for part in ids.split(lengths)
        ]
    finally:
        encoder.train(training)
    expected = torch.cat(alone)
    if layout.read is not None:
        together, expected = together[layout.read], expected[layout.read]
    return float((together - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def encode(encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, way: Way) -> Tensor:
    """Run the encoder once over all sequences.

    Args:
        encoder: a `transformers` base model, or a PeftModel around one.
        inputs: `input_ids` (and what else the tokenizer gives, e.g. `token_type_ids`), each [tokens], or
            `inputs_embeds` [tokens, hidden]; for the stacked way, whatever the encoder takes, each [rows, …].
        layout: where the sequences are.
        way: from :func:`choose_way`.

    Returns:
        [tokens, hidden], in the order of the inputs; 0 for tokens that `layout.read` leaves out and the encoder spares.
    """
    return encode_at(encoder, inputs, layout, way, (ALL,))[ALL]


def encode_at(
    encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, way: Way, depths: Collection[int]
) -> dict[int, Tensor]:
    """As :func:`encode`, for the hidden states after some numbers of layers; those above the deepest are not run.

    Args:
        encoder, inputs, layout, way: as there.
        depths: from 0, what the first layer reads; :data:`nlp_mtl.depth.ALL` for the encoder's output.
    """
    base = base_of(encoder)
    if way == "packed":
        extra = {"packed_layout": layout, **_no_cache(encoder)}
        trimmed = any(map(is_replaced, bert_like(base)))
        reading = reading_of(layout) if trimmed and ALL in depths else None
        if reading is not None:
            extra["packed_reading"] = reading
        places = {"position_ids": layout.position_ids + first_position(base)}
        given = {k: filled_up(v)[None] for k, v in (*inputs.items(), *places.items())}
        with _packed_call():
            found = {n: states[0] for n, states in run_to(lambda: encoder(**given, **extra), base, depths).items()}
        for depth, hidden in found.items():
            if reading is None or depth != ALL:
                found[depth] = hidden[: layout.tokens]
            else:
                zeros = hidden.new_zeros(layout.tokens, hidden.shape[-1])
                found[depth] = zeros.index_copy(0, reading.tokens, hidden)
        return found
    if way == "padded":
        return _encode_padded(encoder, inputs, layout, depths)
    found = run_to(lambda: encoder(**inputs), base, depths)
    return {
        n: hidden.flatten(0, -2) if hidden.dim() == 3 else hidden.flatten(2).transpose(1, 2).flatten(0, 1)
        for n, hidden in found.items()
    }


def _encode_padded(
    encoder: nn.Module, inputs: Mapping[str, Tensor], layout: Layout, depths: Collection[int]
) -> dict[int, Tensor]:
    """Length-grouped padding: few passes, each over sequences of similar length."""
    order = sorted(range(len(layout.lengths)), key=layout.lengths.__getitem__)
    ordered = [layout.lengths[i] for i in order]
    pad_id = getattr(base_of(encoder).config, "pad_token_id", None) or 0
    parts: dict[int, list[Tensor]] = {depth: [] for depth in depths}
    places: list[Tensor] = []
    for members in _merge_small(group_lengths(ordered), ordered):
        rows = [order[i] for i in members]
        length = layout.lengths[rows[-1]]
        within = torch.arange(length, device=layout.device)
        valid = within < torch.tensor([layout.lengths[i] for i in rows], device=layout.device)[:, None]
        place = layout.firsts[torch.tensor(rows, device=layout.device)][:, None] + within
        index = torch.where(valid, place, 0)
        padded = {
            name: torch.where(
                valid.view(*valid.shape, *[1] * (values.dim() - 1)),
                values[index],
                pad_id if name == "input_ids" else 0,
            )
            for name, values in inputs.items()
        }
        more = {"attention_mask": valid.long(), **_no_cache(encoder)}
        found = run_to(partial(encoder, **padded, **more), base_of(encoder), depths)
        places.append(place[valid])
        for depth, hidden in found.items():
            parts[depth].append(hidden[valid])
    back = torch.argsort(torch.cat(places))
    return {depth: torch.cat(hidden).index_select(0, back) for depth, hidden in parts.items()}


def _merge_small(groups: Sequence[range], ordered: Sequence[int], *, most: int = 4) -> list[range]:
    """At most `most` groups: a whole encoder pass per group costs more than attention alone."""
    cuts = list(groups)
    while len(cuts) > most:
        waste = [
            (len(cuts[i]) * (ordered[cuts[i + 1].stop - 1] - ordered[cuts[i].stop - 1]), i)
            for i in range(len(cuts) - 1)
        ]
        _, i = min(waste)
        cuts[i : i + 2] = [range(cuts[i].start, cuts[i + 1].stop)]
    return cuts


def _no_cache(encoder: nn.Module) -> dict[str, Any]:
    takes = inspect.signature(base_of(encoder).forward).parameters
    return {"use_cache": False} if "use_cache" in takes else {}


def first_position(base: PreTrainedModel) -> int:
    """RoBERTa counts positions from padding_idx + 1; others from 0."""
    embeddings = getattr(base, "embeddings", None)
    if embeddings is not None and hasattr(type(embeddings), "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0
