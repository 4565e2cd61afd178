"""Laws of CKA and of attributions, and a run that is looked at with both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.errors import ConfigError
from nlp_mtl.findings import read_findings
from nlp_mtl.interpretation.attributions import attributions
from nlp_mtl.interpretation.cka import cka, hsic
from nlp_mtl.interpretation.comparing import compare_states
from nlp_mtl.interpretation.study import interpret, probe_run
from nlp_mtl.run import train
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import config, write_base, write_tasks


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@given(st.integers(0, 1000), st.floats(0.01, 100))
@settings(max_examples=25)
def test_cka_knows_no_rotation_scale_or_shift(seed, scale):
    x, y = draw(seed, 30, 6), draw(seed + 1, 30, 9)
    turn, _ = np.linalg.qr(draw(seed + 2, 6, 6))
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, scale * x @ turn + 3) == pytest.approx(1)
    assert cka(x, y) == pytest.approx(cka(y, x))
    assert cka(x, y) == pytest.approx(cka(scale * x @ turn - 1, y), abs=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_hsic_is_its_formula(seed):
    n = 7
    x, y = draw(seed, n, 3), draw(seed + 1, n, 4)
    k, j = x @ x.T, y @ y.T
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    triples = [(a, b, c) for a, b in pairs for c in range(n) if c not in (a, b)]
    fours = [(a, b, c, d) for a, b, c in triples for d in range(n) if d not in (a, b, c)]
    first = np.mean([k[a, b] * j[a, b] for a, b in pairs])
    second = np.mean([k[a, b] * j[c, d] for a, b, c, d in fours])
    third = np.mean([k[a, b] * j[a, c] for a, b, c in triples])
    assert hsic(k, j) == pytest.approx(first + second - 2 * third, abs=1e-9)


def test_wide_states_of_few_texts_are_not_alike_by_chance():
    found = [cka(draw(seed, 20, 400), draw(seed + 99, 20, 400)) for seed in range(20)]
    assert abs(np.mean(found)) < 0.05


def test_attributions_are_complete_and_leave_no_trace():
    model = tiny_model(["cola", "sst2", "stsb"]).eval()
    with torch.no_grad():
        for p in model.sharing.parameters():
            p.mul_(2.0)
    before = [p.requires_grad for p in model.parameters()]
    found, notes = attributions(model, "the good cat was in a red house", steps=100)
    assert [one.task for one in found] == ["cola", "sst2"] and "stsb" in notes[0]
    for one in found:
        assert one.words[1:-1] == "the good cat was in a red house".split()
        assert abs(one.delta) < 0.02 * max(1.0, sum(map(abs, one.values)))
        assert one.values[0] == pytest.approx(0, abs=1e-5), "special tokens are in the baseline, too"
    few, _ = attributions(model, "the good cat was in a red house", ["cola"], steps=2)
    assert abs(found[0].delta) <= abs(few[0].delta) + 1e-3
    assert [p.requires_grad for p in model.parameters()] == before


@pytest.mark.parametrize(
    "tuning", [{}, {"task_lora": {"r": 2, "target_modules": "all-linear"}}], ids=["hard", "task_lora"]
)
def test_a_run_is_looked_at(tmp_path, tuning):
    files = write_tasks(tmp_path / "data", rows=40)
    base = write_base(tmp_path / "base")
    run = tmp_path / "run"
    training = {"max_steps": 4, "learning_rate": 3e-2}
    train(config(base, files[:2], run, **tuning, training=training))
    found, _ = interpret(run, "a good cat", ["mood"], steps=8, base=base)
    assert found[0].task == "mood"
    made = compare_states(run, rows=8, base=base)
    names = ["pretrained", "run"] if not tuning else ["pretrained", "mood", "alike"]
    assert made.data["names"] == names
    for values in made.data["layers"].values():
        assert values[-1] < 1 - 1e-6, "training moved it"
        assert values[0] > 1 - 1e-6 or not tuning, "adapters leave the embeddings as they are"
    assert np.allclose(np.diag(made.data["last"]), 1)
    if tuning:
        assert made.data["last"][1][2] < 1 - 1e-6, "each task has an encoder of its own"
        assert made.data["tasks"]["mood"].keys() == {"mood", "alike"}, "each encoder reads each task's texts"
    else:
        assert made.data["layers"].keys() == {"mood", "alike"}, "one encoder, on each task's own texts"
        assert probe_run(run, rows=20, base=base).data["scores"].keys() == {"mood", "alike"}
    assert {"cka", "interpretation"} <= {one.name for one in read_findings(run)}
    with pytest.raises(ConfigError, match="`rows` is a whole number from 4"):
        compare_states(run, rows=2)
