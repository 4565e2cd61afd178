"""The encoder pass over a mixed batch equals each row alone in the family's own attention, forward and backward."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from nlp_mtl.adapters import add_lora
from nlp_mtl.attention import packed_attention
from nlp_mtl.layout import Layout, filled_up, group_lengths
from nlp_mtl.packing import IMPLEMENTATION, Packed, base_of, choose_way, encode
from nlp_mtl.sharing import Hard
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer

PACKED = (
    "bert",
    "roberta",
    "xlm-roberta",
    "electra",
    "distilbert",
    "modernbert",
    "albert",
    "gpt2",
    "llama",
    "qwen2",
    "mistral",
    "gpt_neox",
)

torch.set_num_threads(1)  # tiny models: threads would only wait for one another
PADDED = ("deberta-v2",)
FAMILIES = (*PACKED, *PADDED)
TOKEN_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "albert", "deberta-v2")
LENGTHS = [1, 23, 2, 9, 9, 1, 17, 5, 40]


def rough(encoder, seed=7):
    """The encoder with weights far from their small first values, so that a wrong token seen would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return encoder


def tokens(lengths, family="bert", seed=0):
    """A packed batch of random tokens, without special ones."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, len(tiny_tokenizer()), (sum(lengths),), generator=generator)
    inputs = {"input_ids": ids}
    if family in TOKEN_TYPES:
        inputs["token_type_ids"] = torch.randint(0, 2, ids.shape, generator=generator)
    return inputs


def row_by_row(encoder, inputs, lengths):
    """Hidden states of each sequence alone."""
    parts = [
        dict(zip(inputs, values, strict=True))
        for values in zip(*(v.split(lengths) for v in inputs.values()), strict=True)
    ]
    extra = (
        {"use_cache": False}
        if base_of(encoder).config.model_type in ("gpt2", "llama", "qwen2", "mistral", "gpt_neox")
        else {}
    )
    states = []
    for part in parts:
        row = {name: values[None] for name, values in part.items()}
        states.append(encoder(**row, attention_mask=torch.ones_like(row["input_ids"]), **extra).last_hidden_state[0])
    return torch.cat(states)


def eager(encoder):
    """A copy with the family's own eager attention."""
    twin = copy.deepcopy(encoder)
    base_of(twin).set_attn_implementation("eager")
    return twin


def gradients(encoder, hidden):
    """Gradients of a fixed random function of the hidden states."""
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(hidden.shape, generator=generator)
    encoder.zero_grad(set_to_none=True)
    (hidden.float() * factors).sum().backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def same_gradients(ours, theirs, tolerance=1e-5):
    """Equal within the tolerance, relative to the largest gradient there is; which parameters have one, too."""
    assert set(ours) == set(theirs)
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).abs().max()) <= tolerance * largest, name


def relative(found, expected):
    return float((found.detach() - expected.detach()).abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_every_row_alone_forward_and_backward(family):
    encoder = rough(tiny_encoder(family))
    twin = eager(encoder)
    way, _ = choose_way(encoder)
    inputs = tokens(LENGTHS, family)
    hidden = encode(encoder, inputs, Layout(LENGTHS), way)
    expected = row_by_row(twin, inputs, LENGTHS)
    assert relative(hidden, expected) < 1e-5
    same_gradients(gradients(encoder, hidden), gradients(twin, expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_company(family):
    encoder = rough(tiny_encoder(family))
    way, _ = choose_way(encoder)
    inputs = tokens(LENGTHS, family)
    with torch.no_grad():
        before = encode(encoder, inputs, Layout(LENGTHS), way)
        row = slice(sum(LENGTHS[:3]), sum(LENGTHS[:4]))
        changed = {name: values.clone() for name, values in inputs.items()}
        changed["input_ids"][row] = changed["input_ids"][row].flip(0)
        after = encode(encoder, changed, Layout(LENGTHS), way)
    rest = torch.ones(sum(LENGTHS), dtype=torch.bool)
    rest[row] = False
    assert float((after - before)[rest].abs().max()) < 1e-5
    assert float((after - before)[row].abs().max()) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_way_is_chosen_by_trying(family):
    encoder = tiny_encoder(family).train()
    way, why = choose_way(encoder)
    assert way == ("padded" if family in PADDED else "packed")
    assert encoder.training, "trying leaves the mode as it was"
    assert all(p.grad is None for p in encoder.parameters())
    assert len(why.split()) > 4
    assert (encoder.config._attn_implementation == IMPLEMENTATION) == (way == "packed")
    sharing = Hard(tiny_encoder(family), ["a"])
    assert way in sharing.log
    assert why in sharing.log


def test_an_encoder_of_images_is_taken_as_it_comes():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    encoder = ViTModel(config, add_pooling_layer=False).eval()
    before = encoder.config._attn_implementation
    way, why = choose_way(encoder)
    assert way == "stacked"
    assert "pixel_values" in why
    assert encoder.config._attn_implementation == before
    pixels = torch.randn(3, 3, 8, 8)
    packed = Hard(encoder, ["a"]).encode({"pixel_values": pixels}, Layout([]), ["a"])["a"]
    expected = encoder(pixel_values=pixels).last_hidden_state
    assert torch.equal(packed.hidden, expected.flatten(0, 1))
    images = torch.arange(3)
    assert torch.equal(packed.firsts(images), expected[:, 0])
    assert torch.allclose(packed.means(images), expected.mean(1), atol=1e-6)


def test_an_encoder_that_packs_wrongly_is_found_out_and_padded():
    """A family whose positions can't be given can't pack: its rows would follow one another."""
    from transformers import BertConfig, BertModel

    class NoPositions(BertModel):
        def forward(self, *args, position_ids=None, **kwargs):
            return super().forward(*args, **kwargs)

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    encoder = rough(NoPositions(config).eval())
    twin = eager(encoder)
    way, why = choose_way(encoder)
    assert way == "padded"
    assert "differ" in why
    inputs = {"input_ids": torch.randint(5, 50, (9,))}
    assert relative(encode(encoder, inputs, Layout([2, 7]), way), row_by_row(twin, inputs, [2, 7])) < 1e-5


@pytest.mark.parametrize("family", PACKED)
def test_the_same_encoder_still_runs_padded_by_itself(family):
    """Export, `generate` and a user's own code call it the usual way, with a mask."""
    encoder = rough(tiny_encoder(family))
    twin = eager(encoder)
    assert choose_way(encoder)[0] == "packed"
    lengths = [3, 12, 7]
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
    real = mask.bool()
    ids[~real] = encoder.config.pad_token_id or 0
    with torch.no_grad():
        ours, theirs = (e(input_ids=ids, attention_mask=mask).last_hidden_state for e in (encoder, twin))
        assert relative(ours[real], theirs[real]) < 1e-5
        whole, expected = (e(input_ids=ids[1:2]).last_hidden_state for e in (encoder, twin))  # no mask at all
        assert relative(whole, expected) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_of_ours_is_written_into_the_config(family, tmp_path):
    encoder = tiny_encoder(family)
    choose_way(encoder)
    encoder.save_pretrained(tmp_path)
    said = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert IMPLEMENTATION not in said
    assert "nlp_mtl" not in said
    assert json.loads(said)["model_type"] == encoder.config.model_type
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config._attn_implementation != IMPLEMENTATION


@pytest.mark.parametrize(("family", "reach"), [("modernbert", 4), ("mistral", 5)])
def test_the_sliding_window_is_honoured(family, reach):
    """Over `layers` layers of a window that reaches `reach` tokens, a token further away can have no influence."""
    changes = {"layer_types": ["sliding_attention"] * 2} if family == "modernbert" else {}
    encoder = rough(tiny_encoder(family, **changes))
    twin = eager(encoder)
    assert choose_way(encoder)[0] == "packed"
    lengths = [30, 4]
    inputs = tokens(lengths)
    hidden = encode(encoder, inputs, Layout(lengths), "packed")
    assert relative(hidden, row_by_row(twin, inputs, lengths)) < 1e-5
    changed = {"input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0] = (changed["input_ids"][0] + 1) % 60 + 5
    moved = (encode(encoder, changed, Layout(lengths), "packed") - hidden).detach().abs().amax(-1)
    edge = 2 * reach  # two layers
    assert float(moved[: edge + 1].max()) > 1e-3
    assert float(moved[edge + 1 :].max()) == 0.0, "a token beyond the window was seen"


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama"])
def test_activation_checkpointing_gives_the_same_gradients(family):
    encoder = rough(tiny_encoder(family))
    way, _ = choose_way(encoder)
    inputs = tokens(LENGTHS, family)
    encoder.train()
    plain = gradients(encoder, encode(encoder, inputs, Layout(LENGTHS), way))
    base_of(encoder).activation_checkpointing_enable()
    assert encoder.is_gradient_checkpointing
    again = gradients(encoder, encode(encoder, inputs, Layout(LENGTHS), way))
    same_gradients(again, plain, 1e-6)


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama", "mistral"]
)
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_lora_around_the_encoder(family, dora):
    encoder = rough(add_lora(tiny_encoder(family), {"r": 4, "target_modules": "all-linear", "use_dora": dora}))
    twin = eager(encoder)
    way, _ = choose_way(encoder)
    assert way == ("padded" if family in PADDED else "packed")
    inputs = tokens(LENGTHS, family)
    hidden = encode(encoder, inputs, Layout(LENGTHS), way)
    expected = row_by_row(twin, inputs, LENGTHS)
    assert relative(hidden, expected) < 1e-5
    ours, theirs = gradients(encoder, hidden), gradients(twin, expected)
    same_gradients(ours, theirs)
    assert ours
    assert all("lora_" in name for name in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_weights(family):
    encoder = tiny_encoder(family).to(torch.bfloat16)
    twin = eager(encoder).float()  # the same weights, computed exactly
    way, _ = choose_way(encoder)
    assert way == ("padded" if family in PADDED else "packed")
    inputs = tokens(LENGTHS, family)
    hidden = encode(encoder, inputs, Layout(LENGTHS), way)
    expected = row_by_row(twin, inputs, LENGTHS)
    assert hidden.dtype == torch.bfloat16
    assert relative(hidden.float(), expected) < 3e-2
    ours, theirs = gradients(encoder, hidden), gradients(twin, expected)
    assert set(ours) == set(theirs)
    assert all(torch.isfinite(g).all() for g in ours.values())
    named = torch.cat([ours[n].float().flatten() for n in theirs]), torch.cat([g.flatten() for g in theirs.values()])
    assert float(torch.nn.functional.cosine_similarity(*named, dim=0)) > 0.99


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_bf16_autocast(family):
    encoder = tiny_encoder(family)
    twin = eager(encoder)
    way, _ = choose_way(encoder)
    inputs = tokens(LENGTHS, family)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = encode(encoder, inputs, Layout(LENGTHS), way)
    assert relative(hidden.float(), row_by_row(twin, inputs, LENGTHS)) < 3e-2
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients(encoder, hidden).values())


# ------------------------------------------------------------------------------------------------ reading hidden states


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_firsts_lasts_means_and_tokens_are_those_of_the_sequence(lengths, random):
    layout = Layout(lengths)
    packed = Packed(torch.randn(sum(lengths), 3), layout)
    wanted = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    rows = packed.hidden.split(lengths)
    sequences = torch.tensor(wanted)
    assert torch.equal(packed.firsts(sequences), torch.stack([rows[i][0] for i in wanted]))
    assert torch.equal(packed.lasts(sequences), torch.stack([rows[i][-1] for i in wanted]))
    assert torch.allclose(packed.means(sequences), torch.stack([rows[i].mean(0) for i in wanted]), atol=1e-6)
    assert torch.equal(packed.hidden[packed.layout.tokens_of(sequences)], torch.cat([rows[i] for i in wanted]))


def test_means_keep_the_type_of_the_hidden_states():
    packed = Packed(torch.randn(5, 3).to(torch.bfloat16), Layout([2, 3]))
    assert packed.means(torch.tensor([0, 1])).dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------------------------ attention


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([None, 1, 3, 50]),
    st.sampled_from([1, 2, 4]),
)
def test_attention_is_softmax_attention_within_each_sequence(lengths, causal, window, key_heads):
    generator = torch.Generator().manual_seed(sum(lengths))
    query = torch.randn(sum(lengths), 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    key, value = (
        torch.randn(sum(lengths), key_heads, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    out = packed_attention(query, key, value, Layout(lengths), scale=0.4, causal=causal, window=window)
    rows = []
    for q, k, v in zip(*(x.split(lengths) for x in (query, key, value)), strict=True):
        k, v = (x.repeat_interleave(4 // key_heads, 1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * 0.4
        distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if causal:
            hidden |= distance < 0
        if window is not None:
            hidden |= distance.abs() >= window
        rows.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
    expected = torch.cat(rows)
    assert torch.allclose(out, expected, atol=1e-10)
    factors = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((out * factors).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * factors).sum(), (query, key, value))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_attention_dropout_drops_that_share_and_keeps_the_mean():
    torch.manual_seed(0)
    lengths = [30] * 8
    query, key = torch.zeros(240, 4, 4), torch.zeros(240, 4, 4)  # every weight is 1/30
    value = torch.ones(240, 4, 4)
    out = packed_attention(query, key, value, Layout(lengths), scale=1.0, dropout=0.25)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(out.std()) == pytest.approx((0.25 / 0.75 / 30) ** 0.5, rel=0.1)
    assert torch.equal(out[..., 0], out[..., 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=30).map(sorted))
def test_groups_cover_all_rows_in_order_and_cost_no_more_than_one_group_or_one_each(lengths):
    groups = group_lengths(lengths)
    assert [i for group in groups for i in group] == list(range(len(lengths)))

    def cost(parts):
        return sum(len(part) * lengths[part.stop - 1] ** 2 + 12_000 for part in parts)

    assert cost(groups) <= cost([range(len(lengths))])
    assert cost(groups) <= cost([range(i, i + 1) for i in range(len(lengths))])


@pytest.mark.parametrize("count", [1, 8, 100, 999, 1049, 5000])
def test_few_tokens_are_added_for_prepared_machine_code(count):
    """At most one of sixteen beyond the first hundred, and few different counts; what they hold changes nothing."""
    filled = filled_up(torch.ones(count, dtype=torch.long))
    assert filled.sum() == count and len(filled) - count < max(8, count / 15)
    assert len({len(filled_up(torch.ones(n))) for n in range(count, 2 * count)}) <= 17
