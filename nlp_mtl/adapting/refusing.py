"""What adapters can't be added to, taken from or merged in."""

from __future__ import annotations

from nlp_mtl.errors import UnsupportedError
from nlp_mtl.model import MultiTaskModel


def check_only_adapters(model: MultiTaskModel, verb: str) -> None:
    """Refuse a run whose tasks share in another way than by one encoder with adapters.

    Raises:
        UnsupportedError: with the reason and the way out.
    """
    sharing = model.sharing
    if not sharing.only_adapters:
        raise UnsupportedError(
            f"adapters {verb}: changes the adapters of tasks that share one encoder, and this run has sharing: "
            f"{sharing.registered_as}, whose other parts were learned together; train again with other tasks, or "
            "export single tasks"
        )
