"""Which columns of own data are read and which is predicted: as said, or the only ones that can be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.owndata.looks import Look
from nlp_mtl.template import Template

_WORD_NAMES = ("tokens", "words")
_LABEL_NAMES = ("label", "labels", "target", "class", "category", "tag", "tags", "ner_tags", "pos_tags", "intent", "y")
_PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("query", "passage"),
)


@dataclass
class Columns:
    """The columns of a task.

    Attributes:
        inputs: the columns read; empty if that could not be told.
        target: the column predicted; None if that could not be told or is not needed.
        notes: how they were chosen, in plain sentences.
        mistakes: what could not be told.
    """

    inputs: list[str] = field(default_factory=list)
    target: str | None = None
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def choose_columns(
    looks: Mapping[str, Look],
    *,
    text: str | Sequence[str] | None,
    label: str | None,
    template: str | None,
    hints: tuple[str | None, str | None] = (None, None),
    needs_label: bool = True,
    several: bool = False,
) -> Columns:
    """The columns that are said or, where nothing is said, that alone can be meant.

    Args:
        looks: what each column looks like.
        text, label, template: what is said, as for :meth:`nlp_mtl.taskfile.Task.from_data`.
        hints: the text and label columns of the file format.
        needs_label: whether the head predicts a column.
        several: whether the head is given, and may read more than two columns.
    """
    found = Columns()
    given = [text] if isinstance(text, str) else list(text or [])
    if template is not None:
        if given:
            found.mistakes.append("text: a template says which columns are read; give `text` or `template`, not both")
        try:
            given = Template(template).columns
            found.notes.append(f"text: the template joins {', '.join(given)}")
        except ConfigError as error:
            found.mistakes += error.mistakes
            given = []
    elif len(given) > 2 and not several:
        found.mistakes.append(
            f"text: one column is read, or two as a pair, found {len(given)} ({', '.join(given)}); a template joins "
            "more: template='{a} {b}: {c}' (--template)"
        )
    if len(set(given)) < len(given):
        found.mistakes.append(f"text: each column once, found {', '.join(given)}")
    _check_known(given, "template" if template is not None else "text", looks, found)
    if label is not None:
        _check_known([label], "label", looks, found)
        if label in given:
            found.mistakes.append(f"label: {label!r} is read and predicted at once; name two different columns")
        found.target = label
    elif needs_label:
        found.target = _label(looks, given, hints[1], found)
    if text is not None or template is not None:
        found.inputs = given
    else:
        of_label, found.notes = found.notes, []
        found.inputs = _text(looks, found.target, hints[0], found)
        found.notes += of_label
    return found


def _check_known(names: Sequence[str], argument: str, looks: Mapping[str, Look], found: Columns) -> None:
    for name in names:
        if name not in looks:
            have = f"; the data has {', '.join(looks)}" if "did you mean" in suggestion(name, looks) else ""
            found.mistakes.append(f"{argument}: no column {name!r}{suggestion(name, looks)}{have}")


def _label(looks: Mapping[str, Look], inputs: Sequence[str], hint: str | None, found: Columns) -> str | None:
    if hint in looks and hint not in inputs:
        return hint
    rest = {name: look for name, look in looks.items() if name not in inputs and name.lower() not in _WORD_NAMES}
    might = {name: look for name, look in rest.items() if look.is_label}
    named = [name for name in might if name.lower() in _LABEL_NAMES]
    if len(might) == 1:
        (name,) = might
        found.notes.append(f"label: {name!r} is the only column that could be predicted ({looks[name].said()})")
        return name
    if len(named) == 1:
        others = ", ".join(f"{name!r} ({might[name].said()})" for name in might if name != named[0])
        found.notes.append(f"label: {named[0]!r} by its name; {others} could be meant too (`label`, --label COL)")
        return named[0]
    found.mistakes.append(_ask("label", "could be predicted", might, looks) + _one_per_label(might))
    return None


def _one_per_label(might: Mapping[str, Look]) -> str:
    """The way out where each label has a column of its own that says whether it holds."""
    flags = [name for name, one in might.items() if one.distinct <= 2 and one.kind in ("classes", "whole")]
    if len(flags) < 2:
        return ""
    columns = ", ".join(flags)
    return (
        f"; or, if each says whether one label holds (0 or 1), make one list of them: prepare={{name: labels_at_least, "
        f"columns: [{columns}]}} with label='labels' (--label labels 'prepare={{name: labels_at_least, columns: "
        f"[{columns}]}}')"
    )


def _text(looks: Mapping[str, Look], target: str | None, hint: str | None, found: Columns) -> list[str]:
    if hint in looks and hint != target:
        return [str(hint)]
    known = {name.lower(): name for name in looks}
    for pair in _PAIRS:
        names = [known[name] for name in pair if name in known]
        if len(names) == 2 and target not in names:
            found.notes.append(f"text: {names[0]!r} and {names[1]!r} are the names of a pair")
            return names
    lists = {name: look for name, look in looks.items() if name != target and look.kind == "words"}
    words = [name for name in lists if name.lower() in _WORD_NAMES]
    might = {name: look for name, look in looks.items() if name != target and look.is_text}
    if not might and target is not None and target in looks and looks[target].kind in ("words", "numbers"):
        might = lists
    chosen = words if len(words) == 1 else list(might) if len(might) == 1 else []
    if chosen:
        why = "by its name" if words else "is the only column that looks like text"
        found.notes.append(f"text: {chosen[0]!r} {why} ({looks[chosen[0]].said().removeprefix('text, ')})")
        return chosen
    if target is not None or not found.mistakes or might:  # else nothing is known of any column, which is said once
        found.mistakes.append(_ask("text", "looks like text", might, looks))
    return []


def _ask(argument: str, what: str, might: Mapping[str, Look], looks: Mapping[str, Look]) -> str:
    """A message that names the candidates and the argument to give."""
    said = "; ".join(f"{name!r} ({look.said()})" for name, look in (might or looks).items())
    option = "`text` (--text COL), two for a pair (--text COL COL)" if argument == "text" else "`label` (--label COL)"
    if not might:
        return f"{argument}: no column {what}; the data has {said or 'none'}; name it with {option}"
    verb = "look like text" if argument == "text" else what
    return f"{argument}: several columns {verb}: {said}; name the one meant with {option}"
