"""Rare labels: weights and tuned thresholds through training, checkpoints, resuming, evaluation and prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

import nlp_mtl as mtl
from nlp_mtl import run as runs
from nlp_mtl.cli import app
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads import make_heads
from nlp_mtl.run import evaluate, train
from tests.integration.tiny import config, state_of, write_base, write_rare


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rare")
    return write_base(folder / "base"), write_rare(folder / "data")


STEPS = {
    "max_steps": 12,
    "learning_rate": 5e-3,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "rare_f1",
}


def settings(world, out, **changes):
    return config(world[0], world[1], out, **changes)


def recorded(folder):
    """Task → its head as the folder records it."""
    said = json.loads((folder / "nlp_mtl.json").read_text(encoding="utf-8"))
    return {task["name"]: task["head"] for task in said["tasks"]}


def counts_of(file, name):
    rows = [json.loads(line)[name] for line in file.read_text(encoding="utf-8").splitlines()]
    return len(rows), rows


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(settings(world, out, training={**STEPS, "save_total_limit": 5})), out


def test_the_run_folder_records_weights_of_the_training_rows(world, trained, tmp_path):
    found = recorded(trained[1])
    count, rows = counts_of(Path(world[1][0]).parent / "train.jsonl", "rare")
    yes = rows.count("yes")
    assert found["rare"]["class_weights"] == pytest.approx({"no": count / 2 / (count - yes), "yes": count / 2 / yes})
    _, rows = counts_of(Path(world[1][0]).parent / "train.jsonl", "tags")
    flat = [tag for tags in rows for tag in tags]
    mean = (flat.count("O") + 5 * flat.count("B-LOC")) / len(flat)
    assert found["tags"]["class_weights"] == pytest.approx({"O": 1 / mean, "B-LOC": 5 / mean})
    for checkpoint in trained[1].glob("checkpoint-*"):
        assert {k: v["class_weights"] for k, v in recorded(checkpoint).items()} == {
            k: v["class_weights"] for k, v in found.items()
        }


def test_the_thresholds_of_the_best_checkpoint_are_those_of_the_run(trained):
    run, folder = trained
    best = folder / f"checkpoint-{run.trainer.state.best_global_step}"
    assert best.name != "checkpoint-12", "else the last thresholds would do"
    assert recorded(folder) == recorded(best)
    log = [entry for entry in run.trainer.state.log_history if "eval_rare_f1" in entry]
    by_step = {entry["step"]: entry for entry in log[:-1]}  # the last one is of the best model again
    for checkpoint in folder.glob("checkpoint-*"):
        (tuned,) = recorded(checkpoint)["rare"]["tuned"].values()
        assert tuned == by_step[int(checkpoint.name.split("-")[1])]["eval_rare_threshold"]
    for entry in log:
        assert entry["eval_rare_f1"] >= entry["eval_rare_f1_at_half"]
        assert entry["eval_many_f1_macro"] >= entry["eval_many_f1_macro_at_half"]
    said = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert said["thresholds"] == {task: recorded(folder)[task]["tuned"] for task in ("rare", "many")}
    assert "f1_at_half" in said["validation"]["rare"]
    assert set(said["trivial"]["rare"]) == {"f1"}


def test_evaluation_and_prediction_use_the_recorded_thresholds(world, trained):
    run, folder = trained
    again = evaluate(folder, "validation")
    for task, found in run.scores.items():
        assert again[task].metrics == pytest.approx(found.metrics)
        assert again[task].loss == pytest.approx(found.loss, rel=1e-5), "weighed alike"
        assert again[task].thresholds == found.thresholds
    test = evaluate(folder, "test")
    run.trainer.predict("test")
    assert test["rare"].metrics == pytest.approx(run.trainer.scores["rare"].metrics)
    rows = [json.loads(line) for line in (Path(world[1][0]).parent / "test.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows]
    answers = mtl.predict(folder, texts, tasks=["rare", "many"])
    assert [("no", "yes").index(answer["rare"]["label"]) for answer in answers] == test["rare"].decoded
    assert [[int(name in answer["many"]["labels"]) for name in ("cat", "dog")] for answer in answers] == test[
        "many"
    ].decoded


def test_a_resumed_run_equals_a_whole_one(world, trained, tmp_path):
    whole, folder = trained
    half = settings(world, tmp_path / "run", training={**STEPS, "save_total_limit": 5})
    shutil.copytree(folder, tmp_path / "run")
    for name in ("checkpoint-12", "checkpoint-8"):
        shutil.rmtree(tmp_path / "run" / name)
    resumed = train(half, resume=True)
    assert resumed.trainer.state.log_history[-1]["step"] == 12
    assert recorded(tmp_path / "run") == recorded(folder)
    ours, theirs = state_of(resumed.model), state_of(whole.model)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_last_model_is_tuned_where_nothing_was_evaluated(world, tmp_path):
    """And a checkpoint that was saved without an evaluation has no thresholds, rather than those of other weights."""
    saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "learning_rate": 5e-3}
    run = train(settings(world, tmp_path / "run", training=saving))
    assert "tuned" not in recorded(tmp_path / "run" / "checkpoint-3")["rare"]
    assert recorded(tmp_path / "run")["rare"]["tuned"] == run.scores["rare"].thresholds != {}
    both = {**saving, "eval_strategy": "steps", "eval_steps": 2}
    train(settings(world, tmp_path / "both", training=both))
    assert "tuned" not in recorded(tmp_path / "both" / "checkpoint-3")["rare"]
    assert "tuned" in recorded(tmp_path / "both" / "checkpoint-6")["rare"]
    assert "tuned" in recorded(tmp_path / "both")["many"]
    nothing = train(settings(world, tmp_path / "none", training={"max_steps": 2, "save_strategy": "no"}))
    assert recorded(tmp_path / "none")["rare"]["tuned"] == nothing.model.heads["rare"].chosen()


def test_training_goes_on_from_a_loaded_run_and_tunes_again(trained, tmp_path):
    _, folder = trained
    model = mtl.MultiTaskModel.from_pretrained(folder, trainable=True)
    before = recorded(folder)
    runs.find_files_again(model.heads, runs.recorded(folder))
    args = TrainingArguments(
        str(tmp_path), max_steps=4, learning_rate=5e-2, report_to="none", use_cpu=True, disable_tqdm=True
    )
    trainer = mtl.MultiTaskTrainer(model, args, precision="args")
    assert model.spec()["tasks"][0]["head"] == before["rare"], "the same rows give the same weights"
    trainer.train()
    assert recorded(tmp_path)["rare"]["class_weights"] == before["rare"]["class_weights"]
    assert recorded(tmp_path)["rare"]["tuned"] != before["rare"]["tuned"]


def test_rows_tokenized_apart_are_tuned_for_the_model_that_is_saved(world, tmp_path):
    tasks = mtl.load_tasks([*world[1]])
    model = mtl.MultiTaskModel.from_base(world[0], tasks, max_length=64)
    data = load_data(make_heads(tasks), model.tokenizer, max_length=64)
    args = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = mtl.MultiTaskTrainer(model, args, data=data, precision="args")
    trainer.train()
    assert recorded(tmp_path)["rare"]["tuned"] == model.heads["rare"].chosen() != {}


@pytest.mark.parametrize("parts", [2, 4])
def test_weighed_losses_do_not_depend_on_micro_batches(world, tmp_path, parts):
    shape = {"per_device_train_batch_size": 16, "max_steps": 4, "learning_rate": 5e-3}
    whole = train(settings(world, tmp_path / "whole", training=shape))
    cut = {**shape, "per_device_train_batch_size": 16 // parts, "gradient_accumulation_steps": parts}
    pieces = train(settings(world, tmp_path / "pieces", training=cut))
    for a, b in zip(whole.trainer.state.log_history, pieces.trainer.state.log_history, strict=True):
        for key in a:
            if key.startswith(("loss", "grad_norm")):
                assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), key
    for name, value in state_of(whole.model).items():
        torch.testing.assert_close(state_of(pieces.model)[name], value, atol=1e-5, rtol=1e-4)


def test_the_best_checkpoint_may_be_chosen_by_what_half_gives(world, tmp_path):
    named = {**STEPS, "max_steps": 4, "metric_for_best_model": "rare_f1_at_half"}
    run = train(settings(world, tmp_path / "run", training=named))
    assert run.trainer.state.best_metric == run.scores["rare"].metrics["f1_at_half"]
    with pytest.raises(ConfigError, match="no task gives 'tags_span_f1_at_half'"):
        train(settings(world, tmp_path / "no", training={**named, "metric_for_best_model": "tags_span_f1_at_half"}))


def test_the_command_line_says_what_was_tuned(world, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(settings(world, tmp_path / "run", training={"max_steps": 2})))
    app(["train", str(file)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "rare: thresholds tuned on these rows (" in said
    assert " for 'yes'); f1 at 0.5 is " in said
    app(["evaluate", str(tmp_path / "run"), "--split", "test"], standalone_mode=False)
    assert "f1_at_half" in capsys.readouterr().out
