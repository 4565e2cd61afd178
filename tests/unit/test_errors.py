"""Messages: all mistakes at once, near names, and what was tried in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import errors
from nlp_mtl.errors import ConfigError, NlpMtlError, NotFoundError, UnknownNameError, suggestion

quick = settings(max_examples=50, deadline=None)
words = st.text("abcdefgh_", min_size=1, max_size=8)


def test_one_mistake_is_the_message_itself():
    assert str(ConfigError("a.yaml:3: too short")) == "a.yaml:3: too short"
    assert ConfigError("x").mistakes == ["x"]


@quick
@given(st.lists(words, min_size=2, max_size=6))
def test_several_mistakes_are_counted_and_all_shown_in_order(mistakes):
    error = ConfigError(mistakes)
    head, *lines = str(error).split("\n")
    assert head == f"{len(mistakes)} mistakes:"
    assert [line.strip() for line in lines] == error.mistakes == mistakes


def test_every_error_is_ours_and_also_an_ordinary_one():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, NlpMtlError)]
    assert len(classes) >= 8
    for error in classes:
        ordinary = (ValueError, LookupError, RuntimeError)
        assert error is NlpMtlError or issubclass(error, ordinary), f"{error.__name__} can be caught without knowing us"


def test_an_unknown_name_says_kind_name_and_near_names():
    error = UnknownNameError("sampler", "temprature", ["uniform", "temperature"])
    assert str(error) == "unknown sampler 'temprature'; did you mean 'temperature'?"
    assert (error.kind, error.name) == ("sampler", "temprature")
    assert (
        str(UnknownNameError("head", "x", ["b", "a"], where="run.yaml:2: "))
        == "run.yaml:2: unknown head 'x'; known: a, b"
    )


def test_not_found_lists_tries_in_order_then_ways_out():
    lines = str(NotFoundError("the data set 'x'", ["mirror: no", "cache: no", "Hub: no"], ["look", "ask"])).split("\n")
    assert lines == [
        "the data set 'x' was not found. Tried, in order:",
        "  1. mirror: no",
        "  2. cache: no",
        "  3. Hub: no",
        "Ways out:",
        "  - look",
        "  - ask",
    ]


@quick
@given(st.lists(words, min_size=1, max_size=20, unique=True), st.data())
def test_a_name_with_one_letter_too_many_is_still_suggested(known, data):
    name = data.draw(st.sampled_from(known))
    near = [other for other in known if abs(len(other) - len(name)) <= 2]
    if len(near) <= 3 and len(name) > 2:
        assert repr(name) in suggestion(f"{name}z", known)


@quick
@given(st.lists(words, min_size=13, max_size=30, unique=True))
def test_far_names_show_what_is_known_but_not_endlessly(known):
    shown = suggestion("ZZZZZZZZ", known)
    assert shown == "; known: " + ", ".join(known[:12]) + ", …"


def test_nothing_known():
    assert suggestion("x", []) == "; none is known"


@pytest.mark.parametrize("name", [3, None, 1.5, True])
def test_names_that_are_not_text_do_not_break_the_message(name):
    assert suggestion(name, ["a"]) == "; known: a"
