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
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers.filter(lambda n: n == n), half_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(half_text, inner, max_size=3)),
    max_leaves=6,
)

_PIECES = [
    b"", b'"', b"'", b"\x00", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b"\n\n", b",",
    b"\t", b";", b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"1e999", b"-", b"\\", b"\\ud800", b"\\u0000",
    b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b" ", b"-DOCSTART-", b"\xc3", b"\xe2\x80\xa8", b"9" * 25, b"9" * 400, b"#",
    b"&a", b"*a", b"!!python/object:os.system", b"!!binary x", b"<<: *a", b"---\n", b"...\n", b"? ", b"- ",
    b"%YAML 9\n",
]  # fmt: skip


@st.composite
def edited(draw: Any, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with up to three edits: parts cut, repeated, put in, changed; or in another encoding."""
    data = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.one_of(st.just(begin), st.integers(begin, min(len(data), begin + 12))))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            data = data[:begin] + data[end:]
        elif kind == 1:
            data = data[:end] + data[begin:end] * draw(st.integers(1, 3)) + data[end:]
        elif kind == 2:
            data = data[:begin] + draw(st.sampled_from(_PIECES)) + data[end:]
        elif kind == 3:
            data = data[:begin] + draw(st.binary(max_size=3)) + data[end:]
        elif kind == 4:
            data = data[:begin]
        else:
            kinds = ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"]
            data = data.decode("utf-8", "replace").encode(draw(st.sampled_from(kinds)))
    return data


def nearly(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly edited bytes, sometimes any."""
    return st.one_of(edited(whole), edited(whole), edited(whole), st.binary(max_size=60))


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
