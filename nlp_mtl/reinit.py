"""Fresh weights for an encoder's top layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.initialization import guard_torch_init_functions

from nlp_mtl.depth import heights, layers_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.packing import base_of


def check_count(count: Any) -> None:
    """Refuse what is no number of layers.

    Raises:
        ConfigError: with what was found.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigError(f"reinit_top_layers: a whole number from 0, found {count!r}; leave it out for 0")


def reinit_top_layers(encoder: nn.Module, count: int, seed: int = 0) -> list[str]:
    """Give the top layers, and the pooler and norm above them, new weights as the family itself makes them.

    Args:
        encoder: a `transformers` base model, in place.
        count: how many layers; 0 changes nothing.
        seed: of the weights; the global random state stays as it was.

    Returns:
        The names of the parameters that are new.

    Raises:
        ConfigError: it has fewer layers, or none with weights of their own.

    Relations: Zhang et al. (2020, arXiv 2006.05987): the top layers are tied most to the pre-training task, and new
    ones make small data sets' runs less apart.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> encoder = tiny_encoder("bert")
        >>> query = encoder.encoder.layer[1].attention.self.query.weight
        >>> before = query.clone()
        >>> len(reinit_top_layers(encoder, 1)), torch.equal(query, before)
        (18, False)
    """
    check_count(count)
    if not count:
        return []
    base: Any = base_of(encoder)
    try:
        layers = len(layers_of(base))
    except UnsupportedError as error:
        raise ConfigError(f"reinit_top_layers: {error}") from None
    if count > layers:
        raise ConfigError(
            f"reinit_top_layers: at most {layers}, the layers of this encoder, found {count}; fewer keep something of "
            "what was learned"
        )
    high = heights(base)
    for name, parameter in base.named_parameters():  # what is said to be made is passed over
        parameter._is_hf_initialized = high[name] <= layers - count
    with torch.random.fork_rng(devices=[]), torch.no_grad(), guard_torch_init_functions():
        torch.manual_seed(seed)
        base.apply(base._init_weights)
    return [name for name, height in high.items() if height > layers - count]


def check_trained(model: Any, count: int, new: list[str]) -> None:
    """Record in a model that layers began anew; refuse it where they are frozen.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel` around the encoder.
        count: how many layers.
        new: what :func:`reinit_top_layers` gave.

    Raises:
        ConfigError: random weights that would stay as they are.
    """
    if not new:
        return
    known = dict(base_of(model.sharing.encoder).named_parameters())
    if frozen := [name for name in new if name in known and not known[name].requires_grad]:
        raise ConfigError(
            f"reinit_top_layers: what begins anew has to be trained, found {frozen[0]} frozen by `freeze` or `tuning`; "
            "leave one of them out"
        )
    model.strategies["reinit_top_layers"] = count
