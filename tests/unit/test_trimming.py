"""The last layer computed for some tokens only equals the whole layer at those tokens, forward and backward."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.adapters import add_lora
from nlp_mtl.layers import bert_like, is_replaced, restore
from nlp_mtl.layout import Layout
from nlp_mtl.packing import base_of, choose_way, encode
from nlp_mtl.prediction import predict
from nlp_mtl.testing import tiny_encoder, tiny_model
from nlp_mtl.trimming import reading_of, single_attention
from tests.unit.test_packing import LENGTHS, PACKED, gradients, relative, rough, same_gradients, tokens

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "electra")


def some_read(lengths, seed=0):
    """One token of some sequences, several of others, none of the first."""
    read = torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed)) < 0.2
    read[: lengths[0]] = False
    read[-1] = True
    return read


def both(encoder, inputs, lengths, read):
    """Hidden states with and without leaving out what is not read."""
    whole, part = Layout(lengths), Layout(lengths)
    part.read = read
    return encode(encoder, inputs, whole, "packed"), encode(encoder, inputs, part, "packed")


@pytest.mark.parametrize("wrapped", ["plain", "lora", "recomputed"])
@pytest.mark.parametrize("family", BERT_LIKE)
def test_equals_the_whole_layer_at_the_tokens_read(family, wrapped):
    encoder = rough(tiny_encoder(family))
    if wrapped == "lora":
        encoder = add_lora(encoder, {"r": 2, "target_modules": "all-linear"})
        rough(encoder)
    way, why = choose_way(encoder)
    assert way == "packed" and "computes what heads read" in why
    if wrapped == "recomputed":
        base_of(encoder).gradient_checkpointing_enable({"use_reentrant": False})
        encoder.train()
        for part in encoder.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
    inputs, read = tokens(LENGTHS, family), some_read(LENGTHS)
    whole, part = both(encoder, inputs, LENGTHS, read)
    assert relative(part[read], whole[read]) < 1e-5
    assert not part[~read].any()
    factors = read[:, None].float()
    same_gradients(gradients(encoder, part * factors), gradients(encoder, whole * factors))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
def test_any_tokens_of_any_lengths(lengths, data):
    encoder = rough(tiny_encoder("bert"))
    choose_way(encoder)
    read = torch.tensor(data.draw(st.lists(st.booleans(), min_size=sum(lengths), max_size=sum(lengths))))
    whole, part = both(encoder, tokens(lengths), lengths, read)
    assert relative(part[read], whole[read]) < 1e-5 if bool(read.any()) else torch.equal(whole, part)


def test_reading_names_every_token_read_once():
    layout = Layout([3, 4, 2])
    layout.read = torch.tensor([0, 1, 0, 1, 0, 0, 1, 0, 0]).bool()
    reading = reading_of(layout)
    assert reading.tokens.tolist() == [1, 3, 6]
    assert reading.alone.tolist() == [1] and reading.alone_keys.tolist() == [0, 1, 2]
    assert reading.owners.tolist() == [0, 0, 0]
    assert reading.together.tolist() == [3, 4, 5, 6] and reading.within.tolist() == [0, 3]
    layout.read[:] = True
    assert reading_of(layout) is None
    assert reading_of(Layout([3])) is None


def test_one_token_attends_as_softmax_says():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(n, 2, 3, generator=generator) for n in (2, 5, 5))
    found = single_attention(query, key, value, torch.tensor([0, 0, 1, 1, 1]), scale=0.5)
    for row, mine in enumerate((slice(0, 2), slice(2, 5))):
        weights = torch.softmax(torch.einsum("hd,thd->ht", query[row], key[mine]) * 0.5, -1)
        assert torch.allclose(found[row], torch.einsum("ht,thd->hd", weights, value[mine]), atol=1e-6)


def test_dropped_attention_keeps_the_mean():
    value = torch.ones(4000, 1, 2)
    owners = torch.arange(1000).repeat_interleave(4)
    torch.manual_seed(0)
    found = single_attention(torch.zeros(1000, 1, 2), value, value, owners, scale=1.0, dropout=0.25)
    assert 0.95 < float(found.mean()) < 1.05 and float(found.std()) > 0.1


@pytest.mark.parametrize("family", PACKED)
def test_other_families_compute_whole_layers(family):
    encoder = tiny_encoder(family)
    choose_way(encoder)
    layers = bert_like(base_of(encoder))
    assert bool(layers) == (family in BERT_LIKE) and all(map(is_replaced, layers))


def test_a_copy_is_changed_by_itself_and_it_can_be_undone():
    encoder = rough(tiny_encoder("bert"))
    choose_way(encoder)
    twin = copy.deepcopy(encoder)
    layers = bert_like(twin)
    assert all(is_replaced(layer) and type(layer).__name__ == "BertLayer" for layer in layers)
    assert list(twin.state_dict()) == list(encoder.state_dict())
    restore(layers)
    family = type(tiny_encoder("bert").encoder.layer[0])
    assert all(type(layer) is family for layer in layers)
    read = some_read(LENGTHS)
    assert (
        relative(both(twin, tokens(LENGTHS), LENGTHS, read)[1], both(encoder, tokens(LENGTHS), LENGTHS, read)[0]) < 1e-5
    )


def test_a_model_answers_the_same_with_and_without():
    model = tiny_model(["rte", "conll2003", "stsb"]).eval()
    rows = [
        {"sentence1": "the cat sat", "sentence2": "a cat", "tokens": ["Ada", "lives", "in", "Bergen"]},
        {"sentence1": "rain", "sentence2": "it is a long red house", "tokens": ["no"]},
    ]
    trimmed = [predict(model, row) for row in rows]
    restore(bert_like(base_of(model.sharing.encoder)))
    whole = [predict(model, row) for row in rows]
    for mine, theirs in zip(trimmed, whole, strict=True):
        assert mine.keys() == theirs.keys() == {"rte", "conll2003", "stsb"}
        assert mine["stsb"]["value"] == pytest.approx(theirs["stsb"]["value"], abs=1e-5)
        assert mine["rte"]["label"] == theirs["rte"]["label"]
        assert [e["type"] for e in mine["conll2003"]["entities"]] == [
            e["type"] for e in theirs["conll2003"]["entities"]
        ]
