"""AdamW that does on the CPU only the work that changes something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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

    def takes(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the kernels can do the whole step for these parameters' gradients."""
        plain = not any(g[name] for g in self.param_groups for name in _OTHERS)
        plain = plain and not any(torch.is_tensor(g["lr"]) for g in self.param_groups)
        # `fused`: torch's GradScaler leaves it to such a step to undo its scale and to pass over what is not finite
        plain = plain and getattr(self, "grad_scale", None) is None and getattr(self, "found_inf", None) is None
        own = {id(p) for g in self.param_groups for p in g["params"]}
        given = [p for p in parameters if p.grad is not None]
        return plain and all(id(p) in own and updating.fits(p, p.grad) for p in given)  # type: ignore[arg-type]

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """The norm of the gradients; the next step scales them to at most `max_norm`, as `clip_grad_norm_` would.

        Ask :meth:`takes` first.
        """
        parts = []
        for parameter in parameters:
            if parameter.grad is not None:
                kept = keeper_of(parameter)
                rows = kept.rows_now() if kept is not None and kept.is_whole() else None
                parts.append(updating.Update(None, parameter.grad, rows=rows))
        found = updating.norm(parts)
        self._factor = min(1.0, max_norm / (found + 1e-6)) if found == found else found
        return torch.tensor(found)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see torch's."""
        parameters = [p for g in self.param_groups for p in g["params"]]
        factor, self._factor = self._factor, 1.0
        if closure is not None or not self.takes(parameters):
            if factor != 1.0:
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
            for keeper in filter(None, map(keeper_of, parameters)):
                keeper.forget_rows()
            return super().step(closure)
        updates = []
        for group in self.param_groups:
            lists: list[list[Any]] = [[] for _ in range(6)]
            self._init_group(group, *lists)
            values, gradients, means, squares, _, steps = lists
            if steps:
                torch._foreach_add_(steps, 1)
            for value, gradient, mean, square, step in zip(values, gradients, means, squares, steps, strict=True):
                kept, rows = keeper_of(value), None
                if kept is not None and kept.is_whole() and not group["weight_decay"]:
                    rows = kept.rows_ever(mean, square)
                elif kept is not None:
                    kept.forget_rows()
                updates.append(
                    updating.Update(
                        value,
                        gradient,
                        mean,
                        square,
                        rows=rows,
                        lr=group["lr"],
                        betas=group["betas"],
                        eps=group["eps"],
                        weight_decay=group["weight_decay"],
                        step=float(step),
                    )
                )
        updating.adamw(updates, factor)
        return None


_OTHERS = ("amsgrad", "maximize", "capturable", "differentiable")
