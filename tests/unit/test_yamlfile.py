"""YAML with the types people expect, the line of every value, and mistakes that name file and line."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nlp_mtl.errors import ConfigError
from nlp_mtl.yamlfile import line_of, load, loads

quick = settings(max_examples=100, deadline=None)


class Writer(yaml.SafeDumper):
    """Quotes every text."""


Writer.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(nested)
def test_what_is_written_is_read_back(data):
    read, _ = loads(yaml.dump(data, Dumper=Writer, sort_keys=False))
    assert read == data
    assert repr(read) == repr(data), "with its types: 1, 1.0 and True are three things"


@quick
@given(nested)
def test_pyyamls_own_output_is_read_back_where_yaml_1_1_and_1_2_agree(data):
    def texts(value):
        if isinstance(value, dict):
            return [t for pair in value.items() for part in pair for t in texts(part)]
        if isinstance(value, list):
            return [t for part in value for t in texts(part)]
        return [value] if isinstance(value, str) else []

    # PyYAML writes 1e5 and 0o7 without quotes, which YAML 1.2 reads as numbers
    assume(not any(t[:1] in "+-.0123456789" and set("eEo") & set(t) for t in texts(data) if t))
    read, _ = loads(yaml.safe_dump(data, sort_keys=False))
    assert repr(read) == repr(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("2E4", 2e4),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("3", 3),
        ("-3", -3),
        ("08", 8),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5e-5'", "5e-5"),
    ],
)
def test_numbers_booleans_and_nothing(text, value):
    read, _ = loads(f"key: {text}")
    assert repr(read["key"]) == repr(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "y", "n", "Yes", "NO", "2001-01-01", "12:30", "1_000", "<<", "=", "1e", "e5"]
)
def test_words_and_dates_stay_text(text):
    assert loads(f"labels: [{text}]")[0] == {"labels": [text]}


def test_not_a_number_is_a_float():
    assert math.isnan(loads("a: .nan")[0]["a"])


def test_every_value_has_its_line():
    _, lines = loads("a: 1\nb:\n  c: [x,\n    y]\n  d:\n    - e: 2\n\nf: 3\n")
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 3,
        ("b", "c", 1): 4,
        ("b", "d"): 5,
        ("b", "d", 0): 6,
        ("b", "d", 0, "e"): 6,
        ("f",): 8,
    }
    assert line_of(lines, ("b", "d", 0, "e")) == 6
    assert line_of(lines, ("b", "zzz", "deeper")) == 2, "the nearest key above"
    assert line_of(lines, ("zzz",)) is None
    assert line_of(lines, ()) is None


@quick
@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6))
def test_a_key_stands_once(keys):
    text = "".join(f"{key}: 1\n" for key in keys)
    if len(set(keys)) == len(keys):
        assert list(loads(text)[0]) == keys
        return
    second = next(i for i, key in enumerate(keys) if key in keys[:i])
    first = keys.index(keys[second])
    with pytest.raises(ConfigError) as caught:
        loads(text, "run.yaml")
    assert (
        str(caught.value)
        == f"run.yaml:{second + 1}: the key {keys[second]!r} stands twice, first at line {first + 1}; drop one"
    )


def test_a_key_may_stand_again_in_another_mapping():
    assert loads("a: {x: 1}\nb: {x: 2}")[0] == {"a": {"x": 1}, "b": {"x": 2}}
    with pytest.raises(ConfigError, match="<text>:3: the key 'x' stands twice, first at line 2"):
        loads("a:\n  x: 1\n  x: 2")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: 1\n b: 2\n", 2),
        ("a:\n\tb: 1\n", 2),
        ("a: 'open\n\n", 3),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nb: *nowhere\n", 2),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2),
        ("a: 1\n? [b]\n: 2\n", 2),
        ("a: 1\nb: 2\nc: \x07\n", 3),
        ("a: &x\n  b: *x\n", 1),
    ],
)
def test_what_is_not_yaml_is_named_with_file_and_line(tmp_path, text, line):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes("a: 1\nb: gr\u00fcn\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: not UTF-8 \(byte 10\); save the file as UTF-8"):
        load(file)


def test_a_mark_before_utf_8_does_no_harm(tmp_path):
    file = tmp_path / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: gr\xc3\xbcn\n")
    assert load(file)[0] == {"a": "grün"}


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder; a YAML file is needed"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment only\n"])
def test_an_empty_file_holds_nothing(tmp_path, text):
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    assert load(file) == (None, {})
