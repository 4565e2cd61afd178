"""The verdict on a run, from what to train to what to read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from nlp_mtl.errors import ConfigError
from nlp_mtl.findings import Finding, Table, read_findings, write_finding
from nlp_mtl.verdicts import datafacts
from nlp_mtl.verdicts.baselines import Plan, do, labelled_splits, plan_of
from nlp_mtl.verdicts.gathering import verdicts
from nlp_mtl.verdicts.judging import LEAST_SEEDS
from nlp_mtl.verdicts.plot import confusion, drawable, forest
from nlp_mtl.verdicts.said import Verdicts
from nlp_mtl.verdicts.scored import run_key, scored_rows
from nlp_mtl.verdicts.twins import Same

logger = logging.getLogger("nlp_mtl")
NAME = "verdict"


def verdict(
    run: str | Path,
    *,
    seeds: Sequence[int] | int | None = None,
    tasks: Sequence[str] | None = None,
    same: Same = "rows",
    split: str | None = None,
    budget: float | None = None,
    place: str | Path | None = None,
    keep_weights: bool = False,
    data_root: str | Path | None = None,
) -> Verdicts:
    """Did training together help each task? Trains what is missing to say so, and keeps it.

    Each task's twin is the task alone: the same encoder, rows, seed, and rule for the best checkpoint, and its rows as
    often as the run showed them. The verdict is kept as a finding of the run, which its report shows.

    Args:
        run: the folder of a finished run.
        seeds: how many pairs of seeds, or which; with fewer than three nothing is decided, and the difference is only
            shown. Default: the run's own.
        tasks: only these.
        same: ``rows``, or ``steps``: the twin does as many optimizer steps, and sees its rows more often.
        split: validation, or test where it has labels; all of those are scored, and this one is judged. Default:
            validation.
        budget: hours to train at most now; the same call goes on later.
        place: folder of all twins; default ``baselines`` beside the run, where other runs find them too.
        keep_weights: keep the twins' models; they are removed when their rows are scored.
        data_root: see :func:`nlp_mtl.run.evaluate`.

    Raises:
        ConfigError: wrong arguments.
        RunFolderError: no finished run.
        UnsupportedError: a run in stages, or one that starts from another.

    References:
        Negative transfer: Wang, Dai, Póczos and Carbonell, 2019, arXiv 1811.09751. Δm: Maninis, Radosavovic and
        Kokkinos, 2019, arXiv 1904.08918. The test: see :func:`nlp_mtl.verdicts.judging.difference`.

    Relations: like a study with `single: true` (:func:`nlp_mtl.studies.compare.compare`), but for a run that is there,
    task by task, with rows as well as seeds in mind.

    Cost: for each pair of seeds about two trainings of the run (one together, one of all tasks alone).

    Example:
        ::

            found = nlp_mtl.verdict("runs/demo", seeds=3)
            found.sentences()
    """
    plan = plan_of(run, seeds=seeds, tasks=tasks, same=same, place=place)
    return judge(plan, split=split, budget=budget, keep_weights=keep_weights, data_root=data_root)


def judge(
    plan: Plan,
    *,
    split: str | None = None,
    budget: float | None = None,
    keep_weights: bool = False,
    data_root: str | Path | None = None,
) -> Verdicts:
    """As :func:`verdict`, of a plan that was made."""
    folder = plan.run.folder
    splits = labelled_splits(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    if split is not None and split not in splits:
        raise ConfigError(
            f"report: `split` is {' or '.join(splits)}, which have labels for every task, found {split!r}"
        )
    for one in splits:
        scored_rows(folder, one, data_root=data_root, train_rows=500 if one == "validation" else 0)
    done = do(plan, budget=budget, splits=splits, keep_weights=keep_weights, data_root=data_root)
    found = verdicts(done, split or "validation", data_root=data_root)
    beside = [verdicts(done, one, data_root=data_root) for one in splits if one != found.split]
    write_finding(folder, finding(found, run_key(folder), beside))
    return found


def finding(found: Verdicts, key: str, beside: Sequence[Verdicts] = ()) -> Finding:
    """A verdict as a section of a report.

    Args:
        found: the verdict.
        key: of the run.
        beside: the same on other splits.
    """
    tables = []
    for one in (found, *beside):
        rows = one.table()
        if rows:
            title = f"Together and alone, {one.split} rows, {len(found.seeds)} pairs of seeds"
            tables.append(Table(title, list(rows[0]), [list(row.values()) for row in rows]))
    cost = [
        [
            name,
            f"{known.seconds:.0f} s",
            f"{known.rows:,}",
            "—" if known.peak is None else f"{known.peak / 2**20:,.0f} MiB",
            f"{known.parameters / 1e6:.2f} M",
        ]
        for name, known in (("one model", found.together), (f"{len(found.tasks)} models", found.alone))
        if known is not None
    ]
    head = ["cost of one seed", "training", "rows shown", "peak memory", "trained parameters"]
    tables.append(Table("", head, cost))
    said = found.sentences()
    if len(found.seeds) >= LEAST_SEEDS:
        said.append(
            f"Helped and hurt: p below 0.05 after Holm's correction for {len(found.tasks)} tasks, in a test in which "
            "seeds and rows could both have come out otherwise."
        )
    said.append(
        "A twin is the task alone with the same encoder, seed and rule for the best checkpoint, and "
        + ("the same rows as often." if found.same == "rows" else "as many optimizer steps.")
    )
    drawings = [forest(found).drawing()] if found.tasks else []
    data = {"run": key, **found.as_json(), "beside": [one.as_json() for one in beside]}
    return Finding(NAME, "Did training together help?", said, tables, drawings, data)


def summaries(run: str | Path, *, data_root: str | Path | None = None, progress: bool = False) -> None:
    """Keep what a finished run's rows are like, and what its classes are taken for, as findings; once for a run.

    Cost: once, one pass over the validation rows and some training rows.
    """
    folder = Path(run)
    key = run_key(folder)
    known = {one.name: one for one in read_findings(folder)}
    if key != (known[datafacts.NAME].data.get("run") if datafacts.NAME in known else None):
        write_finding(folder, datafacts.data_finding(folder, key, data_root=data_root))
    if key != (known["scores"].data.get("run") if "scores" in known else None):
        write_finding(folder, _scores(folder, key, data_root, progress))


def _scores(folder: Path, key: str, data_root: str | Path | None, progress: bool) -> Finding:
    """Scores with their intervals over rows, the gap to the training rows, and confusion matrices."""
    from nlp_mtl.verdicts.judging import bootstrap

    known = scored_rows(folder, "validation", data_root=data_root, progress=progress)
    rows, drawings, numbers = [], [], {}
    for task, one in (known.tasks if known else {}).items():
        low, high = bootstrap(one.row_score())
        train = known.train.get(task) if known else None
        numbers[task] = {"score": one.score, "low": low, "high": high, "train": train, "rows": len(one.references)}
        rows.append(
            [
                task,
                one.metric,
                f"{one.score:.3f}",
                f"{low:.3f} to {high:.3f}",
                str(len(one.references)),
                "—" if train is None else f"{train:.3f}",
            ]
        )
        if drawable(one.labels, one.predictions, one.references):
            drawings.append(confusion(task, one.labels or [], one.predictions, one.references).drawing())
    head = ["task", "metric", "validation", "95 % over rows", "rows", "500 training rows"]
    said = ["The intervals are over rows alone: another seed may differ by more."]
    return Finding(
        "scores",
        "Scores, as far as the rows tell",
        said,
        [Table("", head, rows)],
        drawings,
        {"run": key, "tasks": numbers},
    )
