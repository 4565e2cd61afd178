"""``nlp-mtl evaluate … --suite``: what the command line shows of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError
from nlp_mtl.screen import one_process, print_table


def evaluate_suite(
    runs: Sequence[Path],
    suite: str,
    *,
    split: str | None,
    task: Sequence[str] | None,
    data_root: Path | None,
    base: str | None,
    json_file: Path | None,
    submission: Path | None,
    fill: bool,
    shots: int | None,
    rows: int | None,
    progress: bool,
) -> None:
    """Score runs on a suite, or write its submission, and show what came of it."""
    from nlp_mtl.suites.tables import suite_named

    one_process("evaluate --suite")
    wrong = []
    if suite == "mmlu":
        if len(runs) > 1 or task or submission is not None or fill:
            wrong.append("evaluate: --suite mmlu takes one model, and no --task, --submission or --fill-missing")
    else:
        chosen = suite_named(suite)
        if shots is not None or rows is not None:
            wrong.append(f"evaluate: --shots and --rows go with --suite mmlu, found --suite {suite}; leave them out")
        wrong += _of_glue(suite, split, task, json_file, submission, fill)
    if json_file is not None and str(json_file) != "-" and not json_file.absolute().parent.is_dir():
        wrong.append(
            f"evaluate: --json is a file to write, found {json_file}: there is no folder {json_file.parent}; make it "
            "first"
        )
    if wrong:
        raise ConfigError(wrong)
    if suite == "mmlu":
        from nlp_mtl.suites.mmlu import score_mmlu

        model = runs[0]
        given = {"shots": shots, "rows": rows, "data_root": data_root, "base": base, "progress": progress}
        answered = score_mmlu(str(model), split=split or "test", **given)  # type: ignore[arg-type]
        show(answered.table(), answered.sentences(), answered.as_json(), json_file)
        return
    if submission is not None:
        from nlp_mtl.suites.submission import write_submission

        made = write_submission(runs, chosen, submission, fill=fill, data_root=data_root, base=base, progress=progress)
        print_table(("file", "answers"), [(name, str(count)) for name, count in made.lines.items()], right=(1,))
        print("\n" + "\n".join(made.sentences()))
        return
    from nlp_mtl.suites.scoring import score_suite

    found = score_suite(runs, chosen, data_root=data_root, base=base, progress=progress)
    show(found.table(), found.sentences(), found.as_json(), json_file)


def show(rows: Sequence[dict[str, str]], sentences: Sequence[str], text: str, json_file: Path | None) -> None:
    """A table with sentences; and as JSON, alone on the screen where it is asked for there."""
    if str(json_file) == "-":
        print(text, end="")
        return
    if rows:
        head = tuple(rows[0])
        right = tuple(i for i, name in enumerate(head) if name not in ("task", "metrics", "category", "subject"))
        print_table(head, [tuple(row[key] for key in head) for row in rows], right=right)
    print()
    for sentence in sentences:
        print(sentence)
    if json_file is not None:
        write_text(json_file, text)


def _of_glue(
    suite: str,
    split: str | None,
    task: Sequence[str] | None,
    json_file: Path | None,
    submission: Path | None,
    fill: bool,
) -> list[str]:
    """Options that do not go with GLUE or SuperGLUE, or with each other."""
    wrong = []
    if split not in (None, "validation") and submission is None:
        wrong.append(
            f"evaluate: --suite {suite} scores validation rows, found --split {split}: labels of test rows are hidden; "
            "leave it out, or write a --submission"
        )
    if fill and submission is None:
        wrong.append("evaluate: --fill-missing goes with --submission FILE.zip; add it, or leave that out")
    if json_file is not None and submission is not None:
        wrong.append("evaluate: --json holds scores, which a --submission of test rows has not; leave one out")
    if task:
        wrong.append(f"evaluate: --suite {suite} takes all tasks of it that the runs have, found --task; leave it out")
    return wrong
