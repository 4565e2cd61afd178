"""The label names of own data, in an order that the order of the rows does not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.errors import ConfigError, shown, suggestion
from nlp_mtl.labelnames import in_order, name_of
from nlp_mtl.owndata.looks import Target, is_blank

Labels = Sequence[str] | Mapping[Any, str] | None


@dataclass
class Names:
    """Label names.

    Attributes:
        names: in the order of their numbers.
        note: how they were found, in a plain sentence.
        prepare: what must be done to the rows so that they hold these names.
        of_values: what the column holds → its name, where they differ.
    """

    names: list[str]
    note: str
    prepare: list[dict[str, Any]] = field(default_factory=list)
    of_values: dict[str, str] = field(default_factory=dict)

    def of(self, value: Any) -> str:
        """The name of a value of the column."""
        said = str(name_of(value))
        return self.of_values.get(said, said)


def label_names(target: Target, values: Sequence[Any], labels: Labels, *, lists: bool = False) -> Names:
    """Names for the values of a label column.

    Args:
        target: the column.
        values: its values, of lists their items.
        labels: names in the order wanted, or what the column holds → its name.
        lists: whether the column holds lists.

    Raises:
        ConfigError: values that are no labels, or not among those named.
    """
    if odd := [value for value in values if not (value is None or isinstance(value, (str, int, float)))]:
        raise ConfigError(
            f"label: {target.name!r} holds {shown(odd[0], most=40)}, which is no label; name another column"
        )
    found = {name_of(value) for value in values if not is_blank(value)}
    if labels is not None and not isinstance(labels, Mapping):
        return _listed(target, found, list(map(str, labels)))
    if isinstance(labels, Mapping):
        if lists:
            raise ConfigError(
                "labels: names for values go with one label a row; list the names instead (--labels NAME …)"
            )
        return _mapped(target, values, labels)
    if target.look.names is not None:
        names = list(target.look.names)
        return Names(names, f"labels: {few(names)}; names and order are the data's own", of_values=_numbered(names))
    column = repr(target.name)
    if odd := [value for value in found if not isinstance(value, str)]:
        raise ConfigError(
            f"label: {column} holds {odd[0]!r}, and classes have no fractions; say `head: regression` (--head), or "
            "name "
            "another column"
        )
    names = in_order(found)
    if "-1" in found and len(found) > 1:
        example = " ".join(f"{name}=NAME" for name in names[:4])
        raise ConfigError(
            f"labels: {column} holds -1 beside {few([n for n in names if n != '-1'])}; is -1 a label or its absence? "
            "Name "
            f"all values, labels={{-1: …}} (--labels {example}), or leave cells without a label empty"
        )
    if not found:
        raise ConfigError(
            f"label: every list in {column} is empty; nothing can be learned from that, name another column"
        )
    if len(found) == 1 and not lists:
        only = next(value for value in values if not is_blank(value))
        raise ConfigError(
            f"label: every label in {column} is {only!r}; nothing can be learned from that, name another column"
        )
    if not all(name.isdecimal() for name in names):
        return Names(names, f"labels: {few(names)}, in alphabetical order, whatever the order of the rows")
    return Names(names, f"labels: {few(names)}, by size; `labels` gives them names (--labels {names[0]}=NAME …)")


def few(names: Sequence[str]) -> str:
    """Names for a sentence, the first eight of them.

    Example:
        >>> few(["a", "b"]), few([str(i) for i in range(12)])
        ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, … (12 in all)')
    """
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


def _listed(target: Target, found: set[Any], names: list[str]) -> Names:
    by_number = not found & set(names) and found <= {*_numbered(names), "-1"}
    if by_number or target.look.names is not None:
        said = few([f"{number} is {name!r}" for number, name in enumerate(names)])
        if target.look.names is not None and len(names) != len(target.look.names):
            raise ConfigError(
                f"labels: the data names {len(target.look.names)} ({few(target.look.names)}), found {len(names)} names"
            )
        return Names(names, f"labels: as named, in the order of the numbers: {said}", of_values=_numbered(names))
    if all(str(name).isdecimal() for name in found) and not found & set(names):
        numbers = in_order(map(str, found))
        raise ConfigError(
            f"labels: {target.name!r} holds the numbers {few(numbers)}, and {len(names)} labels are named "
            f"({few(names)}); "
            "name all, from that of 0 on, or name values: labels={0: …} (--labels 0=NAME …)"
        )
    if unknown := in_order(str(name) for name in found - set(names)):
        raise ConfigError(
            [f"labels: {target.name!r} holds {n!r} too{suggestion(n, names)}; name all values" for n in unknown[:8]]
        )
    unseen = [name for name in names if name not in found]
    return Names(names, f"labels: {few(names)}, as named" + (f"; no row has {few(unseen)}" if unseen else ""))


def _mapped(target: Target, values: Sequence[Any], labels: Mapping[Any, str]) -> Names:
    import pyarrow as pa

    known = {str(name_of(value)): str(name) for value, name in labels.items()}
    distinct = list(dict.fromkeys(values))
    if missing := in_order({str(name_of(value)) for value in distinct} - set(known)):
        raise ConfigError(
            f"labels: {target.name!r} holds {few(missing)} too, which `labels` does not name; name all values"
        )
    spelled = pa.array(distinct).cast(pa.string()).to_pylist()  # as `map_labels` casts the column
    names = {text: known[str(name_of(value))] for text, value in zip(spelled, distinct, strict=True)}
    prepare = [{"name": "map_labels", "column": target.name, "names": dict(sorted(names.items()))}]
    said = few([f"{value} is {name!r}" for value, name in known.items()])
    return Names(list(dict.fromkeys(known.values())), f"labels: as named, {said}", prepare, known)
