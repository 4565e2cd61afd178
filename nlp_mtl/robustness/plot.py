"""Robustness as a picture: what each perturbation costs each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlp_mtl.reporting.picture import COLOURS, INK, Picture, cut, styled

if TYPE_CHECKING:
    from nlp_mtl.robustness.study import Robustness


def draw(found: Robustness) -> Picture | None:
    """The drops with their intervals, a panel for each task; None if there are none."""
    from matplotlib.figure import Figure

    held = [one for one in found.held if one.after is not None]
    tasks = list(dict.fromkeys(one.task for one in held))
    names = list(dict.fromkeys(one.name for one in held))
    if not held:
        return None
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    with styled("robustness"):
        figure = Figure(figsize=(1.6 + 2.3 * across, down * (0.6 + 0.21 * len(names))), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for number, task in enumerate(tasks):
            panel = panels[number // across][number % across]
            panel.axvline(0, color=INK, linewidth=0.8)
            for one in held:
                if one.task != task:
                    continue
                at, lost = names.index(one.name), found.cost(one)
                if one.interval is not None:
                    panel.plot(one.interval, (at, at), color=COLOURS[0], linewidth=1.4)
                panel.plot([lost], [at], "o", color=COLOURS[0], markersize=4)
            panel.set_title(f"{cut(task, 22)}: cost in {cut(next(o.metric for o in held if o.task == task), 16)}")
            panel.set_yticks(range(len(names)), [cut(name, 22) for name in names])
            panel.set_ylim(len(names) - 0.5, -0.5)
        for spare in range(len(tasks), across * down):
            panels[spare // across][spare % across].set_visible(False)
    alt = "; ".join(f"{one.task} under {one.name}: {found.cost(one):+.3f}" for one in held)
    note = "What the score loses when texts are changed, and its 95 % interval over rows; right of the line is a loss."
    return Picture("robustness", "What changed texts cost", alt, note, figure)
