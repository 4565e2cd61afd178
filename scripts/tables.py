"""Write the generated tables into README.md and task_registry/README.md; `--check` only says whether they are current.

python scripts/tables.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from nlp_mtl.arguments import TRAINING_DEFAULTS
from nlp_mtl.config import key_table
from nlp_mtl.registry import not_built
from nlp_mtl.tasks import task_registry

ROOT = Path(__file__).resolve().parent.parent


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def keys() -> str:
    rows = [(f"`{name}`", "" if default == "—" else default, meaning) for name, default, meaning in key_table()]
    said = ", ".join(
        f"`{key}: {str(value).lower() if isinstance(value, bool) else value}`"
        for key, value in TRAINING_DEFAULTS.items()
    )
    return (
        markdown(("key", "default", "what it says"), rows)
        + f"\n\nWhere `training` is silent, a run file means {said}; else what TrainingArguments means."
    )


def tasks() -> str:
    rows = []
    for task in sorted(task_registry().tasks.values(), key=lambda task: (str(task.file.parent.name), task.name)):
        data = f"package {task.dataset.package}" if task.dataset.package else task.dataset.path
        config = f" ({task.dataset.name})" if task.dataset.name else ""
        labels = str(len(task.labels)) if task.labels else ""
        planned = bool(not_built(task.head_name))
        metrics = ", ".join(task.metrics or []) or ("with the head" if planned else "the head's")
        rows.append(
            (
                f"[{task.name}]({task.file.parent.name}/{task.file.name})",
                task.description,
                f"{task.head_name} (not built yet)" if planned else task.head_name,
                data + config,
                labels,
                metrics,
                " ".join(task.tags),
            )
        )
    return markdown(("task", "what it asks", "head", "data", "labels", "metrics", "tags"), rows)


def sharings() -> str:
    """What goes together with which sharing, found by trying on tiny models."""
    sys.path.insert(0, str(ROOT))
    from tests.contracts.support import COLUMNS, forms, support

    rows = []
    for name, form in forms().items():
        found = support(form)
        rows.append((name if "`" in name else f"`{name}`", *(found[column] for column in COLUMNS)))
    return markdown(("sharing", *COLUMNS), rows)


def insert(file: Path, name: str, table: str, check: bool) -> bool:
    text = file.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}: made by scripts/tables.py -->\n).*?(<!-- /{name} -->)", re.S)
    if not pattern.search(text):
        raise SystemExit(f"{file} has no place for the table {name!r}")
    new = pattern.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text)
    if new != text and not check:
        file.write_text(new, encoding="utf-8")
    return new == text


def main() -> int:
    check = "--check" in sys.argv
    current = [
        insert(ROOT / "README.md", "keys", keys(), check),
        insert(ROOT / "README.md", "sharings", sharings(), check),
        insert(ROOT / "task_registry" / "README.md", "tasks", tasks(), check),
    ]
    if check and not all(current):
        print("a generated table is out of date: python scripts/tables.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
