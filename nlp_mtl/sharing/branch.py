"""Branches: tasks share the lower layers, and groups of them part above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_mtl.adapters import is_adapter
from nlp_mtl.depth import ALL, cut, layers_of, part_of
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.folding import merged
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.apart import encode_apart
from nlp_mtl.sharing.towers import Towers, joined
from nlp_mtl.sharing.upper import UpperLora, only_plain_lora


@sharings.register("branch")
class Branch(Towers):
    """Tasks share the lower layers; above them each group has layers of its own, started from the pretrained ones.

    The shared part is computed once, whoever reads a row. With plain LoRA only the adapters are copied, and all groups
    go through one pass above too. Every task collapses to an ordinary encoder: the shared layers and those of its
    group.

    Args:
        depth: how many layers are shared, from 0 to all; default half of them, rounded down.
        groups: group → its tasks; tasks that are in none have a branch each. `tree` of a run file says both.

    Relations: hard sharing is `depth` of all layers; separate encoders are `depth: 0`. Which tasks belong together is
    another question (Lu et al., 2017, arXiv 1611.05377, find the tree by themselves; Standley et al., 2020, arXiv
    1905.07553).

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte", "mrpc"], sharing={"name": "branch", "depth": 1})
        >>> sorted(model.sharing.towers)
        ['mrpc', 'rte']
    """

    paper = "Vandenhende et al., 2019, arXiv:1904.02920"
    cost = "memory for what is copied (with LoRA, adapters); full: a pass over fewer rows for each group"

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Sequence[str],
        depth: int | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ):
        count = len(layers_of(base_of(encoder)))
        wrong = grouped_wrongly(groups or {}, tasks)
        if depth is not None and not 0 <= depth <= count:
            wrong.append(f"sharing 'branch': `depth` is from 0 to {count} layers of this encoder, found {depth}")
        if wrong:
            raise ConfigError(wrong)
        known = {group: list(members) for group, members in (groups or {}).items()}
        placed = {task for members in known.values() for task in members}
        alone = {task: [task] for task in tasks if task not in placed}
        self.upper: UpperLora | None = None
        super().__init__(encoder, tasks, {**known, **alone}, count // 2 if depth is None else depth)
        if self.upper is not None:
            self.log += ", adapters alone: one pass for all"

    @classmethod
    def by_lenders(cls, arguments: dict[str, Any], head_of: Mapping[str, str]) -> dict[str, Any]:
        """A task that uses another one's head goes through its layers; `groups` may name it beside that one.

        Raises:
            ConfigError: they stand in different groups.

        Example:
            >>> Branch.by_lenders({"groups": {"a": ["mnli", "mnli_mm"]}}, {"mnli": "mnli", "mnli_mm": "mnli"})
            {'groups': {'a': ['mnli']}}
        """
        groups = arguments.get("groups")
        if not isinstance(groups, Mapping) or not all(map(_are_names, groups.values())):
            return arguments  # refused when it is made
        place = {task: group for group, members in groups.items() for task in members}
        wrong = [
            f"sharing 'branch': {task!r} uses the head of {head_of[task]!r} and so its layers, found them in different "
            f"groups; put {task!r} where {head_of[task]!r} is, or leave it out"
            for task, group in place.items()
            if head_of.get(task, task) != task and place.get(head_of[task]) != group
        ]
        if wrong:
            raise ConfigError(wrong)
        kept = {group: [t for t in members if head_of.get(t, t) == t] for group, members in groups.items()}
        return {**arguments, "groups": kept}

    def _grow(self) -> None:
        """With plain LoRA only adapters are copied: the frozen layers below them are the same for all groups."""
        base = base_of(self.encoder)
        if self.depth and self.way == "packed" and only_plain_lora(self.encoder, base, self.depth):
            self.upper = UpperLora(part_of(base, self.depth), self.group_of)
            cut(base, self.depth)
        else:
            super()._grow()

    def lend(self, head_of: Mapping[str, str]) -> None:
        """See :meth:`Sharing.lend`."""
        super().lend(head_of)
        if self.upper is not None:
            self.upper.owners.adapter_of.update(self.group_of)

    @property
    def ordinary(self) -> bool:
        """Only where nothing is copied."""
        return self.upper is None and super().ordinary

    def encoder_of(self, task: str) -> nn.Module:
        """The upper part, which has the pooler."""
        return super().encoder_of(task) if self.upper is None else self.upper.part

    def encode(self, inputs: Mapping[str, Tensor], layout: Layout, tasks: Sequence[str]) -> Mapping[str, Packed]:
        """The shared part in one pass, and what is above; see :meth:`Towers.encode`."""
        if self.upper is None:
            return super().encode(inputs, layout, tasks)
        if layout.taps is not None:
            layout.taps.see(None, layout.read_by)
        each = encode_apart(self.upper.part, self.lower(inputs, layout), layout, self.way, self.upper.owners, tasks)
        return {task: each[task][ALL] for task in tasks}

    def for_head_of(self, task: str) -> AbstractContextManager[None]:
        """The pooler has adapters too."""
        if self.upper is None:
            return super().for_head_of(task)
        return self.upper.owners.during(self.upper.owners.number(task))

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """See :meth:`Towers.shared_parameters`."""
        yield from super().shared_parameters()
        if self.upper is not None:
            several = [group for group, members in self.groups.items() if len(members) > 1]
            yield from (p for group in several for p in self.upper.adapter(group))

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """What only this task trains above."""
        if self.upper is None:
            return super().parameters_of(task)
        group = self.group_of[task]
        return iter(()) if len(self.groups[group]) > 1 else self.upper.adapter(group)

    def own_state(self) -> dict[str, Tensor]:
        """See :meth:`Towers.own_state`."""
        if self.upper is None:
            return super().own_state()
        return {name: p for name, p in self.named_parameters() if is_adapter(name)}

    def collapse(self, task: str) -> PreTrainedModel:
        """See :meth:`Towers.collapse`."""
        if self.upper is None:
            return super().collapse(task)
        return joined(merged(self.encoder), merged(self.upper.part, self.group_of[task]))


def _are_names(members: Any) -> bool:
    return isinstance(members, (list, tuple)) and all(isinstance(task, str) for task in members)


def grouped_wrongly(groups: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> list[str]:
    """What is wrong with groups of tasks, as messages.

    Example:
        >>> grouped_wrongly({"a": ["rte", "rtee"], "b": ["rte"]}, ["rte"])  # doctest: +NORMALIZE_WHITESPACE
        ["sharing 'branch': group 'a' names 'rtee', which is not a task of this run; did you mean 'rte'?",
         "sharing 'branch': a task is in one group, found 'rte' in a and b"]
    """
    wrong: list[str] = []
    places: dict[str, list[str]] = {}
    for group, members in groups.items():
        if isinstance(members, str) or not isinstance(members, Sequence) or not members:
            wrong.append(f"sharing 'branch': group {group!r} is a list of tasks, found {members!r}; write [{tasks[0]}]")
            continue
        if not group.isidentifier():
            wrong.append(f"sharing 'branch': a group's name is letters, digits and _, found {group!r}; rename it")
        elif hasattr(nn.ModuleDict(), group) or group.startswith("lora_"):
            wrong.append(
                f"sharing 'branch': a group's name is none that PyTorch or PEFT uses, found {group!r}; rename it"
            )
        for task in dict.fromkeys(members):
            if task not in tasks:
                wrong.append(
                    f"sharing 'branch': group {group!r} names {task!r}, which is not a task of this run"
                    f"{suggestion(str(task), tasks)}"
                )
            places.setdefault(task, []).append(group)
    double = {task: where for task, where in places.items() if len(where) > 1}
    wrong += [
        f"sharing 'branch': a task is in one group, found {task!r} in {' and '.join(where)}"
        for task, where in double.items()
    ]
    taken = set(groups) & {task for task in tasks if task not in places}
    wrong += [
        f"sharing 'branch': {name!r} is a group and a task that is in none; rename the group" for name in sorted(taken)
    ]
    return wrong
