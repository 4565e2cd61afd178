"""The laws of the collation hold, for a few fixed examples of each."""

from __future__ import annotations

import pytest

from tests.fuzz import batches, rows
from tests.fuzz.law import LAWS, try_few

MINE = sorted(name for name, law in LAWS.items() if law.holds.__module__ in (batches.__name__, rows.__name__))


@pytest.fixture(scope="module", autouse=True)
def own_datasets_cache(tmp_path_factory):
    """What `datasets` makes of the files is thrown away."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.mark.parametrize("name", MINE)
def test_law(name, tmp_path_factory):
    try_few(LAWS[name], tmp_path_factory.mktemp(name))
