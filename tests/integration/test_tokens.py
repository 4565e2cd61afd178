"""Steps counted in tokens and cut into passes: the same training, whatever fits into memory at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

import nlp_mtl as mtl
from nlp_mtl import checkpoint, yamlfile
from nlp_mtl.batches import MixedBatchSampler
from nlp_mtl.errors import ConfigError, TrainingError, UnsupportedError
from nlp_mtl.run import train
from tests.integration.test_processes import FSDP, agree, run
from tests.integration.tiny import config, state_of, write_base, write_many, write_tasks

torch.set_num_threads(1)
LORA = {"lora": {"r": 4, "target_modules": "all-linear"}}
TASK_LORA = {**LORA, "task_lora": {"r": 2, "target_modules": "all-linear"}}
SAVING = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base"), write_tasks(folder / "data"), folder


@pytest.fixture(scope="module")
def many(world):
    """Five kinds of head, a multiple-choice task among them, whose rows are several sequences."""
    folder = write_many(world[2] / "many", 5)
    return sorted(str(file) for file in folder.glob("*.yaml"))


@pytest.fixture
def calls(monkeypatch):
    """The tokens of every call of the model in training, and its rows."""
    seen, forward = [], mtl.MultiTaskModel.forward

    def noting(self, *args, **kwargs):
        if kwargs.get("units") is not None:
            rows = {int(row) for part in kwargs["owners"].values() for row in part} if "owners" in kwargs else set()
            seen.append((len(kwargs["input_ids"]), len(rows)))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(mtl.MultiTaskModel, "forward", noting)
    return seen


def settings(world, out, **changes):
    return config(world[0], changes.pop("tasks", world[1]), out, **changes)


def losses(found):
    log = found["log"] if isinstance(found, dict) else found.trainer.state.log_history
    return [{k: v for k, v in entry.items() if k.startswith(("loss", "grad"))} for entry in log if "loss" in entry]


def same_losses(one, two):
    for a, b in zip(losses(one), losses(two), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert b[key] == pytest.approx(a[key], abs=1e-6, rel=1e-5), key


# ------------------------------------------------------------------------------------------------------- passes


@pytest.mark.parametrize("tuning", [{}, LORA, TASK_LORA], ids=["full", "lora", "task_lora"])
@pytest.mark.parametrize("most", [1, 30, 90])
def test_the_gradient_of_a_step_is_the_same_in_passes(world, many, tmp_path, tuning, most, calls):
    """Loss and gradient of one step of all kinds of head, with and without a budget, to 1e-6."""
    found = []
    for budget in (None, most):
        model = mtl.MultiTaskModel.from_base(world[0], [*world[1], *many], max_length=64, seed=3, **tuning)
        args = TrainingArguments(str(tmp_path / "x"), per_device_train_batch_size=40, use_cpu=True, report_to="none")
        trainer = mtl.MultiTaskTrainer(model, args, precision="args", tokens_per_pass=budget)
        batch = next(iter(trainer.get_train_dataloader()))
        facts = trainer._get_num_items_in_batch([batch], args.device)
        calls.clear()
        loss = trainer.training_step(model, batch, facts)
        found.append((loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, list(calls)))
        assert sum(rows for _, rows in calls) == 40
        assert sum(tokens for tokens, _ in calls) == trainer.tokens_shown(0, 1)[0]
    (loss, whole, once), (in_parts, cut, times) = found
    assert len(once) == 1 < len(times)
    assert all(tokens <= most or rows == 1 for tokens, rows in times)
    torch.testing.assert_close(in_parts, loss, atol=1e-6, rtol=1e-6)
    assert cut.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-5, msg=lambda said, n=name: f"{n}: {said}")


@pytest.mark.parametrize("tuning", [{}, LORA], ids=["full", "lora"])
def test_training_in_passes_ends_with_the_same_weights_and_logs(world, tmp_path, tuning, calls):
    shape = {"per_device_train_batch_size": 12, "max_steps": 6}
    ways = {
        "whole": (None, shape),
        "passes": (40, shape),
        "single rows": (1, shape),
        "both": (25, {**shape, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
    }
    done, counts = {}, {}
    for name, (budget, training) in ways.items():
        calls.clear()
        done[name] = train(
            settings(world, tmp_path / name, **tuning, tokens_per_pass=budget, training=training),
        )
        counts[name] = len(calls)
        assert budget is None or all(tokens <= budget or rows == 1 for tokens, rows in calls)
    assert counts["whole"] == 6 < counts["passes"] < counts["single rows"] == 72
    assert counts["both"] > 18
    for name in ("passes", "single rows", "both"):
        agree(state_of(done[name].model), state_of(done["whole"].model), atol=2e-6, rtol=1e-4)
        same_losses(done["whole"], done[name])


def test_tokens_and_operations_seen_are_counted_once_for_all_passes(world, tmp_path):
    shape = {"max_steps": 4, "include_num_input_tokens_seen": "all"}
    one, cut = (
        train(settings(world, tmp_path / name, tokens_per_pass=budget, training=shape)).trainer.state
        for name, budget in (("one", None), ("cut", 20))
    )
    assert one.num_input_tokens_seen == cut.num_input_tokens_seen > 0
    assert one.total_flos == cut.total_flos > 0


def test_a_trainer_of_ones_own_gets_the_outputs_of_every_pass(world, tmp_path):
    kept = []

    class Own(mtl.MultiTaskTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            kept.append({task: len(inputs["owners"][task]) for task in outputs["logits"]})
            return (loss, outputs) if return_outputs else loss

    model = mtl.MultiTaskModel.from_base(world[0], world[1], max_length=64)
    args = TrainingArguments(
        str(tmp_path / "own"), max_steps=1, per_device_train_batch_size=16, use_cpu=True, save_strategy="no"
    )
    args.report_to, args.disable_tqdm = [], True
    trainer = Own(model, args, precision="args", tokens_per_pass=30)
    trainer.train()
    assert len(kept) > 2
    shown = trainer.rows_shown(0, 1)
    assert {task: sum(part.get(task, 0) for part in kept) for task in shown} == shown


def test_a_loss_that_is_no_number_names_task_and_step_in_passes_too(world, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss of .* at step [2-9]"):
        train(
            settings(
                world, tmp_path / "nan", tokens_per_pass=20, training={"learning_rate": 1e30, "max_grad_norm": 0.0}
            )
        )


# -------------------------------------------------------------------------------------------------------- steps


def test_every_step_holds_the_budget_and_the_epoch_every_row(world, tmp_path, calls):
    said = settings(world, tmp_path / "run", tokens_per_batch=120, training={"max_steps": -1, "num_train_epochs": 2})
    done = train(said)
    plan, trainer = done.trainer.plan, done.trainer
    assert done.trainer.state.global_step == 2 * plan.steps == len(calls)
    longest = max(int(pool.tokens.max()) for pool in trainer._train_pools)
    assert all(abs(tokens - plan.tokens_per_step) <= longest for tokens, _ in calls)
    assert [tokens for tokens, _ in calls] == [
        *trainer.tokens_shown(0, plan.steps),
        *trainer.tokens_shown(1, plan.steps),
    ]
    shown = [entry for entry in trainer.state.log_history if "rows_mood" in entry]
    assert [(e["rows_mood"], e["rows_alike"], e["rows_names"], e["rows_rainy"]) for e in shown] == [
        (40, 16, 40, 40)
    ] * 2


def test_six_steps_and_six_more_equal_twelve(world, tmp_path):
    """Cut off in the middle of an epoch, with dropout, two micro-batches and passes."""
    base = write_base(tmp_path / "base", dropout=0.1)
    said = {"tokens_per_batch": 190, "tokens_per_pass": 50, "sampler": {"name": "temperature", "temperature": 3.0}}
    shape = {**SAVING, "gradient_accumulation_steps": 2, "logging_steps": 2}

    def once(out, **more):
        return train(config(base, world[1], tmp_path / out, **said, training=shape), **more)

    whole = once("whole")
    assert 6 % whole.trainer.plan.steps, "in mid-epoch"
    once("cut")
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-6":
            shutil.rmtree(folder)
    resumed = once("cut", resume=True)
    one, two = state_of(whole.model), state_of(resumed.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert losses(whole) == losses(resumed)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_processes_and_micro_batches_get_like_tokens_and_together_the_plan(world, tmp_path, shape):
    processes, micro_batches = shape
    trainer = trainer_of(world, tmp_path, tokens_per_batch=200)
    trainer.get_train_dataloader()
    tokens = [pool.tokens for pool in trainer._train_pools]
    longest = max(int(part.max()) for part in tokens)
    rows_of = [pool.trainable for pool in trainer._train_pools]
    parts = [
        list(
            MixedBatchSampler(
                trainer.plan,
                rows_of,
                micro_batches=micro_batches,
                process=process,
                processes=processes,
                tokens=tokens,
                balance=True,
            )
        )
        for process in range(processes)
    ]
    for step in range(trainer.plan.steps):
        here = [batch for part in parts for batch in part[step * micro_batches : (step + 1) * micro_batches]]
        wanted = [(pool, int(rows_of[pool][row]), visit) for pool, row, visit in trainer.plan.rows(0, step)]
        assert sorted(ref for batch in here for ref in batch) == sorted(wanted)
        held = [sum(int(tokens[pool][row]) for pool, row, _ in batch) for batch in here]
        assert max(held) - min(held) <= longest


def trainer_of(world, tmp_path, training=None, **budgets):
    model = mtl.MultiTaskModel.from_base(world[0], world[1], max_length=64)
    args = TrainingArguments(str(tmp_path / "x"), use_cpu=True, report_to="none", **(training or {}))
    return mtl.MultiTaskTrainer(model, args, precision="args", **budgets)


# ---------------------------------------------------------------------------------------------------- processes


def passes_per_process(world, tmp_path, said, same=False):
    """[processes][micro-batches] how many passes each makes."""
    trainer = trainer_of(world, tmp_path, **said)
    trainer.get_train_dataloader()
    pools = trainer._train_pools
    return [
        [
            len(batch)
            for batch in MixedBatchSampler(
                trainer.plan,
                [pool.trainable for pool in pools],
                process=process,
                processes=2,
                tokens=[pool.tokens for pool in pools],
                balance="tokens_per_batch" in said,
                tokens_per_pass=said["tokens_per_pass"],
                same_passes=same,
            )
        ]
        for process in range(2)
    ]


@pytest.mark.processes
@pytest.mark.parametrize("way", ["ddp", "lora", "fsdp", "rows"])
def test_two_processes_equal_one(world, tmp_path, forked_python, way):
    """In tokens, in micro-batches, and in passes of which the processes make different numbers."""
    said = {"tokens_per_pass": 24} if way == "rows" else {"tokens_per_batch": 130, "tokens_per_pass": 24}
    first, second = passes_per_process(world, tmp_path, said)
    assert first != second, "different numbers of passes"
    padded = passes_per_process(world, tmp_path, said, same=True)
    assert padded[0] == padded[1] == np.maximum(first, second).tolist()
    said["sampler"] = {"name": "fixed", "rates": {"mood": 5, "alike": 1, "names": 3, "rainy": 3}}
    if way == "lora":
        said.update(LORA)
    shape = {"max_steps": 6, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 7}
    one = {"config": settings(world, tmp_path / "one", **{**said, "tokens_per_pass": None}, training=shape)}
    two = {"config": settings(world, tmp_path / "two", **said, training={**shape, **(FSDP if way == "fsdp" else {})})}
    if way == "rows":
        two["config"]["training"]["gradient_accumulation_steps"] = 1
    log_one, state_one = run(forked_python, tmp_path, one, name=f"tokens-{way}-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name=f"tokens-{way}-two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    same_losses(log_one, log_two)
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)


# -------------------------------------------------------------------------------------------- what is said of it


def test_a_dry_run_says_the_tokens_of_a_step_and_a_pass(world, tmp_path, capsys):
    said = settings(world, tmp_path / "run", tokens_per_batch=120, tokens_per_pass=64, training={"max_steps": -1})
    found = mtl.dry_run(said, timed=1, probe_rows=0)
    done = train({**said, "training": {**said["training"], "output_dir": str(tmp_path / "done")}})
    plan = done.trainer.plan
    assert found.steps.steps == done.trainer.state.global_step
    assert found.steps.tokens_per_step == round(plan.tokens_per_step)
    assert found.steps.tokens_per_pass == 64
    assert found.steps.rows_per_step == round(96 / plan.steps)
    assert found.steps.tokens == sum(int(pool.tokens.sum()) for pool in done.trainer._train_pools) * 3
    found.show()
    each = f"{round(plan.tokens_per_step)} tokens each (about {round(96 / plan.steps)} rows), in passes of at most 64 t"
    assert each in capsys.readouterr().out


def test_that_the_batch_size_does_not_count_is_said(world, tmp_path, caplog):
    with caplog.at_level("INFO", logger="nlp_mtl"):
        trainer_of(world, tmp_path, tokens_per_batch=128)
    assert "per_device_train_batch_size does not count" in caplog.text


@pytest.mark.parametrize("value", [0, -3, 2.5, "2048", True])
def test_budgets_that_are_no_numbers_are_refused(world, tmp_path, value):
    with pytest.raises(ConfigError) as caught:
        trainer_of(world, tmp_path, tokens_per_batch=value, tokens_per_pass=value)
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize(
    ("training", "budgets", "why"),
    [
        ({"auto_find_batch_size": True}, {"tokens_per_batch": 128}, "set tokens_per_pass"),
        ({"optim": "lomo"}, {"tokens_per_pass": 64}, "updates the weights in every backward pass"),
    ],
)
def test_what_would_silently_do_something_else_is_refused(world, tmp_path, training, budgets, why):
    with pytest.raises(UnsupportedError, match=why):
        trainer_of(world, tmp_path, training, **budgets)


def test_a_budget_that_a_row_does_not_fit_into_is_refused_before_the_old_run_goes(world, tmp_path):
    train(settings(world, tmp_path / "run", training={**SAVING, "max_steps": 3}))
    before = sorted(str(path) for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(ConfigError, match="the tokens of the longest training row"):
        train(settings(world, tmp_path / "run", tokens_per_batch=5, training={"max_steps": 3}), overwrite=True)
    caps = {"name": "proportional", "caps": {"mood": 1, "alike": 1, "names": 1}}
    with pytest.raises(ConfigError, match="`caps` leave 3 rows for step 0"):
        train(settings(world, tmp_path / "run", tokens_per_batch=200, sampler=caps), overwrite=True)
    assert sorted(str(path) for path in (tmp_path / "run").rglob("*")) == before


def test_the_run_file_that_a_run_leaves_says_the_budgets(world, tmp_path):
    train(settings(world, tmp_path / "run", tokens_per_batch=128, tokens_per_pass=64, training={"max_steps": 1}))
    said = yamlfile.load(tmp_path / "run" / "run.yaml")[0]
    assert (said["tokens_per_batch"], said["tokens_per_pass"]) == (128, 64)
