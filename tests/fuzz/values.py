"""Strategies for values, texts and bytes that are nearly right."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

TRICKY = [
    "NA", "null", "None", "nan", "inf", "-inf", "true", "False", "", " ", "0", "1", "-1", "007", "1e400", "1_000",
    "2020-01-01", "2020-01-01T10:00:00Z", "12:30", "\x00", "\x1a", "\r", "\n", "\r\n", "\t", "\u2028", "\u0085", "\xa0",
    "\ufeff", "\ufffd", '"', "'", '""', '"a', 'a"b', ",", ";", "|", "\\", "\\n", "#", "-DOCSTART-", "-DOCSTART- O",
    "-", "*", "&a", "!!int x", "{", "}", "[", "]", "{}", "[]", ":", "a: b", "@", "%", "`", "~", "?", "😀", "e\u0301",
    "\u202e", "ﷺ", "100000000000000000000", "0x1f", "<NA>", "#N/A", "B-X", "I-X", "O", "text", "label",
]  # fmt: skip

plain = st.text(st.sampled_from("abcdefg hijkl ÄßéжΩ漢"), min_size=1, max_size=12)
any_text = st.one_of(plain, st.sampled_from(TRICKY), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
"""Text of any kind but halves of characters."""
half_text = st.one_of(any_text, st.sampled_from(["\ud800", "a\udfffb"]))

numbers = st.one_of(
    st.integers(-3, 9),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 2**64, 10**400]),
    st.floats(),
    st.floats(-2, 2),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, any_text)
harmless = any_text.filter(lambda text: not text.strip().startswith(("/", "..", "~")))  # no path out of the folder
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, harmless),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(harmless, st.integers(0, 3)), inner, max_size=3)
    ),
    max_leaves=6,
)
clean_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers.filter(lambda n: n == n), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=6,
)
"""What JSON can say, without halves of characters."""
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers.filter(lambda n: n == n), half_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(half_text, inner, max_size=3)),
    max_leaves=6,
)

_PIECES = [
    "", '"', "'", "\x00", "\ufeff", "\n", "\r", "\r\n", "\n\n", ",", "\t", ";", "{", "}", "[", "]", ":", "null", "NaN",
    "1e999", "-", "\\", "\\ud800", "\\u0000", " ", "-DOCSTART-", "\u2028", "9" * 25, "9" * 400, "#", "&a", "*a", "|",
    "!!python/object:os.system", "!!binary x", "!!int x", "<<: *a", "---\n", "...\n", "? ", "- ", "%YAML 9\n", "true",
    "{}", "[]", '""', "0", "-1", "1.5", "text", "label", "\x85", "ä", "漢",
]  # fmt: skip
_STARTS = [b"", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xc3"]


@st.composite
def edited(draw: Any, whole: st.SearchStrategy[bytes]) -> bytes:
    """Texts with up to three edits: parts cut, repeated or put in; now and then in another encoding, or no text."""
    data = draw(whole).decode("utf-8", "replace")
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.one_of(st.just(begin), st.integers(begin, min(len(data), begin + 12))))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            data = data[:begin] + data[end:]
        elif kind == 1:
            data = data[:end] + data[begin:end] * draw(st.integers(1, 3)) + data[end:]
        elif kind == 2:
            data = data[:begin] + draw(any_text) + data[end:]
        elif kind == 3 and not draw(st.integers(0, 2)):
            data = data[:begin]
        else:
            data = data[:begin] + draw(st.sampled_from(_PIECES)) + data[end:]
    out = data.encode("utf-8", "replace")
    strange = draw(st.sampled_from([0] * 21 + [1, 2, 3] + [0] * 6))  # hypothesis likes what stands at an end
    if strange == 1:
        return data.encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])), "replace")
    if strange == 2:
        return draw(st.sampled_from(_STARTS)) + out
    return broken_bytes(draw, out) if strange == 3 else out


def broken_bytes(draw: Any, data: bytes) -> bytes:
    """Bytes with a few others in one place."""
    begin = draw(st.integers(0, len(data)))
    return data[:begin] + draw(st.binary(max_size=4)) + data[begin + draw(st.integers(0, 4)) :]


@st.composite
def edited_bytes(draw: Any, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with up to three edits."""
    data = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        data = broken_bytes(draw, data)
        if not draw(st.integers(0, 9)):
            data = data[: draw(st.integers(0, len(data)))]
    return data


def nearly(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly edited texts, sometimes any bytes."""
    return st.sampled_from([0] * 14 + [1, 0]).flatmap(lambda any_: st.binary(max_size=60) if any_ else edited(whole))


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in mappings and lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [above] if above else []
    for key, part in inside:
        found += places(part, (*above, key))
    return found


@st.composite
def changed(draw: Any, whole: st.SearchStrategy[dict[str, Any]], keys: list[str]) -> dict[str, Any]:
    """A mapping with up to three changes: values replaced, dropped, renamed, put into a list, and keys added.

    Args:
        whole: the mappings.
        keys: names of keys that may be added.
    """
    data = copy.deepcopy(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        every = places(data)
        kind = draw(st.integers(0, 4))
        if kind == 0 or not every:
            data[draw(st.one_of(st.sampled_from(keys), harmless))] = draw(values)
            continue
        *above, last = draw(st.sampled_from(every))
        inside: Any = data
        for key in above:
            inside = inside[key]
        if kind == 1:
            del inside[last]
        elif kind == 2:
            inside[last] = draw(values)
        elif kind == 3:
            inside[last] = [inside[last]]
        elif isinstance(inside, dict):
            inside[draw(st.one_of(st.sampled_from(keys), harmless))] = inside.pop(last)
        else:
            inside.append(inside[last])
    return data
