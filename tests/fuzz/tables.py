"""Laws of files that hold tables: CSV and TSV, JSONL and lists of JSON, parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from nlp_mtl.files import local_files
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from tests.fuzz.law import law, ours
from tests.fuzz.values import TRICKY, any_text, clean_values, edited_bytes, json_values, nearly, plain

LABELS = ["x", "y", "z"]
OPTIONS = ("`dataset.options`", "`options.")  # a message about these needs no file
INT64 = st.integers(-(2**63), 2**63 - 1)


def task_of(path: str, files: Any, options: dict[str, Any] | None = None, **more: Any) -> Task:
    said = {"head": "sequence_classification", "inputs": ["text"], "target": "label", **more}
    return Task(name="spam", dataset={"path": path, "data_files": files, "options": options or {}}, **said)


def read_or_refuse(task: Task, *files: Path) -> None:
    """Files are read to the last cell, or refused by name."""
    found = ours(lambda: local_files(task, task.dataset, None), *(file.name for file in files), *OPTIONS)
    if found is None:
        return
    for rows in found.values():
        assert len(rows[:]) == len(rows.column_names)
    for rows in (ours(lambda: load_rows(task), "task 'spam'") or {}).values():
        assert len(rows)
        assert {"text", "label"} <= set(rows.column_names) or "train" not in found


def same(given: Any, read: Any) -> bool:
    """Whether a value was read back as it was written."""
    if isinstance(given, float) and isinstance(read, (int, float)) and not isinstance(read, bool):
        return math.isclose(given, read, rel_tol=1e-15)
    if isinstance(given, dict) and isinstance(read, dict):
        return set(given) == set(read) and all(same(given[key], read[key]) for key in given)
    if isinstance(given, list) and isinstance(read, list):
        return len(given) == len(read) and all(map(same, given, read))
    return type(given) is type(read) and given == read


def assert_read_back(task: Task, given: list[dict[str, Any]]) -> None:
    rows = local_files(task, task.dataset, None)["train"].to_list()
    assert len(rows) == len(given)
    for number, (one, other) in enumerate(zip(given, rows, strict=True)):
        assert same(one, other), f"row {number}: written {one!r}, read {other!r}"


# ---------------------------------------------------------------------------------------------------------- CSV, TSV


def as_csv(rows: list[list[str]], sep: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=sep, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue().encode()


cells = st.one_of(any_text, st.sampled_from(LABELS))
whole_csv = st.builds(
    lambda rows, sep, end, quoting: as_csv([["text", "label"], *rows], sep, end, quoting),
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from(",,,\t;|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
csv_options = st.one_of(
    st.just({}),
    st.just({}),
    st.just({}),
    st.sampled_from(
        [
            {"sep": "\t"},
            {"sep": ";"},
            {"sep": "||"},
            {"sep": "\\s+"},
            {"sep": "\t", "quoting": 3},
            {"delimiter": "|"},
            {"header": None, "names": ["text", "label"]},
            {"header": 3},
            {"names": ["text"]},
            {"names": ["text", "text"]},
            {"skiprows": 2},
            {"encoding": "latin-1"},
            {"encoding": "utf-16"},
            {"encoding": "idna"},
            {"quotechar": "'"},
            {"quotechar": ""},
            {"escapechar": "\\"},
            {"keep_default_na": False},
            {"usecols": ["text", "label"]},
            {"usecols": ["label"]},
            {"index_col": 0},
            {"column_names": ["label"]},
            {"dtype": "str"},
            {"chunksize": 0},
            {"chunksize": 1},
            {"on_bad_lines": "skip"},
            {"comment": "#"},
            {"thousands": ","},
            {"lineterminator": "\r"},
            {"nrows": 1},
        ]
    ),
)


@law("CSV", st.tuples(nearly(whole_csv), st.one_of(st.none(), nearly(whole_csv)), csv_options), few=25)
def any_csv(example: tuple[bytes, bytes | None, dict[str, Any]], folder: Path) -> None:
    """Any bytes are read as CSV, or refused by name; also two files for two splits."""
    first, second, options = example
    files = {"train": folder / "one.csv"}
    files["train"].write_bytes(first)
    if second is not None:
        files["test"] = folder / "two.csv"
        files["test"].write_bytes(second)
    read_or_refuse(task_of("csv", {split: str(file) for split, file in files.items()}, options), *files.values())


def table(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows with columns of one kind each."""
    kinds = {"text": texts, "count": INT64, "share": st.floats(allow_nan=False, allow_infinity=False)}
    return st.lists(st.fixed_dictionaries(kinds), min_size=1, max_size=6)


@law(
    "CSV",
    st.tuples(
        table(any_text.filter(lambda text: "\x00" not in text)),
        st.sampled_from(",\t;|"),
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ),
)
def csv_read_back(example: tuple[list[dict[str, Any]], str, str, bool, str], folder: Path) -> None:
    """What Python's csv module writes is read back: texts, whole numbers, floats; an empty cell is no text."""
    rows, sep, end, everything, encoding = example
    rows = [{**row, "text": f"t {row['text']}" if number == 0 else row["text"]} for number, row in enumerate(rows)]
    lines = [["text", "count", "share"], *([row["text"], str(row["count"]), repr(row["share"])] for row in rows)]
    data = as_csv(lines, sep, end, csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL)
    assume(everything or "\r" not in data.decode().replace(end, ""))  # Python leaves a lone one without quotes
    (folder / "a.csv").write_bytes(data.decode().encode(encoding))
    options = {"sep": sep, "encoding": encoding, "keep_default_na": False, "na_values": [""]}
    expected = [{**row, "text": row["text"] or None} for row in rows]
    assert_read_back(task_of("csv", str(folder / "a.csv"), options), expected)


# -------------------------------------------------------------------------------------------------------------- JSON

whole_rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({"text": any_text, "label": st.sampled_from(LABELS)}),
        st.fixed_dictionaries({"text": any_text, "label": st.sampled_from(LABELS), "more": clean_values}),
        st.fixed_dictionaries({"text": clean_values, "label": clean_values}),
        st.dictionaries(st.one_of(st.sampled_from(["text", "label"]), any_text), json_values, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


def as_json(rows: list[Any], way: int) -> bytes:
    if way == 0:
        return "\n".join(map(json.dumps, rows)).encode()
    if way == 1:
        return json.dumps(rows).encode()
    if way == 2:
        return json.dumps({"version": 1, "data": rows}, indent=1).encode()
    if way == 3:
        columns = {key: [row.get(key) for row in rows] for row in rows for key in row}
        return json.dumps(columns).encode()
    return b"\r\n".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") for row in rows) + b"\r\n"


whole_json = st.builds(as_json, whole_rows, st.integers(0, 4))
json_options = st.sampled_from(
    [{}, {}, {}, {"field": "data"}, {"field": "dat"}, {"field": ""}, {"encoding": "utf-16"}, {"chunksize": 1},
     {"chunksize": 0}, {"block_size": 1}, {"newlines_in_values": True}, {"encoding_errors": "ignore"}]
)  # fmt: skip


@law("JSON", st.tuples(nearly(whole_json), st.one_of(st.none(), nearly(whole_json)), json_options), few=25)
def any_json(example: tuple[bytes, bytes | None, dict[str, Any]], folder: Path) -> None:
    """Any bytes are read as JSON, a row a line or one list, or refused by name; also two files of one split."""
    first, second, options = example
    files = [folder / "one.jsonl"]
    files[0].write_bytes(first)
    if second is not None:
        files.append(folder / "two.json")
        files[1].write_bytes(second)
    read_or_refuse(task_of("json", [str(file) for file in files], options), *files)


_DATE = re.compile(r"\s*\d{4}-\d{2}-\d{2}")  # pyarrow takes columns of nothing but dates for times
cell_kinds = st.sampled_from(
    [
        any_text,
        INT64,
        st.floats(-1e6, 1e6),
        st.booleans(),
        st.lists(any_text, min_size=1, max_size=3),
        st.lists(INT64, min_size=1, max_size=3),
        st.fixed_dictionaries({"a": any_text, "b": INT64}),
        st.sampled_from(TRICKY),
    ]
)


def _is_dates(rows: list[dict[str, Any]], name: str) -> bool:
    cells = [row[name] for row in rows if row[name] is not None]
    flat = [part for cell in cells for part in (cell if isinstance(cell, list) else [cell])]
    flat = [part["a"] if isinstance(part, dict) else part for part in flat]
    return all(isinstance(part, str) and _DATE.match(part) for part in flat)


@st.composite
def json_table(draw: Any) -> list[dict[str, Any]]:
    kinds = {name: draw(cell_kinds) for name in draw(st.lists(plain, min_size=1, max_size=3, unique=True))}
    nothing = draw(st.booleans())
    cells = {name: st.one_of(kind, st.none()) if nothing else kind for name, kind in kinds.items()}
    rows = draw(st.lists(st.fixed_dictionaries(cells), max_size=4))
    whole = {name: draw(kind) for name, kind in kinds.items()}  # else nothing says of what kind a column is
    made = [whole, *rows]
    assume(not any(_is_dates(made, name) for name in kinds))
    return made


LONG = [{"a": 2**53 + 1, "b": 0.12345678901234567}, {"a": None, "b": 1e-300}]
LOGS = [{"type": "user", "message": {"a": 1}}, {"type": "user", "message": {"a": 2}}]  # as agents write them
SESSION = [{"id": "1", "source": "s", "model": "m", "system_prompt": "p", "messages": ["a"]}]


@law(
    "JSON",
    st.tuples(json_table(), st.integers(0, 2), st.booleans(), st.booleans()),
    few=25,
    pinned=[
        ([{"a": False}], 2, False, True),
        (SESSION, 0, False, False),
        (LOGS, 0, False, False),
        (LONG, 2, True, False),
    ],
)
def json_read_back(example: tuple[list[dict[str, Any]], int, bool, bool], folder: Path) -> None:
    """Rows with one kind of values in each column are read back, from lines, a list or under a key."""
    rows, way, ascii_only, mark = example
    dumped = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    text = {0: "\n".join(dumped), 1: f"[{', '.join(dumped)}]", 2: f'{{"data": [{", ".join(dumped)}]}}'}[way]
    (folder / "a.json").write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    assert_read_back(task_of("json", str(folder / "a.json"), {"field": "data"} if way == 2 else {}), rows)


# ----------------------------------------------------------------------------------------------------------- parquet


def as_parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    out = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue().to_pybytes()


parquet_rows = st.lists(
    st.fixed_dictionaries({"text": any_text, "label": st.sampled_from(LABELS), "more": st.lists(INT64, max_size=2)}),
    min_size=1,
    max_size=5,
)
parquet_options = st.sampled_from(
    [{}, {"compression": "none"}, {"use_dictionary": False}, {"compression": "zstd", "data_page_version": "2.0"},
     {"row_group_size": 1}, {"write_page_checksum": True}, {"use_dictionary": False, "compression": "none"}]
)  # fmt: skip
whole_parquet = st.builds(lambda rows, options: as_parquet(rows, **options), parquet_rows, parquet_options)


@law("parquet", edited_bytes(whole_parquet))
def any_parquet(data: bytes, folder: Path) -> None:
    """Any bytes are read as parquet, or refused by name."""
    (folder / "a.parquet").write_bytes(data)
    read_or_refuse(task_of("parquet", str(folder / "a.parquet")), folder / "a.parquet")


@law("parquet", st.tuples(parquet_rows, parquet_options), few=10)
def parquet_read_back(example: tuple[list[dict[str, Any]], dict[str, Any]], folder: Path) -> None:
    """Rows that pyarrow writes are read back."""
    rows, options = example
    (folder / "a.parquet").write_bytes(as_parquet(rows, **options))
    assert_read_back(task_of("parquet", str(folder / "a.parquet")), rows)
