"""Tasks are alike that change the encoder alike, when each trains a small adapter of it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nlp_mtl.registry import evidences
from nlp_mtl.transferring.evidence.base import Evidence, check_above_zero, check_whole
from nlp_mtl.transferring.gradients import batches, loss_of, start_alike, warm_up
from nlp_mtl.transferring.opening import Opened


@evidences.register("lora")
class Lora(Evidence):
    """Cosine of the changes B·A of small LoRA adapters, each trained on one task for a few steps from the same start.

    Args:
        rank: of the adapters.
        steps: of training.
        rate: learning rate of adapters.
        batch: rows of a step.
        rows: at most so many rows of each task; half warm its head up first, on fixed features.
        passes: of the warming up.

    Relations: the parameters' change as a task vector (Ilharco et al., 2022, arXiv 2212.04089), of an adapter only, as
    in the comparison of prompts by Vu et al.; `gradient_cosine` is its first step.
    """

    paper = "Vu et al., 2021, arXiv:2110.07904"
    cost = "`steps` training steps for each task"

    def __init__(
        self, rank: int = 4, steps: int = 24, rate: float = 0.002, batch: int = 16, rows: int = 512, passes: int = 8
    ):
        check_whole("lora", 1, rank=rank, steps=steps, batch=batch, passes=passes)
        check_whole("lora", 8, rows=rows)
        check_above_zero("lora", rate=rate)
        self.rank, self.steps, self.rate, self.batch, self.rows, self.passes = rank, steps, rate, batch, rows, passes

    def find(self, opened: Opened) -> tuple[np.ndarray, dict[str, Any]]:
        """See :meth:`Evidence.find`."""
        of = [vars(self), opened.seed, [opened.fingerprint(task) for task in opened.tasks]]
        return opened.kept("lora", of, lambda: {"cosines": self._trained(opened)})["cosines"], {"notes": []}

    def _trained(self, opened: Opened) -> np.ndarray:
        model: Any = opened.remake(lora={"r": self.rank, "lora_alpha": 2 * self.rank, "lora_dropout": 0.0})
        start_alike(model)
        adapters = {n: p for n, p in model.sharing.named_parameters() if ".lora_" in n and p.requires_grad}
        with torch.no_grad():  # the same start in every session, whatever drew numbers before
            random = torch.Generator().manual_seed(opened.seed)
            for name, p in adapters.items():
                bound = p.shape[1] ** -0.5
                p.copy_(torch.rand(p.shape, generator=random) * 2 * bound - bound if ".lora_A" in name else p * 0)
        start = {name: p.detach().clone() for name, p in adapters.items()}
        changes = []
        for task in tqdm(opened.tasks, desc="LoRA", unit="task", disable=not opened.progress):
            changes.append(self._changed(opened, model, task, adapters))
            with torch.no_grad():
                for name, p in adapters.items():
                    p.copy_(start[name])
        products = np.array([[_product(one, other) for other in changes] for one in changes])
        norms = np.sqrt(np.clip(products.diagonal(), 0, None))
        both = norms[:, None] * norms
        found = np.where(both > 0, products / np.where(both > 0, both, 1.0), 0.0)
        np.fill_diagonal(found, 1.0)
        return np.clip(found, -1, 1)

    def _changed(
        self, opened: Opened, model: Any, task: str, adapters: dict[str, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Train the adapter; gives the pairs A, B of its modules."""
        some = opened.rows[task][: self.rows]
        warm, rest = np.split(some, [len(some) // 2])
        warm_up(opened, model, task, warm, passes=self.passes, rate=0.003, size=self.batch)
        each = batches(opened, model, task, rest, self.batch)
        adamw = torch.optim.AdamW([*adapters.values()], lr=self.rate, weight_decay=0.0)
        for step in range(self.steps):
            loss = loss_of(model, each[step % len(each)], task)
            if not loss.requires_grad:
                break
            adamw.zero_grad()
            loss.backward()
            adamw.step()
        model.zero_grad(set_to_none=True)
        names = [name for name in adapters if ".lora_A" in name]
        return [
            (adapters[n].detach().clone(), adapters[n.replace(".lora_A", ".lora_B")].detach().clone()) for n in names
        ]


def _product(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> float:
    """Σ ⟨B₁A₁, B₂A₂⟩ over modules, without making the products."""
    return sum(float(((b.T @ d) * (a @ c.T)).double().sum()) for (a, b), (c, d) in zip(one, other, strict=True))
