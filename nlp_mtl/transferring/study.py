"""Which encoder for which task, and which tasks together: everything that can be said before training."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint, registry
from nlp_mtl.affinity import Affinity
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import Spec
from nlp_mtl.transferring.affinities import affinities_of, built
from nlp_mtl.transferring.features import features_of
from nlp_mtl.transferring.opening import open_tasks
from nlp_mtl.transferring.scoring import pairs_of, scores_of, trivial_of

FORMAT = 1
ESTIMATORS = ("logme", "h_score", "knn", "linear_probe", "leep", "nce")
EVIDENCE = ("embedding", "gradient_cosine")


@dataclass
class Transferability:
    """What was found.

    Attributes:
        models: names of the encoders; the affinities are of the first.
        tasks: names.
        rows: task → how many rows were looked at.
        scores: encoder → task → estimator → score, higher is better; only what there is for the task's labels.
        trivial: task → what `knn` and `linear_probe` reach without features; None where nothing is scored.
        affinities: measure → a matrix, for `nlp-mtl groups`.
        notes: what should be known of them.
        seconds: it took.
        folder: where it was written; None if it was not.
    """

    models: list[str]
    tasks: list[str]
    rows: dict[str, int]
    scores: dict[str, dict[str, dict[str, float]]]
    trivial: dict[str, float | None]
    affinities: dict[str, Affinity]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    folder: Path | None = None

    def table(self) -> list[dict[str, str]]:
        """A row for each task and encoder, as text."""
        names = list(dict.fromkeys(name for of in self.scores.values() for one in of.values() for name in one))
        rows = []
        for task in self.tasks:
            for model in self.models:
                found = self.scores[model][task]
                row = {"task": task, **({"encoder": model} if len(self.models) > 1 else {})}
                base = self.trivial[task]
                row |= {"rows": str(self.rows[task]), "trivial": "—" if base is None else f"{base:.3f}"}
                rows.append(row | {name: f"{found[name]:.3f}" if name in found else "—" for name in names})
        return rows

    def best(self, estimator: str = "logme") -> dict[str, str]:
        """Task → the encoder with the highest score; tasks without one are left out.

        Args:
            estimator: whose score.
        """
        having = [task for task in self.tasks if all(estimator in self.scores[model][task] for model in self.models)]
        return {task: max(self.models, key=lambda model: self.scores[model][task][estimator]) for task in having}

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``transferability.json``."""
        return {
            "format": FORMAT,
            "models": self.models,
            "tasks": self.tasks,
            "rows": self.rows,
            "trivial": self.trivial,
            "scores": self.scores,
            "affinities": {name: one.as_json() for name, one in self.affinities.items()},
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
        }

    def markdown(self) -> str:
        """The tables and the notes."""
        rows = self.table()
        lines = ["# Transferability", "", *_lines([list(rows[0]), *([*row.values()] for row in rows)]), ""]
        lines += [
            "Scores of fixed features, no training; higher is better. `knn` and `linear_probe` are accuracies, or "
            "Pearson's r of values, beside `trivial`; `logme` and `h_score` compare encoders on one task."
        ]
        if len(self.models) > 1 and (best := self.best()):
            lines += ["", "By LogME: " + "; ".join(f"{task}: {model}" for task, model in best.items()) + "."]
        for name, one in self.affinities.items():
            cells = [
                [task, *(_cell(value) for value in line)] for task, line in zip(one.tasks, one.values, strict=True)
            ]
            lines += ["", f"## {one.measure}", "", *_lines([["helper \\ helped", *one.tasks], *cells])]
            lines += ["", f"In `affinity_{name}.json`, `.svg` and `dendrogram_{name}.svg`."]
        lines += [f"\n- {note}" for note in self.notes]
        return "\n".join([*lines, ""])

    def write(self, folder: str | Path) -> Path:
        """``transferability.json`` and ``.md``, and of each measure ``affinity_<measure>.json``, its pictures.

        Raises:
            ConfigError: a folder can't be there.
        """
        place = self.folder = checkpoint.made_folder(folder)
        write_text(place / "transferability.json", json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        write_text(place / "transferability.md", self.markdown())
        from nlp_mtl.transferring.plot import dendrogram, matrix

        for name, one in self.affinities.items():
            one.save(place / f"affinity_{name}.json")
            write_text(place / f"affinity_{name}.svg", matrix(one).svg() + "\n")
            write_text(place / f"dendrogram_{name}.svg", dendrogram(one).svg() + "\n")
        return place


def transferability(
    models: str | Path | Sequence[str | Path],
    tasks: Sequence[Any],
    *,
    evidence: Spec | Sequence[Spec] | None = None,
    estimators: Sequence[Spec] = ESTIMATORS,
    rows: int = 2000,
    data_root: str | Path | None = None,
    registry_folders: Sequence[str | Path] = (),
    max_length: int | None = 128,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
) -> Transferability:
    """Score encoders for tasks, and tasks for one another, before anything is trained.

    An encoder runs once over each task's rows; features and what is computed of them are kept in the cache folder.

    Args:
        models: pretrained folders, packaged models' names or Hub ids; one or several.
        tasks: names, tags, paths or tasks.
        evidence: on the first encoder, see :func:`nlp_mtl.transferring.affinities.affinity`; default
            ``embedding`` and ``gradient_cosine`` where there are several tasks. Empty for none.
        estimators: names or ``{name: …, arguments}``; ``nlp-mtl methods estimator`` lists them.
        rows: at most so many labelled training rows of each task.
        data_root, registry_folders, max_length: see :meth:`nlp_mtl.MultiTaskModel.from_base`.
        seed: of which rows, of folds, and of what is trained.
        out: a folder to write to; None to write nothing.
        progress: show bars.

    Raises:
        ConfigError: wrong arguments, all at once.
        DataError: tasks with too few rows.
        NotFoundError, UnsupportedError: with the way out.
    """
    begin = time.perf_counter()
    places = [models] if isinstance(models, (str, Path)) else list(models)
    scorers, kinds = _built(places, estimators, evidence)
    names = _named(places)
    found = Transferability(names, [], {}, {}, {}, {})
    for name, place in zip(names, places, strict=True):
        opened = open_tasks(
            place,
            tasks,
            rows=rows,
            data_root=data_root,
            registry_folders=registry_folders,
            max_length=max_length,
            seed=seed,
            progress=progress,
        )
        found.scores[name] = scores_of(opened, scorers)
        if name == names[0]:
            found.tasks, found.rows = list(opened.tasks), {task: len(part) for task, part in opened.rows.items()}
            found.trivial = {task: trivial_of(features_of(opened, task)) for task in opened.tasks}
            wanted = kinds if evidence is not None or len(opened.tasks) > 1 else {}
            found.affinities = {**affinities_of(opened, wanted), **pairs_of(opened, scorers)}
    found.notes = [f"{one.measure}: {said}" for one in found.affinities.values() for said in one.said.get("notes", ())]
    found.notes += [
        f"{task}: its head reads no single vector for a label, so only its texts are looked at"
        for task, known in found.trivial.items()
        if known is None
    ]
    found.seconds = time.perf_counter() - begin
    if out is not None:
        found.write(out)
    return found


def _built(places: Sequence[Any], estimators: Sequence[Spec], evidence: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Estimators and evidence by name; all mistakes at once."""
    mistakes = [] if places else ["transferability: `models` names an encoder, found none; give a folder or an id"]
    scorers: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for spec in estimators:
        try:
            scorers[registry.parse_spec(spec, "estimator")[0]] = registry.estimators.build(spec)
        except ConfigError as error:
            mistakes += error.mistakes
    try:
        kinds = built(EVIDENCE if evidence is None else evidence)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return scorers, kinds


def _named(places: Sequence[str | Path]) -> list[str]:
    """Short names: the last part of a path, the whole where two have the same."""
    if twice := sorted({str(place) for place in places if [str(p) for p in places].count(str(place)) > 1}):
        raise ConfigError(f"transferability: each encoder is named once, found {', '.join(twice)} twice; leave one out")
    short = [Path(place).name or str(place) for place in places]
    return [name if short.count(name) == 1 else str(place) for name, place in zip(short, places, strict=True)]


def _cell(value: float) -> str:
    return "—" if value != value else f"{value:.2f}".replace("-0.00", "0.00")


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]]]
