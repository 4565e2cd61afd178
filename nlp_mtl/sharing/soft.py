"""Soft sharing: each task has parameters of its own, and they are kept near one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.distances import Distance, apartness, products
from nlp_mtl.sharing.hard import Hard
from nlp_mtl.sharing.towers import Towers
from nlp_mtl.tasklora import SHARED


@sharings.register("soft")
class Soft(Hard):
    """An adapter for each task in one pass, kept near the shared one by a penalty.

    With `lora` beside `task_lora` a task's adapter is what it adds to the shared one, and that is penalised; with
    `task_lora` alone, its distance to the mean of all. Penalty 0 is one adapter per task, a large one is hard sharing.
    It collapses as task adapters do.

    Args:
        penalty: how much the distance counts, from 0.
        distance: ``l2``, squared Frobenius norms of the differences, summed over layers; ``trace_norm``, the nuclear
            norm of the matrix of all tasks' updates, which wants them to be made of few.

    Relations: hard sharing with `task_lora`, and a penalty; multi-task LoRA's answer to Duong et al. (2015, ACL), who
    tie parsers of two languages by L2. The trace norm is Yang and Hospedales' (2017, arXiv 1606.04038).

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> lora = {"r": 2, "target_modules": "all-linear"}
        >>> model = tiny_model(["rte", "mrpc"], sharing={"name": "soft", "penalty": 0.5}, task_lora=lora)
        >>> float(model.sharing.penalty()) < 1e-9  # all B are 0 at first
        True
    """

    paper = "Duong et al., 2015, doi:10.3115/v1/P15-2139"
    cost = "task adapters; a few products of their rank at every step"

    def __init__(self, encoder: nn.Module, tasks: Sequence[str], penalty: float = 0.1, distance: Distance = "l2"):
        check_penalty("soft", penalty, distance)
        super().__init__(encoder, tasks)
        if self.owners is None or len(self.owners.adapters) < 2:
            raise ConfigError(
                "sharing 'soft': keeps the tasks' own adapters near, and there are fewer than two; give the run "
                "`task_lora` and two tasks, or use sharing: soft_encoders for whole encoders"
            )
        self.strength, self.distance = penalty, distance
        self._groups: list[tuple[list[str], list[Any]]] | None = None

    @property
    def only_adapters(self) -> bool:
        """No: they were learned near one another."""
        return False

    def penalty(self) -> Tensor | None:
        """The penalty times its strength; see :meth:`Sharing.penalty`."""
        if not self.strength:
            return None
        total: Any = 0.0
        for names, layers in self._alike():
            downs, ups = (
                torch.stack([torch.stack([part[name].weight for name in names]) for part in parts])
                for parts in _parts(layers)
            )
            scales = torch.tensor([[layer.scaling[name] for name in names] for layer in layers], device=ups.device)
            gramian = products(downs, ups * scales[:, :, None, None])
            count = len(names) - (SHARED in names)
            if count == len(names):
                total = total + apartness(gramian, self.distance)
            elif self.distance == "l2":  # what each adds to the shared one
                total = total + gramian.diagonal(dim1=1, dim2=2)[:, :count].sum()
            else:
                both = torch.cat([torch.eye(count), torch.ones(count, 1)], 1).to(gramian)
                total = total + apartness(both @ gramian @ both.t(), self.distance)
        return self.strength * total

    @torch.no_grad()
    def penalty_gradients(self) -> tuple[float, list[nn.Parameter], list[Tensor]] | None:
        """For ``l2`` in closed form: for hundreds of small tensors autograd takes longer than the products."""
        if not self.strength or self.distance != "l2":
            return super().penalty_gradients()
        value, parameters, gradients = 0.0, [], []
        for names, layers in self._alike():
            own = [name for name in names if name != SHARED]
            downs, ups = ([part[name].weight for part in parts for name in own] for parts in _parts(layers))
            (rank, wide), out, count = downs[0].shape, len(ups[0]), len(own)
            scales = torch.tensor([[layer.scaling[name] for name in own] for layer in layers], device=ups[0].device)
            scales = scales[:, :, None, None]
            down = torch.stack(downs).view(len(layers), count * rank, wide)
            up = torch.stack(ups).view(len(layers), count, out, rank) * scales
            left = up.transpose(1, 2).reshape(len(layers), out, count * rank)
            # Σ‖B A‖² beside a shared adapter; less the part of the mean where there is none
            weigh = torch.eye(count, device=down.device) - (0.0 if SHARED in names else 1.0 / count)
            weigh = 2 * self.strength * weigh.repeat_interleave(rank, 0).repeat_interleave(rank, 1)
            of_downs, of_ups = (down @ down.transpose(1, 2)) * weigh, (left.transpose(1, 2) @ left) * weigh
            value += float((of_ups * (down @ down.transpose(1, 2))).sum()) / 2
            to_ups = (left @ of_downs).view(len(layers), out, count, rank).transpose(1, 2) * scales
            to_downs = (of_ups @ down).view(len(layers) * count, rank, wide)
            parameters += [*downs, *ups]
            gradients += [*to_downs.unbind(), *to_ups.reshape(len(layers) * count, out, rank).unbind()]
        return value, parameters, gradients

    def _alike(self) -> Iterable[tuple[list[str], list[Any]]]:
        """Adapters' names, the shared one last, and layers of one shape that have them: few and large products."""
        from peft.tuners.lora import LoraLayer

        if self._groups is None:
            assert self.owners is not None
            found: dict[Any, tuple[list[str], list[Any]]] = {}
            for layer in self.encoder.modules():
                if isinstance(layer, LoraLayer) and len(layer.lora_A) > 1:
                    names = [name for name in (*self.owners.adapters, SHARED) if name in layer.lora_A]
                    shapes = [(*layer.lora_A[name].weight.shape, len(layer.lora_B[name].weight)) for name in names]
                    for part in names if len(set(shapes)) > 1 else ():
                        raise UnsupportedError(
                            f"sharing 'soft': adapters of one rank can be compared, found another one for {part!r}; "
                            "give `lora` and `task_lora` the same r"
                        )
                    found.setdefault((tuple(names), shapes[0]), (names, []))[1].append(layer)
            self._groups = list(found.values())
        return self._groups


def _parts(layers: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The A and the B of layers, by adapter."""
    return [layer.lora_A for layer in layers], [layer.lora_B for layer in layers]


@sharings.register("soft_encoders")
class SoftEncoders(Towers):
    """An encoder for each task, all started from the same one and tied by a penalty on their distance.

    It costs as much memory as there are tasks, and each row goes through one encoder. With penalty 0 they are separate.

    Args:
        penalty: how much the distance counts, from 0.
        distance: ``l2`` or ``trace_norm``, over each weight by itself; see :class:`Soft`.
        tied: patterns of the parameters that are tied, by the names that `AutoModel` gives; default all.

    Relations: the classical soft sharing; :class:`Soft` has the same for adapters, in one pass.
    """

    paper = "Duong et al., 2015, doi:10.3115/v1/P15-2139; Yang and Hospedales, 2017, arXiv:1606.04038"
    cost = "an encoder per task in memory; a pass over every weight of all of them at each step"

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Sequence[str],
        penalty: float = 0.01,
        distance: Distance = "l2",
        tied: Sequence[str] = ("*",),
    ):
        check_penalty("soft_encoders", penalty, distance)
        if len(tasks) < 2:
            raise ConfigError(f"sharing 'soft_encoders': ties encoders of two tasks or more, found {', '.join(tasks)}")
        patterns = [tied] if isinstance(tied, str) else list(tied)
        super().__init__(encoder, tasks, {task: [task] for task in tasks}, 0)
        self.strength, self.distance = penalty, distance
        first = next(iter(self.towers.values()))
        names = [name for name, p in first.named_parameters() if p.requires_grad]
        self.tied = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
        if unmet := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]:
            raise ConfigError(
                f"sharing 'soft_encoders': `tied` names trained parameters of the encoder, {', '.join(unmet)} matches "
                "none; e.g. encoder.layer.0.*"
            )

    def penalty(self) -> Tensor | None:
        """The penalty times its strength; see :meth:`Sharing.penalty`."""
        if not self.strength:
            return None
        all_of_them = [dict(tower.named_parameters()) for tower in self.towers.values()]
        total: Any = 0.0
        for name in self.tied:
            each = torch.stack([one[name].flatten() for one in all_of_them])
            if self.distance == "l2":
                total = total + (each - each.mean(0)).square().sum()
            else:
                total = total + apartness(each @ each.t(), self.distance)
        return self.strength * total


def check_penalty(name: str, penalty: float, distance: str) -> None:
    """Refuse a penalty below 0 or that is no number, and unknown distances."""
    wrong = []
    if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not 0 <= penalty < float("inf"):
        wrong.append(f"sharing {name!r}: `penalty` is a number from 0, found {penalty!r}")
    if distance not in ("l2", "trace_norm"):
        wrong.append(f"sharing {name!r}: `distance` is l2 or trace_norm, found {distance!r}")
    if wrong:
        raise ConfigError(wrong)
