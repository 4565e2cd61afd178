"""Heads that read some of the encoder's dimensions only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nlp_mtl.errors import ConfigError
from nlp_mtl.packing import Packed


def checked_dimensions(task: str, given: Any) -> list[int] | None:
    """Numbers of dimensions from 0, each once, in order; None for all.

    Raises:
        ConfigError: anything else.

    Example:
        >>> checked_dimensions("rte", [7, 3])
        [3, 7]
    """
    if given is None:
        return None
    numbers = isinstance(given, (list, tuple)) and all(type(one) is int and one >= 0 for one in given)
    if not numbers or not given or len(set(given)) < len(given):
        raise ConfigError(
            f"task {task!r}: `dimensions` are numbers of the encoder's hidden dimensions from 0, each once, found "
            f"{given!r}; nlp-mtl probe finds some, leave it out for all"
        )
    return sorted(given)


def check_widths(heads: Mapping[str, Any], width: int) -> None:
    """Refuse dimensions that an encoder does not have.

    Args:
        heads: task → head.
        width: the hidden size.

    Raises:
        ConfigError: of all tasks at once.
    """
    given = {task: max(head.dimensions) for task, head in heads.items() if head.dimensions}
    if mistakes := [
        f"task {task!r}: `dimensions` are from 0 to {width - 1} in this encoder, found {most}; they are of another one"
        for task, most in given.items()
        if most >= width
    ]:
        raise ConfigError(mistakes)


def only(packed: Packed, dimensions: Sequence[int] | None) -> Packed:
    """Hidden states with all other dimensions 0; as they are, if None is given.

    Args:
        packed: what a task would read.
        dimensions: those it reads.
    """
    if dimensions is None:
        return packed
    mask = torch.zeros(packed.hidden.shape[-1], dtype=packed.hidden.dtype, device=packed.hidden.device)
    mask[torch.tensor(list(dimensions), device=mask.device)] = 1
    return Packed(packed.hidden * mask, packed.layout)
