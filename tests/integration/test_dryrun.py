"""A dry run says what the run then logs, finds the same mistakes, and leaves nothing behind."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

import nlp_mtl as mtl
from nlp_mtl import cli
from nlp_mtl.dryrun.show import print_dry_run
from nlp_mtl.errors import ConfigError, NlpMtlError, RunFolderError, TrainingError
from nlp_mtl.run import train
from tests.integration.tiny import config, write_base, write_tasks

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder of its own, so that anything left in it is seen."""
    monkeypatch.chdir(tmp_path)


def tree(folder):
    """Every file and folder below, with size and time of change."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in Path(folder).rglob("*")}


def look(said, **more):
    return mtl.dry_run(said, **{"timed": 2, "probe_rows": 0, **more})


# ----------------------------------------------------------------------------------------- what is said is what happens


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}),
        (
            {"sampler": {"name": "annealed", "last": 0.0}},
            {"num_train_epochs": 2.5, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 3},
        ),
        (
            {"sampler": {"name": "temperature", "temperature": 5.0, "epoch": "largest"}},
            {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4},
        ),
        ({"sampler": "round_robin"}, {"max_steps": 5, "eval_strategy": "epoch", "eval_on_start": True}),
    ],
    ids=["epochs", "annealed", "temperature", "round robin"],
)
def test_steps_rows_and_evaluations_are_those_that_the_run_logs(world, tmp_path, changes, training):
    said = config(*world, tmp_path / "run", training={"max_steps": -1, **training}, **changes)
    steps = look(said).steps
    assert not (tmp_path / "run").exists()
    run = train(said)
    state, log = run.trainer.state, run.trainer.state.log_history
    assert steps.steps == state.global_step == state.max_steps
    assert steps.steps_per_epoch == run.trainer.plan.steps
    shown = [
        {key.removeprefix("rows_"): int(value) for key, value in entry.items() if key.startswith("rows_")}
        for entry in log
        if "rows_mood" in entry
    ]
    assert steps.rows_per_epoch == shown
    assert steps.rows == {task: sum(epoch[task] for epoch in shown) for task in shown[0]}
    sizes = {task: run.trainer.data.facts(task, "train")["labelled"] for task in steps.rows}
    assert steps.repeats == {task: pytest.approx(steps.rows[task] / sizes[task], abs=1e-6) for task in sizes}
    assert steps.evaluations == sum("eval_mean" in entry for entry in log)
    assert steps.checkpoints == len(list((tmp_path / "run").glob("checkpoint-*")))
    assert steps.tokens == run.trainer.tokens_shown(0, steps.steps_per_epoch).sum() or len(shown) > 1 or steps.steps < 9


def test_the_timed_steps_are_the_plans_own(world, tmp_path, monkeypatch):
    """Their tokens are those that the model sees, and the largest step of the epoch is among them."""
    said = config(*world, tmp_path / "run", training={"max_steps": -1, "num_train_epochs": 2})
    seen = []
    forward = mtl.MultiTaskModel.forward

    def noting(self, *args, **kwargs):
        if kwargs.get("units") is not None:
            seen.append(len(kwargs["input_ids"]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(mtl.MultiTaskModel, "forward", noting)
    found = look(said, timed=3)
    assert len(seen) == 2 + 3 + 1
    assert [step["tokens"] for step in found.time.timed] == seen[2:]
    assert found.time.timed_steps == 4
    assert max(seen) == found.memory.largest_step
    monkeypatch.undo()
    run = train(said)
    assert max(run.trainer.tokens_shown(0, run.trainer.plan.steps)) == found.memory.largest_step


def test_time_and_memory_are_whole(world, tmp_path):
    found = look(config(*world, tmp_path / "run", training={"max_steps": 30, "eval_strategy": "epoch"}), timed=4)
    took, memory = found.time, found.memory
    assert took.step * 30 == pytest.approx(took.training)
    fastest, slowest = (pick(step["seconds"] for step in took.timed) for pick in (min, max))
    assert 0.3 * fastest < took.step < 3 * slowest
    assert took.evaluations == pytest.approx(found.steps.evaluations * took.evaluation)
    assert took.total == pytest.approx(took.training + took.evaluations)
    assert memory.weights == 4 * found.parameters["total"].all
    assert memory.gradients == 4 * found.parameters["total"].trained
    assert 2 * memory.gradients <= memory.optimizer < 2.1 * memory.gradients
    assert memory.peak > memory.weights + memory.gradients + memory.optimizer


def test_a_run_of_one_step_is_timed_too(world, tmp_path):
    found = look(config(*world, tmp_path / "run", training={"max_steps": 1}))
    assert (found.steps.steps, found.time.timed_steps) == (1, 1)
    assert found.time.training == pytest.approx(found.time.timed[0]["seconds"], abs=1e-6)


def test_lora_and_frozen_encoders(world, tmp_path):
    lora = look(config(*world, tmp_path / "run", lora={"r": 2, "target_modules": "all-linear"}))
    assert lora.parameters["encoder"].trained == 0 < lora.parameters["adapters"].trained
    assert lora.memory.gradients == 4 * lora.parameters["total"].trained < lora.memory.weights
    frozen = look(config(*world, tmp_path / "run", freeze="*"))
    assert frozen.parameters["total"].trained == frozen.parameters["heads"].all


# ----------------------------------------------------------------------------------------------- nothing is left behind


def test_nothing_is_written_with_everything_that_writes_turned_on(world, tmp_path):
    every = {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    said = config(*world, tmp_path / "run", training={**every, "load_best_model_at_end": True, "max_steps": 9})
    look(said)  # the cache of tokenized rows is filled
    before = tree(tmp_path), tree(Path(world[0]).parent)
    look(said)
    assert (tree(tmp_path), tree(Path(world[0]).parent)) == before
    assert not list(tmp_path.iterdir())


def test_a_dry_run_changes_nothing_of_a_run_after_it(world, tmp_path):
    said = config(*world, tmp_path / "a")
    plain = train(said).model.state_dict()
    after = config(*world, tmp_path / "b")
    look(after, probe_rows=64)
    again = train(after).model.state_dict()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.fixture
def stopped(world, tmp_path):
    """A run with checkpoints at steps 2 and 4 of 10, as if it had been killed after."""
    every = {"save_strategy": "steps", "save_steps": 2, "max_steps": 10, "eval_strategy": "epoch"}
    said = config(*world, tmp_path / "run", training={**every, "max_steps": 4})
    train(said)
    return {**said, "training": {**said["training"], "max_steps": 10}}


def test_resume_tells_what_is_left_and_touches_nothing(stopped, tmp_path):
    stopped["training"]["save_total_limit"] = 1
    before = tree(tmp_path)
    found = look(stopped, resume=True)
    assert tree(tmp_path) == before
    assert (found.steps.done, found.steps.steps) == (4, 10)
    assert found.run["resume_from"] == str(tmp_path / "run" / "checkpoint-4")
    assert found.time.training == pytest.approx(6 * found.time.step)
    assert found.steps.checkpoints == 3
    whole = look(stopped, overwrite=True)
    assert tree(tmp_path) == before
    assert (whole.steps.done, whole.run["resume_from"]) == (0, None)
    assert whole.time.training == pytest.approx(10 * whole.time.step)
    assert train(stopped, resume=True).trainer.state.global_step == 10


def test_resume_with_nothing_left_to_do(stopped, tmp_path):
    stopped["training"]["max_steps"] = 4
    found = look(stopped, resume=True)
    assert (found.time.timed_steps, found.time.training, found.memory.peak) == (0, 0.0, None)
    print_dry_run(found)


def test_resume_finds_what_a_resumed_run_would_find(stopped, world, tmp_path):
    with pytest.raises(RunFolderError, match="already holds a run"):
        look(stopped)
    with pytest.raises(RunFolderError, match="use one of them"):
        look(stopped, resume=True, overwrite=True)
    with pytest.raises(RunFolderError, match="no run to resume"):
        look(config(*world, tmp_path / "none"), resume=True)
    with pytest.raises(RunFolderError, match="another run"):
        look({**stopped, "tasks": stopped["tasks"][:2]}, resume=True)
    with pytest.raises(RunFolderError, match="full fine-tuning"):
        look({**stopped, "lora": {"r": 2}}, resume=True)
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        (checkpoint / "heads.safetensors").write_bytes(b"")
    before = tree(tmp_path)
    with pytest.raises(RunFolderError, match="no whole checkpoint"):
        look(stopped, resume=True)
    assert tree(tmp_path) == before


# ------------------------------------------------------------------------------------------------------------- mistakes


class Loud(TrainerCallback):
    """A callback that must not be called."""

    def on_train_begin(self, *args, **kwargs):
        raise AssertionError("called")


def wrong_label(folder):
    spec = json.loads((folder / "mood.yaml").read_text())
    (folder / "wrong.yaml").write_text(json.dumps({**spec, "name": "wrong", "labels": ["bad", "fine"]}))
    return str(folder / "wrong.yaml")


MISTAKES = {
    "a key": {"taskz": []},
    "a task": {"tasks": ["moood"]},
    "a label": {"tasks": wrong_label},
    "a metric": {"tasks": lambda folder: {"name": str(folder / "alike.yaml"), "metrics": ["span_f1"]}},
    "the sampler's tasks": {"sampler": {"name": "proportional", "caps": {"modo": 3}}},
    "the sampler's caps": {"sampler": {"name": "proportional", "caps": dict.fromkeys(["mood", "alike", "names"], 1)}},
    "a learning rate": {"learning_rates": {"hedas": 1e-3}},
    "the model": {"model": "no/such-model"},
    "the length": {"max_length": 100_000},
    "adapter targets": {"lora": {"r": 2, "target_modules": ["nowhere"]}},
    "a loss that is no number": {"training": {"learning_rate": 1e30, "max_grad_norm": 0.0}},
    "early stopping": {"callbacks": ["transformers:EarlyStoppingCallback"]},
    "a logger": {"training": {"report_to": "clearml"}},
    "the folder": {"training": {"output_dir": "file/run"}},
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_those_of_the_run(world, tmp_path, name):
    base, files = world
    (tmp_path / "file").write_text("a file")
    changes = {**MISTAKES[name]}
    if callable(changes.get("tasks")):
        changes["tasks"] = [changes["tasks"](Path(files[0]).parent)]
    said = {**config(base, files, tmp_path / "run", training=changes.pop("training", {})), **changes}
    before = tree(tmp_path)
    with pytest.raises(NlpMtlError) as dry:
        look(said)
    assert tree(tmp_path) == before
    with pytest.raises(NlpMtlError) as real:
        train(said)
    if name == "a loss that is no number":  # the steps are done in another order
        assert isinstance(dry.value, TrainingError) and isinstance(real.value, TrainingError)
    else:
        assert (type(dry.value), str(dry.value)) == (type(real.value), str(real.value))


def test_no_room_for_the_largest_step_is_told_with_its_tokens(world, tmp_path, monkeypatch):
    found = look(config(*world, tmp_path / "run"))
    forward = mtl.MultiTaskModel.forward

    def full(self, *args, **kwargs):
        if kwargs.get("units") is not None and len(kwargs["input_ids"]) >= found.memory.largest_step:
            raise torch.OutOfMemoryError("no room")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(mtl.MultiTaskModel, "forward", full)
    with pytest.raises(TrainingError, match=rf"a step of {found.memory.largest_step} tokens.*tokens_per_pass"):
        look(config(*world, tmp_path / "run"))


def test_callbacks_are_made_but_not_called(world, tmp_path, caplog):
    said = config(*world, tmp_path / "run", callbacks=[f"{__name__}:Loud"])
    assert any("callbacks of the run file" in note for note in look(said).notes)
    assert "callbacks of the run file" in caplog.text
    with pytest.raises(ConfigError, match="timed"):
        look(said, timed=0)


# --------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def typed(monkeypatch, capsys):
    """Call the entry point: exit code, standard output, standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["nlp-mtl", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_command_line_shows_tables_and_writes_json(world, tmp_path, typed):
    said = config(*world, tmp_path / "run", training={"disable_tqdm": False})
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(said))
    code, out, err = typed("train", file, "training.max_steps=5", "--dry-run", "--json", tmp_path / "found.json")
    assert code == 0
    for part in (
        "Rows, and tokens",
        "Labels and",
        "Steps: ",
        "Parameters",
        "Memory",
        "Time",
        "Rows on both",
        "Mean pool",
    ):
        assert f"\n{part}" in out
    assert "Train with:" in out and "training.max_steps=5" in out.splitlines()[-1]
    assert "timing steps" in err, "progress is shown"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["steps"]["steps"] == 5
    assert found["tasks"]["names"]["label_map"] == {"O": 0, "B-LOC": 1, "I-LOC": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "run.yaml"]
    code, out, _ = typed("train", file, "training.max_steps=5", "--dry-run", "--json", "-")
    assert code == 0
    again = json.loads(out)
    assert {key: again[key] for key in ("tasks", "steps", "parameters", "shared_rows", "pooling")} == {
        key: found[key] for key in ("tasks", "steps", "parameters", "shared_rows", "pooling")
    }


def test_mistakes_on_the_command_line(world, tmp_path, typed):
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({**config(*world, tmp_path / "run"), "sampler": "unifrom"}))
    code, out, err = typed("train", file, "--dry-run")
    assert (code, out) == (2, "")
    assert "did you mean 'uniform'" in err
    code, _, err = typed("train", file, "--json", "x.json")
    assert code == 2 and "--json goes with --dry-run" in err
    code, _, err = typed("train", file, "--dry-run", "--json", tmp_path / "no" / "x.json")
    assert code == 2 and "there is no folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.realdata
def test_sst2_and_sst5_share_sentences(tmp_path):
    import os

    root = os.environ.get("NLP_MTL_DATA_ROOT")
    if not root or not (Path(root) / "SetFit" / "sst5").is_dir():
        pytest.skip("NLP_MTL_DATA_ROOT has no SetFit/sst5")
    from nlp_mtl.data import load_data
    from nlp_mtl.dryrun.shared import shared_rows
    from nlp_mtl.testing import tiny_model

    model = tiny_model(["sst2", "sst5"])
    data = load_data(model.heads, model.tokenizer, max_length=64, data_root=root)
    found = {(*one.tasks, one.split, *one.train_tasks): one for one in shared_rows(data)}
    for key in (("sst2", "test", "sst5"), ("sst5", "test", "sst2")):
        assert found[key].rows >= 1
        row, train_row = found[key].first["row"], found[key].first["train_row"]
        texts = [
            data.pool_of(task, split).table[at][data.heads[task].task.inputs[0]]
            for task, split, at in ((key[0], "test", row), (key[2], "train", train_row))
        ]
        letters = ["".join(letter for letter in text.lower() if letter.isalnum()) for text in texts]
        assert letters[0] == letters[1] != ""
