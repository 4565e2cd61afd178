"""GLUE and SuperGLUE as their owners score them, and the files that their servers take."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl import yamlfile
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError
from nlp_mtl.suites.answering import registered
from nlp_mtl.suites.scoring import average, score_suite
from nlp_mtl.suites.tables import GLUE, SUITES
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import WORDS, write_base

torch.set_num_threads(1)

PAIR = ("sentence1", "sentence2")
COLUMNS = {
    "cola": ("sentence",),
    "mrpc": PAIR,
    "stsb": PAIR,
    "rte": PAIR,
    "mnli": ("premise", "hypothesis"),
    "ax": ("premise", "hypothesis"),
}
HIDDEN = {"cola": 7, "mrpc": 6, "stsb": 5, "rte": 4, "mnli_matched": 6, "mnli_mismatched": 5, "ax": 3}


def call(*words):
    """A command; gives its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


def write_split(folder, split, rows):
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def text(draw):
    return " ".join(draw.choice(WORDS, size=draw.integers(2, 8)))


def write_glue(root):
    """Small GLUE tasks in the Hub's layout: 12 rows to train, 10 to validate, and hidden labels in test."""
    draw, configs = np.random.default_rng(0), []
    for name, columns in COLUMNS.items():
        splits = {"train": 12, "validation": 10, "test": HIDDEN.get(name, 0)}
        if name == "mnli":
            splits = {"train": 12, "validation_matched": 10, "validation_mismatched": 8}
            splits |= {"test_matched": HIDDEN["mnli_matched"], "test_mismatched": HIDDEN["mnli_mismatched"]}
        if name == "ax":
            splits = {"test": 3}
        classes = 3 if name in ("mnli", "ax") else 2
        files = [{"split": split, "path": f"{name}/{split}-*"} for split in splits]
        configs.append({"config_name": name, "data_files": files})
        for split, count in splits.items():
            rows = []
            for number in range(count):
                label = float(draw.random() * 5) if name == "stsb" else int(draw.integers(classes))
                hidden = split.startswith("test")
                label = (-1.0 if name == "stsb" else -1) if hidden else label
                rows.append({**{column: text(draw) for column in columns}, "label": label, "idx": number})
            write_split(root / "nyu-mll" / "glue" / name, split, rows)
    card = yamlfile.dumps({"configs": configs})
    (root / "nyu-mll" / "glue" / "README.md").write_text(f"---\n{card}---\n")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    write_glue(folder / "data")
    base = write_base(folder / "base")
    for run, names in (("one", ["cola", "mrpc", "stsb"]), ("two", ["rte", "mnli"])):
        mtl.MultiTaskModel.from_base(base, load_tasks(names)).save_pretrained(folder / run)
    return folder


@pytest.fixture(scope="module")
def score(place):
    return score_suite([place / "one", place / "two"], "glue", data_root=place / "data")


def test_every_part_is_a_registered_task_and_scores_what_it_can():
    for suite in SUITES.values():
        names = [part for parts in suite.scored.values() for part in parts]
        assert sorted(names) == sorted(part.task for part in suite.parts if not part.task.startswith("ax"))
        for part in suite.parts:
            task = registered(part)
            assert set(part.metrics) <= set(task.metrics)
            assert set(part.words) in (set(), set(task.labels or ()))
            assert part.owner == task.head_of
    assert len(GLUE.scored) == 9 and len(SUITES["superglue"].scored) == 8


def test_the_average_by_hand():
    found = {
        "cola": {"matthews_correlation": 0.5},
        "sst2": {"accuracy": 0.9},
        "mrpc": {"f1": 0.9, "accuracy": 0.8},
        "stsb": {"pearson": 0.88, "spearman": 0.86},
        "qqp": {"f1": 0.7, "accuracy": 0.9},
        "mnli": {"accuracy": 0.84},
        "mnli_mm": {"accuracy": 0.82},
        "qnli": {"accuracy": 0.91},
        "rte": {"accuracy": 0.6},
        "wnli": {"accuracy": 0.5},
    }
    tasks, missing = average(GLUE, {**found, "ax": {"matthews_correlation": 0.0}})
    assert not missing
    by_hand = [0.5, 0.9, 0.85, 0.87, 0.8, 0.83, 0.91, 0.6, 0.5]
    assert list(tasks.values()) == pytest.approx(by_hand)
    del found["mnli_mm"]
    tasks, missing = average(GLUE, found)
    assert missing == ["MNLI"] and "MNLI" not in tasks


def test_metrics_are_those_that_evaluation_finds(place, score):
    direct = mtl.evaluate(place / "one", data_root=place / "data")
    assert score.metrics["cola"] == {"matthews_correlation": direct["cola"].metrics["matthews_correlation"]}
    for task in ("mrpc", "stsb"):
        assert score.metrics[task] == direct[task].metrics
    assert score.rows == {"cola": 10, "mrpc": 10, "stsb": 10, "mnli": 10, "mnli_mm": 8, "rte": 10}
    assert score.by["rte"] == place / "two" and score.by["mnli_mm"] == place / "two"


def test_a_part_of_glue_is_not_called_its_score(score):
    assert score.missing == ["SST-2", "QQP", "QNLI", "WNLI"]
    assert score.name == "mean of 5 of 9 tasks" and not score.whole
    assert score.mean == pytest.approx(sum(score.tasks.values()) / 5)
    matched, other = score.metrics["mnli"]["accuracy"], score.metrics["mnli_mm"]["accuracy"]
    assert score.tasks["MNLI"] == pytest.approx((matched + other) / 2)
    said = " ".join(score.sentences())
    assert "Missing: SST-2, QQP, QNLI, WNLI" in said and "not the GLUE score" in said


def test_the_owners_rows_are_scored_also_where_a_run_had_fewer(place, tmp_path):
    few = load_tasks(["cola"])[0].with_(rows={"validation": 3})
    mtl.MultiTaskModel.from_base(str(place / "base"), [few]).save_pretrained(tmp_path / "few")
    found = score_suite([tmp_path / "few", place / "one"], "glue", data_root=place / "data")
    assert found.rows["cola"] == 10
    assert any("is not asked" in note for note in found.notes)


def test_a_task_that_only_has_the_name_is_passed_over(place, tmp_path):
    other = load_tasks(["cola"])[0].with_(dataset={"path": "me/acceptability"})
    mtl.MultiTaskModel.from_base(str(place / "base"), [other]).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="its data set is 'me/acceptability', not 'nyu-mll/glue'"):
        score_suite([tmp_path / "other"], "glue", data_root=place / "data")


def test_the_command(place, tmp_path, capsys):
    words = ["evaluate", place / "one", place / "two", "--suite", "glue", "--data-root", place / "data"]
    assert call(*words, "--json", tmp_path / "glue.json") == 0
    out = capsys.readouterr().out
    assert "Mean of 5 of 9 tasks" in out and "MNLI-mm" in out
    assert json.loads((tmp_path / "glue.json").read_text())["missing"] == ["SST-2", "QQP", "QNLI", "WNLI"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "glu"], "did you mean 'glue'"),
        (["--suite", "glue", "--split", "test"], "labels of test rows are hidden"),
        (["--suite", "glue", "--task", "cola"], "leave it out"),
        (["--json", "x.json"], "add --suite"),
        (["other"], "2 runs"),
    ],
)
def test_mistakes_of_the_command(place, words, said):
    with pytest.raises(ConfigError, match=said):
        call("evaluate", place / "one", *words)
