"""Weights of the tasks' losses: 0 where absent, and the sums each balancer promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.balancers import StepFacts
from nlp_mtl.errors import ConfigError

quick = settings(max_examples=60, deadline=None)

SPECS = {"equal": {}, "rows": {}, "fixed": {"weights": {"t0": 2.0, "t1": 0.0}}, "log_classes": {}}

# rows and labelled units of each task in a step; a task with rows may have nothing labelled
steps = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200)), min_size=2, max_size=6)


def facts_of(step) -> StepFacts:
    rows, units = zip(*((rows, units if rows else 0) for rows, units in step), strict=True)
    return StepFacts(0, torch.tensor(rows, dtype=torch.float64), torch.tensor(units, dtype=torch.float64))


def weights_of(name, step, **changes):
    balancer = registry.balancers.build({"name": name, **SPECS[name], **changes})
    classes = [2, 0, 5, 1, 3, 77][: len(step)]
    balancer.setup([f"t{i}" for i in range(len(step))], [100] * len(step), classes=classes)
    return balancer.weights(facts_of(step))


def test_every_balancer_that_looks_at_nothing_is_tried_here():
    known = registry.balancers
    assert set(SPECS) == {name for name in known.names() if not known[name].needs and name != "random"}


@pytest.mark.parametrize("name", SPECS)
@quick
@given(step=steps)
def test_absent_tasks_weigh_nothing_and_no_weight_is_negative(name, step):
    weights, present = weights_of(name, step), facts_of(step).present
    assert weights.shape == (len(step),)
    assert torch.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[~present] == 0).all()


@quick
@given(step=steps)
def test_equal_is_the_mean_over_the_tasks_present(step):
    weights, present = weights_of("equal", step), facts_of(step).present
    if present.any():
        assert weights.sum().item() == pytest.approx(1)
        assert len(set(weights[present].tolist())) == 1
    else:
        assert weights.sum() == 0


@quick
@given(step=steps)
def test_rows_counts_every_row_the_same(step):
    weights, facts = weights_of("rows", step), facts_of(step)
    rows = facts.rows * facts.present
    if rows.sum():
        assert weights.sum().item() == pytest.approx(1)
        torch.testing.assert_close(weights.double() * rows.sum(), rows, rtol=1e-5, atol=1e-5)
    else:
        assert weights.sum() == 0


@quick
@given(step=steps)
def test_rows_with_weights_counts_a_row_so_often_in_every_step(step):
    plain, weighted = weights_of("rows", step), weights_of("rows", step, weights={"t0": 2.5, "t1": 0.0})
    factors = torch.tensor([2.5, 0.0] + [1.0] * (len(step) - 2))
    torch.testing.assert_close(weighted, plain * factors)


def test_rows_refuses_weights_that_fit_no_task_or_are_negative():
    with pytest.raises(ConfigError, match="balancer 'rows': 't9' is not a task"):
        weights_of("rows", [(1, 1), (1, 1)], weights={"t9": 2.0})
    with pytest.raises(ConfigError, match=r"`weights` are at least 0, found \{'t0': -1.0\}"):
        weights_of("rows", [(1, 1), (1, 1)], weights={"t0": -1.0})


@quick
@given(count=st.integers(2, 6), rows=st.integers(1, 50))
def test_equal_counts_of_rows_make_rows_and_equal_the_same(count, rows):
    step = [(rows, rows)] * count
    torch.testing.assert_close(weights_of("rows", step), weights_of("equal", step))


def test_fixed_weights_are_used_as_they_are():
    step = [(3, 3), (1, 1), (9, 9), (0, 0)]
    assert weights_of("fixed", step, weights={"t0": 2.5, "t1": 0, "t3": 7}).tolist() == [2.5, 0, 1, 0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "fixed", "weights": {"a": -1}}, "`weights` are at least 0, found {'a': -1}"),
        ({"name": "fixed", "weights": {"a": float("nan")}}, "`weights` are at least 0"),
        (
            {"name": "fixed", "weights": {"a": "much"}},
            "balancer 'fixed': `weights` is a mapping of numbers, found {'a': 'much'}",
        ),
        ({"name": "fixed"}, "needs the argument 'weights'"),
        ({"name": "equel"}, "unknown balancer 'equel'; did you mean 'equal'?"),
    ],
)
def test_wrong_arguments_are_refused(spec, words):
    with pytest.raises(ConfigError) as caught:
        registry.balancers.build(spec)
    assert words in str(caught.value)


def test_weights_for_tasks_that_are_not_there_are_all_named():
    balancer = registry.balancers.build({"name": "fixed", "weights": {"rtee": 1, "colaa": 1, "rte": 1}})
    with pytest.raises(ConfigError) as caught:
        balancer.setup(["rte", "cola"], [1, 1])
    assert caught.value.mistakes == [
        "balancer 'fixed': 'rtee' is not a task; did you mean 'rte'?",
        "balancer 'fixed': 'colaa' is not a task; did you mean 'cola'?",
    ]


# ------------------------------------------------------------------------------------------------ methods on gradients


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 6).flatmap(
        lambda m: st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=m, max_size=m)
    ),
    seed=st.integers(0, 9),
)
def test_the_projector_finds_what_the_dual_cone_asks_for(rows, seed):
    """Of min v'Gv over v >= u: v is allowed, its gradient Gv is nowhere negative, and 0 where v is above u."""
    from torchjd._linalg import normalize, regularize

    from nlp_mtl.balancers.projections import nnls_projector

    jacobian = torch.tensor(rows, dtype=torch.float64)
    gramian = jacobian @ jacobian.T
    wanted = torch.rand(len(rows), len(rows), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = nnls_projector()(wanted, gramian)
    regular = regularize(normalize(gramian, 1e-4), 1e-4)
    slope = found @ regular
    assert bool((found >= wanted - 1e-9).all())
    assert bool((slope >= -1e-9).all())
    assert float((slope * (found - wanted)).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["pcgrad", "upgrad", "graddrop", "gradnorm"])
def test_one_task_alone_is_refused_by_methods_on_gradients(name):
    balancer = registry.balancers.build(name)
    with pytest.raises(ConfigError, match="weighs the gradients of several tasks, found rte alone; use 'equal'"):
        balancer.setup(["rte", "unlabelled"], [10, 0])


@quick
@given(step=steps, seed=st.integers(0, 5))
def test_random_weights_are_the_steps_and_nobody_elses(step, seed):
    before = torch.get_rng_state()
    made = [registry.balancers.build("random") for _ in range(2)]
    for one in made:
        one.setup([f"t{i}" for i in range(len(step))], [100] * len(step), seed=seed)
    first, second = (one.weights(facts_of(step)) for one in made)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["gradvac", "pcd", "nash_mtl", "cr_mogm"])
def test_what_is_remembered_of_a_task_outlasts_steps_without_it(name):
    balancer = registry.balancers.build(name)
    balancer.setup(["a", "b", "c"], [10] * 3)
    jacobian = torch.tensor([[1.0, 2.0, 0.5], [-1.0, -1.5, 0.5], [0.2, 0.0, 1.0]], dtype=torch.float64)

    def step(number, here):
        mask = torch.tensor(here, dtype=torch.float64)
        rows = jacobian * mask[:, None]
        balancer.weights(StepFacts(number, mask, mask), gramian=rows @ rows.T)
        return {key: value.clone() for key, value in balancer.state_dict().items() if torch.is_tensor(value)}

    step(0, [1, 1, 1])
    with_all = step(1, [1, 1, 1])
    without = step(2, [1, 1, 0])
    for key, value in with_all.items():
        if (value.dim() == 1 and len(value) == 3) or value.dim() == 2:
            assert torch.equal(without[key][2], value[2])


def gradnorm(norms, losses=(1.0, 1.0), first=(1.0, 1.0), alpha=1.5):
    balancer = registry.balancers.build({"name": "gradnorm", "alpha": alpha, "lr": 0.1})
    balancer.setup(["a", "b"], [10, 10])
    here = torch.ones(2)
    for step, (said, long) in enumerate(((first, (1.0, 1.0)), (losses, norms))):
        gramian = torch.diag(torch.tensor(long, dtype=torch.float64) ** 2)
        balancer.weights(StepFacts(step, here, here), losses=torch.tensor(said), gramian=gramian)
    return balancer.weights(StepFacts(2, here, here))


def test_gradnorm_makes_gradients_equally_long_where_tasks_learn_alike():
    weights = gradnorm(norms=(4.0, 1.0))
    assert weights[0] < 1 < weights[1]
    assert float(weights.sum()) == pytest.approx(2)
    assert torch.equal(gradnorm(norms=(1.0, 1.0)), torch.ones(2, dtype=torch.float64))


def test_gradnorm_helps_a_task_that_is_behind():
    weights = gradnorm(norms=(1.0, 1.0), losses=(0.9, 0.3))
    assert weights[0] > 1 > weights[1]
    assert torch.equal(gradnorm(norms=(1.0, 1.0), losses=(0.9, 0.3), alpha=0.0), torch.ones(2, dtype=torch.float64))
