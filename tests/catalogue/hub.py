"""Pushes and repositories that can't be: all of it found before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import nlp_mtl as mtl
from nlp_mtl.errors import HubError, RunFolderError
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
        "a run that is not there, in a folder that is",
        "predict data/repo 'A text.'",
        error=RunFolderError,
        parameter="data/repo",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="name a folder that nlp-mtl train wrote",
    ),
]
