"""A resumed run continues to the same bits as an uninterrupted one, whatever cut it off."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import nlp_mtl.checkpoint as checkpoint
from nlp_mtl.errors import RunFolderError, TrainingError
from nlp_mtl.run import train
from tests.integration.tiny import config, state_of, write_base, write_tasks

WORKER = Path(__file__).parent / "tiny.py"
SAVING = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base", dropout=0.1), write_tasks(folder / "data"), folder


def settings(world, out, **changes):
    base, tasks, _ = world
    return config(base, tasks, out, **changes)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(run):
    return {
        e["step"]: {k: v for k, v in e.items() if k.startswith(("loss", "grad"))}
        for e in run.trainer.state.log_history
        if "loss" in e
    }


LORA = {"r": 4, "target_modules": "all-linear", "lora_dropout": 0.1}


@pytest.mark.parametrize(
    "tuning", [{}, {"lora": LORA}, {"lora": LORA, "task_lora": LORA}], ids=["full", "lora", "task_lora"]
)
@pytest.mark.parametrize(
    "sampler", ["proportional", pytest.param({"name": "temperature", "temperature": 3.0}, marks=pytest.mark.long)]
)
def test_six_steps_and_six_more_equal_twelve(world, tmp_path, tuning, sampler):
    shape = {**SAVING, "gradient_accumulation_steps": 2, "logging_steps": 2}
    whole = train(settings(world, tmp_path / "whole", **tuning, sampler=sampler, training=shape))
    train(settings(world, tmp_path / "cut", **tuning, sampler=sampler, training=shape))
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-6":  # as if it had been cut off after step 6, in the middle of an epoch
            shutil.rmtree(folder)
    resumed = train(settings(world, tmp_path / "cut", **tuning, sampler=sampler, training=shape), resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    assert losses(whole) == losses(resumed)


def start(python, world, tmp_path, name):
    said = {
        "config": settings(
            world,
            tmp_path / name,
            training={"max_steps": 40, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2},
        )
    }
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(said))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [python, str(WORKER), str(file)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@pytest.mark.processes
def test_killed_at_any_moment_it_continues_to_the_same_bits(world, tmp_path, forked_python):
    """It saves at every step, so most kills hit a write; whatever is left must be whole or recognised as damaged."""
    whole = train(settings(world, tmp_path / "whole", training={"max_steps": 40, "logging_steps": 40}))
    process = start(forked_python, world, tmp_path, "killed")
    deadline = time.monotonic() + 120
    while len(checkpoint.checkpoints(tmp_path / "killed")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()[-2000:]
    time.sleep(random.random() / 10)  # any moment of the next steps and writes
    process.send_signal(signal.SIGKILL)
    process.communicate()  # until nobody can write any more
    good = checkpoint.last_good_checkpoint(tmp_path / "killed")
    assert good is not None
    assert checkpoint.damage(good) is None
    resumed = train(
        settings(world, tmp_path / "killed", training={"max_steps": 40, "logging_steps": 40, "save_strategy": "no"}),
        resume=True,
    )
    assert same(state_of(whole.model), state_of(resumed.model))


def test_a_damaged_checkpoint_is_skipped_and_said(world, tmp_path, caplog):
    train(settings(world, tmp_path / "run", training=SAVING))
    newest = checkpoint.checkpoints(tmp_path / "run")[-1]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with caplog.at_level("WARNING"):
        good = checkpoint.last_good_checkpoint(tmp_path / "run")
    assert good is not None and good != newest
    assert newest.name in caplog.text and "damaged" in caplog.text
    resumed = train(settings(world, tmp_path / "run", training=SAVING), resume=True)
    assert resumed.trainer.state.global_step == 12
    weights = checkpoint.checkpoints(tmp_path / "run")[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(RunFolderError, match="damaged"):
        resumed.trainer.train(resume_from_checkpoint=str(weights.parent))


def test_no_room_while_saving_leaves_the_last_good_checkpoint(world, tmp_path, forked_python):
    """A real write error: the process may write no file larger than half a checkpoint from the second save on."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from transformers import TrainerCallback
from nlp_mtl import run, configchecks
from nlp_mtl.errors import TrainingError
class Full(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
import json
said = json.loads(sys.stdin.read())
configchecks.callback = lambda spec: Full()
try:
    run.train(said)
except TrainingError as error:
    print("TrainingError:", error)
"""
    said = settings(world, tmp_path / "full", training=SAVING, callbacks=["transformers:TrainerCallback"])
    done = subprocess.run(
        [forked_python, "-c", code], input=json.dumps(said), text=True, capture_output=True, timeout=200
    )
    assert "TrainingError: no room to write" in done.stdout, done.stdout[-1500:] + done.stderr[-3000:]
    assert "checkpoint-3 is whole" in done.stdout
    assert "--resume" in done.stdout
    assert [f.name for f in checkpoint.checkpoints(tmp_path / "full")] == ["checkpoint-3"]
    assert checkpoint.damage(tmp_path / "full" / "checkpoint-3") is None
    assert not list((tmp_path / "full").glob(".checkpoint-*"))
    whole = train(settings(world, tmp_path / "whole", training=SAVING))
    resumed = train(settings(world, tmp_path / "full", training=SAVING), resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))


def test_a_checkpoint_of_another_model_is_refused(world, tmp_path):
    base, tasks, folder = world
    train(settings(world, tmp_path / "run", training=SAVING))
    other = write_base(folder / "other", seed=7)
    with pytest.raises(RunFolderError, match="another run"):
        train(config(other, tasks, tmp_path / "run", training=SAVING), resume=True)
    with pytest.raises(RunFolderError, match="its tasks are"):
        train(config(base, tasks[:2], tmp_path / "run", training=SAVING), resume=True)
    with pytest.raises(RunFolderError, match="LoRA"):
        train(config(base, tasks, tmp_path / "run", training=SAVING, lora={"r": 2}), resume=True)


def test_an_output_folder_with_a_run_is_not_overwritten_silently(world, tmp_path):
    train(settings(world, tmp_path / "run", training={**SAVING, "max_steps": 3}))
    with pytest.raises(RunFolderError) as error:
        train(settings(world, tmp_path / "run", training=SAVING))
    assert "--resume" in str(error.value) and "--overwrite" in str(error.value)
    (tmp_path / "run" / "mine.txt").write_text("not the run's")
    again = train(settings(world, tmp_path / "run", training={**SAVING, "max_steps": 3}), overwrite=True)
    assert again.trainer.state.global_step == 3
    assert (tmp_path / "run" / "mine.txt").is_file()
    with pytest.raises(RunFolderError, match="no run to resume"):
        train(settings(world, tmp_path / "nothing", training=SAVING), resume=True)


def test_ctrl_c_saves_and_leaves_the_model_usable(world, tmp_path):
    import nlp_mtl as mtl

    class Interrupt(__import__("transformers").TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                os.kill(os.getpid(), signal.SIGINT)

    from nlp_mtl.config import RunConfig
    from nlp_mtl.starting import training_arguments

    said = settings(world, tmp_path / "stopped", training={**SAVING, "save_steps": 100})
    model = mtl.MultiTaskModel.from_base(said["model"], said["tasks"], max_length=64, seed=42)
    args = training_arguments(RunConfig(**said), "x")
    trainer = mtl.MultiTaskTrainer(model, args, precision="args", callbacks=[Interrupt()])
    before = signal.getsignal(signal.SIGINT)
    trainer.train()
    assert trainer.stopped and trainer.state.global_step == 5
    assert signal.getsignal(signal.SIGINT) is before
    assert mtl.predict(model, "the good dog")["mood"]["label"] in ("bad", "good")
    whole = train(settings(world, tmp_path / "whole", training={**SAVING, "save_steps": 100}))
    trainer.remove_callback(Interrupt)
    trainer.train(resume_from_checkpoint=True)
    assert same(state_of(whole.model), state_of(model))


def test_a_loss_that_is_no_number_stops_and_names_task_and_step(world, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss of .*alike.* at step \d+"):
        train(settings(world, tmp_path / "nan", training={"learning_rate": 1e30, "max_grad_norm": 0.0}))


def test_a_resumed_run_scores_what_the_whole_run_scores(world, tmp_path):
    shape = {**SAVING, "eval_strategy": "steps", "eval_steps": 3}
    whole = train(settings(world, tmp_path / "whole", training=shape))
    train(settings(world, tmp_path / "cut", training=shape))
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-6":
            shutil.rmtree(folder)
    resumed = train(settings(world, tmp_path / "cut", training=shape), resume=True)
    assert {t: s.metrics for t, s in whole.scores.items()} == {t: s.metrics for t, s in resumed.scores.items()}
