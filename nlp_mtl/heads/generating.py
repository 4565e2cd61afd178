"""How a decoder writes: `transformers.GenerationConfig` from what a task says, and its own `generate`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import EncoderDecoderModel, GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import BaseModelOutput

from nlp_mtl.errors import ConfigError, shown, suggestion

IGNORED = -100
_NUMBERS = 16_000_000  # numbers that the logits of one call hold at most: 64 MB
_WORTH = 512  # target places in all: fewer are decoded in one call
_ROWS = 256  # hypotheses that are written at a time
_KEPT = 256_000_000  # numbers that the sources' keys and values of one call hold at most: 1 GB
_MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.BEAM_SEARCH)
_NOT_OURS = {  # field → its usual value, and why it can have no other
    "num_return_sequences": (1, "one text per row is kept"),
    "return_dict_in_generate": (False, "the tokens alone are kept"),
    "stop_strings": (None, "a text ends with the token that ends the targets"),
    "max_time": (None, "what is written must not depend on how fast a machine is"),
}
_LAYERS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers")  # BART, T5, decoders alone
_CHANCE = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def checked_generation(said: Any, whose: str) -> dict[str, Any]:
    """The fields of a `GenerationConfig` that a task names.

    Raises:
        ConfigError: no mapping, unknown fields, values that `transformers` refuses; all at once.

    Example:
        >>> checked_generation({"num_beam": 4}, "task 'x'")
        Traceback (most recent call last):
        ...
        nlp_mtl.errors.ConfigError: task 'x': generation: no field 'num_beam' of GenerationConfig; did you mean 'num_beams' or 'num_beam_groups'?
    """  # noqa: E501
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"{whose}: `generation` holds fields of GenerationConfig, found {shown(said)}; e.g. num_beams: 4"
        )
    known = [key for key in GenerationConfig().to_dict() if not key.startswith("_") and key != "transformers_version"]
    known += [key for key in ("max_length", "max_new_tokens", "num_beams") if key not in known]
    unknown = [key for key in said if key not in known]
    if unknown:
        raise ConfigError(
            [
                f"{whose}: generation: no field {key!r} of GenerationConfig{suggestion(str(key), known)}"
                for key in unknown
            ]
        )
    wrong = [
        f"{whose}: generation: `{name}` is a whole number from {least}, found {shown(said[name])}; leave it out"
        for name, least in (("num_beams", 1), ("max_new_tokens", 1), ("max_length", 2))  # a length counts the start
        if said.get(name) is not None
        and (not isinstance(said[name], int) or isinstance(said[name], bool) or said[name] < least)
    ]
    wrong += [
        f"{whose}: generation: `{name}` is a number{' above 0' if least == 0 else ''}, found {shown(said[name])}; "
        "leave it out"
        for name, least in (("length_penalty", None), ("repetition_penalty", 0), ("encoder_repetition_penalty", 0))
        if said.get(name) is not None
        and (
            isinstance(said[name], bool)
            or not isinstance(said[name], (int, float))
            or (least is not None and said[name] <= least)
        )
    ]
    wrong += [
        f"{whose}: generation: {why}; leave `{name}` out"
        for name, (usual, why) in _NOT_OURS.items()
        if said.get(name) not in (None, usual)
    ]
    if wrong:
        raise ConfigError(wrong)
    try:
        made = GenerationConfig(**said)
        made.validate(strict=True)
        mode = made.get_generation_mode()
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{whose}: generation: {' '.join(str(error).split())[:300]}") from None
    if mode not in _MODES:
        raise ConfigError(
            f"{whose}: generation: texts are written greedily or with beams, so that one row has one answer, found "
            f"{mode.value.replace('_', ' ')}; leave its fields out, e.g. do_sample, or say num_beams"
        )
    return dict(said)


def generation_config(module: PreTrainedModel, said: Mapping[str, Any], most: int) -> GenerationConfig:
    """What a checkpoint says about how it writes, and over it what the task says.

    A checkpoint that would draw its words writes the likeliest ones: one row has one answer.

    Args:
        module: the decoder, with the checkpoint's `generation_config`.
        said: see :func:`checked_generation`.
        most: new tokens, where the task names no limit.
    """
    made = copy.deepcopy(module.generation_config) or GenerationConfig()
    made.do_sample = False
    for key in (*_CHANCE, *_NOT_OURS):
        setattr(made, key, None)
    if not {"max_length", "max_new_tokens"} & set(said):
        made.max_length, made.max_new_tokens = None, most
        if getattr(made, "min_length", None):
            made.min_length = min(made.min_length, most)
    for key, value in said.items():
        setattr(made, key, value)
    if "max_new_tokens" in said and "max_length" not in said:
        made.max_length = None
    elif "max_length" in said and "max_new_tokens" not in said:
        made.max_new_tokens = None
    for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id"):
        if getattr(made, key, None) is None:
            setattr(made, key, getattr(module.config, key, None))
    return made


def unknown_tokens(module: PreTrainedModel, said: Mapping[str, Any], whose: str) -> list[str]:
    """What names tokens that a decoder's vocabulary does not have, as messages.

    Args:
        module: the decoder.
        said: see :func:`checked_generation`.
        whose: the task, in words.
    """
    size = _vocabulary(module)
    named = {key: said[key] for key in said if key.endswith(("token_id", "words_ids", "suppress_tokens"))}
    return [
        f"{whose}: generation: `{key}` names tokens from 0 to {size - 1}, found {shown(value)}; leave it out"
        for key, value in named.items()
        if not all(isinstance(token, int) and 0 <= token < size for token in _flat(value))
    ]


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [token for part in value for token in _flat(part)]
    return [] if value is None else [value]


def shifted(labels: Tensor, start: int, pad: int) -> Tensor:
    """Labels one place to the right, as a decoder reads them.

    Args:
        labels: [rows, length], −100 where there is none.
        start: what a decoder begins with.
        pad: what stands for no label.

    Example:
        >>> shifted(torch.tensor([[5, 6, -100]]), 2, 0).tolist()
        [[2, 5, 6]]
    """
    moved = labels.new_full(labels.shape, start)
    moved[:, 1:] = labels[:, :-1]
    return moved.masked_fill(moved == IGNORED, pad)


def teacher_forced(module: PreTrainedModel, states: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """[rows, length, vocabulary]: logits of each label from the true labels before it.

    Args:
        module: the decoder.
        states: [rows, source length, hidden], the encoder's.
        mask: [rows, source length], 1 for tokens.
        labels: [rows, length], −100 where there is none.
    """
    config = module.config
    return module(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        decoder_input_ids=shifted(labels, config.decoder_start_token_id, config.pad_token_id),
        decoder_attention_mask=(labels != IGNORED).long(),
        use_cache=False,
    ).logits


def by_length(labels: Tensor) -> list[Tensor]:
    """The rows in up to three groups of similar length, the shorter half together, where that spares a quarter.

    Args:
        labels: [rows, length], −100 where there is none.

    Example:
        >>> labels = torch.full((4, 400), IGNORED)
        >>> for row, length in enumerate([100, 400, 100, 100]):
        ...     labels[row, :length] = 1
        >>> [rows.tolist() for rows in by_length(labels)]
        [[0, 2], [3], [1]]
    """
    lengths = (labels != IGNORED).sum(1)
    order = lengths.argsort(stable=True)
    count = len(order)
    cuts = [cut for cut in (count // 2, count * 6 // 7) if 0 < cut < count]
    parts = [part for part in order.tensor_split(cuts) if len(part)]
    kept = sum(len(part) * int(lengths[part[-1]]) for part in parts)
    return parts if labels.numel() > _WORTH and kept < 0.75 * labels.numel() else [torch.arange(count).to(order)]


def trimmed(rows: Tensor, states: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States, mask and labels of some rows, without columns that none of them fills."""
    own, wanted = mask[rows], labels[rows]
    length, most = int(own.sum(1).max()), int((wanted != IGNORED).sum(1).max())
    return states[rows, :length], own[:, :length], wanted[:, :most]


def summed_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross entropies of all labels, added up in float32."""
    return functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )


def written(module: PreTrainedModel, states: Tensor, mask: Tensor, config: GenerationConfig) -> list[list[int]]:
    """The tokens that `generate` of the vanilla class writes, by parts that fit into memory; without padding.

    Args:
        module, states, mask: as in :func:`teacher_forced`.
        config: see :func:`generation_config`.
    """
    found: list[list[int]] = []
    beams = int(config.num_beams or 1)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    kept = _numbers_kept(module) * mask.shape[1]
    most = min(_ROWS, _NUMBERS // _vocabulary(module), _KEPT // kept)
    for part in _parts(len(states), most // beams):
        own = mask[part]
        length = int(own.sum(1).max())  # the others' padding is of no use
        with _writing_as(module, config):
            out = module.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states[part, :length]), attention_mask=own[:, :length]
            )
        found += [_until(ids, ends) for ids in out[:, 1:].tolist()]  # the first one is what it began with
    return found


@contextmanager
def _writing_as(module: Any, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills what a config given to it leaves out with the module's own: a limit that was taken out, too."""
    before = module.generation_config
    module.generation_config = config
    try:
        yield
    finally:
        module.generation_config = before


def log_likelihoods(module: PreTrainedModel, states: Tensor, mask: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    """[rows, texts]: the log-likelihood of each of some texts, its tokens' added up, after each row.

    Args:
        module, states, mask: as in :func:`teacher_forced`.
        texts: label tokens, each with its end.
    """
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in texts], True, IGNORED).to(states.device)
    count, length = labels.shape
    found = []
    for part in _parts(len(states), _NUMBERS // (count * length * _vocabulary(module))):
        own, seen = states[part].repeat_interleave(count, 0), mask[part].repeat_interleave(count, 0)
        wanted = labels.repeat(len(states[part]), 1)
        logs = teacher_forced(module, own, seen, wanted).float().log_softmax(-1)
        chosen = logs.gather(-1, wanted.clamp_min(0)[..., None])[..., 0]
        found.append(chosen.masked_fill(wanted == IGNORED, 0.0).sum(-1).view(-1, count))
    return torch.cat(found)


def loss_by_parts(module: PreTrainedModel, states: Tensor, mask: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """As :func:`summed_loss` of :func:`teacher_forced`, never holding the logits of all rows."""
    total = torch.zeros((), device=states.device)
    for part in _parts(len(states), _NUMBERS // (labels.shape[1] * _vocabulary(module))):
        total = total + summed_loss(
            teacher_forced(module, states[part], mask[part], labels[part]), labels[part], smoothing
        )
    return total


def _vocabulary(module: PreTrainedModel) -> int:
    return int(module.get_output_embeddings().weight.shape[0])


def _numbers_kept(module: PreTrainedModel) -> int:
    """Numbers that a decoder keeps of each of a source's tokens while it writes: keys and values of all its layers."""
    config: Any = module.decoder.config if isinstance(module, EncoderDecoderModel) else module.config
    layers = next(getattr(config, key) for key in _LAYERS if getattr(config, key, None))
    return 2 * int(layers) * int(config.hidden_size)


def _parts(rows: int, most: int) -> Iterator[slice]:
    step = max(1, most)
    for begin in range(0, rows, step):
        yield slice(begin, begin + step)


def _until(ids: list[int], ends: Sequence[int | None]) -> list[int]:
    """Up to and with the first end."""
    place = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: place + 1]
