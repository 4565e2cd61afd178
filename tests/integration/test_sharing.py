"""Sharing schemes in training: resumed, cut into passes, over processes, with gradient balancers, and lent heads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nlp_mtl import MultiTaskModel
from nlp_mtl.errors import ConfigError
from nlp_mtl.run import train
from tests.integration.test_processes import agree, run
from tests.integration.tiny import config, state_of, write_base, write_tasks

LORA = {"r": 4, "target_modules": "all-linear"}
SCHEMES = {
    "soft": {"sharing": {"name": "soft", "penalty": 0.5}, "lora": LORA, "task_lora": LORA},
    "soft_encoders": {"sharing": "soft_encoders"},
    "branch": {"tree": {"depth": 1, "groups": {"texts": ["mood", "alike"]}}},
    "cross_stitch": {"sharing": {"name": "cross_stitch", "layers": 1}, "lora": LORA},
    "experts": {"sharing": "mixture_of_experts", "lora": LORA},
    "experts-token": {
        "sharing": {"name": "mixture_of_experts", "gates": "token", "private": 1, "top_k": 2},
        "lora": LORA,
    },
    "cross_task_attention": {"sharing": {"name": "cross_task_attention", "size": 8}},
    "conditioned": {"sharing": {"name": "hard", "condition": ["embedding", "layer_norm", "prefix"]}, "lora": LORA},
    "layers": {"heads": {"mood": {"layer": 1}, "names": {"layer": "mix"}}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {"tasks": write_tasks(folder / "data", rows=40), "base": write_base(folder / "base", dropout=0.1)}


def said(world, out, name, *, training=None, **changes):
    shape = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 2}
    return config(
        world["base"], world["tasks"], out, **{**SCHEMES[name], **changes}, training={**shape, **(training or {})}
    )


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_resumed_run_is_bit_for_bit_the_run(world, tmp_path, name):
    saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    whole = train(said(world, tmp_path / "whole", name, training=saved))
    train(said(world, tmp_path / "parts", name, training={**saved, "max_steps": 2}))
    parts = train(said(world, tmp_path / "parts", name, training=saved), resume=True)
    for key, value in state_of(whole.model).items():
        assert torch.equal(state_of(parts.model)[key], value), key
    back = MultiTaskModel.from_pretrained(tmp_path / "whole", base=world["base"])
    for key, value in state_of(whole.model).items():
        assert torch.equal(back.state_dict()[key], value), key


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_step_may_be_cut_into_any_passes(world, tmp_path, name):
    base = write_base(tmp_path / "base")  # without dropout, whose numbers depend on the cut
    shapes = {
        "one": {"per_device_train_batch_size": 12},
        "three": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    }
    states = [
        state_of(train(said({**world, "base": base}, tmp_path / key, name, training=shape)).model)
        for key, shape in shapes.items()
    ]
    for key, value in states[0].items():
        if key.endswith((".use", ".met", "key.bias")):
            continue  # sums in another order; attention's key bias has a gradient of rounding errors alone
        torch.testing.assert_close(
            states[1][key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.processes
@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_two_processes_equal_one(world, tmp_path, forked_python, name):
    rates = {"mood": 5, "alike": 1, "names": 3, "rainy": 3}  # counts differ, a task may be on one process only
    base = write_base(tmp_path / "base")
    shape = {"per_device_train_batch_size": 7, "max_steps": 3, "logging_steps": 1}
    changes = {"sampler": {"name": "fixed", "rates": rates}}
    more = {"one": {"gradient_accumulation_steps": 2}, "two": {}}
    told = {
        key: {"config": said({**world, "base": base}, tmp_path / key, name, **changes, training={**shape, **own})}
        for key, own in more.items()
    }
    log_one, state_one = run(forked_python, tmp_path, told["one"], name="one")
    log_two, state_two = run(forked_python, tmp_path, told["two"], processes=2, name="two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith(("loss_", "penalty")):
                assert b[key] == pytest.approx(a[key], abs=2e-5, rel=1e-3), key
    met = [key for key in state_one if key.endswith((".use", ".met"))]
    for state in (state_one, state_two):
        for key in met:
            state.pop(key)
    agree(state_two, state_one, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("balancer", ["pcgrad", "uncertainty"])
@pytest.mark.parametrize("name", sorted(set(SCHEMES) - {"soft_encoders"}))
def test_balancers_weigh_what_is_shared(world, tmp_path, name, balancer):
    made = train(said(world, tmp_path / "run", name, balancer=balancer))
    assert all(torch.isfinite(value).all() for value in state_of(made.model).values())


def test_separate_encoders_share_nothing_to_weigh(world, tmp_path):
    with pytest.raises(ConfigError, match="nothing shared is trained"):
        train(said(world, tmp_path / "run", "soft_encoders", balancer="pcgrad"))


def test_the_penalty_is_logged_and_pulls(world, tmp_path):
    def run_with(penalty, name):
        sharing = {"name": "soft", "penalty": penalty}
        return train(said(world, tmp_path / name, "soft", sharing=sharing, training={"max_steps": 12}))

    free, tied = run_with(1e-6, "free"), run_with(20.0, "tied")
    logged = [entry["penalty"] for entry in tied.trainer.state.log_history if "penalty" in entry]
    assert len(logged) == 6 and all(value >= 0 for value in logged)
    far = [float(made.model.sharing.penalty()) / made.model.sharing.strength for made in (free, tied)]
    assert far[1] < 0.5 * far[0]


@pytest.mark.parametrize("name", ["branch", "experts", "cross_task_attention", "conditioned", "cross_stitch"])
def test_a_task_with_a_lent_head_uses_all_that_its_lender_has(world, tmp_path, name):
    """As MNLI's mismatched rows beside MNLI: the same rows get the same answers."""
    tasks = [*world["tasks"], twin_of(world["tasks"][0], tmp_path)]
    made = train(said({**world, "tasks": tasks}, tmp_path / "run", name, training={"eval_strategy": "no"}))
    from nlp_mtl.prediction import predict

    answers = predict(made.model, [{"text": "good good cat"}, {"text": "bad dog"}], tasks=["mood", "again"])
    assert all(answer["again"] == answer["mood"] for answer in answers)


def twin_of(file, folder):
    """A task file with the head of `mood` on the same rows."""
    task = json.loads(Path(file).read_text(encoding="utf-8"))
    files = task["dataset"]["data_files"]
    task["dataset"]["data_files"] = {split: str(Path(file).parent / name) for split, name in files.items()}
    task.pop("labels")
    path = folder / "again.yaml"
    path.write_text(json.dumps({**task, "name": "again", "head_of": "mood"}), encoding="utf-8")
    return str(path)


def test_a_tree_beside_another_sharing_is_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="`tree` is of sharing: branch, found sharing: soft_encoders"):
        train(said(world, tmp_path / "run", "soft_encoders", tree={"depth": 1}))
