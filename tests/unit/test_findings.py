"""Findings and affinities: what is written is read again, and what is none is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.findings import Drawing, Finding, Table, read_findings, write_finding


def test_a_finding_is_read_as_it_was_written(tmp_path):
    found = Finding(
        "calibration",
        "Calibration",
        ["ECE 0.1"],
        [Table("t", ["a", "b"], [["1", "2"]])],
        [Drawing("d", "a line", "how", "<svg></svg>")],
        {"ece": 0.1, "none": None},
    )
    write_finding(tmp_path, found)
    write_finding(tmp_path, Finding("again", "Again"))
    assert read_findings(tmp_path) == [Finding("again", "Again", [], [], [], {}), found]


def test_wrong_findings_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        write_finding(tmp_path, Finding("../x", "X", tables=[Table("t", ["a"], [["1", "2"]])]))
    assert "small letters" in str(caught.value) and "2 cells" in str(caught.value)
    with pytest.raises(ConfigError, match="NaN"):
        write_finding(tmp_path, Finding("x", "X", data={"a": math.nan}))
    (tmp_path / "findings").mkdir(exist_ok=True)
    (tmp_path / "findings" / "bad.json").write_text("{}")
    with pytest.raises(RunFolderError, match="no finding"):
        read_findings(tmp_path)


@given(arrays(float, (3, 3), elements=st.floats(-1e6, 1e6) | st.just(math.nan)))
def test_an_affinity_is_read_as_it_was_saved(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("a") / "affinity.json"
    Affinity(("a", "b", "c"), values, "made up", {"rows": 3}).save(file)
    again = Affinity.load(file)
    np.testing.assert_array_equal(again.values, values)
    assert (again.tasks, again.measure, again.said) == (("a", "b", "c"), "made up", {"rows": 3})


def test_an_affinity_knows_its_tasks():
    one = Affinity(("a", "b"), np.array([[1.0, 0.2], [0.4, 1.0]]), "made up")
    assert one.of(["b", "a"]).values.tolist() == [[1.0, 0.4], [0.2, 1.0]]
    with pytest.raises(ConfigError, match="no task 'c'"):
        one.of(["c"])
    with pytest.raises(ConfigError, match="different names"):
        Affinity(("a", "a"), np.eye(2), "made up")
