"""A run without one of its tasks: its head and adapter go, everything else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.adapting.places import beside, keep_records, keep_scores, out_mistakes, unknown
from nlp_mtl.adapting.refusing import check_only_adapters
from nlp_mtl.errors import ConfigError
from nlp_mtl.folding import said_of
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.pulling import local_folder
from nlp_mtl.runspec import read_spec
from nlp_mtl.tasklora import owners_of


def remove_adapter(
    run: str | Path, task: str, out: str | Path | None = None, *, base: str | Path | None = None
) -> MultiTaskModel:
    """Write a run without one task: without its head, and without its adapter if it has one of its own.

    Args:
        run: a run folder or checkpoint, or a repository of the Hub; it stays as it is.
        task: the task.
        out: the new run; default a folder beside it, ``<run>_without_<task>``.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Returns:
        The new run's model; the logits of its tasks are those of the old run.

    Raises:
        ConfigError: a task that the run does not have, its only one, or one whose head others use; an `out` that holds
            something; all at once.
        RunFolderError: no run folder, or damaged.
    """
    folder = local_folder(run)
    items = read_spec(folder)["tasks"]
    names = [item["name"] for item in items]
    place = Path(out) if out is not None else beside(run, "without", task)
    mistakes = out_mistakes("remove", place) + unknown("remove", [task], names)
    if names == [task]:
        mistakes.append(f"adapters remove: leaves a task in the run, found {task!r} as its only one; remove the folder")
    if users := [item["name"] for item in items if item.get("head_of") == task and item["name"] != task]:
        mistakes.append(
            f"adapters remove: {', '.join(users)} uses the head of {task!r}; remove {', '.join(users)} first"
        )
    if mistakes:
        raise ConfigError(mistakes)
    model = MultiTaskModel.from_pretrained(folder, base=base, tasks=[name for name in names if name != task])
    check_only_adapters(model, "remove")
    describe_again(model)
    with checkpoint.replacing(place) as work:
        model.save_pretrained(work)
    keep_records(folder, place, model)
    keep_scores(folder, place, model.tasks)
    return model


def describe_again(model: MultiTaskModel) -> None:
    """Let a model record the adapters that it has; where no task has one of its own any more, it is an ordinary one."""
    encoder: Any = model.sharing.encoder
    owners = owners_of(encoder)
    if owners is None:
        return
    if owners.adapters:
        model.strategies = {**model.strategies, "adapters": said_of(encoder)}
        return
    del encoder.owners
    model.sharing.owners = None
    kept = {key: value for key, value in model.strategies.items() if key != "adapters"}
    model.strategies = {**kept, "lora": hasattr(encoder, "peft_config")}
