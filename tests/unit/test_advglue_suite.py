"""AdvGLUE as a suite: the heads of GLUE's tasks on its rows, and the average."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

import nlp_mtl as mtl
from nlp_mtl import yamlfile
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError
from nlp_mtl.sources import load_rows
from nlp_mtl.suites.scoring import average, score_suite
from nlp_mtl.suites.tables import SUITES
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import WORDS, write_base

torch.set_num_threads(1)
ROWS = {"adv_sst2": 9, "adv_mnli": 7, "adv_mnli_mismatched": 5, "adv_rte": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """AdvGLUE's rows alone, in the Hub's layout; two runs with tasks of GLUE, whose own rows are nowhere."""
    folder = tmp_path_factory.mktemp("advglue")
    root, draw, configs = folder / "data" / "AI-Secure" / "adv_glue", np.random.default_rng(0), []
    for task in load_tasks(["glue", "advglue"]):
        if task.name not in ROWS:
            continue
        rows = [
            {**{name: " ".join(draw.choice(WORDS, size=4)) for name in task.inputs}, "idx": number}
            | {"label": int(draw.integers(len(task.labels)))}
            for number in range(ROWS[task.name])
        ]
        (root / task.name).mkdir(parents=True)
        Dataset.from_list(rows).to_parquet(str(root / task.name / "validation-00000-of-00001.parquet"))
        files = [{"split": "validation", "path": f"{task.name}/validation-*"}]
        configs.append({"config_name": task.name, "data_files": files})
    (root / "README.md").write_text(f"---\n{yamlfile.dumps({'configs': configs})}---\n")
    base = write_base(folder / "base")
    for run, names in (("one", ["sst2", "rte"]), ("two", ["mnli"]), ("cola", ["cola"])):
        mtl.MultiTaskModel.from_base(base, load_tasks(names)).save_pretrained(folder / run)
    return folder


def test_the_average_by_hand():
    found = {
        "adv_sst2": {"accuracy": 0.5},
        "adv_mnli": {"accuracy": 0.25},
        "adv_mnli_mismatched": {"accuracy": 0.35},
        "adv_rte": {"accuracy": 0.6},
        "adv_qnli": {"accuracy": 0.4},
        "adv_qqp": {"accuracy": 0.8, "f1": 0.6},
    }
    tasks, missing = average(SUITES["advglue"], found)
    assert not missing
    assert tasks == pytest.approx({"SST-2": 0.5, "QQP": 0.7, "MNLI": 0.3, "QNLI": 0.4, "RTE": 0.6})
    assert sum(tasks.values()) / len(tasks) == pytest.approx(0.5)


def test_heads_of_glue_answer_its_rows(place):
    found = score_suite([place / "one", place / "two"], "advglue", data_root=place / "data")
    assert found.rows == ROWS and found.missing == ["QQP", "QNLI"] and found.name == "mean of 3 of 5 tasks"
    tasks = {task.name: task for task in load_tasks(["glue", "advglue"])}
    for part, run, owner in (("adv_sst2", "one", "sst2"), ("adv_mnli_mismatched", "two", "mnli")):
        rows = load_rows(tasks[part], data_root=place / "data")["validation"]
        inputs = [{name: row[name] for name in tasks[part].inputs} for row in rows]
        said = mtl.predict(mtl.MultiTaskModel.from_pretrained(place / run), inputs, tasks=[owner])
        right = [one[owner]["label"] == tasks[part].labels[row["label"]] for one, row in zip(said, rows, strict=True)]
        assert found.metrics[part] == {"accuracy": pytest.approx(np.mean(right))}


def test_the_command_and_what_it_refuses(place, tmp_path, capsys):
    words = ["evaluate", str(place / "one"), "--suite", "advglue", "--data-root", str(place / "data")]
    app(words, standalone_mode=False)
    out = capsys.readouterr().out
    assert "Mean of 2 of 5 tasks" in out and "This is not the AdvGLUE score" in out
    with pytest.raises(ConfigError, match="test rows of AdvGLUE are not public"):
        app([*words, "--submission", str(tmp_path / "adv.zip")], standalone_mode=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="a run with a task of AdvGLUE that has rows in validation, found none"):
        score_suite([place / "cola"], "advglue", data_root=place / "data")
    with pytest.raises(ConfigError, match=r"'AI-Secure/adv_glue' \(adv_sst2\) of task 'sst2' was not found\n") as said:
        score_suite([place / "one"], "advglue", data_root=tmp_path)
    assert "tasks that answer it are sst2, qqp, mnli, qnli, rte" in str(said.value)
