"""Columns of an Arrow table give back what was put in, in any chunks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.columns import Nothing, Numbers, Ragged, read_column

quick = settings(max_examples=80, deadline=None)

ints, floats = st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False)
KINDS = {
    "int32": (pa.int32(), ints),
    "int64": (pa.int64(), st.integers(-(2**62), 2**62)),
    "float32": (pa.float32(), floats),
}


@st.composite
def chunked(draw, value, kind):
    """A column in chunks, some of them empty, some slices of longer arrays; and its values."""
    parts = draw(st.lists(st.lists(value, max_size=6), max_size=4))
    arrays, values = [], []
    for part in parts:
        begin = draw(st.integers(0, len(part)))
        end = draw(st.integers(begin, len(part)))
        arrays.append(pa.array(part, kind)[begin:end])
        values += part[begin:end]
    return pa.table({"x": pa.chunked_array(arrays, kind)}), values


@pytest.mark.parametrize("name", KINDS)
@quick
@given(data=st.data())
def test_numbers(name, data):
    kind, value = KINDS[name]
    table, values = data.draw(chunked(st.none() | value, kind))
    column = read_column(table, "x")
    assert isinstance(column, Numbers)
    read = [column[row] for row in range(len(column))]
    assert read == values
    assert {type(number) for number in read} <= {type(None), float if name == "float32" else int}, "Python's own"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", KINDS)
@quick
@given(data=st.data())
def test_lists_of_numbers(name, large, data):
    kind, value = KINDS[name]
    kind = pa.large_list(kind) if large else pa.list_(kind)
    table, values = data.draw(chunked(st.none() | st.lists(value, max_size=4), kind))
    column = read_column(table, "x")
    assert isinstance(column, Ragged)
    assert len(column) == len(values)
    read = [column[row] for row in range(len(column))]
    assert [None if part is None else part.tolist() for part in read] == values
    assert column.lengths().tolist() == [len(part or ()) for part in values]


def test_booleans():
    column = read_column(pa.table({"x": [True, None, False]}), "x")
    assert [column[row] for row in range(3)] == [True, None, False]


def test_a_list_is_a_view_and_not_a_copy():
    column = read_column(pa.table({"x": pa.array([[1, 2, 3], [4]], pa.list_(pa.int32()))}), "x")
    assert column[0].dtype == np.int32
    assert np.shares_memory(column[0], column._values[0])
    assert column[0].base is not None


def test_nothing_throughout():
    column = read_column(pa.table({"x": pa.nulls(3)}), "x")
    assert isinstance(column, Nothing)
    assert len(column) == 3
    assert [column[row] for row in range(3)] == [None] * 3


def test_a_row_that_is_not_there():
    column = read_column(pa.table({"x": pa.array([[1], [2]])}), "x")
    with pytest.raises(IndexError):
        column[2]
