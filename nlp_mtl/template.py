"""Templates: any columns of a row, numbers too, joined into one text (``template:`` in a task file)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.errors import ConfigError, DataError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_EXACT = 2**53  # whole numbers up to here are exact as floats


@dataclass(frozen=True)
class Template:
    """A text with columns in braces: ``"{title} costs {price:-an unknown sum}: {text}"``.

    ``{column}`` must hold something in every row; ``{column:-words}`` stands for `words` where the column holds nothing
    (None, NaN or a blank text), as in a shell. ``{{`` and ``}}`` are braces. Nothing in it is evaluated: no attributes,
    no indices, no formats.

    Args:
        text: the template.

    Attributes:
        columns: the columns read, each once, in the order they first come.
        optional: those that may hold nothing, because the template says what stands for them everywhere.

    Raises:
        ConfigError: a brace without its partner, a pair of braces with no name in it, or no column at all.

    Example:
        >>> template = Template("{title} costs {price:-an unknown sum}")
        >>> template.columns, sorted(template.optional)
        (['title', 'price'], ['price'])
        >>> template.fill({"title": "Tea", "price": 3.5}), template.fill({"title": "Tea", "price": None})
        ('Tea costs 3.5', 'Tea costs an unknown sum')
    """

    text: str
    columns: list[str] = field(init=False)
    optional: frozenset[str] = field(init=False)
    _parts: list[tuple[str, str | None, str | None]] = field(init=False, repr=False)  # words before, column, default

    def __post_init__(self) -> None:
        parts: list[tuple[str, str | None, str | None]] = []
        words, place, mistakes = "", 0, []
        for match in _PART.finditer(self.text):
            words += self.text[place : match.start()]
            place = match.end()
            if match[0] in ("{{", "}}"):
                words += match[0][0]
            elif match[1] is None:
                mistakes.append(
                    f"character {match.start() + 1}: {match[0]!r} has no partner; a brace itself is doubled"
                )
            else:
                name, has_default, default = match[1].partition(":-")
                if not name:
                    mistakes.append(f"character {match.start() + 1}: write a column's name between the braces")
                parts.append((words, name, default if has_default else None))
                words = ""
        parts.append((words + self.text[place:], None, None))
        names = list(dict.fromkeys(name for _, name, _ in parts if name))
        if not names and not mistakes:
            mistakes.append("it names no column; write columns in braces, e.g. '{title}: {text}'")
        if mistakes:
            raise ConfigError([f"template {self.text!r}: {mistake}" for mistake in mistakes])
        needed = {name for _, name, default in parts if name and default is None}
        object.__setattr__(self, "columns", names)
        object.__setattr__(self, "optional", frozenset(names) - needed)
        object.__setattr__(self, "_parts", parts)

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text of one row.

        Args:
            values: the row's columns; a whole number is written without a fraction, also where a gap in its column made
                floats of them (3.0 → "3"), so that training and prediction read the same.

        Raises:
            DataError: a column holds nothing and the template has no word for that, or holds a list or mapping.
        """
        said = []
        for words, name, default in self._parts:
            said.append(words)
            if name is None:
                continue
            value = values.get(name)
            if is_nothing(value) or (default is not None and not str(value).strip()):
                if default is None:
                    raise DataError(
                        f"column {name!r} holds nothing, and the template needs it; write what stands for it, e.g. "
                        f"'{{{name}:-unknown}}'"
                    )
                said.append(default)
            else:
                said.append(as_text(value, name))
        return "".join(said)


def is_nothing(value: Any) -> bool:
    """Whether a cell is empty: None or NaN.

    Example:
        >>> is_nothing(None), is_nothing(float("nan")), is_nothing(""), is_nothing(0)
        (True, True, False, False)
    """
    return value is None or (isinstance(value, float) and value != value)


def as_text(value: Any, name: str) -> str:
    """A cell as a template writes it.

    Raises:
        DataError: a list, a mapping or bytes, of which no text can be made.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, (list, tuple, Mapping, bytes)):
        raise DataError(f"column {name!r} is joined by the template and holds {str(value)[:40]!r}, which is no text")
    return str(value)
