"""Cheap dropout follows the law of the usual one, and torch's seed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nlp_mtl.dropout import Dropout, scaled_mask, use_cheap_dropout

MANY = 400_000
RATES = [0.05, 0.1, 0.5, 0.9]


def mask_of(p, shape=(MANY,), dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return scaled_mask(shape, p, torch.empty(0, dtype=dtype))


def bound(p, count=MANY):
    """Five standard deviations of a share."""
    return 5 * math.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("p", RATES)
def test_zeros_come_with_probability_p_and_the_mean_is_one(p):
    mask = mask_of(p)
    assert (mask == 0).float().mean().item() == pytest.approx(p, abs=bound(p) + 2**-16)
    assert mask.double().mean().item() == pytest.approx(1, abs=bound(p) / (1 - p))
    scale = 65536 / (65536 - round(p * 65536))
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(scale).item()}
    assert (1 - round(p * 65536) / 65536) * scale == 1, "of the rounded value, exactly"


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 1024])
def test_elements_at_a_distance_are_independent(p, lag):
    zeros = (mask_of(p) == 0).double()
    both = (zeros[:-lag] * zeros[lag:]).mean().item()
    assert both == pytest.approx(p * p, abs=2 * bound(p) + 2**-15)


def test_rows_and_calls_are_independent():
    first = mask_of(0.5, (500, 800))
    again = scaled_mask((500, 800), 0.5, first)  # a second call, without a new seed
    for one, other in [(first, again), (first[:-1], first[1:]), (first[:, :-1], first[:, 1:])]:
        same = ((one == 0) == (other == 0)).float().mean().item()
        assert same == pytest.approx(0.5, abs=bound(0.5))


def test_torchs_seed_and_state_decide():
    assert torch.equal(mask_of(0.3, (7, 11)), mask_of(0.3, (7, 11)))
    assert not torch.equal(mask_of(0.3, (7, 11)), mask_of(0.3, (7, 11), seed=1))
    state = torch.get_rng_state()
    first = scaled_mask((50,), 0.3, torch.empty(0))
    torch.set_rng_state(state)  # as activation checkpointing does
    assert torch.equal(scaled_mask((50,), 0.3, torch.empty(0)), first)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0,), (4, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shape_and_dtype(shape, dtype):
    mask = mask_of(0.2, shape, dtype)
    assert mask.shape == torch.Size(shape)
    assert mask.dtype == dtype
    scale = torch.tensor(65536 / (65536 - round(0.2 * 65536))).to(dtype)
    assert all(value in (0.0, scale.item()) for value in mask.flatten().tolist())


def test_a_rate_next_to_one_is_still_a_rate():
    assert torch.isfinite(mask_of(0.999999)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_the_mask(dtype):
    layer = Dropout(0.4).train()
    x = torch.randn(64, 32, dtype=dtype, requires_grad=True)
    torch.manual_seed(5)
    out = layer(x)
    torch.manual_seed(5)
    mask = scaled_mask(x.shape, 0.4, x)
    assert torch.equal(out, x * mask)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    assert torch.equal(x.grad, gradient * mask)


@pytest.mark.parametrize("layer", [Dropout(0.4).eval(), Dropout(0.0).train()])
def test_eval_mode_and_rate_zero_change_nothing_and_draw_nothing(layer):
    x = torch.randn(20)
    state = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_rate_one_drops_everything():
    assert Dropout(1.0).train()(torch.ones(30)).sum() == 0


class Custom(nn.Dropout):
    """A dropout of somebody else's."""


def test_use_cheap_dropout_changes_plain_dropout_only_and_no_state():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1), nn.Dropout1d(0.2)), Custom(0.5)
    )
    before, names = {k: v.clone() for k, v in model.state_dict().items()}, [n for n, _ in model.named_modules()]
    assert use_cheap_dropout(model) == 2
    assert [type(m) for m in model.modules() if not list(m.children())] == [
        nn.Linear,
        Dropout,
        Dropout,
        nn.Dropout1d,
        Custom,
    ]
    assert (model[1].p, model[2][0].p) == (0.3, 0.1)
    assert [n for n, _ in model.named_modules()] == names
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    plain = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1), nn.Dropout1d(0.2)), Custom(0.5)
    )
    plain.load_state_dict(model.state_dict())
    assert use_cheap_dropout(model) == 0, "once is enough"
    model.eval()
    plain.eval()
    x = torch.randn(3, 4)
    assert torch.equal(model[:3](x), plain[:3](x))
