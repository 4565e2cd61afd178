"""A learning curve's numbers are those of its runs, each with the rows it says."""

from __future__ import annotations

import json

import pytest

from nlp_mtl import curve
from nlp_mtl.errors import ConfigError
from nlp_mtl.sources import load_rows
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import config, write_base, write_tasks


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tasks, base = write_tasks(folder / "data", rows=40), write_base(folder / "base")
    run = config(base, tasks[:1], folder / "nowhere", training={"max_steps": 2})
    methods = {"alone": {}, "beside": {"tasks": tasks[:2]}, "after": {"stages": [{"tasks": tasks[1:2]}, {}]}}
    keys = {"run": run, "task": "mood", "rows": [4, 16, "all"], "methods": methods, "seeds": [0, 1]}
    keys["output_dir"] = str(folder / "out")
    return folder, keys, curve(keys)


def test_the_numbers_are_those_of_runs_with_so_many_rows(study):
    folder, keys, found = study
    assert list(found.scores) == ["alone", "beside", "after"]
    assert found.rows == [4, 16, "all"]
    for way, by in found.scores.items():
        for rows, scores in by.items():
            for seed, score in scores.items():
                place = folder / "out" / way / f"rows-{rows}" / f"seed-{seed}"
                metrics = json.loads((place / "metrics.json").read_text())
                assert metrics["validation"]["mood"][found.metric] == score
                assert metrics["data"]["mood"]["train"]["rows"] == (32 if rows == "all" else rows)
    assert [row["rows"] for row in found.table()] == ["4", "16", "all"]
    written = json.loads((folder / "out" / "curve.json").read_text())
    assert set(written["scores"]) == set(found.scores)
    assert set(written["verdicts"]) == {"beside", "after"}
    assert (folder / "out" / "curve.svg").read_text().lstrip().startswith("<?xml")
    assert curve(keys).table() == found.table()


def test_a_seed_draws_its_own_rows(study):
    _, keys, _ = study

    def texts(seed):
        (task,) = load_tasks([{"name": keys["run"]["tasks"][0], "rows": {"train": 8}, "rows_seed": seed}])
        return load_rows(task)["train"]["text"][:]

    assert texts(0) == texts(0) != texts(1)
    assert len(texts(1)) == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "moood"}, "`task` is one of the run's, found 'moood'; did you mean 'mood'"),
        ({"rows": [0]}, "`rows"),
        ({"methods": {"x": {"nope": 1}}}, "'x': unknown key 'nope'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_done(study, tmp_path, changes, words):
    _, keys, _ = study
    with pytest.raises(ConfigError, match=words):
        curve({**keys, "output_dir": str(tmp_path / "out"), **changes})
    assert not (tmp_path / "out").exists()
