"""Balancers that look for the direction in which tasks gain alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Scope, StepFacts
from nlp_mtl.balancers.gramian import GramianMethod, Preferring
from nlp_mtl.balancers.roots import root_of, weights_of
from nlp_mtl.errors import ConfigError, pip_install
from nlp_mtl.registry import balancers


@balancers.register("mgda")
class Mgda(GramianMethod):
    """Multiple gradient descent: the shortest vector between the gradients, which no task's gradient opposes.

    Args:
        epsilon: when the search ends, above 0.
        max_iters: after how many rounds it ends.
        scope: see :class:`GramianMethod`.

    Relations: small gradients rule it; `imtl_g` and `aligned_mtl` were made against that.
    """

    paper = "Sener and Koltun, 2018, arXiv:1810.04650"

    def __init__(self, epsilon: float = 1e-3, max_iters: int = 100, *, scope: Scope = "shared"):
        if not epsilon > 0 or max_iters < 1:
            raise ConfigError(
                f"balancer 'mgda': `epsilon` is above 0 and `max_iters` at least 1, found {epsilon} and {max_iters}"
            )
        self.epsilon, self.max_iters = epsilon, max_iters
        super().__init__(scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `MGDAWeighting`."""
        from torchjd.aggregation import MGDAWeighting

        return MGDAWeighting(self.epsilon, self.max_iters)


@balancers.register("cagrad")
class CAGrad(GramianMethod):
    """Conflict-averse: near the mean gradient, the direction in which the worst task gains most.

    Args:
        c: how far from the mean, from 0; 0 is the mean, large is `mgda`.
        scope: see :class:`GramianMethod`.

    Relations: between `equal` and `mgda`. Its solver is Clarabel (Apache-2.0), an extra.
    """

    paper = "Liu et al., 2021, arXiv:2110.14048"
    cost = "the tasks' gradients: as many times the memory of the chosen parameters; some milliseconds for the solver"

    def __init__(self, c: float = 0.5, *, scope: Scope = "shared"):
        self.c = c
        super().__init__(scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `CAGradWeighting`."""
        from torchjd.aggregation import CAGradWeighting

        return CAGradWeighting(self.c)


@balancers.register("imtl_g")
class ImtlG(GramianMethod):
    """Impartial learning by gradients: the combination with the same part along every task's gradient.

    Relations: what `imtl_l` is for losses. Weights may be negative.
    """

    paper = "Liu et al., 2021, openreview:IMPnRXEWpvr"

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `IMTLGWeighting`."""
        from torchjd.aggregation import IMTLGWeighting

        return IMTLGWeighting()


@balancers.register("aligned_mtl")
class AlignedMtl(Preferring):
    """Aligned gradients: the principal components of the tasks' gradients made equally long, then summed.

    Args:
        weights: task → how much it counts, from 0; tasks not named count 1.
        scale_mode: how long: as the shortest (``min``), the ``median``, or the root of the mean square (``rmse``).
        scope: see :class:`GramianMethod`.

    Relations: takes away both conflict and dominance, where `pcgrad` takes the first only.
    """

    paper = "Senushkin et al., 2023, arXiv:2305.19000"

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        scale_mode: Literal["min", "median", "rmse"] = "min",
        *,
        scope: Scope = "shared",
    ):
        self.scale_mode = scale_mode
        super().__init__(weights, scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `AlignedMTLWeighting`."""
        from torchjd.aggregation import AlignedMTLWeighting

        return AlignedMTLWeighting(self.preference(present), self.scale_mode)


@balancers.register("fairgrad")
class FairGrad(GramianMethod):
    """Fair resources: weights w with Gw = w ** (−1 / alpha), so that gains are alpha-fair over tasks.

    Args:
        alpha: of the fairness, from 0: 0 the mean, 1 proportional as `nash_mtl`, large max-min as `mgda`.
        max_iters: after how many rounds the solver ends; left out, by itself.
        scope: see :class:`GramianMethod`.

    Relations: with `alpha` 1 it is Nash-MTL's condition, solved by scipy.
    """

    paper = "Ban and Ji, 2024, arXiv:2402.15638"

    def __init__(self, alpha: float = 2.0, max_iters: int | None = None, *, scope: Scope = "shared"):
        if not alpha >= 0:
            raise ConfigError(f"balancer 'fairgrad': `alpha` is at least 0, found {alpha}")
        self.alpha, self.max_iters = alpha, max_iters
        super().__init__(scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `FairGradWeighting`."""
        from torchjd.aggregation import FairGradWeighting

        return FairGradWeighting(self.alpha, self.max_iters)


@balancers.register("nash_mtl")
class NashMtl(GramianMethod):
    """The Nash bargaining solution among tasks: the step that is best for the product of all gains.

    Its solver ECOS is under the GPL, so it is not installed by itself: ``pip install 'nlp_mtl[nash]'``.

    Args:
        max_norm: the combined gradient is at most so long; 0 for any.
        update_weights_every: steps between two solutions.
        optim_niter: rounds of the solver.
        scope: see :class:`GramianMethod`.

    Relations: `fairgrad` with alpha 1 solves the same condition otherwise, without ECOS.
    """

    paper = "Navon et al., 2022, arXiv:2202.01017"
    cost = (
        "the tasks' gradients: as many times the memory of the chosen parameters; tens of milliseconds for the solver"
    )
    license = "its solver ECOS is under the GPL, opt-in"
    held = {"prvs_alpha": 1, "step": -1}

    def __init__(
        self,
        max_norm: float = 1.0,
        update_weights_every: int = 1,
        optim_niter: int = 20,
        *,
        scope: Scope = "shared",
    ):
        self.max_norm, self.update_weights_every, self.optim_niter = max_norm, update_weights_every, optim_niter
        super().__init__(scope=scope)

    def way_to_install(self) -> str:
        """The command that installs the solver."""
        return pip_install("nash")

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `NashMTL`: it looks at the products of the rows only, which those of a root have too."""
        from torchjd.aggregation import NashMTL

        made = NashMTL(len(present), self.max_norm, self.update_weights_every, self.optim_niter).weighting
        made._init_optim_problem()  # it makes it at its first step, which another set of tasks may have been
        return made

    def unknown(self, name: str) -> float:
        """TorchJD begins with ones."""
        return 1.0

    def _weigh(self, facts: StepFacts, here: Tensor, gramian: Tensor, given: Tensor) -> Tensor:
        return super()._weigh(facts, here, gramian, root_of(gramian))


@balancers.register("config")
class Config(Preferring):
    """Conflict-free: the direction with the same cosine to all gradients, as long as their parts along it together.

    Args:
        weights: task → how much of its cosine is wanted, from 0; tasks not named count 1.
        scope: see :class:`GramianMethod`.

    Relations: as `imtl_g` it is the same to all tasks, by angles. TorchJD has it over the Jacobian; the direction lies
    between the gradients, so the Gramian says all that is needed.
    """

    paper = "Liu et al., 2024, arXiv:2408.11104"
    total = 0.0

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `ConFIG` over a root of the Gramian."""
        from torchjd.aggregation import ConFIG

        aggregate = ConFIG(self.preference(present))
        return lambda root: weights_of(root, aggregate(root))

    def _weigh(self, facts: StepFacts, here: Tensor, gramian: Tensor, given: Tensor) -> Tensor:
        return super()._weigh(facts, here, gramian, root_of(gramian))


@balancers.register("krum")
class Krum(GramianMethod):
    """The gradients that are nearest to the others, so that a task that is out of line is left out.

    With two tasks or fewer than it needs, all count the same.

    Args:
        n_byzantine: how many tasks may be out of line, from 0.
        n_selected: the mean of how many is taken, from 1.
        scope: see :class:`GramianMethod`.

    Relations: made for workers that lie; over tasks it drops those that differ, which may be what you want to learn.
    """

    paper = "Blanchard et al., 2017, arXiv:1703.02757"

    def __init__(self, n_byzantine: int = 0, n_selected: int = 1, *, scope: Scope = "shared"):
        if n_byzantine < 0 or n_selected < 1:
            raise ConfigError(
                f"balancer 'krum': `n_byzantine` is at least 0 and `n_selected` at least 1, found {n_byzantine} and "
                f"{n_selected}"
            )
        self.n_byzantine, self.n_selected = n_byzantine, n_selected
        self.least = max(n_byzantine + 2, n_selected)
        super().__init__(scope=scope)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `KrumWeighting`."""
        from torchjd.aggregation import KrumWeighting

        return KrumWeighting(self.n_byzantine, self.n_selected)


@balancers.register("cr_mogm")
class CrMogm(GramianMethod):
    """The weights of another method, smoothed over steps, for gradients that are noisy.

    Args:
        of: the other method, by its name or as ``{name: …, arguments}``.
        alpha: how much of the last weights stays, from 0 to 1.

    Relations: with `alpha` 0 the other method.
    """

    paper = "Zhou et al., 2022, NeurIPS 35"
    held = {"_lambda": 1}

    def __init__(self, of: str | dict[str, Any] = "upgrad", alpha: float = 0.9):
        if not 0 <= alpha <= 1:
            raise ConfigError(f"balancer 'cr_mogm': `alpha` is from 0 to 1, found {alpha}")
        self.alpha, self.of = alpha, balancers.build(of)
        if not isinstance(self.of, GramianMethod) or isinstance(self.of, CrMogm):
            raise ConfigError(f"balancer 'cr_mogm': `of` is a method on gradients' products, found {of!r}; e.g. upgrad")
        super().__init__(scope=self.of.scope)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Both learn the tasks."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self.of.setup(tasks, sizes, classes=classes, seed=seed)

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's `CRMOGMWeighting` around the weights that are found."""
        from torchjd.aggregation import CRMOGMWeighting

        return CRMOGMWeighting(torch.nn.Identity(), self.alpha)  # type: ignore[arg-type]

    def _weigh(self, facts: StepFacts, here: Tensor, gramian: Tensor, given: Tensor) -> Tensor:
        return super()._weigh(facts, here, gramian, self.of._weigh(facts, here, gramian, gramian))

    def unknown(self, name: str) -> float:
        """A task that comes later begins with its share."""
        return 1.0 / len(self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {**super().state_dict(), "of": self.of.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        super().load_state_dict({name: value for name, value in state.items() if name != "of"})
        self.of.load_state_dict(state["of"])
