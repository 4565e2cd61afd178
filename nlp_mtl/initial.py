"""Where a run starts that does not start from the pretrained model: another run, a vanilla folder, a Hub id."""

from __future__ import annotations

import logging
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl import checkpoint, registry
from nlp_mtl.adapters import is_adapter
from nlp_mtl.bases import find_base
from nlp_mtl.errors import ConfigError, HubError, RunFolderError, suggestion
from nlp_mtl.exporting.plain import plain_encoder
from nlp_mtl.folding import merged
from nlp_mtl.heads import Head
from nlp_mtl.heads.growing import grown
from nlp_mtl.heads.vanilla import in_order, tied_keys
from nlp_mtl.initfrom import InitFrom
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import beside
from nlp_mtl.pulling import hub_name, local_folder
from nlp_mtl.runspec import read_spec
from nlp_mtl.tasklora import owners_of
from nlp_mtl.weights import ENCODER_CONFIG, quiet_transformers

logger = logging.getLogger("nlp_mtl")


def model_from(given: str | Path | Mapping[str, Any], model: str, tasks: Any, **how: Any) -> MultiTaskModel:
    """A model for other tasks or another tuning that starts where an earlier one ended.

    The encoder starts as the earlier run's tasks used it: with a LoRA of the same shape that goes on to be trained;
    otherwise, or where `merge` says so, with adapters merged into its weights; a LoRA on
    those is saved with them. A head starts as the one of the same name did end, if both are of
    one kind with the same set of labels, in whatever order they come; or with more, whose rows begin anew.

    Args:
        given: see :class:`InitFrom`.
        model: the pretrained model, for runs with LoRA, which don't hold it.
        tasks: of the new model.
        how: what :meth:`MultiTaskModel.from_base` takes besides.

    Raises:
        ConfigError: `init_from` that says something wrong, or what the earlier run learned would be lost.
        NotFoundError, RunFolderError, HubError, UnsupportedError: the source can't be used, with the way out.

    Relations: supplementary training on intermediate tasks (STILTs: Phang et al., 2018, arXiv 1811.01088) and
    fine-tuning after multi-task training (MT-DNN: Liu et al., 2019, arXiv 1901.11504) are this, twice.
    """
    asked = InitFrom.of(given)
    folder = source_folder(asked.run)
    if not (folder / checkpoint.SPEC).is_file():
        if asked.task or asked.heads:
            raise ConfigError(
                f"init_from: `task` and `heads` are of runs of several tasks, found {asked.run}, an ordinary "
                "pretrained folder; leave them out"
            )
        return _recorded(MultiTaskModel.from_base(folder, tasks, **how), asked, [])
    old = opened(folder, model)
    _check_tasks(asked, old)
    adapted = how.get("lora") is not None or how.get("task_lora") is not None
    was_adapted = hasattr(old.sharing.encoder, "peft_config")
    if asked.merge and not was_adapted:
        raise ConfigError(
            f"init_from: `merge` is about a run with `lora` or `task_lora`, found {asked.run} without; leave it out"
        )
    goes_on = adapted and not asked.merge if was_adapted else _shares_alike(old, how.get("sharing", "hard"))
    if adapted and not was_adapted and not old.sharing.ordinary:
        raise ConfigError(
            f"init_from: a LoRA is put on an ordinary pretrained folder, found {asked.run}, whose tasks share in "
            f"another way (sharing {old.sharing.registered_as!r}); export a task (nlp-mtl export RUN --task T OUT) and "
            "start from it"
        )
    if goes_on and not was_adapted and how.get("reinit_top_layers"):
        raise ConfigError(
            f"reinit_top_layers: begins anew what one encoder starts with, found sharing {old.sharing.registered_as!r} "
            f"of {asked.run}, whose parts are taken over; leave one of both out"
        )
    with _start(asked, folder, old, model, goes_on) as (base, apart), _drawn_anew(asked, how.get("seed", 0)):
        made = MultiTaskModel.from_base(base, tasks, **how)
    kept = _take_heads(asked, old, made)
    _take_trained(asked, old, made, whole=apart)
    if not adapted:  # it will hold its encoder itself, which began as that of the earlier run
        made.base = {key: value for key, value in old.base.items() if key != "own"}
    elif was_adapted and (asked.merge or old.base.get("own")):
        made.hold_base(old.base["id"])
    return _recorded(made, asked, kept)


def model_again(
    given: str | Path | Mapping[str, Any], resume_from: str | Path, model: str, tasks: Any, **how: Any
) -> MultiTaskModel:
    """As :func:`model_from` for a run that is resumed: where its start is gone, its own checkpoint is enough.

    All that is learned is read from the checkpoint in any case.

    Args:
        given, model, tasks, how: as there.
        resume_from: the checkpoint.
    """
    asked = InitFrom.of(given)
    if hub_name(asked.run) is not None or Path(asked.run).exists():
        return model_from(given, model, tasks, **how)
    logger.info("init_from: %s is gone; the run goes on from its own checkpoint alone", asked.run)
    made = model_from(resume_from, model, tasks, **how)
    made.strategies["init_from"] = read_spec(Path(resume_from))["strategies"].get("init_from")
    return made


def opened(folder: Path, model: str) -> MultiTaskModel:
    """A run, its adapters trainable; `model` is where the pretrained model of a LoRA is.

    Raises:
        RunFolderError: that has other weights than the run was trained on; the folder is damaged.
        NotFoundError: it is not there.
    """
    record = read_spec(folder)["base"]
    below = None
    if not (folder / "config.json").is_file() and not (folder / ENCODER_CONFIG).is_file():
        below = beside(folder, record) or find_base(model, sha256=record.get("sha256")).folder
    return MultiTaskModel.from_pretrained(folder, base=below, trainable=True)


def _check_tasks(asked: InitFrom, old: MultiTaskModel) -> None:
    named = {"task": [asked.task] if asked.task else [], "heads": list(asked.heads.values())}
    mistakes = [
        f"init_from: `{key}`: {asked.run} has no task {task!r}{suggestion(task, old.tasks)}"
        for key, tasks in named.items()
        for task in tasks
        if task not in old.heads
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _shares_alike(old: MultiTaskModel, sharing: registry.Spec) -> bool:
    """Whether parts that a sharing has beside an encoder have their like in the new one."""
    told = old.strategies["sharing"]
    return not old.sharing.ordinary and registry.parse_spec(told, "sharing") == registry.parse_spec(sharing, "sharing")


@contextmanager
def _start(
    asked: InitFrom, folder: Path, old: MultiTaskModel, model: str, goes_on: bool
) -> Iterator[tuple[str | Path, bool]]:
    """Where the weights below what is trained are, and whether what was trained is beside them."""
    if (folder / "config.json").is_file() and old.sharing.ordinary:
        yield folder, False
    elif goes_on:
        yield (beside(folder, old.base) if hasattr(old.sharing.encoder, "peft_config") else None) or model, True
    else:
        with tempfile.TemporaryDirectory() as place, quiet_transformers():
            plain = _plain(asked, old)
            plain.should_save_on_this_rank = lambda _: True  # transformers writes on the first process alone
            plain.save_pretrained(place)
            del plain.should_save_on_this_rank
            old.tokenizer.save_pretrained(place)
            yield Path(place), False


@contextmanager
def _drawn_anew(asked: InitFrom, seed: int) -> Iterator[None]:
    """A LoRA that follows another draws other first weights than that one did with the same seed."""
    if not asked.merge:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}:{Path(asked.run).name}".encode()))
        yield


def _plain(asked: InitFrom, old: MultiTaskModel) -> Any:
    """The ordinary encoder that the earlier run's tasks used, or one of them."""
    if old.sharing.ordinary:
        return merged(old.sharing.encoder)
    if asked.task is None:
        raise ConfigError(
            f"init_from: the tasks of {asked.run} use encoders that differ (sharing {old.sharing.registered_as!r}); "
            f"say whose: init_from: {{run: {asked.run}, task: {old.tasks[0]}}}"
        )
    return plain_encoder(old, asked.task)


def _take_trained(asked: InitFrom, old: MultiTaskModel, made: MultiTaskModel, whole: bool) -> None:
    """Copy what was trained beside a pretrained encoder; of an encoder that holds it already, how heads mix layers.

    Raises:
        ConfigError: a part that has no place in the new model, and is not a task's that the new model is without.
    """
    theirs, ours = _trained(old), _trained(made)
    if asked.merge:  # adapters are in the weights, and those that are here are others
        theirs = {name: value for name, value in theirs.items() if not is_adapter(name)}
    lost = []
    with torch.no_grad():
        for name, value in theirs.items():
            if name in ours and ours[name].shape == value.shape:
                ours[name].copy_(value)
            elif whole and not _of_a_task_that_left(name, old, made):
                lost.append(name)
    if lost:
        raise ConfigError(
            f"init_from: what {asked.run} learned goes on to be trained, and {len(lost)} part(s) of it have no place "
            f"here, e.g. {lost[0]}; use its `sharing`, `lora` and `task_lora`, or start from an exported task "
            "(nlp-mtl export RUN --task T OUT)"
        )


def _trained(model: MultiTaskModel) -> dict[str, Tensor]:
    own = {name: p for name, p in model.sharing.named_parameters() if p.requires_grad}
    return {**(own if hasattr(model.sharing.encoder, "peft_config") else {}), **model.sharing.own_state()}


def _of_a_task_that_left(name: str, old: MultiTaskModel, made: MultiTaskModel) -> bool:
    owners = owners_of(old.sharing.encoder)
    tasks = {*(owners.adapters if owners is not None else ()), *old.tasks}
    return bool((tasks - set(made.tasks)) & set(name.split(".")))


def _take_heads(asked: InitFrom, old: MultiTaskModel, made: MultiTaskModel) -> list[str]:
    """Start heads as the earlier run's; gives the tasks whose did.

    Raises:
        ConfigError: a head that `heads` names does not fit.
    """
    kept, mistakes = [], []
    for task in [task for task, head in made.heads.items() if head.task.head_key == task]:
        source = asked.heads.get(task, task)
        if source not in old.heads:
            continue
        why = taken_over(old.heads[source], old.module_of(source), made.heads[task], made.module_of(task))
        if not why:
            kept.append(task)
        elif task in asked.heads:
            mistakes.append(f"init_from: the head of {task!r} can't start as that of {source!r}: {why}; leave it out")
        else:
            logger.info("init_from: the head of %s begins anew: %s", task, why)
    unknown = [task for task in asked.heads if task not in made.heads]
    mistakes += [f"init_from: `heads`: this run has no task {t!r}{suggestion(t, made.tasks)}" for t in unknown]
    if mistakes:
        raise ConfigError(mistakes)
    made.begun |= set(kept)
    return kept


def taken_over(old: Head, theirs: nn.Module, head: Head, ours: nn.Module) -> str:
    """Give a head's module the weights of another's; or say why not, and change nothing.

    Labels may come in another order: what has a row for each of them is put into the new one. Of a task whose labels
    grew, rows of the labels that were known are taken over, and those of the others begin anew.
    """
    if type(old) is not type(head):
        return f"it is of another kind ({old.task.head_name} and {head.task.head_name})"
    before, now = old.labels or [], head.labels or []
    grew = head.by_labels and bool(before) and set(before) < set(now)
    if head.by_labels and not grew and set(before) != set(now):
        return "its labels are others"
    if not head.writes_like(old):
        return "it writes with another vocabulary"
    state, own = _state(theirs), _state(ours)
    if grew:
        wider = grown(state, own, before, now)
        if wider is None:
            return "it has more labels, and which of its numbers are those of the old ones can't be told"
        ours.load_state_dict(wider, strict=False)
        new = ", ".join(label for label in now if label not in before)
        logger.info(
            "init_from: the head of %s has %d labels more, which begin anew: %s",
            head.task.name,
            len(now) - len(before),
            new,
        )
        return ""
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in own.items()}:
        return "its parts have other shapes"
    ordered = in_order(state, before, now) if head.by_labels else state
    if set(ordered) != set(state):
        return "its labels are in another order, and which of its numbers are theirs can't be told"
    ours.load_state_dict(ordered, strict=False)
    return ""


def _state(module: nn.Module) -> dict[str, Tensor]:
    """What is the head's own: no weights that are the encoder's."""
    return {name: value for name, value in module.state_dict().items() if name not in tied_keys(module)}


def _recorded(made: MultiTaskModel, asked: InitFrom, kept: Sequence[str]) -> MultiTaskModel:
    name = asked.run if hub_name(asked.run) is not None else Path(asked.run).resolve().name
    made.strategies["init_from"] = {"run": name, "heads": list(kept)}
    said = f"; heads taken over: {', '.join(kept)}" if kept else ""
    logger.info("started from %s%s", asked.run, said)
    return made


def source_folder(name: str) -> Path:
    """The folder of a run or of a pretrained model by what `init_from` says; raises as :func:`model_from`."""
    if hub_name(name) is None and (Path(name) / checkpoint.SPEC).is_file():
        return Path(name)
    if hub_name(name) is not None:
        try:
            return local_folder(name)
        except (RunFolderError, HubError) as error:
            logger.debug("init_from: %s is no run: %s", name, error)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        adapter = (Path(name) / "adapter_config.json").is_file()
        what = "an adapter without the model below it; merge it into its model first" if adapter else "neither"
        raise RunFolderError(
            f"init_from: {name} is a run folder ({checkpoint.SPEC}) or a pretrained one (config.json), found {what}"
        )
    return find_base(name).folder
