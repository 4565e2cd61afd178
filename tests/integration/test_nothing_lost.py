"""What a run leaves behind is whole, is found again, and is not thrown away for a mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

import nlp_mtl as mtl
from nlp_mtl import checkpoint
from nlp_mtl.errors import ConfigError, NlpMtlError, RunFolderError, UnsupportedError
from nlp_mtl.run import evaluate, train
from tests.integration.tiny import config, write_base, write_tasks

SHORT = {"max_steps": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data")


def settings(world, out, **changes):
    return config(*world, out, **{**changes, "training": {**SHORT, **changes.get("training", {})}})


def trainer_of(world, out, tasks=None, **more):
    base, files = world
    model = mtl.MultiTaskModel.from_base(base, tasks or files[:2], max_length=64)
    given = {"max_steps": 2, "report_to": "none", "use_cpu": True, "disable_tqdm": True, **more}
    return mtl.MultiTaskTrainer(model, TrainingArguments(str(out), **given), precision="args")


def test_overwrite_with_a_mistake_leaves_the_old_run(world, tmp_path):
    train(settings(world, tmp_path / "run"))
    before = sorted(file.name for file in (tmp_path / "run").iterdir())
    _, files = world
    for wrong in ({"model": str(tmp_path / "nowhere")}, {"tasks": [*files, "rte"]}):
        with pytest.raises(NlpMtlError):
            train({**settings(world, tmp_path / "run"), **wrong}, overwrite=True)
        assert sorted(file.name for file in (tmp_path / "run").iterdir()) == before
        assert checkpoint.damage(tmp_path / "run") is None
    assert train(settings(world, tmp_path / "run"), overwrite=True).scores


def test_without_checkpoints_the_model_is_saved_all_the_same(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={"save_strategy": "no"}))
    answer = mtl.predict(mtl.MultiTaskModel.from_pretrained(tmp_path / "run"), "a good cat")
    assert set(answer) == set(run.scores)


def test_tasks_without_validation_rows_train_and_are_named(world, tmp_path, caplog):
    base, files = world
    spec = json.loads(Path(files[0]).read_text())
    data = {"path": "json", "data_files": str(Path(files[0]).parent / "mood-train.jsonl")}
    alone = {**spec, "name": "alone", "dataset": data}
    (tmp_path / "alone.yaml").write_text(json.dumps(alone))
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    every["load_best_model_at_end"] = True
    run = train(config(base, [str(tmp_path / "alone.yaml")], tmp_path / "one", training={**SHORT, **every}))
    assert run.scores == {}
    assert "no task has validation rows" in caplog.text
    assert "alone: no validation rows, so it is not scored" in caplog.text
    both = train(config(base, [files[1], str(tmp_path / "alone.yaml")], tmp_path / "two", training={**SHORT, **every}))
    assert list(both.scores) == ["alike"]


@pytest.mark.parametrize("half", [False, True])
def test_a_run_folder_gives_the_scores_of_its_table_from_anywhere(world, tmp_path, monkeypatch, half):
    folder = Path(world[1][0]).parent
    monkeypatch.chdir(folder)
    names = [Path(file).name for file in world[1]]
    run = train(config(world[0], names, tmp_path / "run", training={**SHORT, "bf16": half}))
    monkeypatch.chdir(tmp_path)
    again = evaluate("run")
    for task, found in run.scores.items():
        assert again[task].metrics == pytest.approx(found.metrics, abs=1e-6), task
        assert again[task].loss == pytest.approx(found.loss, rel=1e-2 if half else 1e-6)


def test_metrics_that_do_not_fit_are_found_before_the_first_step(world, tmp_path):
    _, files = world
    tasks = mtl.load_tasks(files[:2])
    wrong = [tasks[0].with_(metrics=["span_f1"]), tasks[1].with_(metrics=["accuracy"])]
    trainer = trainer_of(world, tmp_path / "run", wrong)
    with pytest.raises(ConfigError) as caught:
        trainer.train()
    assert trainer.state.global_step == 0
    assert "task 'mood': `metrics: [span_f1]` can't be computed" in str(caught.value)
    assert "task 'alike': `metrics: [accuracy]` can't be computed" in str(caught.value)


def test_the_trainer_too_keeps_the_run_of_another(world, tmp_path):
    first = trainer_of(world, tmp_path / "run", save_strategy="steps", save_steps=2)
    first.train()
    first.train()  # its own it may go on with
    second = trainer_of(world, tmp_path / "run", save_strategy="steps", save_steps=1, max_steps=1)
    with pytest.raises(RunFolderError, match=r"already holds a run.*resume_from_checkpoint=True.*overwrite=True"):
        second.train()
    second.train(overwrite=True)
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path / "run")] == ["checkpoint-1"]


def test_splits_are_named_and_nothing_else(world, tmp_path):
    trainer = trainer_of(world, tmp_path / "run")
    for wrong in ("tset", trainer.train_dataset, {"mood": None}):
        with pytest.raises(ConfigError, match="one of train, validation, test"):
            trainer.evaluate(wrong)
        with pytest.raises(ConfigError, match="one of train, validation, test"):
            trainer.predict(wrong)
    assert trainer.evaluate() == trainer.evaluate("validation") == trainer.evaluate(trainer.eval_dataset)


def test_a_save_that_was_cut_off_is_not_loaded(world, tmp_path, monkeypatch):
    trainer = trainer_of(world, tmp_path / "run", save_strategy="steps", save_steps=1)
    trainer.train()
    moved = []

    def dying(source, target):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target)
        shutil.move(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", dying)
    work = tmp_path / "work"
    shutil.copytree(tmp_path / "run" / "checkpoint-2", work)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.install(work, tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(RunFolderError, match="the last save was cut off"):
        mtl.MultiTaskModel.from_pretrained(tmp_path / "run")
    assert mtl.MultiTaskModel.from_pretrained(tmp_path / "run" / "checkpoint-2").tasks
    (tmp_path / "run" / "checkpoint-2" / checkpoint.COMPLETE).unlink()
    with pytest.raises(RunFolderError, match=r"complete\.json is missing"):
        mtl.MultiTaskModel.from_pretrained(tmp_path / "run" / "checkpoint-2")


def test_fewer_processes_than_asked_for_are_refused_by_the_trainer_too(world, tmp_path, monkeypatch):
    model = mtl.MultiTaskModel.from_base(world[0], world[1][:1], max_length=64)
    args = TrainingArguments(str(tmp_path / "run"), report_to="none", use_cpu=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UnsupportedError, match="torchrun"):
        mtl.MultiTaskTrainer(model, args)


def test_the_output_of_a_file_appears_whole_or_not_at_all(world, tmp_path):
    from nlp_mtl.predictfile import predict_file

    train(settings(world, tmp_path / "run"))
    (tmp_path / "in.jsonl").write_bytes(b'"a good cat"\n"caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"in\.jsonl:2: not UTF-8"):
        predict_file(tmp_path / "run", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    (tmp_path / "in.jsonl").write_text('"a good cat"\n["a", "the cat"]\n', encoding="utf-8")
    assert predict_file(tmp_path / "run", tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 2
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_heads_of_few_outputs_are_in_full_precision_under_autocast(world, tmp_path):
    """bfloat16 keeps three digits: a regression's outputs would be rounded together."""
    from nlp_mtl.data import load_data

    base, files = world
    model = mtl.MultiTaskModel.from_base(base, files[1:2], max_length=64).eval()
    data = load_data(model.heads, model.tokenizer, max_length=64)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = mtl.evaluation.Evaluator(data).evaluate(model)["alike"].decoded
    values = torch.tensor(decoded)
    assert (values.bfloat16().float() != values).any()
