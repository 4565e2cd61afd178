"""One LoRA per task in one pass: each token of a mixed batch goes through the adapter of the task that reads it.

The adapters are PEFT's, on PEFT's own layers; only how they are called is ours. Beside them may stand one adapter
``default`` that all tasks share.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.kernels import lowrank
from nlp_mtl.kernels.products import PerTask
from nlp_mtl.layout import Layout, filled_count

SHARED = "default"  # the adapter of all tasks; the name is PEFT's
NOBODY = -1  # the number of who has no adapter of its own

# What the adapters of a mixed batch may be; whatever else of a LoraConfig is not at its default is refused.
PLAIN = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"}
WHERE = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
OF_NO_MATTER = {"task_type", "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}
OF_NO_MATTER |= {"peft_version", "runtime_config"}
_STARTS = (True, False, "gaussian", "orthogonal")  # others change the weights that all tasks share


class Owners:
    """Whose adapter each row that goes through an encoder uses; one object for all its layers.

    Args:
        adapter_of: task → the name of its adapter; None for one that was trained before the others got theirs.
        own_encoder: whether what is below the adapters is not the pretrained model, but was trained; it is saved then.

    Attributes:
        adapters: the adapters' names; their places here are the owners' numbers.
        also: numbers of owners that are to have gradients though they have no row here, on one of several processes.

    Example:
        >>> owners = Owners({"mnli": "mnli", "ax": "mnli", "rte": "rte"})
        >>> owners.adapters, owners.number("ax")
        (['mnli', 'rte'], 0)
        >>> Owners({"mnli": None, "rte": "rte"}).number("mnli")
        -1
    """

    def __init__(self, adapter_of: Mapping[str, str | None], *, own_encoder: bool = False):
        self.adapter_of, self.own_encoder = dict(adapter_of), own_encoder
        self.adapters = [name for name in dict.fromkeys(self.adapter_of.values()) if name is not None]
        self.also: tuple[int, ...] = ()
        self._now: Tensor | int | None = None
        self._known: dict[int, lowrank.Runs] = {}
        self._shares: dict[int, Tensor] = {}

    def number(self, task: str) -> int:
        """The number of a task's adapter; :data:`NOBODY` if it has none of its own."""
        name = self.adapter_of[task]
        return NOBODY if name is None else self.adapters.index(name)

    def let(self, owner: Tensor | int | None) -> None:
        """Say whose the rows are from now on: [rows] of numbers on the CPU, one for all, or None for the shared alone.

        It stays so until the next call. A packed pass says it again in every layer, see :func:`follow`.
        """
        self._now = None if isinstance(owner, int) and owner < 0 else owner
        self._known, self._shares = {}, {}

    @contextmanager
    def during(self, owner: Tensor | int | None) -> Iterator[None]:
        """As :meth:`let`, inside this block."""
        before = self._now, self._known, self._shares
        self.let(owner)
        try:
            yield
        finally:
            self._now, self._known, self._shares = before

    @contextmanager
    def among(self, rows: Tensor) -> Iterator[None]:
        """Inside this block, only these of the rows come."""
        with self.during(self._now[rows.cpu()] if isinstance(self._now, Tensor) else self._now):
            yield

    def is_about(self, owner: Tensor | None) -> bool:
        """Whether these are the owners that were said last."""
        return self._now is owner

    @property
    def is_mixed(self) -> bool:
        """Whether rows of different owners come."""
        return isinstance(self._now, Tensor)

    @property
    def is_nobodys(self) -> bool:
        """Whether rows come that no adapter of a task is for."""
        return self._now is None

    def shares(self, rows: int, device: torch.device) -> Tensor:
        """[rows, owners]: 1 where a row is an owner's, else 0; raises as :meth:`runs`."""
        if rows not in self._shares:
            now, made = self._now, torch.zeros(rows, len(self.adapters))
            if isinstance(now, int):
                made[:, now] = 1.0
            elif now is not None:
                self._check(rows, len(now))
                mine = torch.nonzero(now >= 0).squeeze(1)
                made[mine, now[mine]] = 1.0
            self._shares[rows] = made.to(device)
        return self._shares[rows]

    def _check(self, rows: int, known: int) -> None:
        if rows not in (known, filled_count(known)):
            raise RuntimeError(
                f"a layer reads {rows} rows, and only the tasks of {known} are known; in this encoder's family rows of "
                "tasks can't be told apart: use sharing: hard without `task_lora` and `condition`"
            )

    def runs(self, rows: int) -> lowrank.Runs | None:
        """Whose each of so many rows is; a few more than are known may stand at the end.

        Raises:
            RuntimeError: other rows come than were said, so that nobody knows whose they are.
        """
        now = self._now
        if now is None:
            return None
        if isinstance(now, int):
            if rows not in self._known:
                self._known[rows] = lowrank.Runs.all_of(now, rows, self.also)
            return self._known[rows]
        self._check(rows, len(now))
        if 0 not in self._known:
            self._known[0] = lowrank.Runs.of(now, self.also)
        return self._known[0]


def follow(layout: Layout) -> None:
    """Say whose the rows are that come now, if the layout knows; nothing is looked up again while it is the same."""
    if layout.owners is not None and not layout.owners.is_about(layout.owner):
        layout.owners.let(layout.owner)


def owners_of(encoder: nn.Module) -> Owners | None:
    """The owners of an encoder's task adapters; None if it has none."""
    return getattr(encoder, "owners", None)


@lru_cache(maxsize=1)
def _layer_class() -> type[Any]:
    """PEFT's linear layer, with the adapter of each row's own task besides; PEFT is imported when it is needed."""
    from peft.tuners.lora.layer import Linear

    class TaskLinear(Linear):
        owners: Owners
        pools = False  # part of a pooler, which heads call; what the encoder itself makes of it nobody reads

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out = super().forward(x, *args, **kwargs)
            found = None if self.disable_adapters else per_task(self, x.numel() // x.shape[-1])
            if found is None:
                return out
            dropout = self.lora_dropout[self.owners.adapters[found.runs.owners[0]]]
            rows = dropout(x).reshape(-1, x.shape[-1])
            return out + _added(rows, found).view(*out.shape).to(out.dtype)

    TaskLinear.__module__, TaskLinear.__qualname__ = __name__, "TaskLinear"
    return TaskLinear


def __getattr__(name: str) -> Any:
    """``TaskLinear`` by its name, for pickled models."""
    if name == "TaskLinear":
        return _layer_class()
    raise AttributeError(name)


def per_task(layer: Any, rows: int) -> PerTask | None:
    """What a layer adds for each of its rows; None for nothing."""
    if layer.pools and layer.owners.is_mixed:
        return None
    runs = layer.owners.runs(rows)
    if runs is None or not runs.owners:
        return None
    names = [layer.owners.adapters[number] for number in runs.owners]
    downs, ups = ([part[name].weight for name in names] for part in (layer.lora_A, layer.lora_B))
    scales = [float(layer.scaling[name]) for name in names]
    if len(set(scales)) > 1:  # adapters of different settings, e.g. one that was added later
        ups = [up * scale for up, scale in zip(ups, scales, strict=True)]
        scales = [1.0]
    return PerTask(runs, tuple(downs), tuple(ups), scales[0])


def _added(x: Tensor, own: PerTask) -> Tensor:
    """[rows, out]: what the adapters give for x [rows, in]; 0 for rows of nobody."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if lowrank.fits(x.to(dtype), own.downs, own.ups):
        return lowrank.product(x.to(dtype), own.runs, own.downs, own.ups, own.scale)
    x = x.to(own.downs[0].dtype)
    if len(own.downs) == 1 and own.runs.tokens == len(x):
        return functional.linear(functional.linear(x, own.downs[0]), own.ups[0]) * own.scale
    ranks = torch.tensor([len(down) for down in own.downs])
    mine = torch.zeros(len(x), len(ranks))
    for begin, end, owner in own.runs.table.tolist():
        mine[begin:end, owner] = own.scale
    low = functional.linear(x, torch.cat(own.downs))
    return functional.linear(low * mine.repeat_interleave(ranks, 1).to(low), torch.cat(own.ups, 1))


# ---------------------------------------------------------------------------------------------------------- making


def check_plain(fields: Mapping[str, Any], key: str) -> list[str]:
    """What of a `LoraConfig`'s fields can't be told apart by the rows of a mixed batch, as mistakes.

    Args:
        fields: those that are said, or all; names that `LoraConfig` does not have are passed over.
        key: what messages call it.
    """
    from peft import LoraConfig

    usual, mistakes = LoraConfig(), []
    reasons = {
        "use_dora": "DoRA normalises the whole weight with the adapter in it, once for all rows",
        "bias": "a bias is the encoder's own, and all tasks share it",
        "modules_to_save": "they are the encoder's own, and all tasks share them",
    }
    for name, value in fields.items():
        if name in PLAIN | WHERE | OF_NO_MATTER or not hasattr(usual, name):
            continue
        if value == getattr(usual, name) or not value:
            continue
        if name == "init_lora_weights":
            if value not in _STARTS:
                mistakes.append(
                    f"`{key}.{name}`: beside one adapter per task one of {', '.join(map(str, _STARTS))}, found "
                    f"{value!r}, which changes the weights that all tasks share; leave it out"
                )
            continue
        why = reasons.get(name, "it can't be told apart by the rows of a batch")
        mistakes.append(f"`{key}.{name}`: not with one adapter per task ({why}), found {value!r}; leave it out")
    return mistakes


def add_task_lora(
    encoder: nn.Module,
    config: Any,
    adapter_of: Mapping[str, str | None],
    *,
    own: Mapping[str, Any] | None = None,
    own_encoder: bool = False,
    seed: int = 0,
    targets: Sequence[str] = (),
) -> nn.Module:
    """An encoder with one more LoRA per task, each started from `seed` and its own name.

    Args:
        encoder: a `transformers` base model, or the `PeftModel` around one with the shared adapter ``default``.
        config: the `peft.LoraConfig` of all of them.
        adapter_of: task → adapter; tasks that share a head share an adapter; None for a task without one.
        own: adapter → its `peft.LoraConfig`, for those of other settings.
        own_encoder: see :class:`Owners`.
        seed: of the first weights.
        targets: the layers' names, where `config.target_modules` is ``all-linear``.

    Raises:
        ConfigError: names that PEFT can't take.
        UnsupportedError: layers that are not linear.
    """
    import copy

    from peft import get_peft_model

    owners = Owners(adapter_of, own_encoder=own_encoder)
    bad = [name for name in owners.adapters if name == SHARED or "lora_" in name or "." in name]
    if bad:
        raise ConfigError(
            f"task_lora: adapters are called as their tasks, and {SHARED!r}, 'lora_' and a dot mean something to PEFT, "
            f"found {', '.join(map(repr, bad))}; rename the task"
        )
    wrapped: Any = encoder
    for name in owners.adapters:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
            its = copy.deepcopy((own or {}).get(name, config))
            if its.target_modules == "all-linear":
                its.target_modules = set(targets)
            if hasattr(wrapped, "peft_config"):
                wrapped.add_adapter(name, its)
            else:
                wrapped = get_peft_model(wrapped, its, adapter_name=name)
    if hasattr(wrapped, "peft_config"):
        _let_them_apart(wrapped, owners)
    wrapped.owners = owners
    return wrapped


def _let_them_apart(wrapped: Any, owners: Owners) -> None:
    """Call the shared adapter for all rows, and each other one for its own."""
    shared = [SHARED] if SHARED in wrapped.peft_config else []
    wrapped.base_model.set_adapter(shared)
    let_apart(wrapped, owners)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)


def let_apart(part: nn.Module, owners: Owners) -> None:
    """Let PEFT's layers ask `owners` whose adapter each row takes, in place.

    Raises:
        UnsupportedError: layers that are not linear.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import Linear

    other = []
    for name, layer in part.named_modules():
        if isinstance(layer, LoraLayer) and set(owners.adapters) & set(layer.r):
            if type(layer) not in (Linear, _layer_class()):
                other.append(f"{name.removeprefix('base_model.model.')} ({type(layer).__name__})")
                continue
            layer.__class__ = _layer_class()
            layer.owners = owners
            layer.pools = "pooler" in name.split(".")
    if other:
        raise UnsupportedError(
            f"task_lora: adapts linear layers only, found {', '.join(other[:3])}; name linear layers in target_modules"
        )


def linear_layers(encoder: nn.Module) -> list[str]:
    """What ``all-linear`` means: the names of an encoder's linear layers, GPT-2's kind too."""
    from transformers.pytorch_utils import Conv1D

    return [name for name, part in encoder.named_modules() if isinstance(part, (nn.Linear, Conv1D))]
