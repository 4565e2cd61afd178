"""Products with one A and B per task: the same as each task's tokens alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.kernels import building, lowrank
from nlp_mtl.kernels.products import Linear, PerTask, affine

torch.set_num_threads(1)
needs_kernels = pytest.mark.skipif(building.compiled() is None, reason="no compiled kernels on this machine")

owner_lists = st.lists(st.integers(-1, 3), min_size=1, max_size=90)


def plain(x, owner, owners, downs, ups, scale):
    out = torch.zeros(len(x), len(ups[0]), dtype=torch.float64)
    for number, down, up in zip(owners, downs, ups, strict=True):
        out = out + (owner == number)[:, None] * (x.double() @ down.double().t() @ up.double().t()) * scale
    return out


@given(owner=owner_lists, also=st.sets(st.integers(0, 4), max_size=2))
@settings(deadline=None)
def test_runs_cover_every_token_of_somebody_once(owner, also):
    runs = lowrank.Runs.of(torch.tensor(owner), sorted(also))
    found = [-1] * len(owner)
    for begin, end, place in runs.table.tolist():
        assert 0 < end - begin <= 64
        for token in range(begin, end):
            assert found[token] == -1
            found[token] = runs.owners[place]
    assert found == owner
    assert set(runs.owners) == {number for number in owner if number >= 0} | also


@given(tokens=st.integers(0, 200), also=st.sets(st.integers(0, 4), max_size=2))
def test_all_of_one_owner(tokens, also):
    one = lowrank.Runs.all_of(2, tokens, tuple(sorted(also)))
    same = lowrank.Runs.of(torch.full((tokens,), 2), [2, *also])
    assert one.table.tolist() == same.table.tolist() and one.owners == same.owners


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(
    owner=owner_lists,
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 19)),
    spare=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_value_and_gradients_are_those_of_each_task_alone(dtype, owner, shape, spare, seed):
    inside, out, rank = shape
    torch.manual_seed(seed)
    runs = lowrank.Runs.of(torch.tensor(owner), [3])
    whose = torch.tensor([*owner, *[-1] * spare])
    x = torch.randn(len(whose), inside).to(dtype).requires_grad_()
    downs = [torch.randn(rank, inside, requires_grad=True) for _ in runs.owners]
    ups = [torch.randn(out, rank, requires_grad=True) for _ in runs.owners]
    factors = torch.randn(len(whose), out).to(dtype)
    made = lowrank.product(x, runs, downs, ups, 0.7)
    wanted = plain(x, whose, runs.owners, downs, ups, 0.7)
    ours = torch.autograd.grad(made, [x, *downs, *ups], factors)
    theirs = torch.autograd.grad(wanted, [x, *downs, *ups], factors.double())
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 0.2}
    torch.testing.assert_close(made.double(), wanted, **close)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other.double(), **close)


@needs_kernels
@pytest.mark.parametrize("shared", [False, True], ids=["own", "own and shared"])
def test_beside_the_products_of_layers(shared):
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 2, 2, 2, -1, 1])
    runs = lowrank.Runs.of(owner)
    x = torch.randn(7, 20).bfloat16().requires_grad_()
    layers, wanted, parts = [], [], [x]
    for out in (12, 30):
        weight, bias = (torch.randn(*size, requires_grad=True) for size in ((out, 20), (out,)))
        downs = [torch.randn(4, 20, requires_grad=True) for _ in runs.owners]
        ups = [torch.randn(out, 4, requires_grad=True) for _ in runs.owners]
        down, up = torch.randn(3, 20, requires_grad=True), torch.randn(out, 3, requires_grad=True)
        value = x.double() @ weight.double().t() + bias + plain(x, owner, runs.owners, downs, ups, 0.5)
        if shared:
            value = value + x.double() @ down.double().t() @ up.double().t() * 2.0
        own = PerTask(runs, tuple(downs), tuple(ups), 0.5)
        layers.append(Linear(weight, bias, *((down, up) if shared else (None, None)), 2.0, own))
        wanted.append(value)
        parts += [weight, bias, *downs, *ups, *((down, up) if shared else ())]
    made, wanted = affine(x, layers), torch.cat(wanted, 1)
    factors = torch.randn(made.shape).bfloat16()
    ours = torch.autograd.grad(made, parts, factors)
    theirs = torch.autograd.grad(wanted, parts, factors.double())
    for one, other in zip([made, *ours], [wanted, *theirs], strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()


@needs_kernels
def test_threads_change_nothing():
    torch.manual_seed(0)
    owner = torch.randint(0, 3, (40,)).repeat_interleave(9)
    x, factors = torch.randn(360, 48).bfloat16().requires_grad_(), torch.randn(360, 80).bfloat16()
    parts = [torch.randn(8, 48, requires_grad=True) for _ in range(3)]
    parts += [torch.randn(80, 8, requires_grad=True) for _ in range(3)]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            out = lowrank.product(x, lowrank.Runs.of(owner), parts[:3], parts[3:], 1.0)
            found.append([out, *torch.autograd.grad(out, [x, *parts], factors)])
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@needs_kernels
@pytest.mark.parametrize("wrong", ["short", "ranks", "dtype"])
def test_what_does_not_fit_is_refused(wrong):
    x, downs, ups = torch.zeros(4, 3), [torch.zeros(2, 3), torch.zeros(2, 3)], [torch.zeros(5, 2), torch.zeros(5, 2)]
    runs = lowrank.Runs.of(torch.tensor([0, 0, 1, 1]))
    if wrong == "short":
        x = x[:3]
    elif wrong == "ranks":
        downs[1] = torch.zeros(1, 3)
    else:
        ups[0] = ups[0].double()
    with pytest.raises(ValueError, match="low-rank product"):
        lowrank.product(x, runs, downs, ups, 1.0)


@needs_kernels
@pytest.mark.parametrize("way", ["product", "affine"])
def test_weights_may_move_before_the_backward_pass(way):
    """Resharding (FSDP) and `.data = …` give them another place."""
    torch.manual_seed(0)
    runs = lowrank.Runs.of(torch.tensor([0, 0, 1]))
    x = torch.randn(3, 300_000).bfloat16().requires_grad_()
    downs = [torch.randn(4, 300_000, requires_grad=True) for _ in range(2)]
    ups = [torch.randn(5, 4, requires_grad=True) for _ in range(2)]
    weight = torch.zeros(5, 300_000)
    found = []
    for moves in (False, True):
        if way == "product":
            out = lowrank.product(x, runs, downs, ups, 1.0)
        else:
            out = affine(x, [Linear(weight, per_task=PerTask(runs, tuple(downs), tuple(ups), 1.0))])
        if moves:
            for down in downs:
                down.data = down.data.clone()
        found.append(torch.autograd.grad(out.float().sum(), [x, *downs, *ups]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
