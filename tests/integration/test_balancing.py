"""Balancers in training: resumed, cut into passes, over processes, with tasks that are absent, and what is recorded."""

from __future__ import annotations

import json

import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, TrainingError, UnsupportedError
from nlp_mtl.run import train
from nlp_mtl.stepsfile import read_steps
from tests.integration.test_processes import agree, run
from tests.integration.tiny import config, state_of, write_base, write_tasks

LORA = {"r": 4, "target_modules": "all-linear"}
STATEFUL = ["uncertainty", "imtl_l", "dwa", "famo", "gradnorm", "gradvac", "pcd", "nash_mtl", "cr_mogm", "excess_mtl"]
DRAWING = ["random", "pcgrad", "graddrop"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {"tasks": write_tasks(folder / "data", rows=40), "base": write_base(folder / "base", dropout=0.1)}


def said(world, out, balancer, *, training=None, **changes):
    shape = {"max_steps": 4, "per_device_train_batch_size": 6, "learning_rate": 5e-3, "logging_steps": 2}
    both = {"lora": LORA, "balancer": balancer, **changes}
    return config(world["base"], world["tasks"], out, **both, training={**shape, **(training or {})})


def test_every_balancer_with_a_state_is_resumed_below():
    known = registry.balancers
    made = {}
    for name in known.names():
        needed = {"fixed": {"weights": {}}, "a_gem": {"memory": ["a"]}}
        made[name] = known.build({"name": name, **needed.get(name, {})})
        made[name].setup(["a", "b"], [1, 1], classes=[2, 2])
    remembers = {name for name, one in made.items() if one.state_dict() or getattr(one, "held", ())}
    assert remembers == set(STATEFUL)


@pytest.mark.parametrize("name", [*STATEFUL, *DRAWING])
def test_a_resumed_run_is_bit_for_bit_the_run(world, tmp_path, name):
    saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    changes = {"sampler": {"name": "proportional", "epoch": 6}}  # an epoch is a step, so one ends with the checkpoint
    whole = train(said(world, tmp_path / "whole", name, training=saved, **changes))
    train(said(world, tmp_path / "parts", name, training={**saved, "max_steps": 2}, **changes))
    parts = train(said(world, tmp_path / "parts", name, training=saved, **changes), resume=True)
    for key, value in state_of(whole.model).items():
        assert torch.equal(state_of(parts.model)[key], value), key
    assert read_steps(tmp_path / "parts") == read_steps(tmp_path / "whole")


@pytest.mark.parametrize(
    ("balancer", "full"),
    [
        ("pcgrad", False),
        ("upgrad", True),
        ("famo", False),
        ("uncertainty", True),
        ("gradnorm", True),
        ("graddrop", True),
        ({"name": "pcgrad", "scope": "last_layer"}, True),
    ],
    ids=str,
)
def test_a_step_may_be_cut_into_any_passes(world, tmp_path, balancer, full):
    base = write_base(tmp_path / "base")  # without dropout, whose numbers depend on the cut
    changes = {"lora": None} if full else {}
    states, steps = [], []
    for name, shape in {
        "one": {"per_device_train_batch_size": 12},
        "three": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    }.items():
        made = train(
            said(
                {**world, "base": base},
                tmp_path / name,
                balancer,
                **changes,
                training={**shape, "save_strategy": "epoch"},
            )
        )
        states.append(state_of(made.model))
        steps.append(read_steps(tmp_path / name))
    for key, value in states[0].items():
        torch.testing.assert_close(
            states[1][key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )
    for one, three in zip(*steps, strict=True):
        assert three["weights"] == pytest.approx(one["weights"], rel=2e-3, abs=1e-4)
        assert three["losses"] == pytest.approx(one["losses"], rel=1e-4, abs=1e-5)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("balancer", "full"),
    [("upgrad", False), ("pcgrad", True), ("famo", False), ({"name": "gradvac", "scope": "last_layer"}, True)],
    ids=str,
)
def test_two_processes_equal_one(world, tmp_path, forked_python, balancer, full):
    changes = {"lora": None} if full else {}
    rates = {"mood": 5, "alike": 1, "names": 3, "rainy": 3}  # counts differ, a task may be on one process only
    changes["sampler"] = {"name": "fixed", "rates": rates}
    base = write_base(tmp_path / "base")
    shape = {"per_device_train_batch_size": 7, "max_steps": 3, "logging_steps": 1}
    more = {"one": {"gradient_accumulation_steps": 2}, "two": {}}
    told = {
        name: {"config": said({**world, "base": base}, tmp_path / name, balancer, **changes, training={**shape, **own})}
        for name, own in more.items()
    }
    log_one, state_one = run(forked_python, tmp_path, told["one"], name="one")
    log_two, state_two = run(forked_python, tmp_path, told["two"], processes=2, name="two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith(("loss_", "grad_norm")):
                assert b[key] == pytest.approx(a[key], abs=2e-5, rel=1e-3), key
    agree(state_two, state_one, atol=2e-5, rtol=1e-3)
    assert len(log_two["digests"]) == 2 and len(set(log_two["digests"])) == 1, "the processes agree to the bit"


@pytest.mark.parametrize("name", ["pcgrad", "upgrad", "famo", "uncertainty", "gradnorm", "excess_mtl", "nash_mtl"])
def test_tasks_may_be_absent_from_a_step(world, tmp_path, name):
    """One task a step: each is weighed alone, and all learn."""
    made = train(said(world, tmp_path / "run", name, sampler="round_robin", training={"save_strategy": "epoch"}))
    lines = read_steps(tmp_path / "run")
    assert {tuple(line["losses"]) for line in lines} == {("mood",), ("alike",), ("names", "rainy")}
    assert all(set(line["weights"]) == set(line["losses"]) for line in lines)
    assert all(torch.isfinite(value).all() for value in state_of(made.model).values())


@pytest.mark.parametrize("name", ["pcgrad", "uncertainty", "graddrop"])
def test_a_loss_that_is_no_number_stops_and_says_whose(world, tmp_path, name):
    from nlp_mtl.starting import read_run, trainer_of

    trainer = trainer_of(*read_run(said(world, tmp_path / "run", name)))
    with torch.no_grad():
        for parameter in trainer.model.module_of("mood").parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss of mood is not a number at step 1"):
        trainer.train()


def test_what_can_not_be_weighed_is_refused_before_the_first_step(world, tmp_path):
    from nlp_mtl.starting import read_run, trainer_of

    def refused(kind, words, balancer, **changes):
        with pytest.raises(kind) as caught:
            trainer_of(*read_run(said(world, tmp_path / "run", balancer, **changes)))
        assert words in str(caught.value)

    refused(ConfigError, "nothing shared is trained", "pcgrad", lora=None, freeze="*")
    refused(
        ConfigError,
        "nothing shared is trained",
        "pcgrad",
        lora=None,
        task_lora={"r": 2, "target_modules": "all-linear"},
    )
    refused(ConfigError, "`scope` is lora, and the model has none", {"name": "mgda", "scope": "lora"}, lora=None)
    refused(ConfigError, "'mod' is not a task; did you mean 'mood'?", {"name": "upgrad", "weights": {"mod": 1}})
    refused(ConfigError, "`primary` 'mod' is not a task", {"name": "pcd", "primary": "mod"})
    again = {"activation_checkpointing": True}
    refused(
        UnsupportedError,
        "recomputes activations; use shared",
        {"name": "pcgrad", "scope": "last_layer"},
        training=again,
    )
    assert not (tmp_path / "run").exists()


def test_recomputed_activations_change_nothing(world, tmp_path):
    """The layers that tell rows apart would count twice; each task then has a backward pass of its own."""
    base = write_base(tmp_path / "base")
    found = [
        state_of(
            train(
                said(
                    {**world, "base": base},
                    tmp_path / str(again),
                    "pcgrad",
                    training={"activation_checkpointing": again},
                )
            ).model
        )
        for again in (False, True)
    ]
    for key, value in found[0].items():
        torch.testing.assert_close(
            found[1][key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_every_step_is_recorded(world, tmp_path):
    made = train(said(world, tmp_path / "run", "equal", cosines_every=2, training={"save_strategy": "epoch"}))
    lines = read_steps(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [("cosines" in line) for line in lines] == [True, False, True, False]
    for line in lines:
        assert sum(line["rates"].values()) >= 1 - 1e-6
        assert sum(line["weights"].values()) == pytest.approx(1, abs=1e-5)
        for row in line.get("cosines", {}).values():
            assert all(-1 <= value <= 1 for value in row.values())
    logged = [entry for entry in made.trainer.state.log_history if "loss" in entry]
    for entry, pair in zip(logged, (lines[:2], lines[2:]), strict=True):
        for task in made.model.tasks:
            values = [line["losses"][task] for line in pair if task in line["losses"]]
            if values:
                assert entry[f"loss_{task}"] == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_a_look_at_the_gradients_changes_nothing(world, tmp_path):
    """Steps that look for the record make the same update as those that don't."""
    base = write_base(tmp_path / "base")
    found = [
        state_of(
            train(said({**world, "base": base}, tmp_path / str(every), "equal", lora=None, cosines_every=every)).model
        )
        for every in (0, 1)
    ]
    for key, value in found[0].items():
        within = 1e-4 if key.endswith("key.bias") else 2e-6
        torch.testing.assert_close(
            found[1][key], value, atol=within, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_cosines_are_those_of_plain_gradients(world, tmp_path):
    from nlp_mtl.starting import read_run, trainer_of

    trainer = trainer_of(*read_run(said({**world, "base": write_base(tmp_path / "base")}, tmp_path / "run", "pcgrad")))
    seen = []
    done = trainer.step_done
    trainer.step_done = lambda: seen.append(done())  # type: ignore[method-assign]
    kept = []
    count = trainer._get_num_items_in_batch
    trainer._get_num_items_in_batch = lambda batches, device: (kept.extend(batches), count(batches, device))[1]
    trainer.args.max_steps = 1
    trainer.args.learning_rate = 0.0
    trainer.train()
    model: mtl.MultiTaskModel = trainer.model.train()
    shared = list(model.sharing.shared_parameters())
    rows = []
    here = [task for task in model.tasks if task in kept[0]["targets"]]
    for task in here:
        out = model(**kept[0], weights={t: float(t == task) for t in model.tasks})
        found = torch.autograd.grad(out["loss"], shared, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(shared, found, strict=True)
                ]
            )
        )
    plain = torch.nn.functional.normalize(torch.stack(rows).double(), dim=1)
    order = [model.tasks.index(task) for task in here]
    torch.testing.assert_close(seen[0].cosines[order][:, order], plain @ plain.T, atol=1e-4, rtol=0)
    assert json.dumps(read_steps(tmp_path / "run")) == "[]", "nothing is written where nothing is saved"


def test_a_pass_without_rows_is_nothing_to_the_last_layer(world, tmp_path):
    """Five micro-batches of one row, of an epoch of seven rows: the last step has two rows and three empty passes."""
    base = write_base(tmp_path / "base")
    shape = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 5, "max_steps": 4}
    found = []
    for name, own in {
        "cut": shape,
        "whole": {**shape, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 1},
    }.items():
        balancer = {"name": "upgrad", "scope": "last_layer"}
        more = {"lora": None, "sampler": {"name": "uniform", "epoch": 7}}
        found.append(
            state_of(train(said({**world, "base": base}, tmp_path / name, balancer, **more, training=own)).model)
        )
    for key, value in found[0].items():
        within = 1e-4 if key.endswith("key.bias") else 2e-5
        torch.testing.assert_close(
            found[1][key], value, atol=within, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_a_gradient_that_is_no_number_stops_and_says_whose(world, tmp_path):
    """Finite losses may have gradients that are not: they would spread to all tasks."""
    from nlp_mtl.starting import read_run, trainer_of

    for scope in ("shared", "last_layer"):
        balancer = {"name": "upgrad", "scope": scope}
        trainer = trainer_of(*read_run(said(world, tmp_path / scope, balancer, lora=None)))
        head = trainer.model.heads["alike"]
        plain = head.loss

        def loss(logits, target, plain=plain):
            return plain(logits, target) + (logits * 0).sqrt().sum()  # 0, with a slope that is no number

        head.loss = loss
        with pytest.raises(TrainingError, match="the gradient of alike is not a number at step 1"):
            trainer.train()


def test_sharded_and_scaled_gradients_are_refused_with_the_way_out(world, tmp_path):
    from transformers.training_args import OptimizerNames

    from nlp_mtl.starting import read_run, trainer_of
    from nlp_mtl.weighing import weighing_for

    trainer = trainer_of(*read_run(said(world, tmp_path / "run", "pcgrad")))
    for how, words in (
        ({"sharded": True}, "FSDP or DeepSpeed.*use DDP"),
        ({"scaled": True}, "fp16 scales.*train in bf16"),
    ):
        flags = {"sharded": False, "scaled": False, **how}
        with pytest.raises(UnsupportedError, match=words):
            weighing_for(trainer, trainer.model, trainer.balancer, every=1, **flags)
        equal = registry.balancers.build("equal")
        assert weighing_for(trainer, trainer.model, equal, every=1, **flags).every == 0, "no look at them either"
    trainer.args.optim = OptimizerNames.LOMO
    with pytest.raises(UnsupportedError, match="updates the weights in it"):
        weighing_for(trainer, trainer.model, trainer.balancer, every=1, sharded=False, scaled=False)


def test_the_last_layer_is_refused_where_more_of_the_encoder_is_trained(world, tmp_path):
    from nlp_mtl.starting import read_run, trainer_of

    balancer = {"name": "pcgrad", "scope": "last_layer"}
    with pytest.raises(UnsupportedError, match="task adapters or a head tied to embeddings"):
        trainer_of(*read_run(said(world, tmp_path / "a", balancer, task_lora={"r": 2, "target_modules": "all-linear"})))
    for family in ("albert", "deberta-v2"):
        base = write_base(tmp_path / family, family)
        for name in ("pcgrad", "gradnorm"):
            run_file = said({**world, "base": base}, tmp_path / "b", {**balancer, "name": name}, lora=None)
            with pytest.raises(UnsupportedError, match="no layers with weights of their own, does not pack"):
                trainer_of(*read_run(run_file))


def test_a_loss_of_ones_own_is_never_passed_over(world, tmp_path):
    from transformers import TrainingArguments

    class Own(mtl.MultiTaskTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    model = mtl.MultiTaskModel.from_base(world["base"], world["tasks"], max_length=64)
    args = TrainingArguments(str(tmp_path / "own"), use_cpu=True, report_to="none")
    with pytest.raises(UnsupportedError, match=r"would never call Own\.compute_loss"):
        Own(model, args, balancer="pcgrad", precision="args")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"balancer": "uncertainty"}, {"balancer": "famo"}),
        ({"sampler": "uniform"}, {"sampler": "bandit"}),
        ({"sampler": "uniform", "stop_tasks": {"patience": 3}}, {"sampler": "bandit", "stop_tasks": {"patience": 3}}),
    ],
    ids=["balancer", "sampler", "sampler within"],
)
def test_another_strategy_does_not_take_over_this_ones_state(world, tmp_path, first, then):
    from nlp_mtl.errors import RunFolderError

    shape = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    shape |= {"load_best_model_at_end": False, "max_steps": 2}
    out = tmp_path / "run"
    train(said(world, out, **{"balancer": "equal", **first}, training=shape))
    with pytest.raises(RunFolderError, match="mixed or weighed its tasks in another way"):
        train(said(world, out, **{"balancer": "equal", **then}, training={**shape, "max_steps": 4}), resume=True)
