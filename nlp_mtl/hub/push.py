"""From a run to a repository of the Hub, by one commit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nlp_mtl.card import needs_base
from nlp_mtl.errors import ConfigError, UnsupportedError, shown, suggestion
from nlp_mtl.hub import remote
from nlp_mtl.hub.facts import facts_of
from nlp_mtl.hub.leaving import NONE, base_for_hub, check_leaving, recorded_as
from nlp_mtl.hub.staging import stage_export, stage_run
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.pulling import last_stage
from nlp_mtl.runspec import read_spec

As = Literal["run", "model", "adapter", "onnx"]
FORMS = ("run", "model", "adapter", "onnx")


@dataclass(frozen=True)
class Pushed:
    """What a push did, or, with ``dry_run``, would do.

    Attributes:
        repo: the repository's id.
        files: bytes of each file that the revision holds afterwards, of those that this push wrote.
        url: of the commit; empty in a dry run.
        commit: its hash; empty in a dry run.
        pull_request: the address of the pull request, if one was asked for.
        changed: False where the repository held all of it already.
        notes: what a user should know, one sentence each.
    """

    repo: str
    files: Mapping[str, int]
    url: str = ""
    commit: str = ""
    pull_request: str | None = None
    changed: bool = True
    notes: Sequence[str] = field(default_factory=tuple)


def push(
    run_or_model: str | Path | MultiTaskModel,
    repo_id: str,
    task: str | None = None,
    *,
    as_: As = "run",
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
    base_model: str | None = None,
    base_revision: str | None = None,
    base: str | Path | None = None,
    license: str | None = None,
) -> Pushed:
    """Put a run, or one task of it, into a repository of the Hub, with a card written from the run.

    Only what this function writes leaves: weights, heads, tokenizer, specs without example rows and without the places
    of local files, scores, a card. Checkpoints, optimizer states, logs, the run file, predictions and data stay. A LoRA
    run's tasks each lie in ``<task>/`` too, as PEFT adapters with their heads, compared with the run's logits.

    Args:
        run_or_model: a run folder or checkpoint, or a model.
        repo_id: ``"me/repo"``, made if it is not there; without a name in front, yours.
        task: with `as_` model, adapter or onnx, the task.
        as_: ``run``, which :meth:`MultiTaskModel.from_pretrained` reads back; or one task for use without this package,
            see :func:`nlp_mtl.export_task`.
        private: whether a new repository is.
        revision: a branch, made from main if it is not there.
        create_pr: open a pull request instead of changing main.
        commit_message: default says what was pushed.
        token: of the Hub; default the one that is logged in, or HF_TOKEN.
        dry_run: say what would be pushed, and ask no network.
        base_model: the pretrained model's Hub id, where the run was trained from a folder; its weights there are
            compared. ``"none"`` for a fully fine-tuned model whose start is on no Hub.
        base_revision: the commit of `base_model`; default the newest.
        base: where the pretrained model is here; see :meth:`MultiTaskModel.from_pretrained`.
        license: of the model, as the Hub names it, for the card.

    Raises:
        ConfigError: arguments that are wrong; a base without a Hub id; local paths in what would leave; a repository
            that holds something else.
        HubError: no token or a wrong one, no permission, no network, no such revision; nothing was changed.
        RunFolderError, UnsupportedError: see :meth:`MultiTaskModel.from_pretrained` and :func:`nlp_mtl.export_task`.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> done = push(tiny_model(["rte", "conll2003"]), "me/two-tasks", dry_run=True, base_model="none")
        >>> sorted(done.files)[:4]
        ['README.md', 'config.json', 'heads.safetensors', 'model.safetensors']
    """
    own = run_or_model if isinstance(run_or_model, MultiTaskModel) else None
    source = None if isinstance(run_or_model, MultiTaskModel) else last_stage(Path(run_or_model))
    spec = own.spec() if own is not None else read_spec(source)  # type: ignore[arg-type]
    _check(spec, repo_id, task, as_, private, revision, create_pr)
    if spec["base"].get("own") and as_ in ("run", "adapter"):
        raise UnsupportedError(
            f"push: --as {as_} pushes a LoRA and names the pretrained model that it stands on, found a run whose LoRA "
            "stands on an encoder with earlier ones merged in (init_from, `merge`); push single tasks, --as model"
        )
    lora = needs_base(spec)
    record = base_for_hub(spec["base"], base_model, base_revision, adapter=lora and as_ in ("run", "adapter"))
    doing, api = f"push {repo_id}", None
    if not dry_run:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        name = remote.whoami(api, doing)
        repo_id = repo_id if "/" in repo_id else f"{name}/{repo_id}"
        if base_model not in (None, NONE):
            sha256 = None if spec["base"].get("own") else spec["base"].get("sha256")
            record["revision"] = remote.revision_of(api, doing, str(base_model), base_revision, sha256)
    model = own if own is not None else MultiTaskModel.from_pretrained(source, base=base)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="nlp-mtl-push-") as work:
        folder = Path(work) / "repo"
        facts = facts_of(source)
        with recorded_as(model, record):
            if as_ == "run":
                folder.mkdir()
                notes = stage_run(model, folder, repo_id, facts, source=source, license_=license)
            else:
                notes = stage_export(model, str(task), as_, folder, repo_id, facts, source=source, license_=license)
        check_leaving(folder, own=[place for place in (source, Path(work)) if place is not None])
        files = {
            part.relative_to(folder).as_posix(): part.stat().st_size for part in folder.rglob("*") if part.is_file()
        }
        files = dict(sorted(files.items()))
        if api is None:
            if base_model not in (None, NONE):
                notes = [*notes, f"{base_model} was not compared with what was trained on: a dry run asks no network"]
            return Pushed(repo_id, files, notes=tuple(notes))
        at = remote.target(api, doing, repo_id, private=private, revision=revision, create_pr=create_pr)
        message = commit_message or _message(model.tasks, task, as_)
        done = remote.commit(api, doing, repo_id, folder, message, at=at, revision=revision, create_pr=create_pr)
    return Pushed(repo_id, files, done.commit_url, done.oid, done.pr_url, done.oid != at[0], tuple(notes))


def _message(tasks: Sequence[str], task: str | None, form: str) -> str:
    if task is not None:
        return f"{task} as {form}, by nlp_mtl"
    return f"{len(tasks)} tasks by nlp_mtl: {', '.join(tasks[:6])}{', …' if len(tasks) > 6 else ''}"


def _check(
    spec: Mapping[str, Any],
    repo: str,
    task: str | None,
    form: str,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
) -> None:
    """Refuse wrong arguments, all at once."""
    wrong = []
    named = isinstance(repo, str) and re.fullmatch(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}", repo)
    if not named or "--" in repo or ".." in repo or repo.endswith((".git", ".", "-")):
        wrong.append(f"push: REPO is the id of a repository, found {shown(repo)}; write name/repo")
    known = [item["name"] for item in spec["tasks"]]
    if form not in FORMS:
        wrong.append(f"push: --as is one of {', '.join(FORMS)}, found {form!r}{suggestion(str(form), FORMS)}")
    elif task is not None and form == "run":
        wrong.append(f"push: --task goes with --as model, adapter or onnx, found --task {task} alone; say one of them")
    elif task is None and form != "run":
        wrong.append(f"push: --as {form} pushes one task, found none named; say --task with one of {', '.join(known)}")
    if task is not None and task not in known:
        wrong.append(f"push: {task!r} is not a task of this run{suggestion(task, known)}")
    if create_pr and revision is not None:
        wrong.append(f"push: --create-pr proposes a change of main, found --revision {revision}; leave one of them out")
    if create_pr and private:
        wrong.append(
            "push: --create-pr needs a repository that is there, found --private, for a new one; leave one out"
        )
    if wrong:
        raise ConfigError(wrong)
