"""A study of continual learning as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl.atomic import write_text
from nlp_mtl.forgetting.matrix import mean_matrix

if TYPE_CHECKING:
    from nlp_mtl.forgetting.study import Continual


def draw(found: Continual, file: Path) -> None:
    """Write an SVG: each task's score over the stages, a line for each way; and average and forgetting by way."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ways, tasks = list(found.courses), found.tasks
    figure: Any = Figure(figsize=(2.6 * max(len(tasks), 3), 3.0 + 0.8 + 0.34 * len(ways)), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[3.0, 0.8 + 0.34 * len(ways)])
    axes = above.subplots(1, len(tasks), squeeze=False)[0]
    colours = {way: f"C{number % 10}" for number, way in enumerate(ways)}
    for number, (axis, task) in enumerate(zip(axes, tasks, strict=True)):
        for way in ways:
            matrix = mean_matrix(found.courses[way])
            if len(matrix) == 1:
                axis.axhline(matrix[0, number], color=colours[way], linestyle=":", label=way)
            else:
                axis.plot(range(len(tasks)), matrix[:, number], "o-", color=colours[way], markersize=3, label=way)
        axis.axvline(number, color="#d0d7de", linewidth=6, zorder=0)
        axis.set_xticks(range(len(tasks)), tasks, rotation=60, fontsize=7)
        axis.set_title(f"{task} ({found.metrics[task]})", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    above.supxlabel("after learning (grey: its own stage; dotted: all at once; colours as below)", fontsize=8)
    height = list(range(len(ways)))[::-1]
    for axis, measure in zip(below.subplots(1, 2, sharey=True), ("average", "forgetting"), strict=True):
        for place, way in zip(height, ways, strict=True):
            value = found.measure(way, measure)
            if value is not None:
                half = 0 if math.isnan(value.half) else value.half
                axis.errorbar([value.mean], [place], xerr=[half], fmt="o", color=colours[way], capsize=3)
        axis.set_yticks(height, ways)
        axis.set_ylim(-0.6, len(ways) - 0.4)
        axis.set_title(
            {"average": "mean score at the end", "forgetting": "forgetting (0 is none)"}[measure], fontsize=9
        )
        axis.tick_params(labelsize=8)
        for label, way in zip(axis.get_yticklabels(), ways, strict=False):  # the panel beside shares them
            label.set_color(colours[way])
        axis.grid(axis="x", alpha=0.3)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())
