"""Distillation in training: plain at share 0, resumed to the bit, closer to the teacher, nothing of it left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from nlp_mtl import checkpoint, predict
from nlp_mtl.distillation.outputs import cached_file
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.forgetting.plan import sequence
from nlp_mtl.run import train
from tests.integration.test_processes import agree, run
from tests.integration.test_resume import same
from tests.integration.tiny import config, state_of, write_base, write_tasks

PLAIN = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small base, one with dropout, tasks, and a wider teacher that was trained on all rows."""
    folder = tmp_path_factory.mktemp("world")
    wide = write_base(folder / "wide", hidden_size=48, intermediate_size=96)
    tasks = write_tasks(folder / "data", rows=40)
    return folder, write_base(folder / "base"), write_base(folder / "wet", dropout=0.1), tasks, wide


@pytest.fixture(scope="module")
def teacher(world, session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(session_cache))
        train(config(world[4], world[3], world[0] / "teacher", training={"max_steps": 30, "learning_rate": 3e-3}))
    return str(world[0] / "teacher")


def said(model, tasks):
    """[rows, 2]: what a model or run says for the validation rows of mood."""
    lines = Path(tasks[0]).with_name("mood-validation.jsonl").read_text().splitlines()
    answers = predict(model, [json.loads(line)["text"] for line in lines], tasks=["mood"])
    return torch.tensor([list(answer["mood"]["scores"].values()) for answer in answers])


def test_at_share_0_a_run_is_the_plain_one_to_the_bit(world, teacher, tmp_path):
    _, _, wet, tasks, _ = world
    none = {"teacher": teacher, "weight": 0, "temperature": 1, "hidden": {"weight": 2.0}}
    plain = train(config(wet, tasks, tmp_path / "plain", training={"max_steps": 4}))
    with_it = train(config(wet, tasks, tmp_path / "with", distillation=none, training={"max_steps": 4}))
    assert same(state_of(plain.model), state_of(with_it.model))
    assert plain.model.state_dict().keys() == with_it.model.state_dict().keys(), "no projection is left in it"


def test_micro_batches_and_passes_are_the_whole_step(world, teacher, tmp_path):
    """Also where the tasks' gradients are weighed: the teacher's part of a loss is the task's."""
    _, base, _, tasks, _ = world
    entry = {"teacher": teacher, "hidden": True, "annealing": "linear"}

    def one(name, shape, **more):
        shape = {**PLAIN, "max_steps": 2, **shape}
        return state_of(
            train(
                config(base, tasks, tmp_path / name, balancer="pcgrad", **more, distillation=entry, training=shape)
            ).model
        )

    whole = one("whole", {"per_device_train_batch_size": 12})
    cut = one("cut", {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}, tokens_per_pass=40)
    for name, value in whole.items():
        assert torch.allclose(cut[name], value, atol=2e-6, rtol=1e-4), name


def test_six_steps_and_six_more_equal_twelve(world, teacher, tmp_path):
    """With a learned projection, an annealed share, and what the start said on another task's rows."""
    _, _, wet, tasks, _ = world
    train(config(wet, tasks[:2], tmp_path / "first", training={"max_steps": 2}))
    entries = [
        {"teacher": teacher, "tasks": ["names"], "hidden": True, "annealing": "linear"},
        {"teacher": "start", "tasks": ["mood"], "on": ["names"], "weight": 1.0},
    ]
    shape = {"save_strategy": "steps", "save_steps": 6, "save_total_limit": 4, "gradient_accumulation_steps": 2}

    def keys(name, **changes):
        more = {"init_from": str(tmp_path / "first"), "train_tasks": ["names"], "distillation": entries, **changes}
        return config(wet, tasks[:3], tmp_path / name, **more, training=shape)

    whole = train(keys("whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-12")
    other = [{**entries[0], "weight": 0.5}, entries[1]]
    with pytest.raises(RunFolderError, match="a checkpoint of a run with another distillation: its values differ"):
        train(keys("cut", distillation=other), resume=True)
    resumed = train(keys("cut"), resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    assert "teacher.safetensors" in {file.name for file in (tmp_path / "cut").iterdir()}
    # of this machine a run folder knows nothing; its run file says the way from there
    recorded = json.loads((tmp_path / "cut" / "nlp_mtl.json").read_text())["strategies"]["distillation"]
    assert [(one["teacher"], one["tasks"]) for one in recorded] == [("teacher", ["names"]), ("start", ["mood"])]
    assert str(tmp_path) not in (tmp_path / "cut" / "nlp_mtl.json").read_text()
    checkpoint.remove_run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "teacher.safetensors").exists()


def test_a_student_says_what_its_teacher_says_more_than_one_of_few_labels(world, teacher, tmp_path):
    _, base, _, tasks, _ = world
    file = Path(tasks[0])
    rows = list(map(json.loads, file.with_name("mood-train.jsonl").read_text().splitlines()))
    few = [{**row, "label": row["label"] if number < 6 else None} for number, row in enumerate(rows)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    spec = json.loads(file.read_text())
    files = {"train": "few.jsonl", "validation": str(file.with_name("mood-validation.jsonl"))}
    (tmp_path / "mood.yaml").write_text(json.dumps({**spec, "dataset": {"path": "json", "data_files": files}}))
    shape = {"max_steps": 40, "learning_rate": 3e-3}
    alone = train(config(base, [str(tmp_path / "mood.yaml")], tmp_path / "alone", training=shape))
    entry = {"teacher": teacher, "weight": 1.0}
    taught = train(config(base, [str(tmp_path / "mood.yaml")], tmp_path / "taught", distillation=entry, training=shape))
    wanted = said(teacher, tasks)
    near, far = (float((said(run.model, tasks) - wanted).abs().mean()) for run in (taught, alone))
    assert near < 0.7 * far
    rows = [entry["rows_mood"] for entry in taught.trainer.state.log_history if "rows_mood" in entry]
    assert rows and rows[0] > 6, "rows without a label are learned from"


def test_learning_without_forgetting_keeps_what_earlier_heads_say(world, tmp_path):
    """Stages as `nlp-mtl continual` makes them: the same but for what was said before."""
    _, base, _, tasks, _ = world
    keys = config(base, tasks[:3], tmp_path / "none", training={"max_steps": 16, "learning_rate": 2e-3})

    def drift(name, method):
        made = sequence(keys, ["mood", "alike", "names"], method, tmp_path / name, 0)
        made["stages"] = made["stages"][:2]
        train(made)
        first, second = checkpoint.stage_folders(tmp_path / name)
        return float((said(second, tasks) - said(first, tasks)).abs().mean())

    made = sequence(keys, ["mood", "alike", "names"], {"lwf": {"temperature": 3}}, tmp_path / "x", 0)
    assert [stage.get("distillation") for stage in made["stages"]] == [
        None,
        [{"teacher": "start", "tasks": ["mood"], "on": ["alike"], "temperature": 3, "weight": 1.0}],
        [{"teacher": "start", "tasks": ["mood", "alike"], "on": ["names"], "temperature": 3, "weight": 1.0}],
    ]
    assert drift("lwf", {"lwf": {}}) < 0.5 * drift("naive", {})
    wrong = {"lwf: {}": True, "says itself": {"teacher": "x"}, "`lwf`: `temperature`": {"temperature": 0}}
    for words, kept in wrong.items():
        with pytest.raises(ConfigError, match=words):
            sequence(keys, ["mood", "alike"], {"lwf": kept}, tmp_path / "x", 0)


@pytest.mark.processes
def test_two_processes_equal_one(world, teacher, tmp_path, forked_python):
    """The first one asks; of 7 rows for 2 processes counts differ, and a task with a projection is absent on one."""
    _, base, _, tasks, _ = world
    entry = {"teacher": teacher, "tasks": ["names", "alike"], "hidden": True, "annealing": "linear"}
    changes = {"sampler": {"name": "fixed", "rates": {"mood": 5, "alike": 1, "names": 3, "rainy": 3}}}
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 4}
    one = config(base, tasks, tmp_path / "one", **changes, distillation=entry, training=shape)
    shape = {**shape, "gradient_accumulation_steps": 1}
    two = config(base, tasks, tmp_path / "two", **changes, distillation=entry, training=shape)
    _, alone = run(forked_python, tmp_path, {"config": one}, name="taught-one")
    found, both = run(forked_python, tmp_path, {"config": two}, processes=2, name="taught-two")
    assert found["world"] == 2 and len(set(found["digests"])) == 1
    agree(both, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("one", [False, True])
def test_an_earlier_stage_may_teach(world, tmp_path, monkeypatch, one):
    """Single-task teachers into one student, all in one run file; each teacher's outputs are kept by its weights."""
    _, base, _, tasks, _ = world
    entries = [{"teacher": "first", "annealing": "linear"}, {"teacher": "second", "annealing": "linear"}]
    stages = [
        {"name": "first", "tasks": tasks[:1]},
        {"name": "second", "tasks": tasks[1:2], "init_from": None},
        {"name": "student", "tasks": tasks[:2], "init_from": None, "distillation": entries},
    ]
    if one:
        stages = [stages[0], {**stages[2], "distillation": entries[0]}]
    monkeypatch.chdir(tmp_path)
    made = train({**config(base, tasks, Path("run"), training={"max_steps": 2}), "stages": stages})
    recorded = json.loads((made.models[0] / "nlp_mtl.json").read_text())["strategies"]["distillation"]
    both = [("1-first", ["mood"]), ("2-second", ["alike"])]
    assert [(said["teacher"], said["tasks"]) for said in recorded] == both[: 1 if one else 2]
    assert "teacher: ../1-first" in (made.models[0] / "run.yaml").read_text()
    assert not (made.models[0] / "teacher.safetensors").exists(), "only `start` is kept in the run folder"
    assert list(cached_file("any").parent.glob("*.safetensors"))
