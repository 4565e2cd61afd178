"""Tasks learned one after the other: the matrix is that of the stages' scores, and what must stay stays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from nlp_mtl import MultiTaskModel, continual
from nlp_mtl.batches import learned_from
from nlp_mtl.checkpoint import stage_folders
from nlp_mtl.errors import ConfigError
from nlp_mtl.forgetting.matrix import Course
from nlp_mtl.forgetting.plan import sequence
from nlp_mtl.prediction import predict
from nlp_mtl.run import train
from tests.integration.tiny import config, write_base, write_tasks

LORA = {"r": 2, "target_modules": "all-linear"}
TEXT = {"text": "a good cat", "a": "good", "b": "cat", "tokens": ["a", "good", "cat"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tasks, base = write_tasks(folder / "data", rows=32), write_base(folder / "base")
    run = config(base, tasks[:3], folder / "nowhere", training={"max_steps": 3, "learning_rate": 1e-2})
    methods = {
        "naive": {},
        "replay": {"replay": 4},
        "ewc": {"regularizers": [{"name": "ewc", "rows": 8}]},
        "adapters": {"task_lora": LORA},
        "joint": {"joint": True},
    }
    keys = {"run": run, "methods": methods, "seeds": [0, 1], "output_dir": str(folder / "out")}
    return folder, base, keys, continual(keys)


def test_rows_that_come_again_count_by_rows_unless_a_balancer_is_named(tmp_path):
    keys, tasks = {"model": "m", "tasks": ["a", "b"]}, ["a", "b"]
    assert sequence(keys, tasks, {"replay": 4}, tmp_path, 0)["balancer"] == "rows"
    assert sequence(keys, tasks, {"replay": 4, "balancer": "equal"}, tmp_path, 0)["balancer"] == "equal"
    assert "balancer" not in sequence(keys, tasks, {}, tmp_path, 0)


def test_lwf_holds_the_tasks_that_are_named(tmp_path):
    keys, tasks = {"model": "m", "tasks": ["a", "b", "c"]}, ["a", "b", "c"]
    made = sequence(keys, tasks, {"lwf": {"tasks": ["b"]}}, tmp_path, 0)["stages"]
    assert [[one["tasks"] for one in stage.get("distillation", [])] for stage in made] == [[], [], [["b"]]]
    made = sequence(keys, tasks, {"lwf": {}}, tmp_path, 0)["stages"]
    assert [one["tasks"] for one in made[2]["distillation"]] == [["a", "b"]]
    with pytest.raises(ConfigError, match="`lwf`: `tasks`: 'bb' is not a task of this study; did you mean 'b'"):
        sequence(keys, tasks, {"lwf": {"tasks": ["bb"]}}, tmp_path, 0)


def test_the_matrix_is_of_the_stages(study):
    folder, _, _, found = study
    for way, courses in found.courses.items():
        for seed, course in enumerate(courses):
            stages = stage_folders(folder / "out" / way / f"seed-{seed}")
            assert len(stages) == len(course.scores) == (1 if way == "joint" else 3)
            for row, place in zip(course.scores, stages, strict=True):
                said = json.loads((place / "metrics.json").read_text())["validation"]
                assert row.tolist() == [said[task][found.metrics[task]] for task in found.tasks]
    assert found.measure("joint", "forgetting") is None
    assert (folder / "out" / "continual.svg").read_text().lstrip().startswith("<?xml")
    assert set(json.loads((folder / "out" / "continual.json").read_text())["methods"]) == set(found.courses)
    assert "| adapters |" in (folder / "out" / "continual.md").read_text()


def test_adapters_of_their_own_forget_nothing_to_the_bit(study):
    folder, base, _, found = study
    assert found.measure("adapters", "forgetting").mean <= 0
    assert all(course.backward == 0 for course in found.courses["adapters"])
    first, second, third = stage_folders(folder / "out" / "adapters" / "seed-0")
    models = [MultiTaskModel.from_pretrained(place, base=base) for place in (first, second, third)]
    mood = [predict(model, TEXT, tasks=["mood"]) for model in models]
    assert mood[0] == mood[1] == mood[2]
    alike = [predict(model, TEXT, tasks=["alike"]) for model in models]
    assert alike[1] == alike[2] != alike[0]


def test_naive_training_changes_what_was_learned_and_only_the_tasks_turn_learns(study):
    folder = study[0]
    heads = [MultiTaskModel.from_pretrained(place).modules_ for place in stage_folders(folder / "out/naive/seed-0")]
    for task, own in (("mood", 0), ("alike", 1), ("names", 2)):
        states = [part[task].state_dict() for part in heads]
        for number in (1, 2):
            same = all(torch.equal(value, states[number - 1][name]) for name, value in states[number].items())
            assert same == (number != own)


def test_what_is_done_is_not_done_again(study):
    folder, _, keys, found = study
    before = {file: file.stat().st_mtime_ns for file in folder.glob("out/*/*/*/metrics.json")}
    again = continual(keys)
    assert before == {file: file.stat().st_mtime_ns for file in folder.glob("out/*/*/*/metrics.json")}
    assert again.table() == found.table()


def test_measures_are_what_they_say():
    scores = np.array([[0.8, 0.5, 0.4], [0.9, 0.7, 0.3], [0.6, 0.6, 0.8]])
    course = Course(scores, np.array([0.5, 0.4, 0.4]))
    assert course.average == pytest.approx((0.6 + 0.6 + 0.8) / 3)
    assert course.backward == pytest.approx(((0.6 - 0.8) + (0.6 - 0.7)) / 2)
    assert course.forgetting == pytest.approx(((0.9 - 0.6) + (0.7 - 0.6)) / 2)
    assert course.forward == pytest.approx(((0.5 - 0.4) + (0.3 - 0.4)) / 2)
    assert math.isnan(Course(scores[:1], course.trivial).forgetting)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": {"x": {"replay": -1}}}, "`replay` is a number of rows of each earlier task, found -1"),
        ({"methods": {"x": {"joint": True, "replay": 3}}}, "goes without `replay`"),
        ({"methods": {"x": {"lora": {"r": 0}}}}, r"'x': .*lora"),
        ({"methods": {}}, "`methods`"),
        ({"seeeds": [1]}, "unknown key 'seeeds'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_done(study, tmp_path, changes, words):
    _, _, keys, _ = study
    with pytest.raises(ConfigError, match=words):
        continual({**keys, "output_dir": str(tmp_path / "out"), **changes})
    assert not (tmp_path / "out").exists()


def test_tasks_that_learn_are_the_runs(tmp_path):
    with pytest.raises(ConfigError, match="'moood' is not a task of this run; did you mean 'mood'"):
        learned_from([], ["moood"], ["mood"])
    tasks, base = write_tasks(tmp_path / "data"), write_base(tmp_path / "base")
    run = train(config(base, tasks, tmp_path / "run", training={"max_steps": 2}, train_tasks=["rainy"]))
    assert set(run.scores) == {"mood", "alike", "names", "rainy"}
    steps = [entry for entry in run.trainer.state.log_history if "loss" in entry]
    assert all("loss_rainy" in entry and "loss_names" not in entry for entry in steps)  # they label the same rows
