"""A-GEM's law: the new tasks' gradient, without what of it points against the memory's; and memory is not trained."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from nlp_mtl import MultiTaskModel, MultiTaskTrainer, registry
from nlp_mtl.balancers import StepFacts
from nlp_mtl.errors import ConfigError, UnsupportedError
from tests.integration.tiny import WORDS, write_base

torch.set_num_threads(1)

numbers = st.integers(-8, 8).map(float)


def facts_of(present):
    units = torch.tensor([float(one) for one in present])
    return StepFacts(0, units, units)


def balancer_of(tasks, memory):
    made = registry.balancers.build({"name": "a_gem", "memory": memory})
    made.setup(tasks, [10] * len(tasks))
    return made


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=4, max_size=4),
    present=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_it_is_its_formula_over_the_tasks_that_are_present(rows, present):
    tasks = ["a", "b", "c", "d"]
    jacobian = torch.tensor(rows, dtype=torch.float64) * torch.tensor(present)[:, None]
    weights = balancer_of(tasks, ["b", "d"]).weights(facts_of(present), gramian=jacobian @ jacobian.T)
    found = weights.double() @ jacobian
    new = [jacobian[i] for i in (0, 2) if present[i]]
    kept = [jacobian[i] for i in (1, 3) if present[i]]
    g = torch.stack(new).mean(0) if new else torch.zeros(5, dtype=torch.float64)
    if new and kept:
        m = torch.stack(kept).mean(0)
        if g @ m < 0:
            g = g - (g @ m) / (m @ m) * m
            assert abs(float(g @ m)) < 1e-9
    torch.testing.assert_close(found, g)
    assert (weights[~torch.tensor(present)] == 0).all()


def write(folder, flipped):
    """A task, and a second one with the same texts, whose labels are the same or the others."""
    folder.mkdir()
    files = []
    for name in ("old", "new"):
        rows = []
        for number in range(16):
            label = number % 2 != (flipped and name == "new")
            rows.append({"text": f"{WORDS[number]} {WORDS[number % 5]}", "label": "yes" if label else "no"})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        said = {"name": name, "head": "sequence_classification", "inputs": ["text"], "target": "label"}
        said |= {"labels": ["no", "yes"], "dataset": {"path": "json", "data_files": {"train": f"{name}.jsonl"}}}
        (folder / f"{name}.yaml").write_text(json.dumps(said))
        files.append(str(folder / f"{name}.yaml"))
    return files


@pytest.mark.parametrize(
    ("flipped", "tuning"),
    [(True, {}), (False, {}), (True, {"lora": {"r": 2, "target_modules": "all-linear"}})],
    ids=["against", "along", "against, lora"],
)
def test_a_step_is_the_formula_of_its_tasks_own_steps(tmp_path, flipped, tuning):
    """With SGD a step is a gradient: those of new and memory alone say what that of both is."""
    base, files = write_base(tmp_path / "base"), write(tmp_path / "data", flipped)

    def step(balancer):
        model = MultiTaskModel.from_base(base, files, max_length=32, seed=1, **tuning)
        model.module_of("new").load_state_dict(model.module_of("old").state_dict())
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in model.sharing.parameters():  # a LoRA of zeros has no gradient in A
                p.add_(torch.randn(p.shape, generator=generator) * 0.02) if p.requires_grad else None
        start = {name: p.detach().double().clone() for name, p in model.named_parameters() if p.requires_grad}
        args = TrainingArguments(
            str(tmp_path / "out"), max_steps=1, optim="sgd", lr_scheduler_type="constant", learning_rate=0.05,
            max_grad_norm=0, per_device_train_batch_size=16, save_strategy="no", use_cpu=True, report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = MultiTaskTrainer(model, args, balancer=balancer, sampler="uniform", precision="args")
        trainer.train()
        return {name: (model.get_parameter(name).detach().double() - value) / -0.05 for name, value in start.items()}

    new = step({"name": "fixed", "weights": {"old": 0.0}})
    memory = step({"name": "fixed", "weights": {"new": 0.0}})
    found = step({"name": "a_gem", "memory": "old"})
    shared = [name for name in new if name.startswith("sharing.")]
    g, m = (torch.cat([part[name].flatten() for name in shared]) for part in (new, memory))
    assert (float(g @ m) < 0) == flipped
    expected = g - (g @ m) / (m @ m) * m if flipped else g
    got = torch.cat([found[name].flatten() for name in shared])
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-3)
    for name in found:
        if name.startswith("modules_.old."):
            assert not found[name].any(), "memory only constrains"
        elif name.startswith("modules_.new."):
            torch.testing.assert_close(found[name], new[name], atol=2e-5, rtol=1e-3)


def test_a_head_that_a_memory_task_shares_with_a_new_one_is_refused(tmp_path):
    base, files = write_base(tmp_path / "base"), write(tmp_path / "data", False)
    tasks = [files[0], {"name": files[1], "head_of": "old"}]
    model = MultiTaskModel.from_base(base, tasks, max_length=32)
    args = TrainingArguments(str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to="none")
    with pytest.raises(UnsupportedError, match=r"old would only constrain .* shares a head with one that learns"):
        MultiTaskTrainer(model, args, balancer={"name": "a_gem", "memory": ["old"]})


@pytest.mark.parametrize(
    ("memory", "sizes", "words"),
    [
        ([], [1, 1], "`memory` names the tasks that were learned before, found none"),
        (["rtee"], [1, 1], r"'rtee' is not a task; did you mean 'rte'\?"),
        (["rte"], [0, 1], "found 'rte' without training rows"),
        (["rte", "cola"], [1, 1], "found no other task with training rows"),
    ],
    ids=str,
)
def test_wrong_memories_are_refused(memory, sizes, words):
    with pytest.raises(ConfigError, match=words):
        registry.balancers.build({"name": "a_gem", "memory": memory}).setup(["rte", "cola"], sizes)
