"""The test Hub's HTTP side, on the standard library.

Large files travel by git LFS ("basic"), others as base64 inside the commit, as the Hub says in its answer to
``preupload``. The third way, Xet, can't be spoken here: its client is the compiled `hf_xet`, which cuts files into
chunks by content, packs them into a format of its own and needs a store of them (CAS) that no package brings.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hubserver.store import Blob, Refused, Repo, Store, User

NAME = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("POST", rf"/api/models/{NAME}/branch/(?P<rev>.+)", "branch"),
    ("GET", rf"/api/models/{NAME}/refs", "refs"),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/api/models/{NAME}/commit/(?P<rev>[^/]+)", "commit"),
    ("GET", rf"/api/models/{NAME}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"/api/models/{NAME}(?:/revision/(?P<rev>[^/]+))?", "info"),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})", "cdn"),
    ("HEAD", rf"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
    ("GET", rf"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
    ("HEAD", r"/", "home"),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        store, split = self.server.store, urlsplit(self.path)
        store.requests.append(f"{self.command} {unquote(split.path)}")
        self.query = {key: values[0] for key, values in parse_qs(split.query).items()}
        try:
            found = ((re.fullmatch(pattern, split.path), what) for way, pattern, what in ROUTES if way == self.command)
            match, what = next(((m, w) for m, w in found if m), (None, ""))
            if match is None:
                raise Refused(404, f"no such address: {self.command} {split.path}")
            if what == "upload":
                self.upload(match["oid"])
                return
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.keep(self.body)
            with store.lock:
                user = store.user(self.headers.get("Authorization"))
                named = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                getattr(self, what)(user, **named)
        except Refused as error:
            self.refuse(error)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def keep(self, body: bytes) -> None:
        """Everything that was sent, also what stands in it as base64."""
        store = self.server.store
        store.received += [f"{self.command} {self.path}\n{self.headers}".encode(), body]
        for name in (b"content", b"sample"):
            for found in re.findall(rb'"%s": ?"([A-Za-z0-9+/=]*)"' % name, body):
                store.received.append(base64.b64decode(found))

    def answer(self, said: Any, status: int = 200, **headers: str) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, error: Refused) -> None:
        headers = {"X-Error-Message": error.message, **({"X-Error-Code": error.code} if error.code else {})}
        if not hasattr(self, "body"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer({"error": error.message}, error.status, **headers)

    @property
    def own(self) -> str:
        return self.server.endpoint

    # ------------------------------------------------------------------------------------------------ answers

    def home(self, user: User | None) -> None:
        self.answer({})

    def whoami(self, user: User | None) -> None:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        self.answer({"type": "user", "name": user.name, "auth": {"accessToken": {"role": "write"}}})

    def validate(self, user: User | None) -> None:
        said = json.loads(self.body)["content"]
        parts = re.match(r"---\n(.*?)\n---", said, re.S)
        errors = []
        try:
            data = yaml.safe_load(parts[1]) if parts else {}
            if not isinstance(data, dict):
                errors.append({"message": "the metadata are no mapping"})
            for model in data.get("model-index", []):
                for result in model["results"]:
                    assert result["task"]["type"] and result["dataset"]["name"] and result["dataset"]["type"]
                    assert all(metric["type"] and metric["value"] is not None for metric in result["metrics"])
        except (yaml.YAMLError, KeyError, AssertionError, TypeError) as error:
            errors.append({"message": f"the metadata are wrong: {error!r}"})
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self, user: User | None) -> None:
        self.answer({"url": f"{self.own}/{self.server.store.create(json.loads(self.body), user).id}"})

    def delete(self, user: User | None) -> None:
        body = json.loads(self.body)
        repo = self.server.store.repo(f"{body.get('organization') or user.name}/{body['name']}", user, write=True)
        del self.server.store.repos[repo.id]
        self.answer({})

    def branch(self, user: User | None, repo: str, rev: str) -> None:
        held = self.server.store.repo(repo, user, write=True)
        if rev in held.refs:
            raise Refused(409, "Reference already exists")
        said = json.loads(self.body or b"{}")
        held.refs[rev] = held.commit_of(said.get("startingPoint", "main"))
        self.answer({})

    def refs(self, user: User | None, repo: str) -> None:
        held = self.server.store.repo(repo, user)
        found = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": s} for r, s in held.refs.items() if "/" not in r]
        self.answer({"branches": found, "tags": [], "converts": []})

    def preupload(self, user: User | None, repo: str, rev: str) -> None:
        store = self.server.store
        held = store.repo(repo, user, write="create_pr" not in self.query)
        files = held.commits[held.commit_of(rev)]
        asked = [file["path"] for file in json.loads(self.body)["files"]]
        said = [
            {"path": p, "uploadMode": store.upload_mode(p), "shouldIgnore": False, "oid": self.known(files.get(p))}
            for p in asked
        ]
        self.answer({"files": said})

    @staticmethod
    def known(blob: Blob | None) -> str | None:
        return None if blob is None else blob.sha256 if blob.lfs else blob.oid

    def batch(self, user: User | None, repo: str) -> None:
        store = self.server.store
        store.repo(repo, user)
        objects = []
        for one in json.loads(self.body)["objects"]:
            action = {"actions": {"upload": {"href": f"{self.own}/lfs/{one['oid']}"}}}
            objects.append({**one, **({} if one["oid"] in store.large else action)})
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        """A large file; the address alone gives the right to send it, as with the Hub's storage."""
        store, size = self.server.store, int(self.headers["Content-Length"])
        with store.lock:
            cut = store.cuts > 0
            store.cuts -= cut
        data = self.rfile.read(size // 2 if cut else size)
        self.body = data
        self.keep(data)
        if cut:
            self.close_connection = True
            self.connection.close()
            return
        if Blob(data, True).sha256 != oid:
            raise Refused(400, "the content is not what its name says")
        store.large[oid] = data
        self.answer(b"")

    def commit(self, user: User | None, repo: str, rev: str) -> None:
        store = self.server.store
        asked = "create_pr" in self.query
        held = store.repo(repo, user, write=not asked)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        lines = [json.loads(line) for line in self.body.splitlines()]
        sha, number = store.commit(held, rev, lines, pull_request=asked)
        said: dict[str, Any] = {"success": True, "commitOid": sha, "commitUrl": f"{self.own}/{repo}/commit/{sha}"}
        if asked:
            said["pullRequestUrl"] = f"{self.own}/{repo}/discussions/{number}"
        self.answer(said)

    def info(self, user: User | None, repo: str, rev: str = "main") -> None:
        held = self.server.store.repo(repo, user)
        sha = held.commit_of(rev)
        files = [{"rfilename": path} for path in held.commits[sha]]
        self.answer({"_id": "1", "id": repo, "sha": sha, "private": held.private, "siblings": files, "tags": []})

    def tree(self, user: User | None, repo: str, rev: str, path: str = "") -> None:
        held = self.server.store.repo(repo, user)
        files = held.commits[held.commit_of(rev)]
        inside = {name: blob for name, blob in files.items() if not path or name.startswith(f"{path}/")}
        if path and not inside:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        said: list[dict[str, Any]] = []
        for name, blob in inside.items():
            rest = name[len(path) + 1 if path else 0 :]
            if "/" in rest and self.query.get("recursive", "false").lower() != "true":
                folder = name[: len(name) - len(rest)] + rest.split("/")[0]
                if all(one["path"] != folder for one in said):
                    said.append({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
                continue
            one: dict[str, Any] = {"type": "file", "path": name, "oid": blob.oid, "size": len(blob.data)}
            if blob.lfs:
                one["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 134}
            said.append(one)
        self.answer(said)

    def resolve(self, user: User | None, repo: str, rev: str, path: str) -> None:
        held = self.server.store.repo(repo, user)
        sha = held.commit_of(rev)
        blob = held.commits[sha].get(path)
        if blob is None:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.oid}"'}
        if blob.lfs:
            more = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
            self.answer(b"", 302, Location=f"{self.server.elsewhere}/cdn/{blob.sha256}", **headers, **more)
        else:
            self.answer(blob.data, **headers)

    def cdn(self, user: User | None, oid: str) -> None:
        held = (blob for repo in self.server.store.repos.values() for c in repo.commits.values() for blob in c.values())
        self.answer(next(blob.data for blob in held if blob.lfs and blob.sha256 == oid))


class HubServer(ThreadingHTTPServer):
    """A Hub on a free port of loopback; ``with HubServer() as hub: hub.endpoint``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = Store()
        self.connections: set[socket.socket] = set()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.elsewhere = f"http://localhost:{self.server_address[1]}"  # large files come from another host

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody answers at this address for a while."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()
        try:
            yield
        finally:
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind()
            self.server_activate()
            self.__enter__()

    def repo(self, name: str) -> Repo:
        return self.store.repos[name]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repo(name)
        return {path: blob.data for path, blob in repo.commits[repo.commit_of(revision)].items()}
