"""Pushes and repositories that can't be: all of it found before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import nlp_mtl as mtl
from nlp_mtl.errors import HubError, RunFolderError, UnsupportedError
from tests.catalogue.adapters import shared
from tests.catalogue.bad import Bad


def told(place: str) -> None:
    """A path in the finished run's task specs, and no list of its files, so that it is not simply damaged."""
    file = Path("done/nlp_mtl.json")
    spec = json.loads(file.read_text(encoding="utf-8"))
    spec["tasks"][0]["dataset"]["options"] = {"encoding": place}
    file.write_text(json.dumps(spec), encoding="utf-8")
    Path("done/complete.json").unlink()


ENTRIES = [
    Bad(
        "a push to no repository's name",
        "push done 'my models' --dry-run",
        parameter="push: REPO",
        rule="is the id of a repository",
        found="found 'my models'",
        way_out="write name/repo",
    ),
    Bad(
        "a push of a task the run does not have, in no known form",
        "push done me/x --task moood --as modle --dry-run",
        parameter="push: --as",
        rule="is one of run, model, adapter, onnx",
        found="found 'modle'",
        way_out="did you mean 'model'?",
        also=("'moood' is not a task of this run; did you mean 'mood'?",),
    ),
    Bad(
        "a task without the form it leaves in",
        "push done me/x --task mood",
        parameter="push: --task",
        rule="goes with --as model, adapter or onnx",
        found="found --task mood alone",
        way_out="say one of them",
    ),
    Bad(
        "a branch and a pull request at once",
        "push done me/x --branch v2 --create-pr",
        parameter="push: --create-pr",
        rule="proposes a change of main",
        found="found --revision v2",
        way_out="leave one of them out",
    ),
    Bad(
        "a push of a run whose base came from a folder",
        "push done me/x --dry-run",
        parameter="push: the base model",
        rule="is recorded under its Hub id and revision",
        found="found 'base'",
        way_out="--base-model NAME/MODEL",
    ),
    Bad(
        "a folder as the base's Hub id",
        "push done me/x --dry-run --base-model ./base",
        parameter="push: --base-model",
        rule="is the id of a model on the Hub",
        found="found './base'",
        way_out="write name/model",
    ),
    Bad(
        "a task that names a place of this machine",
        "push done me/x --dry-run --base-model none",
        spoil=lambda: told("/mnt/data/mine"),
        parameter="nlp_mtl.json: `tasks.dataset.options.encoding`",
        rule="holds no local path",
        found="found '/mnt/data/mine'",
        way_out="change it in the task or run file",
    ),
    Bad(
        "a push without the Hub",
        lambda: mtl.push("done", "me/x", base_model="none", token="any"),
        error=HubError,
        parameter="push me/x:",
        rule="needs the Hub",
        found="HF_HUB_OFFLINE set",
        way_out="unset it",
    ),
    Bad(
        "a repository without the Hub",
        "predict you/repo 'A text.'",
        error=HubError,
        parameter="you/repo",
        rule="needs the Hub",
        found="no such folder here either",
        way_out="name a folder",
    ),
    Bad(
        "a private pull request",
        "push done me/x --create-pr --private --dry-run",
        parameter="push: --create-pr",
        rule="needs a repository that is there",
        found="found --private, for a new one",
        way_out="leave one out",
    ),
    Bad(
        "a form without its task",
        "push done me/x --as onnx --dry-run",
        parameter="push: --as onnx",
        rule="pushes one task",
        found="found none named",
        way_out="say --task with one of mood, alike",
    ),
    Bad(
        "a revision of no base",
        "push done me/x --dry-run --base-revision abc",
        parameter="push: --base-revision",
        rule="goes with --base-model",
        found="found 'abc' alone",
        way_out="name the model too",
    ),
    Bad(
        "a LoRA without its base",
        "push shared me/x --dry-run --base-model none",
        spoil=shared,
        parameter="push: --base-model none",
        rule="is for fully fine-tuned runs",
        found="found a LoRA",
        way_out="push a task with --as model",
    ),
    Bad(
        "an adapter pushed of a run without one",
        "push done me/x --task mood --as adapter --dry-run --base-model none",
        error=UnsupportedError,
        parameter="task 'mood'",
        rule="--as adapter writes a LoRA",
        found="this run trained none",
        way_out="say --as model",
    ),
    Bad(
        "a push of no run",
        "push data me/x --dry-run",
        error=RunFolderError,
        parameter="data",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are done",
    ),
    Bad(
        "a push of a damaged run",
        "push done me/x --dry-run --base-model none",
        spoil=lambda: Path("done/heads.safetensors").write_bytes(b"cut"),
        error=RunFolderError,
        parameter="heads.safetensors",
        rule="is not as it was written",
        found="done: damaged",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a revision of a repository without the Hub",
        "evaluate you/repo@v2",
        error=HubError,
        parameter="you/repo",
        rule="needs the Hub",
        found="no such folder here either",
        way_out="name a folder",
    ),
    Bad(
        "a revision of a folder that is here",
        "export done@v2 out --task mood",
        error=RunFolderError,
        parameter="done@v2",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are done",
    ),
    Bad(
        "adapters of a repository without the Hub",
        "adapters list you/repo",
        error=HubError,
        parameter="you/repo",
        rule="needs the Hub",
        found="no such folder here either",
        way_out="name a folder",
    ),
    Bad(
        "a run that is not there, in a folder that is",
        "predict data/repo 'A text.'",
        error=RunFolderError,
        parameter="data/repo",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="name a folder that nlp-mtl train wrote",
    ),
]
