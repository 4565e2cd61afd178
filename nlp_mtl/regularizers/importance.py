"""How important each shared parameter is to some tasks: computed, saved, and read again by a later run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlp_mtl.batches import Collator, to_device
from nlp_mtl.errors import ConfigError, NotFoundError, suggestion

logger = logging.getLogger("nlp_mtl")
IMPORTANCE = "importance.safetensors"


def importance_of(
    model: Any, data: Any, tasks: Sequence[str] | None = None, *, rows: int = 256, seed: int = 0
) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information of what tasks share, summed over tasks.

    For each task the mean over rows of the squared gradient of the row's loss (a row of many labelled tokens: their
    sum), one row at a time, without dropout and autocast. The labels are those of the data, not drawn from the model.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`, as it was trained; it is left as it was.
        data: its tokenized rows, from :func:`nlp_mtl.data.load_data`.
        tasks: names; default all with training rows.
        rows: at most so many training rows of each, drawn at random.
        seed: of the draw.

    Returns:
        Name → a tensor of the parameter's shape, for trained parameters of the sharing that are not 0 everywhere.

    Raises:
        ConfigError: a task that the model does not have, or without training rows; nothing shared is trained.

    Relations: Kirkpatrick et al. (2017, arXiv 1612.00796); on labels of the data in the Fisher, Kunstner et al. (2019,
    arXiv 1905.12558).

    Example:
        >>> from nlp_mtl.data import load_data
        >>> from nlp_mtl.taskfile import Task
        >>> from nlp_mtl.testing import tiny_model
        >>> rows = [{"text": f"dog {i}", "label": "no" if i % 3 else "yes"} for i in range(30)]
        >>> model = tiny_model([Task.from_data("mine", rows)])
        >>> found = importance_of(model, load_data(model.heads, model.tokenizer, max_length=32))
        >>> float(found["sharing.encoder.pooler.dense.bias"].min()) >= 0
        True
    """
    wanted = check_tasks("importance_of", tasks, data)
    shared = shared_of("importance_of", model)
    found = {name: torch.zeros_like(p, requires_grad=False) for name, p in shared.items()}
    training = model.training
    model.eval()
    try:
        for task in wanted:
            pool = data.pool_of(task, "train")
            known = [n for n, label in enumerate(pool.labels(task)) if label is not None or not _needs(model, task)]
            order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:rows].tolist()
            collator = Collator([pool], {name: model.heads[name] for name in pool.tasks})
            logger.info("importance of the weights for %s, from %d rows", task, len(order))
            for place in order:
                batch = to_device(collator([(0, known[place], -1)]), model.device)
                batch["targets"] = {task: batch["targets"][task]}
                with torch.autocast(torch.device(model.device).type, enabled=False):  # accelerate puts one on `forward`
                    loss = type(model).forward(model, **batch, units={task: 1.0}, return_logits=False)["loss"]
                    if not loss.requires_grad:
                        continue
                    gradients = torch.autograd.grad(loss, list(shared.values()), allow_unused=True)
                for total, gradient in zip(found.values(), gradients, strict=True):
                    if gradient is not None:
                        total.add_(gradient.detach().square(), alpha=1 / len(order))
    finally:
        model.train(training)
    return {name: value for name, value in found.items() if value.any()}


def shared_of(who: str, model: Any) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of what tasks share, by name.

    Raises:
        ConfigError: there are none.
    """
    found = {name: p for name, p in model.named_parameters() if name.startswith("sharing.") and p.requires_grad}
    if not found:
        raise ConfigError(
            f"{who}: is about the weights that tasks share and that are trained, found none, all are frozen; train "
            "some of them (`freeze`; from_pretrained(…, trainable=True)), or leave it out"
        )
    return found


def _needs(model: Any, task: str) -> bool:
    return bool(model.heads[task].needs_labels)


def check_tasks(who: str, tasks: Sequence[str] | None, data: Any) -> list[str]:
    """The tasks whose training rows are looked at; default all that have some.

    Raises:
        ConfigError: others.
    """
    having = [task for task in data.heads if data.pool_of(task, "train") is not None]
    wanted = having if tasks is None else [tasks] if isinstance(tasks, str) else list(tasks)
    if unknown := [task for task in wanted if task not in having]:
        raise ConfigError(
            [f"{who}: `tasks`: {t!r} is not a task with training rows{suggestion(t, having)}" for t in unknown]
        )
    return wanted


def save_importance(place: str | Path, importance: Mapping[str, Tensor]) -> Path:
    """Write it as safetensors, by parameters' names; gives the file.

    Args:
        place: the file, or a folder (a run's) to put ``importance.safetensors`` in.
        importance: from :func:`importance_of`.
    """
    file = Path(place) / IMPORTANCE if Path(place).is_dir() else Path(place)
    save_file({name: value.detach().float().cpu().contiguous() for name, value in importance.items()}, file)
    return file


def load_importance(place: str | Path) -> dict[str, Tensor]:
    """What :func:`save_importance` wrote.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is damaged.
    """
    file = Path(place) / IMPORTANCE if Path(place).is_dir() else Path(place)
    ways = ["train with `ewc` and `carry: true`, or call nlp_mtl.regularizers.save_importance"]
    return load_tensors("importance", file, ways)


def load_tensors(argument: str, file: Path, ways: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a file that an earlier run left.

    Args:
        argument: what names the file, for messages.
        file: safetensors.
        ways: how such a file comes about.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is damaged.
    """
    try:
        return load_file(file)
    except FileNotFoundError:
        raise NotFoundError(f"`{argument}` {str(file)!r}", [f"{file} is not there"], list(ways)) from None
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"`{argument}`: {file} is damaged ({error}); save it again") from None


def fitting(who: str, importance: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The importance of parameters that are trained here.

    Raises:
        ConfigError: none of them is, or one has another shape.
    """
    known = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: value for name, value in importance.items() if name in known}
    wrong = [name for name, value in found.items() if value.shape != known[name].shape]
    if wrong or not found:
        why = f"{wrong[0]} has another shape" if wrong else "no parameter that it names is trained here"
        raise ConfigError(
            f"regularizer {who!r}: `importance` is of the parameters that this run trains, found another model's "
            f"({why}); start from that run (`init_from`), with its sharing and `lora`"
        )
    return found
