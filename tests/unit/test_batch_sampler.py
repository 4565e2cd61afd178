"""The plan cut over processes and micro-batches: together the parts are the plan, wherever one begins."""

from __future__ import annotations

import numpy as np
import pytest
from accelerate import skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.batches import MixedBatchSampler, MixedLoader, MixedRows, collate
from nlp_mtl.plan import MixingPlan, Pool
from nlp_mtl.registry import samplers

quick = settings(max_examples=40, deadline=None)

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)
parts = st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (3, 2), (6, 1), (1, 6)])


def plan_of(counts, rows_per_step, name="temperature", seed=0):
    pools = [Pool(f"t{i}", (f"t{i}",), count) for i, count in enumerate(counts)]
    return MixingPlan(samplers.build(name), pools, rows_per_step=rows_per_step, seed=seed, epochs=3)


def loader_of(plan, rows_of, **settings):
    sampler = MixedBatchSampler(plan, rows_of, **settings)
    return MixedLoader(MixedRows([]), batch_sampler=sampler, collate_fn=list)


def identity_of(counts):
    return [np.arange(count) for count in counts]


def epoch_of(counts, rows_per_step, processes, micro_batches, *, epoch=0, skip=0, seed=0):
    """[processes][micro-batches]: what each process sees in an epoch, after skipping."""
    seen = []
    for process in range(processes):
        plan = plan_of(counts, rows_per_step, seed=seed)  # each process makes its own
        loader = loader_of(plan, identity_of(counts), micro_batches=micro_batches, process=process, processes=processes)
        loader.set_epoch(epoch)
        seen.append(list(skip_first_batches(loader, skip) if skip else loader))
    return seen


@quick
@given(counts=sizes, rows_per_step=st.integers(1, 16), shape=parts, epoch=st.integers(0, 2), seed=st.integers(0, 99))
def test_the_parts_together_are_the_plan(counts, rows_per_step, shape, epoch, seed):
    processes, micro_batches = shape
    plan = plan_of(counts, rows_per_step, seed=seed)
    seen = epoch_of(counts, rows_per_step, processes, micro_batches, epoch=epoch, seed=seed)
    assert {len(batches) for batches in seen} == {plan.steps * micro_batches}, "as many for every process"
    for step in range(plan.steps):
        here = [batch for batches in seen for batch in batches[step * micro_batches : (step + 1) * micro_batches]]
        assert sorted(ref for batch in here for ref in batch) == sorted(plan.rows(epoch, step))
        lengths = [len(batch) for batch in here]
        assert max(lengths) - min(lengths) <= 1, "in equal parts"


@quick
@given(counts=sizes, rows_per_step=st.integers(1, 16), product=st.sampled_from([2, 4, 6]))
def test_only_the_product_of_processes_and_micro_batches_counts(counts, rows_per_step, product):
    """One process with many micro-batches does the same micro-batches as many processes with one."""
    apart = epoch_of(counts, rows_per_step, product, 1)
    alone = epoch_of(counts, rows_per_step, 1, product)[0]
    halves = epoch_of(counts, rows_per_step, 2, product // 2)
    steps = len(apart[0])
    for step in range(steps):
        wanted = [batches[step] for batches in apart]
        assert alone[step * product : (step + 1) * product] == wanted
        span = slice(step * product // 2, (step + 1) * product // 2)
        assert [batch for pair in zip(*(half[span] for half in halves), strict=True) for batch in pair] == wanted


@quick
@given(counts=sizes, rows_per_step=st.integers(1, 12), shape=parts, epoch=st.integers(0, 2), data=st.data())
def test_a_resumed_epoch_goes_on_where_it_stopped(counts, rows_per_step, shape, epoch, data):
    processes, micro_batches = shape
    whole = epoch_of(counts, rows_per_step, processes, micro_batches, epoch=epoch)
    skip = data.draw(st.integers(1, len(whole[0])))
    rest = epoch_of(counts, rows_per_step, processes, micro_batches, epoch=epoch, skip=skip)
    assert rest == [batches[skip:] for batches in whole]


def test_the_epoch_can_be_set_again_and_iterated_twice():
    plan = plan_of([5, 7], 4)
    loader = loader_of(plan, identity_of([5, 7]))
    first = list(loader)
    assert list(loader) == first
    loader.set_epoch(1)
    second = list(loader)
    assert second != first
    assert [ref for batch in second for ref in batch] == [
        ref for step in range(plan.steps) for ref in plan.rows(1, step)
    ]
    loader.set_epoch(0)
    assert list(loader) == first


def test_a_process_without_rows_in_the_last_step_still_takes_part():
    seen = epoch_of([9], 8, 4, 1)
    assert [len(batches) for batches in seen] == [2, 2, 2, 2]
    assert [len(batches[-1]) for batches in seen] == [1, 0, 0, 0]
    batch = collate([], [], {})
    assert batch["targets"] == {}
    assert batch["lengths"].tolist() == [1], "one token that no task reads"


def test_the_plans_numbers_count_among_the_rows_that_can_be_learned_from():
    plan = plan_of([3], 2, "proportional")
    sampler = MixedBatchSampler(plan, [np.array([10, 20, 30])])
    assert len(sampler) == 2
    assert sorted(row for batch in sampler for _, row, _ in batch) == [10, 20, 30]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    plan = plan_of([6, 9], 5)
    sampler = MixedBatchSampler(plan, identity_of([6, 9]), micro_batches=2)
    loader = MixedLoader(MixedRows([]), batch_sampler=sampler, collate_fn=list, num_workers=workers)
    loader.set_epoch(1)
    sampler_alone = MixedBatchSampler(plan, identity_of([6, 9]), micro_batches=2)
    sampler_alone.set_epoch(1)
    assert list(loader) == list(sampler_alone)
