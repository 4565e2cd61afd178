"""From the built wheel, installed elsewhere and called from another folder, everything works as from a checkout."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from nlp_mtl.tasks import task_registry
from tests.integration.tiny import write_base

ROOT = Path(__file__).resolve().parents[2]
needs_backend = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("hatchling", "pip")), reason="needs pip and hatchling ([dev])"
)
pytestmark = needs_backend


def call(*command, cwd, env=None, code=0):
    """Run a program that sees nothing of this checkout; its output."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NLP_MTL_REG"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**plain, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if not code else done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as `pip wheel` does, without the network."""
    out = tmp_path_factory.mktemp("dist")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", out]
    call(sys.executable, "-m", "pip", "wheel", *options, ROOT, cwd=out)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """A new environment with the wheel; it reads the other libraries from where this Python has them."""
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    python = place / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", wheel]
    call(sys.executable, "-m", "pip", "--python", python, *install, cwd=place)
    (site,) = place.glob("lib/python*/site-packages")
    libraries = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    # Their own .pth files are not read, so an editable nlp_mtl among them is not seen.
    (site / "libraries.pth").write_text("".join(f"{folder}\n" for folder in libraries), encoding="utf-8")
    found = call(python, "-c", "import nlp_mtl, sys; print(nlp_mtl.__file__, *sys.path, sep='\\n')", cwd=place)
    assert Path(found.splitlines()[0]).is_relative_to(site)
    assert str(ROOT) not in found.splitlines()[1:]
    return place / "bin"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of a user: CSV files, their tasks in a registry, a small pretrained model, a run file."""
    here = tmp_path_factory.mktemp("elsewhere")
    write_base(here / "base")
    words = ["good", "bad", "cat", "dog", "rain", "sun", "red", "blue"]
    texts = [f"the {a} {b} is {c}" for a in words[:2] for b in words[2:4] for c in words[4:]]
    write_csv(here / "mood.csv", ("text", "label"), [(text, "x" if "good" in text else "y") for text in texts])
    pairs = [
        (a, b, len(set(a.split()) & set(b.split())) / 5) for a, b in zip(texts, texts[5:] + texts[:5], strict=True)
    ]
    write_csv(here / "alike.csv", ("one", "two", "score"), pairs)
    tasks = {
        "my_mood": {"head": "sequence_classification", "inputs": ["text"], "target": "label", "labels": ["x", "y"]},
        "my_alike": {"head": "regression", "inputs": ["one", "two"], "target": "score"},
    }
    (here / "tasks").mkdir()
    for name, said in tasks.items():
        said["dataset"] = {"path": "csv", "data_files": f"../{name.removeprefix('my_')}.csv"}
        said |= {"name": name, "tags": ["mine"], "splits": {"validation": 0.3}}
        (here / "tasks" / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")
    (here / "run.yaml").write_text(
        "model: base\nregistry: [tasks]\ntasks: [mine]\nmax_length: 32\n"
        "training: {max_steps: 3, use_cpu: true, bf16: false, disable_tqdm: true, eval_strategy: 'no'}\n",
        encoding="utf-8",
    )
    return here


def write_csv(file, head, rows):
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([head, *rows])


def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    registry = {f"nlp_mtl/task_registry/{f.relative_to(ROOT / 'task_registry')}" for f in yaml_in("task_registry")}
    runs = {f"nlp_mtl/runs/{file.name}" for file in yaml_in("scripts/runs")}
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "nlp_mtl").rglob("*.py")}
    assert registry | runs | code | {"nlp_mtl/py.typed"} <= names
    assert {"nlp_mtl/runs/quickstart.yaml", "nlp_mtl/task_registry/packages.yaml"} <= names
    assert any(Path(name).name.startswith("_") for name in registry), "fragments too"
    others = {name for name in names if not name.startswith("nlp_mtl/") and ".dist-info/" not in name}
    assert not others, "tests, scripts and notebooks stay outside"
    assert not [name for name in names if "__pycache__" in name]


def yaml_in(folder):
    return list((ROOT / folder).rglob("*.yaml"))


def test_tasks_are_listed_and_shown(fresh, tmp_path):
    assert "tasks" in call(fresh / "nlp-mtl", "--help", cwd=tmp_path)
    out = call(fresh / "nlp-mtl", "tasks", "list", cwd=tmp_path)
    assert [line.split()[0] for line in out.splitlines()[2:-1]] == list(task_registry().tasks)
    out = call(fresh / "nlp-mtl", "tasks", "show", "rte", cwd=tmp_path)
    assert re.search(r"^name: rte$", out, re.MULTILINE)
    place = Path(out.splitlines()[0].removeprefix("# "))
    assert not place.is_relative_to(ROOT / "task_registry")
    assert place.parts[-4:-2] == ("nlp_mtl", "task_registry")


def test_a_run_file_trains_and_the_run_answers(fresh, world):
    out = call(fresh / "nlp-mtl", "tasks", "list", "--tag", "mine", cwd=world, env={"NLP_MTL_REGISTRY": "tasks"})
    assert out.splitlines()[-1].startswith("2 tasks")
    out = call(fresh / "nlp-mtl", "train", "run.yaml", "training.learning_rate=1e-3", cwd=world)
    assert "my_mood" in out and "my_alike" in out and "trivial baseline" in out
    assert (world / "runs" / "run" / "complete.json").is_file(), "named after the run file, in the working folder"
    inputs = ["the good cat is red", json.dumps({"one": "the cat", "two": "the dog"})]
    call(fresh / "nlp-mtl", "predict", "runs/run", *inputs, "--out", "answers.jsonl", cwd=world)
    text, pair = (json.loads(line) for line in (world / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    assert text["my_mood"]["label"] in ("x", "y")
    assert isinstance(pair["my_alike"]["value"], float)


def test_the_quickstart_run_file_is_found_and_names_tasks_that_are_there(fresh, tmp_path):
    code = (
        "from nlp_mtl import yamlfile; from nlp_mtl.cli import builtin_run;"
        "from nlp_mtl.tasks import load_tasks; from nlp_mtl.packages import package_table;"
        "said = yamlfile.load(builtin_run('quickstart'))[0];"
        "tasks = load_tasks(said['tasks']);"
        "assert said['model'] in package_table().models;"
        "assert {task.dataset.package for task in tasks} <= package_table().packages.keys();"
        "print(builtin_run('quickstart'))"
    )
    assert "site-packages" in call(fresh / "python", "-c", code, cwd=tmp_path)
