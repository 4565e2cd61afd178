"""A configuration of the Parquet branch: fetched from a server that talks as the Hub does, then from the cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "me/mail"

READ = """
import json
from nlp_mtl import reading
from nlp_mtl.errors import NlpMtlError
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task

def rows(name):
    task = Task(name="mail", head="sequence_classification", inputs=["text"], target="label",
                dataset={"path": "me/mail", "name": name, "revision": "refs/convert/parquet"})
    try:
        return {split: part["text"][:] for split, part in load_rows(task).items()}
    except NlpMtlError as error:
        return str(error)

found = {name: rows(name) for name in ("de", "en", "fr")}
with reading.offline():
    print(json.dumps({**found, "again": rows("en")}))
"""


@pytest.fixture
def files(tmp_path):
    """Path in the branch → bytes: two configurations, and an index that is none of our business."""
    from datasets import Dataset

    made = {}
    for config, texts in {"de": ["gut", "schlecht"], "en": ["good", "bad", "ugly"]}.items():
        for split in ("train", "test"):
            file = tmp_path / f"{config}-{split}.parquet"
            Dataset.from_dict({"text": texts, "label": ["a"] * len(texts)}).to_parquet(file)
            made[f"{config}/{split}/0000.parquet"] = file.read_bytes()
        made[f"{config}/train/index.duckdb"] = b"not a table"
    return made


@pytest.fixture
def hub(files):
    """A server with as much of the Hub as a download of files needs; gives its address and the paths asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body: bytes, **headers):
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def missing(self, code):
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            if path == f"/api/datasets/{REPO}/revision/refs/convert/parquet":
                found = {"id": REPO, "sha": SHA, "private": False, "tags": [], "downloads": 0, "likes": 0}
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({**found, "siblings": siblings}).encode(), Content_Type="application/json")
            elif path == f"/api/datasets/{REPO}/tree/{SHA}":
                tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]
                self.answer(json.dumps(tree).encode(), Content_Type="application/json")
            elif path.startswith(f"/datasets/{REPO}/resolve/{SHA}/"):
                body = files.get(path.split(SHA + "/", 1)[1])
                if body is None:
                    self.missing("EntryNotFound")
                else:
                    etag = f'"{hashlib.sha1(body).hexdigest()}"'
                    self.answer(body, X_Repo_Commit=SHA, ETag=etag)
            elif path == "/":
                self.answer(b"")
            else:
                self.missing("RepoNotFound")

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_one_configuration_is_fetched_alone_and_kept(hub, tmp_path):
    address, asked = hub
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "NLP_MTL_", "http_proxy", "HTTP_PROXY"))}
    said = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    said |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", READ], env={**kept, **said}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["de"] == {"train": ["gut", "schlecht"], "test": ["gut", "schlecht"]}
    assert found["en"]["train"] == ["good", "bad", "ugly"], "and nothing of the other configuration"
    assert "me/mail has no folder 'fr' at refs/convert/parquet" in found["fr"]
    assert found["again"] == found["en"], "the second time from the cache, without asking the Hub"
    assert not [path for path in asked if path.endswith(".duckdb")]
