"""Paths in a run file: beside it first, then in the working folder; those of the command line in the working folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError
from nlp_mtl.runfiles import beside

TASK = """\
name: {name}
head: sequence_classification
dataset: {{path: csv, data_files: a.csv}}
inputs: [text]
target: label
labels: [no, yes]
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A run file's folder and, elsewhere, the working folder."""
    monkeypatch.delenv("NLP_MTL_REGISTRY", raising=False)
    runs, work = tmp_path / "runs", tmp_path / "work"
    for folder in (runs, work):
        for part in ("registry", "data", "base"):
            (folder / part).mkdir(parents=True)
    (runs / "mine.yaml").write_text(TASK.format(name="mine"))
    (runs / "registry" / "listed.yaml").write_text(TASK.format(name="listed"))
    (work / "here.yaml").write_text(TASK.format(name="here"))
    monkeypatch.chdir(work)
    return runs, work


def write(folder: Path, text: str) -> Path:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return folder / "run.yaml"


def test_paths_are_looked_for_beside_the_run_file_first(folders):
    runs, _ = folders
    file = write(
        runs,
        "model: base\ndata_root: data\nregistry: [registry]\n"
        "tasks: [listed, mine.yaml, {name: mine.yaml, rows: {train: 5}}]\n",
    )
    with pytest.raises(ConfigError, match="'mine' is asked for twice"):
        load_config(file)
    config = load_config(file, ["tasks=[listed]"])
    assert (config.model, config.data_root, config.registry) == (
        str(runs / "base"),
        str(runs / "data"),
        [str(runs / "registry")],
    )
    file = write(runs, "model: base\ntasks: {name: mine.yaml, rows: {train: 5}}\n")
    assert load_config(file).tasks == [{"name": str(runs / "mine.yaml"), "rows": {"train": 5}}]


def test_what_is_not_beside_it_is_left_for_the_working_folder(folders):
    runs, _ = folders
    file = write(runs, "model: bert-base-cased\ntasks: [rte, here.yaml]\ndata_root: elsewhere\n")
    config = load_config(file)
    assert (config.model, config.tasks, config.data_root) == ("bert-base-cased", ["rte", "here.yaml"], "elsewhere")


def test_paths_of_the_command_line_are_the_working_folders(folders):
    runs, _ = folders
    file = write(runs, "model: base\ntasks: [rte]\ndata_root: data\n")
    config = load_config(file, ["data_root=data", "model=base"])
    assert (config.data_root, config.model) == ("data", "base")


def test_a_run_file_in_the_working_folder_keeps_its_words(folders, monkeypatch):
    runs, _ = folders
    write(runs, "model: base\ntasks: [mine.yaml]\n")
    monkeypatch.chdir(runs)
    config = load_config("run.yaml")
    assert (config.model, config.tasks) == ("base", ["mine.yaml"])


@pytest.mark.parametrize("data", [{}, {"tasks": 5, "registry": "x", "model": None}, {"tasks": [3, {"rows": 1}]}])
def test_what_is_no_path_stays_as_it_is(tmp_path, data):
    assert beside(data, tmp_path) == data
