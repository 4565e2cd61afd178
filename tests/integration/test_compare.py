"""A study: its runs are done once, its numbers are those of the runs, and what fails does not take the rest with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from nlp_mtl.errors import RunFolderError
from nlp_mtl.studies.compare import compare
from nlp_mtl.studies.statistics import relative_change
from tests.integration.tiny import config, write_base, write_tasks


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tasks, base = write_tasks(folder / "data", rows=32), write_base(folder / "base")
    run = config(base, tasks[:3], folder / "nowhere", training={"max_steps": 2})
    keys = {"run": run, "balancers": ["equal", "pcgrad"], "seeds": [0, 1], "output_dir": str(folder / "out")}
    return folder, keys, compare(keys)


def test_the_numbers_are_those_of_the_runs(study):
    folder, _, found = study
    said: dict[str, dict] = {}
    for file in folder.glob("out/**/metrics.json"):
        seed = int(file.parent.name.removeprefix("seed-"))
        way = file.parent.parent.name if file.parent.parent.parent.name == "out" else "single"
        metrics = json.loads(file.read_text())
        own = said.setdefault(way, {}).setdefault(seed, {})
        own.update({task: scores[metrics["first"][task]["metric"]] for task, scores in metrics["validation"].items()})
    assert {way: set(by) for way, by in said.items()} == {way: {0, 1} for way in ("equal", "pcgrad", "single")}
    for way in ("equal", "pcgrad"):
        means = [np.mean(list(said[way][seed].values())) for seed in (0, 1)]
        assert found.means[way].mean == pytest.approx(np.mean(means))
        half = stats.t.ppf(0.975, 1) * np.std(means, ddof=1) / np.sqrt(2)
        assert found.means[way].half == pytest.approx(half)
        for task in found.metrics:
            assert found.scores[way][task].mean == pytest.approx(np.mean([said[way][seed][task] for seed in (0, 1)]))
    differences = [np.mean(list(said["pcgrad"][s].values())) - np.mean(list(said["equal"][s].values())) for s in (0, 1)]
    assert found.against["pcgrad"].mean == pytest.approx(np.mean(differences))
    written = json.loads((folder / "out" / "compare.json").read_text())
    assert written["baseline"] == found.baseline == "equal"
    assert (folder / "out" / "compare.svg").read_text().lstrip().startswith("<?xml")
    assert found.sentence() in (folder / "out" / "compare.md").read_text()


def test_what_is_done_is_not_done_again(study):
    folder, keys, found = study
    before = {file: file.stat().st_mtime_ns for file in folder.glob("out/**/metrics.json")}
    gone = folder / "out" / "pcgrad" / "seed-1"
    for file in sorted(gone.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    again = compare(keys)
    after = {file: file.stat().st_mtime_ns for file in folder.glob("out/**/metrics.json")}
    assert [file.parent for file in before if before[file] != after[file]] == [gone]
    assert again.table()[0] == found.table()[0] | {"time": again.table()[0]["time"]}


def test_another_study_does_not_take_these_runs_for_its_own(study):
    _, keys, _ = study
    other = {**keys, "run": {**keys["run"], "max_length": 32}}
    with pytest.raises(RunFolderError, match="another run than the study's is there"):
        compare(other)


def test_a_way_that_fails_is_told_and_the_others_are_compared(study, tmp_path):
    _, keys, _ = study
    ways = {
        "too fast": {
            "training": {**keys["run"]["training"], "learning_rate": 1e30, "max_grad_norm": 0.0, "max_steps": 4}
        }
    }
    keys = {**keys, "balancers": ["equal"], "methods": ways, "seeds": [0], "single": False}
    found = compare({**keys, "output_dir": str(tmp_path / "out")})
    assert set(found.scores) == {"equal"}
    assert list(found.failed) == ["too fast, seed 0"]
    assert "is not a number" in found.failed["too fast, seed 0"]


def test_relative_change_has_more_is_better_for_every_metric():
    higher = {"a": True, "b": False}
    assert relative_change({"a": 0.6, "b": 1.0}, {"a": 0.5, "b": 2.0}, higher) == pytest.approx((20 + 50) / 2)
    assert relative_change({"a": 0.4, "b": 3.0}, {"a": 0.5, "b": 2.0}, higher) == pytest.approx((-20 - 50) / 2)
    assert relative_change({"a": 0.4, "b": 3.0}, {"a": 0.0, "b": 2.0}, higher) == pytest.approx(-50)
