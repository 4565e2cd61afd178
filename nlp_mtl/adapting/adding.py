"""A task added to a finished run: its own adapter and head are trained, everything that was there stays as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from nlp_mtl import config, registry
from nlp_mtl.adapters import is_adapter
from nlp_mtl.adapting.keeping import add_trained
from nlp_mtl.adapting.places import beside, keep_records, keep_scores, out_mistakes
from nlp_mtl.adapting.refusing import check_only_adapters
from nlp_mtl.bases import find_recorded
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.folding import fields_of
from nlp_mtl.heads import Head, make_heads, meet
from nlp_mtl.ia3 import is_ia3
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import beside as beside_it
from nlp_mtl.opening import load_encoder, open_base
from nlp_mtl.pulling import local_folder
from nlp_mtl.run import Run, metrics_of
from nlp_mtl.runfiles import write_task_file
from nlp_mtl.settings import Precision, check_processes
from nlp_mtl.starting import trainer_with, training_arguments
from nlp_mtl.taskfile import Task
from nlp_mtl.tasklora import PLAIN, SHARED, WHERE, check_plain, owners_of
from nlp_mtl.tasks import load_tasks

USUAL = {"r": 8, "target_modules": "all-linear"}  # where the run has no LoRA to take the settings from
KEYS = tuple(
    "training task_lora learning_rates balancer sampler heads registry data_root callbacks tokens_per_batch "
    "tokens_per_pass imports".split()
)


def add_task(
    run: str | Path,
    task: str | Path | Task,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    *,
    keep: registry.Spec = "frozen",
    base: str | Path | None = None,
) -> Run:
    """Train one more task on a finished run, with an adapter and a head of its own; only its own rows are needed.

    With another way to `keep` what was learned than ``frozen`` the shared weights are trained too, and the new run is
    an ordinary one; see :func:`nlp_mtl.adapting.keeping.add_trained`. The rest is about ``frozen``.

    The encoder, the adapters and the heads that are there are frozen, and the tasks of the run go through them as
    before: their logits stay what they were. The new task's adapter stands beside the shared one, or on the encoder as
    it was trained. Its settings are those of the run's `task_lora`, else of its `lora`, else rank 8 on all linear
    layers. Several processes share the rows, as in training.

    Args:
        run: a folder of a run with `lora`, `task_lora`, or full fine-tuning; or a repository of the Hub.
        task: the new task, as :func:`nlp_mtl.tasks.load_tasks` takes it.
        out: the new run; default a folder beside it, ``<run>_with_<task>``.
        changes: ``key=value`` of a run file, e.g. ``training.num_train_epochs=5`` or ``task_lora.r=4``.
        keep: ``frozen``; or ``replay``, ``ewc``, ``o_lora``, …, a name or ``{name: …, arguments}``.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Returns:
        The new run, with the new task's scores.

    Raises:
        ConfigError: wrong arguments, a task that the run has, one that uses another's head; all at
            once.
        DataError, NotFoundError: the new task's rows.
        UnsupportedError: an encoder or adapter that one task's adapter can't stand beside; fewer processes than asked
            for.
    """
    if keep != "frozen":
        return add_trained(run, task, keep, out, changes, base=base)
    check_processes()
    folder = local_folder(run)
    old = MultiTaskModel.from_pretrained(folder, base=base)
    check_only_adapters(old, "add")
    if is_ia3(getattr(old.sharing.encoder, "peft_config", {}).get(SHARED)):
        raise UnsupportedError(
            "adapters add: beside this run's IA3 no other adapter can stand; train what is shared too (--keep replay, "
            "ewc, …), or merge it away in a run of its own (init_from: {run: …, merge: true}) and add to that"
        )
    settings, added = _settings(old, task, changes)
    place = Path(out) if out is not None else beside(run, "with", added.name)
    if mistakes := [*_mistakes(old, added), *out_mistakes("add", place)]:
        raise ConfigError(mistakes)
    settings.training = {**settings.training, "output_dir": str(place)}
    args = training_arguments(settings, "run")
    set_seed(args.seed)
    ((_, head),) = make_heads([added], settings.heads).items()
    meet({**old.heads, added.name: head}, old.tokenizer, settings.data_root)
    if head.labels is None and type(head).label_names is not Head.label_names:
        load_data({added.name: head}, old.tokenizer, max_length=old.max_length, data_root=settings.data_root)
    model = _with_task(old, head, folder, base, settings.task_lora, args.seed)
    everything, strategies = dict(model.heads), dict(model.strategies)
    model.heads = {added.name: head}  # only its rows are read, and only it is trained, scored and checkpointed
    precision: Precision = "args" if model.strategies.get("precision") == "no" else "auto"  # as the run was trained
    trainer = trainer_with(model, settings, args, precision)
    trainer.evaluator.check()
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    done = Run(place, model.eval(), {}, stopped=trainer.stopped, trainer=trainer)
    if trainer.stopped:
        return done
    trainer.evaluate()
    done.scores, done.best_steps = trainer.scores, trainer.best_steps()
    model.heads, model.strategies, trainer.strategies = everything, strategies, {}  # the run's: old tasks hang on them
    trainer.save_model()
    if args.process_index == 0:
        entry = write_task_file(added, place) if isinstance(task, Task) else str(task)
        keep_records(folder, place, model, [entry])
        keep_scores(folder, place, model.tasks, metrics_of(done, seconds))
    return done


def _settings(old: MultiTaskModel, task: str | Path | Task, changes: Sequence[str]) -> tuple[config.RunConfig, Task]:
    """What a run file with the new task alone would say, checked, and the task."""
    mistakes = [
        f"adapters add: takes {', '.join(KEYS)}, found {one!r}; the rest is the run's"
        for one in changes
        if one.partition("=")[0].partition(".")[0] not in KEYS
    ]
    if any(one.partition("=")[0] == "training.output_dir" for one in changes):
        mistakes.append("adapters add: the new run's folder is --out, found training.output_dir; say --out")
    if mistakes:
        raise ConfigError(mistakes)
    if isinstance(task, (list, tuple)):
        raise ConfigError(f"adapters add: one task at a time, found {len(task)}; add them one after the other")
    named = str(task) if isinstance(task, Path) else task
    whole = {"model": old.base["id"], "tasks": [named], "task_lora": _usual(old)}
    settings = config.load_config(whole, changes)
    found = load_tasks(settings.tasks, registry=settings.registry)
    if len(found) != 1:
        raise ConfigError(
            f"adapters add: one task at a time, found {task!r}, which is {len(found)} "
            f"({', '.join(one.name for one in found[:6])}); name one"
        )
    return settings, found[0]


def _usual(old: MultiTaskModel) -> dict[str, Any]:
    """The fields of the new adapter where the user says nothing."""
    recorded = old.strategies.get("adapters") or {}
    configs = getattr(old.sharing.encoder, "peft_config", {})
    known = PLAIN | WHERE | {"init_lora_weights"}  # what an adapter of one task may say; the rest is told apart below
    shared = {k: v for k, v in fields_of(configs[SHARED]).items() if k in known} if SHARED in configs else None
    return dict(recorded.get("task_lora") or shared or USUAL)


def _mistakes(old: MultiTaskModel, task: Task) -> list[str]:
    said = []
    if task.name in old.heads:
        said.append(
            f"adapters add: a task that the run does not have, found {task.name!r}; rename it, or take the old one out "
            "first (nlp-mtl adapters remove)"
        )
    configs = getattr(old.sharing.encoder, "peft_config", {})
    if SHARED in configs and owners_of(old.sharing.encoder) is None:
        why = check_plain(vars(configs[SHARED]), "lora")
        said += [f"adapters add: beside this run's LoRA no other can stand: {one.rpartition('; ')[0]}" for one in why]
    return said


def _with_task(
    old: MultiTaskModel, head: Head, folder: Path, base: str | Path | None, fields: Any, seed: int
) -> MultiTaskModel:
    """The run's model with one more head and adapter; only those are trainable."""
    name, encoder = head.task.name, old.sharing.encoder
    trained = owners_of(encoder) is None and not hasattr(encoder, "peft_config")
    recorded: dict[str, Any] = dict(old.strategies.get("adapters") or {})
    if not recorded:
        configs: Any = getattr(encoder, "peft_config", {})
        recorded = {"own_encoder": True} if trained else {"lora": fields_of(configs[SHARED])}
    more = dict(recorded.get("own_lora") or {})
    if not recorded.get("task_lora"):
        recorded["task_lora"], more = fields, {**more, **dict.fromkeys(old.tasks)}
    elif fields != recorded["task_lora"]:
        more[name] = fields
    source = None
    if recorded.get("own_encoder"):
        plain = load_encoder(folder)
    else:
        source = find_recorded(old.base, base or beside_it(folder, old.base), None).folder
        plain = open_base(source)[1]
    made = MultiTaskModel.assemble(
        plain,
        old.tokenizer,
        {**old.heads, name: head},
        sharing=old.strategies["sharing"],
        source=source,
        seed=seed,
        base=old.base,
        max_length=old.max_length,
        **{**recorded, **({"own_lora": more} if more else {})},
    )
    _take_over(old, made)
    own = set(dict(made.modules_[name].named_parameters(prefix=f"modules_.{name}")))
    for place, parameter in made.named_parameters():
        parameter.requires_grad_(place in own or (is_adapter(place) and place.split(".")[-2] == name))
    kept = {key: value for key, value in old.strategies.items() if key != "tuning"}  # adapters are trained from now on
    made.strategies = {**kept, **{key: made.strategies[key] for key in ("lora", "adapters")}}
    made.fresh = True
    return made


@torch.no_grad()
def _take_over(old: MultiTaskModel, made: MultiTaskModel) -> None:
    """Adapters and heads as they were."""
    for place, parameter in old.sharing.encoder.named_parameters():
        if is_adapter(place):
            made.sharing.encoder.get_parameter(place).copy_(parameter)
    for key, module in old.modules_.items():
        made.modules_[key].load_state_dict(module.state_dict())
