"""Domains as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text

_LEAST = 10  # points, below which t-SNE says nothing


def draw(features: Mapping[str, Mapping[str, np.ndarray]], file: Path, *, points: int = 300, seed: int = 0) -> None:
    """Write an SVG: rows as points, coloured by domain, by PCA and t-SNE; a line of pictures for each encoder.

    Args:
        features: encoder → task → [rows, hidden].
        file: where.
        points: at most so many rows of each task.
        seed: of which rows, and of t-SNE.

    Relations: t-SNE shows who is near whom and not how far apart groups are (van der Maaten and Hinton, 2008, JMLR 9);
    PCA keeps distances as far as two directions can.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8.4, 3.9 * len(features)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(len(features), 2, squeeze=False)
    for (encoder, of_task), line in zip(features.items(), axes, strict=True):
        random = np.random.default_rng(seed)
        parts = {task: part[random.permutation(len(part))[:points]] for task, part in of_task.items()}
        whole = np.concatenate(list(parts.values())).astype(np.float64)
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
        order = random.permutation(len(whole))  # else the last task hides the others
        for axis, (name, places) in zip(line, _views(whole, seed).items(), strict=True):
            axis.scatter(*places[order].T, s=7, alpha=0.6, linewidths=0, c=[f"C{n % 10}" for n in owner[order]])
            axis.set_title(f"{encoder}: {name}", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for number, task in enumerate(next(iter(features.values()))):
        axes[0][0].scatter([], [], s=20, c=f"C{number % 10}", label=task)
    axes[0][0].legend(fontsize=8)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    write_text(file, stream.getvalue())


def _views(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """[rows, 2] each."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    flat = PCA(2, svd_solver="full").fit(features)
    shares = ", ".join(f"{share:.0%}" for share in flat.explained_variance_ratio_)
    found = {f"PCA ({shares} of the variance)": flat.transform(features)}
    if len(features) >= _LEAST:
        near = min(30.0, (len(features) - 1) / 3)
        found[f"t-SNE (perplexity {near:.0f})"] = TSNE(2, perplexity=near, init="pca", random_state=seed).fit_transform(
            features.astype(np.float32)
        )
    else:
        found["t-SNE (too few rows)"] = found[next(iter(found))]
    return found
