"""Regularizers in training: added once a step however it is made, resumed to the bit, handed on to the next run."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nlp_mtl import MultiTaskModel, checkpoint
from nlp_mtl.config import load_config
from nlp_mtl.errors import RunFolderError
from nlp_mtl.penalties import Penalties
from nlp_mtl.regularizers import L2SP, importance_of, load_importance
from nlp_mtl.run import train
from tests.integration.test_processes import agree, run
from tests.integration.test_resume import same
from tests.integration.tiny import config, state_of, write_base, write_tasks

LORA = {"r": 2, "target_modules": "all-linear", "lora_dropout": 0.1}
ALL = ["l2_sp", {"name": "ewc", "tasks": ["mood"], "rows": 6, "strength": 50.0}, "synaptic_intelligence"]
PLAIN = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data"), write_base(folder / "wet", dropout=0.1)


def settings(world, out, **changes):
    return config(world[0], world[1], out, **changes)


def penalties(run):
    log = run.trainer.state.log_history
    return {e["step"]: {k: v for k, v in e.items() if k.startswith("penalty")} for e in log if "loss" in e}


@pytest.mark.parametrize("tuning", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_six_steps_and_six_more_equal_twelve(world, tmp_path, tuning):
    shape = {
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": 4,
        "gradient_accumulation_steps": 2,
        "logging_steps": 4,
    }

    def one(name, resume=False):
        said = config(world[2], world[1], tmp_path / name, **tuning, regularizers=ALL, training=shape)
        return train(said, resume=resume)

    whole = one("whole")
    one("cut")
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-6":
            shutil.rmtree(folder)
    (tmp_path / "cut" / "importance.safetensors").unlink()
    resumed = one("cut", resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    assert penalties(whole) == penalties(resumed), "means over steps before and after the cut, too"
    found = load_importance(tmp_path / "cut")
    assert same(load_importance(tmp_path / "whole"), found)
    assert all(float(value.min()) >= 0 for value in found.values())


def test_values_are_logged_and_pull(world, tmp_path):
    def away(alpha, name):
        spec = {"name": "l2_sp", "alpha": alpha, "beta": 0.0}
        made = train(settings(world, tmp_path / name, regularizers=[spec], training=PLAIN))
        values = [entry["penalty_l2_sp"] for entry in made.trainer.state.log_history if "penalty_l2_sp" in entry]
        assert len(values) == 12
        assert values[0] == 0.0 < values[-1]
        return values[-1] / alpha

    assert away(15.0, "near") < 0.5 * away(1e-4, "far")


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"balancer": "pcgrad"},
        {"balancer": "uncertainty"},
        {"tokens_per_pass": 40},
        {"training": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}},
        {"training": {"activation_checkpointing": True}},
    ],
    ids=["plain", "gradients", "losses", "passes", "accumulated", "recomputed"],
)
def test_it_is_added_once_a_step_and_is_not_weighed(world, tmp_path, way):
    """In the first step the heads move by rate · β · their weights more than without."""

    def one(name, regularizers):
        shape = {**PLAIN, "max_steps": 1, **way.get("training", {})}
        changes = {key: value for key, value in way.items() if key != "training"}
        said = settings(world, tmp_path / name, **changes, regularizers=regularizers, training=shape)
        return state_of(train(said).model)

    free, held = one("free", []), one("held", [{"name": "l2_sp", "beta": 2.0}])
    for name, value in free.items():
        if name.startswith("sharing."):
            assert torch.allclose(held[name], value, atol=1e-7), name
    heads = {name: value for name, value in free.items() if name.startswith("modules_.")}
    start = one("start", [{"name": "l2_sp", "beta": 1.0}])
    assert heads
    for name, value in heads.items():  # −0.05 · 2 · w⁰, and half of that
        assert torch.allclose(held[name] - value, 2 * (start[name] - value), atol=1e-7), name
    assert any(not torch.equal(held[name], value) for name, value in heads.items())


def test_importance_goes_from_stage_to_stage(world, tmp_path):
    files = world[1]
    carry = {"name": "ewc", "carry": True, "rows": 8}
    stages = [
        {"name": "first", "tasks": files[:1], "regularizers": [carry]},
        {
            "name": "second",
            "tasks": files[1:2],
            "regularizers": [{**carry, "strength": 1e4, "importance": str(tmp_path / "run" / "1-first")}],
        },
    ]
    made = train({**settings(world, tmp_path / "run", training={"max_steps": 4}), "stages": stages})
    first, second = (load_importance(tmp_path / "run" / name) for name in ("1-first", "2-second"))
    assert all((second[name] >= value).all() for name, value in first.items())
    assert any((second[name] > value).any() for name, value in first.items())
    values = [entry["penalty_ewc"] for entry in made.trainer.state.log_history if "penalty_ewc" in entry]
    assert values[0] == 0.0 < values[-1]
    train({**settings(world, tmp_path / "run", training={"max_steps": 2}), "tasks": files[:1]}, overwrite=True)
    assert not (tmp_path / "run" / "1-first").exists()


def test_tasks_that_do_not_learn_are_not_important(world, tmp_path):
    """Their heads begin anew or are an earlier run's: what they would need of the weights is not this run's."""
    carry = {"name": "ewc", "carry": True, "rows": 8}
    made = train(settings(world, tmp_path / "run", regularizers=[carry], train_tasks=["mood"]))
    found = load_importance(tmp_path / "run")
    wanted = importance_of(made.model, made.trainer.data, ["mood"], rows=8)
    assert same(found, {name: value.detach() for name, value in wanted.items()})


@pytest.mark.parametrize("more", [{}, {"balancer": {"name": "a_gem", "memory": ["mood"]}}], ids=["others", "memory"])
def test_heads_that_do_not_learn_are_left_alone(world, tmp_path, more):
    """The penalty of what stands where it started is 0, and so is its gradient; weight decay would move it then."""
    learning = ["mood", "names"] if more else ["names"]
    train(settings(world, tmp_path / "start", training={"max_steps": 2}))
    changes = {"init_from": str(tmp_path / "start"), "regularizers": ["l2_sp"], "train_tasks": learning, **more}
    made = train(settings(world, tmp_path / "run", **changes, training={"max_steps": 2, "weight_decay": 0.5}))
    before = MultiTaskModel.from_pretrained(tmp_path / "start").modules_
    for task in ("mood", "alike", "names"):
        assert same(before[task].state_dict(), made.model.modules_[task].state_dict()) == (task != "names"), task


def test_what_it_begins_with_is_recorded_without_its_place(world, tmp_path, monkeypatch):
    """Of this machine a run folder knows nothing; its run file says the way from there, as with `init_from`."""
    train(settings(world, tmp_path / "first", regularizers=[{"name": "ewc", "carry": True, "rows": 4}]))
    for place in (str(tmp_path / "first"), "first"):
        monkeypatch.chdir(tmp_path)
        kept = {"name": "ewc", "importance": place}
        said = settings(world, tmp_path / "out" / "run", init_from=place, regularizers=kept)
        train(said, ["training.max_steps=1"], overwrite=True)
        spec = json.loads((tmp_path / "out" / "run" / "nlp_mtl.json").read_text())
        assert spec["strategies"]["regularizers"] == [{"name": "ewc", "importance": "first"}]
    monkeypatch.chdir(tmp_path / "out")
    said = load_config(tmp_path / "out" / "run" / "run.yaml")
    assert load_importance(said.regularizers[0]["importance"])


def test_one_alone_needs_no_list(world):
    model = MultiTaskModel.from_base(world[0], world[1][:1])
    for one in ("l2_sp", {"name": "l2_sp", "alpha": 1.0}, L2SP(alpha=1.0), ["l2_sp"], ()):
        found = Penalties(one, model, None)
        assert list(found.made) == (["l2_sp"] if one else [])
        assert len(found.said(one)) == len(found.made)


def test_synaptic_intelligence_goes_on_in_the_next_run(world, tmp_path):
    files = world[1]
    first = {**settings(world, tmp_path / "one", regularizers=["synaptic_intelligence"]), "tasks": files[:1]}
    made = train(first)
    assert not [entry for entry in made.trainer.state.log_history if any("penalty" in key for key in entry)]
    spec = {"name": "synaptic_intelligence", "importance": str(tmp_path / "one"), "strength": 0.1}
    said = settings(world, tmp_path / "two", regularizers=[spec], init_from=str(tmp_path / "one"))
    made = train({**said, "tasks": files[1:2]})
    values = [e["penalty_synaptic_intelligence"] for e in made.trainer.state.log_history if "loss" in e]
    assert values[0] == 0.0 < values[-1]
    before, after = load_importance(tmp_path / "one"), load_importance(tmp_path / "two")
    assert all((after[name] >= value).all() for name, value in before.items())


def test_a_checkpoint_of_other_regularizers_is_refused(world, tmp_path):
    shape = {"save_strategy": "steps", "save_steps": 6}
    train(settings(world, tmp_path / "run", training=shape))
    with pytest.raises(RunFolderError, match=r"other regularizers: its are none, this run's are l2_sp"):
        train(settings(world, tmp_path / "run", regularizers=["l2_sp"], training=shape), resume=True)


@pytest.mark.processes
def test_two_processes_equal_one(world, tmp_path, forked_python):
    regularizers = [{"name": "l2_sp", "alpha": 1.0}, *ALL[1:]]
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 6}
    one = {"config": settings(world, tmp_path / "one", regularizers=regularizers, training=shape)}
    halves = {**shape, "gradient_accumulation_steps": 1}
    two = {"config": settings(world, tmp_path / "two", regularizers=regularizers, training=halves)}
    log_one, state_one = run(forked_python, tmp_path, one, name="regularized-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name="regularized-two")
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith(("loss", "grad_norm", "penalty")):
                assert b[key] == pytest.approx(a[key], abs=1e-5, rel=1e-4), key
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)


UNEVEN = """
import os, torch
from nlp_mtl.registry import regularizers
from nlp_mtl.regularizers import Anchored

@regularizers.register("uneven")
class Uneven(Anchored):
    "On each process another one begins, as where gradients are summed in another order."

    def begin(self):
        weight = torch.tensor(1.0 + float(os.environ.get("RANK", 0)))
        known = {name: p for name, p in self.model.named_parameters() if name.startswith("modules_.")}
        self.hold(dict.fromkeys(known, weight), dict.fromkeys(known, torch.tensor(0.0)))
"""


@pytest.mark.processes
def test_all_processes_begin_with_what_the_first_has(world, tmp_path, forked_python):
    """Else their weights would drift apart: what is added to gradients is added on each by itself."""
    (tmp_path / "uneven.py").write_text(UNEVEN)
    mine = {"imports": [str(tmp_path / "uneven.py")], "regularizers": ["uneven"]}
    one = {"config": settings(world, tmp_path / "one", **mine, training={**PLAIN, "max_steps": 4})}
    shape = {**PLAIN, "max_steps": 4, "per_device_train_batch_size": 4}
    two = {"config": settings(world, tmp_path / "two", **mine, training=shape)}
    _, state_one = run(forked_python, tmp_path, one, name="uneven-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name="uneven-two")
    assert len(set(log_two["digests"])) == 1
    agree(state_two, state_one, atol=1e-5, rtol=1e-4)
