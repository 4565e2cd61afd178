"""What a server says about itself: its tasks, its OpenAPI description and a page made of it."""

from __future__ import annotations

import html
import json
from typing import Any

from nlp_mtl.serving.answering import Answerer
from nlp_mtl.serving.limits import Limits

_TEXT = "It rained in Paris on Monday."


def tasks(answerer: Answerer) -> list[dict[str, Any]]:
    """What /tasks says of each task: kind of head, columns it reads, label names, tokens it reads at most.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> tasks(Answerer(tiny_model(["cola"])))
        [{'name': 'cola', 'head': 'sequence_classification', 'inputs': ['sentence'],
          'labels': ['unacceptable', 'acceptable'], 'max_length': 128}]
    """
    found = []
    for name in answerer.tasks:
        head = answerer.model.heads[name]
        length = min(head.task.max_length or answerer.model.max_length, answerer.model.max_length)
        said = {"name": name, "head": head.task.head_name, "inputs": head.needed_columns(), "labels": head.labels}
        found.append({key: value for key, value in {**said, "max_length": length}.items() if value is not None})
    return found


def examples(answerer: Answerer) -> dict[str, dict[str, Any]]:
    """Requests that can be sent, by name.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> examples(Answerer(tiny_model(["cola"])))["columns"]["value"]
        {'input': {'sentence': 'It rained in Paris on Monday.'}, 'tasks': ['cola']}
    """
    first = answerer.tasks[0]
    columns = dict.fromkeys(answerer.model.heads[first].needed_columns(), _TEXT)
    return {
        "text": {"summary": "a text, for every task that reads one", "value": {"input": _TEXT}},
        "columns": {
            "summary": "columns by name, for one task",
            "value": {"input": columns, "tasks": [first]},
        },
        "several": {
            "summary": "several inputs: a text and a pair",
            "value": {"inputs": [_TEXT, ["It rained.", "The ground is wet."]]},
        },
    }


def summary(answerer: Answerer, limits: Limits) -> str:
    """What the API does, in a paragraph."""
    return (
        f"One encoder answers for {len(answerer.tasks)} task(s): {', '.join(answerer.tasks)}. Requests that come at "
        "the same time go through it together. "
        f"A request holds at most {limits.max_batch} inputs and {limits.max_body} bytes, an input at most "
        f"{limits.max_length_text} characters; of a longer text than a task's max_length (in tokens, see /tasks) the "
        "task reads the beginning, as it was trained. A status that is not 200 comes with "
        '{"error": word, "reason": sentence}.'
    )


class Operations:
    """The OpenAPI description of each path, as arguments of FastAPI's `add_api_route`.

    Args:
        answerer: the model.
        limits: how much is taken.
    """

    def __init__(self, answerer: Answerer, limits: Limits):
        self.answerer, self.limits = answerer, limits

    def predict(self) -> dict[str, Any]:
        """Of /predict."""
        texts = {"type": "string", "maxLength": self.limits.max_length_text}
        pair = {"type": "array", "items": texts, "minItems": 2, "maxItems": 2}
        one = {"oneOf": [texts, pair, {"type": "object", "description": "columns by name"}]}
        names = {"type": "array", "items": {"type": "string", "enum": self.answerer.tasks}, "minItems": 1}
        schema = {
            "type": "object",
            "properties": {
                "input": one,
                "inputs": {"type": "array", "items": one, "minItems": 1, "maxItems": self.limits.max_batch},
                "tasks": {**names, "description": "only these; default all"},
            },
            "oneOf": [{"required": ["input"]}, {"required": ["inputs"]}],
            "additionalProperties": False,
        }
        body = {
            "required": True,
            "content": {"application/json": {"schema": schema, "examples": examples(self.answerer)}},
        }
        answer = {
            "type": "object",
            "description": "task → its answer: label names and scores, entities with offsets, a number, a text, …; or "
            '{"missing": [columns]} where the input lacks what the task reads',
            "additionalProperties": {"type": "object"},
        }
        answers = {
            "type": "object",
            "properties": {"answer": answer, "answers": {"type": "array", "items": answer}},
            "description": "`answer` to `input`, `answers` to `inputs` in their order",
        }
        return {
            "summary": "What every task, or some, say about one input or several",
            "openapi_extra": {"requestBody": body},
            "responses": {
                200: {"description": "the answers", "content": {"application/json": {"schema": answers}}},
                **_refusals({408: "the body came too slowly", 413: "too many inputs, characters or bytes"}),
                **_refusals({415: "no JSON", 422: "can't be read; the reason names all mistakes"}),
                **_refusals({429: "the queue is full", 500: "failed; the log has the id", 503: "the server stops"}),
            },
        }

    def tasks(self) -> dict[str, Any]:
        """Of /tasks."""
        example = {"tasks": tasks(self.answerer)}
        return {
            "summary": "The tasks: kind of head, columns they read, label names, tokens they read at most",
            "responses": {200: {"description": "the tasks", "content": {"application/json": {"example": example}}}},
        }

    def health(self) -> dict[str, Any]:
        """Of /health."""
        content = {"application/json": {"example": {"status": "ok", "waiting": 0}}}
        return {
            "summary": "Whether it answers, and how many inputs wait",
            "responses": {200: {"description": "it answers", "content": content}, **_refusals({503: "it stops"})},
        }


def _refusals(kinds: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    schema = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "reason": {"type": "string"}, "id": {"type": "string"}},
        "required": ["error", "reason"],
    }
    content = {"application/json": {"schema": schema}}
    return {status: {"description": said, "content": content} for status, said in kinds.items()}


def page(described: dict[str, Any]) -> str:
    """A page of an OpenAPI description with a form to try it; it loads nothing from anywhere.

    Args:
        described: the description, as /openapi.json gives it.
    """
    parts = []
    for path, methods in described["paths"].items():
        for method, said in methods.items():
            body = said.get("requestBody", {}).get("content", {}).get("application/json", {})
            shown = [(one["summary"], one["value"]) for one in body.get("examples", {}).values()]
            first = json.dumps(shown[0][1], ensure_ascii=False, indent=1) if shown else ""
            choices = "".join(
                f'<button type="button" class="example" data-body="{html.escape(json.dumps(value, indent=1))}">'
                f"{html.escape(name)}</button> "
                for name, value in shown
            )
            answers = "".join(
                f"<tr><td>{status}</td><td>{html.escape(one['description'])}</td></tr>"
                for status, one in said["responses"].items()
            )
            area = f'<textarea rows="6">{html.escape(first)}</textarea><p>{choices}</p>' if body else ""
            parts.append(
                f'<section data-method="{method.upper()}" data-path="{html.escape(path)}"><h2>{method.upper()} '
                f"{html.escape(path)}</h2><p>{html.escape(said.get('summary', ''))}</p>{area}"
                f'<button type="button" class="send">Send</button><pre></pre><table>{answers}</table></section>'
            )
    info = described["info"]
    return _PAGE.format(title=html.escape(info["title"]), about=html.escape(info["description"]), parts="".join(parts))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
section {{ border-top: 1px solid #ccc; margin-top: 1.5rem }}
h2, pre, textarea {{ font-family: ui-monospace, monospace }}
h2 {{ font-size: 1.1rem }} textarea {{ width: 100%; box-sizing: border-box; font-size: .9rem }}
pre {{ background: #f4f4f4; padding: .5rem; overflow: auto; max-height: 24rem }} pre:empty {{ display: none }}
td {{ padding: 0 .8rem 0 0; vertical-align: top; font-size: .9rem; color: #555 }} .send {{ font-weight: bold }}
</style></head><body><h1>{title}</h1><p>{about}</p>
<p>The description for programs: <a href="openapi.json">openapi.json</a></p>{parts}
<script>
for (const section of document.querySelectorAll("section")) {{
  const area = section.querySelector("textarea"), out = section.querySelector("pre");
  for (const button of section.querySelectorAll(".example")) {{
    button.onclick = () => {{ area.value = button.dataset.body; }};
  }}
  section.querySelector(".send").onclick = async () => {{
    const more = area ? {{ body: area.value, headers: {{ "Content-Type": "application/json" }} }} : {{}};
    try {{
      const said = await fetch(section.dataset.path.slice(1), {{ method: section.dataset.method, ...more }});
      out.textContent = said.status + "\\n" + JSON.stringify(await said.json(), null, 1);
    }} catch (error) {{ out.textContent = String(error); }}
  }};
}}
</script></body></html>
"""
