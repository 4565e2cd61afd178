"""The laws of task files and run files hold, for a few fixed examples of each."""

from __future__ import annotations

import pytest

from tests.fuzz import yaml_files
from tests.fuzz.law import LAWS, try_few

MINE = sorted(name for name, law in LAWS.items() if law.holds.__module__ == yaml_files.__name__)


@pytest.mark.parametrize("name", MINE)
def test_law(name, tmp_path_factory):
    try_few(LAWS[name], tmp_path_factory.mktemp(name))
