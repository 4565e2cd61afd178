"""Probes as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl.atomic import write_text

if TYPE_CHECKING:
    from nlp_mtl.probing.study import Probed


def draw(found: Probed, file: Path) -> None:
    """Write an SVG: for each task the score by layer, a line for each number of dimensions; the chosen one ringed."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    wide = min(3, len(found.found))
    high = -(-len(found.found) // wide)
    figure: Any = Figure(figsize=(3.4 * wide + 0.6, 2.7 * high + 0.3), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(high, wide, squeeze=False).flatten()
    for axis, (task, probes) in zip(axes, found.found.items(), strict=False):
        sizes = list(dict.fromkeys(None if one.dimensions is None else len(one.dimensions) for one in probes))
        for size in sizes:
            line = [one for one in probes if (None if one.dimensions is None else len(one.dimensions)) == size]
            heights = [one.held_out if one.score is None else one.score for one in line]
            axis.plot([one.layer for one in line], heights, "o-", markersize=3, label=str(size or "all"))
        one = found.chosen(task)
        height = one.held_out if one.score is None else one.score
        axis.plot([one.layer], [height], "o", markersize=11, fillstyle="none", color="black")
        axis.set_title(f"{task} ({found.metrics[task]})", fontsize=9)
        axis.set_xticks(sorted({probe.layer for probe in probes}))
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in axes[len(found.found) :]:
        axis.axis("off")
    axes[0].legend(fontsize=7, title="dimensions", title_fontsize=7)
    figure.supxlabel("layer (ringed: what is chosen on held-out training rows)", fontsize=8)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())
