"""Proposed groups as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.affinity import Affinity
from nlp_mtl.atomic import write_text
from nlp_mtl.taskgroups.proposal import Grouping

NUMBERS = 14  # up to so many tasks the cells hold numbers


def draw(grouping: Grouping, affinity: Affinity, file: Path) -> None:
    """Write an SVG: the affinity with tasks in the order of their groups, companions framed; the gains beside.

    Args:
        grouping: made from the affinity.
        affinity: tasks × tasks.
        file: where.
    """
    import io

    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    order = [task for group in grouping.groups for task in group.serves]
    shown = affinity.of(order)
    values = shown.values.copy()
    np.fill_diagonal(values, np.nan)
    many, cell = len(order), 0.55 if len(order) <= NUMBERS else 0.3
    room = 0.075 * max(map(len, order)) + 0.5
    figure: Any = Figure(
        figsize=(max(many * cell, 1.4) + room + 2.9, max(many * cell, 1.2) + room + 0.9), layout="constrained"
    )
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[max(many * cell, 1.4) + 0.6, 1.8])
    finite = np.abs(values[np.isfinite(values)])
    end = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    image = left.imshow(values.T, cmap="RdBu", vmin=-end, vmax=end, aspect="auto")
    if many <= NUMBERS:
        for i in range(many):
            for j in range(many):
                if i != j:
                    light = abs(values[i, j]) > 0.6 * end
                    text = f"{values[i, j]:.2f}".replace("-", "−")
                    left.text(i, j, text, ha="center", va="center", fontsize=7, color="white" if light else "#1c2127")
    for number, group in enumerate(grouping.groups):
        for task in group.serves:
            for other in group.tasks:
                if other != task:
                    corner = (order.index(other) - 0.5, order.index(task) - 0.5)
                    left.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#1c2127", linewidth=1.6))
        places = [order.index(task) for task in group.serves]
        gains = [grouping.gains[task] for task in group.serves]
        right.barh(places, gains, color=f"C{number % 10}", height=0.6, label=f"group {number + 1}")
    left.set_xticks(range(many), order, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    left.set_yticks(range(many), order, fontsize=8)
    left.set_xlabel("helper", fontsize=8)
    left.set_ylabel("helped", fontsize=8)
    left.set_title(f"{grouping.measure}; framed: trained together", fontsize=9)
    figure.colorbar(image, ax=left, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
    right.axvline(0, color="#57606a", linewidth=0.8)
    right.set_title("expected gain", fontsize=9)
    right.tick_params(labelsize=8)
    right.grid(axis="x", alpha=0.3)
    right.margins(x=0.15)
    figure.legend(*right.get_legend_handles_labels(), fontsize=7, loc="outside lower right", ncols=3, frameon=False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())
