"""The encoder of an encoder–decoder model, by the names that `AutoModel` gives its weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from nlp_mtl.errors import UnsupportedError


class EncoderPart(PreTrainedModel):
    """What is put before a family's `AutoModel` class so that it is its encoder alone; see :func:`encoder_part`."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **ignored: Any,
    ) -> Any:
        """The encoder's hidden states.

        Args:
            input_ids: [rows, length].
            attention_mask: [rows, length], 1 for tokens.
            inputs_embeds: [rows, length, hidden], instead of `input_ids`.
            ignored: what other families take (`token_type_ids`).
        """
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)


def encoder_part(whole: PreTrainedModel) -> PreTrainedModel:
    """An encoder–decoder model without its decoder: the same object, changed.

    Its weights keep the names they have in the whole (``shared.weight``, ``encoder.…``) and its config stays the
    whole's, so that `AutoModel.from_pretrained` of a folder it is saved in gives the same encoder beside a new
    decoder, and an adapter trained on it fits the whole.

    Args:
        whole: what `AutoModel` makes of the family (T5, BART, …), with an `encoder` and a `decoder`.

    Raises:
        UnsupportedError: a family that is made up in another way.

    Example:
        >>> from transformers import T5Config, T5Model
        >>> sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 11}
        >>> part = encoder_part(T5Model(T5Config(**sizes)))
        >>> sorted({name.split(".")[0] for name, _ in part.named_parameters()})
        ['encoder', 'shared']
    """
    if not {"encoder", "decoder"} <= {name for name, _ in whole.named_children()}:
        raise UnsupportedError(
            f"the family {whole.config.model_type!r} has an encoder and a decoder that are not two parts of its model; "
            "T5, BART and their like are"
        )
    del whole.decoder
    whole.__class__ = _class_of(type(whole))  # type: ignore[arg-type]
    known: Any = getattr(whole, "all_tied_weights_keys", None)
    if known:
        whole.all_tied_weights_keys = _without_decoder(known)
    return whole


def is_encoder_part(model: object) -> bool:
    """Whether a model is the encoder of an encoder–decoder family, whose decoder belongs to the heads."""
    return isinstance(model, EncoderPart)


@lru_cache(maxsize=32)
def _class_of(family: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Called as the family's class, which is what a saved config names."""
    ties = {"_tied_weights_keys": _without_decoder(family._tied_weights_keys or {}), "__doc__": family.__doc__}
    return type(family.__name__, (EncoderPart, family), ties)


def _without_decoder(ties: dict[str, str]) -> dict[str, str]:
    return {name: other for name, other in ties.items() if not name.startswith("decoder.")}
