"""Steps counted in tokens: the same laws as steps counted in rows, and the budget held to within a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.plan import Pool
from nlp_mtl.samplers import Progress, Sampler
from nlp_mtl.tokenplan import TokenPlan

quick = settings(max_examples=60, deadline=None)

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

lengths = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=60), min_size=1, max_size=5)
slack = st.integers(0, 200)  # tokens of a step beyond the longest row
seeds = st.integers(0, 2**31)


def test_every_sampler_is_tried_here():
    assert set(SPECS) == set(registry.samplers.names())


def build(name, count, **changes):
    spec = {"name": name, **SPECS[name], **changes}
    if name == "fixed":
        spec["rates"] = {f"t{i}": float(i % 3 + 1) for i in range(count)}
    if name == "by_reference":
        spec["references"] = {f"t{i}": 0.5 for i in range(count)}
    return registry.samplers.build(spec)


def plan_of(name, tokens, more, *, seed=0, epochs=1.0, **changes):
    pools = [Pool(f"t{i}", (f"t{i}",), len(rows)) for i, rows in enumerate(tokens)]
    return TokenPlan(
        name if isinstance(name, Sampler) else build(name, len(tokens), **changes),
        pools,
        tokens=[np.array(rows) for rows in tokens],
        tokens_per_batch=longest(tokens) + more,
        seed=seed,
        epochs=epochs,
    )


def longest(tokens):
    return max(map(max, tokens))


def epoch_rows(plan, epoch):
    return [ref for step in range(plan.steps) for ref in plan.rows(epoch, step)]


def tokens_of(plan, tokens, epoch):
    """[steps]"""
    steps = [plan.rows(epoch, step) for step in range(plan.steps)]
    return np.array([sum(tokens[pool][row] for pool, row, _ in rows) for rows in steps])


@pytest.mark.parametrize("name", SPECS)
@quick
@given(tokens=lengths, more=slack, seed=seeds)
def test_every_step_holds_the_budget_to_within_the_longest_row(name, tokens, more, seed):
    plan = plan_of(name, tokens, more, seed=seed, epochs=3)
    budget, most = longest(tokens) + more, longest(tokens)
    assert plan.tokens_per_step * plan.steps == pytest.approx(sum(map(sum, tokens)))
    # One step fewer would hold more than the budget; one more, less than the longest row.
    assert budget * (1 - 1 / plan.steps) - 1e-6 < plan.tokens_per_step < budget * (1 + 1 / plan.steps) + 1e-6
    for epoch in range(3):
        held = tokens_of(plan, tokens, epoch)
        assert len(held) == plan.steps, "in every epoch"
        assert (held > 0).all()
        assert np.abs(held - plan.tokens_per_step).max() <= most
        goals = plan.tokens_per_step * np.arange(1, plan.steps + 1)
        assert np.abs(held.cumsum() - goals).max() <= most / 2 + 1e-6, "what is left over does not pile up"


@quick
@given(tokens=lengths, more=slack, seed=seeds)
def test_the_number_of_steps_is_the_epochs_tokens_over_the_budget_rounded_up(tokens, more, seed):
    total, budget = sum(map(sum, tokens)), longest(tokens) + more
    plan = plan_of("proportional", tokens, more, seed=seed)
    if total // longest(tokens) >= -(-total // budget):
        assert plan.steps == -(-total // budget)
    else:  # steps would be smaller than the longest row
        assert plan.steps == max(1, total // longest(tokens))


@quick
@given(tokens=lengths, more=slack, seed=seeds)
def test_proportional_shows_every_row_exactly_once_an_epoch(tokens, more, seed):
    plan = plan_of("proportional", tokens, more, seed=seed, epochs=3)
    for epoch in range(3):
        rows = epoch_rows(plan, epoch)
        assert {visit for _, _, visit in rows} == {epoch}
        assert sorted((p, r) for p, r, _ in rows) == [(p, r) for p, n in enumerate(tokens) for r in range(len(n))]


@pytest.mark.parametrize("name", SPECS)
@quick
@given(tokens=lengths, more=slack, seed=seeds, data=st.data())
def test_a_plan_is_a_function_of_seed_epoch_and_step(name, tokens, more, seed, data):
    one, two = (plan_of(name, tokens, more, seed=seed, epochs=3) for _ in range(2))
    places = [(epoch, step) for epoch in range(3) for step in range(one.steps)]
    asked = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=8))
    straight = {place: one.rows(*place) for place in places}
    for place in asked:
        assert two.rows(*place) == straight[place]


@pytest.mark.parametrize("name", SPECS)
@quick
@given(tokens=lengths, more=slack, seed=seeds)
def test_rows_of_a_task_are_seen_equally_often(name, tokens, more, seed):
    plan = plan_of(name, tokens, more, seed=seed, epochs=3)
    seen = [np.zeros(len(rows), dtype=int) for rows in tokens]
    for epoch in range(3):
        for pool, row, visit in epoch_rows(plan, epoch):
            assert visit == seen[pool][row], "the number of earlier showings"
            seen[pool][row] += 1
        assert all(times.max() - times.min() <= 1 for times in seen)


@pytest.mark.parametrize("name", STATIC)
@quick
@given(tokens=lengths, more=slack)
def test_rates_stay_rates_of_rows_whatever_the_tokens(name, tokens, more):
    plan = plan_of(name, tokens, more)
    rates = np.asarray(plan.sampler.rates(Progress(0, 0, plan.steps, 1)), float)
    done = plan.counts(0).cumsum(0)
    wanted = done.sum(1, keepdims=True) * rates / rates.sum()
    assert np.abs(done - wanted).max() <= 0.5 + len(tokens) / 2 + 1e-6, "half a row each, over all of them"
    if len(tokens) == 2:
        assert np.abs(done - wanted).max() <= 1


@quick
@given(tokens=lengths, more=slack)
def test_round_robin_gives_each_step_to_one_task_in_turn(tokens, more):
    plan = plan_of("round_robin", tokens, more, epochs=2)
    for epoch in (0, 1):
        for step, counts in enumerate(plan.counts(epoch)):
            assert np.flatnonzero(counts).tolist() == [(epoch * plan.steps + step) % len(tokens)]


def test_annealed_goes_from_proportional_to_uniform():
    plan = plan_of("annealed", [[5] * 300, [20] * 30], 80, epochs=3)
    shares = [plan.counts(epoch).sum(0)[1] / plan.counts(epoch).sum() for epoch in range(3)]
    assert shares[0] == pytest.approx(30 / 330, abs=0.01)
    assert shares[2] == pytest.approx(1 / 2, abs=0.01)
    assert shares[0] < shares[1] < shares[2]


@quick
@given(tokens=st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=60), min_size=2, max_size=4), data=st.data())
def test_caps_hold_in_every_step_and_the_others_get_the_rest(tokens, data):
    caps = {f"t{i}": data.draw(st.integers(1, 5)) for i in range(data.draw(st.integers(1, len(tokens) - 1)))}
    plan = plan_of("proportional", tokens, data.draw(slack), caps=caps, epochs=2)
    for epoch in (0, 1):
        for task, cap in caps.items():
            assert plan.counts(epoch)[:, int(task[1:])].max() <= cap
        assert np.abs(tokens_of(plan, tokens, epoch) - plan.tokens_per_step).max() <= longest(tokens)


def test_a_cap_that_binds_only_now_and_then_loses_nothing():
    draw = np.random.default_rng(0)
    tokens = [draw.integers(3, 30, 400).tolist(), draw.integers(3, 30, 400).tolist()]
    free = plan_of("proportional", tokens, 170).counts(0)[:, 1]
    plan = plan_of("proportional", tokens, 170, caps={"t1": int(free.max()) - 1})
    assert plan.counts(0)[:, 1].max() == free.max() - 1 > free.mean() + 1
    assert abs(plan.counts(0)[:, 1].sum() - 400) <= 1, "what was kept out came later"


def test_caps_that_leave_a_step_short_are_refused():
    plan = plan_of("proportional", [[5] * 40, [5] * 40], 95, caps={"t0": 4, "t1": 6})
    with pytest.raises(ConfigError, match=r"`caps` leave 10 rows for step 0, 50 of its 100 tokens, which t0, t1"):
        plan.counts(0)


def test_a_budget_below_the_longest_row_is_refused():
    with pytest.raises(ConfigError, match=r"at least 30, the tokens of the longest training row \(t1\), found 29"):
        plan_of("proportional", [[5, 7], [30, 2]], -1)


@pytest.mark.parametrize("epoch", ["largest", 100])
@pytest.mark.parametrize("name", ["proportional", "uniform", "round_robin"])
def test_an_epoch_of_so_many_rows_is_as_many_tokens_as_they_have_on_average(name, epoch):
    draw = np.random.default_rng(1)
    tokens = [draw.integers(5, 15, 200).tolist(), draw.integers(30, 60, 50).tolist()]
    plan = plan_of(name, tokens, 240, epoch=epoch, epochs=3)
    rows = [plan.counts(number).sum() for number in range(3)]
    assert len({len(plan.counts(number)) for number in range(3)}) == 1
    assert rows == pytest.approx([plan.rows_per_epoch] * 3, rel=0.15)


class Turning(Sampler):
    """Rates that change at every step."""

    def rates(self, at):
        return 1.0 + np.roll(np.arange(len(self.sizes)), at.step)


@quick
@given(tokens=lengths, more=slack)
def test_rates_of_every_step_are_kept_over_the_epoch(tokens, more):
    plan = plan_of(Turning(), tokens, more)
    wanted = np.zeros(len(tokens))
    for step, counts in enumerate(plan.counts(0)):
        rates = plan.sampler.rates(Progress(0, step, plan.steps, 1))
        wanted += counts.sum() * rates / rates.sum()
    off = np.abs(plan.counts(0).sum(0) - wanted).max()
    assert off <= 1 + len(tokens) / 2 + 0.5 * np.sqrt(plan.steps) * len(tokens)


def test_rows_that_several_tasks_label_are_drawn_together():
    pools = [Pool("intent+slots", ("intent", "slots"), 30, (30, 20)), Pool("rte", ("rte",), 10, (10,))]
    tokens = [np.full(30, 7), np.full(10, 20)]
    plan = TokenPlan(registry.samplers.build("proportional"), pools, tokens=tokens, tokens_per_batch=64, seed=0)
    assert plan.counts(0).sum(0).tolist() == [30, 10]
