"""What the steps since the trainer's last log were, for its loggers (``report_to``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nlp_mtl.steps import StepRecord


class Tally:
    """Sums over steps, and the means of them under the names that loggers get.

    ``weight_<task>`` is the mean over the steps in which the task was present, ``rate_<task>`` over all steps (an
    absent task has 0, so that rates sum to 1). Of steps that looked at the tasks' gradients: ``gradnorm_<task>``, the
    mean norm; ``cosine_mean``, over all pairs and looks; ``conflicting_share``, how many of these cosines are below 0.
    What was not seen is left out.

    Args:
        tasks: their names, in the order of the records' numbers.

    Example:
        >>> one, tally = torch.ones(2), Tally(["rte", "cola"])
        >>> tally.add(StepRecord(0, one, one, one / 2, one * 3, torch.tensor([[1.0, -0.5], [-0.5, 1.0]])))
        >>> tally.take()["conflicting_share"], tally.take()
        (1.0, {})
    """

    def __init__(self, tasks: Sequence[str]):
        self.tasks = list(tasks)
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.zeros(5, len(self.tasks), dtype=torch.float64)  # present, weights, rates, looks, norms
        self._all = torch.zeros(4, dtype=torch.float64)  # steps, cosines seen, their sum, those below 0

    def add(self, record: StepRecord) -> None:
        """One more step; its numbers are the same on every process, and so are the means."""
        here, nothing = record.present, torch.zeros(())
        self._all[0] += 1
        self._sums[0] += here
        self._sums[1] += torch.where(here, record.weights, nothing)
        self._sums[2] += torch.where(here, record.rates, nothing)
        if record.norms is None or record.cosines is None:
            return
        known = record.norms.isfinite()
        self._sums[3] += known
        self._sums[4] += torch.where(known, record.norms, nothing)
        first, second = torch.triu_indices(len(self.tasks), len(self.tasks), offset=1)
        seen = record.cosines[first, second].double()
        seen = seen[seen.isfinite()]
        self._all[1:] += torch.stack([torch.tensor(len(seen)), seen.sum(), (seen < 0).sum()])

    def take(self) -> dict[str, float]:
        """The means, which are then begun anew."""
        present, weights, rates, looks, norms = self._sums
        steps, seen, cosines, below = self._all.tolist()
        found: dict[str, float] = {}
        for key, sums, counts in (
            ("weight", weights, present),
            ("rate", rates, torch.full_like(rates, steps)),
            ("gradnorm", norms, looks),
        ):
            for task, total, count in zip(self.tasks, sums.tolist(), counts.tolist(), strict=True):
                if count:
                    found[f"{key}_{task}"] = total / count
        if seen:
            found |= {"cosine_mean": cosines / seen, "conflicting_share": below / seen}
        self._clear()
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint between two logs."""
        return {"sums": self._sums, "all": self._all}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved sums."""
        self._sums, self._all = state["sums"], state["all"]
