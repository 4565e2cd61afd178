"""What ``report_to`` gets at every log, read back from real event files and a real trackio project."""

from __future__ import annotations

import math

import pytest
import torch

from nlp_mtl.run import train
from nlp_mtl.stepsfile import read_steps
from tests.integration.tiny import config, write_base, write_tasks

torch.set_num_threads(1)  # tiny models: threads would only wait for one another
TASKS = ["mood", "alike", "names"]


def setting(place, **training):
    base = write_base(place / "base")
    files = [file for file in write_tasks(place / "data") if "rainy" not in file]
    saved = {"max_steps": 8, "logging_steps": 4, "save_strategy": "steps", "save_steps": 8, **training}
    return config(base, files, place / "run", balancer="pcgrad", training=saved)


def expected(lines):
    """By hand from the lines of steps.jsonl."""
    found = {}
    for task in TASKS:
        weights = [line["weights"][task] for line in lines if task in line["weights"]]
        found[f"weight_{task}"] = sum(weights) / len(weights)
        found[f"rate_{task}"] = sum(line["rates"].get(task, 0.0) for line in lines) / len(lines)
        norms = [line["norms"][task] for line in lines if task in line.get("norms", {})]
        found[f"gradnorm_{task}"] = sum(norms) / len(norms)
    cosines = [value for line in lines for row in line.get("cosines", {}).values() for value in row.values()]
    found["cosine_mean"] = sum(cosines) / len(cosines)
    found["conflicting_share"] = sum(value < 0 for value in cosines) / len(cosines)
    return found


def test_tensorboard_and_trackio_get_weights_rates_and_conflict(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    pytest.importorskip("tensorboard")
    run = train(setting(tmp_path, report_to=["tensorboard", "trackio"], project="tiny", run_name="one"))
    lines = read_steps(tmp_path / "run")
    logged = [entry for entry in run.trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [4, 8]
    for entry, part in zip(logged, (lines[:4], lines[4:]), strict=True):
        for key, value in expected(part).items():
            assert entry[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
        assert math.isclose(sum(entry[f"rate_{task}"] for task in TASKS), 1.0)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "run" / "runs").iterdir()
    board = EventAccumulator(str(events))
    board.Reload()
    for key in expected(lines):
        scalars = [(scalar.step, scalar.value) for scalar in board.Scalars(f"train/{key}")]
        assert scalars == [(entry["step"], pytest.approx(entry[key], rel=1e-5)) for entry in logged]

    from trackio.sqlite_storage import SQLiteStorage

    kept = [entry for entry in SQLiteStorage.get_logs("tiny", "one") if "train/conflicting_share" in entry]
    assert len(kept) == 2
    for entry, known in zip(kept, logged, strict=True):
        for key in expected(lines):
            assert entry[f"train/{key}"] == pytest.approx(known[key]), key


def test_a_run_resumed_between_two_logs_logs_the_same(tmp_path):
    steady = {"save_steps": 2, "lr_scheduler_type": "constant"}
    whole = train(setting(tmp_path / "whole", **steady))
    again = setting(tmp_path / "again", **steady)
    train({**again, "training": {**again["training"], "max_steps": 2}})
    resumed = train(again, resume=True)
    first, second = ([entry for entry in run.trainer.state.log_history if "loss" in entry] for run in (whole, resumed))
    for key in expected(read_steps(tmp_path / "whole" / "run")):
        assert [entry[key] for entry in first] == [entry[key] for entry in second], key
