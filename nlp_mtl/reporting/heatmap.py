"""Task by task: mean cosines, and shares of conflicting looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_mtl.reporting.picture import FAINT, Picture, cut, styled

NUMBERS = 12  # up to so many tasks the cells hold numbers


def heat_map(
    name: str,
    title: str,
    alt: str,
    note: str,
    tasks: Sequence[str],
    values: Mapping[str, Mapping[str, float]],
    **how: Any,
) -> Picture:
    """A picture of a symmetric matrix.

    Args:
        name, title, alt, note: see :class:`Picture`.
        tasks: their names.
        values: task → task → value, each pair once; pairs that are not in it have an empty cell.
        how: ``signed``, from −1 to 1 with the middle at 0, else a share from 0 to 1; ``label``, of the scale.
    """
    import numpy as np

    count, place = len(tasks), {task: number for number, task in enumerate(tasks)}
    matrix = np.full((count, count), np.nan)
    for first, row in values.items():
        for second, value in row.items():
            matrix[place[first], place[second]] = matrix[place[second], place[first]] = value
    return Picture(name, title, alt, note, _drawn(name, matrix, tasks, tasks, **how))


def grid(
    name: str, title: str, alt: str, note: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]], **how: Any
) -> Picture:
    """A picture of a table of numbers.

    Args:
        name, title, alt, note: see :class:`Picture`.
        columns: their names.
        rows: name → a number for each column.
        how: as for :func:`heat_map`.
    """
    import numpy as np

    matrix = np.array([list(values) for values in rows.values()], dtype=float)
    return Picture(name, title, alt, note, _drawn(name, matrix, list(rows), columns, **how))


def _drawn(name: str, matrix: Any, rows: Sequence[str], columns: Sequence[str], **how: Any) -> Any:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    signed = bool(how.get("signed"))
    colours, scale = (colormaps["RdBu"], Normalize(-1, 1)) if signed else (colormaps["Oranges"], Normalize(0, 1))
    if signed and np.isfinite(matrix).any():  # cosines of many parameters are small: the scale ends where they do
        end = max(0.1, float(np.ceil(np.nanmax(np.abs(matrix)) * 10) / 10))
        scale = Normalize(-end, end)
    most = max(matrix.shape)
    cell = 0.56 if most <= NUMBERS else 0.34
    labels = [[cut(one, 26) for one in some] for some in (rows, columns)]
    room = [max(map(len, some), default=0) * 0.075 + 0.2 for some in labels]
    height, width = (max(count * cell, 1.3) for count in matrix.shape)
    with styled(name):
        size = (width + room[0] + 1.1, height + min(room[1] * 0.8, 1.9) + 0.15)
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        shown = axis.pcolormesh(np.ma.masked_invalid(matrix), cmap=colours, norm=scale, edgecolors=FAINT, linewidth=0.6)
        axis.set_aspect("equal")
        axis.invert_yaxis()
        points = 8 if most <= NUMBERS else 7
        axis.set_yticks(np.arange(matrix.shape[0]) + 0.5, labels[0], fontsize=points)
        turned: dict[str, Any] = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(np.arange(matrix.shape[1]) + 0.5, labels[1], fontsize=points, **turned)
        axis.tick_params(length=0)
        if most <= NUMBERS:
            for i, j in zip(*np.nonzero(np.isfinite(matrix)), strict=True):
                _number(axis, j, i, matrix[i, j], colours(scale(matrix[i, j])), signed)
        for i, j in zip(*np.nonzero(np.isnan(matrix)), strict=True):
            if i != j:
                axis.text(j + 0.5, i + 0.5, "–", ha="center", va="center", fontsize=points, alpha=0.6)
        bar = figure.colorbar(shown, ax=axis, fraction=0.05, pad=0.03, shrink=0.8)
        bar.outline.set_visible(False)
        bar.ax.grid(False)
        bar.set_label(how.get("label", ""), fontsize=8)
        if not signed:
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def _number(axis: Any, column: int, row: int, value: float, colour: Any, signed: bool) -> None:
    red, green, blue = colour[:3]
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") if signed else f"{value * 100:.0f}"
    colour = "#ffffff" if dark else "#101418"  # on the cell's colour, which is that of no page
    axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color=colour)
