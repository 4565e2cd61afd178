"""A buffer of earlier rows: every row is in it with the same probability, and none comes back that left."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, hypergeom

from nlp_mtl.errors import ConfigError
from nlp_mtl.replay import Replay, reservoir, with_rows
from nlp_mtl.sources import _capped
from nlp_mtl.taskfile import Task

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(sizes=sizes, total=st.integers(1, 60), seed=st.integers(0, 99))
def test_it_is_full_holds_what_there_was_and_forgets_for_good(sizes, total, seed):
    found = reservoir(sizes, total, seed)
    assert sum(found) == min(total, sum(sizes))
    assert all(0 <= count <= size for count, size in zip(found, sizes, strict=True))
    before = reservoir(sizes[:-1], total, seed) if len(sizes) > 1 else []
    assert all(now <= then for now, then in zip(found, before, strict=False))
    assert found == reservoir(sizes, total, seed)


def test_counts_are_hypergeometric_as_of_a_uniform_draw():
    """With two tasks: the same distribution as drawing `total` of all rows at once, whichever came first."""
    draws = [reservoir([6, 10], 5, seed)[0] for seed in range(4000)]
    seen = [draws.count(count) for count in range(6)]
    expected = [4000 * hypergeom.pmf(count, 16, 6, 5) for count in range(6)]
    assert chisquare(seen, expected).pvalue > 0.01


def drawn(rows_seed, size, count):
    """The rows of a task that `rows: {train: count}` draws; as :func:`nlp_mtl.sources.load_rows` does it."""
    return np.random.default_rng(rows_seed).permutation(size)[:count].tolist()


def test_every_row_of_every_task_is_as_likely():
    """Counts by the reservoir, rows in their drawn order by `rows_seed`: single rows, and pairs across tasks too."""
    rows, total, runs = [2, 4], 3, 4000
    alone, pairs = dict.fromkeys(range(6), 0), dict.fromkeys(combinations(range(6), 2), 0)
    for run in range(runs):
        first, second = reservoir(rows, total, run)
        here = sorted([*drawn(run, 2, first), *(2 + row for row in drawn(run + 9999, 4, second))])
        assert len(set(here)) == total
        for row in here:
            alone[row] += 1
        for pair in combinations(here, 2):
            pairs[pair] += 1
    for found in (alone, pairs):
        assert chisquare(list(found.values())).pvalue > 0.01, found


def test_more_rows_drawn_with_one_seed_hold_the_fewer():
    data = Dataset.from_dict({"text": [str(row) for row in range(40)]})
    task = Task(name="t", head="regression", dataset={"path": "x"}, inputs=["text"], target="y", rows_seed=3)
    some = [[int(text) for text in _capped(task, "train", data, cap)["text"]] for cap in (5, 12, 30)]
    assert some == [drawn(3, 40, cap) for cap in (5, 12, 30)]
    assert set(some[0]) < set(some[1]) < set(some[2])


def test_the_ways_of_saying_it():
    assert Replay.of(50) == Replay.of({"rows": 50}) and not Replay.of(0)
    assert Replay.of({"rows": 7}).counts([3, 900], 0) == [7, 7]
    assert Replay.of({"total": 7, "how": "quota"}).counts([30, 900], 0) == [4, 3]
    assert Replay.of({"total": 7}).counts([], 0) == []
    assert with_rows({"name": "a", "rows": {"train": 9, "test": 4}}, 2) == {
        "name": "a",
        "rows": {"train": 2, "test": 4},
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (-1, "`replay` is a number of rows of each earlier task, found -1"),
        ("many", "`replay` is a number of rows of each earlier task, found 'many'"),
        ({"rowss": 5}, r"`replay` takes no 'rowss'; did you mean 'rows'\?"),
        ({"total": 1.5}, "`replay.total` is a number of rows of all together, found 1.5"),
        ({"total": 5, "how": "reservoire"}, r"one of reservoir, quota, found 'reservoire'; did you mean 'reservoir'\?"),
        ({"rows": 5, "total": 5}, "say one"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(given, words):
    with pytest.raises(ConfigError, match=words):
        Replay.of(given)
