"""Laws of files that hold lines: CoNLL, lines of text, folders of texts; and of own data in any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from nlp_mtl.files import local_files
from nlp_mtl.taskfile import Task
from tests.fuzz.law import law, ours
from tests.fuzz.tables import (
    LABELS,
    OPTIONS,
    as_csv,
    as_json,
    read_or_refuse,
    task_of,
    whole_csv,
    whole_json,
    whole_parquet,
)
from tests.fuzz.values import TRICKY, any_text, edited, edited_bytes, nearly, plain, scalars, values

COLUMNS = {2: ["tokens", "tags"], 3: ["tokens", "pos", "tags"], 4: ["tokens", "pos", "chunk", "tags"]}
_ENDS = ("\r", "\n")  # of lines, for whatever reads texts


def is_field(separator: str | None) -> Any:
    """Whether a text can stand as a field: it holds no separator and no end of line."""

    def told(text: str) -> bool:
        whole = text.split() == [text] if separator is None else bool(text.strip()) and separator not in text
        return whole and not any(end in text for end in _ENDS) and not text.startswith(("-DOCSTART-", "\ufeff"))

    return told


@st.composite
def sentences(draw: Any, separator: str | None, width: int) -> list[list[list[str]]]:
    field = st.one_of(any_text, plain).filter(is_field(separator))
    line = st.lists(field, min_size=width, max_size=width)
    return draw(st.lists(st.lists(line, min_size=1, max_size=4), min_size=1, max_size=4))


@st.composite
def conll(draw: Any) -> tuple[list[list[list[str]]], int, str | None, str]:
    """Sentences, their number of columns, the separator, and the text that holds them."""
    width, separator = draw(st.integers(2, 4)), draw(st.sampled_from([None, "\t", " ", "|"]))
    given = draw(sentences(separator, width))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    parts = draw(st.sampled_from(["", "-DOCSTART- -X- O O" + end + end, end, " \t" + end]))
    between = separator or draw(st.sampled_from([" ", "\t", "  "]))
    text = (end + parts).join("".join(between.join(line) + end for line in sentence) for sentence in given)
    return given, width, separator, draw(st.sampled_from(["", "\ufeff"])) + parts + text


conll_options = st.sampled_from(
    [{}, {}, {"columns": COLUMNS[3]}, {"columns": COLUMNS[4]}, {"separator": "\t"}, {"separator": " "}, {"columns": []},
     {"columns": ["text", "label"]}, {"columns": ["tokens", "tokens"]}, {"separator": ""}, {"encoding": "latin-1"}]
)  # fmt: skip


fitting = conll().flatmap(
    lambda made: st.tuples(
        nearly(st.just(made[3].encode())), st.just({"columns": COLUMNS[made[1]], "separator": made[2]})
    )
)


@law(
    "CoNLL",
    st.one_of(fitting, st.tuples(nearly(conll().map(lambda made: made[3].encode())), conll_options)),
    few=30,
)
def any_conll(example: tuple[bytes, dict[str, Any]], folder: Path) -> None:
    """Any bytes are read as CoNLL, or refused by name."""
    data, options = example
    (folder / "a.conll").write_bytes(data)
    task = task_of("conll", str(folder / "a.conll"), options, inputs=["tokens"], target="tags")
    read = ours(lambda: local_files(task, task.dataset, None), "a.conll", *OPTIONS)
    for rows in (read or {}).values():
        assert all(len({len(column) for column in row.values()}) == 1 for row in rows), "a field for each token"


@law("CoNLL", conll(), few=30)
def conll_read_back(example: tuple[list[list[list[str]]], int, str | None, str], folder: Path) -> None:
    """Sentences with 2, 3 or 4 columns are read back, whatever stands between them."""
    given, width, separator, text = example
    (folder / "a.conll").write_bytes(text.encode())
    task = task_of("conll", str(folder / "a.conll"), {"columns": COLUMNS[width], "separator": separator})
    rows = local_files(task, task.dataset, None)["train"]
    read = [[list(line) for line in zip(*(row[name] for name in COLUMNS[width]), strict=True)] for row in rows]
    assert read == given


@law("text", nearly(st.lists(any_text, max_size=5).map(lambda lines: "\n".join(lines).encode())))
def any_lines(data: bytes, folder: Path) -> None:
    """Any bytes are read as lines of text, none of them blank, or refused by name."""
    (folder / "a.txt").write_bytes(data)
    task = task_of("text", str(folder / "a.txt"), inputs=["line"], target=None, head="masked_lm")
    read = ours(lambda: local_files(task, task.dataset, None), "a.txt", *OPTIONS)
    if read is not None:
        assert all(line.strip() for line in read["train"]["line"])


# ----------------------------------------------------------------------------------------------------------- folders

names = st.text(st.sampled_from("abcÄß漢 _-.1"), min_size=1, max_size=6).filter(
    lambda name: not name.startswith(".") and name.strip() == name
)


folder_options = st.sampled_from(
    [{"pattern": "*.txt"}, {"pattern": "**"}, {"pattern": ""}, {"labels": ["a"]}, {"labels": []}, {"encoding": "ascii"}]
)


@law(
    "folders",
    st.tuples(
        st.dictionaries(
            names, st.dictionaries(names, nearly(any_text.map(str.encode)), min_size=1, max_size=3), max_size=3
        ),
        st.one_of(st.just({}), st.just({}), folder_options),
    ),
)
def any_folders(example: tuple[dict[str, dict[str, bytes]], dict[str, Any]], folder: Path) -> None:
    """Sub-folders of files with any bytes are read, or refused by name."""
    given, options = example
    place = folder / "texts"
    place.mkdir()
    for label, files in given.items():
        (place / label).mkdir()
        for name, data in files.items():
            (place / label / name).write_bytes(data)
    read_or_refuse(task_of("folders", str(place), options), place)


@law(
    "folders", st.dictionaries(names, st.dictionaries(names, any_text, min_size=1, max_size=3), min_size=1, max_size=3)
)
def folders_read_back(given: dict[str, dict[str, str]], folder: Path) -> None:
    """A text per file is read back with its sub-folder's name, in the order of the names."""
    place = folder / "texts"
    for label, files in given.items():
        (place / label).mkdir(parents=True)
        for name, text in files.items():
            (place / label / name).write_bytes(text.encode())
    task = task_of("folders", str(place))
    read = [(row["label"], row["file"], row["text"]) for row in local_files(task, task.dataset, None)["train"]]
    plainly = lambda text: text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()  # noqa: E731
    expected = [(label, f"{label}/{name}", plainly(text)) for label in given for name, text in given[label].items()]
    assert sorted(read) == sorted(expected)


# ---------------------------------------------------------------------------------------------------------- own data


@st.composite
def many_rows(draw: Any) -> list[dict[str, Any]]:
    """Rows enough for splits, with a few columns of one kind each and a few cells changed."""
    count, labels = draw(st.integers(5, 40)), draw(st.lists(any_text, min_size=1, max_size=4, unique=True))
    kinds: dict[str, Any] = {
        "text": lambda n: f"the text number {n} of all",
        "other": lambda n: f"something else {n % 7}",
        "label": lambda n: labels[n % len(labels)],
        "number": lambda n: n % 5,
        "share": lambda n: n / 7,
        "yes": lambda n: n % 3 == 0,
        "words": lambda n: ["a", "b", f"w{n}"],
        "tags": lambda n: ["O", "B-X", "I-X"],
        "many": lambda n: labels[: n % 3],
        "nothing": lambda n: None,
    }
    first = draw(st.sampled_from([["text", "label"], ["text"], ["words", "tags"], ["text", "many"], []]))
    more = st.lists(st.sampled_from(list(kinds)), min_size=not first, max_size=3, unique=True)
    names = list(dict.fromkeys([*first, *draw(more)]))
    rows: list[dict[str, Any]] = [{name: kinds[name](n) for name in names} for n in range(count)]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from(names))] = draw(st.one_of(scalars, st.sampled_from(TRICKY)))
    return rows


def as_table(rows: list[dict[str, Any]]) -> bytes:
    return as_csv([list(rows[0]), *([str("" if cell is None else cell) for cell in row.values()] for row in rows)])


def as_sentences(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join("\n".join(f"w{n} {n % 2} {t}" for n, t in enumerate("O B-X I-X".split())) for _ in rows).encode()


own_files = st.one_of(
    st.tuples(st.sampled_from(["a.csv", "a.csv", "a.tsv", "a"]), edited(many_rows().map(as_table))),
    st.tuples(st.sampled_from(["a.jsonl", "a.json"]), edited(st.builds(as_json, many_rows(), st.integers(0, 4)))),
    st.tuples(st.sampled_from(["a.conll", "a.txt", "a.iob2"]), edited(many_rows().map(as_sentences))),
    st.tuples(st.sampled_from(["a.csv", "a.tsv", "a.txt", "a", "a.psv"]), edited(whole_csv)),
    st.tuples(st.sampled_from(["a.jsonl", "a.json", "a"]), edited(whole_json)),
    st.tuples(st.sampled_from(["a.conll", "a.txt", "a.iob2"]), edited(conll().map(lambda made: made[3].encode()))),
    st.tuples(st.just("a.parquet"), edited_bytes(whole_parquet)),
    st.tuples(st.sampled_from(["a.csv", "a.json", "a.conll", "a.parquet", "a", "a.xlsx"]), st.binary(max_size=60)),
)


def assert_whole(task: Task | None) -> None:
    if task is not None:
        assert task.inputs
        assert task.inferred


said = st.one_of(
    st.just({}),
    st.just({}),
    st.sampled_from([{"text": "text"}, {"text": "text", "label": "label"}, {"label": "number"}, {"label": "many"}]),
    st.sampled_from([{"text": "text", "label": name} for name in ("label", "share", "yes", "many", "tags", "other")]),
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.one_of(st.sampled_from(["text", "tokens", ["text", "label"]]), any_text),
            "label": st.one_of(st.sampled_from(["label", "tags"]), any_text),
            "template": st.one_of(st.sampled_from(["{text}", "{text} {label:-none}", "{", "{text"]), any_text),
            "head": st.one_of(
                st.sampled_from(["regression", "multi_label", "masked_lm", "token_classification", {"name": "x"}]),
                any_text,
            ),
            "labels": st.one_of(st.just(LABELS), st.lists(any_text, max_size=3), st.just({"x": "one", "y": "two"})),
            "columns": st.sampled_from([["text", "label"], ["text", "pos", "label"], []]),
            "options": st.sampled_from([{"sep": "\t"}, {"encoding": "latin-1"}, {"field": "data"}, {"a": 1}]),
            "splits": st.sampled_from([{"validation": 0.2}, {"test": "train"}, {"validation": None}]),
            "prepare": st.sampled_from(["drop_empty", {"name": "drop_empty", "columns": ["text"]}, "x"]),
        },
    ),
)


@law(
    "own data",
    st.tuples(own_files, said),
    few=15,
    pinned=[
        (("we*[1]?.csv", b"text,label\na b,01\nc d,1\ne f,01\ng h,1\n"), {}),
        (("a.csv", b"a b c,good\nd e f,bad\ng h i,good\nj k l,bad\n"), {}),
        (("a.csv", b"text,label\na b c,good\ntext,label\nd e f,bad\n"), {"label": "label"}),
        (("a.csv", b"text,label\na b c,good\n"), {"options": {"dtype": {"lable": "str"}}}),
    ],
)
def any_own_file(example: tuple[tuple[str, bytes], dict[str, Any]], folder: Path) -> None:
    """Of any file, with any arguments, a task is made, or they are refused with a message."""
    (name, data), more = example
    (folder / name).write_bytes(data)
    assert_whole(ours(lambda: Task.from_data("spam", folder / name, **more)))


few_rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({"text": plain, "label": st.sampled_from(LABELS)}),
        st.fixed_dictionaries({"text": scalars, "label": scalars}),
        st.dictionaries(st.one_of(st.sampled_from(["text", "label"]), any_text), values, max_size=3),
    ),
    max_size=6,
)
own_rows = st.one_of(many_rows(), many_rows(), few_rows)


@law(
    "own data",
    st.tuples(own_rows, said),
    few=15,
    pinned=[
        ([{"": None, "\x00": None}], {}),
        ([{"\ud800": "a"}], {}),
        ([{"text": "a", "label": "\udfff"}], {}),
        ([{"text": None, "label": 2**63}], {}),
        *(
            ([{"text": f"text {n}", "label": n % 2} for n in range(9)], wrong)
            for wrong in (
                {"label": ["label"]},
                {"text": 3},
                {"template": 3},
                {"head": 3},
                {"metrics": 3},
                {"metrics": "accuracy"},
                {"prepare": 3},
                {"labels": {"no", "yes"}},
            )
        ),
    ],
)
def any_own_rows(example: tuple[list[dict[str, Any]], dict[str, Any]], folder: Path) -> None:
    """Of any rows in memory, with any arguments, a task is made, or they are refused with a message."""
    rows, more = example
    assert_whole(ours(lambda: Task.from_data("spam", rows, **more)))


@law(
    "own data",
    st.lists(st.tuples(plain, st.sampled_from(LABELS)), min_size=8, max_size=30, unique_by=lambda row: row[0]),
    few=8,
)
def own_rows_are_kept(given: list[tuple[str, str]], folder: Path) -> None:
    """Where a task is made of different texts with labels, each row stands in one split, as it was."""
    from nlp_mtl.sources import load_rows

    rows = [{"text": f"the text is {text}", "label": label} for text, label in given]
    task = ours(lambda: Task.from_data("spam", rows, text="text", label="label"))
    if task is None:
        assert len({label for _, label in given}) == 1, "rows of several labels make a task"
        return
    read = [row for split in load_rows(task).values() for row in split.to_list()]
    key = lambda row: (row["text"], row["label"])  # noqa: E731
    assert sorted(read, key=key) == sorted(rows, key=key)
