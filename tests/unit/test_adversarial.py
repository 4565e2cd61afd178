"""Laws of adversarial training: nothing at radius 0, within its ball, alike however a batch is computed."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlp_mtl import checkpoint, registry
from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.regularizers import FreeLB, Smart
from nlp_mtl.regularizers.adversarial import norms, within
from nlp_mtl.regularizers.smart import distance
from nlp_mtl.run import train
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_model
from tests.integration.test_resume import same
from tests.integration.tiny import config, state_of, write_base, write_tasks

LORA = {"r": 2, "target_modules": "all-linear", "lora_dropout": 0.1}
KINDS = {"freelb": FreeLB, "smart": Smart}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_base(folder / "base", dropout=0.1), write_tasks(folder / "data", rows=24)


def a_pass(files, **settings):
    model = tiny_model(load_tasks(files[:3]), **settings)
    data = load_data(model.heads, model.tokenizer, max_length=64)
    pools = data.splits["train"]
    refs = [(pool, row, 0) for pool in range(len(pools)) for row in range(min(4, len(pools[pool])))]
    return model, data, Collator(pools, model.heads)(refs)


def looked(one, model, part):
    def call(changed):
        return model(**{name: value for name, value in changed.items() if name != "units"})

    one.after_pass(call, part, dict.fromkeys(model.tasks, 1.0), (3, 0))
    value, parameters, gradients = one.penalty_gradients()
    found = {id(p): g for p, g in zip(parameters, gradients, strict=True)}
    return value, {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


@pytest.mark.parametrize("name", KINDS)
def test_packed_is_padded(world, name):
    got = []
    for way in ("packed", "padded"):
        model, data, part = a_pass(world[1])
        model.sharing.way = way
        one = KINDS[name](radius=0.5, step_size=0.3, steps=2, init=0.2)
        one.setup(model, data)
        got.append(looked(one, model, part))
    (value, gradients), (other, others) = got
    assert value == pytest.approx(other, rel=1e-4)
    assert value > 0
    assert all(torch.allclose(gradients[k], others[k], rtol=1e-3, atol=1e-5) for k in gradients | others)


def test_freelb_without_a_step_is_the_loss_again(world):
    model, data, part = a_pass(world[1])
    one = FreeLB(strength=1.0, steps=1, init=0.0)
    one.setup(model, data)
    value, gradients = looked(one, model, part)
    loss = model(**part)["loss"]
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-6)
    known = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == known.keys()
    assert all(torch.allclose(gradients[k], known[k], atol=1e-6) for k in known)


def test_what_is_added_makes_it_worse_and_stays_in_its_ball(world):
    model, data, part = a_pass(world[1])
    one, seen = FreeLB(radius=0.4, step_size=0.3, steps=4, init=0.1), []
    one.setup(model, data)
    plain = model.sharing.encoder.get_input_embeddings()(part["input_ids"])
    rows = torch.repeat_interleave(torch.arange(len(part["lengths"])), part["lengths"])
    losses = []

    def call(changed):
        seen.append(norms((changed["stacked"]["inputs_embeds"] - plain).detach(), rows))
        found = model(**{name: value for name, value in changed.items() if name != "units"})
        losses.append(float(found["loss"].detach()))
        return found

    one.after_pass(call, part, {}, (0, 0))
    assert all(float(found.max()) <= 0.4 + 1e-5 for found in seen)
    assert float(seen[-1].min()) > 0.3, "at the edge after so many steps"
    assert losses[-1] > losses[0]


def test_smart_moves_answers_more_than_chance(world):
    model, data, part = a_pass(world[1])
    chance, sought = Smart(steps=1, step_size=0.0, init=0.5, radius=0.5), Smart(steps=3, step_size=0.5, radius=0.5)
    for one in (chance, sought):
        one.setup(model, data)
    assert looked(sought, model, part)[0] > looked(chance, model, part)[0]


@given(st.integers(0, 10_000), st.floats(0.01, 5))
def test_within_is_a_projection(seed, radius):
    values = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
    rows = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3])
    found = within(values, rows, radius)
    assert float(norms(found, rows).max()) <= radius * (1 + 1e-5)
    assert torch.allclose(within(found, rows, radius), found, rtol=1e-5)


@given(st.integers(0, 10_000))
def test_distance_is_symmetric_and_the_divergence(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    for kind in ("sequence_classification", "multi_label"):
        assert torch.allclose(distance(a, b, kind), distance(b, a, kind), atol=1e-6)
        assert float(distance(a, b, kind).min()) >= 0
    p, q = torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    assert torch.allclose(distance(a, b, "sequence_classification"), both, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- in training


@pytest.mark.parametrize("tuning", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_nothing_at_radius_0_and_resumed_to_the_bit(world, tmp_path, tuning):
    shape = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9, "gradient_accumulation_steps": 2}
    shape = {**shape, "max_steps": 6, "logging_steps": 2}

    def one(name, regularizers, resume=False):
        said = config(world[0], world[1], tmp_path / name, **tuning, regularizers=regularizers, training=shape)
        return train(said, resume=resume)

    plain = state_of(one("plain", []).model)
    nothing = [{"name": "freelb", "radius": 0}, {"name": "smart", "strength": 0}]
    assert same(plain, state_of(one("nothing", nothing).model))
    both = [{"name": "freelb", "radius": 0.5}, {"name": "smart", "radius": 0.5}]
    whole = one("whole", both)
    log = [entry for entry in whole.trainer.state.log_history if "penalty_freelb" in entry]
    assert log and all(entry["penalty_smart"] > 0 for entry in log)
    assert not same(plain, state_of(whole.model))
    if tuning:
        one("cut", both)
        for folder in checkpoint.checkpoints(tmp_path / "cut"):
            if folder.name != "checkpoint-3":
                shutil.rmtree(folder)
        assert same(state_of(whole.model), state_of(one("cut", both, resume=True).model))


# ------------------------------------------------------------------------------------------------------- refusals


def test_what_does_not_go_with_it_is_refused(world, tmp_path):
    frozen, data, _ = a_pass(world[1], freeze="*")
    with pytest.raises(UnsupportedError, match="nothing of the encoder is trained"):
        FreeLB().setup(frozen, data)
    several, data, _ = a_pass(world[1], sharing="soft_encoders")
    with pytest.raises(UnsupportedError, match="use sharing: hard"):
        FreeLB().setup(several, data)
    said = config(world[0], world[1], tmp_path / "run", regularizers=["freelb"], balancer="pcgrad")
    with pytest.raises(UnsupportedError, match="'pcgrad' needs one of each"):
        train(said)
    with pytest.raises(ConfigError) as caught:
        registry.regularizers.build({"name": "freelb", "radius": -1, "steps": 0})
    assert len(caught.value.mistakes) == 2
