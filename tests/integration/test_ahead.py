"""Batches collated ahead, as on accelerators: the same run to the bit, resumed or not, and no thread is left."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import pytest
import torch
from transformers import TrainerCallback

import nlp_mtl.checkpoint as checkpoint
from nlp_mtl.feeding import MixedBatches
from nlp_mtl.run import train
from tests.integration.tiny import config, state_of, write_base, write_tasks

SAVING = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 3, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base", dropout=0.1), write_tasks(folder / "data")


@pytest.fixture
def ahead(monkeypatch):
    """As on an accelerator; notes in which threads rows are read. No thread is left at the end."""
    used = set()
    real = MixedBatches.get_batch_samples

    def noting(self, *given):
        found = real(self, *given)
        used.update(thread.name for thread in threading.enumerate())
        return found

    monkeypatch.setattr(MixedBatches, "_collates_ahead", lambda self, device: True)
    monkeypatch.setattr(MixedBatches, "get_batch_samples", noting)
    yield used
    assert "nlp_mtl-batches" in used
    assert not [thread for thread in threading.enumerate() if thread.name == "nlp_mtl-batches"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    return state_of(train(config(*world, tmp_path_factory.mktemp("plain") / "run", training=SAVING)).model)


def test_it_is_the_same_run(world, plain, ahead, tmp_path):
    assert same(plain, state_of(train(config(*world, tmp_path / "run", training=SAVING)).model))


def test_a_resumed_run_too(world, plain, ahead, tmp_path):
    train(config(*world, tmp_path / "cut", training=SAVING))
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-6":  # in the middle of an epoch
            shutil.rmtree(folder)
    assert same(plain, state_of(train(config(*world, tmp_path / "cut", training=SAVING), resume=True).model))


class At(TrainerCallback):
    def __init__(self, action):
        self.action = action

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 4:
            self.action()


def trainer_of(world, out, action, **more):
    import nlp_mtl as mtl
    from nlp_mtl.config import RunConfig
    from nlp_mtl.starting import training_arguments

    said = config(*world, out, training=more)
    model = mtl.MultiTaskModel.from_base(said["model"], said["tasks"], max_length=64, seed=42)
    args = training_arguments(RunConfig(**said), "x")
    return mtl.MultiTaskTrainer(model, args, precision="args", callbacks=[At(action)])


def test_no_thread_is_left_after_an_error(world, ahead, tmp_path):
    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        trainer_of(world, tmp_path / "run", fail).train()


@pytest.mark.parametrize("times", [1, 2])
def test_no_thread_is_left_after_ctrl_c(world, ahead, tmp_path, times):
    def interrupt():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    trainer = trainer_of(world, tmp_path / "run", interrupt, **SAVING)
    if times == 1:  # the step is finished and saved
        trainer.train()
        assert trainer.stopped
    else:  # at once
        with pytest.raises(KeyboardInterrupt):
            trainer.train()


def test_it_is_for_accelerators_without_workers_and_samplers_that_learn_nothing(world, tmp_path):
    trainer = trainer_of(world, tmp_path / "run", None)
    assert not trainer._collates_ahead(torch.device("cpu"))
    assert trainer._collates_ahead(torch.device("cuda", 0))
    trainer.args.dataloader_num_workers = 1
    assert not trainer._collates_ahead(torch.device("cuda", 0))
    trainer.args.dataloader_num_workers = 0
    trainer.sampler.learns = True
    assert not trainer._collates_ahead(torch.device("cuda", 0))
