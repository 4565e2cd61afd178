"""What a request asks, read from its body; or why it is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlp_mtl.errors import shown, suggestion
from nlp_mtl.inputs import Input
from nlp_mtl.serving.limits import Limits
from nlp_mtl.windows import characters


class RefusalError(Exception):
    """A request that is not answered: the HTTP status, a word for programs and a sentence for people.

    Args:
        status: 4xx or 5xx.
        kind: one word that stays the same.
        reason: the rule, what was found, the way out.
        headers: of the answer, e.g. ``Retry-After``.

    Example:
        >>> RefusalError(413, "too_long", "at most 9 characters, found 12").body()
        {'error': 'too_long', 'reason': 'at most 9 characters, found 12'}
    """

    def __init__(self, status: int, kind: str, reason: str, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.status, self.kind, self.reason, self.headers = status, kind, reason, headers or {}

    def body(self) -> dict[str, str]:
        """What is sent."""
        return {"error": self.kind, "reason": self.reason}


def stops() -> RefusalError:
    """What is said while the server stops."""
    return RefusalError(503, "stopping", "the server stops; ask another one, or again later", {"Retry-After": "5"})


@dataclass
class Question:
    """What one request asks.

    Attributes:
        inputs: texts, pairs or mappings of columns.
        tasks: the tasks asked, in the order asked.
        one: whether it asked about one input and not about a list.
    """

    inputs: list[Input]
    tasks: list[str]
    one: bool = False


def read_question(body: bytes, tasks: Sequence[str], limits: Limits) -> Question:
    """The question in a request's body.

    Args:
        body: JSON: ``{"input": …}`` or ``{"inputs": [ … ]}``, and perhaps ``"tasks": [names]``. An input is a text, a
            pair ``[text, text]`` or an object of columns.
        tasks: names that can be asked.
        limits: how much is taken.

    Raises:
        RefusalError: 422 where it can't be read, with all mistakes at once; 413 where it is too much.

    Example:
        >>> read_question(b'{"inputs": ["It rained.", ["One.", "Two."]]}', ["cola", "rte"], Limits())
        Question(inputs=['It rained.', ('One.', 'Two.')], tasks=['cola', 'rte'], one=False)
        >>> read_question(b'{"input": "a", "tasks": ["coal"]}', ["cola", "rte"], Limits())
        Traceback (most recent call last):
        nlp_mtl.serving.requests.RefusalError: `tasks`: no task 'coal' here; did you mean 'cola'?
    """
    said = _json(body)
    if not isinstance(said, dict):
        raise _unreadable([f'the body is an object such as {{"input": "A text."}}, found {shown(said, most=40)}'])
    mistakes = [f"unknown key {shown(key, most=40)}{suggestion(key, _KEYS)}" for key in said if key not in _KEYS]
    given = [key for key in ("input", "inputs") if key in said]
    if len(given) != 1:
        found = "both" if given else "neither"
        mistakes.append(f"give either `input`, a text, pair or object of columns, or `inputs`, a list; found {found}")
    inputs = said[given[0]] if len(given) == 1 else []
    if given == ["input"]:
        inputs = [inputs]
    elif not isinstance(inputs, list):
        mistakes.append(f"`inputs` is a list, found {shown(inputs, most=40)}; one alone is `input`")
        inputs = []
    elif given == ["inputs"] and not inputs:
        mistakes.append("`inputs` holds at least one input, found none")
    if len(inputs) > limits.max_batch:
        raise RefusalError(
            413, "too_many", f"`inputs` holds at most {limits.max_batch}, found {len(inputs)}; ask in several requests"
        )
    mistakes += [wrong for number, value in enumerate(inputs) for wrong in _wrong_input(value, number, given)]
    wanted = said.get("tasks")
    mistakes += _wrong_tasks(wanted, tasks)
    if mistakes:
        raise _unreadable(mistakes)
    for number, value in enumerate(inputs):
        if (long := characters(value)) > limits.max_length_text:
            raise RefusalError(
                413,
                "too_long",
                f"input {number}: at most {limits.max_length_text} characters, found {long}; shorten it (a task reads "
                "the first tokens anyway, as many as /tasks says)",
            )
    chosen = list(dict.fromkeys(wanted)) if wanted is not None else list(tasks)
    return Question([tuple(v) if isinstance(v, list) else v for v in inputs], chosen, given == ["input"])


_KEYS = ("input", "inputs", "tasks")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _unreadable([f"the body is UTF-8, found other bytes at {error.start}"]) from None
    except RecursionError:
        raise _unreadable(["the body is an object of texts, found JSON that is nested too deeply"]) from None
    except ValueError as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _unreadable(
            [f"the body is JSON, found something else ({getattr(error, 'msg', 'a number')}{where})"]
        ) from None


def _wrong_input(value: Any, number: int, given: Sequence[str]) -> list[str]:
    """What is wrong with an input whatever the tasks are."""
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    where = f"input {number}"
    if not (isinstance(value, (str, dict)) or pair):
        hint = "; a list of inputs is `inputs`" if given == ["input"] and isinstance(value, list) else ""
        return [
            f"{where}: a text, a pair [text, text] or an object of columns, found {_plain(shown(value, most=60))}{hint}"
        ]
    if any(not text.strip() for text in ([value] if isinstance(value, str) else value if pair else ())):
        return [f"{where}: holds text, found none"]
    if not _encodable(value):
        return [f"{where}: holds half of a surrogate pair, which is no character; send it whole or leave it out"]
    return []


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _wrong_tasks(wanted: Any, tasks: Sequence[str]) -> list[str]:
    if wanted is None:
        return []
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        hint = f"; write [{json.dumps(wanted)}]" if wanted in tasks else ""
        return [f"`tasks` is a list of names, found {_plain(shown(wanted, most=60))}{hint}"]
    if not wanted:
        return ["`tasks` names at least one task, found none; leave it out for all"]
    unknown = dict.fromkeys(name for name in wanted if name not in tasks)
    return [f"`tasks`: no task {_plain(shown(name, most=60))} here{suggestion(name, tasks)}" for name in unknown]


def _unreadable(mistakes: Sequence[str], *, most: int = 8) -> RefusalError:
    more = [f"and {len(mistakes) - most} more"] if len(mistakes) > most else []
    return RefusalError(422, "unreadable", "; ".join([*mistakes[:most], *more]))
