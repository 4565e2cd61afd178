"""Samplers that learn, groups in turn, tasks that stop: what was drawn stays, and the rules move the right way."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError
from nlp_mtl.grouping import sampler_of
from nlp_mtl.plan import MixingPlan, Pool
from nlp_mtl.samplers import Progress, Stopping
from nlp_mtl.samplers.learned import AHEAD
from nlp_mtl.steps import StepRecord
from nlp_mtl.tokenplan import TokenPlan

TASKS, SIZES = ["a", "b", "c"], [30, 20, 10]
LEARNED = {"learning_progress": {"every": 2}, "bandit": {"every": 2}}
quick = settings(max_examples=30, deadline=None)
losses_of = st.lists(st.lists(st.floats(0.01, 5.0), min_size=3, max_size=3), min_size=8, max_size=8)


def record(step, losses):
    values = torch.tensor(losses, dtype=torch.float64)
    return StepRecord(step, values, torch.ones(3), torch.full((3,), 1 / 3))


def plan_of(sampler, kind="rows"):
    pools = [Pool(task, (task,), size) for task, size in zip(TASKS, SIZES, strict=True)]
    if kind == "rows":
        return MixingPlan(sampler, pools, rows_per_step=8, seed=1, epochs=2.0)
    draw = np.random.default_rng(0)
    tokens = [draw.integers(3, 9, size) for size in SIZES]
    return TokenPlan(sampler, pools, tokens=tokens, tokens_per_batch=60, seed=1, epochs=2.0)


def walked(plan, losses, *, begin=0, end=None):
    """The rows of the steps, each drawn one step before the one before it is done, as the loader does."""
    drawn = {}
    total = 2 * plan.steps if end is None else end
    for step in range(begin, total):
        for ahead in (step, step + 1):
            if ahead < total and ahead not in drawn and ahead // plan.steps == step // plan.steps:
                drawn[ahead] = plan.rows(*divmod(ahead, plan.steps))
        plan.sampler.observe(record(step, losses[step % len(losses)]), TASKS)
    return drawn


@pytest.mark.parametrize("kind", ["rows", "tokens"])
@pytest.mark.parametrize("name", LEARNED)
@quick
@given(losses=losses_of)
def test_what_was_drawn_is_what_the_plan_says_afterwards(name, kind, losses):
    plan = plan_of(registry.samplers.build({"name": name, **LEARNED[name]}), kind)
    steps = plan.steps
    drawn = walked(plan, losses)
    assert plan.steps == steps
    for step, rows in drawn.items():
        assert plan.rows(*divmod(step, steps)) == rows
    if kind == "rows":
        assert sum(len(rows) for rows in drawn.values()) == 2 * plan.rows_per_epoch


@pytest.mark.parametrize("name", LEARNED)
@quick
@given(losses=losses_of, cut=st.integers(1, 12))
def test_a_resumed_plan_goes_on_as_the_whole_one(name, losses, cut):
    whole = plan_of(registry.samplers.build({"name": name, **LEARNED[name]}))
    drawn = walked(whole, losses)
    first = plan_of(registry.samplers.build({"name": name, **LEARNED[name]}))
    walked(first, losses, end=cut)
    state = copy.deepcopy(first.sampler.state_dict())
    again = plan_of(registry.samplers.build({"name": name, **LEARNED[name]}))
    again.counts(0)  # as it was before the state came
    again.sampler.load_state_dict(state)
    rest = walked(again, losses, begin=cut)
    for step, rows in rest.items():
        assert rows == drawn[step]


@pytest.mark.parametrize("name", LEARNED)
@quick
@given(losses=losses_of, floor=st.floats(0, 1))
def test_no_task_falls_below_the_floor(name, losses, floor):
    plan = plan_of(registry.samplers.build({"name": name, **LEARNED[name], "floor": floor}))
    walked(plan, losses)
    rates = plan.sampler.rates(Progress(9, 0, plan.steps, 10.0))
    assert rates.sum() == pytest.approx(1)
    assert (rates >= floor / 3 - 1e-9).all()


def taught(name, before, after, **more):
    sampler = registry.samplers.build({"name": name, "every": 2, "floor": 0.0, **more})
    sampler.setup(TASKS, [10, 10, 10])
    for step, losses in enumerate([before, before, after, after]):
        sampler.observe(record(step, losses), TASKS)
    return sampler.rates(Progress(0, 3 + AHEAD, 100, 1.0)), sampler


def test_learning_progress_goes_where_losses_change():
    rates, sampler = taught("learning_progress", [1.0, 1.0, 1.0], [0.5, 1.4, 1.0])
    assert rates[0] > rates[1] > rates[2]
    assert np.array_equal(sampler.rates(Progress(0, 3 + AHEAD - 1, 100, 1.0)), np.full(3, 1 / 3)), "not before its time"


def test_a_bandit_goes_where_losses_fall():
    rates, _ = taught("bandit", [1.0, 1.0, 1.0], [0.5, 1.4, 0.9])
    assert rates[0] > rates[2] > rates[1]


def test_a_task_that_was_absent_moves_nothing_by_itself():
    nan = float("nan")
    rates, _ = taught("bandit", [1.0, nan, 1.0], [0.5, nan, 1.0])
    assert rates[0] > rates[1]


def test_distance_to_references_sets_the_shares():
    spec = {"name": "by_reference", "references": {"a": 0.8, "b": 0.5, "c": 2.0}, "floor": 0.0}
    sampler = registry.samplers.build(spec)
    sampler.setup(TASKS, SIZES)
    sampler.observe_scores(10, {"a": (0.6, True), "b": (0.7, True), "c": (3.0, False)})
    rates = sampler.rates(Progress(0, 10 + AHEAD, 100, 1.0))
    assert rates.tolist() == pytest.approx([0.25 / 0.75, 0.0, 0.5 / 0.75])
    with pytest.raises(ConfigError, match="`references` leaves out c"):
        registry.samplers.build({"name": "by_reference", "references": {"a": 1.0, "b": 1.0}}).setup(TASKS, SIZES)


# --------------------------------------------------------------------------------------------------------------- groups


def active_of(order, epochs=2.0, steps=6, **more):
    groups = {"groups": {"x": ["a"], "y": ["b", "c"]}, "order": order, **more}
    sampler = sampler_of("proportional", groups)
    sampler.setup(TASKS, SIZES)
    found = []
    for epoch in range(int(epochs)):
        for step in range(steps):
            rates = sampler.rates(Progress(epoch, step, steps, epochs))
            found.append("".join(task for task, rate in zip(TASKS, rates, strict=True) if rate > 0))
    return found


def test_groups_take_turns():
    assert active_of("stages") == ["a"] * 6 + ["bc"] * 6
    assert active_of("stages", shares={"x": 0.25}) == ["a"] * 3 + ["bc"] * 9
    assert active_of("turns") == ["a"] * 6 + ["bc"] * 6
    assert active_of("interleaved", every=2) == ["a", "a", "bc", "bc"] * 3
    assert active_of("interleaved", groups="each") == ["a", "b", "c"] * 4


@quick
@given(st.integers(1, 5), st.sampled_from(["stages", "turns", "interleaved"]))
def test_a_plan_of_groups_fills_every_step(every, order):
    more = {"every": every} if order == "interleaved" else {}
    plan = plan_of(sampler_of("temperature", {"groups": {"x": ["a"], "y": ["b"]}, "order": order, **more}))
    for epoch in range(2):
        for step in range(plan.steps):
            rows = plan.rows(epoch, step)
            assert len(rows) == min(8, plan.rows_per_epoch - 8 * step)
            assert not {0, 1} <= {pool for pool, _, _ in rows}, "c, which is in no group, is always there"


def test_mistakes_of_groups_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        sampler_of(
            "proportional",
            {"groups": {"x": ["a", "b"], "y": ["b"], "z": []}, "order": "stage", "every": 0, "sharing": 1},
            {"patience": 0, "treshold": 1},
        )
    assert caught.value.mistakes == [
        "groups: unknown key 'sharing'; did you mean 'shares'?",
        "stop_tasks: unknown key 'treshold'; did you mean 'threshold'?",
    ]
    with pytest.raises(ConfigError) as caught:
        sampler_of("proportional", {"groups": {"x": ["a", "b"], "y": ["b"], "z": []}, "order": "stage", "every": 0})
    said = "\n".join(caught.value.mistakes)
    for part in ("did you mean 'stages'", "from 1, found 0", "'b' is in two groups", "'z' has no tasks"):
        assert part in said
    with pytest.raises(ConfigError, match="'bb' is not a task with training rows; did you mean 'b'"):
        sampler_of("proportional", {"groups": {"x": ["a"], "y": ["bb"]}}).setup(TASKS, SIZES)


# --------------------------------------------------------------------------------------------------- tasks that stop


def test_a_task_stops_when_its_own_score_does_not_get_better():
    sampler = sampler_of("uniform", None, {"patience": 2, "threshold": 0.01})
    assert isinstance(sampler, Stopping)
    sampler.setup(TASKS, SIZES)
    for step, scores in ((10, (0.5, 0.5, 2.0)), (20, (0.505, 0.6, 1.5)), (30, (0.4, 0.7, 1.0))):
        named = zip(TASKS, scores, (True, True, False), strict=True)
        sampler.observe_scores(step, {task: (score, higher) for task, score, higher in named})
    assert sampler.stopped == ["a"]
    assert sampler.rates(Progress(0, 30, 100, 1.0)).tolist() == [1, 1, 1], "drawn already"
    assert sampler.rates(Progress(0, 31, 100, 1.0)).tolist() == [0, 1, 1]
    again = sampler_of("uniform", None, {"patience": 2, "threshold": 0.01})
    again.setup(TASKS, SIZES)
    again.load_state_dict(sampler.state_dict())
    for each in (sampler, again):
        for step in (40, 50):
            each.observe_scores(step, dict.fromkeys(TASKS, (0.0, True)) | {"c": (5.0, False)})
        assert each.finished
    assert again.state_dict() == sampler.state_dict()


def test_a_score_that_was_not_measured_stops_nobody():
    sampler = sampler_of("uniform", None, {"patience": 2})
    sampler.setup(TASKS, SIZES)
    for step, score in ((10, float("nan")), (20, 0.5), (30, 0.6), (40, 0.7)):
        sampler.observe_scores(step, dict.fromkeys(TASKS, (score, True)))
    assert sampler.stopped == []
