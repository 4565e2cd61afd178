"""Run folders by name: a folder here, or a repository of the Hub; and what the Hub says, in our words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.errors import HubError, NlpMtlError, RunFolderError, shown
from nlp_mtl.paths import no_name
from nlp_mtl.reading import short
from nlp_mtl.runspec import runs_near

_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^@\s]+))?")
# what a run is loaded from; a repository's sub-folders hold single tasks, for use without this package
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
INSIDE = ["[!_]*/*"]  # folders of single tasks; those of decoders begin with _


def hub_name(name: str | Path) -> tuple[str, str | None] | None:
    """The repository and revision that a name can mean, if it is none of a place here.

    A folder that is there, an absolute path, and a path whose first part is a folder here are never looked for on the
    Hub.

    Example:
        >>> hub_name("me/repo"), hub_name("me/repo@v1"), hub_name("/runs/mine"), hub_name("mine")
        (('me/repo', None), ('me/repo', 'v1'), None, None)
    """
    said = _ID.fullmatch(str(name))
    if said is None or no_name(name) or Path(name).exists() or Path(str(name).split("/")[0]).is_dir():
        return None
    return said["id"], said["revision"]


def local_folder(name: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The run folder of this name: itself, or a repository of the Hub, fetched into the Hub's cache.

    Args:
        name: a folder, or ``"me/repo"``, ``"me/repo@revision"``.
        revision: branch, tag or commit of the repository.
        token: for a repository that is not public.

    Raises:
        HubError: the Hub can't be reached, or has no such repository or revision.
        RunFolderError: the repository holds no run.
    """
    found = hub_name(name)
    if found is None:
        if revision is not None:
            raise RunFolderError(
                f"revision: goes with a repository of the Hub, found {revision!r} with the folder {shown(str(name))}; "
                "leave it out"
            )
        return last_stage(Path(name))
    repo, said = found
    if said is not None and revision is not None and said != revision:
        raise RunFolderError(f"revision: is said once, found {said!r} in {str(name)!r} and {revision!r}; leave one out")
    return _fetched(repo, revision or said, token)


def last_stage(folder: Path) -> Path:
    """Of a run in stages the folder of the last one, if that has come so far; else the folder itself."""
    stages = checkpoint.stage_folders(folder) if not (folder / checkpoint.SPEC).is_file() else []
    if not stages:
        return folder
    last = stages[-1]
    if not (last / checkpoint.SPEC).is_file() and (each := sorted(last.glob(f"*/{checkpoint.SPEC}"))):
        raise RunFolderError(
            f"{folder}: a run whose last stage trains each task by itself, which is no one model; name one of "
            f"{', '.join(str(file.parent) for file in each[:4])}"
        )
    return last


def _fetched(repo: str, revision: str | None, token: str | bool | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = are_progress_bars_disabled()
    disable_progress_bars()  # one for every file
    try:
        folder = Path(
            snapshot_download(repo, revision=revision, token=token, allow_patterns=FILES, ignore_patterns=INSIDE)
        )
    except Exception as error:  # whatever the Hub, its client and the network raise
        raise hub_error(error, f"fetch {repo}", repo, revision=revision, folder=True) from error
    finally:
        if not quiet:
            enable_progress_bars()
    if not (folder / checkpoint.SPEC).is_file():
        raise RunFolderError(
            f"{repo}: not a run folder ({checkpoint.SPEC} is missing on the Hub); a single task that was pushed or "
            "exported is loaded as its README.md says, a pretrained model is named in `model:`"
        )
    return folder


def hub_error(
    error: BaseException,
    doing: str,
    repo: str,
    *,
    revision: str | None = None,
    whole: str = "",
    folder: bool = False,
) -> NlpMtlError:
    """An error of the Hub, its client or the network as one of ours; what is none of theirs is raised as it is.

    Args:
        error: what was raised.
        doing: what was tried.
        repo: the repository.
        revision: the revision that was asked for.
        whole: what is whole in spite of it, as the end of the message.
        folder: whether `repo` could have meant a folder here.
    """
    from huggingface_hub import constants
    from huggingface_hub import errors as theirs

    end = f"; {whole}" if whole else ""
    near = f"; there is no such folder here either: {runs_near(Path())}" if folder else ""
    cause: Any = error
    while isinstance(cause, RuntimeError) and cause.__cause__ is not None:  # of one file among several
        cause = cause.__cause__
    if isinstance(error, theirs.LocalEntryNotFoundError) and isinstance(error.__cause__, OSError):
        cause = error.__cause__
    if isinstance(cause, NlpMtlError):
        return cause
    if isinstance(cause, theirs.LocalTokenNotFoundError):
        return HubError(
            f"{doing}: `token` is one of the Hub with write access, found none; run `hf auth login`, set HF_TOKEN, or "
            f"give token={end}"
        )
    if isinstance(cause, theirs.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return HubError(f"{doing}: needs the Hub, found HF_HUB_OFFLINE set; unset it, or name a folder{near}{end}")
    if isinstance(cause, theirs.HFValidationError):
        return HubError(f"{doing}: a repository is called `name/repo`, found {repo!r} ({short(cause)}); name another")
    if isinstance(cause, theirs.RevisionNotFoundError):
        return HubError(
            f"{doing}: `revision` is a branch, tag or commit of {repo}, found {revision!r}; name one that is there, or "
            f"leave it out for main{end}"
        )
    if isinstance(cause, theirs.GatedRepoError):
        return HubError(f"{doing}: {repo} is open to those whom its owner lets in; ask on its page{end}")
    status = getattr(getattr(cause, "response", None), "status_code", None)
    said = _said(cause)
    if (status == 401 and "credentials" in said.lower()) or (status == 401 and "invalid" in said.lower()):
        return HubError(
            f"{doing}: `token` is one that the Hub knows, found one that it refuses (401); make one with write access "
            f"at {constants.ENDPOINT}/settings/tokens, then `hf auth login`, HF_TOKEN or token={end}"
        )
    if isinstance(cause, theirs.RepositoryNotFoundError) or status == 401:
        return HubError(
            f"{doing}: the Hub has no repository {repo!r}, or it is private and the token may not read it; check the "
            f"name, or log in (`hf auth login`, HF_TOKEN, token=){near}{end}"
        )
    if status == 403:
        return HubError(
            f"{doing}: the token may not write to {repo} (403: {said}); name a repository of your own, take a token "
            f"with write access, or propose the change with create_pr (--create-pr){end}"
        )
    if status == 412:
        return HubError(f"{doing}: somebody else changed {repo} in the meantime; run the command again{end}")
    if status == 429:
        return HubError(f"{doing}: the Hub answers no more for now (429: {said}); wait some minutes{end}")
    if status is not None:
        return HubError(f"{doing}: the Hub refused ({status}: {said}); run the command again, or change that{end}")
    network: Any = theirs.HfHubHTTPError.__mro__[1]  # the HTTP library's own; which one it is has changed
    if isinstance(cause, (network, ConnectionError, TimeoutError, theirs.LocalEntryNotFoundError)):
        return HubError(
            f"{doing}: the Hub at {constants.ENDPOINT} can't be reached, or the connection broke "
            f"({type(cause).__name__}: {short(cause)}); check the network (HF_ENDPOINT names another Hub), then run "
            f"the command again{near}{end}"
        )
    raise error


def _said(error: BaseException) -> str:
    """What the server said, on one line, else what its client makes of it."""
    response = getattr(error, "response", None)
    said = response.headers.get("X-Error-Message") if response is not None else None
    return said or short(error)
