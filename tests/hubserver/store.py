"""What the test Hub holds: users by token, repositories with branches and pull requests, large files by sha256."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any


class Refused(Exception):
    """An answer that is an error: status, the Hub's error code and message."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class User:
    name: str
    writes: bool = True


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """As git names a file's content; of a large file, its pointer."""
        held = self.data
        if self.lfs:
            size = len(self.data)
            held = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()


@dataclass
class Repo:
    id: str
    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: int = 0

    def add(self, ref: str, files: dict[str, Blob], message: str) -> str:
        """A commit on a branch or pull request; all of it or nothing."""
        said = json.dumps([self.refs.get(ref), message, sorted((path, blob.oid) for path, blob in files.items())])
        sha = hashlib.sha1(said.encode()).hexdigest()
        self.commits[sha], self.messages[sha] = dict(files), message
        self.refs[ref] = sha
        return sha

    def commit_of(self, revision: str) -> str:
        if revision in self.refs:
            return self.refs[revision]
        if revision in self.commits:
            return revision
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class Store:
    """The state behind the server, and what it was sent."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.received: list[bytes] = []  # every request as it came, and what was encoded in it
        self.requests: list[str] = []
        self.cuts = 0  # so many uploads of large files are cut off in the middle
        self.mode: str | None = None  # how all files are to be sent, "regular" or "lfs"; else by their names
        self.lock = threading.RLock()

    def user(self, authorization: str | None) -> User | None:
        if not authorization:
            return None
        token = authorization.removeprefix("Bearer ")
        if token not in self.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def repo(self, name: str, user: User | None, *, write: bool = False) -> Repo:
        """The repository, if it is there and the user may; one that may not be read looks as if it were not there."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and (user is None or user.name != name.split("/")[0])):
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.may_write(name.split("/")[0], user)
        return repo

    def may_write(self, namespace: str, user: User | None) -> None:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user.writes or user.name != namespace:
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')

    def create(self, body: dict[str, Any], user: User | None) -> Repo:
        namespace = body.get("organization") or (user.name if user else "")
        self.may_write(namespace, user)
        name = f"{namespace}/{body['name']}"
        if name in self.repos:
            raise Refused(409, "You already created this model repo")
        self.repos[name] = repo = Repo(name, body.get("visibility") == "private")
        repo.add(
            "main", {".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)}, "initial"
        )
        return repo

    def upload_mode(self, path: str) -> str:
        return self.mode or ("lfs" if path.endswith((".safetensors", ".onnx", ".pt", ".pth", ".bin")) else "regular")

    def commit(self, repo: Repo, revision: str, lines: list[dict[str, Any]], *, pull_request: bool) -> tuple[str, int]:
        """Apply a commit's lines to a copy of the files, then let the branch point to it."""
        head = lines[0]["value"]
        start = repo.commit_of(revision)
        if head.get("parentCommit") not in (None, start):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[start])
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            path = value["path"]
            if kind == "file":
                files[path] = Blob(base64.b64decode(value["content"]), False)
            elif kind == "lfsFile":
                data = self.large.get(value["oid"])
                if data is None or len(data) != value["size"]:
                    raise Refused(400, f"LFS pointer pointed to a file that does not exist: {path}")
                files[path] = Blob(data, True)
            elif kind == "deletedFile":
                if path not in files:
                    raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                del files[path]
            else:
                raise Refused(400, f"unknown operation {kind}")
        ref, number = revision, 0
        if pull_request:
            repo.pull_requests += 1
            number = repo.pull_requests
            ref = f"refs/pr/{number}"
        return repo.add(ref, files, head["summary"]), number
