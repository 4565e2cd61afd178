"""Answers for every line of a file, of any length: lines are read and answers are written as they come."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from nlp_mtl.atomic import whole_file
from nlp_mtl.errors import ConfigError, DataError, shown
from nlp_mtl.paths import no_name
from nlp_mtl.prediction import open_model, predict_stream

if TYPE_CHECKING:
    import torch

_SOON = 2.0  # seconds until progress is worth showing


def predict_file(
    folder: str | Path,
    file: str | Path,
    out: str | Path | None = None,
    *,
    tasks: Sequence[str] | None = None,
    dtype: str | torch.dtype = "auto",
    base: str | Path | None = None,
    progress: bool = False,
) -> int:
    """Answers for every line of a JSONL file (a string, a pair, or an object of columns a line), as JSONL.

    Memory is bounded whatever the file's length; see :func:`nlp_mtl.prediction.predict_stream`.

    Args:
        folder: a run folder.
        file: the input.
        out: the output, which appears when it is whole; default standard output.
        tasks: only these.
        dtype: what it is computed in; see :func:`nlp_mtl.predict`.
        base: see :meth:`MultiTaskModel.from_pretrained`.
        progress: show a bar on standard error when it takes long.

    Returns:
        How many lines were answered.

    Raises:
        ConfigError: a file that is none or holds a line that is no JSON, an unknown task or dtype.
        DataError: a line that can't be read by a task; names it.
    """
    model = open_model(folder, base=base, tasks=tasks, dtype=dtype)
    lines = Lines(Path(file))
    answers = predict_stream(model, lines, tasks=tasks, dtype=dtype)
    size = lines.size()
    bar = tqdm(total=size, unit="B", unit_scale=True, desc="predict", delay=_SOON, leave=False, disable=not progress)
    try:
        with bar:
            if out is None:
                return _write_lines(sys.stdout, answers, lines, bar)
            with whole_file(out) as stream:
                return _write_lines(stream, answers, lines, bar)
    except DataError as error:
        said = re.sub(r"\binput (\d+):", lambda found: f"line {lines.line_of(int(found[1]))}:", str(error))
        raise DataError(f"{file}: {said}") from error


def _write_lines(stream: TextIO, answers: Iterator[Any], lines: Lines, bar: Any) -> int:
    for answer in answers:
        stream.write(json.dumps(answer, ensure_ascii=False) + "\n")
        bar.update(lines.answered())
    return lines.done


class Lines:
    """The values of a JSONL file, one at a time; remembers where those stand that are not answered yet.

    Args:
        file: the file.

    Attributes:
        done: how many were answered.
    """

    def __init__(self, file: Path):
        self.file, self.done = file, 0
        self._open: deque[tuple[int, int]] = deque()  # number and bytes of each line read and not yet answered

    def size(self) -> int | None:
        """Bytes of the file, None if there is none."""
        return None if no_name(self.file) or not self.file.is_file() else self.file.stat().st_size

    def answered(self) -> int:
        """The next value is answered; gives its line's bytes."""
        self.done += 1
        return self._open.popleft()[1]

    def line_of(self, number: int) -> int:
        """The line, counted from 1, of a value, counted from 0, that is not answered yet."""
        return self._open[number - self.done][0]

    def __iter__(self) -> Iterator[Any]:
        why = no_name(self.file)
        if why or not self.file.is_file():
            found = why or ("a folder" if self.file.is_dir() else "no such file")
            raise ConfigError(
                f"predict: --file is a JSONL file with a text, a pair or an object a line, found "
                f"{shown(str(self.file))}: {found}; name one that is there"
            )
        with self.file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    value = self._value(number, line)
                    self._open.append((number, len(line)))
                    yield tuple(value) if isinstance(value, list) else value

    def _value(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.file}:{number}: not UTF-8 ({error.reason}); save it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            found = shown(line.decode().strip(), most=40)
            raise ConfigError(
                f"{self.file}:{number}: not JSON, found {found} ({getattr(error, 'msg', error)}); write a text in "
                'quotes, a pair ["…", "…"] or an object {column: text} a line'
            ) from None
