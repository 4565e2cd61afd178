"""Importing any module asks nothing of the network, also where no one said offline."""

from __future__ import annotations

import os
import subprocess
import sys

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
