"""How much a server takes at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nlp_mtl.errors import ConfigError, shown


@dataclass(frozen=True)
class Limits:
    """What a server takes, per request and in all.

    Args:
        max_batch: inputs that go through the model together, and inputs of one request at most.
        max_wait: milliseconds that a pass waits, at most, for as much company as the last one had; a client that is
            alone never waits.
        queue: inputs that wait at most; a request beyond is refused with status 429.
        max_length_text: characters of all texts of one input together. A text within it that has more tokens than a
            task reads (its `max_length`) is cut there, as in training; span question answering reads it in windows.
        max_body: bytes of a request.
        body_timeout: seconds in which a request's body must have come.

    Raises:
        ConfigError: a limit that is no number from its least value, or a queue that holds no whole request.

    Example:
        >>> Limits(max_batch=0, queue=8)
        Traceback (most recent call last):
        nlp_mtl.errors.ConfigError: serve: --max-batch is a whole number from 1, found 0; leave it out for 32
    """

    max_batch: int = 32
    max_wait: float = 5.0
    queue: int = 1024
    max_length_text: int = 20_000
    max_body: int = 4_000_000
    body_timeout: float = 30.0

    def __post_init__(self) -> None:
        mistakes = [
            f"serve: --{item.name.replace('_', '-')} is {_RULES[item.name][0]}, found {shown(value)}; leave it out for "
            f"{item.default:g}"
            for item in fields(self)
            if not _fits(value := getattr(self, item.name), *_RULES[item.name][1:])
        ]
        if not mistakes and self.queue < self.max_batch:
            mistakes.append(
                f"serve: --queue holds at least one whole request of --max-batch inputs, found {self.queue} and "
                f"{self.max_batch}; raise one or lower the other"
            )
        if mistakes:
            raise ConfigError(mistakes)


_RULES: dict[str, tuple[str, type, float, bool]] = {
    "max_batch": ("a whole number from 1", int, 1, False),
    "max_wait": ("a number of milliseconds from 0", float, 0, False),
    "queue": ("a whole number from 1", int, 1, False),
    "max_length_text": ("a whole number from 1", int, 1, False),
    "max_body": ("a whole number from 1", int, 1, False),
    "body_timeout": ("a number of seconds above 0", float, 0, True),
}


def _fits(value: Any, kind: type, least: float, above: bool) -> bool:
    """Whether a limit is a finite number of its kind and not too small."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    return (value > least if above else value >= least) and value < float("inf")
