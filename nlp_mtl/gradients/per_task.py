"""The tasks' gradients of a model's shared parameters, over the passes of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nlp_mtl.gradients.modules import only_looked_up_in, tapped
from nlp_mtl.gradients.slots import Slots
from nlp_mtl.gradients.taps import Taps

_SMALL = 65_536  # numbers; those of a LoRA are few, and add up to little


class PerTaskGradients:
    """Keeps apart what each task's loss says of some parameters.

    One backward pass of the plain sum of the losses gives all of them, where the layers of the parameters can tell rows
    apart (linear layers, embeddings, norms, LoRA) and a row is of one task; tasks that label the same rows take a pass
    for each of them. What reaches a parameter in another way (tied weights, layers of other kinds, families that do not
    pack) is found out by itself, and takes one `autograd.grad` per task.

    Args:
        root: the module that the parameters are in.
        parameters: which; each once.
        tasks: the tasks' names.
        whole: the model that the root is a part of, whose other parts may use the parameters too.

    Relations: `torchjd.autojac.mtl_backward` gives the same by differentiating through every task; BackPACK (Dangel et
    al., 2020, arXiv 1912.10985) keeps examples apart in the same way.
    """

    def __init__(
        self,
        root: nn.Module,
        parameters: Sequence[nn.Parameter],
        tasks: Sequence[str],
        whole: nn.Module | None = None,
    ):
        self.root, self.tasks = root, list(tasks)
        self.slots = Slots(parameters, len(self.tasks))
        self.taps = Taps(self.slots, self.tasks)
        self.slots.sparse(only_looked_up_in(root if whole is None else whole, self.taps))
        self._rest: dict[int, nn.Parameter] = {}  # that gradients reach in other ways
        self._met: set[str] = set()
        self._several = _in_several(root)

    def begin(self, *, once_in_bfloat16: bool = False) -> None:
        """A step begins.

        Args:
            once_in_bfloat16: it is one pass of one process, with products in bfloat16.
        """
        narrow = []
        if once_in_bfloat16:
            linear = {id(part.weight) for part in self.root.modules() if isinstance(part, (nn.Linear, Conv1D))}
            narrow = [p for p in self.slots.parameters if id(p) in linear - set(self._rest) - self._several]
            narrow = [p for p in narrow if p.numel() > _SMALL]
        self.slots.begin(narrow)

    @contextmanager
    def during(self) -> Iterator[Taps]:
        """Stands around a forward pass and its :meth:`backward`."""
        with tapped(self.root, self.taps):
            yield self.taps

    def backward(
        self,
        losses: Mapping[str, Tensor],
        run: Callable[..., None] | None = None,
        *,
        keep: bool = False,
        count: bool = True,
    ) -> None:
        """Add the gradients of some tasks' losses, which one forward pass gave.

        Args:
            losses: task → its part of the step's loss.
            run: in the place of ``total.backward(retain_graph=…)``, called with both.
            keep: keep the graph for whoever comes after.
            count: add to the slots; else only go back, for what was counted before.
        """
        taps = self.taps
        colours = [[task for task in colour if task in losses] for colour in taps.colours]
        colours = [colour for colour in colours if colour]
        known = {task for colour in colours for task in colour}
        colours += [[task] for task in losses if task not in known]
        unsure = bool(self._rest) or not self._met.issuperset(losses) or not taps.knows
        taps.on = count
        held = {id(p): p.grad for p in self.slots.parameters if p.grad is not None}
        assert not held, "a parameter has a gradient before the step's tasks were weighed"
        for number, colour in enumerate(colours):
            taps.colour = next((i for i, some in enumerate(taps.colours) if colour[0] in some), 0)
            total = torch.stack([losses[task] for task in colour]).sum()
            last = number == len(colours) - 1
            (run or _backward)(total, retain_graph=keep or unsure or not last)
        taps.on = True
        for parameter in self.slots.parameters:
            if parameter.grad is not None:
                if id(parameter) not in self._rest and not unsure:
                    raise RuntimeError("a task's gradient came in a way that earlier batches did not take")
                self._rest[id(parameter)] = parameter
                parameter.grad = None
        self._met.update(losses)
        if self._rest and count:
            self._one_by_one(losses)

    def _one_by_one(self, losses: Mapping[str, Tensor]) -> None:
        """What the layers did not see, by one backward pass per task."""
        self.taps.on = False
        rest = list(self._rest.values())
        if dense := [p for p in rest if id(p) in self.slots._sparse]:
            kept = [p for p in self.slots.parameters if id(p) in self.slots._sparse and not any(p is q for q in dense)]
            self._take_lookups(dense, kept)
        try:
            for task, loss in losses.items():
                found = torch.autograd.grad(loss, rest, retain_graph=True, allow_unused=True)
                for parameter, gradient in zip(rest, found, strict=True):
                    if gradient is not None:
                        gradient = gradient.to_dense() if gradient.is_sparse else gradient
                        self.slots.add(parameter, self.tasks.index(task), gradient)
        finally:
            self.taps.on = True

    def _take_lookups(self, dense: Sequence[nn.Parameter], sparse: Sequence[nn.Parameter]) -> None:
        """Embeddings that are used otherwise too get a place in the block, with what is known of them so far."""
        slots = self.slots
        before = {id(p): slots.of(p).clone() for p in slots.parameters if id(p) not in slots._sparse and slots._touched}
        touched, lookups = slots._touched, slots.lookups
        slots.sparse(sparse)
        for parameter in slots.parameters:
            if id(parameter) in before:
                slots.of(parameter).copy_(before[id(parameter)])
        slots._touched = touched
        for parameter in dense:
            for part in lookups.pop(id(parameter), []):
                for task in part.tasks.unique().tolist():
                    mine = part.tasks == task
                    whole = torch.zeros_like(parameter)
                    whole.index_add_(0, part.ids[mine], part.values[mine].to(whole))
                    slots.add(parameter, task, whole)

    def gramian(self, only: Sequence[nn.Parameter] | None = None) -> Tensor:
        """[tasks, tasks], float64; see :meth:`Slots.gramian`."""
        return self.slots.gramian(only)


def _in_several(root: nn.Module) -> set[int]:
    """Weights of layers that encoders call more than once in a pass: ALBERT's, and tied ones."""
    users: dict[int, int] = {}
    for module in root.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    repeated = {id(p) for part in root.modules() if "Group" in type(part).__name__ for p in part.parameters()}
    return repeated | {key for key, count in users.items() if count > 1}


def _backward(total: Tensor, **how: Any) -> None:
    total.backward(**how)
