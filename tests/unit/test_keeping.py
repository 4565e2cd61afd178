"""A task added to a finished run whose shared weights are trained too: each way is the run file that it says."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

import nlp_mtl as mtl
from nlp_mtl import yamlfile
from nlp_mtl.adapting.keeping import before_and_after, ways
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError
from nlp_mtl.regularizers import load_importance
from nlp_mtl.regularizers.o_lora import load_earlier
from nlp_mtl.run import train
from tests.integration.tiny import config, write_base, write_tasks

torch.set_num_threads(1)

LORA = {"r": 2, "target_modules": ["query", "value"]}
SHAPE = {"max_steps": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, task files, a finished run in full and one with a LoRA."""
    folder = tmp_path_factory.mktemp("keeping")
    base, files = write_base(folder / "base"), write_tasks(folder / "tasks", rows=28)
    train(config(base, files[:2], folder / "full", training=SHAPE))
    train(config(base, files[:2], folder / "lora", lora=LORA, training=SHAPE))
    return folder, files


def heads_of(run):
    return dict(run.model.modules_.state_dict())


def start_of(folder, task):
    model = mtl.MultiTaskModel.from_pretrained(folder)
    return {f"{task}.{name}": value for name, value in model.module_of(task).state_dict().items()}


@pytest.mark.parametrize(
    ("run", "keep", "learns", "says"),
    [
        ("full", "naive", ["names"], {}),
        (
            "full",
            {"name": "a_gem", "total": 8},
            ["names"],
            {"balancer": {"name": "a_gem", "memory": ["mood", "alike"]}},
        ),
        ("full", {"name": "ewc", "rows": 4}, ["names"], {}),
        ("lora", "o_lora", ["names"], {}),
        (
            "lora",
            {"name": "lwf", "temperature": 1},
            ["names"],
            {
                "distillation": [
                    {"teacher": "start", "tasks": ["mood", "alike"], "on": ["names"], "temperature": 1, "weight": 1.0}
                ]
            },
        ),
    ],
    ids=str,
)
def test_each_way_trains_what_it_says_and_starts_where_the_run_ended(place, tmp_path, run, keep, learns, says):
    folder, files = place
    done = mtl.add_task(folder / run, files[2], tmp_path / "out", keep=keep)
    assert done.model.tasks == ["mood", "alike", "names"]
    after = heads_of(done)
    for task in ("mood", "alike"):
        start = start_of(folder / run, task) if run == "full" else {}
        moved = any(not torch.equal(value, after[name]) for name, value in start.items())
        assert not start or moved == (task in learns), "a head learns where its task does"
    said = yamlfile.load(tmp_path / "out" / "run.yaml")[0]
    assert all(said[key] == value for key, value in says.items())
    rows = before_and_after(folder / run, done)
    assert [row["task"] for row in rows] == ["mood", "alike", "names"]
    assert [row["before"] is None for row in rows] == [False, False, True]
    if run == "full":
        old = mtl.evaluate(folder / run)
        assert all(row["before"] == pytest.approx(old[row["task"]].metrics[row["metric"]]) for row in rows[:2])
    if keep == "o_lora":
        assert said["init_from"]["merge"] is True
        assert {len(value) for value in load_earlier(tmp_path / "out").values()} == {4}
    if "ewc" in str(keep):
        assert load_importance(tmp_path / "out"), "it leaves what the next task needs"
        assert said["regularizers"][0]["tasks"] == ["mood", "alike"]


def test_the_verb_shows_scores_before_and_after(place, tmp_path):
    folder, files = place
    words = ["adapters", "add", str(folder / "full"), "--task", files[2], "--out", str(tmp_path / "out")]
    made = CliRunner().invoke(app, [*words, "--keep", "{name: replay, rows: 3}", "training.max_steps=1"])
    assert made.exit_code == 0, made.output
    assert "before" in made.output and "change" in made.output
    assert "names  span_f1        —" in made.output
    said = yamlfile.load(tmp_path / "out" / "run.yaml")[0]
    assert [item["rows"] for item in said["tasks"][:2]] == [{"train": 3}] * 2
    assert said["train_tasks"] == ["mood", "alike", "names"] and said["balancer"] == "rows"


@pytest.mark.parametrize(
    ("run", "keep", "changes", "words"),
    [
        ("full", "repaly", [], r"--keep is a way that there is, found 'repaly'; did you mean 'replay'\?"),
        ("full", "o_lora", [], "--keep o_lora is for a run with `lora`, found one without"),
        ("full", "synaptic_intelligence", [], r"needs what the run left .*found none .*or use --keep ewc"),
        ("full", {"name": "ewc", "strenth": 1}, [], r"takes no argument 'strenth'; did you mean 'strength'\?"),
        ("full", {"name": "replay", "rows": -1}, [], r"`replay.rows` is a number of rows .*found -1"),
        ("full", {"name": "lwf", "on": ["mood"]}, [], "--keep lwf: `lwf` says itself who learns from whom, found 'on'"),
        ("full", {"name": "lwf", "temperature": 0}, [], "--keep lwf: `lwf`: `temperature` is a number above 0"),
        ("full", {"name": "naive", "rows": 3}, [], "takes no arguments, found"),
        ("full", "naive", ["task_lora.r=4"], "takes training, lora.* with --keep naive, found 'task_lora.r=4'"),
        ("full", "naive", ["training.output_dir=x"], "say --out"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_done(place, tmp_path, run, keep, changes, words):
    folder, files = place
    with pytest.raises(ConfigError, match=words):
        mtl.add_task(folder / run, files[2], tmp_path / "out", changes, keep=keep)
    assert not (tmp_path / "out").exists()


def test_a_task_that_is_there_and_a_run_without_its_file_are_refused(place, tmp_path):
    folder, files = place
    with pytest.raises(ConfigError, match="a task that the run does not have, found 'mood'"):
        mtl.add_task(folder / "full", files[0], tmp_path / "out", keep="naive")
    mtl.MultiTaskModel.from_pretrained(folder / "full").save_pretrained(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"found no run file \(run.yaml\) in .*say --keep frozen"):
        mtl.add_task(tmp_path / "saved", files[2], tmp_path / "out", keep="naive")


def test_every_regularizer_is_a_way():
    assert {"frozen", "replay", "ewc", "o_lora", "synaptic_intelligence"} <= set(ways())
