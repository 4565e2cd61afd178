"""``search``: from a search file to a run file to reuse, and how much it is better than doing without."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import RunFolderError
from nlp_mtl.searching.backend import optuna_here
from nlp_mtl.searching.cheap import measured
from nlp_mtl.searching.finals import best_trials, controls_of, do_finals, tidy, winner_of
from nlp_mtl.searching.plan import Plan, load_search
from nlp_mtl.searching.result import Search
from nlp_mtl.searching.spec import LATER
from nlp_mtl.searching.trials import Trial, run_trials, way_of
from nlp_mtl.searching.ways import Choice
from nlp_mtl.studies.study import folder_name
from nlp_mtl.taskgroups.runs import told_from

logger = logging.getLogger("nlp_mtl")
ASKED = "asked.json"


def search(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Search:
    """Search over ways of training, and compare what is found with controls.

    Half of the validation rows of each task that counts select: trials, best steps, finalists. The other half is scored
    at the end. The best finalist over seeds is compared, seed by seed, with the same settings on all tasks together and
    on random groups; with a `target`, without helpers and with random ones. ``best.yaml``, ``search.json``,
    ``search.md`` and ``search.svg`` are written into `output_dir`. The same call goes on with what was stopped, or
    with a greater budget or more seeds.

    Args:
        source: a search file, or a mapping of its keys; see :class:`nlp_mtl.searching.spec.SearchFile`.
        overrides: ``key=value``; see :func:`nlp_mtl.searching.plan.load_search`.

    Raises:
        ConfigError: mistakes in the file or its runs, all at once.
        NotFoundError: optuna is not installed; data is nowhere.
        RunFolderError: the folder holds another search.

    Relations: optuna (Akiba et al., 2019, arXiv 1907.10902) chooses trials by TPE (Bergstra et al., 2011, NeurIPS) and
    ends bad ones by its pruners. Controls under the same budget, as Li and Talwalkar (2019, arXiv 1902.07638) ask of
    searches.

    cost: the trials' budget, then (finalists + 2 or 3 controls) × seeds trainings.
    """
    optuna_here()
    plan = load_search(source, overrides)
    _begin(plan)
    affinity, spent = None, 0
    if plan.needs_affinity:
        affinity, spent = measured(plan)
        if affinity is None:
            return Search(plan, [], None, stopped=True)
    trials, stopped = run_trials(plan, affinity, spent)
    found = Search(plan, trials, affinity, stopped=stopped)
    if not stopped:
        _finish(plan, found)
    _write(plan, found)
    return found


def _begin(plan: Plan) -> None:
    """Refuse the folder of another search."""
    said = plan.file.model_dump(mode="json", exclude={*LATER, "run"})
    training = {key: one for key, one in (plan.keys.get("training") or {}).items() if key not in ("output_dir", "seed")}
    said = json.loads(json.dumps({**said, "run": {**plan.keys, "training": training}}, default=str))
    file = plan.folder / ASKED
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != said:
        raise RunFolderError(
            f"{plan.folder}: another search than this one's is there ({ASKED} says something else); choose another "
            "`output_dir`, or remove the folder"
        )
    if not file.is_file() and plan.folder.is_dir() and any(plan.folder.iterdir()):
        raise RunFolderError(
            f"{plan.folder}: `output_dir` is a folder for this search alone, found other files; name another"
        )
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def _finish(plan: Plan, found: Search) -> None:
    """Finalists with all seeds, the winner, and its controls."""
    ways = {f"trial {trial.number}": partial(_as_it_was, trial) for trial in best_trials(plan, found.trials)}
    if not ways:
        logger.warning("no trial came to an end")
        return
    finals = plan.folder / "finals"
    found.finals, found.stopped = do_finals(plan, ways, finals)
    winner = None if found.stopped else winner_of(plan, found.finals)
    if winner is None:
        return
    found.winner = winner.name
    choice = winner.choices[plan.file.seeds[0]]
    controls = controls_of(plan, choice)
    place = plan.folder / "controls" / folder_name(winner.name)
    scored, found.stopped = do_finals(plan, controls, place)
    found.finals, found.controls = {**found.finals, **scored}, tuple(scored)
    if not found.stopped:
        tidy(finals, folder_name(winner.name))
        tidy(place, "")


def _as_it_was(trial: Trial, seed: int) -> tuple[Choice, float]:
    assert trial.choice is not None
    return trial.choice, 1.0


def _write(plan: Plan, found: Search) -> None:
    write_text(plan.folder / "search.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(plan.folder / "search.md", found.markdown())
    from nlp_mtl.searching.plot import draw

    draw(found, plan.folder / "search.svg")
    made = {"best": found.winner, "simpler": None if found.best is None else found.simpler}
    for name, chosen in made.items():
        file = plan.folder / f"{name}.yaml"
        if chosen is None:
            file.unlink(missing_ok=True)
            continue
        final, seed = found.finals[chosen], plan.file.seeds[0]
        choice = final.choices[seed]
        way = way_of(plan, choice, seed, plan.folder / name, times=final.times, halved=False)
        head = f"# nlp-mtl train {file}     {chosen}: {choice.said()}\n"
        write_text(file, head + yamlfile.dumps(told_from(way.keys, plan.folder)))
