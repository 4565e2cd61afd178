"""Label values as names, in an order that does not depend on the rows' order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlp_mtl.errors import DataError


def name_of(value: Any) -> Any:
    """A label value as a name: 1 and, as a CSV column with gaps gives it, 1.0 are "1"; fractions and None stay.

    Example:
        >>> name_of(1.0), name_of(True), name_of(0.5), name_of("spam")
        ('1', 'true', 0.5, 'spam')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (int, float)) or (isinstance(value, float) and value % 1):
        return value
    return str(int(value))


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted, whole numbers by size and first.

    Example:
        >>> in_order({"b", "10", "a", "2", "-1"})
        ['-1', '2', '10', 'a', 'b']
    """

    def place(name: str) -> tuple[bool, int, str]:
        number = int(name) if name.removeprefix("-").isdecimal() else None
        return number is None, number or 0, name

    return sorted(names, key=place)


def names_in(values: Iterable[Any], task: str) -> list[str]:
    """The distinct label values as names, numbers by size, and −1 for "no label" left out.

    Raises:
        DataError: −1 beside other labels, which could also be a label.

    Example:
        >>> names_in([10, 2, 1, 2], "demo")
        ['1', '2', '10']
    """
    found = {name_of(v) for v in values if isinstance(v, (str, int, float)) and not (isinstance(v, float) and v % 1)}
    if "-1" in found and len(found) > 1:
        raise DataError(
            f"task {task!r}: the target holds -1 beside {', '.join(sorted(found - {'-1'})[:6])}, and no `labels` are "
            "listed; is -1 a label or its absence? List `labels`, or give names with `prepare: map_labels`"
        )
    return in_order(found - {"-1"})
