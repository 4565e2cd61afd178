"""Training on tiny models: tuning regimes, scores, checkpoints, logs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

import nlp_mtl as mtl
from nlp_mtl import checkpoint
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.run import evaluate, train
from tests.integration.tiny import config, state_of, write_base, write_tasks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data"), folder


def settings(world, out, **changes):
    base, tasks, _ = world
    return config(base, tasks, out, **changes)


EVALUATED = {
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "load_best_model_at_end": True,
}


def test_the_losses_fall_and_all_tasks_are_scored(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={"max_steps": 60, "learning_rate": 5e-3}))
    log = [entry for entry in run.trainer.state.log_history if "loss" in entry]
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert list(run.scores) == ["mood", "alike", "names", "rainy"]
    logged = next(entry for entry in reversed(run.trainer.state.log_history) if "eval_mean" in entry)
    for key in (
        "eval_mood_accuracy",
        "eval_alike_pearson",
        "eval_names_span_f1",
        "eval_rainy_accuracy",
        "eval_mean",
        "eval_mean_skill",
    ):
        assert key in logged
    first = [
        logged[key] for key in ("eval_mood_accuracy", "eval_alike_pearson", "eval_names_span_f1", "eval_rainy_accuracy")
    ]
    assert logged["eval_mean"] == pytest.approx(sum(first) / 4)
    assert run.scores["names"].metrics["span_f1"] > run.scores["names"].trivial["span_f1"] - 0.5


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"lora": {"r": 2, "target_modules": "all-linear"}}, "lora_"),
        ({"lora": {"r": 2, "target_modules": ["query", "value"], "use_dora": True}}, "lora_"),
        ({"lora": {"r": 2, "target_modules": "all-linear", "use_rslora": True}}, "lora_"),
        ({"freeze": "*"}, "modules_"),
        ({"freeze": ["embeddings.*", "encoder.layer.0.*"]}, "encoder.layer.1"),
    ],
    ids=["lora", "dora", "rslora", "frozen", "partial"],
)
def test_only_what_should_be_trained_changes(world, tmp_path, changes, trained):
    from nlp_mtl.config import RunConfig

    said = settings(world, tmp_path / "run", **changes, training={"max_steps": 3})
    before = dict(
        mtl.MultiTaskModel.from_base(said["model"], said["tasks"], max_length=64, seed=42, **changes).named_parameters()
    )
    run = train(RunConfig(**said))
    after = dict(run.model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(before[name].requires_grad for name in changed)
    assert any(trained in name for name in changed)
    if changes.get("freeze") == "*":
        assert all(name.startswith("modules_") for name in changed)


@pytest.mark.parametrize("tuning", [{}, {"lora": {"r": 2, "target_modules": "all-linear"}}], ids=["full", "lora"])
def test_micro_batches_and_activation_checkpointing_change_nothing(world, tmp_path, tuning):
    shapes = {
        "plain": {"per_device_train_batch_size": 12},
        "micro": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
        "recomputed": {"per_device_train_batch_size": 12, "activation_checkpointing": True},
    }
    states = {}
    for name, shape in shapes.items():
        run = train(settings(world, tmp_path / name, **tuning, training={**shape, "max_steps": 5}))
        states[name] = state_of(run.model)
    for other in ("micro", "recomputed"):
        for name, value in states["plain"].items():
            torch.testing.assert_close(
                states[other][name], value, atol=2e-6, rtol=1e-4, msg=lambda text, n=name, o=other: f"{o} {n}: {text}"
            )


def test_the_kept_embedding_gradient_changes_nothing(world, tmp_path, monkeypatch):
    # a step that looks at the tasks' gradients adds them up in another order
    kept = state_of(train(settings(world, tmp_path / "kept", cosines_every=0)).model)
    monkeypatch.setattr(mtl.MultiTaskModel, "keep_embedding_gradient", lambda self, keep=True: False)
    plain = state_of(train(settings(world, tmp_path / "plain", cosines_every=0)).model)
    assert all(torch.equal(kept[name], plain[name]) for name in plain)


def test_a_mixed_batch_is_the_weighted_sum_of_tasks_alone(world):
    """Loss and gradient of a mixed batch equal those of each task's rows by themselves, added up."""
    base, tasks, _ = world
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=64).train()
    from nlp_mtl.batches import Collator
    from nlp_mtl.data import load_data

    data = load_data(model.heads, model.tokenizer, max_length=64)
    pools = data.splits["train"]
    refs = [(number, row, 0) for number in range(len(pools)) for row in range(5 + number)]
    collator = Collator(pools, data.heads, training=True)
    model(**collator(refs))["loss"].backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for number in range(len(pools)):
        model(**collator([ref for ref in refs if ref[0] == number]))["loss"].backward()
    for name, gradient in together.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-4)


def test_the_best_checkpoint_is_kept_and_taken(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={**EVALUATED, "learning_rate": 5e-3, "save_total_limit": 1}))
    history = [entry for entry in run.trainer.state.log_history if "eval_mean_skill" in entry and entry["step"] <= 12]
    best = max(history[:3], key=lambda entry: entry["eval_mean_skill"])
    assert run.trainer.state.best_global_step == best["step"]
    assert history[-1]["eval_mean_skill"] == pytest.approx(best["eval_mean_skill"])
    assert set(run.best_steps) == {"mood", "alike", "names", "rainy"}
    for task, found in run.best_steps.items():
        key = f"eval_{task}_{run.scores[task].first}"
        assert found["score"] == max(entry[key] for entry in history)


def test_early_stopping_is_the_trainers_own(world, tmp_path):
    patience = {"name": "transformers:EarlyStoppingCallback", "early_stopping_patience": 1}
    frozen = {**EVALUATED, "max_steps": 40, "learning_rate": 0.0}
    run = train(settings(world, tmp_path / "run", callbacks=[patience], training=frozen))
    assert run.trainer.state.global_step == 8


def test_heads_have_a_learning_rate_of_their_own(world, tmp_path):
    rates = {"heads": 1e-2, "encoder.layer.0.*": 0.0}
    run = train(
        settings(
            world, tmp_path / "run", learning_rates=rates, training={"max_steps": 2, "lr_scheduler_type": "constant"}
        )
    )
    groups = run.trainer.optimizer.param_groups
    assert {group["lr"] for group in groups} == {1e-3, 1e-2, 0.0}
    names = {id(p): n for n, p in run.model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            expected = 1e-2 if name.startswith("modules_") else 0.0 if "encoder.layer.0." in name else 1e-3
            assert group["lr"] == expected, name
    with pytest.raises(ConfigError, match="matches no trainable parameter"):
        train(settings(world, tmp_path / "wrong", learning_rates={"haeds": 1e-2}))


def test_rows_seen_are_logged_per_epoch(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={"max_steps": -1, "num_train_epochs": 2}))
    seen = [entry for entry in run.trainer.state.log_history if "rows_mood" in entry]
    assert [(e["rows_mood"], e["rows_alike"], e["rows_names"], e["rows_rainy"]) for e in seen] == [(40, 16, 40, 40)] * 2


def test_a_schedule_over_epochs_ends_with_max_steps(world, tmp_path):
    run = train(settings(world, tmp_path / "run", sampler={"name": "annealed", "epoch": 20}, training={"max_steps": 9}))
    plan = run.trainer.plan
    assert plan.epochs * plan.steps == pytest.approx(9)


def test_loss_per_task_in_the_log_is_the_mean_over_steps(world, tmp_path):
    each = train(settings(world, tmp_path / "each", training={"max_steps": 6, "logging_steps": 1}))
    both = train(settings(world, tmp_path / "both", training={"max_steps": 6, "logging_steps": 6}))
    single = [entry for entry in each.trainer.state.log_history if "loss" in entry]
    (mean,) = [entry for entry in both.trainer.state.log_history if "loss" in entry]
    for task in ("mood", "alike", "names", "rainy"):
        values = [entry[f"loss_{task}"] for entry in single if f"loss_{task}" in entry]
        assert mean[f"loss_{task}"] == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_a_run_folder_is_evaluated_to_the_same_scores(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={**EVALUATED, "max_steps": 8}))
    again = evaluate(tmp_path / "run")
    assert {t: s.metrics for t, s in again.items()} == {t: s.metrics for t, s in run.scores.items()}
    only = evaluate(tmp_path / "run", tasks=["names"])
    assert list(only) == ["names"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validation"]["mood"] == run.scores["mood"].metrics


def test_a_classifier_and_its_rows_with_missing_labels(tmp_path, world):
    """Rows without one task's label are skipped for that task only; a task without any can't be trained alone."""
    base = world[0]
    rows = [
        {
            "text": f"{'good' if i % 2 else 'bad'} cat {i}",
            "mood": "up" if i % 2 else "down",
            "size": None if i % 3 else float(i),
        }
        for i in range(30)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"path": "json", "data_files": {"train": str(tmp_path / "d.jsonl")}}
    shared = {"dataset": files, "inputs": ["text"]}
    mood = mtl.Task(name="mood", head="sequence_classification", target="mood", labels=["down", "up"], **shared)
    size = mtl.Task(name="size", head="regression", target="size", **shared)
    model = mtl.MultiTaskModel.from_base(base, [mood, size], max_length=32)
    args = TrainingArguments(
        str(tmp_path / "run"),
        num_train_epochs=1,
        per_device_train_batch_size=10,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = mtl.MultiTaskTrainer(model, args, precision="args")
    assert [pool.sizes for pool in trainer._pools] == [(30, 10)]
    trainer.train()
    (seen,) = [entry for entry in trainer.state.log_history if "rows_mood" in entry]
    assert (seen["rows_mood"], seen["rows_size"]) == (30, 10)
    nothing = size.with_(name="nothing", target="text2", splits={"train": "train"})
    with pytest.raises(DataError, match="text2"):
        mtl.MultiTaskTrainer(mtl.MultiTaskModel.from_base(base, [nothing], max_length=32), args, precision="args")


def test_a_number_starts_at_the_labels_mean_and_its_loss_has_no_unit(tmp_path, world):
    """Labels in other units give the same losses and gradients; a model that was trained is not started again."""
    base, trainers = world[0], {}
    for unit in (1.0, 100.0):
        rows = [{"text": f"{'good' if i % 2 else 'bad'} cat {i}", "size": unit * (3 + i % 5)} for i in range(20)]
        (tmp_path / f"{unit}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"path": "json", "data_files": {"train": str(tmp_path / f"{unit}.jsonl")}}
        task = mtl.Task(name="size", head="regression", dataset=files, inputs=["text"], target="size")
        model = mtl.MultiTaskModel.from_base(base, [task], max_length=32)
        args = TrainingArguments(str(tmp_path / f"run{unit}"), max_steps=2, report_to="none", use_cpu=True)
        trainers[unit] = mtl.MultiTaskTrainer(model, args, precision="args")
        assert model.module_of("size").classifier.bias.item() == pytest.approx(5 * unit)
        assert model.heads["size"].variance == pytest.approx(2 * unit**2)
        with torch.no_grad():
            model.module_of("size").classifier.weight.mul_(unit)
    losses, gradients = [], []
    for trainer in trainers.values():
        batch = next(iter(trainer.get_train_dataloader()))
        facts = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
        trainer.model.eval()
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=facts)
        loss.backward()
        losses.append(loss.item())
        gradients.append(trainer.model.sharing.encoder.encoder.layer[0].output.dense.weight.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)
    trainers[1.0].train()
    bias = trainers[1.0].model.module_of("size").classifier.bias.item()
    assert bias != 5.0
    again = mtl.MultiTaskModel.from_pretrained(tmp_path / "run1.0", trainable=True)
    assert again.heads["size"].variance == pytest.approx(2.0)
    mtl.MultiTaskTrainer(again, trainers[1.0].args, precision="args")
    assert again.module_of("size").classifier.bias.item() == bias


def test_precision_is_chosen_only_where_nobody_did(world, tmp_path):
    from nlp_mtl.settings import best_precision

    base, tasks, _ = world
    model = mtl.MultiTaskModel.from_base(base, tasks[:1], max_length=64)
    free = TrainingArguments(str(tmp_path / "a"), report_to="none", use_cpu=True)
    here = best_precision(torch.device("cpu"))
    assert mtl.MultiTaskTrainer(model, free).accelerator.mixed_precision == here
    assert not free.bf16  # the caller's arguments stay as they are
    left = TrainingArguments(str(tmp_path / "c"), report_to="none", use_cpu=True)
    assert mtl.MultiTaskTrainer(model, left, precision="args").accelerator.mixed_precision == "no"
    asked = TrainingArguments(str(tmp_path / "b"), report_to="none", use_cpu=True, bf16=True)
    assert mtl.MultiTaskTrainer(model, asked).accelerator.mixed_precision == "bf16"


def test_bf16_trains_to_nearly_the_same_losses(world, tmp_path):
    plain = train(settings(world, tmp_path / "plain"))
    half = train(settings(world, tmp_path / "half", training={"bf16": True}))
    for a, b in zip(plain.trainer.state.log_history, half.trainer.state.log_history, strict=True):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=0.05, abs=0.02)


@pytest.mark.parametrize(
    "name",
    [
        "_save_checkpoint",
        "_load_best_model",
        "_load_from_checkpoint",
        "evaluate",
        "_get_num_items_in_batch",
        "get_train_dataloader",
        "training_step",
        "_track_num_input_tokens",
        "init_hf_repo",
        "push_to_hub",
        "_push_from_checkpoint",
    ],
)
def test_the_base_classs_methods_that_are_overridden_are_those_that_were_read(name):
    """When transformers changes one of these, read it again, adapt the override, and record the new digest."""
    import hashlib
    import inspect
    from pathlib import Path

    from transformers import Trainer

    known = json.loads((Path(__file__).parent / "trainer_methods.json").read_text())
    found = hashlib.sha256(inspect.getsource(getattr(Trainer, name)).encode()).hexdigest()[:16]
    assert known[name] == found


def test_the_command_shows_progress_scores_and_what_comes_next(world, tmp_path, forked_python):
    """As its own process: a bar while training, a table with baselines, and commands that run as they stand."""
    import shlex

    base, files = world[0], world[1]
    said = config(base, files, tmp_path / "run", training={"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2})
    del said["training"]["disable_tqdm"]
    (tmp_path / "run.yaml").write_text(json.dumps(said))
    command = [forked_python, "-m", "nlp_mtl.cli", "train", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "training: 100%" in done.stderr
    assert "mean score" in done.stdout
    for task in ("mood", "alike", "names", "rainy"):
        assert any(line.startswith(task) for line in done.stdout.splitlines()), done.stdout
    assert "trivial baseline" in done.stdout
    following = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(following) == 3
    predict = shlex.split(following[0])
    assert predict[-3:-1] == ["predict", str(tmp_path / "run")]
    assert predict[0] == sys.executable
    again = subprocess.run([forked_python, *predict[1:]], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert set(json.loads(again.stdout)) == {"mood", "alike", "names", "rainy"}


@pytest.mark.parametrize("looks", ["callback", "hook"])
def test_who_looks_at_gradients_before_the_step_finds_them_clipped(world, tmp_path, looks):
    base, tasks, _ = world
    norms = []

    def note(model):
        parts = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(parts)))

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            note(model)

    args = TrainingArguments(
        str(tmp_path), max_steps=2, max_grad_norm=1e-3, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=64)
    trainer = mtl.MultiTaskTrainer(model, args, callbacks=[Look()] if looks == "callback" else None)
    if looks == "hook":
        trainer.create_optimizer().register_step_pre_hook(lambda *given: note(model))
    trainer.train()
    assert norms == pytest.approx([1e-3] * 2, rel=1e-2)


def test_predictions_after_training_are_in_the_precision_of_the_run(world, tmp_path):
    run = train(settings(world, tmp_path / "run", training={"max_steps": 2, "bf16": False}))
    after, text = mtl.predict(run.model, "It rained all day."), "It rained all day."
    assert after == mtl.predict(run.model, text, dtype="float32")
    assert after == mtl.predict(tmp_path / "run", text)


def test_each_task_can_be_kept_at_its_own_best_step(world, tmp_path):
    shape = {
        "num_train_epochs": 4,
        "learning_rate": 2e-2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 2,
    }
    shape |= {"save_strategy": "steps", "save_steps": 2}
    tuning = {"task_lora": {"r": 2, "target_modules": "all-linear"}, "keep_best": "task"}
    run = train(settings(world, tmp_path / "run", **tuning, training=shape))
    assert len({best["step"] for best in run.best_steps.values()}) > 1, "or it would be no law"
    for task, best in run.best_steps.items():
        assert run.scores[task].metrics[run.scores[task].first] == pytest.approx(best["score"], abs=1e-9), task
    again = mtl.MultiTaskModel.from_pretrained(tmp_path / "run", base=world[0])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in run.model.state_dict().items())
    last = max(checkpoint.checkpoints(tmp_path / "run"), key=lambda part: int(part.name.split("-")[1]))
    for folder in checkpoint.checkpoints(tmp_path / "run"):
        if folder == last:
            shutil.rmtree(folder)  # as if it had been cut off before
    resumed = train(settings(world, tmp_path / "run", **tuning, training=shape), resume=True)
    found = resumed.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({}, "set `task_lora`"),
        ({"lora": {"r": 2, "target_modules": "all-linear"}}, "set `task_lora`"),
        ({"lora": {"r": 2}, "task_lora": {"r": 2}}, "leave `lora` out"),
    ],
)
def test_own_best_steps_are_refused_where_tasks_share_what_is_trained(world, tmp_path, tuning, said):
    with pytest.raises(ConfigError, match=f"keep_best.*{said}"):
        train(settings(world, tmp_path / "run", **tuning, keep_best="task"))
