"""Balancers that turn gradients which conflict away from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.balancers.base import Scope
from nlp_mtl.balancers.gramian import GramianMethod, Preferring
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.registry import balancers


@balancers.register("pcgrad")
class PCGrad(GramianMethod):
    """Gradient surgery: of each task's gradient is taken what points against another's, one after the other.

    The order is drawn anew at every step. The result is the sum over tasks.

    Relations: `upgrad` projects onto all others at once, without an order; `gradvac` also asks for more than a right
    angle.
    """

    paper = "Yu et al., 2020, arXiv:2001.06782"

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `PCGradWeighting`."""
        from torchjd.aggregation import PCGradWeighting

        return PCGradWeighting()


@balancers.register("gradvac")
class GradVac(GramianMethod):
    """Gradient vaccine: pairs of gradients are turned towards the cosine that they had so far.

    Args:
        beta: how fast the remembered cosines follow, from 0 to 1.
        scope: see :class:`GramianMethod`.

    Relations: `pcgrad` with a learned angle in the place of a right one.
    """

    paper = "Wang et al., 2021, arXiv:2010.05874"
    held = {"_phi_t": 2}

    def __init__(self, beta: float = 0.5, *, scope: Scope = "shared"):
        self.beta = beta
        super().__init__(scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `GradVacWeighting`."""
        from torchjd.aggregation import GradVacWeighting

        return GradVacWeighting(self.beta)

    def state_key(self, here: Tensor) -> Any:
        """As many tasks, in float64."""
        return len(here), torch.float64


@balancers.register("upgrad")
class UPGrad(Preferring):
    """Each task's gradient projected to what conflicts with none, then their mean: no task gets worse by a small step.

    Args:
        weights: task → how much it counts, from 0; tasks not named count 1.
        scope: see :class:`GramianMethod`.

    Relations: `pcgrad` without an order that matters; `dualproj` projects the mean instead of each.
    """

    paper = "Quinton and Rey, 2024, arXiv:2406.16232"

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `UPGradWeighting`, with a projector on a permissive solver."""
        from torchjd.aggregation import UPGradWeighting

        return UPGradWeighting(self.preference(present), projector=nnls_projector())


@balancers.register("dualproj")
class DualProj(Preferring):
    """The mean gradient projected to the nearest that conflicts with no task's.

    Args:
        weights: task → how much it counts, from 0; tasks not named count 1.
        scope: see :class:`GramianMethod`.

    Relations: GEM's projection, over tasks in the place of memories; `upgrad` projects each gradient.
    """

    paper = "Lopez-Paz and Ranzato, 2017, arXiv:1706.08840"

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `DualProjWeighting`, with a projector on a permissive solver."""
        from torchjd.aggregation import DualProjWeighting

        return DualProjWeighting(self.preference(present), projector=nnls_projector())


@balancers.register("pcd")
class Pcd(GramianMethod):
    """Priority-constrained descent: the primary task's gradient, bent so far that every other task still gains.

    A step without the primary task takes the mean of the others.

    Args:
        primary: the task that the others must not hold up; left out, the first one.
        tau: the share of a step along its own gradient that every other task gets, from 0 to 1.
        beta: how slowly the remembered sizes of gradients follow, from 0 to below 1.
        scope: see :class:`GramianMethod`.

    Relations: as `dualproj`, but with a task that comes first and the others as constraints.
    """

    paper = "TMLR 2026, arXiv:2606.29521"
    held = {"_sq_norm_ema": 1, "_n_steps": -1}

    def __init__(self, primary: str | None = None, tau: float = 0.02, beta: float = 0.999, *, scope: Scope = "shared"):
        self.primary, self.tau, self.beta = primary, tau, beta
        super().__init__(scope=scope)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; the primary one is one of them."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        if self.primary is not None and self.primary not in tasks:
            raise ConfigError(
                f"balancer 'pcd': `primary` {self.primary!r} is not a task{suggestion(self.primary, tasks)}"
            )
        self._first = 0 if self.primary is None else list(tasks).index(self.primary)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `PCDWeighting`."""
        from torchjd.aggregation import PCDWeighting

        return PCDWeighting(self.tau, self.beta)

    def state_key(self, here: Tensor) -> Any:
        """As many tasks."""
        return len(here)

    def _weigh(self, facts: Any, here: Tensor, gramian: Tensor, given: Tensor) -> Tensor:
        """The primary task stands first, as TorchJD wants it."""
        place = (here == self._first).nonzero().flatten()
        if not len(place):
            return torch.full((len(here),), 1.0 / max(1, len(here)), dtype=torch.float64)
        order = torch.cat([place, (here != self._first).nonzero().flatten()])
        turned = gramian[order][:, order]
        found = super()._weigh(facts, here[order], turned, turned)
        return torch.zeros_like(found).index_copy(0, order, found)


def nnls_projector() -> Any:
    """The projection onto the dual cone, by `scipy.optimize.nnls`.

    TorchJD's own takes quadprog (GPL) and qpsolvers (LGPL). With G = RᵀR the problem min vᵀGv over v ≥ u is, for
    v = u + x, the non-negative least squares min ‖Rx + Ru‖ over x ≥ 0 (Lawson and Hanson, 1974). G is normalised and
    made regular as TorchJD does it.
    """
    from scipy.optimize import nnls
    from torchjd._linalg import normalize, regularize
    from torchjd.linalg import DualConeProjector

    class Nnls(DualConeProjector):
        def __call__(self, U: Tensor, G: Any) -> Tensor:
            whole = regularize(normalize(G, 1e-4), 1e-4).double().cpu().numpy()
            root = np.linalg.cholesky(whole).T
            rows = U.double().cpu().numpy()
            flat = rows.reshape(-1, rows.shape[-1])
            found = np.stack([u + nnls(root, -root @ u)[0] for u in flat]).reshape(rows.shape)
            return torch.as_tensor(found, device=U.device, dtype=U.dtype)

    return Nnls()
