"""Tasks whose head is planned and not built: they are listed and shown, and refused wherever they would be used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from datasets import Dataset

from nlp_mtl import registry
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.heads import SequenceClassification, head_of_spec, make_heads
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.run import train
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import check_rows, check_task, tiny_model

PLANNED = "planned_for_this_test"


@pytest.fixture(autouse=True)
def planned(monkeypatch):
    monkeypatch.setitem(registry.PLANNED_HEADS, PLANNED, "it needs patience")


def write_task(file, **changes):
    said = {
        "name": file.stem,
        "head": PLANNED,
        "dataset": {"path": "json", "data_files": "rows.jsonl"},
        "inputs": ["text"],
        "target": "summary",
        "examples": [{"text": "a long text", "summary": "a text"}],
        **changes,
    }
    file.write_text(json.dumps(said), encoding="utf-8")  # JSON is YAML
    return file


def refused(error, name="later"):
    """The one message names task, head, what it needs, and the heads that work."""
    (message,) = getattr(error.value, "mistakes", [str(error.value)])
    assert f"task {name!r}: its head '{PLANNED}' is not built yet: it needs patience" in message
    for head in registry.heads:
        assert head in message
    return message


def test_making_heads_names_the_tasks_that_work(tmp_path):
    (later,) = load_tasks(write_task(tmp_path / "later.yaml"))
    with pytest.raises(ConfigError) as error:
        make_heads([later, *load_tasks(["rte", "cola"])])
    assert "leave it out and go on with rte, cola" in refused(error)
    with pytest.raises(ConfigError) as error:
        make_heads([later])
    assert "choose other tasks" in refused(error)
    with pytest.raises(ConfigError) as error:
        make_heads([later, later.with_(name="also"), *load_tasks("rte")], {"*": {"pooling": "mean"}})
    assert [message.split(":")[0] for message in error.value.mistakes] == ["task 'later'", "task 'also'"]


def test_a_run_is_refused_before_anything_is_written(tmp_path):
    file, folder = write_task(tmp_path / "later.yaml"), tmp_path / "run"
    said = {"model": "nowhere", "tasks": [str(file), "rte"], "training": {"output_dir": str(folder)}}
    for start in (load_config, train):
        with pytest.raises(ConfigError) as error:
            start(said)
        assert "the run: task 'later'" in error.value.mistakes[0]
        assert "go on with rte" in refused(error)
    assert not folder.exists()


def test_a_model_is_refused_before_its_base_is_looked_for(tmp_path):
    with pytest.raises(ConfigError) as error:
        MultiTaskModel.from_base(tmp_path / "nowhere", [write_task(tmp_path / "later.yaml")])
    refused(error)


def test_a_saved_model_is_refused(tmp_path):
    task = Task(
        name="later", head="sequence_classification", dataset={"path": "x"}, inputs=["t"], target="y", labels=["a", "b"]
    )
    tiny_model(task).save_pretrained(tmp_path)
    file = tmp_path / "nlp_mtl.json"
    file.write_text(file.read_text().replace('"sequence_classification"', f'"{PLANNED}"'))
    with pytest.raises(RunFolderError) as error:
        MultiTaskModel.from_pretrained(tmp_path)
    refused(error)
    with pytest.raises(ConfigError) as error:
        head_of_spec({**task.model_dump(exclude_unset=True), "head": {"name": PLANNED, "beams": 4}})
    refused(error)


def test_who_registers_the_head_has_it(tmp_path, monkeypatch):
    registry.heads.names()
    monkeypatch.setattr(registry.heads, "_entries", {**registry.heads._entries, PLANNED: SequenceClassification})
    assert registry.not_built(PLANNED) == ""
    (task,) = load_tasks(write_task(tmp_path / "later.yaml"))
    assert isinstance(make_heads([task])["later"], SequenceClassification)


def test_check_looks_at_the_columns_only(tmp_path):
    (task,) = load_tasks(write_task(tmp_path / "later.yaml"))
    assert check_task(task) == []
    assert check_task(task.with_(examples=[{"text": "x"}])) == ["task 'later': example 0 lacks the column 'summary'"]
    (first, row, *_) = check_task(task.with_(examples=[{"text": "x", "summary": " "}]))
    assert "task 'later', split 'examples': 1 row(s) can't be used" in first
    assert "row 0: 'summary' hold no text" in row


def test_check_reads_real_rows(tmp_path):
    (task,) = load_tasks(write_task(tmp_path / "later.yaml"))
    rows = Dataset.from_dict({"text": ["one", "two"], "summary": ["1", "2"]})
    rows.to_json(tmp_path / "rows.jsonl")
    assert check_rows(task) == ("real rows have them (train 2 of 2)", [])
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "summary": "1"}\n{"text": "two", "summary": null}\n')
    _, mistakes = check_rows(task)
    assert "row 1: column 'summary' is not text, found 'None'" in "\n".join(mistakes)
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "title": "1"}\n')
    _, mistakes = check_rows(task)
    assert "'summary'" in "\n".join(mistakes)


def test_listing_tasks_imports_nothing_heavy():
    code = (
        "import sys\nfrom nlp_mtl import cli\n"
        "sys.argv = ['nlp-mtl', 'tasks', 'list', '--head', 'seq2seq']\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "print('heavy:', sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
