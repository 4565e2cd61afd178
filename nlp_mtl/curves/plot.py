"""A learning curve as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl.atomic import write_text

if TYPE_CHECKING:
    from nlp_mtl.curves.study import Curve


def draw(found: Curve, file: Path) -> None:
    """Write an SVG: the score by the number of rows, a line with intervals for each way."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    rows = found.rows
    for number, way in enumerate(found.scores):
        known = [(place, score) for place, count in enumerate(rows) if (score := found.score(way, count)) is not None]
        halves = [0 if math.isnan(score.half) else score.half for _, score in known]
        places = [place + 0.06 * number for place, _ in known]  # beside one another
        axis.errorbar(places, [score.mean for _, score in known], yerr=halves, fmt="o-", capsize=3, label=way)
    if not math.isnan(found.trivial):
        axis.axhline(found.trivial, color="#8c959f", linestyle=":", label="trivial baseline")
    axis.set_xticks(range(len(rows)), [str(count) for count in rows])
    axis.set_xlabel(f"training rows of {found.task}")
    axis.set_ylabel(found.metric)
    axis.set_title(f"{found.confidence:.0%} intervals over seeds", fontsize=9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())
