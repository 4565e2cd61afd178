"""``nlp-mtl tasks new``: a task file for your own data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import command

_SEVERAL = ("--text", "--labels", "--columns", "--tag")
_SPLITS = ("train", "validation", "test")


def repeated(words: Sequence[str]) -> list[str]:
    """Words of a command line with ``--text A B`` written as ``--text A --text B``, as the parser takes it.

    A second word behind ``--text`` that names a file is one; ``-1=bad`` is a value and no option.

    Example:
        >>> repeated(["a.csv", "--text", "title", "body", "--label", "y"])
        ['a.csv', '--text', 'title', '--text', 'body', '--label', 'y']
    """
    out: list[str] = []
    option, empty = "", ""  # the one whose words come, and one that got none
    for place, word in enumerate(words):
        starts = word in _SEVERAL or (word.startswith("-") and not word[1:2].isdigit())
        if starts and option and out[-1:] == [option]:
            empty = out.pop()
        if word == "--":
            return [*out, *words[place:]]
        if starts:
            option = word if word in _SEVERAL else ""
            out.append(word)
        elif option and out[-1] == option:
            out.append(word)
        elif option and not (option == "--text" and Path(word).is_file()):
            out += [option, word]
        else:
            out.append(word)
    return [*out, empty] if empty else out  # last, where the parser says that it needs a word


class SeveralWords(TyperCommand):
    """A command whose options ``--text``, ``--labels``, ``--columns`` and ``--tag`` take one word or several."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base class, after :func:`repeated`."""
        return super().parse_args(ctx, repeated(args))


def tasks_new(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE [FILE … | FOLDER] [SPLIT=FILE …] [key=value …]",
            help="CSV, TSV, JSONL, parquet or CoNLL files, a folder of them, or a folder with one sub-folder of texts "
            "per label; files of splits; other keys of the task file.",
            show_default=False,
        ),
    ],
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="COL [COL]", help="Column that is read; two for a pair.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="COL", help="Column that is predicted.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Join columns into the text: '{title} costs {price:-unknown}: {text}'.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task; default that of the file.")] = None,
    head: Annotated[str | None, typer.Option(help="Kind of head, or '{name: …, arguments}'; default inferred.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="NAME … | VALUE=NAME …", help="Label names in order, or names of values."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--columns", metavar="COL …", help="Names of columns no line of the file says.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="For the reader, e.g. encoding=latin-1.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG …", help="Suites it belongs to.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default NAME.yaml here.")] = None,
    examples: Annotated[
        int, typer.Option(help="Put so many rows of the data into the file; with 0 its example rows are made up.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a task file for your own data, and say what was inferred and why."""
    from nlp_mtl.owndata.writing import new_task_file

    mistakes: list[str] = []
    data, more = _data_and_keys(files, mistakes)
    given = {
        "text": text,
        "label": label,
        "template": template,
        "head": _value("--head", head, mistakes) if head is not None and head.startswith("{") else head,
        "labels": _labels(labels, mistakes),
        "options": dict(_pair("--option", word, mistakes) for word in option or []) or None,
        "columns": columns,
        **({"tags": tag} if tag else {}),
        **more,
    }
    if mistakes:
        raise ConfigError(mistakes)
    task = new_task_file(data, name=name, out=out, examples=examples, overwrite=overwrite, **given)
    print(f"{task.name}: inferred")
    for note in task.inferred:
        print(f"  {note}")
    print(f"\nWritten to {task.file}. Next:")
    print(f"  {command('tasks', 'check', str(task.file))}")
    print(f"  {command('train', f'tasks={_as_yaml(str(task.file))}')}")


def _as_yaml(name: str) -> str:
    """A file's name as a value of the command line, which is YAML: in quotes where it would be something else.

    Example:
        >>> _as_yaml("mine.yaml"), _as_yaml("hash #1.yaml")
        ('mine.yaml', '"hash #1.yaml"')
    """
    from nlp_mtl import yamlfile

    try:
        plain = yamlfile.loads(name, "")[0] == name
    except ConfigError:
        plain = False
    return name if plain else json.dumps(name, ensure_ascii=False)


def _data_and_keys(words: Sequence[str], mistakes: list[str]) -> tuple[Any, dict[str, Any]]:
    """The files, by split where that is said, and other keys of the task file."""
    plain: list[str] = []
    by_split: dict[str, list[str]] = {}
    more: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            plain.append(word)
        elif key in _SPLITS:
            by_split.setdefault(key, []).append(value)
        else:
            more[key] = _value(key, value, mistakes)
    if plain and by_split:
        mistakes.append(
            f"files: say of each file which split it is, or of none, found {shlex.join(words)}; "
            "e.g. train=a.csv test=b.csv"
        )
    return by_split or plain, more


def _value(key: str, text: str, mistakes: list[str]) -> Any:
    from nlp_mtl import yamlfile

    try:
        return yamlfile.loads(text, key)[0]
    except ConfigError as error:
        mistakes += error.mistakes
        return None


def _pair(option: str, word: str, mistakes: list[str]) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals:
        mistakes.append(f"{option}: write KEY=VALUE, found {word!r}; e.g. encoding=latin-1")
    return key, _value(f"{option} {key}", value, mistakes)


def _labels(words: Sequence[str] | None, mistakes: list[str]) -> Any:
    """Names in order, or value → name if every word has an equals sign."""
    if not words or not any("=" in word for word in words):
        return words or None
    if not all("=" in word for word in words):
        mistakes.append(
            f"--labels: names, or VALUE=NAME for all values, found both: {shlex.join(words)}; write one kind"
        )
    return {key: name for key, _, name in (word.partition("=") for word in words)}
