"""Tag schemes: spans survive the way to IOB2, and words cover a text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.heads.spans import iob2_labels, spans_of, to_iob2, words_in

quick = settings(max_examples=150, deadline=None)

kinds = st.sampled_from(["PER", "LOC", "B-cell", "a-b"])  # a type may hold a hyphen
# a sentence as (type, length) spans; None is outside
layouts = st.lists(st.tuples(st.none() | kinds, st.integers(1, 3)), max_size=8)


def spans_in(layout):
    """The spans themselves; an outside part is none."""
    begin, spans = 0, []
    for kind, length in layout:
        if kind is not None:
            spans.append((kind, begin, begin + length))
        begin += length
    return spans


def iob1(layout):
    """B- only where a span follows another of its type at once."""
    tags, before = [], None
    for kind, length in layout:
        first = f"B-{kind}" if kind is not None and kind == before else f"I-{kind}"
        tags += ["O"] * length if kind is None else [first] + [f"I-{kind}"] * (length - 1)
        before = kind
    return tags


def merged(layout):
    """What IO can say: neighbours of one type are one span."""
    out = []
    for kind, length in layout:
        if out and kind is not None and out[-1][0] == kind:
            out[-1] = (kind, out[-1][1] + length)
        else:
            out.append((kind, length))
    return out


def is_valid_iob2(tags):
    """Every I- continues a span of its type."""
    for before, tag in zip(["O", *tags], tags, strict=False):
        if tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag):
            return False
    return True


@quick
@given(layouts)
def test_iob1_becomes_valid_iob2_with_the_same_spans(layout):
    tags = to_iob2(iob1(layout), "iob1")
    assert len(tags) == sum(length for _, length in layout)
    assert is_valid_iob2(tags)
    assert spans_of(tags) == spans_in(layout)
    assert to_iob2(tags, "iob1") == tags, "IOB2 is IOB1 that begins every span with B-"


@pytest.mark.parametrize("prefix", ["", "I-"])
@quick
@given(layout=layouts)
def test_io_becomes_valid_iob2_with_neighbours_as_one_span(prefix, layout):
    layout = [(None if kind == "B-cell" and not prefix else kind, length) for kind, length in layout]  # "B-…" is a tag
    given_tags = ["O" if kind is None else f"{prefix}{kind}" for kind, length in layout for _ in range(length)]
    tags = to_iob2(given_tags, "io")
    assert is_valid_iob2(tags)
    assert spans_of(tags) == spans_in(merged(layout))


@quick
@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "I-LOC", "NOUN"])))
def test_iob2_and_no_scheme_leave_tags_as_they_are(tags):
    assert to_iob2(tags, "iob2") == tags
    assert to_iob2(tags, "none") == tags


@quick
@given(layouts, st.sampled_from(["iob1", "io"]))
def test_the_label_list_holds_every_tag_that_can_come_out(layout, scheme):
    given_tags = (
        iob1(layout) if scheme == "iob1" else ["O" if k is None else f"I-{k}" for k, n in layout for _ in range(n)]
    )
    labels = iob2_labels(["O", *dict.fromkeys(given_tags)], scheme)
    assert labels[0] == "O"
    assert len(labels) == len(set(labels))
    assert set(to_iob2(given_tags, scheme)) <= set(labels)
    assert iob2_labels(labels, "iob2") == labels
    assert iob2_labels(labels, "iob1") == labels


@quick
@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])))
def test_spans_are_in_order_apart_and_hold_exactly_the_tagged_words(tags):
    spans = spans_of(tags)
    inside = [place for _, begin, end in spans for place in range(begin, end)]
    assert inside == [place for place, tag in enumerate(tags) if tag != "O"]
    for kind, begin, end in spans:
        assert all(tags[place][2:] == kind for place in range(begin, end))
        assert all(tags[place][0] == "I" for place in range(begin + 1, end))


def test_an_i_that_continues_nothing_begins_a_span():
    assert spans_of(["I-PER", "I-LOC", "I-LOC", "O", "I-LOC", "B-LOC"]) == [
        ("PER", 0, 1),
        ("LOC", 1, 3),
        ("LOC", 4, 5),
        ("LOC", 5, 6),
    ]


@quick
@given(st.text(max_size=40) | st.text("ab1 .,'’-_\n\t(€", max_size=40))
def test_words_cover_everything_but_space_in_order(text):
    words = words_in(text)
    covered = [place for begin, end in words for place in range(begin, end)]
    assert covered == [place for place, letter in enumerate(text) if not letter.isspace()], "once each, in order"
    assert all(not any(letter.isspace() for letter in text[begin:end]) for begin, end in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's U.S. beef.", ["It's", "U.S", ".", "beef", "."]),
        ("(a-b), c", ["(", "a-b", ")", ",", "c"]),
        ("100,000 €", ["100,000", "€"]),
        ("  ", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert [text[begin:end] for begin, end in words_in(text)] == words
