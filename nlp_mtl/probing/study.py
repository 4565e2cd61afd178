"""Probing an encoder for some tasks: where in it each one lives, and what a head should read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from nlp_mtl.atomic import write_text
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.probing.features import features_of
from nlp_mtl.probing.sparse import Probe, best, probes

logger = logging.getLogger("nlp_mtl")
FORMAT = 1


@dataclass
class Probed:
    """What probes found.

    Attributes:
        model: which encoder.
        found: task → its probes.
        metrics: task → accuracy or pearson.
        within: how much worse a smaller probe may be to be chosen.
    """

    model: str
    found: dict[str, list[Probe]]
    metrics: dict[str, str]
    within: float

    def chosen(self, task: str) -> Probe:
        """The probe that is chosen for a task; see :func:`nlp_mtl.probing.sparse.best`."""
        return best(self.found[task], within=self.within)

    def heads(self) -> dict[str, dict[str, Any]]:
        """`heads` of a run file: which layer and dimensions each task reads."""
        said = {}
        for task in self.found:
            one = self.chosen(task)
            said[task] = {"layer": one.layer, **({} if one.dimensions is None else {"dimensions": one.dimensions})}
        return said

    def table(self) -> list[dict[str, str]]:
        """A row for each task, as text."""
        rows = []
        for task, found in self.found.items():
            one = self.chosen(task)
            top = [probe for probe in found if probe.dimensions is None and probe.layer == max(p.layer for p in found)]
            rows.append(
                {
                    "task": task,
                    "metric": self.metrics[task],
                    "layer": str(one.layer),
                    "dimensions": "all" if one.dimensions is None else str(len(one.dimensions)),
                    "held out": f"{one.held_out:.3f}",
                    "validation": "—" if one.score is None else f"{one.score:.3f}",
                    "last layer, all": "—" if not top or top[0].score is None else f"{top[0].score:.3f}",
                }
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``probe.json``."""
        each = {task: [asdict(one) for one in found] for task, found in self.found.items()}
        said = {"format": FORMAT, "model": self.model, "metrics": self.metrics, "within": self.within}
        return {**said, "probes": each, "heads": self.heads()}


def probe(
    model: str | Path,
    tasks: Sequence[Any],
    *,
    dimensions: Sequence[int] = (0, 64, 16),
    rows: int = 2000,
    within: float = 0.01,
    pooling: str = "mean",
    data_root: str | Path | None = None,
    registry_folders: Sequence[str] = (),
    max_length: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Probed:
    """Linear probes of a pretrained encoder, for each task, layer and number of dimensions.

    The encoder is run once over each task's rows. What is chosen is chosen on held-out training rows.

    Args:
        model: a pretrained folder or id.
        tasks: names, tags, paths or tasks; classification, regression or tagging.
        dimensions: how many are kept; 0 for all.
        rows: at most so many training rows of a task, and as many validation rows.
        within: how much worse on held-out rows a probe with fewer dimensions may be to be chosen.
        pooling: what is probed of a text: ``mean``, ``cls`` or ``last``.
        data_root, registry_folders, max_length, seed: see :meth:`MultiTaskModel.from_base`.
        progress: show a bar.

    Raises:
        ConfigError: wrong numbers.
        UnsupportedError: encoders whose layers share weights; tasks without one label for what is read.
        DataError: a task without training rows.

    Relations: Liu et al. (2019, arXiv 1903.08855) and Tenney et al. (2019, arXiv 1905.05950) on layers; Gurnee et al.
    (2023, arXiv 2305.01610) on few dimensions.

    Example:
        >>> import nlp_mtl.probing.sparse as sparse, numpy as np
        >>> from nlp_mtl.probing.features import Features
        >>> x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
        >>> some = Features({1: x}, (x[:, 5] > 0).astype(int), np.arange(200))
        >>> sparse.probes(some, None, [1], numbers=False)[0].dimensions
        [5]
    """
    _check(dimensions, rows, within, pooling)
    made = MultiTaskModel.from_base(
        model,
        list(tasks),
        freeze="*",
        data_root=data_root,
        registry_folders=registry_folders,
        max_length=max_length,
        seed=seed,
    )
    for head in made.heads.values():
        if hasattr(head, "pooling"):
            head.pooling = pooling
    data = load_data(made.heads, made.tokenizer, max_length=made.max_length, data_root=data_root)
    found: dict[str, list[Probe]] = {}
    metrics: dict[str, str] = {}
    refused: list[str] = []
    for task in tqdm(made.tasks, desc="probing", unit="task", disable=not progress):
        try:
            train = features_of(made, data, task, "train", most=rows, seed=seed)
            if train is None or len(set(train.groups.tolist())) < 4:
                raise DataError(f"probe: task {task!r} has fewer than 4 labelled training rows; leave it out")
            test = features_of(made, data, task, "validation", most=rows, seed=seed)
        except (UnsupportedError, DataError) as error:
            refused.append(str(error))
            continue
        numbers = train.labels.dtype.kind == "f"
        metrics[task] = "pearson" if numbers else "accuracy"
        found[task] = probes(train, test, list(dimensions), numbers=numbers, seed=seed)
    if refused:
        raise UnsupportedError("\n".join(refused))
    return Probed(str(made.base["id"]), found, metrics, within)


def write(found: Probed, folder: str | Path) -> Path:
    """``probe.json`` and ``probe.svg``; gives the folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "probe.json", json.dumps(found.as_json(), indent=1) + "\n")
    from nlp_mtl.probing.plot import draw

    draw(found, place / "probe.svg")
    return place


def _check(dimensions: Sequence[int], rows: int, within: float, pooling: str) -> None:
    mistakes = []
    if not dimensions or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in dimensions):
        mistakes.append(f"probe: `dimensions` are whole numbers, 0 for all, found {list(dimensions)}; e.g. 0 64 16")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 4:
        mistakes.append(f"probe: `rows` is a whole number from 4, found {rows!r}; a quarter of them is held out")
    if not 0 <= within < 1:
        mistakes.append(f"probe: `within` is a difference of scores from 0 to below 1, found {within!r}")
    if pooling not in ("mean", "cls", "last"):
        mistakes.append(f"probe: `pooling` is mean, cls or last, found {pooling!r}")
    if mistakes:
        raise ConfigError(mistakes)
