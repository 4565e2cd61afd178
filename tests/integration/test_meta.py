"""First-order meta-learning: tasks walk by themselves inside a step."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl.batches import passes_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.run import train
from nlp_mtl.starting import read_run, trainer_of
from tests.integration.tiny import config, state_of, write_base, write_tasks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {"tasks": write_tasks(folder / "data", rows=40), "base": write_base(folder / "base")}


def said(world, out, balancer, *, training=None, **changes):
    shape = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "save_strategy": "no"}
    shape |= {"gradient_accumulation_steps": 3, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    return config(
        world["base"], world["tasks"], out, balancer=balancer, training={**shape, **(training or {})}, **changes
    )


def close(one, other, tolerance=1e-6):
    for key, value in one.items():
        torch.testing.assert_close(
            other[key], value, atol=tolerance, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_reptile_with_one_inner_step_is_training_with_equal_weights(world, tmp_path):
    one = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 24}
    plain = train(said(world, tmp_path / "plain", "equal", training=one))
    ours = train(said(world, tmp_path / "ours", {"name": "reptile", "inner_rate": 0.3}, training=one))
    close(state_of(plain.model), state_of(ours.model))


@pytest.mark.parametrize("name", ["reptile", "fomaml"])
def test_the_update_is_what_walking_by_hand_gives(world, tmp_path, name):
    """θ − lr · mean over tasks of (mean, or last, of the gradients on the way); one step, SGD."""
    rate, outer = 0.2, 0.1
    keys = said(
        world, tmp_path / "run", {"name": name, "inner_rate": rate}, training={"max_steps": 1, "learning_rate": outer}
    )
    trainer = trainer_of(*read_run(keys))
    model = trainer.model
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    loader = iter(trainer.get_train_dataloader())
    parts = [part for _ in range(3) for part in passes_of(next(loader))]
    assert all(len(part["targets"]) == 1 for part in parts)
    expected = {key: torch.zeros_like(value) for key, value in start.items()}
    present = {task for part in parts for task in part["targets"]}
    model.train()
    for task in present:
        met = []
        for part in (part for part in parts if task in part["targets"]):
            model.zero_grad()
            model(**part, return_logits=False)["loss"].backward()
            met.append(
                {key: torch.zeros_like(p) if p.grad is None else p.grad.clone() for key, p in model.named_parameters()}
            )
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    parameter -= rate * met[-1][key]
        for key in expected:
            found = met[-1][key] if name == "fomaml" else sum(one[key] for one in met) / len(met)
            expected[key] += found / len(present)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.copy_(start[key])
    model.zero_grad()
    trainer.train()
    close({key: start[key] - outer * expected[key] for key in start}, dict(model.named_parameters()))


def test_tasks_that_do_not_learn_stay_as_they_are(world, tmp_path):
    """A gradient of zeros is none: weight decay, and what an optimizer remembers, would move what nobody trains."""
    keys = said(
        world,
        tmp_path / "run",
        {"name": "reptile", "inner_rate": 0.05},
        train_tasks=["names"],
        training={"optim": "adamw_torch", "weight_decay": 0.5},
    )
    trainer = trainer_of(*read_run(keys))
    start = state_of(trainer.model)
    trainer.train()
    now = state_of(trainer.model)
    still = [key for key in start if torch.equal(start[key], now[key])]
    assert {key for key in start if "mood" in key or "alike" in key or "rainy" in key} <= set(still)
    assert not any("names" in key for key in still)


@pytest.mark.parametrize("name", ["reptile", "fomaml"])
def test_a_resumed_run_is_bit_for_bit_the_run(world, tmp_path, name):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "optim": "adamw_torch"}
    balancer = {"name": name, "inner_rate": 0.05}
    whole = train(said(world, tmp_path / "whole", balancer, training=saved))
    train(said(world, tmp_path / "parts", balancer, training={**saved, "max_steps": 2}))
    parts = train(said(world, tmp_path / "parts", balancer, training=saved), resume=True)
    for key, value in state_of(whole.model).items():
        assert torch.equal(state_of(parts.model)[key], value), key


def test_losses_of_every_task_are_recorded(world, tmp_path):
    from nlp_mtl.stepsfile import read_steps

    made = train(said(world, tmp_path / "run", "reptile", training={"save_strategy": "epoch", "max_steps": 4}))
    for line in read_steps(tmp_path / "run"):
        assert set(line["losses"]) <= set(made.model.tasks)
        assert len(line["losses"]) > 1
        assert sum(line["weights"].values()) == pytest.approx(1.0, abs=1e-5)


def test_what_does_not_go_together_is_refused_before_training(world, tmp_path):
    with pytest.raises(ConfigError, match="gradient_accumulation_steps` is at least 2, found 1; say 3"):
        train(said(world, tmp_path / "one", "fomaml", training={"gradient_accumulation_steps": 1}))
    with pytest.raises(UnsupportedError, match="`tokens_per_pass` cuts micro-batches"):
        train(said(world, tmp_path / "two", "reptile", tokens_per_pass=200))
    with pytest.raises(ConfigError, match="`inner_rate` is a number from 0, found -1"):
        train(said(world, tmp_path / "three", {"name": "reptile", "inner_rate": -1}))
    assert not any((tmp_path / name).exists() for name in ("one", "two", "three"))


def test_rows_of_other_tasks_that_a_teacher_speaks_on_are_refused_and_not_left_out(world, tmp_path):
    train(said(world, tmp_path / "first", "equal", training={"max_steps": 1, "save_strategy": "epoch"}))
    kept = {"teacher": "start", "tasks": ["mood"], "on": ["rainy"]}
    both = {"init_from": str(tmp_path / "first"), "distillation": kept, "train_tasks": ["rainy", "alike"]}
    with pytest.raises(UnsupportedError, match="`distillation` with `on` reads rows"):
        train(said(world, tmp_path / "second", "reptile", **both))
