"""``report.html``: one page that needs no other file and no network, in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nlp_mtl.reporting.picture import Picture
from nlp_mtl.reporting.summary import most_conflicting

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --faint: #d4d8dd; --paper: #ffffff; --soft: #5c6570; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #3a4047; --paper: #14171a; --soft: #a3abb5; --card: #1c2024 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem } h3 { font-size: .95rem; margin: 1.5rem 0 .25rem }
p, figcaption, li { max-width: 46rem } p { margin: .5rem 0 } .soft, figcaption, caption { color: var(--soft) }
figure { margin: 0 } figcaption, caption { font-size: .87rem; text-align: left; margin-bottom: .4rem }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch } .wide svg { display: block }
.card { background: #ffffff; border-radius: .4rem } .card img { display: block; max-width: 100%; min-width: 24rem }
@media (max-width: 44rem) { .wide.curves svg { min-width: 40rem } .wide.many svg { min-width: 34rem } }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .5rem 0 }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap }
th { font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 3.2rem; max-width: 6rem }
td.text, th.text { text-align: left } th.text { max-width: none }
td.text:first-child { min-width: 10rem } td.text:last-child { min-width: 13rem }
td.text { white-space: normal; overflow-wrap: anywhere; max-width: 19rem }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; padding: 0; list-style: none }
.facts li { background: var(--card); border-radius: .4rem; padding: .35rem .7rem; overflow-wrap: anywhere }
.facts b { font-variant-numeric: tabular-nums }
.missing { background: var(--card); border-left: 3px solid #c98a1b; padding: .5rem 1rem; margin: 1rem 0 }
.missing ul { margin: .25rem 0; padding-left: 1.1rem }
"""


def page(
    found: Mapping[str, Any], pictures: Sequence[Picture], above: Sequence[str] = (), below: Sequence[str] = ()
) -> str:
    """The page.

    Args:
        found: what ``report.json`` says.
        pictures: in the order in which they stand on it.
        above, below: sections in HTML, before the table of tasks and at the end.
    """
    title = f"Report of {found['run']}"
    state = "" if found["finished"] else " — not finished"
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1><p class=soft>{len(found['tasks'])} tasks, {_steps(found)}{state}</p>",
        _facts(found),
        _missing(found["missing"]),
        *above,
        "<h2>Tasks</h2>",
        task_table(found),
    ]
    tables = {"conflicting": pair_table(found), "scores": see_saw_table(found)}
    for picture in pictures:
        many = " many" if picture.name in ("cosines", "conflicting") and len(found["tasks"]) > 12 else ""
        kind = "curves" if picture.name not in ("cosines", "conflicting") else f"matrix{many}"
        parts += [
            f'<h2 id="{picture.name}">{escape(picture.title)}</h2>',
            f'<figure><figcaption>{escape(picture.note)}</figcaption><div class="wide {kind}" tabindex="0">',
            picture.svg(),
            "</div></figure>",
            tables.get(picture.name, ""),
        ]
    parts += [*below, "</body></html>"]
    return "\n".join(part for part in parts if part) + "\n"


def _steps(found: Mapping[str, Any]) -> str:
    steps = found["steps"]
    return f"steps {steps['first'] + 1} to {steps['last'] + 1}" if steps["recorded"] else "no steps on record"


def _facts(found: Mapping[str, Any]) -> str:
    said = [(kind, _strategy(found[kind])) for kind in ("balancer", "sampler") if found[kind] is not None]
    if gradients := found["gradients"]:
        said += [
            ("cosines below 0", share(gradients["conflicting_share"])),
            (
                "steps with a conflict",
                f"{share(gradients['steps_with_conflict'])} of {found['steps']['looked']} looked at",
            ),
            ("mean cosine", number(gradients["cosine_mean"])),
        ]
    if saw := found["see_saw"]:
        said.append(("pairs that see-saw", str(len(saw["pairs"]))))
    if found["validation"] and (best := found["validation"]["run_best"]):
        said.append(("the run's best", f"step {best['step']} ({best['metric']} {number(best['score'])})"))
    inside = "".join(f"<li>{escape(what)} <b>{escape(value)}</b></li>" for what, value in said)
    return f"<ul class=facts>{inside}</ul>" if inside else ""


def _strategy(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return str(spec)
    rest = ", ".join(f"{key}: {value}" for key, value in spec.items() if key != "name")
    return f"{spec.get('name', '')} ({rest})" if rest else str(spec.get("name", ""))


def _missing(said: Sequence[str]) -> str:
    if not said:
        return ""
    return f"<div class=missing>Not in this report:<ul>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul></div>"


def task_table(found: Mapping[str, Any]) -> str:
    """A row for each task."""
    saws: dict[str, int] = {}
    for pair in (found["see_saw"] or {}).get("pairs", ()):
        for task in pair["tasks"]:
            saws[task] = saws.get(task, 0) + pair["count"]
    head = [
        "metric",
        "own best",
        "at step",
        "at the run's best",
        "first loss",
        "last loss",
        "weight",
        "rate",
        "gradient norm",
    ]
    rows = []
    for task, known in found["tasks"].items():
        best, here = known["best"] or {}, known["at_run_best"]
        rows.append(
            [
                known["metric"] or "—",
                number(best.get("score")),
                str(best["step"]) if best else "—",
                number(here),
                number(known["loss"]["first"]),
                number(known["loss"]["last"]),
                number(known["weight"]["mean"]),
                share(known["rate"]),
                number(known["norm"]),
                *([str(saws.get(task, 0))] if found["see_saw"] else []),
            ]
        )
    head += ["see-saws"] if found["see_saw"] else []
    return table("", ["task", *head], [[task, *row] for task, row in zip(found["tasks"], rows, strict=True)], text=2)


def pair_table(found: Mapping[str, Any], most: int = 10) -> str:
    """The pairs of tasks that conflict most."""
    gradients = found["gradients"]
    rows = [
        [
            f"{first} · {second}",
            share(gradients["conflicting"][first][second]),
            number(gradients["cosine"][first][second]),
            str(gradients["seen"][first][second]),
        ]
        for first, second in most_conflicting(gradients, most)
    ]
    return table("The pairs that conflict most", ["pair", "below 0", "mean cosine", "looks"], rows) if rows else ""


def see_saw_table(found: Mapping[str, Any], most: int = 10) -> str:
    """The pairs of tasks that see-saw most."""
    pairs = (found["see_saw"] or {}).get("pairs", ())
    rows = [
        [
            " · ".join(pair["tasks"]),
            f"{pair['count']} of {pair['scored']}",
            "; ".join(_where(said, pair, rose) for said, rose in zip(("first", "second"), pair["tasks"], strict=True)),
        ]
        for pair in pairs[:most]
    ]
    head = ["pair", "intervals", "steps in which it got better, and the other worse"]
    return table("The pairs that see-saw most", head, rows, last_is_text=True) if rows else ""


def _where(said: str, pair: Mapping[str, Any], rose: str, most: int = 4) -> str:
    found = [f"{before}–{after}" for before, after, task in pair["intervals"] if task == rose]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{said}: {', '.join(found[:most]) or 'never'}{more}"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1, last_is_text: bool = False
) -> str:
    """An HTML table of text; the first `text` columns, and the last if asked, stand left."""

    def cells(kind: str, values: Sequence[str]) -> str:
        left = {*range(text), *([len(head) - 1] if last_is_text else [])}
        return "".join(
            f"<{kind}{' class=text' if place in left else ''}>{escape(value)}</{kind}>"
            for place, value in enumerate(values)
        )

    inside = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class=wide tabindex="0"><table>{said}<tr>{cells("th", head)}</tr>{inside}</table></div>'


def number(value: float | None) -> str:
    """A number with three digits that count, and a dash for none.

    Example:
        >>> number(0.12345), number(1234.5), number(0), number(None)
        ('0.123', '1234', '0.000', '—')
    """
    if value is None:
        return "—"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("-", "−")
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share in per cent."""
    return "—" if value is None else f"{value * 100:.0f} %"
