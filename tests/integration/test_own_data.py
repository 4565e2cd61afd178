"""From three CSV files to predictions: in Python, on the command line, and from a registry of one's own."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pandas as pd
import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl.errors import NotFoundError, RunFolderError
from tests.integration.tiny import write_base

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

TRAINING = {"max_steps": 8, "learning_rate": 1e-3, "disable_tqdm": True, "report_to": "none", "use_cpu": True}
SHORT = {**TRAINING, "eval_strategy": "no", "save_strategy": "no"}
THINGS, PLACES = "soup room tea view bread".split(), "city house bergen graz".split()


def rows_of(kind: str, count: int = 90) -> tuple[list[str], list[tuple[str, str]]]:
    """A table: its columns and rows, no text twice."""
    draw = random.Random(kind)
    rows: dict[str, str] = {}
    while len(rows) < count:
        thing, place, number = draw.choice(THINGS), draw.choice(PLACES), len(rows)
        if kind == "mood":
            how = draw.choice(["good", "bad"])
            rows[f"the {thing} in {place} was {how} on day {number}"] = "positive" if how == "good" else "negative"
        elif kind == "topic":
            topic = draw.choices(["food", "travel", "weather"], [6, 3, 1])[0]
            said = {"food": f"we had {thing}", "travel": f"a trip to {place}", "weather": "rain and sun"}[topic]
            rows[f"{said} on day {number}"] = topic
        else:
            words = [*draw.sample(["on", "day", "we", "saw", "old"], 3), place, "no", str(number)]
            rows[" ".join(words)] = " ".join("B-LOC" if word in PLACES else "O" for word in words)
    columns = {"mood": ["review", "verdict"], "topic": ["line", "topic"], "names": ["sentence", "tags"]}[kind]
    return columns, list(rows.items())


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Three CSV files in the working folder, and a tiny pretrained model beside it."""
    monkeypatch.delenv("NLP_MTL_REGISTRY", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for kind in ("mood", "topic", "names"):
        columns, rows = rows_of(kind)
        with open(f"{kind}.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])
    return write_base(tmp_path / "base")


@pytest.fixture
def run(run):
    """Call the entry point, which must go well; gives what it prints."""

    def call(*words):
        code, out, err = run(*words)
        assert code == 0, err
        return out

    return call


def test_three_csv_files_become_predictions_on_the_command_line(tables, run, tmp_path):
    for kind in ("mood", "topic", "names"):
        assert f"Written to {kind}.yaml" in run("tasks", "new", f"{kind}.csv")
    assert run("tasks", "check", "mood.yaml", "topic.yaml", "names.yaml").count("real rows work") == 3
    settings = [f"training.{key}={json.dumps(value)}" for key, value in TRAINING.items()]
    out = run("train", "tasks=[mood.yaml, topic.yaml, names.yaml]", f"model={tables}", *settings)
    assert [
        line.split()[0] for line in out.splitlines() if " f1_macro " in line or "accuracy" in line or "span_f1" in line
    ]
    answers = json.loads(run("predict", "runs/own", "the soup in bergen was bad"))
    assert set(answers) == {"mood", "topic", "names"}
    assert answers["mood"]["label"] in ("positive", "negative")
    assert set(answers["topic"]["scores"]) == {"food", "travel", "weather"}
    assert all(entity["type"] == "LOC" for entity in answers["names"]["entities"])
    assert "topic" in run("evaluate", "runs/own", "--split", "test")
    run("tasks", "new", "mood.csv", "--examples", "2", "--overwrite")
    run("train", "tasks=mood.yaml", f"model={tables}", "training.output_dir=runs/two", *settings)
    assert "the soup in" not in Path("runs/two/nlp_mtl.json").read_text(encoding="utf-8"), (
        "examples stay in the task file"
    )


def test_a_sweep_of_rows_in_memory_becomes_predictions_in_python(tables, tmp_path, monkeypatch):
    frames = {kind: pd.read_csv(f"{kind}.csv") for kind in ("mood", "topic", "names")}
    tasks = [mtl.Task.from_data(kind, frame) for kind, frame in frames.items()]
    assert [task.head_name for task in tasks] == ["sequence_classification"] * 2 + ["token_classification"]
    done = mtl.train({"model": tables, "tasks": tasks, "training": {**SHORT, "output_dir": "run"}})
    assert set(done.scores) == set(frames)
    answers = mtl.predict("run", "the soup in bergen was bad")
    own = mtl.predict(done.model, "the soup in bergen was bad")
    for kind in ("mood", "topic"):
        assert answers[kind]["scores"] == pytest.approx(own[kind]["scores"], abs=1e-4)

    kept = [file for file in Path("run").rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    assert not any(b"we had soup" in file.read_bytes() for file in kept), "no row stands in the run folder"
    with pytest.raises(NotFoundError, match=r"Task\.from_data\('mood', data, …\)"):
        mtl.evaluate("run", "test")
    with pytest.raises(RunFolderError, match="already holds a run"):
        mtl.train("run/run.yaml")
    with pytest.raises(NotFoundError, match="from rows in memory"):
        mtl.train("run/run.yaml", overwrite=True)
    assert mtl.predict("run", "the soup in bergen was bad") == answers, "what failed took nothing away"
    again = [mtl.Task.from_data(kind, frame) for kind, frame in frames.items()]
    scores = mtl.evaluate("run", "validation", tasks=again)
    assert {kind: found.metrics for kind, found in scores.items()} == {
        kind: found.metrics for kind, found in done.scores.items()
    }


def test_rows_in_memory_train_with_the_trainer_too(tables):
    from transformers import TrainingArguments

    task = mtl.Task.from_data("mood", pd.read_csv("mood.csv"))
    model = mtl.MultiTaskModel.from_base(tables, [task])
    trainer = mtl.MultiTaskTrainer(model, TrainingArguments("out", **SHORT))
    trainer.train()
    assert "eval_mood_accuracy" in trainer.evaluate()


def test_a_run_given_tasks_made_from_files_can_be_done_again_from_elsewhere(tables, tmp_path, monkeypatch):
    tasks = [mtl.Task.from_data("mood", "mood.csv")]
    first = mtl.train({"model": tables, "tasks": tasks, "training": {**SHORT, "output_dir": "run"}})
    monkeypatch.chdir(tmp_path)
    again = mtl.evaluate("work/run", "validation")
    assert again["mood"].metrics == first.scores["mood"].metrics
    second = mtl.train("work/run/run.yaml", [f"training.output_dir={tmp_path / 'other'}"])
    assert second.scores["mood"].metrics == first.scores["mood"].metrics


def test_a_registry_of_ones_own_with_tags(tables, run, tmp_path, monkeypatch):
    for place, kind in (("shop", "mood"), ("shop", "topic"), ("office", "names")):
        Path(place).mkdir(exist_ok=True)
        run("tasks", "new", f"{kind}.csv", "--out", f"{place}/{kind}.yaml", "--tag", "ours", place)
    said = {"model": tables, "tasks": ["ours"], "training": {**SHORT, "output_dir": "../run"}}
    Path("run.yaml").write_text(json.dumps({**said, "registry": ["shop", "office"]}))
    monkeypatch.chdir(tmp_path)
    done = mtl.train("work/run.yaml", [f"training.output_dir={tmp_path / 'run'}"])
    assert set(done.scores) == {"mood", "topic", "names"}
    assert set(mtl.evaluate(tmp_path / "run", "test")) == {"mood", "topic", "names"}

    monkeypatch.setenv("NLP_MTL_REGISTRY", os.pathsep.join([str(tmp_path / "work" / "shop"), "work/office"]))
    assert [task.name for task in mtl.load_tasks("shop")] == ["mood", "topic"]
    assert "names" in run("tasks", "list", "--tag", "ours")
    assert run("tasks", "check", "office").startswith("names: examples work; real rows work")


def test_a_task_with_a_template_trains_and_predicts_from_columns(tables):
    frame = pd.read_csv("mood.csv").assign(price=[i / 4 for i in range(90)], day=range(90))
    frame.loc[3, "price"] = None
    task = mtl.Task.from_data("mood", frame, template="day {day}, {price:-free}: {review}", label="verdict")
    done = mtl.train({"model": tables, "tasks": [task], "training": {**SHORT, "output_dir": "run"}})
    row = {"day": 3, "review": "the soup was bad"}
    assert mtl.predict("run", row) == mtl.predict("run", {**row, "price": None})
    assert mtl.predict("run", row) != mtl.predict("run", {**row, "price": 2.5})
    assert mtl.predict(done.model, row)["mood"]["label"] == mtl.predict("run", row)["mood"]["label"]
    assert mtl.predict("run", "the soup was bad") == {"mood": {"missing": ["day", "review"]}}
