"""Tuning regimes in training: only what they name moves, in the steps they name, and resumed to the bit."""

from __future__ import annotations

import shutil

import pytest
import torch

from nlp_mtl import MultiTaskModel, checkpoint
from nlp_mtl.exporting.export import export_task
from nlp_mtl.run import evaluate, train
from tests.integration.test_processes import agree, run
from tests.integration.test_resume import losses, same
from tests.integration.tiny import config, state_of, write_base, write_tasks

SLOWLY = {"name": "gradual_unfreezing", "every": 4, "unit": "steps", "first": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data"), write_base(folder / "wet", dropout=0.1)


def settings(world, out, **changes):
    return config(world[0], world[1], out, **changes)


def whole_state(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("balancer", ["equal", "pcgrad"])
@pytest.mark.parametrize("tuning", ["bitfit", "layer_norm", {"name": "last_layers", "count": 1}], ids=str)
def test_only_what_it_names_moves(world, tmp_path, tuning, balancer):
    start = whole_state(MultiTaskModel.from_base(world[0], world[1]))
    made = train(settings(world, tmp_path / "run", tuning=tuning, balancer=balancer))
    named = {name for name, p in made.model.named_parameters() if p.requires_grad}
    moved = {name for name, value in whole_state(made.model).items() if not torch.equal(value, start[name])}
    assert moved <= named
    assert len({name for name in named if name.startswith("sharing.")} & moved) > 3
    again = MultiTaskModel.from_pretrained(tmp_path / "run")
    assert {name for name, p in again.named_parameters() if p.requires_grad} == named
    found = {task: score.metrics for task, score in evaluate(tmp_path / "run").items()}
    assert found == {task: score.metrics for task, score in made.scores.items()}
    export_task(tmp_path / "run", "mood", tmp_path / "mood")
    assert (tmp_path / "mood" / "config.json").is_file()


def moves_by_step(world, out, tuning, steps=12, **changes):
    """For each step, which heights of the encoder it moved."""
    from transformers import TrainerCallback

    from nlp_mtl.depth import heights
    from nlp_mtl.starting import read_run, trainer_of

    said, args = read_run(settings(world, out, tuning=tuning, **changes))
    trainer = trainer_of(said, args)
    encoder, found = trainer.model.sharing.encoder, []
    high = heights(encoder)

    class Watch(TrainerCallback):
        def on_step_begin(self, *given, **named):
            self.before = {name: p.detach().clone() for name, p in encoder.named_parameters()}

        def on_step_end(self, *given, **named):
            moved = [n for n, p in encoder.named_parameters() if not torch.equal(p, self.before[n])]
            found.append({high[name] for name in moved})

    trainer.add_callback(Watch())
    trainer.train()
    return found, trainer


@pytest.mark.parametrize("balancer", ["equal", "pcgrad", "uncertainty"])
def test_layers_are_trained_from_the_top_down(world, tmp_path, balancer):
    found, trainer = moves_by_step(world, tmp_path / "run", SLOWLY, balancer=balancer, training={"max_steps": 14})
    assert found == [{3}] * 4 + [{2, 3}] * 4 + [{1, 2, 3}] * 4 + [{0, 1, 2, 3}] * 2
    assert all(p.requires_grad for p in trainer.model.parameters())
    counts = {name: trainer.optimizer.state[p]["step"] for name, p in trainer.model.sharing.encoder.named_parameters()}
    assert counts["embeddings.word_embeddings.weight"] == 2
    assert counts["encoder.layer.0.output.dense.weight"] == 6
    assert counts["encoder.layer.1.output.dense.weight"] == 10


def test_by_epochs(world, tmp_path):
    found, trainer = moves_by_step(world, tmp_path / "run", "gradual_unfreezing", training={"max_steps": 60})
    steps = trainer.plan.steps
    assert 2 * steps < 60
    heights = [{2, 3}] * steps + [{1, 2, 3}] * steps + [{0, 1, 2, 3}] * (60 - 2 * steps)
    assert found == heights


def test_with_all_at_once_it_is_full_fine_tuning(world, tmp_path):
    full = train(settings(world, tmp_path / "full"))
    said = {"name": "gradual_unfreezing", "every": 1, "unit": "steps", "first": 2}
    most = train(settings(world, tmp_path / "most", tuning=said, freeze="embeddings.*"))
    same_as = train(settings(world, tmp_path / "same", freeze="embeddings.*"))
    assert same(state_of(most.model), state_of(same_as.model))
    assert not same(state_of(most.model), state_of(full.model))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("at", [3, 6, 9])
def test_cut_off_at_any_step_it_goes_on_to_the_same_bits(world, tmp_path, at, weight_decay):
    """Layers join at steps 4, 8 and 12, between the checkpoints; those below have no state yet."""
    shape = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 4, "gradient_accumulation_steps": 2}
    shape |= {"weight_decay": weight_decay}

    def one(name, resume=False):
        more = {"tuning": SLOWLY, "regularizers": ["l2_sp"], "training": shape}
        return train(config(world[2], world[1], tmp_path / name, **more), resume=resume)

    whole = one("whole")
    one("cut")
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != f"checkpoint-{at}":
            shutil.rmtree(folder)
    resumed = one("cut", resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    assert losses(whole) == losses(resumed)


def test_new_top_layers_in_a_run_that_starts_from_another(world, tmp_path):
    train(settings(world, tmp_path / "one", training={"max_steps": 2}))
    said = settings(world, tmp_path / "two", init_from=str(tmp_path / "one"), reinit_top_layers=1)
    made = train({**said, "training": {**said["training"], "max_steps": 1, "learning_rate": 0.0}})
    before = MultiTaskModel.from_pretrained(tmp_path / "one").sharing.encoder.state_dict()
    after = made.model.sharing.encoder.state_dict()
    assert torch.equal(*(s["encoder.layer.0.output.dense.weight"] for s in (before, after)))
    assert not torch.equal(*(s["encoder.layer.1.output.dense.weight"] for s in (before, after)))


def test_layers_begin_anew_once_and_not_in_every_stage(world, tmp_path):
    """What the first stage learned there stays, unless a stage says it itself."""
    still = {"training": {"learning_rate": 0.0, "max_steps": 1}}
    stages = [{"name": "one"}, {"name": "kept", **still}, {"name": "anew", **still, "reinit_top_layers": 1}]
    said = settings(world, tmp_path / "run", reinit_top_layers=1, training={"max_steps": 2})
    train({**said, "stages": [*stages, {"name": "start", **still, "init_from": None}]})
    names = ("1-one", "2-kept", "3-anew", "4-start")
    one, kept, anew, start = (MultiTaskModel.from_pretrained(tmp_path / "run" / n).sharing.encoder for n in names)
    assert same(one.state_dict(), kept.state_dict())
    top, low = "encoder.layer.1.output.dense.weight", "encoder.layer.0.output.dense.weight"
    assert torch.equal(kept.get_parameter(low), anew.get_parameter(low))
    assert not torch.equal(kept.get_parameter(top), anew.get_parameter(top))
    assert torch.equal(anew.get_parameter(top), start.get_parameter(top)), "by the seed"
    assert not torch.equal(anew.get_parameter(low), start.get_parameter(low))


@pytest.mark.processes
def test_two_processes_equal_one(world, tmp_path, forked_python):
    changes = {"tuning": SLOWLY, "regularizers": ["l2_sp"]}
    changes["sampler"] = {"name": "fixed", "rates": {"mood": 5, "alike": 1, "names": 3, "rainy": 3}}
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 14}
    one = {"config": settings(world, tmp_path / "one", **changes, training=shape)}
    halves = {**shape, "gradient_accumulation_steps": 1}
    two = {"config": settings(world, tmp_path / "two", **changes, training=halves)}
    log_one, state_one = run(forked_python, tmp_path, one, name="unfreezing-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name="unfreezing-two")
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith(("loss", "grad_norm")):
                assert b[key] == pytest.approx(a[key], abs=1e-5, rel=1e-4), key
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)
