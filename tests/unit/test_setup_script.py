"""The set-up of the two commands: what is missing is named with its fix, and what is there is used."""

from __future__ import annotations

import importlib.util
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    (tmp_path / ".venv").mkdir()
    return module


def shell(tmp_path, *programs):
    """Run setup.sh with nothing on the PATH but these programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 | stat.S_IXUSR)
    for name in ("dirname", "sh"):
        (folder / name).symlink_to(next(p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists()))
    env = {"PATH": str(folder)}
    script = ROOT / "scripts" / "setup.sh"
    return subprocess.run(["/bin/sh", str(script), "install"], env=env, capture_output=True, text=True, timeout=60)


def test_a_missing_or_old_python_is_named_with_the_fix(tmp_path):
    old = '#!/bin/sh\ncase "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n'
    done = shell(tmp_path, ("python3", old))
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed, found: Python 3.9.2" in done.stderr
    assert "apt-get install python3.11 python3.11-venv" in done.stderr
    assert "make is not installed (Debian: apt-get install make)" in done.stdout


def test_a_python_without_venv_is_named_with_the_fix(tmp_path):
    bare = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac\n'
    done = shell(tmp_path, ("python3.11", bare), ("make", "#!/bin/sh\n"))
    assert done.returncode == 2
    assert "has no venv module" in done.stderr
    assert "apt-get install python3.11-venv" in done.stderr


def test_an_installed_torch_is_reused_only_where_the_new_environment_sees_it(setup, monkeypatch):
    monkeypatch.setattr(setup.sys, "base_prefix", setup.sys.prefix)
    assert setup.installed_torch(), "this Python has torch"
    monkeypatch.setattr(setup.sys, "base_prefix", "/elsewhere")
    assert setup.installed_torch() is None, "a virtual environment's packages are not seen from another one"


def test_a_reused_torch_is_not_pinned(setup):
    assert "torch==" in setup.write_constraints(None).read_text()
    lines = setup.write_constraints("2.9.0").read_text().splitlines()
    assert lines
    assert not [line for line in lines if line.startswith("torch==")]


def test_a_changed_pin_sets_up_again(setup, monkeypatch, tmp_path):
    before = setup.stamp("")
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    here = setup.stamp("")
    assert here != before, "another place"
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert setup.stamp("") != here


def test_every_dependency_is_pinned():
    import tomllib

    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [item for group in (said["dependencies"], *said["optional-dependencies"].values()) for item in group]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {n.split("[")[0].split(">")[0].split("=")[0].split("<")[0].lower() for n in names} - {"nlp-mtl"}
    assert wanted <= pinned
