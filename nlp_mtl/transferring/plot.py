"""Affinity as pictures: a matrix, with like tasks side by side, and a dendrogram."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlp_mtl.affinity import Affinity
from nlp_mtl.reporting.heatmap import grid
from nlp_mtl.reporting.picture import COLOURS, Picture, cut, styled


def joined(affinity: Affinity) -> np.ndarray:
    """[m − 1, 4]: which groups of tasks are joined at what distance, as `scipy` writes it.

    The distance of two tasks is the largest affinity there is (1 for cosines) less theirs, of both directions; that of
    two groups the mean over their tasks. What is not known counts as 0.

    Example:
        >>> one = Affinity(("a", "b", "c"), np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1.0]]), "example")
        >>> joined(one)[:, 2].round(2).tolist()
        [0.1, 1.0]
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    alike = np.nan_to_num(affinity.symmetric())
    apart = max(1.0, float(alike.max())) - alike
    np.fill_diagonal(apart, 0.0)
    return linkage(squareform(apart, checks=False), method="average", optimal_ordering=True)


def matrix(affinity: Affinity) -> Picture:
    """Helper × helped, tasks in the order of the dendrogram."""
    from scipy.cluster.hierarchy import leaves_list

    order = leaves_list(joined(affinity)) if len(affinity.tasks) > 1 else [0]
    one = affinity.of([affinity.tasks[place] for place in order])
    shown = np.where(np.isnan(one.values), np.nan, one.values)
    note = "A row helps a column; tasks that are alike stand together. A dash: not known."
    return grid(
        f"affinity-{affinity.measure.replace(' ', '-')}",
        f"Affinity of tasks: {affinity.measure}",
        f"A matrix of {len(one.tasks)} by {len(one.tasks)} tasks: {affinity.measure}.",
        note,
        one.tasks,
        dict(zip(one.tasks, shown, strict=True)),
        signed=True,
        label=affinity.measure,
    )


def dendrogram(affinity: Affinity) -> Picture:
    """Which tasks join first."""
    from matplotlib.figure import Figure
    from scipy.cluster import hierarchy

    name = f"dendrogram-{affinity.measure.replace(' ', '-')}"
    tree = joined(affinity)
    with styled(name):
        figure = Figure(figsize=(5.6, 0.27 * len(affinity.tasks) + 0.9), layout="constrained")
        axis: Any = figure.subplots()
        drawn = hierarchy.dendrogram(tree, no_plot=True)
        for across, up in zip(drawn["dcoord"], drawn["icoord"], strict=True):
            axis.plot(across, up, color=COLOURS[0], linewidth=1.4, clip_on=False)
        places = 10 * np.arange(len(affinity.tasks)) + 5  # where scipy puts leaves
        axis.set_yticks(places, [cut(affinity.tasks[place], 30) for place in drawn["leaves"]])
        axis.invert_yaxis()
        axis.set_xlim(right=0, left=max(1e-6, 1.05 * float(tree[:, 2].max())))
        axis.yaxis.tick_right()
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel(f"distance, from {affinity.measure}", fontsize=8)
    return Picture(
        name,
        f"Which tasks join first: {affinity.measure}",
        f"A dendrogram of {len(affinity.tasks)} tasks by {affinity.measure}.",
        "Tasks that join far to the right are alike; groups are joined by the mean over their tasks.",
        figure,
    )
