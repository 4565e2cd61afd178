"""What is added to a step's loss beside the tasks: the sharing's penalty and those of regularizers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, broadcast_object_list
from transformers.training_args import OptimizerNames

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError
from nlp_mtl.regularizers import Regularizer
from nlp_mtl.runfiles import FROM_RUNS


class Penalties:
    """Adds penalties' gradients once per optimizer step, and keeps their values for the log.

    Args:
        regularizers: specs or instances, or a single one; see :mod:`nlp_mtl.regularizers`.
        model: the model.
        data: its rows.
        learning: the tasks that learn; what only others use gets no gradient. None for all.

    Raises:
        ConfigError: arguments that do not fit, or one regularizer twice.
    """

    def __init__(
        self,
        regularizers: Sequence[registry.Spec] | registry.Spec,
        model: Any,
        data: Any,
        learning: Collection[str] | None = None,
    ):
        made = [registry.regularizers.build(spec) for spec in _listed(regularizers)]
        self.made: dict[str, Regularizer] = {one.registered_as or type(one).__name__: one for one in made}
        if len(self.made) < len(made):
            raise ConfigError(
                f"regularizers: each once, found {', '.join(one.registered_as for one in made)}; leave one out"
            )
        files = [one.carries_to for one in self.made.values() if one.carries]
        if len(set(files)) < len(files):
            twice = next(file for file in files if files.count(file) > 1)
            carrying = [name for name, one in self.made.items() if one.carries and one.carries_to == twice]
            raise ConfigError(
                f"regularizers: one of them leaves importance for the next run, found {' and '.join(carrying)}; leave "
                "one out, or its `carry`"
            )
        for one in made:
            one.setup(model, data)
        self._values: dict[str, list[float]] = {}
        self._alone = _of_others(model, model.tasks if learning is None else learning)

    def begin(self, processes: int = 1) -> None:
        """A fresh training begins.

        What regularizers begin with is that of the first process: gradients are summed in another order elsewhere, and
        penalties that differ by a rounding would let the processes' weights drift apart.

        Args:
            processes: how many there are.
        """
        self._values = {}
        for one in self.made.values():
            one.begin()
            if processes > 1:
                state = [_on_cpu(one.state_dict())]
                broadcast_object_list(state, from_process=0)
                one.load_state_dict(state[0])

    @property
    def looks(self) -> bool:
        """Whether a regularizer makes passes of its own."""
        return any(one.looks for one in self.made.values())

    def after_pass(
        self, call: Any, part: Mapping[str, Any], weights: Mapping[str, float], key: tuple[int, int]
    ) -> None:
        """See :meth:`nlp_mtl.regularizers.Regularizer.after_pass`."""
        for one in self.made.values():
            if one.looks:
                one.after_pass(call, part, weights, key)

    def add(self, sharing: Any, scale: float = 1.0) -> None:
        """Add the gradients, of parameters that are the same on every process.

        Args:
            sharing: the model's, for its own penalty.
            scale: what the tasks' gradients are multiplied by.
        """
        for one in self.made.values():
            one.before_step(scale)
        for name, one in (("penalty", sharing), *((f"penalty_{name}", one) for name, one in self.made.items())):
            known = one.penalty_gradients()
            if known is None:
                continue
            value, parameters, gradients = known
            self._values.setdefault(name, []).append(value)
            if self._alone:  # a gradient of zeros would let an optimizer move them
                kept = [pair for pair in zip(parameters, gradients, strict=True) if id(pair[0]) not in self._alone]
                parameters, gradients = [p for p, _ in kept], [g for _, g in kept]
            if not parameters:
                continue
            if scale != 1.0:
                torch._foreach_mul_(gradients, scale)
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            torch._foreach_add_([parameter.grad for parameter in parameters], gradients)

    def after_step(self) -> None:
        """The optimizer made its step."""
        for one in self.made.values():
            one.after_step()

    def take(self) -> dict[str, float]:
        """Means since the last time, for the log."""
        found = {name: sum(values) / len(values) for name, values in self._values.items() if values}
        self._values = {}
        return found

    def carried(self, learned: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """What a later run may begin with: file of the run folder → tensors.

        Args:
            learned: the tasks that were trained.
        """
        found = {one.carries_to: one.carried(learned) for one in self.made.values() if one.carries}
        return {file: tensors for file, tensors in found.items() if tensors is not None}

    def said(self, regularizers: Sequence[registry.Spec] | registry.Spec) -> list[Any]:
        """What a run folder records of them; an instance by its class, an earlier run by its folder's name alone."""
        return [_recordable(one) for one in _listed(regularizers)]

    @property
    def kind(self) -> str:
        """What the state is of."""
        return ", ".join(self.made) or "none"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"of": {name: one.state_dict() for name, one in self.made.items()}, "values": self._values}

    def load_state_dict(self, state: Mapping[str, Any] | None, folder: str) -> None:
        """Take over a saved state.

        Raises:
            RunFolderError: of other regularizers.
        """
        theirs = list(state["of"]) if state else []
        if set(theirs) != set(self.made):
            raise RunFolderError(
                f"{folder}: a checkpoint of a run with other regularizers: its are {', '.join(theirs) or 'none'}, this "
                f"run's are {self.kind}; resume with the run file it was begun with, or train into another folder"
            )
        if state:
            self._values = {name: list(values) for name, values in state["values"].items()}
            for name, one in self.made.items():
                one.load_state_dict(state["of"][name])

    def check(self, accelerator: Any, args: Any, balancer: Any = None) -> None:
        """Refuse what has no whole gradients to add to.

        Raises:
            UnsupportedError: with the reason and the way out.
        """
        if not self.made:
            return
        if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise UnsupportedError(
                f"regularizers: {self.kind} compares parameters with copies, and they are in parts on several devices "
                f"with {accelerator.distributed_type.value}; use DDP (torchrun without FSDP), or leave them out"
            )
        if args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
            raise UnsupportedError(
                f"regularizers: {self.kind} adds to gradients after the backward pass, and optim {args.optim.value!r} "
                "updates the weights in it; use another optim, or leave them out"
            )
        for one in self.made.values() if balancer is not None else ():
            one.check(accelerator, balancer)


def _of_others(model: Any, learning: Collection[str]) -> set[int]:
    """The parameters that only tasks use which do not learn."""
    used: dict[bool, set[int]] = {True: set(), False: set()}
    for task in model.tasks:
        own = (*model.module_of(task).parameters(), *model.sharing.parameters_of(task))
        used[task in learning] |= {id(p) for p in own}
    return used[False] - used[True] - {id(p) for p in model.sharing.shared_parameters()}


def _listed(regularizers: Any) -> list[Any]:
    return list(regularizers) if isinstance(regularizers, (list, tuple)) else [regularizers]


def _recordable(one: Any) -> Any:
    if not isinstance(one, Mapping):
        return one if isinstance(one, str) else type(one).__name__
    return {**one, **{key: Path(one[key]).resolve().name for key in FROM_RUNS if one.get(key)}}


def _on_cpu(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    return state.cpu() if isinstance(state, torch.Tensor) else state
