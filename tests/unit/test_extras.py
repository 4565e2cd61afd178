"""What is not a dependency of the package is an extra, and its absence is told with the command that installs it."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nlp_mtl
from nlp_mtl import bases, packages
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError, NotFoundError, pip_install

PACKAGE = Path(nlp_mtl.__file__).parent
SAID = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = SAID["optional-dependencies"]


def needed(requirements):
    """The distributions that come with some requirements, those of theirs included."""
    found, todo = set(), [Requirement(one) for one in requirements]
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            todo += [Requirement(more) for more in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:  # for another platform or Python
            continue
    return found


def names_of(requirements):
    """Their distributions' names."""
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def imports():
    """Third-party modules that the package imports: (file, line, module, whether a failure is caught)."""
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        guarded = {
            id(child)
            for node in ast.walk(tree)
            if isinstance(node, ast.Try)
            and any(handler.type and "ImportError" in ast.unparse(handler.type) for handler in node.handlers)
            for part in node.body
            for child in ast.walk(part)
        }
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - {"nlp_mtl", *sys.stdlib_module_names}:
                yield file, node.lineno, name, id(node) in guarded


def test_every_import_is_of_a_dependency_or_names_its_extra():
    ours, holders = needed(SAID["dependencies"]), metadata.packages_distributions()
    seen = set()
    for file, line, module, guarded in imports():
        distributions = {canonicalize_name(name) for name in holders.get(module, [module])}
        if distributions & ours:
            continue
        extras = {extra for extra, listed in EXTRAS.items() if distributions & names_of(listed)}
        assert extras, f"{file}:{line}: {module} is neither a dependency nor in an extra"
        assert guarded, f"{file}:{line}: {module} is in {extras}, but its absence is not caught"
        seen |= extras
        text = file.read_text(encoding="utf-8")
        assert any(f'pip_install("{extra}")' in text for extra in extras), f"{file}:{line}: the extra is not named"
    assert seen == {"demo", "gguf", "interpret", "onnx", "search", "serve"}, (
        "a new extra: test what is said without it, here or in test_exporting.py"
    )


def test_the_commands_name_extras_that_are_there():
    assert pip_install("gguf") == "pip install 'nlp_mtl[gguf]'"
    told = [
        node.args[0].value
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pip_install"
    ]
    assert {"gguf", "tensorboard", "trackio"} <= set(told) <= set(EXTRAS)
    assert canonicalize_name("nlp_mtl") == SAID["name"]


def test_without_gguf_a_packaged_gguf_model_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path))
    table = packages.package_table()
    name, model = next((name, model) for name, model in table.models.items() if model.gguf)
    packages.package_folder(model.package).mkdir(parents=True)  # as if fetched
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(NotFoundError) as caught:
        bases.find_base(name)
    assert "pip install 'nlp_mtl[gguf]'" in str(caught.value)
    assert name in str(caught.value)
    assert not (tmp_path / "models").exists(), "nothing half-written"


@pytest.mark.parametrize(("verb", "module", "extra"), [("serve", "uvicorn", "serve"), ("demo", "gradio", "demo")])
def test_without_its_extra_a_verb_says_what_to_install(monkeypatch, run, tmp_path, verb, module, extra):
    from nlp_mtl.testing import tiny_model

    tiny_model(["cola"]).save_pretrained(tmp_path / "run")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = run(verb, tmp_path / "run", "--port", "0")
    assert (code, out) == (2, "")
    assert f"pip install 'nlp_mtl[{extra}]'" in err


def test_without_captum_attributions_say_what_to_install(monkeypatch, run, tmp_path):
    from nlp_mtl.testing import tiny_model

    tiny_model(["cola"]).save_pretrained(tmp_path / "run")
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    code, out, err = run("interpret", tmp_path / "run", "--text", "a film")
    assert (code, out) == (2, "")
    assert "pip install 'nlp_mtl[interpret]'" in err
    assert not (tmp_path / "run" / "findings").exists()


def test_without_optuna_a_search_says_what_to_install(monkeypatch, run, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    file = tmp_path / "search.yaml"
    file.write_text(f"run: {{model: x, tasks: [rte]}}\nbudget: {{trials: 1}}\noutput_dir: {tmp_path / 'out'}\n")
    code, out, err = run("search", file)
    assert (code, out) == (2, "")
    assert "pip install 'nlp_mtl[search]'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("tensorboard", "tensorboard is not installed: pip install 'nlp_mtl[tensorboard]'"),
        ("[tensorboard, comet_ml]", "comet_ml is not installed: pip install comet-ml"),
        ("tensorbord", "'tensorbord' is no tracker of transformers; did you mean 'tensorboard'?"),
    ],
)
def test_a_tracker_that_is_missing_is_told_before_anything_is_read(monkeypatch, tmp_path, asked, said):
    from transformers.integrations import integration_utils

    for module in ("tensorboard", "comet"):
        monkeypatch.setattr(integration_utils, f"is_{module}_available", lambda: False)
    file = tmp_path / "run.yaml"
    file.write_text(f"model: x\ntasks: [rte]\ntraining:\n  seed: 1\n  report_to: {asked}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:5: `training.report_to`: " in str(caught.value)
    assert said in str(caught.value)
    assert "report_to: none" in str(caught.value)


def test_trackers_that_are_there_or_not_asked_for_are_no_mistake(monkeypatch, tmp_path):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    for asked in ("none", "all", "[]", "null", "tensorboard", "[tensorboard]"):
        assert load_config({"model": "x", "tasks": ["rte"], "training": {}}, [f"training.report_to={asked}"])


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("cagrad", "clarabel", "balancing"), ("nash_mtl", "ecos", "nash")]
)
def test_without_its_solver_a_balancer_says_what_to_install(monkeypatch, name, missing, extra):
    from torchjd import _mixins

    from nlp_mtl import registry
    from nlp_mtl.errors import NotFoundError

    find = _mixins.find_spec
    monkeypatch.setattr(_mixins, "find_spec", lambda asked: None if asked == missing else find(asked))
    with pytest.raises(NotFoundError) as caught:
        registry.balancers.build(name)
    assert pip_install(extra) in str(caught.value)
