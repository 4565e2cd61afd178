"""Probes find where a task lives, and a head reads what they chose."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.distillation.outputs import outputs_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.exporting.export import export_task
from nlp_mtl.heads.few import only
from nlp_mtl.layout import Layout
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import Packed
from nlp_mtl.probing.features import Features, features_of
from nlp_mtl.probing.sparse import best, probes
from nlp_mtl.probing.study import probe
from nlp_mtl.run import train
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import config, write_base, write_tasks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {"tasks": write_tasks(folder / "data", rows=40), "base": write_base(folder / "base")}


def planted(place, layer, *, rows=240, width=12, seed=0):
    """Noise at three layers; at one of them a dimension says the label."""
    random = np.random.default_rng(seed)
    found = {number: random.normal(size=(rows, width)).astype("float32") for number in (1, 2, 3)}
    return Features(found, (found[layer][:, place] > 0).astype(int), np.arange(rows))


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 11), st.integers(1, 3), st.integers(0, 50))
def test_what_was_planted_is_found(place, layer, seed):
    found = best(
        probes(planted(place, layer, seed=seed), planted(place, layer, seed=seed + 99), [0, 1], numbers=False),
        within=0.05,
    )
    assert (found.layer, found.dimensions) == (layer, [place])
    assert found.score > 0.8


def test_values_are_found_too():
    some = planted(4, 2)
    values = Features(some.layers, some.layers[2][:, 4] * 3 + 1, some.groups)
    one = best(probes(values, None, [1], numbers=True))
    assert (one.layer, one.dimensions, one.score) == (2, [4], None)
    assert one.held_out > 0.99


def test_tokens_of_a_row_are_on_one_side():
    some = planted(0, 1, rows=60)
    twice = Features(
        {n: np.concatenate([x, x]) for n, x in some.layers.items()},
        np.random.default_rng(0).integers(0, 2, 60).repeat(1),
        some.groups,
    )
    noise = Features(
        twice.layers, np.concatenate([twice.labels, twice.labels]), np.concatenate([some.groups, some.groups])
    )
    # labels are chance: a copy on the other side would be recognized
    assert max(one.held_out for one in probes(noise, None, [0], numbers=False)) < 0.85


def test_features_are_what_the_encoder_gives_at_each_layer(world):
    model = MultiTaskModel.from_base(world["base"], world["tasks"], freeze="*")
    for head in model.heads.values():
        if hasattr(head, "pooling"):
            head.pooling = "mean"
    data = load_data(model.heads, model.tokenizer, max_length=model.max_length)
    found = features_of(model, data, "mood", "train", most=7, seed=3)
    pool = data.pool_of("mood", "train")
    assert set(found.layers) == {1, 2}
    for unit, row in enumerate(found.groups):
        ids = torch.tensor([np.asarray(pool.row(int(row))["input_ids"]).tolist()])
        with torch.inference_mode():
            out = model.sharing.encoder(input_ids=ids, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            torch.testing.assert_close(
                torch.tensor(found.layers[layer][unit]), out[layer][0].mean(0), atol=1e-5, rtol=1e-4
            )
    assert found.labels.tolist() == [pool.labels("mood")[int(row)] for row in found.groups]


def test_a_run_reads_what_the_probe_chose(world, tmp_path):
    found = probe(world["base"], world["tasks"][:3], dimensions=(0, 4), rows=40, within=0.5)
    heads = found.heads()
    assert all(len(said["dimensions"]) == 4 for said in heads.values())
    shape = {"max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "epoch"}
    made = train(
        config(world["base"], world["tasks"][:3], tmp_path / "run", freeze="*", heads=heads, training=shape)
    ).model
    again = MultiTaskModel.from_pretrained(tmp_path / "run", base=world["base"])
    for task, said in heads.items():
        assert (again.heads[task].layer, again.heads[task].dimensions) == (said["layer"], said["dimensions"])
        assert again.heads[task].dimensions == made.heads[task].dimensions
    json.dumps(found.as_json())


def test_a_head_sees_nothing_of_other_dimensions():
    hidden = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    packed = Packed(hidden, Layout([2, 3], torch.device("cpu")))
    seen = only(packed, [1, 6]).hidden
    assert torch.equal(seen[:, [1, 6]], hidden[:, [1, 6]])
    assert seen.abs().sum(0).nonzero().flatten().tolist() == [1, 6]
    assert only(packed, None) is packed


@pytest.mark.parametrize("pooling", ["mean", "family"])
def test_what_it_does_not_read_changes_no_answer(pooling):
    model = tiny_model(["cola"], heads={"cola": {"dimensions": [0, 3], "pooling": pooling}}).eval()
    module, head = model.module_of("cola"), model.heads["cola"]
    hidden = torch.randn(4, model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    other = hidden.clone()
    other[:, 5:] += 1
    target = {"sequences": torch.tensor([0, 1])}
    layout = Layout([2, 2], torch.device("cpu"))
    with torch.inference_mode():
        one, two = (head.forward(module, only(Packed(x, layout), head.dimensions), target) for x in (hidden, other))
    assert torch.equal(one, two)


FEW = {"mood": {"dimensions": [0, 3, 9]}, "names": {"dimensions": [1, 2]}}


def test_a_teacher_says_what_its_head_sees(world):
    model = tiny_model(load_tasks(world["tasks"][:3]), heads=FEW).eval()
    data = load_data(model.heads, model.tokenizer, max_length=64, splits=("train",))
    for task in FEW:
        pool = data.pool_of(task, "train")
        batch = Collator([pool], {task: model.heads[task]})([(0, row, -1) for row in range(4)])
        with torch.inference_mode():
            wanted = model(**batch)["logits"][task]
        said = outputs_of(model, [task], pool, hidden=True)[task]
        found, states = (np.concatenate([said.row(row)[part] for row in range(4)]) for part in (0, 1))
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)
        assert np.flatnonzero(np.abs(states).sum(0)).tolist() == FEW[task]["dimensions"]


def test_a_graph_sees_what_the_head_sees(world, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    model = tiny_model(load_tasks(world["tasks"][:3]), heads=FEW).eval()
    export_task(model, list(FEW), tmp_path / "out", "onnx", precision="fp32")  # it compares, and keeps what agrees
    for more in ({}, {"custom_code": True}):
        with pytest.raises(UnsupportedError, match=r"`dimensions` is not what the vanilla class .* be had: --as onnx$"):
            export_task(model, "mood", tmp_path / "folder", **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "each once, found \\[\\]"),
        ([1, 1], "each once"),
        ([0, 999], "are from 0 to"),
        ("3", "each once"),
        ([True], "each once"),
    ],
)
def test_dimensions_that_are_none_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        tiny_model(["cola"], heads={"cola": {"dimensions": given}})


def test_bad_arguments_are_told_at_once(world):
    with pytest.raises(ConfigError) as caught:
        probe(world["base"], world["tasks"], dimensions=(-1,), rows=2, within=2, pooling="max")
    assert len(caught.value.mistakes) == 4
    with pytest.raises(UnsupportedError, match="has no single label"):
        probe(world["base"], [_multiple()], rows=8)


def _multiple():
    rows = [{"text": f"dog {i}", "label": ["a", "b"] if i % 2 else ["a"]} for i in range(24)]
    return Task.from_data("several", rows, head="multi_label")
