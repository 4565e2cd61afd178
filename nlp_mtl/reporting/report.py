"""The report of a run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, shown
from nlp_mtl.findings import Finding, read_findings
from nlp_mtl.pulling import last_stage
from nlp_mtl.reporting.page import number, page, share
from nlp_mtl.reporting.picture import Picture
from nlp_mtl.reporting.reading import Reading, read_folder
from nlp_mtl.reporting.sections import markdown, ordered, section
from nlp_mtl.reporting.summary import most_conflicting, summed_up

JSON, HTML, MARKDOWN = "report.json", "report.html", "report.md"


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        summary: what ``report.json`` says; see :mod:`nlp_mtl.reporting.summary` for its format.
        pictures: name → figure: losses, weights, rates, norms, cosines, conflicting, pairs, scores; those for which the
            run has numbers. A notebook shows a figure that ends a cell.
        files: what was written.
    """

    summary: dict[str, Any]
    pictures: dict[str, Picture] = field(repr=False)
    files: tuple[Path, ...] = ()

    def table(self) -> list[dict[str, str]]:
        """One row for each task, as text."""
        rows = []
        for task, known in self.summary["tasks"].items():
            best = known["best"] or {}
            rows.append(
                {
                    "task": task,
                    "metric": known["metric"] or "—",
                    "own best": number(best.get("score")),
                    "at step": str(best.get("step", "—")),
                    "at the run's best": number(known["at_run_best"]),
                    "loss": f"{number(known['loss']['first'])} → {number(known['loss']['last'])}",
                    "weight": number(known["weight"]["mean"]),
                    "rate": share(known["rate"]),
                    "gradient norm": number(known["norm"]),
                }
            )
        return rows

    def sentences(self) -> list[str]:
        """What is to be known beside the table, a line each."""
        gradients, saw, said = self.summary["gradients"], self.summary["see_saw"], []
        if gradients:
            looked = self.summary["steps"]["looked"]
            said.append(
                f"Cosines below 0: {share(gradients['conflicting_share'])} of the pairs' in {looked} steps looked at; "
                f"mean {number(gradients['cosine_mean'])}"
            )
            for first, second in most_conflicting(gradients, 1):
                there = share(gradients["conflicting"][first][second])
                said.append(f"Most in conflict: {first} and {second}, {there} below 0")
        if saw:
            pairs = [
                f"{' and '.join(pair['tasks'])} in {pair['count']} of {pair['scored']}" for pair in saw["pairs"][:3]
            ]
            more = f", and {len(saw['pairs']) - 3} more pairs" if len(saw["pairs"]) > 3 else ""
            said.append(f"See-saws between evaluations: {'; '.join(pairs) + more if pairs else 'none'}")
        return said + [f"Not in it: {one}" for one in self.summary["missing"]]


def report(folder: str | Path, *, out: str | Path | None = None, see_saw: float = 0.01) -> Report:
    """Draw what a run did, into ``report.html``, ``report.md`` and ``report.json``.

    What was found out about the run since its training (:mod:`nlp_mtl.findings`: its verdict, calibration, robustness)
    is in it. Works on a run that is finished, stopped, or still being trained; what could not be measured is said.
    The same folder gives the same files, byte by byte.

    Args:
        folder: the run folder.
        out: where to write; made if it is not there. Default: the run folder.
        see_saw: how much two tasks' scores must have moved against each other to count, in their metrics' own units;
            see :func:`nlp_mtl.reporting.seesaw.see_saws`.

    Raises:
        RunFolderError: no run folder, one with nothing to report yet, or damaged files.
        ConfigError: a threshold below 0; a place that can't be written to.

    Example:
        ::

            found = nlp_mtl.report("runs/demo")
            found.summary["gradients"]["conflicting_share"]
            found.pictures["cosines"]
    """
    folder, run = readable(folder, out, see_saw)
    found = summed_up(run, float(see_saw))
    known = read_findings(folder)
    found["findings"] = {one.name: dict(one.data) for one in known}
    pictures = {picture.name: picture for picture in drawn(run, found)}
    above, below = ([section(one) for one in part] for part in ordered(known))
    made = Report(found, pictures)
    texts = {  # all of it, before anything is written
        JSON: as_json(found),
        HTML: page(found, list(pictures.values()), above, below),
        MARKDOWN: _markdown(made, known),
    }
    place = _made(folder if out is None else out)
    for name, text in texts.items():
        write_text(place / name, text)
    return replace(made, files=tuple(place / name for name in texts))


def readable(folder: str | Path, out: str | Path | None, see_saw: float) -> tuple[Path, Reading]:
    """The folder that a report is of, and what it holds; nothing is written but the folder that was asked for.

    Args:
        folder, out, see_saw: see :func:`report`.

    Raises:
        RunFolderError, ConfigError: see :func:`report`.
    """
    if isinstance(see_saw, bool) or not isinstance(see_saw, (int, float)) or not 0 <= see_saw < float("inf"):
        raise ConfigError(f"report: `see_saw` is a change of score from 0, found {see_saw!r}; leave it out for 0.01")
    place = last_stage(Path(folder))
    found = read_folder(place)
    if out is not None:
        _made(out)
    return place, found


def _markdown(made: Report, known: Sequence[Finding]) -> str:
    """``report.md``: what the page says, without its figures."""
    rows, state = made.table(), "" if made.summary["finished"] else " — not finished"
    above, below = ordered(known)
    parts = [f"# Report of {made.summary['run']}{state}", "", *[markdown(one) for one in above]]
    if rows:
        head = list(rows[0])
        parts += ["## Tasks", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        parts += ["| " + " | ".join(row[key].replace("|", "\\|") for key in head) + " |" for row in rows]
        parts.append("")
    parts += [*[f"* {one}" for one in made.sentences()], "", *[markdown(one) for one in below]]
    return "\n".join(parts).rstrip() + "\n"


def as_json(found: dict[str, Any]) -> str:
    """``report.json`` as text."""
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def drawn(run: Reading, found: dict[str, Any]) -> list[Picture]:
    """All figures that there are numbers for."""
    import numpy as np

    from nlp_mtl.reporting.curves import over_steps, pairs_over_steps, scores_over_steps
    from nlp_mtl.reporting.heatmap import grid, heat_map

    steps, tasks, listed = run.steps, run.tasks, ", ".join(run.tasks)
    made: list[Picture] = []
    if run.evaluations.steps and run.evaluations.scores:
        made.append(scores_over_steps(run, found))
    if np.isfinite(steps.losses).any():
        note = "Each task's mean loss: faint as it was, with the span in each bin of steps; the line is a running mean."
        alt = f"Loss over {len(steps.numbers)} steps of {listed}."
        made.append(over_steps("losses", "Losses", alt, note, tasks, steps.numbers, steps.losses, apart=True))
    if np.isfinite(steps.weights).any():
        note = "What a task's loss or gradient counted in a step; nothing where it was absent."
        alt = f"Weights over steps of {listed}."
        few, many = np.nanpercentile(steps.weights, [2, 98])
        positive = np.nanmin(steps.weights) > 0
        how: dict[str, Any] = {"share_y": True, "log": bool(positive and many > 20 * few)}
        how["least"] = 0 if np.nanmin(steps.weights) >= 0 else None
        made.append(over_steps("weights", "Weights", alt, note, tasks, steps.numbers, steps.weights, **how))
    if np.isfinite(steps.rates).any():
        note = "Each task's share of a step's rows; rows that several tasks label count for each."
        alt = f"Mixing rates over steps of {listed}."
        rates = np.nan_to_num(steps.rates, nan=0.0)
        made.append(over_steps("rates", "Mixing rates", alt, note, tasks, steps.numbers, rates, share_y=True, least=0))
    if np.isfinite(steps.norms).any():
        note = "Norm of each task's gradient of the shared parameters, unweighted, in the steps that looked."
        alt = f"Gradient norms over steps of {listed}."
        how = {"share_y": True, "log": True}
        looked = steps.numbers[steps.looked]
        made.append(over_steps("norms", "Gradient norms", alt, note, tasks, looked, steps.norms, **how))
    if gradients := found["gradients"]:
        said = [f"{a} and {b} {number(gradients['cosine'][a][b])}" for a, b in most_conflicting(gradients, 3)]
        made.append(
            heat_map(
                "cosines",
                "Do the tasks' gradients agree?",
                f"Mean cosines between {len(tasks)} tasks' gradients; most in conflict: {', '.join(said)}.",
                f"Mean cosine of two tasks' gradients of the shared parameters over {found['steps']['looked']} steps. "
                "Blue: they agree; red: they pull against each other; 0: nothing in common. The scale ends where the "
                "values do.",
                tasks,
                gradients["cosine"],
                signed=True,
                label="mean cosine",
            )
        )
        said = [f"{a} and {b} {share(gradients['conflicting'][a][b])}" for a, b in most_conflicting(gradients, 3)]
        made.append(
            heat_map(
                "conflicting",
                "Share of conflicting steps",
                f"Share of looks with a cosine below 0, by pair; most: {', '.join(said)}.",
                "In how many of the steps that looked (per cent) the two gradients had a cosine below 0. Gradients "
                "with nothing in common have one in half of the steps, by chance.",
                tasks,
                gradients["conflicting"],
                label="share of looks",
            )
        )
        made.append(pairs_over_steps(run, most_conflicting(gradients)))
    for name, told in run.tables.items():
        rows = told["rows"]
        alt = "; ".join(f"{row}: {', '.join(map(number, values))}" for row, values in rows.items())
        made.append(
            grid(
                name,
                told["title"],
                f"{told['title']}: {alt}.",
                told["note"],
                told["columns"],
                rows,
                signed=told["signed"],
            )
        )
    return made


def _made(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"report: --out is a folder to write to, found {shown(str(folder))} ({why}); name another"
        ) from None
    return Path(folder)
