"""A real server in a thread or a process, and a plain HTTP client, for the tests of serving."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from nlp_mtl.serving.answering import Answerer
from nlp_mtl.serving.limits import Limits


def ask(
    address: str, body: Any, *, raw: bytes | None = None, path: str = "/predict", **headers: str
) -> tuple[int, Any]:
    """Status and JSON of one POST on a connection of its own."""
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        sent = json.dumps(body).encode() if raw is None else raw
        connection.request("POST", path, sent, {"Content-Type": "application/json", **headers})
        said = connection.getresponse()
        return said.status, json.loads(said.read())
    finally:
        connection.close()


def get(address: str, path: str) -> tuple[int, str, str]:
    """Status, content type and text of one GET."""
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", path)
        said = connection.getresponse()
        return said.status, said.headers["content-type"], said.read().decode()
    finally:
        connection.close()


def ask_all(address: str, bodies: list[Any], clients: int = 16) -> list[tuple[int, Any]]:
    """Many requests at the same time, answers in their order."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda body: ask(address, body), bodies))


class Watched(Answerer):
    """An answerer that notes how many questions each pass held, and waits before it answers if told to."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.passes: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, questions: Any) -> Any:
        """As ever, behind a door."""
        self.open.wait(20)
        self.passes.append(len(questions))
        return super().__call__(questions)


@contextmanager
def running(answerer: Answerer, **limits: Any) -> Any:
    """Uvicorn in a thread on a free port; gives the address."""
    import uvicorn

    from nlp_mtl.serving.app import make_app
    from nlp_mtl.serving.server import address_of, listen, stopping

    app = make_app(answerer, Limits(**limits))
    place = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_config=None, log_level="critical", access_log=False, ws="none", lifespan="on")
    server = stopping(uvicorn.Server)(config, app.state.batcher, None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield address_of(place)
    finally:
        server.handle_exit(0, None)
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


def close(one: Any, other: Any) -> bool:
    """Equal but for the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2e-5
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(close(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


def main() -> None:
    """Serve a folder with answers that take a while, until a signal."""
    from nlp_mtl.serving import server

    class Slow(Answerer):
        def __call__(self, questions: Any) -> Any:
            time.sleep(float(sys.argv[2]))
            return super().__call__(questions)

    server.Answerer = Slow  # type: ignore[misc]
    server.serve(sys.argv[1], port=0, limits=Limits(max_batch=1), ready=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main()
