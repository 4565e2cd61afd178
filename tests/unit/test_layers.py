"""Layers with fused kernels are the family's own layers: values, gradients, dropout, adapters, recomputation."""

import copy
import io

import pytest
import torch

from nlp_mtl.adapters import add_lora
from nlp_mtl.kernels import building
from nlp_mtl.layers import bert_like, is_replaced, restore
from nlp_mtl.layout import Layout
from nlp_mtl.packing import base_of, choose_way, encode
from nlp_mtl.testing import tiny_encoder
from tests.unit.test_packing import LENGTHS, gradients, relative, rough, same_gradients, tokens

FAMILIES = ("bert", "roberta", "xlm-roberta", "electra")
pytestmark = pytest.mark.skipif(building.compiled() is None, reason=building.state())


def pair(family="bert", *, lora=None, dropout=0.0):
    """An encoder whose layers are ours, and the same with the family's own on plain torch."""
    encoder = rough(tiny_encoder(family))
    if lora:
        encoder = rough(add_lora(encoder, lora))
    choose_way(encoder)
    other = copy.deepcopy(encoder)
    restore(bert_like(base_of(other)))
    for part in (*encoder.modules(), *other.modules()):
        if isinstance(part, torch.nn.Dropout):
            part.p = dropout
    return encoder.train(), other.train()


def runs(encoder, other, family="bert", **autocast):
    inputs = tokens(LENGTHS, family)
    with torch.autocast("cpu", torch.bfloat16, **autocast):
        mine = encode(encoder, inputs, Layout(LENGTHS), "packed")
        with building.switched_off():
            theirs = encode(other, inputs, Layout(LENGTHS), "packed")
    return mine, theirs


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": "all-linear"}], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_the_familys_own_in_float32(family, lora):
    encoder, other = pair(family, lora=lora)
    mine, theirs = runs(encoder, other, family, enabled=False)
    assert relative(mine, theirs) < 1e-5
    same_gradients(gradients(encoder, mine), gradients(other, theirs))


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": "all-linear"}], ids=["full", "lora"])
def test_under_autocast_no_further_from_the_exact_ones_than_the_familys_own(lora):
    encoder, other = pair(lora=lora)
    exact, _ = runs(encoder, other, enabled=False)
    wanted = gradients(encoder, exact)
    mine, theirs = runs(encoder, other)
    assert mine.dtype == theirs.dtype == torch.float32
    assert relative(mine, exact) < 1.5 * relative(theirs, exact) + 1e-3

    def error(found):
        return sum(float((found[name] - wanted[name]).norm() ** 2) for name in wanted) ** 0.5

    assert error(gradients(encoder, mine)) < 1.2 * error(gradients(other, theirs)) + 1e-6


def test_recomputed_the_gradients_are_the_same():
    encoder, _ = pair(dropout=0.2)
    encoder.gradient_checkpointing_enable({"use_reentrant": False})
    twin = copy.deepcopy(encoder)
    twin.gradient_checkpointing_disable()
    found = []
    for one in (encoder, twin):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encode(one, tokens(LENGTHS), Layout(LENGTHS), "packed")
        found.append((hidden, gradients(one, hidden)))
    assert torch.equal(found[0][0], found[1][0])
    same_gradients(found[0][1], found[1][1], 1e-2)  # the narrow copy is rounded at another place


def test_a_hooked_product_is_called():
    encoder, _ = pair()
    seen = []
    encoder.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *a: seen.append("wide"))
    encoder.encoder.layer[0].attention.self.key.register_forward_hook(lambda *a: seen.append("key"))
    encode(encoder, tokens(LENGTHS), Layout(LENGTHS), "packed")
    assert seen == ["key", "wide"]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer, seen: layer.attention.output.register_forward_hook(lambda *a: seen.append(1)),
        lambda layer, seen: layer.output.LayerNorm.register_forward_hook(lambda *a: seen.append(1)),
        lambda layer, seen: setattr(layer.attention.self, "forward", noted(layer.attention.self.forward, seen)),
        lambda layer, seen: setattr(layer.attention.output, "dropout", torch.nn.Identity()) or seen.append(1),
        lambda layer, seen: setattr(layer.output, "LayerNorm", torch.nn.LayerNorm(32, bias=False)) or seen.append(1),
        lambda layer, seen: setattr(layer.intermediate, "intermediate_act_fn", torch.nn.ReLU()) or seen.append(1),
    ],
    ids=["hook on a block", "hook on a norm", "another forward", "no dropout", "a norm without bias", "activation"],
)
def test_a_module_that_somebody_hooked_or_exchanged_is_called(change):
    encoder, other = pair()
    seen = []
    for one in (encoder, other):
        change(one.encoder.layer[0], seen)
    mine, theirs = runs(encoder, other, enabled=False)
    assert len(seen) == 2 and relative(mine, theirs) < 1e-5


def noted(function, seen):
    def call(*args, **kwargs):
        seen.append(1)
        return function(*args, **kwargs)

    return call


def test_dropout_at_prediction_where_only_its_modules_are_in_training_mode():
    encoder, _ = pair(dropout=0.5)
    encoder.eval()
    before = encode(encoder, tokens(LENGTHS), Layout(LENGTHS), "packed")
    encoder.encoder.layer[1].output.dropout.train()
    assert relative(encode(encoder, tokens(LENGTHS), Layout(LENGTHS), "packed"), before) > 0.01


def test_gradients_of_a_layers_output_and_a_hook_that_changes_it():
    encoder, other = pair()
    kept = {}

    def keeping(name):
        return lambda module, given, out: kept.update({name: out * 1.0}) or kept[name]

    encoder.encoder.layer[0].register_forward_hook(keeping("mine"))
    other.encoder.layer[0].register_forward_hook(keeping("theirs"))
    found = zip(("mine", "theirs"), runs(encoder, other), strict=True)
    slopes = [torch.autograd.grad(out.square().sum(), kept[name])[0] for name, out in found]
    assert relative(*slopes) < 0.05
    encoder.encoder.layer[0].register_forward_hook(lambda m, i, out: out.mul_(0))
    other.encoder.layer[0].register_forward_hook(lambda m, i, out: out.mul_(0))
    with torch.no_grad():
        mine, theirs = runs(encoder, other)
    assert relative(mine, theirs) < 0.05


def test_who_looks_at_hidden_states_sees_their_whole_gradient():
    """The copy in bfloat16 that goes from layer to layer has a gradient of its own."""
    encoder, other = pair()
    kept = {}
    for name, one in (("mine", encoder), ("theirs", other)):
        one.encoder.layer[0].register_forward_hook(lambda module, given, out, name=name: kept.update({name: out}))
    found = zip(("mine", "theirs"), runs(encoder, other), strict=True)
    slopes = [torch.autograd.grad(out.square().sum(), kept[name])[0] for name, out in found]
    assert relative(*slopes) < 0.05


def halved(hidden):
    hidden.mul_(0.5)


@pytest.mark.parametrize("place", ["after", "before"])
def test_a_hook_that_changes_hidden_states_in_place_at_prediction(place):
    encoder, other = pair()
    for one in (encoder, other):
        if place == "after":
            one.encoder.layer[0].register_forward_hook(lambda module, given, out: halved(out))
        else:
            one.encoder.layer[1].register_forward_pre_hook(lambda module, given: halved(given[0]))
    with torch.inference_mode():
        mine, theirs = runs(encoder, other)
    assert relative(mine, theirs) < 0.05


def test_a_model_can_be_pickled_and_copied():
    encoder, _ = pair()
    file = io.BytesIO()
    torch.save(encoder, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    for twin in (again, copy.deepcopy(encoder)):
        assert all(map(is_replaced, bert_like(twin)))
        hidden = [encode(one, tokens(LENGTHS), Layout(LENGTHS), "packed") for one in (twin, encoder)]
        assert torch.equal(*hidden)


def test_adapters_beside_a_base_that_was_narrowed_later():
    encoder, _ = pair(lora={"r": 2, "target_modules": "all-linear"})
    for name, parameter in encoder.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    assert encode(encoder, tokens(LENGTHS), Layout(LENGTHS), "packed").dtype == torch.bfloat16


def test_without_kernels_the_familys_own_code_runs():
    encoder, other = pair("roberta")
    with building.switched_off():
        mine = encode(encoder, tokens(LENGTHS, "roberta"), Layout(LENGTHS), "packed")
        theirs = encode(other, tokens(LENGTHS, "roberta"), Layout(LENGTHS), "packed")
    assert all(map(is_replaced, bert_like(encoder))) and torch.equal(mine, theirs)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu"])
def test_other_activations(activation):
    encoder = rough(tiny_encoder("bert", hidden_act=activation))
    way, why = choose_way(encoder)
    assert way == "packed" and "computes what heads read" in why
    other = copy.deepcopy(encoder)
    restore(bert_like(other))
    mine, theirs = runs(encoder, other, enabled=False)
    assert relative(mine, theirs) < 1e-5
    same_gradients(gradients(encoder, mine), gradients(other, theirs))
