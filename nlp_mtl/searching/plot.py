"""A search as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl.atomic import write_text

if TYPE_CHECKING:
    from nlp_mtl.searching.result import Search

_NAMES = 34


def draw(found: Search, file: Path) -> None:
    """Write an SVG: the trials' scores in their order and the best so far; finalists and controls on held-out rows."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = list(found.finals)
    figure: Any = Figure(figsize=(9.4, max(3.2, 1.6 + 0.42 * len(names))), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _trials(left, found)
    height = list(range(len(names)))[::-1]
    for place, name in zip(height, names, strict=True):
        score = found.held_out(name)
        colour = "#0b5cad" if name == found.winner else "#b4690e" if name in found.controls else "#57606a"
        if score is not None:
            half = 0 if math.isnan(score.half) else score.half
            right.errorbar([score.mean], [place], xerr=[half], fmt="o", color=colour, capsize=3)
            for value in found.finals[name].held_out.values():
                right.plot([found.plan.score(value)], [place - 0.22], "|", color=colour, markersize=6, alpha=0.7)
    right.set_yticks(height, [_cut(name) + (" (chosen)" if name == found.winner else "") for name in names], fontsize=8)
    right.set_title(f"held-out half, {found.plan.file.confidence:.0%} interval over seeds", fontsize=9)
    right.tick_params(axis="x", labelsize=8)
    right.grid(axis="x", alpha=0.3)
    right.margins(y=0.12)
    if not names:
        right.text(0.5, 0.5, "no finalist yet", ha="center", va="center", transform=right.transAxes, fontsize=9)
        right.set_xticks([])
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())


def _trials(axis: Any, found: Search) -> None:
    done = [trial for trial in found.trials if trial.score is not None and trial.state != "repeated"]
    axis.plot([trial.number for trial in done], [trial.score for trial in done], "o", color="#0b5cad", label="done")
    best, line = -math.inf, []
    for trial in done:
        best = max(best, float(trial.score or 0.0))
        line.append(best)
    if done:
        axis.step(
            [trial.number for trial in done], line, where="post", color="#8c959f", linewidth=1, label="best so far"
        )
    pruned = [trial for trial in found.trials if trial.state == "pruned" and trial.curve]
    if pruned:
        last = [trial.curve[max(trial.curve)] for trial in pruned]
        axis.plot([trial.number for trial in pruned], last, "x", color="#b42318", label="ended early")
    again = [trial for trial in found.trials if trial.state == "repeated" and trial.score is not None]
    if again:
        numbers, scores = [trial.number for trial in again], [trial.score for trial in again]
        axis.plot(numbers, scores, "o", mfc="none", color="#8c959f", label="as an earlier one")
    axis.set_xlabel("trial", fontsize=8)
    axis.set_ylabel("score on the selecting half", fontsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    if found.trials and axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _cut(name: str) -> str:
    return name if len(name) <= _NAMES else name[: _NAMES - 1] + "…"
