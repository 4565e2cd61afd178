"""Tuning regimes: what is trained, that nothing is computed below it, and layers that begin anew."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

import nlp_mtl as mtl
from nlp_mtl import registry
from nlp_mtl.data import load_data
from nlp_mtl.depth import heights, layers_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.regimes import keep_to
from nlp_mtl.reinit import reinit_top_layers
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_encoder, tiny_model
from tests.integration.tiny import write_base, write_tasks
from tests.unit.test_gradients import a_batch

FAMILIES = ["bert", "roberta", "electra", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama", "t5", "bart"]
SPECS = {"last_layers": {"count": 1}}
LORA = {"r": 2, "target_modules": "all-linear"}


def spec_of(name):
    return {"name": name, **SPECS.get(name, {})}


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
def test_heights_follow_what_is_computed_from_what(family):
    """A parameter's gradient is there if and only if the layers up to its own are run."""
    encoder = tiny_encoder(family, num_hidden_layers=3) if family == "bert" else tiny_encoder(family)
    found, layers = heights(encoder), layers_of(encoder)
    states = {}
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(
            lambda _, given, named, n=number: states.update({n: given[0] if given else named["hidden_states"]}),
            with_kwargs=True,
        )
    ids = torch.arange(5, 13)[None]
    encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    for number in range(1, len(layers)):
        known = dict(encoder.named_parameters())
        grads = torch.autograd.grad(
            (states[number] ** 3).sum(), list(known.values()), allow_unused=True, retain_graph=True
        )
        below = {name for name, g in zip(known, grads, strict=True) if g is not None}
        assert below
        assert all(found[name] <= number for name in below)
        assert {name for name in known if 0 < found[name] <= number} <= below


@pytest.mark.parametrize("name", registry.tunings.names())
def test_every_tuning_trains_something_and_names_real_parameters(name):
    base = tiny_encoder("bert")
    names = {name for name, _ in base.named_parameters()}
    made = registry.tunings.build(spec_of(name))
    some = made.trained(base)
    assert some and some <= names
    for step in (0, 5, 1000):
        assert made.trained_at(base, step, 10) <= some
    assert made.trained_at(base, 1000, 1) == some, "in the end all that it ever trains"
    keep_to(base, spec_of(name))
    assert {name for name, p in base.named_parameters() if p.requires_grad} == some
    assert registry.tunings.summary(name) and made.cost


@pytest.mark.parametrize("name", registry.tunings.names())
def test_saved_and_loaded_the_same_is_trained(name, tmp_path):
    base, files = write_base(tmp_path / "base"), write_tasks(tmp_path / "data")
    model = MultiTaskModel.from_base(base, files[:2], tuning=spec_of(name), freeze="embeddings.position*")
    model.save_pretrained(tmp_path / "run")
    again = MultiTaskModel.from_pretrained(tmp_path / "run")
    assert trained(again) == trained(model)
    assert again.strategies["tuning"] == spec_of(name)
    assert not any("position" in name for name in trained(model))
    assert {n.split(".")[1] for n in trained(model) if n.startswith("modules_.")} == {"mood", "alike"}


@pytest.mark.parametrize("freeze", [{"tuning": {"name": "last_layers", "count": 1}}, {"freeze": "*"}])
@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_no_graph_is_built_below_what_is_trained(tmp_path, family, freeze, recomputed):
    model = tiny_model(write_tasks(tmp_path)[:3], family=family, dropout=0.1, **freeze)
    if recomputed:
        model.activation_checkpointing_enable()
    model.train()
    seen = []
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda _, given, named: seen.append(given[0] if given else named["hidden_states"]), with_kwargs=True
        )
    out = model(**a_batch(model))
    assert out["loss"].requires_grad
    assert len(seen) % len(layers) == 0 and seen
    assert all(hidden.grad_fn is None and not hidden.requires_grad for hidden in seen)
    out["loss"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached <= trained(model)
    if "tuning" in freeze:
        assert any(name.startswith("sharing.") for name in reached)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_begins_anew_is_the_top_alone_and_as_the_family_makes_it(family):
    encoder, again, fresh = (tiny_encoder(family, seed=seed) for seed in (0, 0, 5))
    with torch.no_grad():  # what was trained is on no family's scale
        for one in (encoder, again):
            for p in one.parameters():
                p.mul_(3.0).add_(0.7)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    state = torch.get_rng_state()
    new = reinit_top_layers(encoder, 1, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(new) == {name for name, height in heights(encoder).items() if height >= 2}
    reinit_top_layers(again, 1, seed=3)
    usual = dict(fresh.named_parameters())
    for (name, p), other in zip(encoder.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, other), "the same seed, the same weights"
        assert torch.equal(p, before[name]) == (name not in new), name
        if name in new and p.numel() > 1:
            assert float(p.detach().std()) == pytest.approx(float(usual[name].detach().std()), rel=0.4, abs=1e-6)
            assert float(p.detach().mean()) == pytest.approx(float(usual[name].detach().mean()), abs=0.1)


def test_layers_that_begin_anew_are_recorded_seeded_and_trained(tmp_path):
    base, files = write_base(tmp_path / "base"), write_tasks(tmp_path / "data")
    one, same, other = (MultiTaskModel.from_base(base, files[:1], reinit_top_layers=1, seed=seed) for seed in (0, 0, 1))
    states = [m.sharing.encoder.state_dict() for m in (one, same, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(*(s["encoder.layer.1.output.dense.weight"] for s in states[::2]))
    assert torch.equal(*(s["encoder.layer.0.output.dense.weight"] for s in states[::2]))
    assert one.strategies["reinit_top_layers"] == 1
    one.save_pretrained(tmp_path / "run")
    again = MultiTaskModel.from_pretrained(tmp_path / "run").sharing.encoder.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in states[0].items()), "and not once more"


def test_what_does_not_fit_is_refused(tmp_path):
    base, files = write_base(tmp_path / "base"), write_tasks(tmp_path / "data")

    def made(**how):
        return MultiTaskModel.from_base(base, files[:1], **how)

    with pytest.raises(ConfigError, match=r"tuning: a LoRA freezes the encoder already.*leave out `tuning` or `lora`"):
        made(tuning="bitfit", lora=LORA)
    with pytest.raises(ConfigError, match="reinit_top_layers: a LoRA freezes"):
        made(reinit_top_layers=1, lora=LORA)
    with pytest.raises(ConfigError, match="`count` is at most 2, the layers of this encoder, found 3"):
        made(tuning={"name": "last_layers", "count": 3})
    with pytest.raises(ConfigError, match="reinit_top_layers: at most 2"):
        made(reinit_top_layers=3)
    with pytest.raises(ConfigError, match=r"found encoder.layer.1.\S+ frozen by `freeze` or `tuning`"):
        made(reinit_top_layers=1, tuning="bitfit")
    with pytest.raises(ConfigError, match="'last_layers': trains weights of the encoder, and `freeze` keeps all of"):
        made(tuning={"name": "last_layers", "count": 1}, freeze="*")
    with pytest.raises(ConfigError, match="trains the encoder's biases, and LlamaModel has none"):
        tiny_model(["rte"], family="llama", tuning="bitfit")
    with pytest.raises(ConfigError, match="last_layers': AlbertModel has no layers with weights of their own"):
        tiny_model(["rte"], family="albert", tuning={"name": "last_layers", "count": 1})
    with pytest.raises(ConfigError, match="reinit_top_layers: AlbertModel has no layers"):
        reinit_top_layers(tiny_encoder("albert"), 1)
    model = made(tuning="gradual_unfreezing", sharing={"name": "hard", "condition": ["layer_norm"]})
    data = load_data(model.heads, model.tokenizer, max_length=32)
    with pytest.raises(UnsupportedError, match="goes down the layers of one encoder, and sharing 'hard' has more"):
        mtl.MultiTaskTrainer(model, data=data)


def test_a_tuning_leaves_what_the_sharing_adds_to_be_trained():
    for sharing in ({"name": "branch", "depth": 1}, "soft_encoders"):
        model = tiny_model(load_tasks(["rte", "mrpc"]), sharing=sharing, tuning="bitfit")
        names = trained(model)
        assert names and all(name.endswith("bias") for name in names if "encoder" in name or "tower" in name)
