"""The zip file that the servers of GLUE and SuperGLUE take."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl import sources
from nlp_mtl.atomic import whole_bytes
from nlp_mtl.errors import ConfigError, DataError, NotFoundError
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.recording import recorded
from nlp_mtl.suites.answering import Answers, answers, registered, rows_of
from nlp_mtl.suites.tables import Part, Suite, suite_named
from nlp_mtl.taskfile import Task

_STAMP = (1980, 1, 1, 0, 0, 0)  # the same answers make the same file


@dataclass(frozen=True)
class Submission:
    """A written submission.

    Attributes:
        file: the zip file.
        lines: file in it → answers in it, without a header.
        filled: files that hold the trivial answer, because no run has their task.
        notes: what was passed over, and files that are not as long as the server expects.
    """

    file: Path
    lines: dict[str, int]
    filled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What was written, and what a reader must know."""
        said = [f"{self.file}: {len(self.lines)} files."]
        if self.filled:
            said.append(f"No run answers {', '.join(self.filled)}: these hold the trivial answer, not predictions.")
        return [*said, *(f"{note}." for note in self.notes)]


def write_submission(
    runs: Sequence[str | Path],
    suite: str | Suite,
    file: str | Path,
    *,
    fill: bool = False,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Submission:
    """Predict a suite's test rows and write them as its server takes them.

    GLUE: one TSV per set of rows, ``index<TAB>prediction``. SuperGLUE: one JSONL per set, ``{"idx": …, "label": …}``;
    MultiRC's answers lie inside their questions and passages, ReCoRD's label is the chosen candidate's text.

    Args:
        runs: run folders; each may answer some tasks.
        suite: glue or superglue.
        file: the zip file; it appears, or replaces what was there, when it is whole.
        fill: write the trivial answer for sets that no run answers; the server takes whole submissions only.
        data_root, base: see :func:`nlp_mtl.run.evaluate`.
        progress: show a bar.

    Raises:
        ConfigError: sets that no run answers, without `fill`; a file that can't be written there; a suite whose test
            rows are not public.
        DataError: rows whose numbers are not those of a test split.
    """
    chosen, place = suite_named(suite) if isinstance(suite, str) else suite, Path(file)
    if not chosen.ending:
        raise ConfigError(
            f"--submission: of glue or superglue, found --suite {chosen.name}: the test rows of {chosen.title} are not "
            "public, so that there are no answers to send; leave it out"
        )
    check_place(place)
    said = answers(runs, chosen, "test", data_root=data_root, base=base, progress=progress)
    missing = [part for part in chosen.parts if part.task not in said.found]
    if missing and not fill:
        raise ConfigError(
            [
                f"--submission: {chosen.title}'s server takes whole submissions only, and no run answers "
                f"{', '.join(part.file for part in missing)}; add a run that does, or --fill-missing, which writes "
                "the trivial answer for them",
                *said.notes,
            ]
        )
    files: dict[str, list[Any]] = {}
    for part in chosen.parts:
        if part.task in said.found:
            root = data_root or recorded(said.by[part.task]).get("data_root")
            files[part.file] = lines_of(part, said, root)
        else:
            files[part.file] = trivial_lines(part, data_root)
    notes = list(said.notes)
    for part in chosen.parts:
        if (count := len(files[part.file])) != part.test_rows:
            notes.append(f"{part.file}: {count} answers, the server expects {part.test_rows}")
    texts = {f"{name}.{chosen.ending}": written(lines, chosen) for name, lines in files.items()}
    write_zip(place, texts)
    counts = {f"{name}.{chosen.ending}": len(lines) for name, lines in files.items()}
    return Submission(place, counts, [part.file for part in missing], notes)


def check_place(place: Path) -> None:
    """Refuse a file that can't be written, before anything is computed.

    Raises:
        ConfigError: no zip file, or no folder for it.
    """
    if place.suffix != ".zip" or place.is_dir() or not place.absolute().parent.is_dir():
        why = f"there is no folder {place.parent}" if place.suffix == ".zip" else "its name does not end in .zip"
        why = "it is a folder" if place.is_dir() else why
        raise ConfigError(f"--submission: a zip file to write, found {str(place)!r}: {why}; name another file")


def lines_of(part: Part, said: Answers, data_root: str | Path | None) -> list[Any]:
    """A part's answers, one for each line of its file, in the order of their numbers.

    Raises:
        DataError: the test rows are not those that were predicted.
    """
    found, task = said.found[part.task], said.tasks[part.task]
    rows = sources.load_rows(task, data_root=data_root)["test"]
    if len(rows) != len(found.decoded):
        raise DataError(
            f"task {part.task!r}: {len(found.decoded)} predictions for {len(rows)} test rows; a submission answers each"
        )
    names = rows.column_names
    numbers: list[Any] = rows["idx"][:] if "idx" in names else list(range(len(rows)))
    if part.answer == "questions":
        return passages(numbers, [_answer(part, found, value) for value in found.decoded])
    if part.answer == "candidates":
        return best_candidates(_queries(rows), rows["entity"][:], _positive(found))
    by_number = {int(number): _answer(part, found, p) for number, p in zip(numbers, found.decoded, strict=True)}
    if sorted(by_number) != list(range(len(rows))):
        raise DataError(
            f"task {part.task!r}: `idx` of test rows counts from 0 without gaps, found another numbering; use the "
            "owners' data"
        )
    return sorted(by_number.items())


def _answer(part: Part, found: TaskScores, decoded: Any) -> Any:
    """A decoded prediction in the owners' words."""
    if part.answer == "number":
        value = float(decoded)
        if not math.isfinite(value):
            raise DataError(f"task {part.task!r}: predictions are numbers, found {value}")
        return f"{min(5.0, max(0.0, value)):.3f}"
    if part.answer == "choice":
        return int(decoded)
    name = found.in_words(decoded)
    return part.words.get(name, name)


def _queries(rows: Any) -> list[int]:
    """Of each candidate's row the number of its query; the preparation writes ``<passage>-<query>``."""
    return [int(name.partition("-")[2]) for name in rows["query_id"]]


def _positive(found: TaskScores) -> list[float]:
    """How much each row's candidate is the answer: the second label's logit above the first's."""
    logits = np.asarray(found.predictions, dtype=np.float64)
    return (logits[:, 1] - logits[:, 0]).tolist()


def passages(numbers: Sequence[Mapping[str, int]], labels: Sequence[int]) -> list[Any]:
    """MultiRC: answers inside their questions inside their passages.

    Example:
        >>> numbers = [{"paragraph": 0, "question": 0, "answer": i} for i in (0, 1)]
        >>> passages(numbers, [1, 0])[0]["passage"]
        {'questions': [{'idx': 0, 'answers': [{'idx': 0, 'label': 1}, {'idx': 1, 'label': 0}]}]}
    """
    made: dict[int, dict[int, list[dict[str, int]]]] = {}
    for number, label in zip(numbers, labels, strict=True):
        questions = made.setdefault(number["paragraph"], {})
        questions.setdefault(number["question"], []).append({"idx": number["answer"], "label": label})
    return [
        {
            "idx": passage,
            "passage": {
                "questions": [
                    {"idx": question, "answers": sorted(given, key=lambda one: one["idx"])}
                    for question, given in sorted(questions.items())
                ]
            },
        }
        for passage, questions in sorted(made.items())
    ]


def best_candidates(
    queries: Sequence[int], candidates: Sequence[str], scores: Sequence[float]
) -> list[tuple[int, str]]:
    """ReCoRD: of each query the candidate with the highest score, the first of equal ones.

    Example:
        >>> best_candidates([1, 1, 0], ["Ann", "Eve", "Bob"], [0.1, 0.7, -2.0])
        [(0, 'Bob'), (1, 'Eve')]
    """
    best: dict[int, tuple[float, str]] = {}
    for query, candidate, score in zip(queries, candidates, scores, strict=True):
        known = best.get(query)
        if known is None or score > known[0]:
            best[query] = (score, candidate)
    return [(query, candidate) for query, (_, candidate) in sorted(best.items())]


def trivial_lines(part: Part, data_root: str | Path | None) -> list[Any]:
    """The trivial answer for every line of a part's file; of MultiRC and ReCoRD its rows must be at hand.

    Raises:
        NotFoundError: they are not.
    """
    if part.answer not in ("questions", "candidates"):
        return [(number, part.trivial) for number in range(part.test_rows)]
    task = rows_of(part, registered(part), "test")
    assert isinstance(task, Task)
    try:
        rows = sources.load_rows(task, data_root=data_root)["test"]
    except NotFoundError as error:
        raise NotFoundError(
            f"the test rows of {part.file}",
            [str(error).splitlines()[0]],
            [f"--data-root DIR: its file names every passage and query, so that {part.file} needs its rows"],
        ) from error
    if part.answer == "questions":
        return passages(rows["idx"][:], [part.trivial] * len(rows))
    return best_candidates(_queries(rows), rows["entity"][:], [0.0] * len(rows))


def written(lines: Sequence[Any], suite: Suite) -> str:
    """The text of a file."""
    if suite.ending == "tsv":
        return "".join(["index\tprediction\n", *(f"{number}\t{answer}\n" for number, answer in lines)])
    told = [line if isinstance(line, dict) else {"idx": line[0], "label": line[1]} for line in lines]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told)


def write_zip(place: Path, texts: Mapping[str, str]) -> None:
    """Files at the top of a zip file, which is the old one or the new one, never half of it."""
    with whole_bytes(place) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            info = zipfile.ZipInfo(name, _STAMP)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, text)
