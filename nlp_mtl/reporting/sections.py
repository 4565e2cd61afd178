"""Findings of a run as sections of its report, in HTML and in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from nlp_mtl.findings import Drawing, Finding, Table
from nlp_mtl.reporting.page import table

FIRST = "verdict"  # what is asked first is answered first


def ordered(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Those that stand above the curves, and those below."""
    return [one for one in findings if one.name == FIRST], [one for one in findings if one.name != FIRST]


def section(found: Finding) -> str:
    """A finding in HTML. Its drawings are images, so that nothing in them can run."""
    parts = [f'<h2 id="{escape(found.name)}">{escape(found.title)}</h2>']
    if found.said:
        parts.append(f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in found.said)}</ul>")
    parts += [_table(one) for one in found.tables if one.rows]
    parts += [_drawing(one) for one in found.drawings]
    return "\n".join(parts)


def _table(found: Table) -> str:
    # the first column is text, and the others where their cells are sentences
    wide = [max((len(str(row[place])) for row in found.rows), default=0) for place in range(len(found.head))]
    return table(found.title, found.head, found.rows, last_is_text=bool(wide) and wide[-1] > 24)


def _drawing(found: Drawing) -> str:
    data = base64.b64encode(_alone(found.svg).encode()).decode()
    return (
        f"<h3>{escape(found.title)}</h3><figure><figcaption>{escape(found.note)}</figcaption>"
        f'<div class="wide card" tabindex="0"><img alt="{escape(found.alt, quote=True)}" '
        f'src="data:image/svg+xml;base64,{data}"></div></figure>'
    )


def _alone(svg: str) -> str:
    """An ``<svg>`` element as a file of its own."""
    if "xmlns=" not in svg.split(">", 1)[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return svg


def markdown(found: Finding) -> str:
    """A finding in Markdown, without its drawings."""
    parts = [f"## {found.title}", "", *[f"* {_cell(one)}" for one in found.said], ""]
    for one in found.tables:
        if one.rows:
            parts += [f"**{one.title}**", ""] if one.title else []
            parts += ["| " + " | ".join(map(_cell, one.head)) + " |", "|" + "---|" * len(one.head)]
            parts += ["| " + " | ".join(map(_cell, row)) + " |" for row in one.rows]
            parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
