"""Our AdamW is torch's: weights, moments, clipping, state; with a kept embedding gradient only the rows used move."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlp_mtl.kernels import building
from nlp_mtl.memory import KeptGradient, freed_memory_stays
from nlp_mtl.optimizers import AdamW

WORDS = 50
kernels = pytest.mark.skipif(building.compiled() is None, reason=building.state())


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(WORDS, 9), nn.Linear(9, 33), nn.Linear(33, 3, bias=False))


def trained(make, *, steps=6, clip=None, keep=False, words=WORDS // 2, stop_at=None, **options):
    """(weights, state) after some steps; at `stop_at` the optimizer is made anew from its state."""
    model = network()
    optimizer = make(model.parameters(), lr=0.01, **options)
    kept = KeptGradient(model[0], model) if keep else None
    draw = torch.Generator().manual_seed(1)
    for step in range(steps):
        if step == stop_at:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = make(model.parameters(), lr=0.01, **options)
            optimizer.load_state_dict(state)
        model(torch.randint(0, words, (4, 7), generator=draw)).pow(2).sum().backward()
        if clip and isinstance(optimizer, AdamW) and optimizer.takes(model.parameters()):
            found = optimizer.clip(model.parameters(), clip)
            torch.testing.assert_close(found, nn.utils.get_total_norm([p.grad for p in model.parameters()]))
        elif clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        kept.clear() if kept is not None else optimizer.zero_grad()
    if kept is not None:
        kept.release()
    return [p.detach().clone() for p in model.parameters()], optimizer.state_dict()


def same(found, wanted, tolerance=1e-6):
    for one, other in zip(found[0], wanted[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    assert found[1]["state"].keys() == wanted[1]["state"].keys()
    for number, state in wanted[1]["state"].items():
        assert found[1]["state"][number].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(found[1]["state"][number][name], value, rtol=1e-5, atol=1e-6)


OPTIONS = [
    {},
    {"weight_decay": 0.0},
    {"betas": (0.5, 0.7), "eps": 1e-3},
    {"clip": 0.3},
    {"clip": 1e6, "weight_decay": 0.1},
]


@pytest.mark.parametrize("options", [*OPTIONS, {"amsgrad": True}, {"maximize": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_it_is_torchs(options, keep):
    same(trained(AdamW, keep=keep, **options), trained(torch.optim.AdamW, **options))


@pytest.mark.parametrize("keep", [False, True])
def test_a_resumed_optimizer_goes_on_to_the_same_bits(keep):
    options = {"weight_decay": 0.0, "clip": 0.3, "keep": keep}
    once, twice = trained(AdamW, **options), trained(AdamW, stop_at=3, **options)
    assert all(torch.equal(one, other) for one, other in zip(once[0], twice[0], strict=True))


@kernels
def test_rows_that_were_never_used_are_not_looked_at():
    model = network()
    kept = KeptGradient(model[0], model)
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for words in ([1, 2], [5]):
        model(torch.tensor([words])).sum().backward()
        optimizer.step()
        kept.clear()
    state = optimizer.state[model[0].weight]
    assert kept.rows_ever(state["exp_avg"], state["exp_avg_sq"]).tolist() == [1, 2, 5]
    moved = (model[0].weight != network()[0].weight).any(1).nonzero().flatten().tolist()
    assert moved == [1, 2, 5]
    kept.release()


def penalized(model, out):
    return out.pow(2).sum() + 0.1 * sum(parameter.pow(2).sum() for parameter in model.parameters())


def add_to_gradients(model, optimizer):
    model[0].weight.grad.add_(0.1)


def replace_gradient(model, optimizer):
    model[0].weight.grad = model[0].weight.grad + 0.1


def take_torchs_step(model, optimizer):
    optimizer.param_groups[0]["lr"] = torch.tensor(0.01)


def decay(model, optimizer):
    optimizer.param_groups[0]["weight_decay"] = 0.1


def freeze(model, optimizer):
    model[0].weight.requires_grad_(False)


def freeze_and_thaw(model, optimizer):
    model[0].weight.requires_grad_(not model[0].weight.requires_grad)


def zero(model, optimizer):
    optimizer.zero_grad()


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("loss", [lambda model, out: out.pow(2).sum(), penalized], ids=["plain", "penalized"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        (None, add_to_gradients),
        (None, replace_gradient),
        (take_torchs_step, None),
        (decay, None),
        (freeze, None),
        (freeze_and_thaw, None),
        (zero, None),
    ],
    ids=lambda function: function.__name__ if function else "",
)
def test_a_kept_gradient_is_autograds_whatever_somebody_does(before, after, loss, always):
    def run(make, keep):
        model, steps = network(), range(6)
        optimizer = make(model.parameters(), lr=0.01, weight_decay=0.0)
        kept = KeptGradient(model[0], model) if keep else None
        draw = torch.Generator().manual_seed(1)
        for step in steps:
            optimizer.param_groups[0].update(lr=0.01, weight_decay=0.0)
            chosen = step == 2 or always
            if before and chosen:
                before(model, optimizer)
            words = torch.randint(step * 8, step * 8 + 10, (4, 7), generator=draw)  # others at every step
            loss(model, model(words)).backward()
            if after and chosen:
                with torch.no_grad():
                    after(model, optimizer)
            optimizer.step()
            kept.clear() if kept is not None else optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    for one, other in zip(run(AdamW, True), run(torch.optim.AdamW, False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_passes_over_gradients_that_are_not_finite(fused):
    weight = nn.Parameter(torch.ones(3))
    optimizer, scaler = AdamW([weight], lr=0.1, fused=fused), torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (torch.inf, 1.0):
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.isfinite(weight).all() and bool((weight == 1).all()) == (factor == torch.inf)
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], torch.full((3,), 0.1))


@kernels
def test_a_changed_weight_is_noticed_by_autograd():
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], lr=0.1)
    out = (weight * weight).sum()
    weight.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_what_the_kernels_do_not_take_goes_torchs_way():
    def run(make):
        weight = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
        optimizer = make([weight], lr=torch.tensor(0.1))
        for _ in range(3):
            weight.grad = weight.detach() * 2
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(run(AdamW), run(torch.optim.AdamW), rtol=0, atol=0)


@kernels
@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=2), min_size=1, max_size=5),
    large=st.sampled_from([0, 1, 16383, 16384, 16385, 70_000]),
    threads=st.integers(1, 3),
)
def test_any_shapes_and_threads(shapes, large, threads):
    def run(make, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            draw = torch.Generator().manual_seed(0)
            weights = [nn.Parameter(torch.randn(*shape, generator=draw)) for shape in [*shapes, [large]]]
            optimizer = make(weights, lr=0.1)
            for _ in range(2):
                for weight in weights:
                    weight.grad = torch.randn(weight.shape, generator=draw)
                norm = nn.utils.clip_grad_norm_(weights, 2.0) if make is not AdamW else optimizer.clip(weights, 2.0)
                optimizer.step()
            return [w.detach() for w in weights], norm
        finally:
            torch.set_num_threads(before)

    (found, norm), (alone, one), (wanted, theirs) = run(AdamW, threads), run(AdamW, 1), run(torch.optim.AdamW, 1)
    assert all(map(torch.equal, found, alone)) and norm == one
    torch.testing.assert_close(norm, theirs, rtol=1e-5, atol=1e-6)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-6)


def test_memory_is_given_back_and_a_users_own_settings_stay(monkeypatch):
    with freed_memory_stays():
        assert float(torch.ones(1000, 1000).sum()) == 1e6
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with freed_memory_stays() as nothing:
        assert nothing is None


def test_a_gradient_that_lies_scattered_in_memory_is_read_in_its_order():
    """torch's own fused AdamW takes the numbers as they lie in memory."""
    found = []
    for scattered in (False, True):
        torch.manual_seed(0)
        wide = torch.randn(3, 8)
        wide[:, ::2] *= 100
        weight = nn.Parameter(torch.ones(3, 4))
        weight.grad = wide[:, 1::2] if scattered else wide[:, 1::2].contiguous()
        optimizer = AdamW([weight], lr=0.1, weight_decay=0.0, fused=True)
        optimizer.step()
        found.append(weight.detach())
    assert torch.equal(*found)
