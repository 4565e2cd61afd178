"""Where a task's rows come from: the `dataset` key of a task file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nlp_mtl.errors import shown
from nlp_mtl.paths import no_name

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LOCAL_FORMATS = ("csv", "json", "parquet", "text", "conll", "folders")
MEMORY = "memory"
TASKS = "tasks"


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PartOf(Strict):
    """Test rows that are validation rows, where the data's own test rows have no labels or are to stay unseen.

    Attributes:
        of: validation.
        share: of its rows, drawn by a hash of the inputs: equal inputs, and rows of a group, stand on one side.
    """

    of: Literal["validation"]
    share: float = Field(gt=0, lt=1)


class InMemory(Strict):
    """What is recorded of rows that were given to :meth:`Task.from_data` as objects; the rows are not.

    Attributes:
        fingerprint: changes when the rows do.
        columns: their names.
        rows: their number by split.
    """

    fingerprint: str
    columns: list[str]
    rows: dict[str, int]


class DatasetSpec(Strict):
    r"""Where a task's rows come from.

    Attributes:
        path: a Hub id (``nyu-mll/glue``), or a local format: csv, json, parquet, text (column ``line``), conll, folders
            (columns ``text``, ``label``: one sub-folder of text files per label); or ``memory``, for rows that were
            given in Python; or ``tasks``, for the texts of other tasks.
        name: the configuration (``cola``).
        revision: branch, tag or commit on the Hub; ``refs/convert/parquet`` where main holds a loading script.
        mirrors: other folders of a data root that hold the same data set, or as their default this configuration.
        data_files: for a local format, the file or files, by split or not; relative to the task file, then to the
            working folder; with `package`, relative to the package.
        package: name of a package of ``task_registry/packages.yaml`` that carries the files.
        options: what the reader takes, e.g. ``{sep: "\t", header: null}`` for csv, ``{columns: [tokens, pos, tags]}``
            for conll; ``{dtype: {code: str}}`` for csv columns of digits that are words, such as 007.
        memory: what is known of rows given in Python.
        tasks: with ``path: tasks``, whose texts: names, or ``{name: …, changes}``. The rows are their inputs, called as
            this task's, and a column ``domain`` with the task's name; never their labels. Splits are as theirs.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    mirrors: list[str] = Field(default_factory=list)
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    package: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    memory: InMemory | None = None
    tasks: list[str | dict[str, Any]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _files_where_needed(self) -> DatasetSpec:
        if (self.path == MEMORY) != (self.memory is not None):
            raise ValueError(
                "`path: memory` is what a run folder records of rows given to Task.from_data in Python; a task file "
                "names a Hub id, or a local format and `data_files`"
            )
        if self.path in LOCAL_FORMATS and not self.data_files:
            raise ValueError(f"`path: {self.path}` reads local files: `data_files` must name them, found none")
        if (self.path == TASKS) != bool(self.tasks):
            raise ValueError(
                "`path: tasks` and `tasks` go together, the tasks whose texts are read, found "
                f"`path: {shown(self.path)}` and {len(self.tasks)} tasks; e.g. {{path: tasks, tasks: [imdb]}}"
            )
        if unnamed := [item for item in self.tasks if isinstance(item, dict) and not isinstance(item.get("name"), str)]:
            raise ValueError(f"`tasks` are names, or {{name: …, changes}}, found {shown(unnamed[0])}; add its name")
        names = [item if isinstance(item, str) else item["name"] for item in self.tasks]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`tasks` names each task once, found twice: {', '.join(doubled)}; drop one of them")
        named = self.data_files.values() if isinstance(self.data_files, dict) else [self.data_files or []]
        for file in [self.path, *(file for some in named for file in ([some] if isinstance(some, str) else some))]:
            if why := no_name(file):
                raise ValueError(f"`path` and `data_files` name what can be there, found {shown(file)} ({why})")
        if self.package and self.path not in LOCAL_FORMATS:
            raise ValueError(f"`package` goes with a local format in `path` ({', '.join(LOCAL_FORMATS)})")
        return self
