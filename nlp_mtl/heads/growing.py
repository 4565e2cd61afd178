"""A head for more labels than an earlier one had: what it knew stays, what is new begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def grown(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Tensor] | None:
    """A head's weights with the rows of the labels that an earlier head had as they were there.

    Args:
        old: the earlier head's, by name.
        new: those that the head begins with, of the same names; the rows of new labels stay.
        theirs: the earlier head's labels, in order.
        ours: the labels, among them all of `theirs`, in any order.

    Returns:
        The weights; None where no part has a row for each label, or where rows and columns can't be told apart.

    Example:
        >>> old, new = {"bias": torch.tensor([1.0, 2.0])}, {"bias": torch.zeros(3)}
        >>> grown(old, new, ["yes", "no"], ["maybe", "no", "yes"])
        {'bias': tensor([0., 2., 1.])}
        >>> grown(old, {"bias": torch.zeros(2)}, ["yes", "no"], ["maybe", "no", "yes"]) is None
        True
    """
    places = torch.tensor([list(ours).index(label) for label in theirs])
    found, rows = {}, 0
    for name, value in old.items():
        if name not in new:
            return None
        if value.shape == new[name].shape:
            found[name] = value
            continue
        if value.shape[:1] != (len(theirs),) or new[name].shape != (len(ours), *value.shape[1:]):
            return None
        found[name] = new[name].clone().index_copy(0, places.to(value.device), value.to(new[name]))
        rows += 1
    return found if rows and len(found) == len(new) else None
