"""What mixed-task training changes in `TrainingArguments`, and learning rates by part of the model."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from nlp_mtl.errors import ConfigError, UnsupportedError, near

logger = logging.getLogger("nlp_mtl")
Precision = Literal["auto", "args"]


def settings_for(args: TrainingArguments, precision: Precision) -> TrainingArguments:
    """A copy of the arguments with what mixed-task training needs; the caller's stay as they are."""
    if precision not in ("auto", "args"):
        raise ConfigError(f"precision: auto or args, found {precision!r}; leave it out for auto")
    check_processes()
    args = copy.copy(args)
    args.remove_unused_columns = False  # batches are not rows of one table
    args.label_names = []
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = True  # a task may be absent from a step
    if args.metric_for_best_model in (None, "loss"):  # what the Trainer fills in when nothing is said
        args.metric_for_best_model, args.greater_is_better = "mean_skill", True
    if precision == "auto" and not args.bf16 and not args.fp16 and args.mixed_precision == "no":
        chosen = best_precision(args.device)
        if chosen != "no":
            setattr(args, chosen, True)
            args.mixed_precision = chosen
            logger.info(
                "precision: %s, which this %s has (TrainingArguments(bf16=…) or precision='args' says otherwise)",
                chosen,
                args.device.type,
            )
    return args


def check_sharded(sharing: Any, accelerator: Any, heads: Mapping[str, Any] | None = None) -> None:
    """Refuse FSDP and DeepSpeed for sharings that hold parts of an encoder of their own, and for heads that write.

    Where weights are in parts on several devices, all processes go through each layer equally often. A decoder goes
    through its own as often as its texts are long.

    Raises:
        UnsupportedError: with the reason and the way out.
    """
    from accelerate.utils import DistributedType

    kinds = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in kinds and not (sharing.ordinary or sharing.only_adapters):
        raise UnsupportedError(
            f"sharing {sharing.registered_as!r}: copies, gates or compares parameters, which are in parts on several "
            f"devices with {accelerator.distributed_type.value}; use DDP (torchrun without FSDP), or sharing: hard"
        )
    writing = [task for task, head in (heads or {}).items() if head.writes]
    if accelerator.distributed_type in kinds and writing:
        raise UnsupportedError(
            f"tasks {', '.join(map(repr, writing))} write texts: a decoder's passes are as many as its words, and with "
            f"{accelerator.distributed_type.value} all processes must make equally many; use DDP (torchrun without "
            "FSDP), or leave them out"
        )


def check_processes(environment: Mapping[str, str] | None = None) -> None:
    """Refuse to run as one process where several were asked for.

    ``accelerate launch --cpu --num_processes 2`` sets an address to meet at, but starts one process only.

    Raises:
        UnsupportedError: with the way out.
    """
    found = os.environ if environment is None else environment
    sizes = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    if "ACCELERATE_USE_CPU" in found and "MASTER_ADDR" in found and not any(name in found for name in sizes):
        raise UnsupportedError(
            "several processes were asked for, but accelerate launch started one (it does so on CPUs); "
            "use: torchrun --nproc_per_node 2 -m nlp_mtl.cli …"
        )


def autocast(device: torch.device, precision: str | None) -> Any:
    """The autocast of a precision (``bf16``, ``fp16``), where the device has it natively; else none."""
    if precision not in ("bf16", "fp16") or best_precision(device) != precision:
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_RECORDED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def checked_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """``auto``, or a `torch.dtype` that prediction computes in, from its name or itself.

    Raises:
        ConfigError: another one.

    Example:
        >>> checked_dtype("bfloat16"), checked_dtype("auto")
        (torch.bfloat16, 'auto')
    """
    found = _DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    known = ("auto", *_DTYPES)
    if found != "auto" and found not in _DTYPES.values():
        hint = near(dtype, known) if isinstance(dtype, str) else ""
        raise ConfigError(
            f"predict: `dtype` is one of {', '.join(known)}, found {dtype!r}{hint or '; leave it out for auto'}"
        )
    return found


@contextmanager
def autocast_to(device: torch.device, dtype: str | torch.dtype, trained_in: str | None) -> Iterator[None]:
    """The autocast of an inference dtype; each weight is cast once in it.

    Args:
        device: where the model is.
        dtype: from :func:`checked_dtype`; ``auto`` takes `trained_in`, or without it the best that the device has.
        trained_in: what a run records: ``bf16``, ``fp16``, ``no``, or None for a model that was not trained.
    """
    if dtype == "auto":
        best = best_precision(device)
        chosen = _RECORDED.get(best) if trained_in in (best, None) else None
    else:
        chosen = None if dtype == torch.float32 else dtype  # type: ignore[assignment]
    with torch.autocast(device.type, dtype=chosen, enabled=chosen is not None):
        try:
            yield
        finally:
            torch.clear_autocast_cache()  # inside a caller's autocast, no weight made here may be kept for training


def best_precision(device: torch.device) -> str:
    """``bf16`` where the device computes it natively, ``fp16`` on other GPUs, else ``no``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "no"
    return "no"
