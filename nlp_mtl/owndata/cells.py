"""Cells of own CSV files that their reader takes for something else than what stands there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nlp_mtl.labelnames import in_order
from nlp_mtl.owndata.choosing import Columns
from nlp_mtl.owndata.looks import Look, is_blank, look
from nlp_mtl.owndata.naming import few
from nlp_mtl.owndata.opening import OwnData, read_files

if TYPE_CHECKING:
    from datasets import Dataset

NA_OPTIONS = {"keep_default_na", "na_values", "na_filter"}
_OF_WORDS = ("text", "tags", "classes", "ids", "nothing")
_ZERO_FIRST = re.compile(r"0\d+")
_FRACTION = re.compile(r"[-+]?\d*[.]\d+")

Read = tuple[OwnData, dict[str, Look], Columns]


def words_as_words(
    own: OwnData, looks: dict[str, Look], chosen: Columns, choose: Callable[[dict[str, Look]], Columns]
) -> Read:
    """CSV readers take words such as NA, None and null for empty cells; in texts and labels they are words."""
    given = own.spec.get("options", {})
    might = [name for name, one in looks.items() if one.empty and one.kind in _OF_WORDS]
    if own.spec.get("path") != "csv" or NA_OPTIONS & set(given) or not might:
        return own, looks, chosen
    spec = {**own.spec, "options": {**given, "keep_default_na": False, "na_values": [""]}}
    splits = read_files(spec)
    again = {name: look(splits["train"], name) for name in looks}
    # a column of numbers in which NA stands is read as text then; that is no reason to take it for one
    second = choose({name: again[name] if name in might else one for name, one in looks.items()})
    second = chosen if second.mistakes and not chosen.mistakes else second
    used = [name for name in (*second.inputs, second.target) if name in looks]
    ours = [name for name in used if name in might]
    found = _found(own.splits, splits, ours)
    if second.mistakes or not found:
        return own, looks, chosen
    words = f"data: {few(in_order(found))} in {' or '.join(ours)} are read as"
    if numbers := [name for name in used if name not in might and again[name].kind != looks[name].kind]:
        own.notes.append(f"{words} empty, since such words stand for no number in {' and '.join(numbers)}")
        return own, looks, chosen
    said = f"{words} words, not as empty"
    return OwnData(splits, splits, spec, own.hints, [*own.notes, said]), again, second


def _found(before: Mapping[str, Dataset], after: Mapping[str, Dataset], columns: list[str]) -> set[str]:
    """What is a word in the second reading and was nothing in the first."""
    return {
        str(new)
        for split, rows in after.items()
        for name in columns
        if name in rows.column_names
        for old, new in zip(before[split][name][:], rows[name][:], strict=True)
        if old is None and not is_blank(new)
    }


def zeros_kept(
    own: OwnData, looks: dict[str, Look], chosen: Columns, choose: Callable[[dict[str, Look]], Columns]
) -> Read:
    """CSV readers take 01 for the number 1; as labels the two are different names."""
    given, target = own.spec.get("options", {}), chosen.target
    if own.spec.get("path") != "csv" or target not in looks or target in given.get("dtype", {}):
        return own, looks, chosen
    if looks[str(target)].kind not in ("whole", "ids", "number"):
        return own, looks, chosen
    spec: dict[str, Any] = {**own.spec, "options": {**given, "dtype": {**given.get("dtype", {}), str(target): "str"}}}
    splits = read_files(spec)
    cells = (str(cell) for rows in splits.values() if target in rows.column_names for cell in rows[target][:])
    found = {cell for cell in cells if _ZERO_FIRST.fullmatch(cell.strip())}
    if not found:
        return own, looks, chosen
    said = f"data: {few(in_order(found))} in {target} are read as words, since numbers would lose the zero in front"
    again = {**looks, str(target): look(splits["train"], str(target))}
    second = choose(again)  # the same columns, told as what they now look like
    kept = chosen if second.mistakes or second.target != target else second
    return OwnData(splits, splits, spec, own.hints, [*own.notes, said]), again, kept


def row_for_names(own: OwnData, looks: Mapping[str, Look], chosen: Columns) -> str | None:
    """What to say where a CSV file's first line is a row: the label's name then stands among the labels."""
    if own.spec.get("path") != "csv" or {"names", "column_names", "header"} & set(own.spec.get("options", {})):
        return None
    if chosen.target is None and not chosen.mistakes:
        return None
    might = [chosen.target] if chosen.target in looks else [name for name, one in looks.items() if one.is_label]
    rows = own.splits["train"]
    for name in map(str, might):
        places = [place for place, cell in enumerate(rows[name][:]) if str(cell).strip() == name]
        if again := [place for place in places if all(str(cell) == key for key, cell in rows[place].items())]:
            return (
                f"data: the line of names ({', '.join(looks)}) stands again as row {again[0]}, counted from 0 "
                f"({len(again)} in all); take it out of the file"
            )
        if places or (looks[name].kind == "number" and _FRACTION.fullmatch(name)):
            example = "TEXT LABEL" + (" …" if len(looks) > 2 else "")
            return (
                f"data: the first line looks like a row and not like names of columns: {name!r} would be a column, and "
                f"is what cells of that column hold; name the columns, columns=[…] (--columns {example}), or, if it "
                "is a name, give the column another one"
            )
    return None
