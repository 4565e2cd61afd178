"""Which way of weighing a balancer needs, and what can't be done."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.training_args import OptimizerNames

from nlp_mtl.adapters import is_adapter
from nlp_mtl.balancers import Balancer
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.heads.vanilla import tied_keys
from nlp_mtl.packing import base_of
from nlp_mtl.tasklora import owners_of
from nlp_mtl.weighing.base import ByLosses, Host, Lagging, Weighing
from nlp_mtl.weighing.by_gradients import ByGradients, ByLastLayer
from nlp_mtl.weighing.inner import ByInnerSteps, check_inner_steps

_SHARDED = (
    "gradients are in parts on several devices (FSDP or DeepSpeed), and a task's gradient is not there as a whole"
)
_SCALED = "fp16 scales the loss up, and the scale would be in every product of gradients"


def weighing_for(host: Host, model: Any, balancer: Balancer, *, every: int, sharded: bool, scaled: bool) -> Weighing:
    """The way that fits what a balancer needs.

    Args:
        host: the trainer.
        model: the model, not wrapped.
        balancer: the balancer, set up.
        every: look at the tasks' gradients each so many steps, where the balancer does not; 0 for never.
        sharded: whether gradients are in parts on several devices.
        scaled: whether losses are scaled up (fp16).

    Raises:
        UnsupportedError: gradients that can't be had, with the reason and the way out.
        ConfigError: no parameters of the balancer's scope are trained.
    """
    needs = balancer.needs
    at_once = host.args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO)
    if "inner_steps" in needs:
        check_inner_steps(host, balancer, sharded=sharded, scaled=scaled, at_once=at_once)
        return ByInnerSteps(host, model, balancer)
    if not {"gramian", "jacobian"} & needs:
        watched = [] if sharded or scaled or at_once else usual_look(model)
        kind = ByLosses if "losses" in needs else Weighing
        return kind(host, model, balancer, watched, every)
    if sharded or scaled:
        way = "use DDP" if sharded else "train in bf16 or float32"
        raise UnsupportedError(
            f"balancer {balancer.name!r}: weighs the tasks' gradients, and {_SHARDED if sharded else _SCALED}; {way}, "
            "or a balancer on losses, e.g. uncertainty or famo"
        )
    if at_once:
        raise UnsupportedError(
            f"balancer {balancer.name!r}: weighs the tasks' gradients after the backward pass, and optim "
            f"{host.args.optim.value!r} updates the weights in it; use another optim, or a balancer on losses"
        )
    shared = list(model.sharing.shared_parameters())
    if not shared:
        raise ConfigError(
            f"balancer {balancer.name!r}: weighs the tasks' gradients of what they share, and nothing shared is "
            "trained; use 'equal', or train shared parameters (`lora`, or no `freeze`)"
        )
    keys = {task: model.heads[task].task.head_key for task in balancer.only_weigh}
    sizes = zip(balancer.tasks, balancer.sizes, strict=True)
    learning = {model.heads[task].task.head_key for task, size in sizes if size and task not in keys}
    if both := [task for task, key in keys.items() if key in learning]:
        raise UnsupportedError(
            f"balancer {balancer.name!r}: {', '.join(both)} would only constrain what others learn, and shares a head "
            "with one that learns (`head_of`); give each a head of its own, or use replay without this balancer"
        )
    if balancer.scope == "lora" and not any(is_adapter(name) for name, _ in model.sharing.encoder.named_parameters()):
        raise ConfigError(
            f"balancer {balancer.name!r}: `scope` is lora, and the model has none; use shared or last_layer, or give "
            "the run a `lora`"
        )
    if balancer.scope == "last_layer" or balancer.lags:
        part = scoped(model, balancer.scope)
        again = getattr(host.args, "activation_checkpointing", False)
        layer = None if again else last_layer(model)
        if balancer.lags and (layer is not None or balancer.scope != "last_layer"):
            return Lagging(host, model, balancer, part, 1)
        own = owners_of(model.sharing.encoder) is not None or any(tied_keys(m) for m in model.modules_.values())
        if layer is not None and own:
            raise UnsupportedError(
                f"balancer {balancer.name!r}: `scope` is last_layer, and task adapters or a head tied to embeddings "
                "train more of the encoder than what is shared below that layer; use shared"
            )
        if layer is None:
            family = type(base_of(model.sharing.encoder)).__name__
            raise UnsupportedError(
                f"balancer {balancer.name!r}: `scope` is last_layer, and {family} has no layers with weights of their "
                "own, does not pack, or recomputes activations; use shared"
            )
        return ByLastLayer(host, model, balancer, part, 1, layer=layer)
    return ByGradients(host, model, balancer, shared, 1)


def last_layer(model: Any) -> nn.Module | None:
    """The encoder's last layer; None if its layers share weights, or its rows can't be told apart."""
    if not model.sharing.tells_rows_apart:
        return None
    layers = [part for part in base_of(model.sharing.encoder).modules() if isinstance(part, GradientCheckpointingLayer)]
    return layers[-1] if len(layers) > 1 else None


def scoped(model: Any, scope: str) -> list[nn.Parameter]:
    """The shared parameters that a scope means: all, those of a LoRA, or the last layer's and what comes after it."""
    shared = list(model.sharing.shared_parameters())
    if scope == "lora":
        wanted = {id(p) for name, p in model.sharing.encoder.named_parameters() if is_adapter(name)}
        return [p for p in shared if id(p) in wanted]
    layer = last_layer(model) if scope == "last_layer" else None
    if layer is None:
        return shared
    own = {id(p) for p in layer.parameters()}
    order = [id(p) for p in base_of(model.sharing.encoder).parameters()]
    after = set(order[min(order.index(i) for i in own) :])
    return [p for p in shared if id(p) in after]


def usual_look(model: Any) -> list[nn.Parameter]:
    """What is looked at for the record: a LoRA whole, which is small, and of a whole encoder the last layer."""
    found = scoped(model, "lora")
    if found:
        return found
    return scoped(model, "last_layer") if last_layer(model) is not None else []
