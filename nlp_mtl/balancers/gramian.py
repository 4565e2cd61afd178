"""Base of the balancers that TorchJD has as a weighting of the Gramian of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.balancers.base import Balancer, Scope, StepFacts, checked_weights, in_order
from nlp_mtl.errors import ConfigError, NotFoundError, TrainingError, pip_install


class GramianMethod(Balancer):
    """A weighting over the tasks present in a step.

    Where all gradients are zeros every task counts the same. Where one task is alone it counts 1.

    Args:
        scope: the Gramian is made of the gradients of all ``shared`` parameters; of those of ``lora`` only; or of the
            ``last_layer`` of the encoder, which takes the memory of that layer only. The weights are for all.

    Attributes:
        held: what TorchJD's object remembers, by its attribute: how many dimensions of it are tasks (−1: as it is).
    """

    needs = frozenset({"gramian"})
    cost = "the tasks' gradients: as many times the memory of the chosen parameters"
    held: Mapping[str, int] = {}
    least = 1  # so few tasks can be weighed

    def __init__(self, *, scope: Scope = "shared"):
        self.scope = scope
        self._state: dict[str, Tensor] = {}
        self._made: dict[tuple[int, ...], Any] = {}
        self._tool(list(range(max(self.least, 2))))  # refuses wrong arguments, and says what is not installed

    def make(self, present: Sequence[int]) -> Any:
        """TorchJD's weighting for the tasks with these numbers."""
        raise NotImplementedError

    def _tool(self, present: Sequence[int]) -> Any:
        found = self._made.get(tuple(present))
        if found is None:
            try:
                found = self.make(present)
            except ValueError as error:
                said = str(error).rstrip(".")
                raise ConfigError(f"balancer {self.name!r}: {said}; correct it, or leave it out") from None
            except ImportError:
                raise NotFoundError(
                    f"the solver of balancer {self.name!r}",
                    ["the installed packages"],
                    [self.way_to_install()],
                ) from None
            self._made[tuple(present)] = found
        return found

    def way_to_install(self) -> str:
        """The command that installs the solver."""
        return pip_install("balancing")

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; begins anew."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._state, self._made = {}, {}

    def weights(self, facts: StepFacts, losses: Tensor | None = None, gramian: Tensor | None = None) -> Tensor:
        """[tasks]: what the method makes of the Gramian; it is computed in float64."""
        assert gramian is not None
        here = facts.present.cpu().nonzero().squeeze(1)
        small = gramian.detach().double().cpu()[here][:, here]
        return self._spread(facts, here, self._weigh(facts, here, small, small))

    def _weigh(self, facts: StepFacts, here: Tensor, gramian: Tensor, given: Tensor) -> Tensor:
        """[tasks present]: of what TorchJD's weighting is `given`."""
        if len(here) <= self.least or not bool(gramian.diagonal().gt(0).any()):
            return torch.full((len(here),), 1.0 / max(1, len(here)) if len(here) > 1 else 1.0, dtype=torch.float64)
        tool = self._tool(here.tolist())
        self._give(tool, here)
        with self.drawing(facts):
            found = torch.as_tensor(tool(given)).double().detach()
        self._take(tool, here)
        if not torch.isfinite(found).all():
            raise TrainingError(
                f"balancer {self.name!r}: found no weights at step {facts.step + 1} for the gradients' products "
                f"{gramian.tolist()}; lower learning_rate, or use another balancer"
            )
        return found

    def _spread(self, facts: StepFacts, here: Tensor, found: Tensor) -> Tensor:
        return torch.zeros(len(facts.units), dtype=torch.float64).index_copy(0, here, found)

    # ------------------------------------------------------------------------------------------------------- state

    def _give(self, tool: Any, here: Tensor) -> None:
        """Let TorchJD's object remember what is remembered of the tasks present."""
        for name, whole in self._state.items():
            part = whole
            for dimension in range(max(0, self.held[name])):
                part = part.index_select(dimension, here)
            before = getattr(tool, name)
            setattr(tool, name, _as(part, before))
        if self._state and hasattr(tool, "_state_key"):
            tool._state_key = self.state_key(here)

    def state_key(self, here: Tensor) -> Any:
        """By what TorchJD's object knows that its memory is of the same kind."""
        return None

    def _take(self, tool: Any, here: Tensor) -> None:
        """Remember what TorchJD's object remembers."""
        for name, dimensions in self.held.items():
            part = torch.as_tensor(getattr(tool, name)).detach().clone()
            part = part.double() if part.is_floating_point() else part
            if dimensions <= 0:
                self._state[name] = part
                continue
            whole = self._state.get(name)
            if whole is None:
                whole = part.new_full((len(self.tasks),) * dimensions + part.shape[dimensions:], self.unknown(name))
            index = torch.meshgrid(*[here] * dimensions, indexing="ij") if dimensions > 1 else (here,)
            self._state[name] = whole.index_put(tuple(index), part)

    def unknown(self, name: str) -> float:
        """What is remembered of a task that never came."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self._state = {name: value.clone() for name, value in state.items()}


def _as(value: Tensor, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return value.numpy()
    return type(like)(value.item()) if isinstance(like, (int, float)) else value


class Preferring(GramianMethod):
    """Base of those that take preferences.

    Args:
        weights: task → how much it counts, from 0; tasks not named count 1.
        scope: see :class:`GramianMethod`.
    """

    total = 1.0  # the sum of the preferences that TorchJD begins with; 0 for one of each

    def __init__(self, weights: Mapping[str, float] | None = None, *, scope: Scope = "shared"):
        self.given = checked_weights(self.name, weights or {})
        self._preferred: Tensor | None = None
        super().__init__(scope=scope)

    def setup(self, tasks: Sequence[str], sizes: Sequence[int], *, classes: Sequence[int] = (), seed: int = 0) -> None:
        """Learn the tasks; a weight for a task that is not there is a mistake."""
        super().setup(tasks, sizes, classes=classes, seed=seed)
        self._preferred = in_order(self.name, self.given, tasks).double() if self.given else None

    def preference(self, present: Sequence[int]) -> Tensor | None:
        """[tasks present]: with the sum that TorchJD's usual ones have; None for the usual ones."""
        if self._preferred is None:
            return None
        part = self._preferred[list(present)]
        return part * ((self.total or len(part)) / part.sum().clamp_min(1e-12))
