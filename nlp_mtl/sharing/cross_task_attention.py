"""Cross-task attention: each task's states look at what the other tasks see in the same row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.attention import packed_attention
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import sharings
from nlp_mtl.sharing import apart
from nlp_mtl.sharing.hard import Hard
from nlp_mtl.trimming import single_attention


@sharings.register("cross_task_attention")
class CrossTaskAttention(Hard):
    """Above one shared encoder, each task's tokens attend to the other tasks' features of the same row.

    A task's features are a small projection of the shared states (keys and values); a task asks with queries of its
    own, with one head for every other task, and adds the answer times a gate. Gates start at 0, so training starts as
    hard sharing. It does not collapse: no ordinary encoder ends with this.

    Args:
        size: of each task's features; 32 by default.

    Relations: hard sharing with all gates at 0; unlike cross-stitch units no tower is copied, and rows are read whole.
    Attention between the tasks' features of one input is that of Lopes et al. for images, there with a distilled pair
    of tasks at a time.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte", "mrpc"], sharing={"name": "cross_task_attention", "size": 8})
        >>> float(model.sharing.gates["rte"])
        0.0
    """

    paper = "Lopes et al., 2022, arXiv:2206.08927"
    cost = "the last layer over all tokens, and small projections of them"

    def __init__(self, encoder: nn.Module, tasks: Sequence[str], size: int = 32):
        if not isinstance(size, int) or not 4 <= size <= 256 or size % 4:
            raise ConfigError(
                f"sharing 'cross_task_attention': `size` is a multiple of 4 from 4 to 256, found {size!r}; leave it "
                "out for 32"
            )
        super().__init__(encoder, tasks)
        width, self.size = base_of(encoder).config.hidden_size, size
        self.features = nn.Linear(width, 2 * len(tasks) * size)
        self.queries = nn.ModuleDict({task: nn.Linear(width, len(tasks) * size) for task in tasks})
        self.outputs = nn.ModuleDict({task: nn.Linear(len(tasks) * size, width) for task in tasks})
        self.gates = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})
        self.log += f"; attention over {len(tasks)} tasks' features of size {size}"

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """One pass, and each task's own view of it."""
        read, layout.read = layout.read, None  # every token of a row may be looked at
        if layout.taps is not None:
            layout.taps.see(None, layout.read_by)
        found = super().encode(inputs, layout, tasks)
        layout.read = read
        return {task: self._refined(task, found[task], layout) for task in tasks}

    def _refined(self, task: str, packed: Packed, asked: Layout) -> Packed:
        layout, hidden, whose = packed.layout, packed.hidden, self.key(task)
        rows = torch.tensor(apart.sequences_of(task, asked, len(layout.lengths)), dtype=torch.long)
        tokens, part = layout.tokens_of(rows), apart.part_of(layout, rows)
        states = hidden.index_select(0, tokens)
        heads = (-1, len(self.tasks), self.size)
        key, value = (x.reshape(heads) for x in self.features(states).chunk(2, -1))
        read = asked.read_by.get(task) if len(rows) else None
        places = None if read is None else torch.searchsorted(tokens, read.to(tokens).flatten().unique())
        scale = self.size**-0.5
        if places is not None and len(places) == len(rows):  # one token of each row
            query = self.queries[whose](states.index_select(0, places)).view(heads)
            owners = torch.arange(len(rows)).repeat_interleave(torch.tensor(part.lengths)).to(tokens.device)
            seen = single_attention(query, key, value, owners, scale=scale)
        else:
            places = torch.arange(len(tokens), device=tokens.device)
            query = self.queries[whose](states).view(heads)
            seen = packed_attention(query.to(key), key, value, part, scale=scale, dropout=0.0)
        others = torch.ones(len(self.tasks), 1, device=hidden.device)
        others[self.tasks.index(whose)] = 0.0
        answer = self.outputs[whose]((seen * others.to(seen)).flatten(1))
        new = states.index_select(0, places) + (self.gates[whose] * answer).to(states.dtype)
        return Packed(hidden.index_copy(0, tokens.index_select(0, places), new), layout)

    @property
    def only_adapters(self) -> bool:
        """No: tasks read one another's features."""
        return False

    @property
    def ordinary(self) -> bool:
        """The encoder itself is one, but no task reads what it gives."""
        return False

    @property
    def tells_rows_apart(self) -> bool:
        """Tasks meet in the features."""
        return False

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Of the encoder and of the features."""
        yield from super().shared_parameters()
        yield from self.features.parameters()

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """How the task asks, what it makes of the answer, and its gate."""
        yield from super().parameters_of(task)
        task = self.key(task)
        for part in (self.queries[task], self.outputs[task]):
            yield from part.parameters()
        yield self.gates[task]

    def tables(self) -> dict[str, dict[str, Any]]:
        """The gates; see :meth:`Sharing.tables`."""
        return {
            "attention": {
                "title": "How much tasks take from one another",
                "note": "Each task's gate on what it reads of the others; 0 is hard sharing.",
                "columns": ["gate"],
                "rows": {task: [round(float(gate.detach()), 4)] for task, gate in self.gates.items()},
                "signed": True,
            }
        }

    def own_state(self) -> dict[str, Tensor]:
        """All but what is pretrained and not trained."""
        return self.whole_state()

    def collapse(self, task: str) -> PreTrainedModel:
        """Refused."""
        raise UnsupportedError(
            f"task {task!r} reads the other tasks' features after the encoder (sharing: cross_task_attention), and no "
            "ordinary encoder does"
        )
