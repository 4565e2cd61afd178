"""AdamW that does on the CPU only the work that changes something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.kernels import updating
from nlp_mtl.memory import keeper_of


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` (Loshchilov & Hutter, 2017, arXiv 1711.05101), in one pass over memory on the CPU.

    State, its names and the result are torch's, to rounding. What is saved:

    * Word embeddings whose gradient is kept (:class:`nlp_mtl.memory.KeptGradient`): a row that no batch ever used has
      zero moments and a zero gradient, so without weight decay its update is zero. Only the rows used so far are
      worked on; after a resume they are those with moments.
    * Clipping: :meth:`clip` measures the norm, and the step multiplies by the factor, so that gradients are read twice
      and not written. They stay unclipped in ``.grad``, so it is not for who looks at them before the step.

    Parameters elsewhere than on the CPU, other dtypes, sparse gradients, and the options `amsgrad`, `maximize`,
    `capturable` and `differentiable` take torch's own step.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.0)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> float(optimizer.clip([weight], max_norm=1.0)), optimizer.step()
        (5.0, None)
        >>> weight.detach()
        tensor([2.9000, 3.9000])
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._factor = 1.0
        self._table: _Table | None = None

    def takes(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the kernels can do the whole step for these parameters' gradients."""
        plain = not any(g[name] for g in self.param_groups for name in _OTHERS)
        plain = plain and not any(torch.is_tensor(g["lr"]) for g in self.param_groups)
        # `fused`: torch's GradScaler leaves it to such a step to undo its scale and to pass over what is not finite
        plain = plain and getattr(self, "grad_scale", None) is None and getattr(self, "found_inf", None) is None
        own = {id(p) for g in self.param_groups for p in g["params"]}
        return plain and all(
            id(p) in own and updating.fits(p, gradient) for p in parameters if (gradient := p.grad) is not None
        )

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """The norm of the gradients; the next step scales them to at most `max_norm`, as `clip_grad_norm_` would.

        Ask :meth:`takes` first.
        """
        given = [p for p in parameters if p.grad is not None]
        lines, held = np.array([updating.line(None, p.grad) for p in given if p.grad is not None], dtype=np.int64), []
        for parameter, line in zip(given, lines, strict=True):
            kept = keeper_of(parameter) if parameter.dim() == 2 else None
            if kept is not None and kept.is_whole():
                held.append(kept.rows_now())
                updating.only_rows(line, held[-1], parameter)
        found = updating.norm(lines)
        self._factor = min(1.0, max_norm / (found + 1e-6)) if found == found else found
        return torch.tensor(found)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see torch's."""
        parameters = [p for g in self.param_groups for p in g["params"]]
        factor, self._factor = self._factor, 1.0
        for parameter in parameters:  # torch's fused kernel reads a gradient's numbers as they lie in memory
            if parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()
        if closure is not None or not self.takes(parameters):
            if factor != 1.0:
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
            for keeper in filter(None, map(keeper_of, parameters)):
                keeper.forget_rows()
            return super().step(closure)
        for group in self.param_groups:
            if any(p.grad is not None and not self.state.get(p) for p in group["params"]):
                self._init_group(group, *([] for _ in range(6)))  # torch makes the state of those that have none
        if self._table is None or not self._table.is_of(self):
            self._table = _Table(self)
        self._table.step(factor)
        return None


class _Table:
    """An optimizer's tensors with their state, looked up once: there may be a thousand small ones.

    The counts of steps, a tensor for each parameter, are views of one.
    """

    def __init__(self, optimizer: AdamW):
        self.groups, self.state = optimizer.param_groups, optimizer.state
        both = [(p, number) for number, group in enumerate(self.groups) for p in group["params"] if self.state.get(p)]
        self.parameters, owner = [p for p, _ in both], [number for _, number in both]
        self.group = np.array(owner, dtype=np.int64)
        self.states = [self.state[p] for p in self.parameters]
        self.moments = [(one["exp_avg"], one["exp_avg_sq"]) for one in self.states]
        counted = torch.tensor([float(one["step"]) for one in self.states], dtype=torch.float32)
        self.counts = list(counted.unbind())
        for one, count in zip(self.states, self.counts, strict=True):
            one["step"] = count
        self.steps = counted.numpy()
        lines = [updating.line(p, p, *found) for p, found in zip(self.parameters, self.moments, strict=True)]
        self.lines = np.array(lines, dtype=np.int64).reshape(-1, len(updating.PLACES))
        self.keepers = {number: kept for number, p in enumerate(self.parameters) if (kept := keeper_of(p)) is not None}

    def is_of(self, optimizer: AdamW) -> bool:
        """Whether nobody added a parameter, or loaded or exchanged a state, since."""
        known = sum(bool(one) for one in optimizer.state.values())
        if optimizer.state is not self.state or known != len(self.parameters):
            return False
        if any(keeper_of(p) is not self.keepers.get(i) for i, p in enumerate(self.parameters) if p.dim() == 2):
            return False
        parts = zip(self.parameters, self.states, self.counts, self.moments, self.lines[:, 0].tolist(), strict=True)
        return all(
            self.state[p] is one
            and one["step"] is count
            and one["exp_avg"] is mean
            and one["exp_avg_sq"] is square
            and p.data_ptr() == at
            for p, one, count, (mean, square), at in parts
        )

    def step(self, factor: float) -> None:
        """One step of those that have a gradient."""
        here = [number for number, p in enumerate(self.parameters) if p.grad is not None]
        lines = self.lines[here]
        lines[:, 1] = [g.data_ptr() for number in here if (g := self.parameters[number].grad) is not None]
        self.steps[here] += 1
        held = []
        for number, kept in self.keepers.items():
            weight = self.parameters[number]
            if weight.grad is None:
                continue
            if kept.is_whole() and not self.groups[self.group[number]]["weight_decay"]:
                held.append(kept.rows_ever(*self.moments[number]))
                updating.only_rows(lines[here.index(number)], held[-1], weight)
            else:
                kept.forget_rows()
        of = self.group[here]
        said = {name: np.array([group[name] for group in self.groups])[of] for name in ("lr", "eps", "weight_decay")}
        betas = np.array([group["betas"] for group in self.groups])[of]
        pace = updating.Pace(said["lr"], betas[:, 0], betas[:, 1], said["eps"], said["weight_decay"], self.steps[here])
        updating.adamw(lines, pace, factor)
        torch.autograd.graph.increment_version([self.parameters[number] for number in here])


_OTHERS = ("amsgrad", "maximize", "capturable", "differentiable")
