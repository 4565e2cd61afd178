"""A task added to a finished run whose shared weights are trained on: what it knew is kept in one of several ways."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import config, registry
from nlp_mtl.adapting.places import beside, out_mistakes
from nlp_mtl.bases import find_base
from nlp_mtl.distilspec import without_forgetting
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.pulling import local_folder
from nlp_mtl.recording import recorded
from nlp_mtl.regularizers import IMPORTANCE
from nlp_mtl.replay import BY_ROWS, Replay, rows_met, with_rows
from nlp_mtl.run import Run, evaluate, train
from nlp_mtl.runspec import read_spec
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import load_tasks

OWN = ("frozen", "naive", "replay", "a_gem", "lwf", "joint")  # and every regularizer
ROWS = 50  # of each earlier task, where replay says nothing
_OF_THE_RUN = tuple(
    "model registry data_root imports max_length sharing tree heads lora task_lora freeze tuning learning_rates "
    "layer_decay tokens_per_batch tokens_per_pass training".split()
)
KEYS = tuple(
    "training lora learning_rates layer_decay sampler heads registry data_root callbacks tokens_per_batch "
    "tokens_per_pass imports".split()
)


def ways() -> list[str]:
    """The names that ``--keep`` takes."""
    return [*OWN, *registry.regularizers.names()]


def add_trained(
    run: str | Path,
    task: str | Path | Task,
    keep: registry.Spec,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    *,
    base: str | Path | None = None,
) -> Run:
    """Train one more task on a finished run, its shared weights too.

    It is an ordinary run that starts where the finished one ended (`init_from`): the new task learns beside a new head,
    and of the old ones nothing (``naive``), some rows (``replay``; ``a_gem``, against which it learns), all rows
    (``joint``), what their heads said of the new rows before (``lwf``), or what a regularizer needs of them (``ewc``,
    ``o_lora``, ``l2_sp``, …). ``ewc`` takes the importance that the run left, or computes it from the old tasks' rows;
    ``o_lora`` merges the run's LoRA and learns a new one.
    ``ewc``, ``o_lora`` and ``synaptic_intelligence`` leave what the next task needs.

    Args:
        run: a folder of a run with its run file; or a repository of the Hub.
        task: the new task.
        keep: one of :func:`ways`, or ``{name: …, arguments}``: those of the regularizer; `rows`, or `total` and `how`,
            for replay; `temperature`, `weight`, …, and the `tasks` that are held, of the distillation for lwf.
        out: the new run; default a folder beside it, ``<run>_with_<task>``.
        changes: ``key=value`` of a run file.
        base: where the pretrained model of a LoRA is.

    Raises:
        ConfigError: wrong arguments, a run without what the way needs; all that can be known at once.
    """
    folder = local_folder(run)
    name, arguments = registry.parse_spec(keep, "keep")
    spec, said = read_spec(folder), recorded(folder)
    old = [item["name"] for item in spec["tasks"]]
    mistakes = _mistakes(folder, name, arguments, said, changes)
    if mistakes:
        raise ConfigError(mistakes)
    entries = _entries(said, old)
    registries = said.get("registry") or ()
    data_root, more_registry = _changed(changes, "data_root"), _changed(changes, "registry")
    (added,) = _one(task, [*registries, *(more_registry or [])])
    place = Path(out) if out is not None else beside(run, "with", added.name)
    if added.name in old:
        mistakes.append(
            f"adapters add: a task that the run does not have, found {added.name!r}; rename it, or take the old one "
            "out first (nlp-mtl adapters remove)"
        )
    mistakes += out_mistakes("add", place)
    if mistakes:
        raise ConfigError(mistakes)
    keys = {key: said[key] for key in _OF_THE_RUN if said.get(key) not in (None, [], {})}
    if base is not None:
        keys["model"] = str(find_base(base).folder)
    keys["training"] = {**keys.get("training", {}), "output_dir": str(place)}
    keys["init_from"] = {"run": str(folder)}
    keys |= _way(folder, name, arguments, entries, added.name, data_root or said.get("data_root"), keys)
    keys["tasks"] = [*keys["tasks"], task if isinstance(task, Task) else str(task)]
    return train(config.load_config(keys, changes))


def _mistakes(
    folder: Path, name: str, arguments: Mapping[str, Any], said: Mapping[str, Any], changes: Sequence[str]
) -> list[str]:
    wrong = [
        f"adapters add: takes {', '.join(KEYS)} with --keep {name}, found {one!r}; the rest is the run's"
        for one in changes
        if one.partition("=")[0].partition(".")[0] not in KEYS
    ]
    if any(one.partition("=")[0] == "training.output_dir" for one in changes):
        wrong.append("adapters add: the new run's folder is --out, found training.output_dir; say --out")
    if name not in ways():
        return [*wrong, f"adapters add: --keep is a way that there is, found {name!r}{suggestion(name, ways())}"]
    if not said.get("model") or not said.get("tasks"):
        wrong.append(
            f"adapters add: --keep {name} trains as the run was trained, found no run file (run.yaml) in {folder}; say "
            "--keep frozen, or write a run file with init_from"
        )
    if name in ("replay", "a_gem"):
        try:
            Replay.of(arguments)
        except ConfigError as error:
            wrong += [f"adapters add: --keep {name}: {message}" for message in error.mistakes]
    elif name == "lwf":
        try:
            without_forgetting([], "", arguments)
        except ConfigError as error:
            wrong += [f"adapters add: --keep {name}: {message}" for message in error.mistakes]
    elif name in OWN and arguments:
        wrong.append(f"adapters add: --keep {name} takes no arguments, found {dict(arguments)}; leave them out")
    elif name in registry.regularizers:
        kind = registry.regularizers[name]
        wrong += registry.regularizers.check_arguments(name, {**arguments, **_of_run(folder, kind, ["a"])})
        takes = inspect.signature(kind).parameters
        if "importance" in takes and "tasks" not in takes and not {"importance"} & {*arguments, *_left(folder)}:
            wrong.append(
                f"adapters add: --keep {name} needs what the run left of its training ({IMPORTANCE}), found none in "
                f"{folder}; train it with regularizers: [{name}], or use --keep ewc"
            )
        if kind.new_lora and said.get("model") and not said.get("lora"):
            wrong.append(
                f"adapters add: --keep {name} is for a run with `lora`, found one without; use --keep ewc or replay"
            )
    return wrong


def _left(folder: Path) -> list[str]:
    return ["importance"] if (folder / IMPORTANCE).is_file() else []


def _of_run(folder: Path, kind: Any, old: Sequence[str]) -> dict[str, Any]:
    """Arguments of a regularizer that the finished run gives."""
    takes = inspect.signature(kind).parameters
    found: dict[str, Any] = {}
    if "importance" in takes and _left(folder):
        found["importance"] = str(folder)
    elif "tasks" in takes:
        found["tasks"] = list(old)
    if "earlier" in takes:
        found["earlier"] = str(folder)
    return found | ({"carry": True} if "carry" in takes else {})


def _way(
    folder: Path,
    name: str,
    arguments: Mapping[str, Any],
    entries: Sequence[tuple[Any, Task]],
    new: str,
    data_root: str | None,
    keys: Mapping[str, Any],
) -> dict[str, Any]:
    """What a way of keeping says in the run file."""
    items, old = [item for item, _ in entries], [task.name for _, task in entries]
    if name == "joint":
        return {"tasks": items}
    if name in ("replay", "a_gem"):
        replay = Replay.of(arguments or {"rows": ROWS})
        sizes = rows_met([task for _, task in entries], data_root) if replay.total else [0] * len(old)
        counts = replay.counts(sizes, int(keys["training"].get("seed", 42)))
        again = [task for task, count in zip(old, counts, strict=True) if count]
        found: dict[str, Any] = {
            "tasks": [with_rows(item, count) if count else item for item, count in zip(items, counts, strict=True)],
            "train_tasks": [*again, new],
        }
        if name == "a_gem":
            return found | {"balancer": {"name": name, "memory": again}}
        return found if keys.get("balancer") else found | {"balancer": BY_ROWS}
    only: dict[str, Any] = {"tasks": items, "train_tasks": [new]}
    if name == "naive":
        return only
    if name == "lwf":
        return {**only, "distillation": [without_forgetting(old, new, arguments)]}
    kind = registry.regularizers[name]
    only["regularizers"] = [{"name": name, **_of_run(folder, kind, old), **arguments}]
    return only | ({"init_from": {"run": str(folder), "merge": True}} if kind.new_lora else {})


def _entries(said: Mapping[str, Any], old: Sequence[str]) -> list[tuple[Any, Task]]:
    """The run file's entries for the tasks that the run has, one for each."""
    found = []
    for item in said["tasks"]:
        made = load_tasks([item], registry=said.get("registry") or ())
        found += [(item if len(made) == 1 else task.name, task) for task in made if task.name in old]
    return found


def _one(task: str | Path | Task, registries: Sequence[str]) -> list[Task]:
    """The new task alone.

    Raises:
        ConfigError: there is none of this name, or it is several.
    """
    found = load_tasks([task if isinstance(task, Task) else str(task)], registry=registries)
    if len(found) != 1:
        raise ConfigError(
            f"adapters add: one task at a time, found {task!r}, which is {len(found)} "
            f"({', '.join(one.name for one in found[:6])}); name one"
        )
    return found


def _changed(changes: Sequence[str], key: str) -> Any:
    """What `changes` say of a key."""
    from nlp_mtl import yamlfile

    said = [one.partition("=")[2] for one in changes if one.partition("=")[0] == key]
    value = yamlfile.loads(said[-1], key)[0] if said else None
    return [value] if key == "registry" and isinstance(value, str) else value


def before_and_after(run: str | Path, done: Run, *, base: str | Path | None = None) -> list[dict[str, Any]]:
    """Each task's score in the finished run and in the new one, on the validation rows.

    Args:
        run: the finished run; what its ``metrics.json`` does not say is computed.
        done: the new one.
        base: where the pretrained model of a LoRA is.

    Returns:
        One row per task: task, metric, before (None for the new task), after.
    """
    folder = local_folder(run)
    file = folder / "metrics.json"
    known = json.loads(file.read_text(encoding="utf-8")).get("validation", {}) if file.is_file() else {}
    had = [item["name"] for item in read_spec(folder)["tasks"]]
    scored = {task: (one.first, one.metrics[one.first]) for task, one in done.scores.items() if one.first}
    if missing := [task for task, (metric, _) in scored.items() if task in had and metric not in known.get(task, {})]:
        known = {**known, **{task: one.metrics for task, one in evaluate(folder, tasks=missing, base=base).items()}}
    return [
        {"task": task, "metric": metric, "before": known.get(task, {}).get(metric), "after": after}
        for task, (metric, after) in scored.items()
    ]
