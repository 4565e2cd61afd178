"""Words coloured by what they add, and CKA as lines and squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nlp_mtl.interpretation.attributions import Attribution
from nlp_mtl.reporting.picture import COLOURS, FALL, INK, RISE, Picture, cut, styled

_LINE = 92  # characters in a line


def draw_words(found: Sequence[Attribution]) -> Picture:
    """A block of lines for each task, each word on its colour: blue speaks for the answer, red against it."""
    from matplotlib.figure import Figure

    lines: list[tuple[str, list[tuple[str, float]]]] = []
    for one in found:
        most = max((abs(value) for value in one.values), default=0.0) or 1.0
        lines += _broken(f"{one.task}: {one.label}", one.words, [value / most for value in one.values])
    with styled("interpretation"):
        figure = Figure(figsize=(8.6, 0.15 + 0.27 * len(lines)))
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set_axis_off()
        panel.grid(False)
        panel.set_xlim(0, _LINE + 30)
        panel.set_ylim(len(lines), -0.3)
        said: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 7.2, "va": "center", "ha": "left"}
        for at, (title, words) in enumerate(lines):
            panel.text(0.5, at + 0.35, cut(title, 26), fontsize=8, va="center", weight="bold", color=INK)
            x = 28.0
            for word, value in words:
                colour = RISE if value > 0 else FALL
                box = {"facecolor": colour, "alpha": 0.65 * abs(value), "edgecolor": "none", "pad": 1.0}
                panel.text(x, at + 0.35, word.replace("$", r"\$"), color=INK, bbox=box, **said)
                x += len(word) + 1.0
    alt = "; ".join(
        f"{one.task}, {one.label}: " + ", ".join(f"{w} {v:+.2f}" for w, v in zip(one.words, one.values, strict=True))
        for one in found
    )
    note = "Blue words speak for the task's answer, red ones against it; colours are scaled within each task."
    return Picture("interpretation", "What each word adds", alt, note, figure)


def _broken(title: str, words: Sequence[str], values: Sequence[float]) -> list[Any]:
    lines: list[Any] = []
    row: list[tuple[str, float]] = []
    size = 0
    for word, value in zip(words, values, strict=True):
        word = cut(word, 40)
        if row and size + len(word) + 1 > _LINE:
            lines.append(row)
            row, size = [], 0
        row.append((word, value))
        size += len(word) + 1
    lines.append(row)
    return [(title if number == 0 else "", line) for number, line in enumerate(lines)]


def apart(values: Sequence[float], least: float) -> list[float]:
    """Places for labels near some values, at least so far from each other, in the same order.

    Example:
        >>> [round(value, 2) for value in apart([0.5, 0.9, 0.48], 0.1)]
        [0.58, 0.9, 0.48]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = list(map(float, values))
    for lower, upper in pairwise(order):
        found[upper] = max(found[upper], found[lower] + least)
    return found


def draw_cka(layers: Mapping[str, Sequence[float]], names: Sequence[str], matrix: np.ndarray) -> Picture:
    """Lines: each encoder against the pretrained one by layer. Squares: encoders against each other, last layer."""
    from matplotlib.figure import Figure

    with styled("cka"):
        wide = 2 if len(names) > 2 or not layers else 1
        figure = Figure(figsize=(4.2 * (wide if layers else 1), 3.2), layout="constrained")
        panels = list(np.atleast_1d(figure.subplots(1, wide if layers else 1)))
        if layers:
            panel = panels.pop(0)
            ends = apart([values[-1] for values in layers.values()], 0.05)
            for number, (name, values) in enumerate(layers.items()):
                colour = COLOURS[number % len(COLOURS)]
                panel.plot(range(len(values)), values, "o-", color=colour, markersize=3.5)
                place = (len(values) - 0.85, ends[number])
                panel.annotate(cut(name, 18), place, fontsize=7, va="center", color=colour)
            panel.set_xticks(range(max(map(len, layers.values()))))
            panel.set_xlabel("layer (0: embeddings)")
            panel.set_title("CKA with the pretrained encoder")
            panel.set_ylim(min(0.0, *(min(values) for values in layers.values())), 1.05)
            panel.margins(x=0.18)
        if panels:
            panel = panels[0]
            panel.grid(False)
            panel.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
            shown = [cut(name, 18) for name in names]
            panel.set_xticks(range(len(names)), shown, rotation=35, ha="right")
            panel.set_yticks(range(len(names)), shown)
            panel.set_title("CKA of the last layers")
            for i in range(len(names)):
                for j in range(len(names)):
                    colour = "white" if matrix[i, j] > 0.6 else "#1c2127"
                    panel.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    alt = "; ".join(f"{name}: {', '.join(f'{v:.2f}' for v in values)}" for name, values in layers.items())
    note = "1: the same states up to rotation and scale; near 0: unrelated. Debiased linear CKA of mean-pooled states."
    return Picture("cka", "How alike hidden states are", alt or "CKA of encoders", note, figure)
