"""Every bad input gets a message that names parameter, rule, found value and way out, and nothing is lost or left."""

from __future__ import annotations

import hashlib
import shlex
from itertools import permutations
from pathlib import Path

import pytest

from nlp_mtl.errors import NlpMtlError
from tests.catalogue import (
    adapters,
    api_arguments,
    balancing,
    cli_arguments,
    data_files,
    folders,
    hub,
    own_data,
    prediction_inputs,
    rows,
    run_files,
    shipping,
    task_files,
    tuning,
)

KINDS = {
    "task files": task_files,
    "run files": run_files,
    "rows": rows,
    "data files": data_files,
    "folders": folders,
    "arguments of the command line": cli_arguments,
    "arguments in Python": api_arguments,
    "own data": own_data,
    "inputs of predict": prediction_inputs,
    "adapters": adapters,
    "exports and servers": shipping,
    "the Hub": hub,
    "balancing": balancing,
    "tuning": tuning,
}
ALL = [pytest.param(entry, id=f"{kind}: {entry.id}") for kind, module in KINDS.items() for entry in module.ENTRIES]


def snapshot(folder):
    """Every file below the folder with its sha256, and every folder."""
    return {
        str(place.relative_to(folder)): hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else "folder"
        for place in sorted(folder.rglob("*"))
    }


def message_of(entry, command):
    """What the user reads, and what was raised."""
    if callable(entry.use):
        with pytest.raises(NlpMtlError) as caught:
            entry.use()
        return str(caught.value), caught.value
    words = shlex.split(entry.use) if isinstance(entry.use, str) else entry.use
    code, raised, out, err = command(words)
    assert code, f"the command succeeded and said {out}"
    assert "Traceback" not in out + err
    return out + err, raised


@pytest.mark.parametrize("entry", ALL)
def test_a_bad_input(entry, here, command):
    for name, content in entry.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if entry.spoil is not None:
        entry.spoil()
    before = snapshot(here)
    said, raised = message_of(entry, command)
    assert type(raised) is entry.error, said
    for what in ("parameter", "rule", "found", "way_out"):
        assert getattr(entry, what) in said, f"no {what} in: {said}"
    for other in entry.also:
        assert other in said
    assert snapshot(here) == before


def test_every_entry_asks_for_four_things_and_not_for_one_of_them_twice():
    for module in KINDS.values():
        for entry in module.ENTRIES:
            four = [entry.parameter, entry.rule, entry.found, entry.way_out]
            assert all(part.strip() for part in four), entry.id
            assert not [(one, other) for one, other in permutations(four, 2) if one in other], entry.id


def test_the_catalogue_has_every_kind_and_enough_of_each():
    assert all(len(module.ENTRIES) >= 5 for module in KINDS.values())
    ids = [parameter.id for parameter in ALL]
    assert len(ids) == len(set(ids)) >= 60


def test_the_working_folder_itself_is_sound(here, command):
    """Else an entry could fail for a reason that is not its own."""
    for words in (
        ["train", "run.yaml"],
        ["evaluate", "done"],
        ["predict", "done", "a good cat", "--out", "answers.jsonl"],
        ["tasks", "check", "spam.yaml"],
        ["tasks", "new", "spam.jsonl", "--text", "text", "--label", "label", "--name", "mine"],
        ["train", "run.yaml", "training.output_dir=done", "--resume"],
    ):
        code, _, out, err = command(words)
        assert code == 0, f"{words}: {out}{err}"
