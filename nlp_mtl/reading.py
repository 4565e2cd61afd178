"""How `datasets` is asked: quietly, without the network where that is wished, its errors told in our words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from nlp_mtl.errors import DataError
from nlp_mtl.taskfile import Task

if TYPE_CHECKING:
    from datasets import Dataset

_stay_offline = False  # set by `offline` only


@contextmanager
def offline() -> Iterator[None]:
    """Look for data without asking the Hub."""
    global _stay_offline
    before, _stay_offline = _stay_offline, True
    try:
        yield
    finally:
        _stay_offline = before


def staying_offline() -> bool:
    """Whether :func:`offline` is in force."""
    return _stay_offline


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
    from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity

    shown, level = datasets.are_progress_bars_disabled(), get_verbosity()
    was_offline = datasets.config.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    set_verbosity(CRITICAL)  # what it logs before it raises is told by our own error
    datasets.config.HF_HUB_OFFLINE = was_offline or offline
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
        set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()


def short(error: BaseException) -> str:
    """An error's text on one line, cut after 300 characters."""
    text = " ".join(str(error).split())
    return (text[:300] + " …") if len(text) > 300 else (text or type(error).__name__)


def opened(task: Task, read: Callable[[], Mapping[str, Dataset]]) -> Mapping[str, Dataset]:
    """What `read` gives; its errors become a DataError that names the task."""
    from datasets.exceptions import DatasetGenerationError

    try:
        return read()
    except DatasetGenerationError as error:
        raise DataError(f"task {task.name!r}: the data can't be read: {short(error.__cause__ or error)}") from error
    except ValueError as error:  # e.g. an unknown configuration, or options the reader does not take
        if empty := re.search(r'Instruction "(\w+)" corresponds to no data', str(error)):
            raise DataError(
                f"task {task.name!r}: the split {empty[1]!r} has no rows; put rows into its files, or leave them out"
            ) from error
        raise DataError(f"task {task.name!r}: {short(error)}") from error
    except TypeError as error:
        raise DataError(f"task {task.name!r}: `dataset.options`: {short(error)}") from error
