"""What changes over steps: losses, weights, rates, gradient norms, cosines, and scores with their see-saws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl.reporting.picture import COLOURS, FALL, INK, RISE, Picture, cut, styled
from nlp_mtl.reporting.reading import Reading
from nlp_mtl.reporting.series import BINS, binned, singles

if TYPE_CHECKING:
    import numpy as np

WIDTH, TOGETHER = 9.0, 8  # inches; up to so many tasks are lines of one plot


def panels(
    titles: Sequence[str], *, share_y: bool, height: float = 1.25, legend: int = 0, under: Sequence[str] = ()
) -> tuple[Any, list[Any]]:
    """A figure of equal plots over the same steps, one for each title, at most four beside one another; and its axes.

    Args:
        titles: long ones are cut.
        under: smaller, below them.
        share_y: one scale for all.
        height: of a plot, in inches.
        legend: lines of a legend that is to stand below.
    """
    from matplotlib.figure import Figure

    count = len(titles)
    columns = count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4
    rows = math.ceil(count / columns)
    # fixed margins, in inches: to measure all labels takes as long as to draw them
    left, right, top, between, below = (
        0.5,
        0.15,
        0.28 if any(titles) else 0.08,
        0.34 if share_y else 0.5,
        0.45 + 0.2 * legend,
    )
    apart, top = 0.42 + 0.16 * bool(under), top + 0.16 * bool(under)
    whole = top + rows * height + (rows - 1) * apart + below
    figure = Figure(figsize=(WIDTH, whole))
    wide = (WIDTH - left - right - (columns - 1) * between) / columns
    grid = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
    figure.subplots_adjust(
        left / WIDTH, below / whole, 1 - right / WIDTH, 1 - top / whole, wspace=between / wide, hspace=apart / height
    )
    axes = list(grid.flat)
    for axis in axes[count:]:
        axis.remove()
    for place, (axis, title) in enumerate(zip(axes, titles, strict=False)):
        axis.set_title(cut(title, int(wide * 12.5)), fontsize=8.5, pad=17 if under else 6)
        if under:
            axis.text(0, 1.03, cut(under[place], int(wide * 14)), transform=axis.transAxes, fontsize=7.5, alpha=0.75)
        axis.locator_params(axis="x", nbins=5, integer=True)
        if place + columns >= count:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("step", fontsize=8)
    return figure, axes[:count]


def line(
    axis: Any,
    steps: np.ndarray,
    values: np.ndarray,
    colour: str,
    *,
    style: Any = "-",
    most: int = BINS,
    faint: float = 0.2,
) -> Any:
    """A series: as it is, faint, and smoothed; gives the smooth line."""
    found = binned(steps, values, most)
    if len(steps) > most:
        axis.fill_between(found.at, found.low, found.high, color=colour, alpha=faint, linewidth=0)
    else:
        axis.plot(found.at, found.mean, color=colour, alpha=faint * 2, linewidth=0.7)
    (smooth,) = axis.plot(found.at, found.smooth, color=colour, linewidth=1.5, linestyle=style)
    alone = singles(found.smooth)
    if not math.isnan(max(alone, key=lambda value: not math.isnan(value), default=math.nan)):
        axis.plot(found.at, alone, ".", color=colour, markersize=3)
    return smooth


def over_steps(
    name: str, title: str, alt: str, note: str, tasks: Sequence[str], steps: np.ndarray, values: np.ndarray, **how: Any
) -> Picture:
    """A picture of one series for each task.

    Args:
        name, title, alt, note: see :class:`Picture`.
        tasks: their names.
        steps: [steps].
        values: [steps, tasks].
        how: ``apart``, a plot for each task even if they are few; ``share_y``; ``log``, a logarithmic scale; ``least``,
            where the scale begins.
    """
    with styled(name):
        together = not how.get("apart") and len(tasks) <= TOGETHER
        if together:
            columns = max(1, min(len(tasks), int(105 / (min(max(map(len, tasks)), 40) + 8))))
            figure, (only,) = panels([""], share_y=False, height=2.2, legend=math.ceil(len(tasks) / columns))
            axes = [only] * len(tasks)
        else:
            figure, axes = panels(tasks, share_y=bool(how.get("share_y")))
        most = BINS if together or len(tasks) <= TOGETHER else BINS // 2
        lines = []
        for place, axis in enumerate(axes):
            colour, style = (COLOURS[place % len(COLOURS)], _style(place)) if together else (COLOURS[0], "-")
            lines.append(
                line(axis, steps, values[:, place], colour, style=style, most=most, faint=0.1 if together else 0.2)
            )
        for axis in dict.fromkeys(axes):
            _scale(axis, values, **how)
        if together:
            labels = [cut(task, 40) for task in tasks]
            figure.legend(lines, labels, loc="lower center", ncols=columns, handlelength=2.6, borderaxespad=0.1)
    return Picture(name, title, alt, note, figure)


def _style(place: int) -> Any:
    return ["-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5))][place % 4]


def _scale(axis: Any, values: np.ndarray, *, log: bool = False, least: float | None = None, **_: Any) -> None:
    import numpy as np

    if log and (values[np.isfinite(values)] > 0).any():
        from matplotlib.ticker import FuncFormatter

        axis.set_yscale("log")
        axis.grid(which="minor", alpha=0.35)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    elif least is not None:
        axis.set_ylim(bottom=least)


def pairs_over_steps(run: Reading, pairs: Sequence[tuple[str, str]]) -> Picture:
    """The cosines of some pairs of tasks' gradients."""
    name, place = "pairs", {task: number for number, task in enumerate(run.tasks)}
    with styled(name):
        figure, axes = panels([a for a, _ in pairs], share_y=True, under=[f"and {b}" for _, b in pairs])
        for axis, (first, second) in zip(axes, pairs, strict=True):
            values = run.steps.cosines[:, place[first], place[second]]
            line(axis, run.steps.numbers[run.steps.looked], values, COLOURS[0])
            axis.axhline(0, color=INK, linewidth=0.8)
            axis.set_ylim(-1.05, 1.05)
            axis.axhspan(-1.05, 0, color=FALL, alpha=0.07, linewidth=0)
    return Picture(
        name,
        "The pairs that conflict most, over steps",
        "Cosine of the gradients over steps for " + ", ".join(f"{a} and {b}" for a, b in pairs) + ".",
        "Cosine of the two tasks' gradients of the shared parameters; below the line the two tasks pull against each "
        "other. At most six pairs, those with the largest share of conflicting looks.",
        figure,
    )


def scores_over_steps(run: Reading, found: dict[str, Any]) -> Picture:
    """Scores of every task, with the intervals in which it moved against another.

    Args:
        run: the folder.
        found: its summary, as in ``report.json``.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    name, scored = "scores", run.evaluations
    tasks, whole = list(scored.scores), scored.run_best
    moved = _moved(found["see_saw"])
    with styled(name):
        under = [f"{scored.metrics[task]}{'' if scored.better[task] else ', less is better'}" for task in tasks]
        figure, axes = panels(tasks, share_y=False, legend=1, under=under)
        for axis, task in zip(axes, tasks, strict=True):
            values = [math.nan if value is None else value for value in scored.scores[task]]
            axis.margins(x=0.04, y=0.18)
            for (before, after), rose in moved.get(task, {}).items():
                axis.axvspan(before, after, color=RISE if rose else FALL, alpha=0.16, linewidth=0)
                end = scored.scores[task][scored.steps.index(after)]
                axis.plot([after], [end], "^" if rose else "v", color=RISE if rose else FALL, markersize=5.5, zorder=4)
            axis.plot(scored.steps, values, "-o", color=INK, linewidth=1.1, markersize=2.2)
            if best := scored.best(task):
                axis.plot([best["step"]], [best["score"]], "o", color=INK, fillstyle="none", markersize=8.5)
            if whole:
                axis.axvline(whole["step"], color=INK, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        handles = [
            Patch(color=RISE, alpha=0.35),
            Patch(color=FALL, alpha=0.35),
            Line2D([], [], marker="o", fillstyle="none", color=INK, linestyle="", markersize=8),
            Line2D([], [], color=INK, linewidth=0.7, linestyle=(0, (2, 2))),
        ]
        labels = [
            "better, while another got worse",
            "worse, while another got better",
            "its own best",
            "the run's best",
        ]
        shown = [place for place in range(4) if (place > 1 or moved) and (place < 3 or whole)]
        figure.legend(
            [handles[place] for place in shown],
            [labels[place] for place in shown],
            loc="lower center",
            ncols=len(shown),
            borderaxespad=0.1,
        )
    count = len(found["see_saw"]["pairs"]) if found["see_saw"] else 0
    return Picture(
        name,
        "Validation scores",
        f"Scores of {', '.join(tasks)} over {len(scored.steps)} evaluations; {count} pairs of tasks see-saw.",
        _note(found),
        figure,
    )


def _moved(see_saw: dict[str, Any] | None) -> dict[str, dict[tuple[int, int], bool]]:
    """Task → (before, after) → whether it rose there, against any other."""
    found: dict[str, dict[tuple[int, int], bool]] = {}
    for pair in (see_saw or {}).get("pairs", ()):
        for before, after, rose in pair["intervals"]:
            for task in pair["tasks"]:
                found.setdefault(task, {})[before, after] = task == rose
    return found


def _note(found: dict[str, Any]) -> str:
    said = "First metric of each task on the validation split. "
    if found["see_saw"]:
        said += (
            "A see-saw: between two evaluations one task got better and another worse, each by more than "
            f"{found['see_saw']['threshold']:g} in its metric's unit. On a small validation split that may be chance."
        )
    return said
