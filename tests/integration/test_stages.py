"""A run in stages is the runs it consists of, one after the other, whatever cuts it off."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import nlp_mtl.checkpoint as checkpoint
from nlp_mtl import MultiTaskModel, report
from nlp_mtl.errors import ConfigError, NlpMtlError, RunFolderError
from nlp_mtl.prediction import predict
from nlp_mtl.run import evaluate, train
from nlp_mtl.studies.compare import compare
from tests.integration.tiny import config, state_of, write_base, write_tasks

WORKER = Path(__file__).parent / "tiny.py"
LORA = {"r": 2, "target_modules": "all-linear", "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base", dropout=0.1), write_tasks(folder / "data")


def settings(world, out, stages, tasks=slice(3), **changes):
    base, files = world
    return {**config(base, files[tasks], out, **changes), "stages": stages}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("tuning", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_stages_are_runs_by_hand(world, tmp_path, tuning):
    base, files = world
    stages = [{"name": "first", "tasks": files[:1], "training": {"max_steps": 4}}, {"training": {"max_steps": 3}}]
    whole = train(settings(world, tmp_path / "whole", stages, **tuning))
    train(config(base, files[:1], tmp_path / "one", training={"max_steps": 4}, **tuning))
    start = {"init_from": str(tmp_path / "one")}
    two = train(config(base, files[:3], tmp_path / "two", training={"max_steps": 3}, **tuning, **start))
    assert same(state_of(whole.model), state_of(two.model))
    assert whole.table() == two.table()
    root = tmp_path / "whole"
    assert [place.name for place in checkpoint.stage_folders(root)] == ["1-first", "2-stage-2"]
    assert {task: found.metrics for task, found in evaluate(root, base=base).items()} == {
        task: found.metrics for task, found in whole.scores.items()
    }
    metrics = json.loads((root / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"first", "stage-2"}
    assert metrics["validation"] == {task: found.metrics for task, found in whole.scores.items()}
    model = MultiTaskModel.from_pretrained(root, base=base)
    assert predict(model, {"text": "a good cat"}) == predict(two.model.eval(), {"text": "a good cat"})


def test_the_last_stage_may_train_each_task_by_itself(world, tmp_path):
    base, files = world
    stages = [{"name": "together"}, {"name": "alone", "each": True, "training": {"max_steps": 3}}]
    run = train(settings(world, tmp_path / "run", stages, training={"max_steps": 4}))
    assert [row["task"] for row in run.table()] == ["mood", "alike", "names"]
    start = {"init_from": str(tmp_path / "run" / "1-together")}
    for file, name in zip(files, ("mood", "alike", "names"), strict=False):
        by_hand = train(config(base, [file], tmp_path / name, training={"max_steps": 3}, **start))
        alone = MultiTaskModel.from_pretrained(tmp_path / "run" / "2-alone" / name)
        assert same(by_hand.model.state_dict(), alone.state_dict())
        assert run.scores[name].metrics == by_hand.scores[name].metrics
    with pytest.raises(RunFolderError, match="which is no one model; name one of"):
        MultiTaskModel.from_pretrained(tmp_path / "run")


def test_a_stage_may_start_from_an_earlier_one_or_from_nothing(world, tmp_path):
    stages = [{"name": "a"}, {"name": "b"}, {"name": "c", "init_from": "a"}, {"name": "d", "init_from": None}]
    train(settings(world, tmp_path / "run", stages, training={"max_steps": 2}))
    state = {
        name: MultiTaskModel.from_pretrained(tmp_path / "run" / f"{number}-{name}").state_dict()
        for number, name in enumerate("abcd", 1)
    }
    assert same(state["b"], state["c"])
    assert same(state["a"], state["d"])
    assert not same(state["a"], state["b"])


@pytest.mark.parametrize("when", [1, 2])
@pytest.mark.processes
def test_killed_in_any_stage_it_goes_on_to_the_same_bits(world, tmp_path, forked_python, when):
    files = world[1]
    saving = {"max_steps": 30, "save_strategy": "steps", "save_steps": 2, "logging_steps": 30}
    stages = [{"name": "first", "tasks": files[:1]}, {"name": "second", "lora": LORA}]
    whole = train(settings(world, tmp_path / "whole", stages, training={**saving, "save_strategy": "no"}))
    said = settings(world, tmp_path / "killed", stages, training=saving)
    (tmp_path / "killed.json").write_text(json.dumps({"config": said}))
    process = subprocess.Popen(
        [forked_python, str(WORKER), str(tmp_path / "killed.json")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    place = tmp_path / "killed" / ("1-first" if when == 1 else "2-second")
    deadline = time.monotonic() + 120
    while not checkpoint.checkpoints(place):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()[-2000:]
        time.sleep(0.01)
    time.sleep(random.random() / 10)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(RunFolderError, match="already holds a run"):
        train(said)
    resumed = train(said, resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    again = train(said, resume=True)  # all is done
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert again.table() == resumed.table()


def test_overwritten_nothing_of_the_old_stages_is_left(world, tmp_path):
    stages = [{"name": "a"}, {"name": "b"}]
    train(settings(world, tmp_path / "run", stages, training={"max_steps": 1}))
    (tmp_path / "run" / "1-a" / "mine.txt").write_text("keep")
    train(settings(world, tmp_path / "run", [{"name": "c"}], training={"max_steps": 1}), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["1-a", "1-c"]
    assert [path.name for path in (tmp_path / "run" / "1-a").iterdir()] == ["mine.txt"]


def test_a_run_is_not_overwritten_by_one_that_can_not_begin(world, tmp_path):
    run = settings(world, tmp_path / "run", [{"name": "a"}], training={"max_steps": 1})
    train(run)
    with pytest.raises(NlpMtlError):
        train({**run, "init_from": "nowhere-at-all"}, overwrite=True)
    assert set(evaluate(tmp_path / "run")) == {"mood", "alike", "names"}


def test_a_report_is_the_last_stages(world, tmp_path):
    training = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    train(settings(world, tmp_path / "run", [{"name": "a"}, {"name": "b"}], training=training))
    whole, last = report(tmp_path / "run", out=tmp_path / "one"), report(tmp_path / "run" / "2-b", out=tmp_path / "two")
    assert whole.summary == last.summary


def test_a_study_compares_runs_in_stages(world, tmp_path):
    base, files = world
    run = config(base, files[:1], tmp_path / "nowhere", training={"max_steps": 2})
    methods = {"alone": {}, "names first": {"stages": [{"tasks": files[2:3]}, {"tasks": files[:1]}]}}
    found = compare({"run": run, "methods": methods, "seeds": [0, 1], "output_dir": str(tmp_path / "out")})
    assert set(found.scores) >= {"alone", "names first"}
    assert found.scores["names first"]["mood"].count == 2
    more = {"alone": {}, "with a helper": {"tasks": files[:2]}}
    found = compare(
        {"run": run, "methods": more, "seeds": [0, 1], "single": False, "output_dir": str(tmp_path / "two")}
    )
    assert {way: set(scores) for way, scores in found.scores.items()} == {way: {"mood"} for way in more}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"tasks": ["moood"]}], r"stage 1 \(stage-1\): .*moood"),
        ([{"nme": "x"}], r"stage 1 \(stage-1\): unknown key 'nme'"),
        ([{"name": "a/b"}], "`name` names a folder, and no other stage, found 'a/b'"),
        ([{"name": "a"}, {"name": "a"}], "`name` names a folder, and no other stage, found 'a'"),
        ([{"each": True}, {}], "`each: true` gives a model per task, so it is for the last stage"),
        ([{"each": 1}], "`each` is true or false, found 1"),
        ([{"stages": [{}]}], "a stage has no stages of its own"),
        ([{"training": {"output_dir": "x"}}], r"`training.output_dir` is the whole run's"),
        ([{"training": {"sed": 1}}], r"stage 1 .*no field 'sed'.*'seed'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_done(world, tmp_path, stages, words):
    with pytest.raises(ConfigError, match=words):
        train(settings(world, tmp_path / "run", stages))
    assert not (tmp_path / "run").exists()
