"""What `predict` is asked that no task can read; a file of answers appears whole or stays as it was."""

from __future__ import annotations

from typing import Any

import nlp_mtl
from nlp_mtl.errors import ConfigError, DataError
from tests.catalogue.bad import Bad, lines


def bad_line(id, content, *, parameter, rule, found, way_out, error=DataError, task="mood"):
    """An entry whose input file has one bad line behind good ones; the answers would replace a file that is there."""
    whole = content if isinstance(content, bytes) else content.encode()
    return Bad(
        id,
        f"predict done --file in.jsonl --out answers.jsonl --task {task}",
        parameter,
        rule,
        found,
        way_out,
        files={"in.jsonl": b'"a good cat"\n\n' + whole},
        error=error,
    )


def asked(value: Any, **more: Any) -> Any:
    """A call of `nlp_mtl.predict`."""
    return lambda: nlp_mtl.predict("done", value, **more)


ENTRIES = [
    bad_line(
        "a line that was cut off",
        '{"text": "a d',
        error=ConfigError,
        parameter="in.jsonl:3",
        rule="not JSON",
        found='found \'{"text": "a d\'',
        way_out="an object {column: text} a line",
    ),
    bad_line(
        "a line that is not UTF-8",
        b'"caf\xe9"\n',
        error=ConfigError,
        parameter="in.jsonl:3",
        rule="not UTF-8",
        found="invalid continuation byte",
        way_out="save it as UTF-8",
    ),
    bad_line(
        "a line that is nested without end",
        "[" * 100_000 + "\n",
        error=ConfigError,
        parameter="in.jsonl:3",
        rule="not JSON",
        found="found '[[[",
        way_out="write a text in quotes",
    ),
    bad_line(
        "a number",
        "3\n",
        parameter="in.jsonl: line 3",
        rule="a text, a pair of texts or a mapping of columns",
        found="found '3'",
        way_out="give one of them",
    ),
    bad_line(
        "three texts",
        lines(["a cat", "a dog", "rain"]),
        parameter="in.jsonl: line 3",
        rule="a text, a pair of texts or a mapping of columns",
        found="('a cat', 'a dog', 'rain')",
        way_out="give one of them",
    ),
    bad_line(
        "a text that is null",
        lines({"text": None}),
        parameter="line 3: column 'text'",
        rule="is not text",
        found="found 'None'",
        way_out="correct or leave out what is named",
    ),
    bad_line(
        "a text of spaces",
        lines("   "),
        parameter="line 3: 'text'",
        rule="hold no text",
        found="1 input(s) can't be read",
        way_out="correct or leave out what is named",
    ),
    bad_line(
        "half a character",
        '"ok \\ud800"\n',
        parameter="line 3: column 'text'",
        rule="is not text",
        found="found 'ok \\ud800'",
        way_out="correct or leave out what is named",
    ),
    bad_line(
        "a mapping where text is read",
        lines({"text": {"en": "a cat"}}),
        parameter="line 3: column 'text'",
        rule="is not text",
        found="{'en': 'a cat'}",
        way_out="correct or leave out what is named",
    ),
    bad_line(
        "half of a pair that is a number",
        lines({"a": "a cat", "b": 3}),
        task="alike",
        parameter="line 3: column 'b'",
        rule="is not text",
        found="found '3'",
        way_out="correct or leave out what is named, or ask only other tasks than 'alike'",
    ),
    Bad(
        "bytes in Python",
        asked(b"a cat"),
        error=DataError,
        parameter="input 0",
        rule="a text, a pair of texts or a mapping of columns",
        found="a cat",
        way_out="give one of them",
    ),
    Bad(
        "one of several inputs in Python",
        asked(["a cat", {"text": 3}, ""], tasks=["mood"]),
        error=DataError,
        parameter="input 1: column 'text'",
        rule="is not text",
        found="found '3'",
        way_out="correct or leave out what is named",
        also=("input 2: 'text' hold no text",),
    ),
    Bad(
        "tasks that the model lacks, in Python",
        asked("a cat", tasks=["moood", "mood", "x"]),
        parameter="predict",
        rule="is not a task of this model",
        found="'moood'",
        way_out="did you mean 'mood'",
        also=("2 mistakes", "'x' is not a task of this model; known: mood, alike"),
    ),
    Bad(
        "a dtype that there is not, on the command line",
        "predict done --file in.jsonl --out answers.jsonl --dtype bf16",
        files={"in.jsonl": b'"a good cat"\n'},
        parameter="`dtype`",
        rule="is one of auto, float32, bfloat16, float16",
        found="found 'bf16'",
        way_out="did you mean 'bfloat16'",
    ),
    Bad(
        "a dtype that there is not, in Python",
        asked("a cat", dtype="float23", tasks=["moood"]),
        parameter="`dtype`",
        rule="is one of auto, float32, bfloat16, float16",
        found="found 'float23'",
        way_out="did you mean",
        also=("2 mistakes", "'moood' is not a task of this model"),
    ),
    Bad(
        "a window of nothing",
        lambda: list(nlp_mtl.predict_stream(nlp_mtl.MultiTaskModel.from_pretrained("done"), ["a cat"], window=0)),
        parameter="`window`",
        rule="is a whole number from 1",
        found="found 0",
        way_out="leave it out for the usual",
    ),
    Bad(
        "a name of a task instead of a list",
        asked("a cat", tasks="mood"),
        parameter="`tasks`",
        rule="is a list of names",
        found="found 'mood'",
        way_out="write ['mood']",
    ),
]
