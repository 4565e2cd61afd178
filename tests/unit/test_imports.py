"""Importing any module asks nothing of the network, and quick commands import nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, pkgutil, socket

asked = []

def refuse(*arguments, **more):
    asked.append(arguments)
    raise OSError("no network in this test")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import nlp_mtl

names = [module.name for module in pkgutil.walk_packages(nlp_mtl.__path__, "nlp_mtl.")]
for name in names:
    importlib.import_module(name)
assert not asked, f"the network was asked: {asked}"
print(len(names))
"""


def test_no_module_needs_the_network_to_be_imported():
    known = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=known, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


# Each of these takes longer to import than the quick commands may take in all.
HEAVY = set("torch transformers datasets accelerate peft evaluate sklearn scipy seqeval numpy pandas pyarrow".split())
CALL = """
import sys
sys.argv = ["nlp-mtl", *sys.argv[1:]]
from nlp_mtl.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("--help", {"pydantic", "yaml"}),
        ("train --help", {"yaml"}),  # typer reads arguments with pydantic
        ("tasks --help", {"yaml"}),
        ("tasks list", set()),
        ("tasks list --head seq2seq", set()),
        ("tasks show rte", set()),
        ("tasks show glue", set()),
    ],
)
def test_quick_commands_import_nothing_heavy(words, more):
    done = subprocess.run([sys.executable, "-c", CALL, *words.split()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = set(done.stderr.splitlines()[-1].split())
    assert "nlp_mtl" in found
    assert found & (HEAVY | more) == set()


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, nlp_mtl; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & (HEAVY | {"pydantic", "yaml", "typer"}) == set()
