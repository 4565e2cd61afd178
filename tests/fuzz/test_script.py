"""scripts/fuzz.py tries all laws, and keeps what breaks them: errors, dead processes, examples that never end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAWS = """
import os, time
from hypothesis import strategies as st
from tests.fuzz.law import LAWS, law

@law("numbers", st.integers(0, 1000))
def small(number, folder):
    (folder / "number.txt").write_text(str(number))
    assert number < 20, f"{number} is large"

@law("numbers", st.integers())
def any_number(number, folder):
    pass

@law("ends", st.integers(0, 100))
def ends(number, folder):
    if number > 50:
        os._exit(3)

@law("waits", st.integers(0, 100))
def waits(number, folder):
    if number > 50:
        time.sleep(100)

def load_laws():
    return LAWS
"""


def fuzz(folder: Path, *words: str) -> tuple[int, dict, str]:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), *words]
    command += ["--json", str(folder / "found.json"), "--findings", str(folder / "findings")]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=folder)
    file = folder / "found.json"
    return done.returncode, json.loads(file.read_text()) if file.is_file() else {}, done.stdout + done.stderr


def rendered(file: Path, monkeypatch) -> str:
    """The part of RESULTS.md that a summary becomes."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmarks"))
    render = importlib.import_module("render")
    recorded = file.parent / "recorded"
    recorded.mkdir()
    (recorded / "fuzz.json").write_text(file.read_text())
    return render.fuzz(recorded)


def test_what_breaks_a_law_is_found_and_kept(tmp_path, monkeypatch):
    (tmp_path / "broken_laws.py").write_text(LAWS)
    code, found, said = fuzz(tmp_path, "--minutes", "0.1", "--hang", "1", "--laws", "broken_laws")
    assert code == 1, said
    by = {one["law"]: one for one in found["findings"]}
    assert set(by) == {"small", "ends", "waits"}, said
    assert by["small"]["what"] == "AssertionError: 20 is large", "made as small as it can be"
    assert by["ends"]["what"] == "the process died (exit code 3)"
    assert by["waits"]["what"] == "takes longer than 1 s"
    assert found["laws"]["any_number"]["examples"] > 0, "others are tried all the same"
    assert found["processes"] > 2
    kept = {place.name.split("-")[0]: place for place in sorted((tmp_path / "findings").iterdir())}
    assert (kept["small"] / "number.txt").read_text() == "20"
    assert "3 findings:\n- " in rendered(tmp_path / "found.json", monkeypatch)
    for name in ("ends", "waits"):
        assert int((kept[name] / "finding.txt").read_text().split("\n")[2]) > 50


def test_a_clean_run_says_what_was_tried(tmp_path, monkeypatch):
    words = ["--minutes", "0.04", "--seed", "5", "--only", "yaml_read_back", "batches_hold_their_rows"]
    code, found, said = fuzz(tmp_path, *words)
    assert code == 0, said
    assert found["findings"] == []
    assert found["seed"] == 5
    assert found["examples"] == sum(one["examples"] for one in found["laws"].values()) > 0
    assert set(found["laws"]) <= {"yaml_read_back", "batches_hold_their_rows"}
    assert {"hypothesis", "pyarrow", "datasets", "python"} <= set(found["versions"])
    assert found["command"] == "python scripts/fuzz.py " + " ".join(words)
    page = rendered(tmp_path / "found.json", monkeypatch)
    assert f"`{found['command']}`" in page
    assert "No finding" in page
    assert f"| **all** | {len(found['laws'])} | **{found['examples']}** |" in page


def test_laws_that_can_not_be_started_are_a_finding(tmp_path):
    (tmp_path / "broken_laws.py").write_text(LAWS)
    code, found, said = fuzz(tmp_path, "--minutes", "1", "--laws", "broken_laws", "--only", "no_such_law")
    assert code == 1
    assert "--only names laws, found no_such_law; there are small, any_number, ends, waits" in "".join(
        p.read_text() for p in tmp_path.rglob("finding.txt")
    ), said
    assert found["examples"] == 0
