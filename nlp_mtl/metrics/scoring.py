"""From the names of a task file to numbers: registered metrics, and any metric of the evaluate library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, DataError, NotFoundError
from nlp_mtl.metrics.base import check_pairs

PREFIX = "evaluate:"
# A metric of the evaluate library does not say which direction is better; these of the Hub are errors.
_ERRORS = {"brier_score", "cer", "character", "mae", "mape", "mase", "mse", "perplexity", "smape", "ter", "wer"}


def resolve(name: str) -> Callable[..., Any]:
    """The metric called `name`.

    Args:
        name: a registered metric, or ``evaluate:`` with the name of a metric on the Hub or a local folder that holds
            ``<folder>/<folder name>.py`` (no network needed). Its code is run.

    Raises:
        UnknownNameError: no such metric; suggests near names.
        NotFoundError: evaluate can't load it; says what was tried.

    Example:
        >>> resolve("accuracy")([0, 1], [0, 0])
        0.5
    """
    if not name.startswith(PREFIX):
        return registry.metrics[name]
    target = name.removeprefix(PREFIX)
    script = _script(target)
    # The absolute path, so that the cache does not mix up equal names below different working folders.
    return _from_evaluate(name, str(script) if script.is_file() else target)


def key_of(name: str) -> str:
    """The name under which a metric's value is reported.

    Example:
        >>> key_of("accuracy"), key_of("evaluate:folder/my_metric"), key_of("evaluate:me/exact-match")
        ('accuracy', 'my_metric', 'exact_match')
    """
    if not name.startswith(PREFIX):
        return name
    last = re.split(r"[/\\]", name.removeprefix(PREFIX).rstrip("/\\"))[-1].removesuffix(".py")
    if not last:
        raise ConfigError(f"metric {name!r}: write the name or folder of a metric after {PREFIX!r}")
    return _safe(last)


def greater_is_better(name: str) -> bool:
    """Whether a greater value of the metric `name` is better (of an ``evaluate:`` metric: see :func:`resolve`).

    A metric of the evaluate library may say so by a class attribute `greater_is_better`; error rates known from the Hub
    (wer, mse, perplexity, …) are better when smaller; all others when greater.

    Example:
        >>> greater_is_better("accuracy"), greater_is_better("mse")
        (True, False)
    """
    return bool(getattr(resolve(name), "greater_is_better", True))


def needs(name: str) -> tuple[str, ...]:
    """What the metric `name` takes besides predictions and references; see :func:`nlp_mtl.metrics.base.metric`.

    Example:
        >>> needs("accuracy"), needs("roc_auc"), needs("group_exact_match")
        ((), ('scores',), ('groups',))
    """
    return () if name.startswith(PREFIX) else tuple(getattr(resolve(name), "needs", ()))


def score(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Compute several metrics of the same predictions.

    Args:
        names: metrics as a task file writes them; the order is kept, so the deciding one comes first.
        predictions: one per row, in the form that the metrics take.
        references: one per row, in the same order.
        labels: the task's label names, in the order of their numbers.
        given: what metrics need besides, by the name they give it (:func:`needs`), each with one value per prediction.

    Returns:
        For each metric its value under :func:`key_of` its name, followed by the further values it gives. A further
        value whose name is taken already gets the metric's name in front.

    Raises:
        DataError: predictions, references and what is given besides have different lengths, or are empty.
        ConfigError: unknown metric; two metrics reported under one name; a metric that needs what is not given.

    Example:
        >>> score(["exact_match", "f1_answer"], ["blue whale"], [["the blue whale", "whale"]])
        {'exact_match': 1.0, 'f1_answer': 1.0}
    """
    check_pairs(predictions, references)
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    own = {name: key_of(name) for name in names}
    if len(set(own.values())) < len(own):
        raise ConfigError(f"metrics: two of {', '.join(names)} would be reported under the same name; leave one out")
    result: dict[str, float] = {}
    for name, key in own.items():
        value = resolve(name)(predictions, references, labels=labels, **_needed(name, given or {}, len(predictions)))
        values = dict(value) if isinstance(value, Mapping) else {key: value}
        if key not in values:
            raise ConfigError(f"metric {name!r} gave {sorted(values)}; one of the keys must be its own name, {key!r}")
        result[key] = float(values.pop(key))
        for further, number in values.items():
            taken = further in result or further in own.values()
            result[f"{key}_{further}" if taken else further] = float(number)
    return result


def _needed(name: str, given: Mapping[str, Any], rows: int) -> dict[str, Any]:
    wanted = needs(name)
    if missing := [f"`{need}`" for need in wanted if need not in given]:
        raise ConfigError(f"metric {name!r} needs {' and '.join(missing)} for every row, which is not given")
    for need in wanted:
        if len(given[need]) != rows:
            raise DataError(f"metric {name!r}: {rows} predictions but {len(given[need])} `{need}`; give one for each")
    return {need: given[need] for need in wanted}


@lru_cache(maxsize=64)
def _from_evaluate(name: str, target: str) -> Callable[..., dict[str, float]]:
    key = key_of(name)
    module = _load(name, target)

    def compute(
        predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
    ) -> dict[str, float]:
        values = _numbers(module.compute(predictions=predictions, references=references))
        if not values:
            raise ConfigError(f"metric {name!r} gave no number")
        # A metric such as evaluate's glue has no value of its own name: its first value stands for it.
        return {key: values.get(key, next(iter(values.values()))), **values}

    compute.__name__ = compute.__qualname__ = key
    compute.__doc__ = f"{key}: {module.description or 'a metric of the evaluate library'}"
    vars(compute).update(greater_is_better=getattr(module, "greater_is_better", key not in _ERRORS))
    return compute


def _load(name: str, target: str) -> Any:
    import evaluate

    script = _script(target)
    tried = [f"local script: {script} is {'there' if script.is_file() else 'not there'}"]
    try:
        # In memory: several processes can compute the same metric without fighting for one cache file.
        return evaluate.load(target, keep_in_memory=True)
    except (OSError, ImportError, ValueError, TypeError) as error:
        tried.append(f"evaluate.load({target!r}): {type(error).__name__}: {error}")
        raise NotFoundError(
            f"the metric {name!r}",
            tried,
            [
                f"a folder with a script of the same name: {PREFIX}path/my_metric, with path/my_metric/my_metric.py "
                "that defines one class derived from evaluate.Metric, each `import` on a line of its own",
                "run once where the Hub can be reached: evaluate's cache is used afterwards",
                f"a registered metric: {', '.join(registry.metrics)}",
            ],
        ) from error


def _script(target: str) -> Path:
    """Where evaluate looks for a local metric: the script itself, or one named like its folder."""
    path = Path(target).expanduser().absolute()
    return path if path.suffix == ".py" else path / f"{path.name}.py"


def _numbers(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, float]:
    """The numbers of a metric's dict: safe keys, dicts inside flattened, everything that is no number left out."""
    result: dict[str, float] = {}
    for key, value in (values or {}).items():
        key = prefix + _safe(key)
        if isinstance(value, Mapping):
            result |= _numbers(value, f"{key}_")
        elif not isinstance(value, str) and hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0:
            result[key] = float(value)
    return result


def _safe(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", str(key))
