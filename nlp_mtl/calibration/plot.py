"""Reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlp_mtl.calibration.measures import Bin
from nlp_mtl.reporting.picture import FALL, INK, RISE, Picture, cut, styled


def diagram(task: str, before: Sequence[Bin], after: Sequence[Bin]) -> Picture:
    """How often a task is right, by how sure it is; as it is, and scaled.

    Args:
        task: its name.
        before, after: bins of confidence.
    """
    from matplotlib.figure import Figure

    name = f"calibration-{task}"
    total = sum(one.rows for one in before)
    with styled(name):
        figure: Any = Figure(figsize=(4.6, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        told = (("as it is", before, FALL, "o", -0.006), ("scaled", after, RISE, "s", 0.006))
        for label, bins, colour, mark, aside in told:
            places = [one.confidence for one in bins]
            upper.plot(places, [one.accuracy for one in bins], f"{mark}-", color=colour, markersize=4, label=label)
            shares = [one.rows / total for one in bins]
            lower.bar([place + aside for place in places], shares, width=0.012, color=colour)
        upper.set_ylabel("share that is right")
        upper.set_ylim(-0.03, 1.03)
        upper.legend(loc="upper left")
        lower.set_xlim(0, 1.02)
        lower.set_ylabel("rows")
        lower.yaxis.set_major_formatter(lambda value, place: f"{value:.0%}")
        lower.set_xlabel(f"{cut(task, 28)}: probability of the class that is given")
    worst = max(before, key=lambda one: one.rows * abs(one.accuracy - one.confidence))
    return Picture(
        name,
        f"{task}: confidence and accuracy",
        f"Reliability diagram of {task}; the bin that counts most against it has confidence {worst.confidence:.2f} and "
        f"accuracy {worst.accuracy:.2f}, {worst.rows} of {total} rows.",
        "On the dashed line a class that is given with probability p is right in the share p of its rows; below it the "
        "task is too sure. Underneath, how many rows are so sure.",
        figure,
    )
