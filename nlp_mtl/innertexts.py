"""Rows that are the texts of other tasks: ``dataset: {path: tasks, tasks: […]}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import DataError, NotFoundError
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.taskfile import Split, Task
from nlp_mtl.template import Template

if TYPE_CHECKING:
    from datasets import Dataset

DOMAIN = "domain"


def texts_of(task: Task, inner: Sequence[Task], load: Callable[[Task], Mapping[Split, Dataset]]) -> dict[str, Dataset]:
    """The texts of some tasks by split, one task after the other, with the task's name as `domain`.

    Args:
        task: the task that reads them; its `inputs` say what the columns are called, by their place.
        inner: the tasks; what they hold beside their inputs, above all labels, is left out.
        load: gives the rows of one.

    Returns:
        Rows with the columns of `task.inputs` and `domain`, a ClassLabel with the tasks in their order.

    Raises:
        DataError: rows that can't be read, tasks without training rows (where the task uses any), and columns of
            different kinds, of all tasks at once.
        NotFoundError: data sets that are nowhere, and nothing else is wrong.
    """
    from datasets import ClassLabel, Features, concatenate_datasets

    mistakes: list[DataError | NotFoundError] = []
    parts: dict[str, list[Dataset]] = {}
    names = [one.name for one in inner]
    kinds: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(inner):
        try:
            found = load(one)
            if "train" not in found and task.splits.get("train", "train") is not None:
                raise DataError(
                    f"task {task.name!r}: `dataset.tasks` names tasks with training rows, found {one.name!r} with "
                    f"{', '.join(found)} only; leave it out, or say in it which split is its train (`splits`)"
                )
            for split, rows in found.items():
                texts = _texts(one, task.inputs, rows)
                kinds.setdefault(one.name, _plain(texts.features))
                features = Features({**_plain(texts.features), DOMAIN: ClassLabel(names=names)})
                whole = texts.add_column(DOMAIN, [number] * len(texts))
                with quiet_datasets():
                    parts.setdefault(split, []).append(whole.cast(features))
        except (DataError, NotFoundError) as error:
            mistakes.append(error)
    if not mistakes and any(kind != kinds[names[0]] for kind in kinds.values()):
        said = "; ".join(f"{name}: {', '.join(map(str, kind.values()))}" for name, kind in kinds.items())
        mistakes.append(
            DataError(f"task {task.name!r}: `dataset.tasks` name tasks whose inputs are of one kind, found {said}")
        )
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise DataError("\n".join(map(str, mistakes)))
    return {split: concatenate_datasets(some) for split, some in parts.items()}


def _texts(one: Task, names: Sequence[str], rows: Dataset) -> Dataset:
    """The inputs alone, called otherwise; of a task with a template, the text that it makes."""
    from datasets import Dataset

    if one.template is None:
        only = rows.select_columns(one.inputs)
        columns = {name: only[old][:] for name, old in zip(names, one.inputs, strict=True)}
    else:
        template = Template(one.template)
        only = rows.select_columns(template.columns)
        columns = {names[0]: [_filled(one, template, number, row) for number, row in enumerate(only)]}
    return Dataset.from_dict(columns)


def _filled(one: Task, template: Template, number: int, row: Any) -> str:
    try:
        return template.fill(row)
    except DataError as error:
        raise DataError(f"task {one.name!r}, row {number}: {error}") from None


def _plain(features: Mapping[str, Any]) -> dict[str, Any]:
    """Texts are `string`, whatever file they come from."""
    from datasets import Value

    return {
        name: Value("string") if getattr(kind, "dtype", "") in ("string", "large_string", "null") else kind
        for name, kind in features.items()
    }
