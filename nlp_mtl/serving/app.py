"""The ASGI application: /predict, /tasks, /health, and pages that describe them."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from nlp_mtl.errors import ConfigError, NlpMtlError, pip_install
from nlp_mtl.serving import describing
from nlp_mtl.serving.answering import Answerer
from nlp_mtl.serving.batching import Batcher
from nlp_mtl.serving.limits import Limits
from nlp_mtl.serving.requests import RefusalError, read_question, stops

logger = logging.getLogger("nlp_mtl")


def make_app(answerer: Answerer, limits: Limits | None = None, *, title: str = "nlp_mtl") -> Any:
    """A FastAPI application that answers with a model.

    Every answer that is no 200 is ``{"error": word, "reason": sentence}``; an internal error says an id, under which
    the log has the trace.

    Args:
        answerer: the model.
        limits: how much is taken.
        title: of the API, e.g. the run's name.

    Returns:
        The application; its ``state.batcher`` is the queue.

    Raises:
        ConfigError: FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request
        from fastapi.responses import HTMLResponse, Response
    except ImportError:
        raise ConfigError("serve: FastAPI and uvicorn are not installed; " + pip_install("serve")) from None

    limits = limits or Limits()
    batcher = Batcher(answerer, limits)
    reading = 0  # requests whose body is still coming

    @asynccontextmanager
    async def living(app: Any) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.close()

    app = FastAPI(
        title=title,
        version=version("nlp-mtl"),
        description=describing.summary(answerer, limits),
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
        lifespan=living,
    )
    app.state.batcher = batcher

    def json_response(said: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        body = json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
        return Response(body, status, headers, media_type="application/json")

    def refusal(why: RefusalError) -> Response:
        closing = {"Connection": "close"} if why.status in (408, 413, 503) else {}
        return json_response(why.body(), why.status, {**why.headers, **closing})

    def internal(error: BaseException) -> Response:
        name = uuid.uuid4().hex[:12]
        logger.error("serve: internal error %s", name, exc_info=error)
        return json_response(
            {"error": "internal", "reason": "something failed here; the log says what", "id": name}, 500
        )

    async def predict(request: Request) -> Response:
        nonlocal reading
        try:
            if batcher.stopping:
                raise stops()
            if reading >= limits.queue:
                raise RefusalError(429, "busy", "too many requests come at once; ask again later", {"Retry-After": "1"})
            reading += 1
            try:
                async with asyncio.timeout(limits.body_timeout):
                    body = await read_body(request, limits.max_body)
            except TimeoutError:
                raise RefusalError(
                    408, "slow", f"a request comes within {limits.body_timeout:g} seconds, found it unfinished"
                ) from None
            finally:
                reading -= 1
            question = read_question(body, answerer.tasks, limits)
            answers = await batcher.submit(question, request.is_disconnected)
            return json_response({"answer": answers[0]} if question.one else {"answers": answers})
        except RefusalError as why:
            return refusal(why)
        except NlpMtlError as error:  # an input that a task can't read
            return refusal(RefusalError(422, "unreadable", str(error)))
        except Exception as error:
            return internal(error)

    async def tasks() -> Response:
        return json_response({"tasks": describing.tasks(answerer)})

    async def health() -> Response:
        said = {"status": "stopping" if batcher.stopping else "ok", "waiting": batcher.waiting}
        return json_response(said, 503 if batcher.stopping else 200)

    async def page() -> Response:
        return HTMLResponse(describing.page(app.openapi()))

    async def other(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        known = ", ".join(getattr(route, "path", "") for route in app.routes)
        rule = "another method is needed" if status == 405 else f"there are {known}"
        found = f"{request.method} {request.url.path[:80]}"
        return refusal(RefusalError(status, "no_such_page", f"{rule}; found {found}", getattr(error, "headers", None)))

    async def failed(request: Request, error: Exception) -> Response:
        return internal(error)

    for status in (404, 405):
        app.add_exception_handler(status, other)
    app.add_exception_handler(Exception, failed)
    said = describing.Operations(answerer, limits)
    app.add_api_route("/predict", predict, methods=["POST"], **said.predict())
    app.add_api_route("/tasks", tasks, methods=["GET"], **said.tasks())
    app.add_api_route("/health", health, methods=["GET"], **said.health())
    for path in ("/", "/docs"):
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)
    return app


async def read_body(request: Any, most: int) -> bytes:
    """A request's body.

    Raises:
        RefusalError: 413 where it has more bytes than `most`, 415 where it says that it is no JSON.
    """
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise RefusalError(
            415, "no_json", f"the body is JSON, found content type {kind[:60]!r}; send Content-Type: application/json"
        )
    large = RefusalError(413, "too_large", f"at most {most} bytes in one request; ask in several")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise large
    parts, held = [], 0
    async for part in request.stream():
        held += len(part)
        if held > most:
            raise large
        parts.append(part)
    return b"".join(parts)
