"""Data sets with a Hub id: from a local mirror in the Hub's layout, the `datasets` cache, or the Hub, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_mtl import reading
from nlp_mtl.errors import NotFoundError
from nlp_mtl.reading import opened, quiet_datasets, short
from nlp_mtl.taskfile import DatasetSpec, Task

if TYPE_CHECKING:
    from datasets import Dataset

PARQUET_BRANCH = "refs/convert/parquet"  # the Hub's own conversion of a data set


def hub_dataset(task: Task, spec: DatasetSpec, data_root: str | Path | None) -> Mapping[str, Dataset]:
    """The raw splits of a data set with a Hub id.

    Args:
        task: whose, for messages.
        spec: what its task file says of the data.
        data_root: the folder of the mirror; default ``NLP_MTL_DATA_ROOT``.

    Raises:
        NotFoundError: it is in none of these places; says what was tried.
    """
    from datasets import load_dataset

    tried: list[str] = []
    root = data_root or os.environ.get("NLP_MTL_DATA_ROOT")
    if root is None:
        tried.append("local mirror: no --data-root given, NLP_MTL_DATA_ROOT not set")
    else:
        for place in (spec.path, *spec.mirrors):
            folder, wanted = Path(root).expanduser() / place, spec.name
            if not folder.is_dir():
                tried.append(f"local mirror: {folder} is not there")
                continue
            configs = sorted(part.name for part in folder.iterdir() if part.is_dir())
            if wanted is not None and place in spec.mirrors and configs == ["default"]:
                wanted = "default"  # a repository of its own, for what is one configuration of several at `path`
            if wanted is not None and configs and wanted not in configs:
                tried.append(f"local mirror: {folder} has no {wanted!r}, it has {', '.join(configs)}")
                continue
            try:
                plain = wanted in configs and not (folder / "README.md").is_file()  # nothing says what the folders are
                where, config = (folder / str(wanted), None) if plain else (folder, wanted)
                with quiet_datasets():
                    return opened(task, partial(load_dataset, str(where), config))
            except FileNotFoundError as error:  # a folder without data files
                tried.append(f"local mirror: {short(error)}")
    with quiet_datasets(offline=True):
        try:
            return _from_hub(spec, offline=True)
        except (OSError, ValueError, RuntimeError) as error:
            tried.append(f"datasets cache: {short(error)}")
    reachable, why = (False, "not asked") if reading.staying_offline() else reading.hub_reachable()
    if not reachable:
        tried.append(f"Hub: {why}")
    else:
        try:
            return _from_hub(spec, offline=False)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the repository holds a loading script
            tried.append(f"Hub: {short(error)}")
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


def _from_hub(spec: DatasetSpec, *, offline: bool) -> Mapping[str, Dataset]:
    """What the Hub, or offline the cache, has under this id.

    The Parquet branch has no card that names configurations: each is a folder (``en/train/0000.parquet``), which
    `datasets` would read all as one. So the wanted folder is fetched and read like a mirror.
    """
    from datasets import load_dataset

    if spec.revision != PARQUET_BRANCH or spec.name is None:
        return load_dataset(spec.path, spec.name, revision=spec.revision)
    from huggingface_hub import snapshot_download

    branch = snapshot_download(
        spec.path,
        repo_type="dataset",
        revision=spec.revision,
        allow_patterns=f"{spec.name}/*.parquet",
        local_files_only=offline,
    )
    folder = Path(branch) / spec.name
    if not folder.is_dir():
        raise FileNotFoundError(f"{spec.path} has no folder {spec.name!r} at {spec.revision}")
    return load_dataset(str(folder))
