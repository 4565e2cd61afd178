"""A run of a hundred tasks: every head learns, everything is scored and saved, and it resumes to the same bits."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import nlp_mtl.checkpoint as checkpoint
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.run import train
from tests.integration.tiny import config, state_of, write_base, write_many

TASKS, STEPS, HALF = 100, 6, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    base = write_base(folder / "base", dropout=0.1)
    registry = write_many(folder / "registry", TASKS)

    def settings(out):
        shape = {"max_steps": STEPS, "per_device_train_batch_size": 32, "gradient_accumulation_steps": 2}
        shape |= {"save_strategy": "steps", "save_steps": HALF, "logging_steps": 1}
        return config(base, ["many"], out, registry=[str(registry)], sampler="uniform", training=shape)

    return settings


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    return train(world(tmp_path_factory.mktemp("whole") / "run"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_task_is_trained_logged_scored_and_saved(whole):
    names = [f"task_{number}" for number in range(TASKS)]
    assert sorted(whole.model.tasks) == sorted(names)
    shown = whole.trainer.rows_shown(0, STEPS)
    assert sum(shown.values()) == 2 * 32 * STEPS
    assert set(shown) == set(names)
    assert set(shown.values()) <= {3, 4}, "uniform: the same number of rows of every task, in the long run"
    logged = {key for entry in whole.trainer.state.log_history for key in entry if key.startswith("loss_")}
    assert logged == {f"loss_{name}" for name in names}
    heads = {head.task.head_name for head in whole.model.heads.values()}
    assert len(heads) == 5
    assert whole.scores.keys() == set(names)
    assert all(found.rows == 4 and found.skill is not None for found in whole.scores.values())
    metrics = json.loads((whole.folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["validation"]) == set(names)
    assert same(state_of(MultiTaskModel.from_pretrained(whole.folder).train()), state_of(whole.model))


def test_every_head_has_learned(whole, world, tmp_path):
    said = world(tmp_path)
    fresh = MultiTaskModel.from_base(
        said["model"], "many", registry_folders=said["registry"], max_length=said["max_length"], seed=42
    )
    before, after = state_of(fresh), state_of(whole.model)
    assert before.keys() == after.keys()
    weights = [name for name in before if name.startswith("modules_.") and name.endswith(".weight")]
    assert len(weights) == TASKS  # a bias that all choices have in common gets no gradient
    assert not [name for name in weights if torch.equal(before[name], after[name])]


def test_resumed_in_the_middle_it_comes_to_the_same_bits(whole, world, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(whole.folder, cut)
    shutil.rmtree(cut / f"checkpoint-{STEPS}")  # as if it had been cut off after half of the steps
    assert [folder.name for folder in checkpoint.checkpoints(cut)] == [f"checkpoint-{HALF}"]
    resumed = train(world(cut), resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    logs = [
        {e["step"]: {k: v for k, v in e.items() if k.startswith(("loss", "grad"))} for e in r.trainer.state.log_history}
        for r in (whole, resumed)
    ]
    assert logs[0] == logs[1]
    assert {task: found.metrics for task, found in whole.scores.items()} == {
        task: found.metrics for task, found in resumed.scores.items()
    }
