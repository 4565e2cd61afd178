"""What all metrics share: the decorator, and the checks that turn bad input into a message instead of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_mtl import registry
from nlp_mtl.errors import DataError

if TYPE_CHECKING:
    import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


def metric(
    name: str, *, greater_is_better: bool = True, needs: Sequence[str] = (), paper: str = ""
) -> Callable[[Function], Function]:
    """Decorator: register a metric and say which direction is better (``registry.metrics.register`` alone means up).

    Args:
        name: what a task file writes under `metrics`.
        greater_is_better: False for errors such as `mse`.
        needs: what it takes besides predictions and references, each under its name as a keyword argument, one value
            per row: ``scores``, class probabilities [rows, labels] from the head; any other name is a column of the
            rows, which the task names under `metric_columns` (``groups``, for instance).
        paper: where the metric comes from, in one line.
    """

    def decorate(function: Function) -> Function:
        vars(function).update(greater_is_better=greater_is_better, needs=tuple(needs), paper=paper)
        return registry.metrics.register(name)(function)

    return decorate


def check_pairs(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse what can't be scored.

    Raises:
        DataError: nothing to score, or not one reference for each prediction.
    """
    if len(predictions) != len(references):
        raise DataError(
            f"metrics: {len(predictions)} predictions but {len(references)} references; "
            "give one reference for each prediction, in the same order"
        )
    if not len(predictions):
        raise DataError("metrics: no predictions and no references; a metric needs at least one row")


def check_rows(predictions: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> None:
    """Refuse rows (sentences, or 0/1 rows) whose lengths differ between prediction and reference.

    Raises:
        DataError: names the row and both lengths.
    """
    check_pairs(predictions, references)
    for number, (predicted, reference) in enumerate(zip(predictions, references, strict=True)):
        if not (_is_row(predicted) and _is_row(reference)):
            raise DataError(f"metrics: row {number}: expected two lists, found {predicted!r} and {reference!r}")
        if len(predicted) != len(reference):
            raise DataError(
                f"metrics: row {number} has {len(predicted)} predicted values but {len(reference)} references; "
                "leave out padding and ignored tokens on both sides"
            )


def as_arrays(predictions: Sequence[Any], references: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Labels as arrays of equal shape: ``[rows]``, tags over all ``[tokens]``, or multi-label ``[rows, labels]``.

    Raises:
        DataError: the two sides do not fit each other, hold nothing, or are multi-label and not 0/1.
    """
    import numpy as np

    check_pairs(predictions, references)
    if _is_row(predictions[0]) or _is_row(references[0]):
        check_rows(predictions, references)
        if any(isinstance(value, str) for row in (*predictions, *references) for value in row):
            predictions, references = ([tag for row in rows for tag in row] for rows in (predictions, references))
    try:
        predicted, expected = np.asarray(predictions), np.asarray(references)
    except ValueError as error:
        raise DataError(f"metrics: rows of numbers must all have the same length ({error})") from None
    if not expected.size:
        raise DataError("metrics: every row is empty; a metric needs at least one label")
    if predicted.shape != expected.shape or (predicted.dtype.kind in "US") != (expected.dtype.kind in "US"):
        raise DataError(
            f"metrics: predictions ({predicted.dtype}, shape {predicted.shape}) and references ({expected.dtype}, "
            f"shape {expected.shape}) must both be label numbers, or both be tag names"
        )
    if expected.ndim > 1 and not (np.isin(predicted, (0, 1)).all() and np.isin(expected, (0, 1)).all()):
        raise DataError("metrics: multi-label rows must hold 0 and 1 only; turn scores into decisions first")
    return predicted, expected


def as_flat_arrays(name: str, predictions: Sequence[Any], references: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Like :func:`as_arrays`, for a metric that has no multi-label form.

    Raises:
        DataError: also for multi-label rows.
    """
    predicted, expected = as_arrays(predictions, references)
    if expected.ndim > 1:
        raise DataError(f"metric {name!r} takes one label per row, found multi-label rows; use f1_micro or f1_macro")
    return predicted, expected


def as_floats(predictions: Sequence[Any], references: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values as two float64 arrays ``[rows]``.

    Raises:
        DataError: not one number per row, or a number that is not finite (names the row).
    """
    import numpy as np

    check_pairs(predictions, references)
    arrays = []
    for side, values in (("prediction", predictions), ("reference", references)):
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"metrics: each {side} must be a number ({error})") from None
        if array.ndim != 1:
            raise DataError(f"metrics: each {side} must be one number, found shape {array.shape}")
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array))[0])
            raise DataError(f"metrics: the {side} of row {row} is {array[row]}, not a finite number")
        arrays.append(array)
    return arrays[0], arrays[1]


def f1_of(hits: float, predicted: float, expected: float) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; what would be 0/0 is 0.

    Example:
        >>> f1_of(hits=1, predicted=2, expected=4)
        (0.5, 0.25, 0.3333333333333333)
    """
    precision = hits / predicted if predicted else 0.0
    recall = hits / expected if expected else 0.0
    return precision, recall, 2 * hits / (predicted + expected) if predicted + expected else 0.0


def _is_row(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0
