"""A comparison as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl.atomic import write_text

if TYPE_CHECKING:
    from nlp_mtl.studies.compare import Comparison


_NARROWEST = 0.02  # of a score's axis


def draw(found: Comparison, file: Path) -> None:
    """Write an SVG: differences of the mean to the baseline's with their intervals, and each task's score by way."""
    import io

    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ways, tasks = list(found.scores), list(found.metrics)
    figure: Any = Figure(figsize=(4.6 + 1.15 * len(tasks) + 1.6, 1.6 + 0.42 * len(ways)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(tasks) + 1, sharey=True, width_ratios=[2.4, *[1.15] * len(tasks)])
    axes = list(axes) if len(tasks) else [axes]
    height = list(range(len(ways)))[::-1]
    for place, way in zip(height, ways, strict=True):
        own = found.against.get(way)
        shown = found.verdicts.get(way, "")
        colour = {"better": "#1a7f37", "worse": "#b42318"}.get(shown, "#57606a")
        if own is None:
            axes[0].plot([0], [place], "s", color="#0b5cad")
        else:
            half = 0 if math.isnan(own.half) else own.half
            axes[0].errorbar([own.mean], [place], xerr=[half], fmt="o", color=colour, capsize=3)
        for axis, task in zip(axes[1:], tasks, strict=True):
            score = found.scores[way][task]
            half = 0 if math.isnan(score.half) else score.half
            axis.errorbar([score.mean], [place], xerr=[half], fmt="o", color="#57606a", markersize=4, capsize=2)
    axes[0].axvline(0, color="#0b5cad", linewidth=0.8)
    axes[0].set_yticks(height, ways)
    axes[0].set_xlabel(f"mean score − {found.baseline}")
    axes[0].set_title(f"paired differences, {found.confidence:.0%} interval", fontsize=9)
    for axis, task in zip(axes[1:], tasks, strict=True):
        axis.axvline(found.scores[found.baseline][task].mean, color="#0b5cad", linewidth=0.6, linestyle=":")
        axis.set_title(task, fontsize=9)
        axis.set_xlabel(found.metrics[task], fontsize=8)
        axis.locator_params(axis="x", nbins=3)
    for axis in axes:
        low, high = axis.get_xlim()
        if high - low < _NARROWEST:  # scores that are all the same
            axis.set_xlim((low + high - _NARROWEST) / 2, (low + high + _NARROWEST) / 2)
        axis.ticklabel_format(axis="x", useOffset=False, style="plain")
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.margins(y=0.08)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())
