"""The working folder of every entry: data, a pretrained folder, a finished run and an answer file, made once."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from nlp_mtl import cli
from tests.catalogue import bad
from tests.integration.tiny import WORDS, write_base, write_tasks

torch.set_num_threads(1)  # tiny models: threads would only wait for one another
NOISY = ("httpx", "httpx2", "huggingface_hub", "transformers", "datasets", "accelerate", "urllib3", "filelock")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A working folder as a user has one after a first run."""
    from nlp_mtl.run import train

    place = tmp_path_factory.mktemp("catalogue")
    write_tasks(place / "data", rows=24)
    write_base(place / "base")
    (place / "run.yaml").write_text(bad.run(), encoding="utf-8")
    saved = [
        "training.output_dir=done",
        "training.max_steps=2",
        "training.save_strategy=steps",
        "training.save_steps=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train("run.yaml", saved)
    rows = [{"text": f"{word} cat", "label": "yes" if "o" in word else "no"} for word in WORDS]
    (place / "spam.jsonl").write_text(bad.lines(*rows), encoding="utf-8")
    (place / "spam.yaml").write_text(bad.task(examples=rows[:2]), encoding="utf-8")
    (place / "answers.jsonl").write_text('{"kept": true}\n', encoding="utf-8")
    return place


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it, which is the working folder."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    yield Path()
    unset_hf_deepspeed_config()  # what a refused run leaves there, until it is collected, is taken for the next one's


@pytest.fixture
def command(monkeypatch, capsys):
    """The real entry point, called in this process: exit status, what it raised, standard output, standard error."""
    root = logging.getLogger()
    kept = {known: known.level for known in (root, *map(logging.getLogger, NOISY))}
    handlers = root.handlers[:]

    def call(words):
        monkeypatch.setattr(sys, "argv", ["nlp-mtl", *words])
        code, raised = 0, None
        try:
            cli.main()
        except SystemExit as end:
            code, raised = end.code or 0, end.__context__
        said = capsys.readouterr()
        return code, raised, said.out, said.err

    yield call
    root.handlers[:] = handlers
    for known, level in kept.items():
        known.setLevel(level)
