"""A figure with its words; as SVG that takes the page's colours, and as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.findings import Drawing

# What stands for the page's colours of text and of fine lines; on paper, nearly black and a light grey.
INK, FAINT = "#1c2127", "#d4d8dd"
COLOURS = ("#3d7fd9", "#df7d22", "#2b9d6c", "#c9527a", "#8663cf", "#9a7a45", "#1b9fb5", "#84902b")
RISE, FALL = "#2f7fd6", "#d9552b"


@dataclass(frozen=True)
class Picture:
    """One figure of a report. A notebook shows it as it is.

    Attributes:
        name: short, e.g. ``losses``; also what :attr:`nlp_mtl.reporting.report.Report.pictures` knows it by.
        title: above it.
        alt: what is to be seen, for who does not see it.
        note: how to read it, below it.
        figure: the `matplotlib` figure.
    """

    name: str
    title: str
    alt: str
    note: str
    figure: Any = field(repr=False)

    def svg(self) -> str:
        """An ``<svg>`` element for a page that has ``--ink`` and ``--faint``; the same for the same numbers."""
        stream = io.StringIO()
        with styled(self.name):
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            self.figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
        text = stream.getvalue()
        text = text[text.index("<svg") :].rstrip()
        text = text.replace(INK, f"var(--ink, {INK})").replace(FAINT, f"var(--faint, {FAINT})")
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", text)  # several figures stand on one page
        text = re.sub(
            r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text
        )  # half of the page's size
        width = float(re.search(r'width="([\d.]+)pt"', text)[1])  # type: ignore[index]
        text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
        said = self.alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        begin = f'<svg role="img" aria-label="{said}" style="width:100%;max-width:{width * 4 / 3:.0f}px"'
        return text.replace("<svg", begin, 1)

    def drawing(self) -> Drawing:
        """The same for a finding."""
        return Drawing(self.title, self.alt, self.note, self.svg())

    def png(self) -> bytes:
        """The same on white, for who can't show SVG."""
        stream = io.BytesIO()
        with styled(self.name):
            self.figure.savefig(stream, format="png", dpi=110, facecolor="white", metadata={"Software": None})
        return stream.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


@contextmanager
def styled(salt: str = "") -> Iterator[None]:
    """Inside this block figures are made and written alike, whatever the user's settings of matplotlib are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.size": 9,
                "axes.titlesize": 9,
                "axes.titlelocation": "left",
                "axes.titley": 1.0,  # else every title is measured
                "axes.edgecolor": INK,
                "axes.labelcolor": INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.6,
                "axes.grid": True,
                "axes.axisbelow": True,
                "axes.formatter.useoffset": False,
                "grid.color": FAINT,
                "grid.linewidth": 0.6,
                "text.color": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "xtick.labelsize": 8,
                "ytick.labelsize": 8,
                "legend.frameon": False,
                "legend.fontsize": 8,
                "svg.hashsalt": salt or "report",
                "svg.fonttype": "path",
            }
        )
        yield


def cut(name: str, most: int) -> str:
    """A long name with its middle left out.

    Example:
        >>> cut("a_task_with_a_long_name", 12), cut("rte", 12)
        ('a_task…_name', 'rte')
    """
    if len(name) <= most:
        return name.replace("$", r"\$")  # which would begin a formula
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}".replace("$", r"\$")
