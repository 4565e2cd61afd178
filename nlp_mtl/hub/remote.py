"""One commit to a repository of the Hub: all of it, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.errors import ConfigError, NlpMtlError
from nlp_mtl.pulling import hub_error

# what a push of ours writes at the root; a newer push takes away what it does not write itself
_OURS = re.compile(
    r"nlp_mtl\.json|metrics\.json|task\.json|tasks\.json|config\.json|model[\w.-]*\.(safetensors|json|onnx)|"
    r"adapter_(config\.json|model\.safetensors)|(heads|sharing)\.safetensors|"
    r"(tokenizer(_config)?|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt|chat_template\.jinja|"
    r"vllm/adapter_(config\.json|model\.safetensors)"
)
_ALWAYS = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICEN[CS]E.*")


def whoami(api: Any, doing: str) -> str:
    """The name behind the token.

    Raises:
        HubError: no token, or a wrong one.
    """
    try:
        return str(api.whoami()["name"])
    except Exception as error:
        raise hub_error(error, doing, "") from error


def revision_of(api: Any, doing: str, model: str, revision: str | None, sha256: str | None) -> str:
    """The commit of a pretrained model on the Hub, after comparing its weights with those that were trained on.

    Raises:
        HubError: it is not there.
        ConfigError: it has other weights.
    """
    try:
        commit = str(api.model_info(model, revision=revision).sha)
        files = [part for part in api.list_repo_tree(model, revision=commit) if part.path.endswith(".safetensors")]
    except Exception as error:
        raise hub_error(error, f"{doing}: --base-model {model}", model, revision=revision) from error
    if not files:
        raise ConfigError(f"push: --base-model has weights in safetensors format, found none in {model}; name another")
    known = [part.lfs.sha256 for part in files if part.lfs is not None]
    if sha256 is not None and len(files) == len(known) == 1 and known[0] != sha256:
        raise ConfigError(
            f"push: --base-model is what was trained on (weights with sha256 {sha256[:12]}…), found {model} with "
            f"{known[0][:12]}…; name the right one, or the right --base-revision"
        )
    return commit


def target(api: Any, doing: str, repo: str, *, private: bool | None, revision: str | None, create_pr: bool) -> Any:
    """The repository and its files on the revision that is pushed to; made if it is not there.

    Args:
        api: a `huggingface_hub.HfApi`.
        doing: what is tried, for messages.
        repo: its id.
        private: whether a new one is.
        revision: a branch, made from main if it is not there.
        create_pr: a pull request is made, so nothing has to be ours.

    Returns:
        The commit to build upon, and the paths there.

    Raises:
        HubError: no permission, no network, …
        ConfigError: the repository holds something else, or is open where it should be private.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            if create_pr:
                raise
            api.create_repo(repo, private=private, exist_ok=True)
            info = api.model_info(repo)
        if private and not info.private:
            raise ConfigError(
                f"push: --private makes a new repository private, found {repo}, which anybody can read; change that in "
                "its settings first, or name another"
            )
        if revision not in (None, "main"):
            try:
                info = api.model_info(repo, revision=revision)
            except RevisionNotFoundError:
                if re.fullmatch(r"[0-9a-f]{40}|refs/.*", str(revision)):
                    raise
                api.create_branch(repo, branch=revision, exist_ok=True)
                info = api.model_info(repo, revision=revision)
        files = [part.rfilename for part in info.siblings or []]
        if not create_pr:
            _check_ours(api, repo, info.sha, files)
    except NlpMtlError:
        raise
    except Exception as error:
        raise hub_error(error, doing, repo, revision=revision) from error
    return info.sha, files


def _check_ours(api: Any, repo: str, commit: str, files: Sequence[str]) -> None:
    """Refuse a repository with something that no push of ours wrote."""
    from huggingface_hub import ModelCard

    others = sorted(name for name in files if not _ALWAYS.fullmatch(name))
    if not others or checkpoint.SPEC in files:
        return
    if "README.md" in files:
        text = Path(api.hf_hub_download(repo, "README.md", revision=commit)).read_text(encoding="utf-8")
        if "nlp-mtl" in (ModelCard(text, ignore_metadata_errors=True).data.get("tags") or []):
            return
    raise ConfigError(
        f"push: REPO is new, or what nlp_mtl pushed before, found {repo} with {', '.join(others[:4])}"
        f"{', …' if len(others) > 4 else ''}; name another repository, or propose the change with --create-pr "
        "(create_pr=True)"
    )


def outdated(files: Sequence[str], new: Mapping[str, Any]) -> list[str]:
    """What an earlier push of ours left and this one does not write; a user's own files stay.

    Example:
        >>> outdated(["README.md", "plot.png", "heads.safetensors", "rte/task.json", "rte/adapter_config.json"], {})
        ['heads.safetensors', 'rte/task.json', 'rte/adapter_config.json']
    """
    tasks = {name.split("/")[0] for name in files if re.fullmatch(r"[^/]+/task\.json", name)}
    return [
        name
        for name in files
        if name not in new and (_OURS.fullmatch(name) or ("/" in name and name.split("/")[0] in tasks))
    ]


def commit(
    api: Any,
    doing: str,
    repo: str,
    folder: Path,
    message: str,
    *,
    at: tuple[str, Sequence[str]],
    revision: str | None = None,
    create_pr: bool = False,
    under: str = "",
) -> Any:
    """Put a folder's files into a repository, by one commit.

    Args:
        api: a `huggingface_hub.HfApi`.
        doing: what is tried, for messages.
        repo: its id.
        folder: the files.
        message: of the commit.
        at: the commit to build upon and its files; see :func:`target`.
        revision: a branch.
        create_pr: propose it.
        under: a folder of the repository; then nothing is taken away.

    Raises:
        HubError: nothing was changed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    files = {
        f"{under}{part.relative_to(folder).as_posix()}": part for part in sorted(folder.rglob("*")) if part.is_file()
    }
    steps: list[Any] = [CommitOperationAdd(name, part) for name, part in files.items()]
    if not under:
        steps += [CommitOperationDelete(name) for name in outdated(at[1], files)]
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return api.create_commit(
            repo,
            steps,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=None if create_pr or under else at[0],
        )
    except Exception as error:
        whole = f"nothing in {repo} was changed; run the same command again, which sends only what is missing"
        found = hub_error(error, doing, repo, revision=revision, whole=whole)
        raise found from error
    finally:
        if not quiet:
            enable_progress_bars()
