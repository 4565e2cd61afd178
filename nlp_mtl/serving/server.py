"""A server on a port, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, pip_install, shown
from nlp_mtl.pulling import local_folder
from nlp_mtl.runspec import read_spec, unknown_tasks
from nlp_mtl.serving.answering import Answerer
from nlp_mtl.serving.app import make_app
from nlp_mtl.serving.limits import Limits
from nlp_mtl.settings import checked_dtype

GRACE = 30  # seconds that a stop waits for answers to be sent


def serve(
    run: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    dtype: str = "auto",
    base: str | Path | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Answer requests over HTTP until SIGTERM or Ctrl-C.

    Then what was accepted is answered, new requests are refused with status 503, and the port is closed. A second
    signal ends it at once.

    Args:
        run: a run folder.
        tasks: only these; the heads of the others are not read.
        host: the address to listen on; the default is reached from this machine only.
        port: the port; 0 for a free one.
        limits: how much is taken.
        dtype, base: see :func:`nlp_mtl.predict` and :meth:`MultiTaskModel.from_pretrained`.
        ready: called with the server's address when it answers.

    Raises:
        ConfigError: an unknown task or dtype, an address that can't be listened on, or FastAPI or uvicorn missing.
        RunFolderError: not a run folder.
    """
    try:
        import uvicorn
    except ImportError:
        raise ConfigError("serve: FastAPI and uvicorn are not installed; " + pip_install("serve")) from None

    limits = limits or Limits()
    place = listen(host, port)
    try:
        answerer = Answerer(run, tasks=tasks, dtype=dtype, base=base)
        app = make_app(answerer, limits, title=Path(run).resolve().name)
        answerer.warm_up()
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=GRACE,
        )
        stopping(uvicorn.Server)(config, app.state.batcher, ready).run(sockets=[place])
    finally:
        place.close()


def check_port(port: int, verb: str) -> None:
    """Refuse what is no port's number.

    Raises:
        ConfigError: with the rule.
    """
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise ConfigError(f"{verb}: --port is from 0 to 65535, found {shown(port)}; leave it out for the usual one")


def check_asked(run: str | Path, tasks: Sequence[str] | None, dtype: str, verb: str) -> None:
    """Refuse tasks that a run does not have, before anything of it is loaded.

    Raises:
        ConfigError: unknown tasks and an unknown dtype, all at once.
        RunFolderError: not a run folder.
    """
    known = [item["name"] for item in read_spec(local_folder(run))["tasks"]]
    mistakes = unknown_tasks(tasks or [], known, verb)
    try:
        checked_dtype(dtype)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)


def told_together(*checks: Callable[[], object]) -> None:
    """Do every check, and raise what they refuse as one error.

    Raises:
        ConfigError: the mistakes of all.
    """
    mistakes: list[str] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)


def listen(host: str, port: int, verb: str = "serve") -> socket.socket:
    """A socket on an address.

    Raises:
        ConfigError: it is taken, or is none.
    """
    check_port(port, verb)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{verb}: listens on --host and --port, found {shown(host)} and {port} ({why}); name another port, or 0 "
            "for a free one"
        ) from None


def address_of(place: socket.socket) -> str:
    """Where a listening socket is reached.

    Example:
        >>> with listen("127.0.0.1", 0) as place:
        ...     address_of(place).rpartition(":")[0]
        'http://127.0.0.1'
    """
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stopping(server: type) -> Any:
    """A `uvicorn.Server` that answers what was accepted before it closes its port.

    Uvicorn itself closes the port first, so that a new request meets no server instead of a status 503.

    Args:
        server: `uvicorn.Server`; named here, since it is imported where it is used.
    """

    class Stopping(server):
        """Args: config: uvicorn's; batcher: the queue; ready: called with the address when it answers."""

        def __init__(self, config: Any, batcher: Any, ready: Callable[[str], None] | None):
            super().__init__(config)
            self.batcher, self.ready, self.asked = batcher, ready, 0
            self.loop: asyncio.AbstractEventLoop | None = None

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets=sockets)
            if self.ready is not None and sockets:
                self.ready(address_of(sockets[0]))
            if self.asked:
                self.should_exit = True

        def handle_exit(self, sig: int, frame: Any) -> None:
            self.asked += 1
            if self.asked > 1:
                self.should_exit = self.force_exit = True
            elif self.loop is not None:
                self.loop.call_soon_threadsafe(self.begin_to_stop)

        def begin_to_stop(self) -> None:
            self.stop = asyncio.ensure_future(self.drain())  # kept, or it might be collected

        async def drain(self) -> None:
            await self.batcher.drain()
            self.should_exit = True

    return Stopping
