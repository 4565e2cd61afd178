"""Task adapters merged into one that all their tasks share, by PEFT's `add_weighted_adapter`."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlp_mtl import checkpoint
from nlp_mtl.adapting.places import keep_records, out_mistakes, unknown
from nlp_mtl.adapting.refusing import check_only_adapters
from nlp_mtl.bases import find_recorded
from nlp_mtl.errors import ConfigError, UnsupportedError, suggestion
from nlp_mtl.folding import folded, has_adapter, with_ranks
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import open_base
from nlp_mtl.pulling import local_folder
from nlp_mtl.tasklora import owners_of

_PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
WAYS = ("linear", *_PRUNING, "cat", "svd", *(f"{way}_svd" for way in _PRUNING))


@dataclass(frozen=True)
class Merged:
    """A run with one adapter in the place of several.

    Attributes:
        folder: the new run.
        tasks: its tasks.
        how: how they were merged.
        rank: of most of its layers.
        weights: of each task's adapter.
        left_out: tasks of the old run whose adapters were not merged, so that the new one has no heads for them.
    """

    folder: Path
    tasks: tuple[str, ...]
    how: str
    rank: int
    weights: tuple[float, ...]
    left_out: tuple[str, ...]


def merge_adapters(
    run: str | Path,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    how: str = "linear",
    *,
    weights: Sequence[float] | None = None,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
    base: str | Path | None = None,
) -> Merged:
    """Merge the adapters of tasks into one, and write a run in which they share it; the heads stay as they are.

    What is merged of a task is all that it uses: the shared adapter and its own, as one.

    Args:
        run: a folder of a run with `task_lora`, or a repository of the Hub.
        out: the new run, with one LoRA for all its tasks.
        tasks: which; default all.
        how: a `combination_type` of PEFT: ``linear`` takes the weighted sum of A and of B each, ``cat`` and ``svd``
            that of the products, ``ties``, ``dare_linear``, ``dare_ties`` and ``magnitude_prune`` leave out a part of
            the numbers first; with ``_svd``, of the products.
        weights: one for each task; default equal ones, so that it is a mean.
        density: the share of numbers that stay, above 0 and at most 1.
        rank: of the result, with ``svd`` kinds; default the largest of theirs.
        seed: of what ``dare`` leaves out.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Raises:
        ConfigError: arguments that are wrong, all at once.
        UnsupportedError: a run without adapters of tasks, or on an encoder of its own.

    Relations: TIES is Yadav et al. (2023, arXiv 2306.01708), DARE is Yu et al. (2023, arXiv 2311.03099), linear merging
    of weights is Ilharco et al. (2022, arXiv 2212.04089), magnitude pruning and all of them on LoRA are PEFT's.
    """
    folder = local_folder(run)
    model = MultiTaskModel.from_pretrained(folder, base=base)
    check_only_adapters(model, "merge")
    names = _fitting(model, list(tasks) if tasks is not None else None)
    mistakes = out_mistakes("merge", out) + _arguments(names, how, weights, density, rank)
    shares = _shares(model, names, how, weights)
    parts = {task: folded(model.sharing.encoder, task) for task in names}
    mistakes += _same_adapter(model, names, weights) + _ranks({task: parts[task] for task in shares}, how)
    if mistakes:
        raise ConfigError(mistakes)
    _, plain = open_base(find_recorded(model.base, base, None).folder)
    encoder, config, tensors = _merged(
        plain, [parts[t] for t in shares], list(shares.values()), how, density, rank, seed
    )
    made = _shared_by(model, names, encoder, config, tensors)
    place = Path(out)
    with checkpoint.replacing(place) as work:
        made.save_pretrained(work)
    keep_records(folder, place, made)
    left = tuple(task for task in model.tasks if task not in names)
    return Merged(place, tuple(names), how, config.r, tuple(_weights(names, how, weights)), left)


def _fitting(model: MultiTaskModel, tasks: list[str] | None) -> list[str]:
    """The tasks to merge, checked against the run."""
    encoder: Any = model.sharing.encoder
    owners = owners_of(encoder)
    if owners is None or not owners.adapters:
        has = "one adapter for all tasks" if hasattr(encoder, "peft_config") else "full fine-tuning and no adapter"
        raise UnsupportedError(
            f"adapters merge: merges adapters of single tasks, this run has {has}; train with `task_lora`"
        )
    if owners.own_encoder or model.base.get("own"):
        raise UnsupportedError(
            "adapters merge: gives an adapter of the pretrained model, and this run's stand on an encoder that was "
            "trained itself; export the tasks one by one (nlp-mtl export --as model)"
        )
    names = tasks if tasks is not None else [task for task in model.tasks if has_adapter(encoder, task)]
    mistakes = unknown("merge", names, model.tasks)
    known = [task for task in names if task in model.heads]
    if len(set(names)) < len(names):
        mistakes.append(f"adapters merge: names each task once, found {', '.join(names)}; leave out the rest")
    mistakes += [
        f"adapters merge: {task!r} has no adapter; leave it out" for task in known if not has_adapter(encoder, task)
    ]
    mistakes += [
        f"adapters merge: {task!r} uses the head of {key!r}; name {key!r} too"
        for task in known
        if (key := model.heads[task].task.head_key) not in names
    ]
    if not mistakes and len({owners.adapter_of[task] for task in names}) < 2:
        mistakes.append(
            f"adapters merge: at least two adapters, found {len(names)} task{'s' * (len(names) > 1)} with one "
            f"({', '.join(names)}); name more of {', '.join(model.tasks)}"
        )
    if mistakes:
        raise ConfigError(mistakes)
    return names


def _arguments(
    names: Sequence[str], how: str, weights: Sequence[float] | None, density: float | None, rank: int | None
) -> list[str]:
    said = []
    if how not in WAYS:
        return [f"adapters merge: --how is one of {', '.join(WAYS)}, found {how!r}{suggestion(how, WAYS)}"]
    if weights is not None and len(weights) != len(names):
        said.append(
            f"adapters merge: --weights has one for each task, found {len(weights)} for {', '.join(names)}; "
            "leave them out for equal ones"
        )
    if weights is not None and not all(map(math.isfinite, weights)):
        said.append(
            f"adapters merge: --weights are finite numbers, found {', '.join(map(str, weights))}; leave them out "
            "for equal ones"
        )
    prunes = how.startswith(_PRUNING)
    if prunes and density is None:
        said.append(f"adapters merge: --how {how} needs --density, the share of numbers that stay; e.g. --density 0.5")
    if not prunes and density is not None:
        said.append(f"adapters merge: --density goes with {', '.join(_PRUNING)}, found --how {how}; leave it out")
    if density is not None and not 0 < density <= 1:
        said.append(f"adapters merge: --density is above 0 and at most 1, found {density}; e.g. 0.5")
    if rank is not None and not how.endswith("svd"):
        said.append(f"adapters merge: --rank goes with svd and …_svd, found --how {how}; leave it out")
    if rank is not None and rank < 1:
        said.append(f"adapters merge: --rank is at least 1, found {rank}; leave it out for the largest")
    return said


def _weights(names: Sequence[str], how: str, weights: Sequence[float] | None) -> list[float]:
    """One weight for each task; what TIES makes of weights of 1 is a mean already."""
    if weights is not None:
        return list(weights)
    return [1.0 if "ties" in how else 1.0 / len(names)] * len(names)


def _shares(model: MultiTaskModel, names: Sequence[str], how: str, weights: Sequence[float] | None) -> dict[str, float]:
    """One task for each adapter, and the adapter's weight."""
    owners = owners_of(model.sharing.encoder)
    assert owners is not None
    first = {owners.adapter_of[task]: task for task in reversed(names)}
    one_each = [task for task in names if task in first.values()]
    if weights is None:
        return dict(zip(one_each, _weights(one_each, how, None), strict=True))
    given = dict(zip(names, weights, strict=False))
    return {task: given.get(task, 1.0) for task in one_each}


def _same_adapter(model: MultiTaskModel, names: Sequence[str], weights: Sequence[float] | None) -> list[str]:
    """Tasks with one adapter can't give it two weights."""
    owners, said = owners_of(model.sharing.encoder), []
    assert owners is not None
    given: dict[str | None, tuple[str, float]] = {}
    for task, weight in zip(names, weights or (), strict=False):
        other, known = given.setdefault(owners.adapter_of[task], (task, weight))
        if known != weight and other != task:
            said.append(
                f"adapters merge: {other!r} and {task!r} use one adapter, so their --weights are equal, found {known} "
                f"and {weight}"
            )
    return said


def _ranks(parts: dict[str, tuple[Any, dict[str, Tensor]]], how: str) -> list[str]:
    """What is wrong with the adapters' ranks for this way of merging."""
    each: dict[str, dict[str, int]] = {}
    widths: dict[str, int] = {}
    for task, (_, tensors) in parts.items():
        for key, value in tensors.items():
            place, down = key.partition(".lora_")[0], ".lora_A." in key
            if down:
                each.setdefault(place, {})[task] = len(value)
            widths[place] = min(widths.get(place, len(value.T)), len(value.T) if down else len(value))
    if how == "cat":
        for place, ranks in each.items():
            if sum(ranks.values()) > widths[place]:
                return [
                    f"adapters merge: with --how cat the ranks add up, to {sum(ranks.values())} in "
                    f"{place.removeprefix('base_model.model.')}, whose weight has a rank of {widths[place]} at most; "
                    "say --how svd, or name fewer tasks"
                ]
    elif how in WAYS and not how.endswith("svd"):
        for place, ranks in each.items():
            if len(set(ranks.values())) > 1:
                found = ", ".join(f"{task} {rank}" for task, rank in ranks.items())
                return [
                    f"adapters merge: --how {how} takes adapters of one rank, found {found} in "
                    f"{place.removeprefix('base_model.model.')}; say --how cat or svd"
                ]
    return []


def _merged(
    plain: Any,
    parts: Sequence[tuple[Any, dict[str, Tensor]]],
    weights: Sequence[float],
    how: str,
    density: float | None,
    rank: int | None,
    seed: int,
) -> tuple[Any, Any, dict[str, Tensor]]:
    """The encoder as it was, and the merged adapter: a `LoraConfig`, and weights by PEFT's names."""
    from peft import get_peft_model, set_peft_model_state_dict

    names = [f"task_{number}" for number in range(len(parts))]
    wrapped: Any = plain
    for name, (its, tensors) in zip(names, parts, strict=True):
        config = copy.copy(its)
        config.base_model_name_or_path = None  # PEFT would warn that it is called otherwise than the folder it lies in
        if hasattr(wrapped, "peft_config"):
            wrapped.add_adapter(name, config)
        else:
            wrapped = get_peft_model(wrapped, config, adapter_name=name)
        set_peft_model_state_dict(wrapped, tensors, adapter_name=name)
    more: dict[str, Any] = {} if rank is None else {"svd_rank": rank}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        wrapped.add_weighted_adapter(names, list(weights), "all", combination_type=how, density=density, **more)
    tensors, ranks = {}, {}
    for place, layer in wrapped.named_modules():
        if "all" in getattr(layer, "lora_A", ()):
            down, up = layer.lora_A["all"].weight, layer.lora_B["all"].weight
            tensors[f"{place}.lora_A.weight"] = down.detach().clone().contiguous()
            tensors[f"{place}.lora_B.weight"] = (up.detach() * layer.scaling["all"]).clone().contiguous()
            ranks[place.removeprefix("base_model.model.")] = len(down)
    bare = wrapped.unload()
    vars(bare).pop("peft_config", None)  # what PEFT leaves there of adapters that are gone
    return bare, with_ranks(parts[0][0], ranks), tensors


def _shared_by(
    model: MultiTaskModel, names: Sequence[str], encoder: Any, config: Any, tensors: dict[str, Tensor]
) -> MultiTaskModel:
    """A model with one LoRA for these tasks and their heads as they were."""
    from peft import set_peft_model_state_dict

    heads = {task: model.heads[task] for task in names}
    made = MultiTaskModel.assemble(
        encoder,
        model.tokenizer,
        heads,
        sharing=model.strategies["sharing"],
        lora=config,
        base=model.base,
        max_length=model.max_length,
    )
    set_peft_model_state_dict(made.sharing.encoder, tensors)
    for key, module in made.modules_.items():
        module.load_state_dict(model.modules_[key].state_dict())
    made.strategies = {**{k: v for k, v in model.strategies.items() if k != "adapters"}, "lora": True}
    return made.eval()
