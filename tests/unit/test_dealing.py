"""Rows dealt by tokens: nothing lost, balanced, and within the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nlp_mtl.dealing import deal, passes

rows = st.lists(st.integers(1, 50), max_size=40)


@given(tokens=rows, parts=st.integers(1, 7))
def test_parts_are_all_rows_once_and_differ_by_one_row_at_most(tokens, parts):
    dealt = deal(tokens, parts)
    assert len(dealt) == parts
    assert sorted(row for part in dealt for row in part) == list(range(len(tokens)))
    loads = [sum(tokens[row] for row in part) for part in dealt]
    assert max(loads) - min(loads) <= max(tokens, default=0)
    if len(tokens) >= parts:
        assert all(dealt), "no part stays empty while another has two"


@given(tokens=rows, most=st.integers(1, 120))
def test_passes_are_all_rows_once_and_within_the_budget(tokens, most):
    found = passes(tokens, most)
    assert sorted(row for part in found for row in part) == list(range(len(tokens)))
    for part in found:
        assert sum(tokens[row] for row in part) <= most or len(part) == 1, "a row that is too long stands alone"
    assert all(found) or found == [[]]
    lengths = [tokens[row] for part in found for row in part]
    assert lengths == sorted(lengths, reverse=True), "rows of like length together"


@given(tokens=st.lists(st.integers(1, 50), min_size=1, max_size=40), most=st.integers(50, 120))
def test_no_more_passes_than_filling_one_after_the_other_needs(tokens, most):
    found, wanted, held = passes(tokens, most), 1, 0
    for count in sorted(tokens, reverse=True):
        if held + count > most:
            wanted, held = wanted + 1, 0
        held += count
    assert len(found) == wanted
