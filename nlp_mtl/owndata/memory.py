"""Own data given as Python objects: brought to datasets by split, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.owndata.looks import class_names
from nlp_mtl.owndata.places import split_of
from nlp_mtl.taskfile import SPLITS, InMemory

if TYPE_CHECKING:
    from datasets import Dataset

_TAKEN = (
    "a datasets.Dataset or DatasetDict, a pandas.DataFrame, a list of rows (mappings), any of these by split, or a path"
)


def is_paths(data: Any) -> bool:
    """Whether own data is given as a path, several, or paths by split."""
    if isinstance(data, Mapping):
        return bool(data) and all(split_of(str(key)) and is_paths(value) for key, value in data.items())
    if isinstance(data, (list, tuple)):
        return bool(data) and all(isinstance(item, (str, PathLike)) for item in data)
    return isinstance(data, (str, PathLike))


def splits_of(data: Any, notes: list[str]) -> dict[str, Dataset]:
    """Rows given as an object, by split: train, validation, test.

    Args:
        data: see :meth:`nlp_mtl.taskfile.Task.from_data`.
        notes: gets what was left out, in plain sentences.

    Raises:
        ConfigError: an object of another kind, no rows, or splits of which none is for training.
    """
    if isinstance(data, Mapping) and not _is_columns(data):
        return _by_split(data, notes)
    return {"train": _dataset(data, "data", notes)}


def _is_columns(data: Mapping[Any, Any]) -> bool:
    """Whether a mapping is column → values and not split → rows."""
    return bool(data) and all(
        isinstance(values, (list, tuple)) and not any(isinstance(value, Mapping) for value in values[:1])
        for values in data.values()
    )


def _by_split(data: Mapping[Any, Any], notes: list[str]) -> dict[str, Dataset]:
    chosen: dict[str, str] = {}
    for name in data:
        split = name if name in SPLITS else split_of(str(name))
        if split is not None and (split not in chosen or name == split):
            chosen[split] = name
    left_out = [str(name) for name in data if name not in chosen.values()]
    if len(data) == 1 and not chosen:
        chosen, left_out = {"train": next(iter(data))}, []
    if "train" not in chosen:
        only = f", or give its rows themselves: data[{next(iter(data))!r}]" if len(data) == 1 else ""
        raise ConfigError(
            f"data: one split must be for training, found {', '.join(map(str, data)) or 'none'}; call it 'train'{only}"
        )
    twice = {name: split for name in left_out if (split := split_of(name)) is not None}
    for name, split in twice.items():
        notes.append(f"splits: {name} left out, since {chosen[split]} is taken for {split}")
    if odd := [name for name in left_out if name not in twice]:
        notes.append(f"splits: {', '.join(odd)} left out, since the names say neither train, validation nor test")
    return {
        split: _dataset(data[chosen[split]], f"data[{chosen[split]!r}]", notes) for split in SPLITS if split in chosen
    }


def _dataset(data: Any, where: str, notes: list[str]) -> Dataset:
    from datasets import Dataset, IterableDataset

    if isinstance(data, IterableDataset):
        raise ConfigError(
            f"{where}: an IterableDataset can't be counted or read twice; give Dataset.from_list(list(data.take(N)))"
        )
    if isinstance(data, Dataset):
        made = data
    elif isinstance(data, Mapping) and _is_columns(data):
        made = _of_columns(data, where, notes)
    elif isinstance(data, (list, tuple)) and all(isinstance(row, Mapping) for row in data):
        names = list(dict.fromkeys(name for row in data for name in row))
        made = _of_columns({name: [row.get(name) for row in data] for name in names}, where, notes)
    elif hasattr(data, "to_pandas") or (hasattr(data, "columns") and hasattr(data, "iloc")):
        frame = data.to_pandas() if hasattr(data, "to_pandas") else data  # polars, Arrow
        doubled = sorted({str(name) for name in frame.columns if list(frame.columns).count(name) > 1})
        if doubled:
            raise ConfigError(f"{where}: the column {doubled[0]!r} stands twice; rename one")
        made = _of_columns({name: frame[name] for name in frame.columns}, where, notes)
    else:
        raise ConfigError(f"{where}: takes {_TAKEN}; found {type(data).__name__}; give one of these")
    if not len(made):
        raise ConfigError(f"{where}: has no rows; give some")
    return made


def _of_columns(columns: Mapping[Any, Any], where: str, notes: list[str]) -> Dataset:
    """A dataset of columns, without those whose values are of several kinds."""
    import pyarrow as pa
    from datasets import Dataset

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"{where}: the columns differ in length: {lengths}")
    if strange := [name for name in columns if not isinstance(name, str)]:
        raise ConfigError(f"{where}: a column's name is text, found {strange[0]!r}; rename it")
    if strange := [name for name in columns if "\0" in name or _is_half(name)]:
        raise ConfigError(
            f"{where}: a column's name holds neither NUL nor half a character, found {strange[0]!r}; rename it"
        )
    made = {}
    for name, values in columns.items():
        plain = values.astype(object) if str(getattr(values, "dtype", "")) == "category" else values
        try:
            made[name] = pa.array(plain, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            why = " ".join(str(error).split())[:120]
            notes.append(f"data: the column {name!r} is left out: its values are not all of one kind ({why})")
        except (OverflowError, UnicodeEncodeError) as error:  # whole numbers over 64 bits, halves of characters
            notes.append(f"data: the column {name!r} is left out: it holds what can't be stored ({error})")
    return Dataset(pa.table(made)) if made else Dataset.from_dict({})


def _is_half(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def recorded(splits: Mapping[str, Dataset]) -> InMemory:
    """What is recorded of rows in memory: columns, number, and a fingerprint of their content."""
    first = next(iter(splits.values()))
    return InMemory(
        fingerprint=fingerprint(splits),
        columns=list(first.column_names),
        rows={split: len(rows) for split, rows in splits.items()},
    )


def fingerprint(splits: Mapping[str, Dataset]) -> str:
    """A short text that is the same for the same rows, wherever and whenever they were read.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"text": ["a", "b"]})
        >>> fingerprint({"train": rows}) == fingerprint({"train": Dataset.from_list([{"text": "a"}, {"text": "b"}])})
        True
    """
    digest = hashlib.sha256()
    for split, rows in splits.items():
        names = {column: class_names(feature) for column, feature in rows.features.items()}
        digest.update(json.dumps([split, names]).encode())
        for batch in rows.iter(batch_size=1000):
            digest.update(json.dumps(batch, default=str, ensure_ascii=False).encode())
    return digest.hexdigest()[:24]


def select(splits: Mapping[str, Dataset], columns: Sequence[str]) -> dict[str, Dataset]:
    """The rows with only these columns; a split may lack one."""
    return {
        split: rows.select_columns([name for name in columns if name in rows.column_names])
        for split, rows in splits.items()
    }
