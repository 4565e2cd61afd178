"""Micro-batches that are cut into a pass for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nlp_mtl.batches import Collator, RowRef


class TaskCollator:
    """A micro-batch to passes of one task each: ``{"passes": [a mixed batch of one task, …]}``, in the tasks' order.

    A row that several tasks label is in each of their passes.

    Args:
        collate: of mixed batches; says pools, heads, seed.
    """

    def __init__(self, collate: Collator):
        self.pools = collate.pools
        tasks = [task for task in collate.heads if any(task in pool.tasks for pool in self.pools)]
        self.of = {
            task: Collator(
                [replace(pool, tasks=(task,)) if task in pool.tasks else pool for pool in self.pools],
                collate.heads,
                seed=collate.seed,
                training=collate.training,
            )
            for task in tasks
        }
        self._can = {(n, task): pool.labelled(task) for n, pool in enumerate(self.pools) for task in pool.tasks}

    def __call__(self, refs: Sequence[RowRef]) -> dict[str, Any]:
        """Collate; see the class."""
        parts = []
        for task, collate in self.of.items():
            own = [ref for ref in refs if (ref[0], task) in self._can and self._can[ref[0], task][ref[1]]]
            if own:
                parts.append(collate(own))
        return {"passes": parts or [next(iter(self.of.values()))([])]}
