"""Commands that are shown can be typed as they stand."""

import shlex

import pytest

from nlp_mtl import cli, screen
from nlp_mtl.config import RunConfig
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.methods import KEYS, methods


def test_commands_are_quoted_and_start_a_program_that_is_there(monkeypatch):
    monkeypatch.setattr(screen.shutil, "which", lambda name: "/bin/" + name)
    shown = screen.command("predict", "my runs/a", "it's a film")
    assert shlex.split(shown) == ["nlp-mtl", "predict", "my runs/a", "it's a film"]


def test_without_the_program_on_the_path_its_place_is_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(screen.shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(screen.sys, "argv", [str(tmp_path / ".venv" / "bin" / "nlp-mtl"), "train"])
    assert screen.command("tasks", "list") == ".venv/bin/nlp-mtl tasks list"
    monkeypatch.setattr(screen.sys, "argv", [str(tmp_path / "cli.py")])
    assert screen.command("tasks", "list").endswith("-m nlp_mtl.cli tasks list")


def test_several_processes_go_on_as_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert screen.command("train", "--resume").startswith("torchrun --nproc_per_node 2 -m nlp_mtl.cli train")
    assert screen.command("adapters", "add", "runs/a").startswith("torchrun --nproc_per_node 2")
    assert "torchrun" not in screen.command("predict", "runs/a", "a film")


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run"],
        ["predict", "run", "a text"],
        ["adapters", "remove", "run", "--task", "a"],
        ["adapters", "merge", "run", "out"],
        ["export", "run", "out", "--task", "a"],
        ["push", "run", "me/run"],
        ["serve", "run"],
        ["demo", "run"],
    ],
    ids=lambda words: " ".join(words[: 1 + (words[0] == "adapters")]),
)
def test_what_only_writes_or_listens_is_the_work_of_one_process(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnsupportedError, match="is the work of one process, found WORLD_SIZE=2; call it without"):
        cli.app(words, standalone_mode=False)
    assert not any(tmp_path.iterdir())


def test_methods_without_a_registry_are_listed_too(capsys):
    methods(None)
    shown = capsys.readouterr().out
    assert all(name in RunConfig.model_fields and name in shown for name, _, _ in KEYS)
    assert "distillation" in shown


def test_how_to_go_on_is_said_only_where_it_is_possible(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(screen.shutil, "which", lambda name: name)
    cli.print_resume(tmp_path, ["run.yaml"], None)
    assert "nothing was saved" in capsys.readouterr().err
    (tmp_path / "checkpoint-3").mkdir()
    cli.print_resume(tmp_path, ["run.yaml", "tasks=[a, b]", "--overwrite"], tmp_path / "data")
    last = capsys.readouterr().err.splitlines()[-1]
    root = str(tmp_path / "data")
    assert shlex.split(last) == ["nlp-mtl", "train", "run.yaml", "tasks=[a, b]", "--data-root", root, "--resume"]
