"""What goes together with which sharing: found by trying, for the contract tests and the README's matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from accelerate.utils import DistributedType

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.exporting.plain import lora_config_of
from nlp_mtl.settings import check_sharded
from nlp_mtl.testing import tiny_model
from tests.integration.test_sharing import SCHEMES

LORA = {"r": 2, "target_modules": "all-linear"}
# Forms of one sharing that differ in what goes with them, beside each registered name as it comes.
FORMS: dict[str, dict[str, Any]] = {
    "hard": {"name": "hard"},
    "`hard`, `condition`": {"name": "hard", "condition": ["embedding", "layer_norm"]},
    "`mixture_of_experts`, gates on tokens": {"name": "mixture_of_experts", "gates": "token"},
}
TUNINGS = {"full": {}, "LoRA": {"lora": LORA}, "LoRA per task": {"lora": LORA, "task_lora": LORA}}
COLUMNS = (
    "full",
    "LoRA",
    "LoRA per task",
    "balancers on losses",
    "on gradients",
    "DDP",
    "FSDP (never run)",
    "leaves as",
)
TASKS = ["rte", "mrpc"]
REFUSED = (ConfigError, UnsupportedError)


def forms() -> dict[str, dict[str, Any]]:
    """Every registered sharing, and the forms above."""
    plain = {name: {"name": name} for name in registry.sharings if name.partition(":")[0] not in FORMS}
    return {**FORMS, **plain}


def support(form: dict[str, Any]) -> dict[str, str]:
    """Column → what holds, for a row of the matrix."""
    made = {}
    for tuning, how in TUNINGS.items():
        try:
            made[tuning] = tiny_model(TASKS, sharing=form, **copy.deepcopy(how))
        except REFUSED:
            continue
    some = list(made.values())
    found = {tuning: "yes" if tuning in made else "no" for tuning in TUNINGS}
    found["balancers on losses"] = "yes"
    shares = [bool(list(model.sharing.shared_parameters())) for model in some]
    found["on gradients"] = "yes" if all(shares) else "no: nothing is shared"
    proven = [how for how in SCHEMES.values() if _name(how) == form["name"]] or form["name"] == "hard"
    found["DDP"] = "yes" if proven else "not tested"
    whole = SimpleNamespace(distributed_type=DistributedType.FSDP)
    found["FSDP (never run)"] = (
        "allowed" if all(_holds(lambda m=m: check_sharded(m.sharing, whole)) for m in some) else "no"
    )
    ways = {
        "model": all(_holds(lambda m=m: m.sharing.collapse(TASKS[0])) for m in some),
        "adapter": any(_holds(lambda m=m: _adapter(m)) for key, m in made.items() if key != "full"),
    }
    found["leaves as"] = ", ".join(way for way, holds in ways.items() if holds) or "—"
    return found


def _name(how: dict[str, Any]) -> str:
    sharing = how.get("sharing", "branch" if "tree" in how else "hard")
    return sharing if isinstance(sharing, str) else sharing["name"]


def _adapter(model: Any) -> None:
    if not all((model.sharing.collapse(TASKS[0]), lora_config_of(model, TASKS[0]))):
        raise UnsupportedError("no adapter")


def _holds(call: Callable[[], Any]) -> bool:
    try:
        call()
    except REFUSED:
        return False
    return True
