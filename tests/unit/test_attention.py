"""Packed attention is attention of every sequence alone: values, gradients, masks, dropout."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.attention import packed_attention
from nlp_mtl.layout import Layout, group_lengths

quick = settings(max_examples=40, deadline=None)

lengths_of = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 40)), min_size=1, max_size=9)
close = {"rtol": 1e-5, "atol": 1e-5}


def alone(query, key, value, lengths, *, scale, causal=False, window=None):
    """The definition: softmax attention within each sequence, one after the other."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    out, begin = [], 0
    for length in lengths:
        q, k, v = (x[begin : begin + length] for x in (query, key, value))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        distance = torch.arange(length)[:, None] - torch.arange(length)
        hidden = torch.zeros(length, length, dtype=torch.bool)
        if causal:
            hidden |= distance < 0
        if window is not None:
            hidden |= distance.abs() >= window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out.append(torch.einsum("hqk,khd->qhd", weights, v))
        begin += length
    return torch.cat(out)


def inputs_of(tokens, heads=4, key_heads=4, size=8, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(tokens, heads, size), (tokens, key_heads, size), (tokens, key_heads, size)]
    return [torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes]


# -------------------------------------------------------------------------------------------------- the definition


@quick
@given(
    lengths=lengths_of,
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_it_equals_attention_of_each_sequence_alone(lengths, heads, causal, window, seed):
    tokens = sum(lengths)
    given_, same = (inputs_of(tokens, *heads, seed=seed) for _ in range(2))
    packed = packed_attention(*given_, Layout(lengths), scale=0.3, causal=causal, window=window)
    wanted = alone(*same, lengths, scale=0.3, causal=causal, window=window)
    torch.testing.assert_close(packed, wanted, **close)
    gradient = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed + 1))
    packed.backward(gradient)
    wanted.backward(gradient)
    for one, other in zip(given_, same, strict=True):
        torch.testing.assert_close(one.grad, other.grad, **close)


@quick
@given(lengths=st.lists(st.integers(1, 25), min_size=2, max_size=8), causal=st.booleans(), data=st.data())
def test_a_sequence_sees_itself_only(lengths, causal, data):
    layout = Layout(lengths)
    changed = data.draw(st.integers(0, len(lengths) - 1))
    span = slice(layout.offsets[changed], layout.offsets[changed + 1])
    inputs = inputs_of(layout.tokens)
    before = packed_attention(*inputs, layout, scale=0.5, causal=causal)
    with torch.no_grad():
        others = [x.clone() for x in inputs]
        for x in others:
            x[span] = 100 * torch.randn(x[span].shape)
    after = packed_attention(*others, layout, scale=0.5, causal=causal)
    outside = torch.ones(layout.tokens, dtype=torch.bool)
    outside[span] = False
    assert torch.equal(after[outside], before[outside])
    assert not torch.equal(after[span], before[span])
    before[span].sum().backward()
    for x in inputs:
        assert not x.grad[outside].any(), "nor do gradients leak"


@quick
@given(lengths=st.lists(st.integers(1, 25), min_size=2, max_size=8), data=st.data())
def test_the_order_of_sequences_does_not_matter(lengths, data):
    order = data.draw(st.permutations(range(len(lengths))))
    layout = Layout(lengths)
    moved = torch.cat([torch.arange(layout.offsets[i], layout.offsets[i + 1]) for i in order])
    query, key, value = inputs_of(layout.tokens)
    out = packed_attention(query, key, value, layout, scale=0.5)
    again = packed_attention(query[moved], key[moved], value[moved], Layout([lengths[i] for i in order]), scale=0.5)
    torch.testing.assert_close(again, out[moved], **close)


def test_causal_attention_does_not_look_ahead():
    layout = Layout([9, 20])
    query, key, value = inputs_of(layout.tokens)
    before = packed_attention(query, key, value, layout, scale=0.5, causal=True)
    with torch.no_grad():
        key, value = key.clone(), value.clone()
        key[15:] += 1
        value[15:] -= 1
    after = packed_attention(query, key, value, layout, scale=0.5, causal=True)
    assert torch.equal(after[:15], before[:15])
    assert not torch.allclose(after[15:], before[15:])


def test_gradients_against_finite_differences():
    layout = Layout([3, 1, 10])
    inputs = inputs_of(layout.tokens, heads=2, key_heads=1, size=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda q, k, v: packed_attention(q, k, v, layout, scale=0.7, causal=True, window=4), inputs, atol=1e-6
    )


def test_large_scores_stay_finite():
    layout = Layout([5, 17])
    inputs = [1e3 * x.detach() for x in inputs_of(layout.tokens)]
    assert torch.isfinite(packed_attention(*inputs, layout, scale=1.0, window=2)).all()


def test_bfloat16_is_near_float32():
    layout = Layout([5, 17, 30])
    inputs = [x.detach() for x in inputs_of(layout.tokens)]
    exact = packed_attention(*inputs, layout, scale=0.3)
    rough = packed_attention(*(x.bfloat16() for x in inputs), layout, scale=0.3)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.03)


def test_autocast_does_not_change_the_arithmetic():
    layout = Layout([5, 17])
    inputs = [x.detach() for x in inputs_of(layout.tokens)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = packed_attention(*inputs, layout, scale=0.3)
    assert torch.equal(inside, packed_attention(*inputs, layout, scale=0.3))


# --------------------------------------------------------------------------------------------------------- dropout


def test_dropout_keeps_the_mean_and_follows_the_seed():
    layout = Layout([3, 12, 12])
    inputs = [x.detach() for x in inputs_of(layout.tokens)]
    plain = packed_attention(*inputs, layout, scale=0.3)

    def dropped(seed, dropout=0.2):
        torch.manual_seed(seed)
        return packed_attention(*inputs, layout, scale=0.3, dropout=dropout)

    assert torch.equal(dropped(3), dropped(3))
    assert not torch.equal(dropped(3), dropped(4))
    draws = torch.stack([dropped(seed) for seed in range(600)])
    error = (draws.mean(0) - plain).abs() / (draws.std(0) / 600**0.5 + 1e-6)
    assert error.max() < 6, "in standard errors"
    assert error.mean() < 1.2


def test_the_backward_pass_uses_the_mask_of_the_forward_pass():
    layout = Layout([4, 9])
    inputs = inputs_of(layout.tokens, heads=2, key_heads=2, size=3, dtype=torch.float64)

    def fixed(q, k, v):
        torch.manual_seed(0)
        return packed_attention(q, k, v, layout, scale=0.7, dropout=0.4)

    assert torch.autograd.gradcheck(fixed, inputs, atol=1e-6)


# --------------------------------------------------------------------------------------------------- groups, layout


@quick
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_groups_cover_all_rows_in_order_and_cut_where_lengths_change(lengths):
    ordered = sorted(lengths)
    groups = group_lengths(ordered)
    assert list(itertools.chain(*groups)) == list(range(len(ordered)))
    assert all(len(group) for group in groups)
    for one, other in itertools.pairwise(groups):
        assert ordered[one[-1]] < ordered[other[0]]


@quick
@given(lengths=st.lists(st.sampled_from([3, 20, 50, 120, 200]), min_size=1, max_size=12))
def test_the_grouping_is_the_cheapest_of_all(lengths):
    from nlp_mtl.layout import _GROUP_COST

    def cost(groups):
        return sum(len(group) * ordered[group[-1]] ** 2 + _GROUP_COST for group in groups)

    ordered = sorted(lengths)
    edges = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]
    every = [
        [range(a, b) for a, b in itertools.pairwise([0, *cut, len(ordered)])]
        for count in range(len(edges) + 1)
        for cut in itertools.combinations(edges, count)
    ]
    assert cost(group_lengths(ordered)) == min(map(cost, every))


@quick
@given(lengths=lengths_of, heads=st.sampled_from([1, 2, 3]))
def test_a_layout_knows_where_everything_is(lengths, heads):
    layout = Layout(lengths)
    assert layout.tokens == sum(lengths) == layout.offsets[-1]
    assert len(layout.offsets) == len(lengths) + 1
    assert layout.position_ids.tolist() == [place for length in lengths for place in range(length)]
    assert layout.position_ids[layout.firsts].tolist() == [0] * len(lengths)
    assert layout.position_ids[layout.lasts].tolist() == [length - 1 for length in lengths]
    assert layout.scores == sum(group.rows * group.length**2 for group in layout.groups)
    padded = sum(group.rows * group.length for group in layout.groups)
    gather, scatter = layout.gather_heads(heads), layout.scatter_heads(heads)
    assert gather.shape == (padded * heads,)
    assert torch.equal(gather[scatter], torch.arange(layout.tokens * heads)), "scatter undoes gather"
    empty = layout.empty_rows(heads)
    places = set(scatter.tolist()) | set([] if empty is None else empty.tolist())
    assert places == set(range(padded * heads)), "a padded place holds a token or nothing"
    assert len(scatter) + (0 if empty is None else len(empty)) == padded * heads
    flat = torch.arange(layout.scores * heads)
    parts = [part.flatten() for _, part in layout.parts(flat, heads)]
    assert torch.equal(torch.cat(parts), flat)


@quick
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_padding_within_groups_is_bounded(lengths):
    """A group is as long as its longest sequence, rounded up, and only validly so."""
    layout = Layout(lengths)
    held = 0
    for group in layout.groups:
        assert group.length <= -(-max(lengths) // 16) * 16
        held += group.rows * group.length if group.valid is None else int(group.valid.sum())
    assert held == layout.tokens


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [8], [9], [16, 17]])
def test_edges_of_the_rounded_lengths(lengths):
    inputs = inputs_of(sum(lengths))
    out = packed_attention(*inputs, Layout(lengths), scale=0.3)
    torch.testing.assert_close(out, alone(*inputs, lengths, scale=0.3), **close)
