"""Calibration: measures against their formulas, temperatures against their laws, and a run's finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nlp_mtl as mtl
from nlp_mtl.calibration.measures import brier_score, expected_calibration_error, negative_log_likelihood, reliability
from nlp_mtl.calibration.study import calibrate, measured
from nlp_mtl.calibration.temperature import cross_fitted, fit_temperature, probabilities
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.findings import read_findings
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import write_base, write_tasks

torch.set_num_threads(1)


@st.composite
def rows(draw):
    """Logits [rows, classes] and labels [rows]."""
    count, classes = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    logits = draw(arrays(np.float64, (count, classes), elements=st.floats(-8, 8, width=32)))
    return logits, np.asarray(draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)))


@given(rows(), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_ece_is_its_formula(made, bins):
    chances, labels = probabilities(made[0]), made[1]
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i in range(len(labels)) if np.ceil(max(chances[i]) * bins) == m]
        if inside:
            right = sum(int(np.argmax(chances[i])) == labels[i] for i in inside) / len(inside)
            sure = sum(max(chances[i]) for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(right - sure)
    assert expected_calibration_error(chances, labels, bins=bins) == pytest.approx(total, abs=1e-12)


@given(rows())
@settings(max_examples=40, deadline=None)
def test_measures_are_their_formulas(made):
    chances, labels = probabilities(made[0]), made[1]
    wanted = np.eye(chances.shape[1])[labels]
    assert brier_score(chances, labels) == pytest.approx(np.mean(np.sum((chances - wanted) ** 2, 1)))
    loss = torch.nn.functional.cross_entropy(torch.tensor(made[0]), torch.tensor(labels))
    assert negative_log_likelihood(chances, labels) == pytest.approx(float(loss), rel=1e-6)
    for equal in (False, True):
        bins = reliability(chances, labels, equal_mass=equal)
        assert sum(one.rows for one in bins) == len(labels)
        weighed = sum(one.rows * one.accuracy for one in bins) / len(labels)
        assert weighed == pytest.approx(float((chances.argmax(1) == labels).mean()))
    sizes = [one.rows for one in reliability(chances, labels, equal_mass=True)]
    assert max(sizes) - min(sizes) <= 1


@given(rows())
@settings(max_examples=60, deadline=None)
def test_a_temperature_never_raises_the_loss_on_its_rows(made):
    logits, labels = made
    found = fit_temperature(logits, labels)
    scaled = probabilities(logits, found)
    best = negative_log_likelihood(scaled, labels)
    assert best <= negative_log_likelihood(probabilities(logits), labels) + 1e-9
    for other in (found * 1.1, found / 1.1):
        if 0.05 < other < 20:
            assert best <= negative_log_likelihood(probabilities(logits, other), labels) + 1e-9


def test_a_temperature_that_was_put_in_is_found():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20000, 4)) * 2
    labels = np.array([draw.choice(4, p=row) for row in probabilities(logits)])
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    found = measured(list(logits * 3), labels.tolist())
    assert found.before.ece > 0.1 and found.after.ece < 0.02
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).mean())


def test_each_row_has_the_temperature_of_the_other_half():
    draw = np.random.default_rng(1)
    logits, labels = draw.normal(size=(41, 3)), draw.integers(3, size=41)
    each, halves = cross_fitted(logits, labels)
    first = each == halves[1]
    assert first.sum() == 20 and (each[~first] == halves[0]).all()
    assert fit_temperature(logits[first], labels[first]) == pytest.approx(halves[0])
    changed = logits.copy()
    changed[first] *= 5
    again, _ = cross_fitted(changed, labels)
    assert (again[first] == each[first]).all() and (again[~first] != each[~first]).all()


def test_rows_with_fewer_choices():
    found = measured([np.array([1.0, 0.0]), np.array([0.0, 1.0, 0.5])] * 3, [0, 1] * 3)
    same = measured([np.array([1.0, 0.0, -np.inf]), np.array([0.0, 1.0, 0.5])] * 3, [0, 1] * 3)
    assert found == same and np.isfinite(found.after.nll)


@pytest.mark.parametrize(
    ("chances", "labels"), [(np.ones((0, 2)), []), (np.ones((2, 2)), [0]), (np.ones((2, 2)) / 2, [0, 2])]
)
def test_wrong_shapes_are_said(chances, labels):
    with pytest.raises(DataError, match="labels"):
        brier_score(chances, np.asarray(labels, dtype=int))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    files = write_tasks(folder / "data")[:3]
    base = write_base(folder / "base")
    mtl.MultiTaskModel.from_base(base, load_tasks(files)).save_pretrained(folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def found(run):
    import json

    (run / "run.yaml").write_text(
        json.dumps({"tasks": [str(run.parent / "data" / f"{t}.yaml") for t in ("mood", "alike", "names")]})
    )
    return calibrate(run)


def test_a_run_is_measured_and_told(run, found):
    direct = mtl.evaluate(run, tasks=["mood"])["mood"]
    assert list(found.tasks) == ["mood"] and set(found.left_out) == {"alike", "names"}
    assert found.tasks["mood"].accuracy == direct.metrics["accuracy"]
    assert found.tasks["mood"].before.nll == pytest.approx(direct.loss, rel=1e-4)
    told = next(one for one in read_findings(run) if one.name == "calibration")
    assert len(told.drawings) == 1 and told.drawings[0].svg.startswith("<svg")
    assert told.data["tasks"]["mood"]["rows"] == 8
    assert "regression" in told.data["left_out"]["alike"]
    assert any("mostly noise: mood" in sentence for sentence in told.said)


def test_the_command(run, found, capsys):
    assert (app(["calibrate", str(run)], standalone_mode=False) or 0) == 0
    out = capsys.readouterr().out
    assert "ECE" in out and "Left out: alike" in out
    with pytest.raises(ConfigError, match="names: its head token_classification"):
        app(["calibrate", str(run), "--task", "names"], standalone_mode=False)
