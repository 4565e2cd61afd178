"""How tasks help one another, cheaply: from one short training of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.affinity import Affinity
from nlp_mtl.arguments import TRAINING_DEFAULTS
from nlp_mtl.errors import ConfigError
from nlp_mtl.searching.plan import Plan
from nlp_mtl.stepsfile import read_steps
from nlp_mtl.studies.running import do_run
from nlp_mtl.studies.study import PlannedRun
from nlp_mtl.taskgroups.runs import with_tasks

LOOKS, ROWS = 20, 4  # so many looks at the gradients; at least so many rows of each task in a step
SEVERAL = ("sharing", "balancer", "groups", "tree", "stop_tasks", "sampler", "task_lora", "keep_best")


def measured(plan: Plan) -> tuple[Affinity | None, int]:
    """The affinity of a search's tasks, read or measured once; and how many rows measuring it showed. None if stopped.

    All tasks are trained together with as many rows of each, and the cosines of their gradients are looked at; the mean
    is the affinity, the same in both directions.

    Raises:
        ConfigError: tasks that share no gradient.

    Relations: gradient similarity as in GradNorm's and PCGrad's analyses (Yu et al., 2020, arXiv 2001.06782); TAG
    (Fifty et al., 2021, arXiv 2109.04617) looks one step ahead instead, and sees the direction of help.
    """
    if isinstance(plan.file.affinity, str):
        return Affinity.load(plan.file.affinity).of(list(plan.items)), 0
    run = _run(plan, plan.file.affinity)
    rows = int(run.keys["training"]["max_steps"]) * int(run.keys["training"]["per_device_train_batch_size"])
    file = plan.folder / "affinity.json"
    if not file.is_file():
        if do_run(run):
            return None, rows
        cosine_affinity(run.folder, list(plan.items), {"steps": plan.file.affinity, "rows shown": rows}).save(file)
    return Affinity.load(file).of(list(plan.items)), rows


def _run(plan: Plan, steps: int) -> PlannedRun:
    tasks = list(plan.items)
    whole: Mapping[str, Any] = {key: said for key, said in plan.keys.items() if key not in SEVERAL}
    training = {**TRAINING_DEFAULTS, **(plan.keys.get("training") or {})}
    batch = max(int(training["per_device_train_batch_size"]), ROWS * len(tasks))
    changes = {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "eval_strategy": "no",
        "save_strategy": "steps",  # which also keeps the cosines
        "save_steps": steps,
        "save_total_limit": 1,
        "load_best_model_at_end": False,
        "seed": plan.file.seed,
        "output_dir": str(plan.folder / "affinity"),
    }
    keys = with_tasks(whole, plan.halved, tasks)
    keys |= {"sampler": "uniform", "cosines_every": max(1, steps // LOOKS)}
    keys["training"] = {**(plan.keys.get("training") or {}), **changes}
    return PlannedRun("affinity", plan.file.seed, plan.folder / "affinity", keys)


def cosine_affinity(folder: Path, tasks: Sequence[str], said: Mapping[str, Any]) -> Affinity:
    """The mean cosine of every two tasks' gradients in a run.

    Args:
        folder: of a run that looked at them.
        tasks: their names.
        said: how it was made.

    Raises:
        ConfigError: two tasks whose gradients were never seen together.
    """
    many = len(tasks)
    sums, counts = np.zeros((many, many)), np.zeros((many, many))
    place = {task: number for number, task in enumerate(tasks)}
    for line in read_steps(folder):
        for one, others in line.get("cosines", {}).items():
            for other, value in others.items():
                pair = (place[one], place[other])
                for i, j in (pair, pair[::-1]):
                    sums[i, j] += value
                    counts[i, j] += 1
    np.fill_diagonal(sums, 1.0)
    np.fill_diagonal(counts, 1.0)
    if not counts.all():
        i, j = np.argwhere(counts == 0)[0]
        raise ConfigError(
            f"affinity: the gradients of {tasks[i]!r} and {tasks[j]!r} were never seen together, or nothing that they "
            "share is trained (`freeze`); take more steps, or give a file of affinities (`affinity: FILE`)"
        )
    return Affinity(tuple(tasks), sums / counts, "mean cosine of gradients", dict(said))
