"""Samplers that learn, groups and tasks that stop, in training: resumed, over processes, and to the end."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.rates import factors_of
from nlp_mtl.run import train
from nlp_mtl.stepsfile import read_steps
from nlp_mtl.testing import tiny_model
from tests.integration.test_processes import agree, run
from tests.integration.tiny import config, state_of, write_base, write_tasks

EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
EVALUATED |= {"save_total_limit": 9, "load_best_model_at_end": False}
WAYS = {
    "learning_progress": {"sampler": {"name": "learning_progress", "every": 2}},
    "bandit": {"sampler": {"name": "bandit", "every": 1}},
    "by_reference": {
        "sampler": {"name": "by_reference", "references": {"mood": 0.9, "alike": 0.9, "names": 0.5, "rainy": 0.9}}
    },
    "stop_tasks": {"stop_tasks": {"patience": 2}},
    "groups": {"groups": {"groups": {"x": ["mood"], "y": ["alike", "names", "rainy"]}, "order": "stages"}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {"tasks": write_tasks(folder / "data", rows=40), "base": write_base(folder / "base")}


def said(world, out, *, training=None, **changes):
    shape = {"max_steps": 8, "per_device_train_batch_size": 6, "learning_rate": 5e-3, "logging_steps": 2}
    shape |= {"lr_scheduler_type": "constant", **EVALUATED}
    return config(world["base"], world["tasks"], out, **changes, training={**shape, **(training or {})})


@pytest.mark.parametrize("name", WAYS)
def test_a_resumed_run_is_bit_for_bit_the_run(world, tmp_path, name):
    import shutil

    whole = train(said(world, tmp_path / "whole", **WAYS[name]))
    part = tmp_path / "part"
    part.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", part / "checkpoint-4")
    for file in ("run.yaml", "steps.jsonl"):
        shutil.copy(tmp_path / "whole" / file, part / file)
    rest = train(said(world, part, **WAYS[name]), resume=True)
    for key, value in state_of(whole.model).items():
        assert torch.equal(state_of(rest.model)[key], value), key
    assert read_steps(part) == read_steps(tmp_path / "whole")
    assert whole.trainer.sampler.state_dict() == rest.trainer.sampler.state_dict()


@pytest.mark.processes
def test_two_processes_equal_one(world, tmp_path, forked_python):
    """What is learned is learned from the losses of all processes."""
    shape = {"per_device_train_batch_size": 6, "max_steps": 8, "logging_steps": 1, "eval_strategy": "no"}
    shape["save_strategy"] = "no"
    more = {"one": {"gradient_accumulation_steps": 2}, "two": {}}
    told = {
        name: {"config": said(world, tmp_path / name, **WAYS["bandit"], training={**shape, **own})}
        for name, own in more.items()
    }
    log_one, state_one = run(forked_python, tmp_path, told["one"], name="one")
    log_two, state_two = run(forked_python, tmp_path, told["two"], processes=2, name="two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    agree(state_two, state_one, atol=2e-5, rtol=1e-3)


def test_training_ends_when_all_tasks_have_stopped(world, tmp_path):
    made = train(
        said(world, tmp_path / "run", stop_tasks={"patience": 1, "threshold": 10.0}, training={"max_steps": 20})
    )
    assert made.trainer.state.global_step == 4, "the first evaluation sets the bests, the second beats none by 10"


def test_a_stopped_task_gets_no_more_rows(world, tmp_path):
    from nlp_mtl.starting import read_run, trainer_of

    trainer = trainer_of(*read_run(said(world, tmp_path / "run", stop_tasks={"patience": 1}, sampler="uniform")))
    observe = trainer.sampler.observe_scores

    def worse(step, scores):  # mood never gets better, the others always do
        observe(step, {t: ((0.0, True) if t == "mood" else (float(step), True)) for t in scores})

    trainer.sampler.observe_scores = worse
    trainer.train()
    present = [set(line["losses"]) for line in read_steps(tmp_path / "run")]
    assert all("mood" in here for here in present[:4])
    assert not any("mood" in here for here in present[5:]), "stopped after step 4, and step 5 was drawn already"


def test_what_can_not_be_done_is_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="this run has none"):
        train(said(world, tmp_path / "a", stop_tasks={"patience": 1}, training={"eval_strategy": "no"}))
    parted = {"groups": {"x": ["mood", "names"], "y": ["rainy"]}}
    with pytest.raises(ConfigError, match="names, rainy label the same rows"):
        train(said(world, tmp_path / "e", groups=parted))
    with pytest.raises(UnsupportedError, match="would have drawn them already; set it to 0"):
        train(said(world, tmp_path / "b", **WAYS["bandit"], training={"dataloader_num_workers": 1}))
    with pytest.raises(ConfigError) as caught:
        train(said(world, tmp_path / "c", task_rates={"mod": 2.0, "mood": 2.0}, layer_decay=0.5, balancer="equal"))
    assert "task_rates: 'mod' is not a task; did you mean 'mood'?" in str(caught.value)
    with pytest.raises(ConfigError, match="groups: 'moo' is not a task with training rows; did you mean 'mood'"):
        train(said(world, tmp_path / "d", groups={"groups": {"x": ["moo"], "y": ["alike"]}}))


@pytest.mark.parametrize(
    "family",
    ["bert", "roberta", "electra", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama", "gpt_neox", "qwen2"],
)
def test_lower_layers_learn_slower(world, family):
    model = tiny_model(world["tasks"], family)
    factors = factors_of(model, 0.5, {})
    named = {name: factors.get(id(p), 1.0) for name, p in model.sharing.encoder.named_parameters()}
    assert set(named.values()) >= {0.5, 0.25, 0.125}
    for name, factor in named.items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if layer is not None and "embeddings" not in name:
            assert factor == 0.5 ** (2 - layer), name
        elif "emb" in name or name.startswith(("wte", "wpe")) or "rel_embeddings" in name:
            assert factor == 0.125, name
        elif "pooler" in name or "ln_f" in name or "final" in name:
            assert factor == 1.0, name
    heads = [p for name, p in model.named_parameters() if name.startswith("modules_")]
    assert all(id(p) not in factors for p in heads)


def test_layers_that_share_weights_have_no_rates_of_their_own(world):
    with pytest.raises(ConfigError, match="no layers with weights of their own"):
        factors_of(tiny_model(world["tasks"], "albert"), 0.5, {})


def test_rates_by_task_are_of_its_head_and_its_adapter(world, tmp_path):
    from nlp_mtl.starting import read_run, trainer_of

    task_lora = {"r": 2, "target_modules": "all-linear"}
    changes = {"task_lora": task_lora, "task_rates": {"mood": 0.5}, "learning_rates": {"heads": 1e-3}}
    trainer = trainer_of(*read_run(said(world, tmp_path / "run", **changes)))
    optimizer = trainer.create_optimizer()
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            continue
        usual = 1e-3 if name.startswith("modules_") else 5e-3
        own = ".mood." in name
        assert rate[id(parameter)] == pytest.approx(usual * (0.5 if own else 1.0)), name
