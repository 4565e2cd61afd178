"""Groups of tasks: exact ways equal brute force, every task is served once, and what helps nobody is put apart."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nlp_mtl import propose_groups
from nlp_mtl.affinity import Affinity
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError
from nlp_mtl.taskgroups.clustering import clustering
from nlp_mtl.taskgroups.exact import branch_and_bound, exhaustive, partitions
from nlp_mtl.taskgroups.runs import group_runs, write_runs
from nlp_mtl.taskgroups.worth import Worth

numbers = st.floats(-1, 1).map(lambda value: round(value, 3))


def matrices(low, high):
    return st.integers(low, high).flatmap(lambda many: arrays(float, (many, many), elements=numbers))


def named(values, **more):
    return Affinity(
        tuple(f"t{number}" for number in range(len(values))), np.asarray(values, dtype=float), "example", **more
    )


def in_group(values, alone, task, group):
    """The definition: the mean of what the others do for it; alone, its own number."""
    others = [other for other in group if other != task]
    return np.mean([values[other, task] for other in others]) if others else alone[task]


def brute_force(values, alone, encoders, overlapping):
    """As Standley et al. put it: of all choices of groups, the one in which tasks' best groups are worth most."""
    many = len(values)
    everything = [group for size in range(1, many + 1) for group in combinations(range(many), size)]
    best = -np.inf
    for count in range(1, encoders + 1):
        for chosen in combinations(everything, count):
            if not overlapping and sum(map(len, chosen)) != many:
                continue
            found = [
                max((in_group(values, alone, task, group) for group in chosen if task in group), default=-np.inf)
                for task in range(many)
            ]
            best = max(best, sum(found))
    return best


@settings(max_examples=25, deadline=None)
@given(matrices(1, 4), st.integers(1, 3), st.booleans(), st.data())
def test_exact_ways_equal_brute_force(values, encoders, helpers, data):
    many = len(values)
    alone = data.draw(arrays(float, many, elements=numbers))
    worth, tasks = Worth(values, alone, helpers=helpers), list(range(many))
    expected = brute_force(values, alone, encoders, helpers)
    assert worth.total(exhaustive(worth, tasks, encoders)) == pytest.approx(expected)
    start = clustering(worth, tasks, encoders)
    assert worth.total(branch_and_bound(worth, tasks, encoders, start)) == pytest.approx(expected)
    assert worth.total(branch_and_bound(worth, tasks, encoders, [frozenset(tasks)])) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(matrices(5, 7), st.integers(1, 4), st.booleans())
def test_branch_and_bound_is_exhaustive_and_clustering_lies_between(values, encoders, helpers):
    worth, tasks = Worth(values, np.zeros(len(values)), helpers=helpers), list(range(len(values)))
    best = worth.total(exhaustive(worth, tasks, encoders))
    found = clustering(worth, tasks, encoders)
    assert sorted(task for block in found for task in block) == tasks
    assert len(found) <= encoders
    assert worth.total([frozenset(tasks)]) - 1e-9 <= worth.total(found) <= best + 1e-9
    assert worth.total(branch_and_bound(worth, tasks, encoders, [frozenset(tasks)])) == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(matrices(1, 6), st.integers(1, 4), st.booleans())
def test_every_task_is_served_once_and_gains_what_is_said(values, encoders, helpers):
    affinity = named(values)
    found = propose_groups(affinity, encoders, helpers=helpers)
    assert 1 <= len(found.groups) <= encoders
    assert sorted(task for group in found.groups for task in group.serves) == sorted(affinity.tasks)
    for group in found.groups:
        assert set(group.serves) <= set(group.tasks)
        assert helpers or group.serves == group.tasks
        for task in group.serves:
            numbers = [affinity.tasks.index(one) for one in group.tasks]
            own = affinity.tasks.index(task)
            assert found.gains[task] == pytest.approx(in_group(values, np.zeros(len(values)), own, numbers))
    if not found.apart:
        expected = Worth(values, np.zeros(len(values)), helpers=helpers)
        assert found.total == pytest.approx(expected.total(exhaustive(expected, range(len(values)), encoders)))


@settings(max_examples=30, deadline=None)
@given(matrices(3, 6), st.integers(2, 4), st.booleans(), st.data())
def test_a_task_that_nobody_helps_and_that_helps_nobody_is_put_apart(values, encoders, helpers, data):
    many = len(values)
    noise = data.draw(st.integers(0, many - 1))
    values = np.abs(values) + 0.01
    values[noise], values[:, noise] = -np.abs(values[noise]), -np.abs(values[:, noise])
    found = propose_groups(named(values), encoders, helpers=helpers)
    assert found.apart == (f"t{noise}",)
    assert found.group_of(f"t{noise}").tasks == (f"t{noise}",)
    assert [group for group in found.groups if f"t{noise}" in group.tasks] == [found.group_of(f"t{noise}")]
    assert f"Put apart, since no other task is expected to help them, nor they any: t{noise}." in found.sentences()
    alone = propose_groups(named(values), 1, helpers=helpers)
    assert len(alone.groups) == 1
    assert "no room to put them apart" in " ".join(alone.sentences())


def test_names_and_order_of_tasks_do_not_matter():
    draw = np.random.default_rng(0)
    affinity = named(draw.normal(size=(7, 7)))
    order = draw.permutation(affinity.tasks)
    one, other = propose_groups(affinity, 3), propose_groups(affinity.of(list(order)), 3)
    assert {frozenset(group.tasks) for group in one.groups} == {frozenset(group.tasks) for group in other.groups}
    assert one.gains == pytest.approx({task: other.gains[task] for task in one.gains})


@pytest.mark.parametrize("method", ["branch_and_bound", "clustering"])
def test_families_of_tasks_are_found(method):
    family = np.arange(12) % 3
    values = (
        np.where(family[:, None] == family[None, :], 0.5, -0.1) + np.random.default_rng(0).normal(size=(12, 12)) * 0.02
    )
    found = propose_groups(named(values), 3, helpers=False, method=method)
    assert {frozenset(group.tasks) for group in found.groups} == {
        frozenset(f"t{number}" for number in range(12) if family[number] == kind) for kind in range(3)
    }
    assert found.exact == (method == "branch_and_bound")


def test_a_task_may_help_where_it_is_not_served():
    values = np.zeros((3, 3))
    values[0, 1] = values[0, 2] = 0.5  # the first helps both others, who harm it
    values[1, 0] = values[2, 0] = values[1, 2] = values[2, 1] = -0.5
    found = propose_groups(named(values), 3)
    assert found.total == pytest.approx(1.0)
    assert found.group_of("t1").helpers == ("t0",)
    assert found.group_of("t0").tasks == ("t0",)
    assert propose_groups(named(values), 3, helpers=False).total == pytest.approx(0.0)


def test_copies_of_a_task_are_trained_together():
    values = np.array([[1, 0.97, 0.1], [0.98, 1, 0.1], [0.1, 0.1, 1]])
    found = propose_groups(named(values), 2, helpers=False)
    assert found.group_of("t0").tasks == ("t0", "t1")


def test_partitions_are_counted_by_stirling_numbers():
    assert [sum(1 for _ in partitions(range(many), many)) for many in range(1, 8)] == [1, 2, 5, 15, 52, 203, 877]
    assert sum(1 for _ in partitions(range(6), 3)) == 1 + 31 + 90


def test_all_mistakes_are_said_at_once():
    values = np.zeros((2, 2))
    values[0, 1] = np.nan
    with pytest.raises(ConfigError) as caught:
        propose_groups(named(values), 0, alone={"t9": 0.0}, method="exhaustiv")  # type: ignore[arg-type]
    said = "\n".join(caught.value.mistakes)
    assert len(caught.value.mistakes) == 4
    assert "`encoders` is a whole number from 1, found 0" in said
    assert "found 'exhaustiv'; did you mean 'exhaustive'?" in said
    assert "`alone` names 't9'" in said
    assert "found none for t0 → t1" in said


def glue():
    values = np.array([[0, 0.4, -0.2], [0.3, 0, -0.1], [-0.3, -0.2, 0]])
    return Affinity(("mrpc", "stsb", "cola"), values, "example")


def test_run_files_of_groups_are_valid_and_name_their_own_tasks(tmp_path):
    keys = {
        "model": "bert-base-cased",
        "tasks": ["mrpc", {"name": "stsb", "rows": {"train": 50}}, "cola"],
        "balancer": "pcgrad",
        "task_rates": {"cola": 2.0, "stsb": 0.5},
        "heads": {"cola": {"pooling": "mean"}, "stsb": {"pooling": "mean"}},
        "training": {"output_dir": "runs/x", "num_train_epochs": 1},
    }
    found = propose_groups(glue(), 2)
    files = write_runs(found, group_runs(found, keys), tmp_path)
    runs = [load_config(file) for file in files]
    assert [run.tasks for run in runs] == [["mrpc", {"name": "stsb", "rows": {"train": 50}}], ["cola"]]
    assert [run.balancer for run in runs] == ["pcgrad", "equal"]
    assert [list(run.heads) for run in runs] == [["stsb"], ["cola"]]
    assert [run.task_rates for run in runs] == [{"stsb": 0.5}, {}]
    assert [run.training["output_dir"] for run in runs] == ["runs/x/group-1", "runs/x/group-2"]
    assert files[0].read_text().startswith(f"# nlp-mtl train {files[0]}     the model of mrpc, stsb\n")
    with pytest.raises(ConfigError, match="`tasks` has all tasks of the affinity, found no 'cola'"):
        group_runs(found, {**keys, "tasks": ["mrpc", "stsb"], "task_rates": {}, "heads": {}})
    with pytest.raises(ConfigError, match="without `stages`"):
        group_runs(found, {**keys, "stages": [{}]})


def test_the_command_writes_groups_a_picture_and_run_files(tmp_path, run):
    glue().save(tmp_path / "affinity.json")
    (tmp_path / "run.yaml").write_text("model: bert-base-cased\ntasks: [mrpc, stsb, cola]\n")
    words = ("groups", tmp_path / "affinity.json", "--encoders", "2", "--out", tmp_path / "out")
    code, out, _ = run(*words, "--run", tmp_path / "run.yaml")
    assert code == 0
    assert "Put apart, since no other task is expected to help them, nor they any: cola." in out
    said = json.loads((tmp_path / "out" / "groups.json").read_text())
    assert [group["tasks"] for group in said["groups"]] == [["mrpc", "stsb"], ["cola"]]
    assert "<svg" in (tmp_path / "out" / "groups.svg").read_text()
    assert load_config(tmp_path / "out" / "group-1.yaml").tasks == ["mrpc", "stsb"]
    code, _, err = run(
        "groups", tmp_path / "affinity.json", "--encoders", "0", "--method", "all", "--out", tmp_path / "no"
    )
    assert code == 2
    assert "`encoders` is a whole number from 1" in err and "`method` is one of" in err
    assert not (tmp_path / "no").exists()
