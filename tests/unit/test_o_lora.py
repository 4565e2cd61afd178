"""O-LoRA's law: its penalty and gradient, whose A it is kept off, and that it wants a LoRA of its own."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl.errors import ConfigError, NotFoundError
from nlp_mtl.penalties import Penalties
from nlp_mtl.regularizers import EWC, OLora
from nlp_mtl.regularizers.importance import save_importance
from nlp_mtl.regularizers.o_lora import EARLIER, load_earlier
from nlp_mtl.testing import tiny_model

torch.set_num_threads(1)

LORA = {"r": 2, "target_modules": ["query", "value"]}


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    return tiny_model(["rte"], lora={**LORA, **changes})


def downs(model):
    return {name: p.detach() for name, p in model.named_parameters() if ".lora_A." in name}


def set_up(model, **arguments):
    one = OLora(**arguments)
    one.setup(model, None)
    one.begin()
    return one


def test_it_is_its_formula_and_the_gradient_is_autograds(tmp_path):
    first, second, third = model_of(0), model_of(1, r=3), model_of(2)
    save_importance(tmp_path / "a.safetensors", set_up(first).carried())
    both = set_up(second, earlier=str(tmp_path / "a.safetensors")).carried()
    save_importance(tmp_path / EARLIER, both)
    one = set_up(third, strength=0.3, earlier=str(tmp_path))
    products = [
        (downs(third)[name] @ earlier[name].T).square().sum()
        for earlier in (downs(first), downs(second))
        for name in downs(third)
    ]
    value = one.penalty()
    assert float(value.detach()) == pytest.approx(0.3 * float(sum(products)), rel=1e-5)
    known, parameters, gradients = one.penalty_gradients()
    assert known == pytest.approx(float(value.detach()), rel=1e-6)
    assert {id(p) for p in parameters} == {id(third.get_parameter(name)) for name in downs(third)}
    for found, expected in zip(gradients, torch.autograd.grad(value, parameters), strict=True):
        torch.testing.assert_close(found, expected)
    assert all(len(both[name]) == 5 for name in downs(third))
    assert all(torch.equal(both[name], torch.cat([downs(first)[name], downs(second)[name]])) for name in both)


def test_an_orthogonal_lora_costs_nothing_and_the_first_has_nothing_to_be_kept_off(tmp_path):
    model = model_of(0)
    assert set_up(model).penalty_gradients() is None
    name = next(iter(downs(model)))
    eye = torch.eye(downs(model)[name].shape[1])
    save_importance(tmp_path / EARLIER, {key: eye[:4].clone() for key in downs(model)})
    with torch.no_grad():
        for key in downs(model):
            model.get_parameter(key).copy_(eye[4:6])
    value, _, gradients = set_up(model, earlier=str(tmp_path)).penalty_gradients()
    assert value == 0.0 and not any(g.any() for g in gradients)


def test_a_run_that_was_trained_without_it_counts_by_its_lora(tmp_path):
    model = model_of(4)
    model.save_pretrained(tmp_path)
    found = load_earlier(tmp_path)
    assert found.keys() == downs(model).keys()
    assert all(torch.equal(value, downs(model)[name]) for name, value in found.items())


def test_it_carries_to_a_file_of_its_own():
    """So it goes with a regularizer that leaves importance."""
    model = model_of(0)
    made = Penalties(["o_lora", "synaptic_intelligence"], model, None)
    made.begin()
    assert set(made.carried()) == {EARLIER, "importance.safetensors"}
    with pytest.raises(ConfigError, match="one of them leaves importance"):
        Penalties([EWC(carry=True), "synaptic_intelligence", "o_lora"], model, None)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"the shared LoRA that is trained, found none; give the run a `lora`"):
        OLora().setup(tiny_model(["rte"]), None)
    model = model_of(0)
    save_importance(tmp_path / EARLIER, set_up(model).carried())
    with pytest.raises(ConfigError, match=r"found that one itself, which goes on to be trained; say init_from"):
        OLora(earlier=str(tmp_path)).setup(model, None)
    save_importance(tmp_path / "other", {name: value[:, :3] for name, value in downs(model).items()})
    with pytest.raises(ConfigError, match="reads another width"):
        OLora(earlier=str(tmp_path / "other")).setup(model, None)
    with pytest.raises(NotFoundError, match="is not there"):
        OLora(earlier=str(tmp_path / "nowhere")).setup(model, None)
    with pytest.raises(ConfigError, match="`strength` is a number from 0, found -1"):
        OLora(strength=-1)
