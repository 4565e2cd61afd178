"""Mixing rates to rows: the laws of a plan, for every sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.plan import MixingPlan, Pool, _whole
from nlp_mtl.samplers import Progress, Sampler

quick = settings(max_examples=40, deadline=None)

SPECS = {
    "proportional": {},
    "uniform": {},
    "temperature": {"temperature": 3.0},
    "size_capped": {"limit": 7},
    "annealed": {"last": 0.0},
    "round_robin": {},
    "fixed": {},
    "learning_progress": {"every": 3},
    "bandit": {"every": 3},
    "by_reference": {},
}
STATIC = ["proportional", "uniform", "temperature", "size_capped", "fixed"]

sizes = st.lists(st.integers(1, 60), min_size=1, max_size=6)
steps_of = st.integers(1, 20)
seeds = st.integers(0, 2**31)


def pools_of(counts):
    return [Pool(f"t{i}", (f"t{i}",), count) for i, count in enumerate(counts)]


def build(name, counts, **changes):
    spec = {"name": name, **SPECS[name], **changes}
    if name == "fixed":
        spec["rates"] = {f"t{i}": float(i % 3 + 1) for i in range(len(counts))}
    if name == "by_reference":
        spec["references"] = {f"t{i}": 0.5 for i in range(len(counts))}
    return registry.samplers.build(spec)


def plan_of(name, counts, *, rows_per_step=8, seed=0, epochs=1.0, **changes):
    return MixingPlan(
        build(name, counts, **changes), pools_of(counts), rows_per_step=rows_per_step, seed=seed, epochs=epochs
    )


def epoch_rows(plan, epoch):
    return [ref for step in range(plan.steps) for ref in plan.rows(epoch, step)]


def test_every_sampler_is_tried_here():
    assert set(SPECS) == set(registry.samplers.names())


# ------------------------------------------------------------------------------------------------ laws of all


@pytest.mark.parametrize("name", SPECS)
@quick
@given(counts=sizes, rows_per_step=steps_of, seed=seeds)
def test_every_step_is_full_and_only_the_last_one_may_be_short(name, counts, rows_per_step, seed):
    plan = plan_of(name, counts, rows_per_step=rows_per_step, seed=seed, epochs=2)
    assert plan.rows_per_epoch == sum(counts)
    for epoch in (0, 1):
        per_step = plan.counts(epoch).sum(1)
        assert len(per_step) == plan.steps
        assert (per_step[:-1] == rows_per_step).all()
        assert per_step.sum() == plan.rows_per_epoch
        for step in range(plan.steps):
            rows = plan.rows(epoch, step)
            assert (
                np.bincount([pool for pool, _, _ in rows], minlength=len(counts)).tolist()
                == plan.counts(epoch)[step].tolist()
            )
            assert all(0 <= row < counts[pool] for pool, row, _ in rows)


@pytest.mark.parametrize("name", SPECS)
@quick
@given(counts=sizes, rows_per_step=steps_of, seed=seeds, data=st.data())
def test_a_plan_is_a_function_of_seed_epoch_and_step(name, counts, rows_per_step, seed, data):
    one, two = (plan_of(name, counts, rows_per_step=rows_per_step, seed=seed, epochs=3) for _ in range(2))
    places = [(epoch, step) for epoch in range(3) for step in range(one.steps)]
    asked = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=12))
    straight = {place: one.rows(*place) for place in places}
    for place in asked:  # in any order, some twice, most not at all
        assert two.rows(*place) == straight[place]


@pytest.mark.parametrize("name", SPECS)
@quick
@given(counts=sizes, rows_per_step=steps_of, seed=seeds)
def test_rows_of_a_task_are_seen_equally_often(name, counts, rows_per_step, seed):
    plan = plan_of(name, counts, rows_per_step=rows_per_step, seed=seed, epochs=3)
    seen = [np.zeros(count, dtype=int) for count in counts]
    for epoch in range(3):
        for pool, row, visit in epoch_rows(plan, epoch):
            assert visit == seen[pool][row], "the number of earlier showings"
            seen[pool][row] += 1
        assert all(times.max() - times.min() <= 1 for times in seen)


@pytest.mark.parametrize("name", STATIC)
@quick
@given(counts=sizes, rows_per_step=steps_of)
def test_counts_follow_the_rates_to_less_than_a_row(name, counts, rows_per_step):
    plan = plan_of(name, counts, rows_per_step=rows_per_step)
    rates = plan.sampler.rates(Progress(0, 0, plan.steps, 1))
    wanted = np.asarray(rates, float) / np.sum(rates)
    assert np.abs(plan.counts(0).sum(0) - wanted * plan.rows_per_epoch).max() < 1 + 1e-6
    if rows_per_step >= 2 * len(counts):  # with room for all tasks, at any time and not only in the end
        done = np.minimum(np.arange(1, plan.steps + 1) * rows_per_step, plan.rows_per_epoch)
        assert np.abs(plan.counts(0).cumsum(0) - done[:, None] * wanted).max() < 2


@quick
@given(counts=sizes, rows_per_step=steps_of, seed=seeds)
def test_proportional_shows_every_row_exactly_once_an_epoch(counts, rows_per_step, seed):
    plan = plan_of("proportional", counts, rows_per_step=rows_per_step, seed=seed)
    for epoch in range(3):
        rows = epoch_rows(plan, epoch)
        assert {visit for _, _, visit in rows} == {epoch}
        assert sorted((pool, row) for pool, row, _ in rows) == [(p, r) for p, n in enumerate(counts) for r in range(n)]


@quick
@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=4), seed=seeds)
def test_orders_differ_between_showings_and_seeds(counts, seed):
    first, other = plan_of("proportional", counts, seed=seed), plan_of("proportional", counts, seed=seed + 1)
    order = [[row for pool, row, _ in epoch_rows(first, epoch) if pool == 0] for epoch in range(4)]
    assert len({tuple(o) for o in order}) > 1
    assert any(epoch_rows(first, epoch) != epoch_rows(other, epoch) for epoch in range(3))


@pytest.mark.parametrize("name", SPECS)
@quick
@given(counts=sizes, rows_per_step=steps_of, seed=seeds, another=st.integers(1, 60))
def test_another_task_leaves_a_tasks_order_of_rows_alone(name, counts, rows_per_step, seed, another):
    def order(pools, number, fixed):
        own = {"fixed": {"rates": fixed}, "by_reference": {"references": fixed}}.get(name, {})
        sampler = registry.samplers.build({"name": name, **SPECS[name], **own})
        plan = MixingPlan(sampler, pools, rows_per_step=rows_per_step, seed=seed, epochs=2)
        return [row for epoch in (0, 1) for pool, row, _ in epoch_rows(plan, epoch) if pool == number]

    rates = {**{f"t{i}": 1.0 for i in range(len(counts))}, "zz": 2.0}
    alone = order(pools_of(counts), 0, {k: v for k, v in rates.items() if k != "zz"})
    beside = order([Pool("zz", ("zz",), another), *pools_of(counts)], 1, rates)
    shared = min(len(alone), len(beside))
    assert alone[:shared] == beside[:shared]


@pytest.mark.parametrize("name", [name for name in SPECS if name != "round_robin"])
@quick
@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=5), rows_per_step=st.integers(4, 16), data=st.data())
def test_caps_hold_in_every_step_and_the_others_get_the_rest(name, counts, rows_per_step, data):
    caps = data.draw(st.dictionaries(st.sampled_from([f"t{i}" for i in range(1, len(counts))]), st.integers(1, 4)))
    plan = plan_of(name, counts, rows_per_step=rows_per_step, caps=caps)
    drawn = plan.counts(0)
    for task, cap in caps.items():
        assert drawn[:, int(task[1:])].max() <= cap
    assert (drawn[:-1].sum(1) == rows_per_step).all()


@quick
@given(
    owed=st.lists(st.floats(0, 9), min_size=1, max_size=6),
    room=st.lists(st.integers(1, 9), min_size=6, max_size=6),
)
def test_whole_counts_sum_up_within_caps_and_near_what_is_owed(owed, room):
    owed, caps = np.array(owed), np.array(room[: len(owed)])
    rows = round(owed.sum())
    assume(rows <= caps.sum())
    counts = _whole(owed, rows, caps)
    assert counts.sum() == rows
    assert (counts >= 0).all()
    assert (counts <= caps).all()
    if (owed + 1 < caps).all():
        assert np.abs(counts - owed).max() < 1 + 1e-6


# ------------------------------------------------------------------------------------------------ each sampler


def rates_of(name, counts, at=Progress(0, 0, 1, 1), **changes):
    sampler = build(name, counts, **changes)
    sampler.setup([f"t{i}" for i in range(len(counts))], counts)
    rates = np.asarray(sampler.rates(at), float)
    return rates / rates.sum()


@quick
@given(counts=sizes)
def test_temperature_lies_between_proportional_and_uniform(counts):
    near = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(rates_of("temperature", counts, temperature=1), rates_of("proportional", counts), **near)
    np.testing.assert_allclose(rates_of("temperature", counts, temperature=1e9), rates_of("uniform", counts), **near)
    np.testing.assert_allclose(rates_of("size_capped", counts, limit=1), rates_of("uniform", counts), **near)
    np.testing.assert_allclose(rates_of("size_capped", counts, limit=100), rates_of("proportional", counts), **near)
    spread = [np.ptp(rates_of("temperature", counts, temperature=t)) for t in (1, 2, 5, 100)]
    assert all(low <= high + 1e-12 for high, low in itertools.pairwise(spread))


def test_huge_tasks_and_low_temperatures_do_not_overflow():
    rates = rates_of("temperature", [10, 4_000_000_000], temperature=0.01)
    assert np.isfinite(rates).all()
    np.testing.assert_allclose(rates, [0, 1], atol=1e-12)


def test_annealed_goes_from_proportional_to_flatter_and_ends_at_last():
    counts = [10, 40, 160]
    plan = plan_of("annealed", counts, epochs=5, last=0.0)
    share = [plan.counts(epoch).sum(0)[2] for epoch in range(5)]
    assert share[0] == 160
    assert all(before > after for before, after in itertools.pairwise(share))
    assert share[-1] == pytest.approx(70, abs=1), "exponent 0 is uniform"
    last = rates_of("annealed", counts, Progress(4, 0, 10, 5), last=0.5)
    np.testing.assert_allclose(last, np.sqrt(counts) / np.sqrt(counts).sum())
    np.testing.assert_allclose(rates_of("annealed", counts, Progress(0, 0, 10, 1)), rates_of("proportional", counts))
    np.testing.assert_allclose(
        rates_of("annealed", counts, Progress(9, 0, 10, 5), last=0.5), last, err_msg="and stays there"
    )


@quick
@given(counts=sizes, rows_per_step=steps_of)
def test_round_robin_gives_each_step_to_one_task_in_turn(counts, rows_per_step):
    plan = plan_of("round_robin", counts, rows_per_step=rows_per_step)
    turn = 0
    for epoch in range(3):
        for drawn in plan.counts(epoch):
            (task,) = np.flatnonzero(drawn)
            assert task == turn % len(counts)
            turn += 1


def test_fixed_needs_a_rate_for_every_task_and_draws_none_for_zero():
    plan = MixingPlan(
        registry.samplers.build({"name": "fixed", "rates": {"t0": 3, "t1": 0, "t2": 1}}),
        pools_of([9, 9, 2]),
        rows_per_step=8,
        seed=0,
    )
    assert plan.counts(0).sum(0).tolist() == [15, 0, 5]
    with pytest.raises(ConfigError, match="`rates` leaves out t1, t2; 0 is a rate too"):
        MixingPlan(
            registry.samplers.build({"name": "fixed", "rates": {"t0": 3}}), pools_of([9, 9, 2]), rows_per_step=8, seed=0
        )


# ------------------------------------------------------------------------------------------- length of an epoch


@quick
@given(counts=sizes, rows_per_step=steps_of, rows=st.integers(1, 300))
def test_an_epoch_may_be_a_number_of_rows_and_goes_on_where_the_last_one_stopped(counts, rows_per_step, rows):
    plan = plan_of("proportional", counts, rows_per_step=rows_per_step, epoch=rows)
    assert plan.rows_per_epoch == rows
    assert plan.steps == -(-rows // rows_per_step)
    assert len(epoch_rows(plan, 0)) == rows
    shown = [ref for epoch in range(3) for ref in epoch_rows(plan, epoch)]
    assert len(set(shown)) == len(shown), "no row is shown again before the others were"


@pytest.mark.parametrize("name", ["proportional", "uniform", "temperature", "size_capped", "round_robin"])
@quick
@given(counts=sizes, rows_per_step=st.integers(1, 6))
def test_an_epoch_of_the_largest_task_shows_all_of_it(name, counts, rows_per_step):
    plan = plan_of(name, counts, rows_per_step=rows_per_step, epoch="largest")
    largest = int(np.argmax(counts))
    drawn = plan.counts(0).sum(0)[largest]
    slack = rows_per_step if name == "round_robin" else 1
    assert abs(drawn - counts[largest]) <= slack
    if name == "uniform":
        assert plan.rows_per_epoch == len(counts) * max(counts)


# -------------------------------------------------------------------------------------------------- shared rows


def test_rows_that_several_tasks_label_are_drawn_once_at_their_mean_rate():
    pools = [Pool("intent+slots", ("intent", "slots"), 30), Pool("rte", ("rte",), 10)]
    plan = MixingPlan(registry.samplers.build("proportional"), pools, rows_per_step=8, seed=0)
    assert plan.rows_per_epoch == 40
    assert plan.counts(0).sum(0).tolist() == [30, 10]
    rates = {"name": "fixed", "rates": {"intent": 1, "slots": 3, "rte": 1}}
    assert MixingPlan(registry.samplers.build(rates), pools, rows_per_step=8, seed=0).counts(0).sum(0).tolist() == [
        27,
        13,
    ]
    capped = MixingPlan(
        registry.samplers.build({"name": "uniform", "caps": {"slots": 2}}), pools, rows_per_step=8, seed=0
    )
    assert capped.counts(0)[:, 0].max() == 2


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "temperature", "temperature": 0}, "`temperature` is above 0, found 0"),
        ({"name": "temperature", "temperature": float("nan")}, "`temperature` is above 0, found nan"),
        ({"name": "temperature", "temprature": 2}, "takes no argument 'temprature'; did you mean 'temperature'?"),
        ({"name": "size_capped", "limit": 0}, "`limit` is at least 1, found 0"),
        ({"name": "annealed", "last": 1.5}, "`last` is from 0 to 1, found 1.5"),
        ({"name": "fixed", "rates": {"a": -1}}, "`rates` are at least 0 and not all 0"),
        ({"name": "fixed", "rates": {"a": 0}}, "`rates` are at least 0 and not all 0"),
        ({"name": "fixed", "rates": {}}, "`rates` are at least 0 and not all 0"),
        ({"name": "fixed"}, "needs the argument 'rates'"),
        (
            {"name": "uniform", "epoch": "long"},
            "`epoch` is one of all, mean, largest or a whole number, found 'long'; left out, it is 'all'",
        ),
        ({"name": "uniform", "epoch": 0}, "found 0"),
        ({"name": "uniform", "epoch": 1.5}, "found 1.5"),
        ({"name": "uniform", "caps": {"a": 0}}, "`caps` are row counts above 0, found {'a': 0}"),
        ({"name": "unifrom"}, "unknown sampler 'unifrom'; did you mean 'uniform'?"),
    ],
)
def test_wrong_arguments_name_the_parameter_the_rule_and_what_was_found(spec, words):
    with pytest.raises(ConfigError) as caught:
        registry.samplers.build(spec)
    assert words in str(caught.value)


def test_tasks_that_are_not_there_are_named_with_near_ones():
    for spec in ({"name": "uniform", "caps": {"t00": 3}}, {"name": "fixed", "rates": {"t00": 1.0, "t0": 1, "t1": 1}}):
        with pytest.raises(ConfigError, match=r"sampler: 't00' is not a task with training rows; did you mean 't0'"):
            MixingPlan(registry.samplers.build(spec), pools_of([3, 3]), rows_per_step=4, seed=0)


def test_caps_that_leave_a_step_unfilled_are_refused():
    with pytest.raises(ConfigError, match="`caps` leave 5 of the 8 rows of a step; raise or drop some"):
        plan_of("uniform", [9, 9], caps={"t0": 2, "t1": 3})


@pytest.mark.parametrize("rates", [[1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_sampler_of_ones_own_that_gives_wrong_rates_is_told(rates):
    class Own(Sampler):
        def rates(self, at):
            return rates

    with pytest.raises(ConfigError, match="sampler Own: rates must be 2 numbers from 0, not all 0, found"):
        MixingPlan(Own(), pools_of([3, 3]), rows_per_step=4, seed=0).counts(0)


def test_proportional_shows_rows_once_also_where_tasks_label_some_of_them():
    pools = [Pool("a+b", ("a", "b"), 100, (60, 40)), Pool("c", ("c",), 100)]
    plan = MixingPlan(registry.samplers.build("proportional"), pools, rows_per_step=8, seed=0)
    assert plan.counts(0).sum(0).tolist() == [100, 100]


def test_a_task_without_a_rate_is_not_drawn_to_fill_up_a_capped_step():
    pools = [Pool("a", ("a",), 50), Pool("b", ("b",), 50)]
    sampler = registry.samplers.build({"name": "fixed", "rates": {"a": 1, "b": 0}, "caps": {"a": 4}})
    with pytest.raises(ConfigError, match="which a must fill"):
        MixingPlan(sampler, pools, rows_per_step=8, seed=0).counts(0)
    counts = MixingPlan(sampler, pools, rows_per_step=4, seed=0).counts(0)
    assert counts[:, 1].sum() == 0
    assert counts[:, 0].max() == 4


def test_caps_that_leave_a_step_short_are_refused():
    plan = plan_of("round_robin", [40, 40], rows_per_step=32, caps={"t0": 8})
    with pytest.raises(ConfigError, match=r"`caps` leave 8 of the 32 rows of step 0, which t0 must fill"):
        plan.counts(0)


def test_the_rows_shown_are_those_of_the_steps():
    plan = plan_of("temperature", [40, 7], rows_per_step=6)
    for epoch, steps in ((0, plan.steps), (1, 3)):
        one_by_one = [[], []]
        for step in range(steps):
            for pool, row, _ in plan.rows(epoch, step):
                one_by_one[pool].append(row)
        assert [rows.tolist() for rows in plan.shown(epoch, steps)] == one_by_one
