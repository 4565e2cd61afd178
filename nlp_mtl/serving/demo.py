"""A page to try a run: one text box, or two for a pair, and every task's answer side by side."""

from __future__ import annotations

import html
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, DataError, pip_install
from nlp_mtl.serving.answering import Answerer
from nlp_mtl.serving.requests import Question
from nlp_mtl.serving.server import address_of, listen

WIDE = 3  # tasks side by side
FIRST, SECOND = "It rained in Paris on Monday, and I loved it.", "The ground in Paris was wet."


def make_demo(answerer: Answerer, *, title: str = "nlp_mtl") -> Any:
    """The page, as `gradio.Blocks`; nothing is counted or sent anywhere.

    Args:
        answerer: the model.
        title: of the page, e.g. the run's name.

    Raises:
        ConfigError: gradio is not installed.
    """
    gradio = _gradio()
    pairs = any(len(answerer.model.heads[task].needed_columns()) > 1 for task in answerer.tasks)
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}\n\nEvery task that can read it answers, from one pass through one encoder.")
        with gradio.Row():
            first = gradio.Textbox(FIRST, label="Text", lines=3, elem_id="first", max_length=20_000)
            second = gradio.Textbox(
                SECOND if pairs else "",
                label="Second text, for tasks that read a pair",
                lines=3,
                visible=pairs,
                elem_id="second",
                max_length=20_000,
            )
        button = gradio.Button("Answer", variant="primary", elem_id="answer")
        said = gradio.Markdown(elem_id="said")
        shown: list[Any] = []
        kinds = {task: kind_of_answer(answerer, task) for task in answerer.tasks}
        for tasks in _rows(answerer.tasks):
            with gradio.Row(equal_height=False):
                for task in tasks:
                    with gradio.Column(min_width=280):
                        shown.append(_component(gradio, kinds[task], f"{task}: {_reads(answerer, task)}", task))
                for _ in range(WIDE - len(tasks)):  # so that the columns of all rows are as wide
                    gradio.Column(min_width=280)

        def answer(one: str, two: str) -> list[Any]:
            try:
                answers = answers_to(answerer, one, two)
            except DataError as error:
                return [f"**{error}**", *[None] * len(shown)]
            missing = [
                f"{task} reads {', '.join(found['missing'])} too"
                for task, found in answers.items()
                if "missing" in found
            ]
            values = [_value(kinds[task], answers[task], one) for task in answerer.tasks]
            return ["; ".join(missing), *values]

        for begin in (button.click, first.submit, second.submit):
            begin(
                answer, [first, second], [said, *shown], concurrency_limit=1, concurrency_id="model", api_name="answer"
            )
        page.load(answer, [first, second], [said, *shown], concurrency_id="model", show_progress="hidden")
    return page


def _gradio() -> Any:
    """The package, told to count nothing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ImportError:
        raise ConfigError("demo: gradio is not installed; " + pip_install("demo")) from None
    return gradio


def answers_to(answerer: Answerer, first: str, second: str = "") -> dict[str, dict[str, Any]]:
    """Task → its answer: tasks that read one text are asked about the first, the others about the pair.

    Raises:
        DataError: a text that can't be read.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> answers = answers_to(Answerer(tiny_model(["cola", "rte"])), "It rained.", "It was wet.")
        >>> [sorted(answer) for answer in answers.values()]
        [['label', 'score', 'scores'], ['label', 'score', 'scores']]
    """
    if not first.strip():
        raise DataError("demo: the first box holds a text, found none; write one")
    heads = answerer.model.heads
    alone = [task for task in answerer.tasks if not second.strip() or len(heads[task].needed_columns()) < 2]
    questions = [Question([first], alone), Question([(first, second)], [t for t in answerer.tasks if t not in alone])]
    found: dict[str, dict[str, Any]] = {}
    for said in answerer([question for question in questions if question.tasks]):
        if isinstance(said, Exception):
            raise said
        found.update(said[0])
    return {task: found[task] for task in answerer.tasks}


def kind_of_answer(answerer: Answerer, task: str) -> str:
    """How a task's answers are shown: ``labels``, ``entities``, ``value``, ``text`` or ``json``; found by asking it.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> answerer = Answerer(tiny_model(["cola", "conll2003", "stsb", "xsum"]))
        >>> [kind_of_answer(answerer, task) for task in answerer.tasks]
        ['labels', 'entities', 'value', 'text']
    """
    columns = dict.fromkeys(answerer.model.heads[task].needed_columns(), FIRST)
    (said,) = answerer([Question([columns], [task])])
    if isinstance(said, Exception):  # it reads something else than texts
        return "json"
    answer = said[0][task]
    if isinstance(answer.get("scores"), Mapping):
        return "labels"
    if set(answer) == {"text"}:
        return "text"
    return next((kind for kind in ("entities", "tags", "value") if kind in answer), "json")


def _reads(answerer: Answerer, task: str) -> str:
    return " + ".join(answerer.model.heads[task].needed_columns())


def _rows(tasks: Sequence[str]) -> list[Sequence[str]]:
    """Tasks in rows of the page."""
    return [tasks[at : at + WIDE] for at in range(0, len(tasks), WIDE)]


def _component(gradio: Any, kind: str, label: str, task: str) -> Any:
    name = f"task-{task}"
    if kind == "labels":
        return gradio.Label(label=label, num_top_classes=5, elem_id=name)
    if kind in ("entities", "tags"):
        return gradio.HTML(label=label, elem_id=name, show_label=True, container=True, padding=True)
    if kind == "value":
        return gradio.Number(label=label, elem_id=name, interactive=False, precision=3)
    if kind == "text":
        return gradio.Textbox(label=label, lines=3, elem_id=name, interactive=False)
    return gradio.JSON(label=label, elem_id=name)


def _value(kind: str, answer: Mapping[str, Any], text: str) -> Any:
    """An answer as its component takes it; None where the task has none."""
    if "missing" in answer:
        return None
    if kind == "labels":
        return answer["scores"]
    if kind == "entities":
        found = [(one["start"], one["end"], one["type"], one["score"]) for one in answer["entities"]]
        return _FRAME.format(highlighted(text, found))
    if kind == "tags":
        return _FRAME.format(" ".join(_marked(one["word"], one["tag"]) for one in answer["tags"]))
    return answer[kind] if kind in ("value", "text") else answer


def highlighted(text: str, found: Sequence[tuple[int, int, str, float]]) -> str:
    """A text as HTML, its spans marked with their names and scores.

    Args:
        text: the text.
        found: (first character, the one after the last, name, score) of each span, in order.

    Example:
        >>> highlighted("<In> Paris.", [])
        '&lt;In&gt; Paris.'
        >>> "Paris <small>LOC 0.90</small></mark>." in highlighted("In Paris.", [(3, 8, "LOC", 0.9)])
        True
    """
    parts, at = [], 0
    for start, end, name, score in found:
        parts += [html.escape(text[at:start]), _marked(text[start:end], name, f" {score:.2f}")]
        at = end
    return "".join([*parts, html.escape(text[at:])])


_FRAME = '<div style="padding-top: 1rem; line-height: 1.9">{}</div>'


def _marked(text: str, name: str, score: str = "") -> str:
    """A marked span; equal names have equal colours."""
    hue = zlib.crc32(name.encode()) % 360
    style = f"background: hsl({hue} 80% 85%); color: #222; border-radius: 4px; padding: 1px 4px; white-space: nowrap"
    return f'<mark style="{style}">{html.escape(text)} <small>{html.escape(name)}{score}</small></mark>'


def show_demo(
    run: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    dtype: str = "auto",
    base: str | Path | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Show the page of a run until Ctrl-C.

    Args:
        run: a run folder.
        tasks, host, port, dtype, base, ready: as for :func:`nlp_mtl.serving.server.serve`.

    Raises:
        ConfigError: an unknown task or dtype, an address that can't be listened on, or gradio missing.
    """
    _gradio()
    listen(host, port, "demo").close()  # before the model is read
    page = make_demo(Answerer(run, tasks=tasks, dtype=dtype, base=base), title=Path(run).resolve().name)
    launch(page, host, port, ready)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.close(verbose=False)


def launch(page: Any, host: str, port: int, ready: Callable[[str], None] | None = None) -> str:
    """Start a page in a thread of its own; gives its address.

    Args:
        page: from :func:`make_demo`.
        host, port: where; port 0 for a free one.
        ready: called with the address.
    """
    gradio = _gradio()
    with listen(host, port, "demo") as place:
        address = address_of(place)
    page.launch(
        server_name=host,
        server_port=int(address.rpartition(":")[2]),
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        prevent_thread_lock=True,
        share=False,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,  # it keeps texts in the browser
    )
    if ready is not None:
        ready(address)
    return address
