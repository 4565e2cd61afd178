"""Cross-stitch networks: an upper tower for each task, and after each layer every tower reads all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.depth import cut, layers_of, part_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of, encode, encode_at
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.towers import Towers


class Stitch(nn.Module):
    """After a layer: each task's states become a learned linear mix of all tasks' states.

    Args:
        count: of tasks.
        own: how much of a task's own states is in its mix at first; the others share the rest evenly.
        subspaces: into how many parts the states are cut, each with a weight of its own (sluice networks).

    Example:
        >>> stitch = Stitch(2, own=1.0)
        >>> [float(x) for x in stitch([torch.tensor([3.0]), torch.tensor([5.0])])]
        [3.0, 5.0]
    """

    def __init__(self, count: int, own: float = 0.9, subspaces: int = 1):
        super().__init__()
        other = (1.0 - own) / max(1, count - 1)
        tasks = torch.full((count, count), other).fill_diagonal_(own if count > 1 else 1.0)
        # [tasks, parts, tasks, parts]: at first a part reads the same part of the others
        weights = torch.einsum("ts,pq->tpsq", tasks, torch.eye(subspaces))
        self.weights = nn.Parameter(weights.reshape(count * subspaces, count * subspaces))
        self.count, self.subspaces = count, subspaces

    def forward(self, states: Sequence[Tensor], only: int | None = None) -> list[Tensor]:
        """As many [tokens, hidden] as came; with `only`, one task's alone."""
        parts = torch.stack([part for one in states for part in one.chunk(self.subspaces, -1)])
        weights = self.weights.to(parts)
        if only is not None:
            weights = weights[only * self.subspaces : (only + 1) * self.subspaces]
        mixed = torch.einsum("ij,jtd->itd", weights, parts) if parts.dim() == 3 else weights @ parts
        return [torch.cat(list(some), -1) for some in mixed.split(self.subspaces)]


@sharings.register("cross_stitch")
class CrossStitch(Towers):
    """Towers for each task on the top layers; after every layer each reads a learned mix of all towers.

    Every row goes through all towers, so the top layers cost as many times as there are tasks. The first weights
    (`own: 1`) can make it separate towers. It does not collapse: a task's states hang on every tower.

    Args:
        layers: how many of the top layers are towers; default 2.
        own: the share of a task's own tower in its mix at first, from 0 to 1.
        subspaces: 1 for cross-stitch units; more for sluice networks, where parts of the states have weights of their
            own. Their orthogonality penalty and mix over layers are left out; `heads: {TASK: {layer: mix}}` has the
            latter for hard sharing.

    Relations: branches that read one another; sluice networks are Ruder et al. (2019, arXiv 1705.08142).
    """

    paper = "Misra et al., 2016, arXiv:1604.03539"
    cost = "the top layers once for each task, for every row"

    def __init__(self, encoder: nn.Module, tasks: Sequence[str], layers: int = 2, own: float = 0.9, subspaces: int = 1):
        count = len(layers_of(base_of(encoder)))
        size = base_of(encoder).config.hidden_size
        wrong = []
        if not 1 <= layers <= count:
            wrong.append(f"sharing 'cross_stitch': `layers` is from 1 to {count} of this encoder, found {layers}")
        if not 0 <= own <= 1:
            wrong.append(f"sharing 'cross_stitch': `own` is from 0 to 1, found {own}")
        if subspaces < 1 or size % subspaces:
            wrong.append(f"sharing 'cross_stitch': `subspaces` divides the hidden size {size}, found {subspaces}")
        if wrong:
            raise ConfigError(wrong)
        super().__init__(encoder, tasks, {task: [task] for task in tasks}, count - layers)
        self.stitches = nn.ModuleList(Stitch(len(tasks), own, subspaces) for _ in range(layers))
        self.log += f"; stitched after each of {layers} layers"

    def _grow(self) -> None:
        """A tower is a list of single layers, for between them it reads the others."""
        base = base_of(self.encoder)
        for task in self.groups:
            stages = [part_of(base, n, n + 1 if n + 1 < self.count else None) for n in range(self.depth, self.count)]
            self.towers[task] = nn.ModuleList(stages)
        if self.depth:
            cut(base, self.depth)
        else:
            del self.encoder
            first: Any = next(iter(self.towers.values()))
            self.__dict__["encoder"] = first[0]

    def encoder_of(self, task: str) -> nn.Module:
        """The task's last layer, which has its pooler."""
        stages: Any = self.towers[self.key(task)]
        return stages[-1]

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """All rows through all towers, layer by layer; of the last one each task gets its own mix."""
        if layout.taps is not None:
            layout.taps.see(None, layout.read_by)
        given = self.lower(inputs, layout)
        towers: list[Any] = list(self.towers.values())
        every, names = [given] * len(towers), list(self.towers)
        stitches = getattr(self, "stitches", None) or [Stitch(len(towers), 1.0)] * (self.count - self.depth)
        *between, last = range(self.count - self.depth)
        for number in between:
            states = [
                encode_at(tower[number], one, layout, self.way, (1,))[1]
                for tower, one in zip(towers, every, strict=True)
            ]
            every = [{"inputs_embeds": mixed} for mixed in stitches[number](states)]
        states = [encode(tower[last], one, layout, self.way) for tower, one in zip(towers, every, strict=True)]
        own = {task: names.index(self.key(task)) for task in tasks}
        return {task: Packed(stitches[last](states, number)[0], layout) for task, number in own.items()}

    def tables(self) -> dict[str, dict[str, Any]]:
        """What each tower reads of each other one; see :meth:`Sharing.tables`."""
        units: list[Any] = list(self.stitches)
        size, tables = units[0].subspaces, [unit.weights.detach().cpu() for unit in units]
        whole = torch.stack(tables).mean(0).view(len(self.towers), size, len(self.towers), size)
        mean = whole.diagonal(dim1=1, dim2=3).mean(-1)
        rows = {task: [round(x, 3) for x in row.tolist()] for task, row in zip(self.towers, mean, strict=True)}
        return {
            "stitches": {
                "title": "What each task's tower reads",
                "note": f"Weights of the towers (columns) in each task's mix, the mean over {len(tables)} stitches.",
                "columns": list(self.towers),
                "rows": rows,
                "signed": True,
            }
        }

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """All: every task's loss reaches every tower."""
        return (p for p in self.parameters() if p.requires_grad)

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """None: nothing is one task's alone."""
        return iter(())

    def own_state(self) -> dict[str, Tensor]:
        """See :meth:`Towers.own_state`; the stitches too."""
        return {**super().own_state(), **{f"stitches.{name}": p for name, p in self.stitches.named_parameters()}}

    def collapse(self, task: str) -> PreTrainedModel:
        """Refused."""
        raise UnsupportedError(
            f"task {task!r} reads the towers of all tasks after every layer (sharing: cross_stitch), and no ordinary "
            "encoder does"
        )
