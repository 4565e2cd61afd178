"""What can go wrong, one class per place where the way out differs.

Every message names the parameter, the rule, what was found, and the way out. Mistakes of one file are reported
together (:class:`ConfigError` takes a list), so that nobody fixes a file one run at a time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NlpMtlError(Exception):
    """Base of every error this package raises on purpose; the CLI prints these without a traceback."""


class ConfigError(NlpMtlError, ValueError):
    """One or more mistakes in a run file, a task file or an argument.

    Args:
        mistakes: one message per mistake; each may begin with ``file:line:``.

    Example:
        >>> print(ConfigError(["a.yaml:3: `r` must be positive, found 0", "a.yaml:5: unknown key 'taks'"]))
        2 mistakes:
          a.yaml:3: `r` must be positive, found 0
          a.yaml:5: unknown key 'taks'
    """

    def __init__(self, mistakes: str | Sequence[str]):
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        if len(self.mistakes) == 1:
            message = self.mistakes[0]
        else:
            message = "\n  ".join([f"{len(self.mistakes)} mistakes:", *self.mistakes])
        super().__init__(message)


class UnknownNameError(ConfigError, LookupError):
    """A name that is not in a registry; the message suggests near ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", why: str = ""):
        self.kind, self.name = kind, name
        known = sorted(known)
        super().__init__(f"{where}unknown {kind} {name!r}{f'; {why}' if why else suggestion(name, known)}")


class DataError(NlpMtlError, ValueError):
    """Data that can't be trained on: names task, split and row. Raised before the first step."""


class NotFoundError(NlpMtlError, LookupError):
    """A data set, model or package that was not found; lists what was tried, in order, and the ways out."""

    def __init__(self, what: str, tried: Sequence[str], ways_out: Sequence[str]):
        lines = [f"{what} was not found. Tried, in order:"]
        lines += [f"  {number}. {attempt}" for number, attempt in enumerate(tried, 1)]
        lines += ["Ways out:", *(f"  - {way}" for way in ways_out)]
        super().__init__("\n".join(lines))


class RunFolderError(NlpMtlError, ValueError):
    """A run folder that can't be used as asked: damaged, of another model, or already holding a run."""


class TrainingError(NlpMtlError, RuntimeError):
    """Training that can't go on, e.g. a loss that is not a number; names task and step."""


class HubError(NlpMtlError, RuntimeError):
    """The Hub refused, or can't be reached; says what was asked, what is whole, and the way out."""


class UnsupportedError(NlpMtlError, ValueError):
    """A combination that would silently be wrong, refused with the reason and the way out."""


def pip_install(extra: str) -> str:
    """The command that installs what a feature needs and most runs do not, an extra of pyproject.toml.

    Example:
        >>> pip_install("gguf")
        "pip install 'nlp_mtl[gguf]'"
    """
    return f"pip install 'nlp_mtl[{extra}]'"


def suggestion(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """The tail of an "unknown name" message: near names, or all of them when they are few.

    Example:
        >>> suggestion("temprature", ["temperature", "uniform"])
        "; did you mean 'temperature'?"
        >>> suggestion("x", ["a", "b"])
        '; known: a, b'
    """
    known = list(known)
    if said := near(name, known, most=most):
        return said
    if not known:
        return "; none is known"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"; known: {shown}"


def near(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """The tail of a message that asks whether another name was meant; empty if none is near.

    Example:
        >>> near("temprature", ["temperature", "uniform"]), near("x", ["uniform"])
        ("; did you mean 'temperature'?", '')
    """
    found = difflib.get_close_matches(str(name), list(known), n=most, cutoff=0.6)
    return "; did you mean " + " or ".join(repr(n) for n in found) + "?" if found else ""


def shown(value: object, *, most: int = 80) -> str:
    """A value for a message, cut if it is long.

    Example:
        >>> shown("x" * 100, most=10), shown([1])
        ("'xxxxxxxxx…", '[1]')
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
