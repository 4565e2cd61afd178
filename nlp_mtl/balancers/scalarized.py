"""Balancers that make one number of the losses: a task's weight is that number's derivative by its loss.

The formulas are TorchJD's scalarizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, StepFacts, checked_weights, in_order
from nlp_mtl.errors import ConfigError
from nlp_mtl.registry import balancers

_LEAST = 1e-8  # a loss of 0 has no logarithm


class Scalarized(Balancer):
    """Base of balancers that TorchJD has as a scalarizer: tasks that are absent are left out of it."""

    needs = frozenset({"losses"})
    cost = "nothing; in a step of several passes one more forward pass, for the losses of the whole step"

    def scalarizer(self, present: Tensor) -> Any:
        """The scalarizer over the tasks present.

        Args:
            present: [tasks present], their numbers.
        """
        raise NotImplementedError

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: the derivatives of the one number by the losses."""
        assert losses is not None
        found = torch.zeros(len(losses), dtype=torch.float64)
        here = facts.present.nonzero().squeeze(1).cpu()
        if len(here):
            values = losses.detach().double().cpu()[here].requires_grad_()
            with torch.enable_grad(), self.drawing(facts):
                value = self.scalarizer(here).double()(values)
                found[here] = torch.autograd.grad(value, values)[0]
        return found


@balancers.register("random")
class Random(Scalarized):
    """Weights drawn anew at every step: a softmax over normal numbers.

    Relations: on average `equal`; the noise is what is said to help, so it is the method that others must beat.
    """

    paper = "Lin et al., 2022, arXiv:2111.10603"
    needs = frozenset()
    cost = "nothing"

    def scalarizer(self, present: Tensor) -> Any:
        """TorchJD's `Random`."""
        from torchjd import scalarization

        return scalarization.Random()

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: the draw, which does not depend on the losses."""
        return super().weights(facts, torch.ones(len(facts.units), dtype=torch.float64))


@balancers.register("geometric_mean")
class GeometricMean(Scalarized):
    """The geometric mean of the losses: each task counts by 1 / its loss, whatever the loss's scale.

    A loss below 1e-8 counts as 1e-8.

    Relations: the gradient of `equal` over the logarithms of the losses, times their mean; `famo` learns weights of the
    logarithms.
    """

    paper = "Chennupati et al., 2019, arXiv:1904.08492"

    def scalarizer(self, present: Tensor) -> Any:
        """TorchJD's `GeometricMean`."""
        from torchjd import scalarization

        return scalarization.GeometricMean()

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: the mean / (tasks · loss)."""
        assert losses is not None
        return super().weights(facts, losses.clamp_min(_LEAST))


class Weighted(Scalarized):
    """Base of scalarizers with given weights.

    Args:
        weights: task → weight, from 0; tasks not named count 1.
    """

    def __init__(self, weights: Mapping[str, float] | None = None):
        self.given = checked_weights(self.name, weights or {})

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._given = in_order(self.name, self.given, tasks).double()

    def shares(self, present: Tensor) -> Tensor:
        """[tasks present]: the given weights, with the sum 1."""
        given = self._given[present]
        return given / given.sum().clamp_min(1e-12)


@balancers.register("stch")
class Stch(Weighted):
    """Smooth Tchebycheff: a soft maximum of the weighted losses, so the worst task counts most.

    Args:
        mu: how soft; near 0 only the worst task counts, above 0.
        weights: task → weight, from 0; tasks not named count 1.

    Relations: for a high `mu` as `fixed`; the maximum itself is minimax training.
    """

    paper = "Lin et al., 2024, arXiv:2402.19078"

    def __init__(self, mu: float = 0.1, weights: Mapping[str, float] | None = None):
        super().__init__(weights)
        if not mu > 0:
            raise ConfigError(f"balancer 'stch': `mu` is above 0, found {mu}")
        self.mu = mu

    def scalarizer(self, present: Tensor) -> Any:
        """TorchJD's `STCH`."""
        from torchjd import scalarization

        return scalarization.STCH(self.mu, weights=self.shares(present))


@balancers.register("cosmos")
class Cosmos(Weighted):
    """The weighted sum of the losses, less their cosine with the weights: losses in the given proportion are wanted.

    Args:
        lambda_: how much the proportion counts, from 0.
        weights: task → weight, from 0; tasks not named count 1.

    Relations: with `lambda_` 0 as `fixed`. The paper draws the weights for each batch and gives them to the model; here
    they are what the user wants.
    """

    paper = "Ruchte and Grabocka, 2021, arXiv:2103.12718"

    def __init__(self, lambda_: float = 1.0, weights: Mapping[str, float] | None = None):
        super().__init__(weights)
        if not lambda_ >= 0:
            raise ConfigError(f"balancer 'cosmos': `lambda_` is at least 0, found {lambda_}")
        self.lambda_ = lambda_

    def scalarizer(self, present: Tensor) -> Any:
        """TorchJD's `COSMOS`."""
        from torchjd import scalarization

        return scalarization.COSMOS(self.lambda_, self.shares(present))


@balancers.register("pbi")
class Pbi(Weighted):
    """Boundary intersection with a penalty: along the weights' direction, and back to it where the losses stray.

    Args:
        theta: of the penalty, from 0.
        weights: task → weight, from 0; tasks not named count 1.

    Relations: as `cosmos`, with a distance in the place of a cosine.
    """

    paper = "Zhang and Li, 2007, IEEE TEVC 11"

    def __init__(self, theta: float = 1.0, weights: Mapping[str, float] | None = None):
        super().__init__(weights)
        if not theta >= 0:
            raise ConfigError(f"balancer 'pbi': `theta` is at least 0, found {theta}")
        self.theta = theta

    def scalarizer(self, present: Tensor) -> Any:
        """TorchJD's `PBI`."""
        from torchjd import scalarization

        return scalarization.PBI(self.theta, self.shares(present))
