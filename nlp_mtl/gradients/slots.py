"""Where the tasks' gradients of some parameters are added up over a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.kernels import rows
from nlp_mtl.memory import keeper_of


@dataclass
class Lookups:
    """What an embedding was looked up for: rows of its gradient, which are few beside all of its rows.

    Attributes:
        ids: [tokens], the rows of the embedding.
        tasks: [tokens], whose each token is.
        values: [tokens, width], gradients of what was looked up.
    """

    ids: Tensor
    tasks: Tensor
    values: Tensor


class Slots:
    """The gradient of each of some tasks by some parameters, added up over the passes of a step.

    Dense ones stand side by side in a block [tasks, numbers]; those of embeddings that were only looked up in are kept
    as the rows that were.

    Args:
        parameters: of whatever shapes, on one device; each once.
        tasks: how many.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> slots = Slots([weight], 2)
        >>> slots.add(weight, 0, torch.tensor([1.0, 0.0]))
        >>> slots.add(weight, 1, torch.tensor([-1.0, 2.0]))
        >>> slots.gramian().tolist()
        [[1.0, -1.0], [-1.0, 5.0]]
        >>> slots.write(torch.tensor([0.5, 1.0]))
        >>> weight.grad.tolist()
        [-0.5, 2.0]
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: int):
        self.parameters, self.tasks = list(parameters), tasks
        self._known = {id(parameter) for parameter in self.parameters}
        self._sparse: set[int] = set()  # embeddings that have no place in a block
        self._narrow: set[int] = set()  # products in bfloat16 that nothing is added to
        self._lay_out()
        self.begin()

    def _lay_out(self) -> None:
        """Give each parameter its place: (which block, begin, end)."""
        self._place: dict[int, tuple[int, int, int]] = {}
        self._numbers, self._blocks = [0, 0], [None, None]
        for parameter in self.parameters:
            kind, size = int(id(parameter) in self._narrow), parameter.numel()
            size = 0 if id(parameter) in self._sparse else size
            self._place[id(parameter)] = kind, self._numbers[kind], self._numbers[kind] + size
            self._numbers[kind] += size

    _blocks: list[Tensor | None]

    def begin(self, narrow: Sequence[nn.Parameter] = ()) -> None:
        """A step begins: all is 0.

        Args:
            narrow: parameters of which each task's gradient comes once in this step, as a product in bfloat16: it is
                kept so, in half of the memory.
        """
        wanted = {id(p) for p in narrow} & self._known
        if wanted != self._narrow:
            self._narrow = wanted
            self._lay_out()
        self._touched: set[tuple[int, int]] = set()
        self.lookups: dict[int, list[Lookups]] = {}

    def takes(self, parameter: Tensor) -> bool:
        """Whether this parameter's gradients are wanted."""
        return id(parameter) in self._known

    def sparse(self, parameters: Sequence[nn.Parameter]) -> None:
        """Say which parameters are only looked up in, before anything is added: they get no place in a block."""
        wanted = {id(p) for p in parameters if self.takes(p)}
        if wanted != self._sparse:
            self._sparse = wanted
            self._lay_out()

    def is_sparse(self, parameter: nn.Parameter) -> bool:
        """Whether it is only looked up in."""
        return id(parameter) in self._sparse

    def _block(self, kind: int) -> Tensor:
        found = self._blocks[kind]
        if found is None:
            first = self.parameters[0]
            dtype = first.dtype if first.dtype in (torch.float32, torch.float64) else torch.float32
            dtype = torch.bfloat16 if kind else dtype
            found = torch.zeros(self.tasks, self._numbers[kind], dtype=dtype, device=first.device)
            self._blocks[kind] = found
        return found

    def blocks(self) -> list[Tensor]:
        """Each [tasks, numbers]: the dense gradients."""
        return [self._block(kind) for kind in (0, 1) if self._numbers[kind]]

    def of(self, parameter: nn.Parameter) -> Tensor:
        """[tasks, *shape]: a parameter's part of its block."""
        kind, begin, end = self._place[id(parameter)]
        return self._block(kind)[:, begin:end].view(self.tasks, *parameter.shape)

    @torch.no_grad()
    def add(self, parameter: nn.Parameter, task: int, gradient: Tensor) -> None:
        """Add to a task's gradient of a dense parameter; `gradient` [*shape], of any dtype."""
        kind, begin, end = self._place[id(parameter)]
        place = self._block(kind)[task, begin:end].view(parameter.shape)
        if (id(parameter), task) in self._touched:
            place.add_(gradient)
        else:
            self._touched.add((id(parameter), task))
            place.copy_(gradient)

    @torch.no_grad()
    def add_product(self, parameter: nn.Parameter, task: int, left: Tensor, right: Tensor) -> None:
        """As :meth:`add` with the gradient ``left @ right``."""
        kind, begin, end = self._place[id(parameter)]
        if (id(parameter), task) in self._touched or self._block(kind).dtype != left.dtype:
            self.add(parameter, task, left @ right)
        else:
            self._touched.add((id(parameter), task))
            torch.mm(left, right, out=self._block(kind)[task, begin:end].view(parameter.shape))

    @torch.no_grad()
    def add_all(self, parameter: nn.Parameter, tasks: Sequence[int], gradients: Tensor) -> None:
        """Add to several tasks' gradients at once; `gradients` [tasks given, *shape]."""
        new = [(id(parameter), task) not in self._touched for task in tasks]
        if len(tasks) == self.tasks and list(tasks) == list(range(self.tasks)) and all(new):
            self.of(parameter).copy_(gradients)
            self._touched.update((id(parameter), task) for task in tasks)
        else:
            for task, gradient in zip(tasks, gradients, strict=True):
                self.add(parameter, task, gradient)

    def look_up(self, parameter: nn.Parameter, found: Lookups) -> None:
        """Add what an embedding was looked up for."""
        self.lookups.setdefault(id(parameter), []).append(found)

    @torch.no_grad()
    def finish(self) -> None:
        """All of the step was added: what nobody added to is 0."""
        for parameter in self.parameters:
            if self.is_sparse(parameter):
                continue
            idle = [task for task in range(self.tasks) if (id(parameter), task) not in self._touched]
            if len(idle) == self.tasks:
                self.of(parameter).zero_()
            else:
                for task in idle:
                    self.of(parameter)[task].zero_()
        self._touched = {(id(p), task) for p in self.parameters for task in range(self.tasks)}

    # ---------------------------------------------------------------------------------------------------- what is asked

    @torch.no_grad()
    def gramian(self, only: Sequence[nn.Parameter] | None = None) -> Tensor:
        """[tasks, tasks], float64: the products of the tasks' gradients, over all parameters or `only` some."""
        self.finish()
        found = torch.zeros(self.tasks, self.tasks, dtype=torch.float64)
        if only is None:
            for block in self.blocks():
                found += rows.gramian(block)
        else:
            for parameter in only:
                if not self.is_sparse(parameter):
                    found += rows.gramian(self.of(parameter).flatten(1))
        wanted = self.lookups if only is None else [id(p) for p in only if id(p) in self.lookups]
        for key in wanted:
            found += rows.gramian(self._rows(self.lookups[key])[1].flatten(1))
        return (found + found.T) / 2

    def _rows(self, parts: Sequence[Lookups]) -> tuple[Tensor, Tensor]:
        """[rows] the rows of an embedding that were looked up, and [tasks, rows, width] their gradients."""
        ids, places = torch.cat([part.ids for part in parts]).unique(return_inverse=True)
        values = torch.cat([part.values for part in parts])
        flat = values.new_zeros(self.tasks * len(ids), values.shape[1])
        flat.index_add_(0, torch.cat([part.tasks for part in parts]) * len(ids) + places, values)
        return ids, flat.view(self.tasks, len(ids), -1)

    @torch.no_grad()
    def jacobian(self) -> Tensor:
        """[tasks, numbers]: all of it, dense, in the order of the parameters."""
        self.finish()
        if not self._sparse and not self._narrow:
            return self._block(0)
        parts = []
        for parameter in self.parameters:
            if not self.is_sparse(parameter):
                parts.append(self.of(parameter).flatten(1).to(self._block(0).dtype))
                continue
            whole = self._block(0).new_zeros(self.tasks, *parameter.shape)
            if found := self.lookups.get(id(parameter)):
                ids, some = self._rows(found)
                whole[:, ids] = some.to(whole)
            parts.append(whole.flatten(1))
        return torch.cat(parts, 1)

    def write(self, weights: Tensor) -> None:
        """The sum of the tasks' gradients, each times its weight, becomes the parameters' ``grad``.

        Args:
            weights: [tasks].
        """
        self.finish()
        with torch.no_grad():
            whole = [rows.weighted_sum(weights, self._block(k)) if self._numbers[k] else None for k in (0, 1)]
        for parameter in self.parameters:
            if not self.is_sparse(parameter):
                kind, begin, end = self._place[id(parameter)]
                made = whole[kind]
                assert made is not None
                parameter.grad = made[begin:end].view(parameter.shape).to(parameter.dtype)
            elif found := self.lookups.get(id(parameter)):
                ids = torch.cat([part.ids for part in found])
                factor = weights.to(found[0].values)[torch.cat([part.tasks for part in found])]
                _let_autograd_add(parameter, ids, torch.cat([part.values for part in found]) * factor[:, None])

    def write_flat(self, gradient: Tensor) -> None:
        """A gradient [numbers], in the order of :meth:`jacobian`, becomes the parameters' ``grad``."""
        begin = 0
        for parameter in self.parameters:
            part = gradient[begin : begin + parameter.numel()].view(parameter.shape).to(parameter.dtype)
            if self.is_sparse(parameter):
                with torch.enable_grad():
                    (parameter * part).sum().backward()  # who keeps the gradient hears of it
            else:
                parameter.grad = part
            begin += parameter.numel()

    def reduced(self, processes: int, reduce: Mapping[str, object]) -> None:
        """Average over processes; `reduce` gives ``sum`` (a tensor) and ``gather`` (a list of objects)."""
        self.finish()
        total = reduce["sum"]
        for kind in (0, 1):
            if self._numbers[kind]:
                self._blocks[kind] = total(self._block(kind)).div_(processes)  # type: ignore[operator]
        gather = reduce["gather"]
        mine = {
            number: self._rows(self.lookups[id(p)]) for number, p in enumerate(self.parameters) if id(p) in self.lookups
        }
        for number, parameter in enumerate(self.parameters):
            if not self.is_sparse(parameter):
                continue
            ids, own = mine.get(number, (torch.zeros(0, dtype=torch.long), None))
            known = gather(ids.cpu())  # type: ignore[operator]
            union = torch.cat([part.to(self._block(0).device) for part in known]).unique()
            whole = self._block(0).new_zeros(self.tasks, len(union), parameter.shape[1])
            if own is not None and len(ids):
                whole[:, torch.searchsorted(union, ids)] = own.to(whole)
            whole = total(whole).div_(processes)  # type: ignore[operator]
            tasks = torch.arange(self.tasks, device=union.device).repeat_interleave(len(union))
            self.lookups[id(parameter)] = [Lookups(union.repeat(self.tasks), tasks, whole.flatten(0, 1))]


def _let_autograd_add(weight: nn.Parameter, ids: Tensor, values: Tensor) -> None:
    """Add rows to an embedding's gradient as its own lookups would: who keeps that gradient hears of it."""
    with torch.enable_grad():
        looked_up = functional.embedding(ids, weight, sparse=keeper_of(weight) is not None)
        looked_up.backward(values.to(looked_up.dtype))
