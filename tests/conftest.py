"""What every test shares: no network, and a cache of its own."""

from __future__ import annotations

import os

# read by huggingface_hub and datasets when they are imported, so before any of them is
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    """What takes the place of ``~/.cache/nlp_mtl``."""
    return tmp_path_factory.mktemp("nlp_mtl_cache")


@pytest.fixture(autouse=True)
def own_cache(request, monkeypatch, session_cache):
    """No test writes into the user's cache, except those that need the fetched packages in it."""
    if request.node.get_closest_marker("packages") is None:
        monkeypatch.setenv("NLP_MTL_CACHE", str(session_cache))
