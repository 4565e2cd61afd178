"""``nlp-mtl tasks``: look at tasks, or write one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlp_mtl.errors import ConfigError
from nlp_mtl.newtask import SeveralWords, tasks_new
from nlp_mtl.screen import print_table

DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that mirrors data sets under their Hub ids.")
]
tasks_app = typer.Typer(
    help="Look at tasks, or write one for your own data: list, show, check, new.",
    epilog="nlp-mtl tasks list --tag glue\n\nnlp-mtl tasks show rte",
    no_args_is_help=True,
    rich_markup_mode=None,
)
tasks_app.command(
    "new",
    cls=SeveralWords,
    epilog="nlp-mtl tasks new reviews.csv --text review --label verdict\n\n"
    "nlp-mtl tasks new train=a.tsv test=b.tsv --text question answer --label fits",
)(tasks_new)


@tasks_app.command(
    "list", epilog="nlp-mtl tasks list --tag sentiment\n\nnlp-mtl tasks list --head multi_label --language en"
)
def tasks_list(
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    head: Annotated[str | None, typer.Option(help="Only tasks with this kind of head.")] = None,
    language: Annotated[str | None, typer.Option(help="Only tasks in this language (ISO code, e.g. de).")] = None,
) -> None:
    """Tasks by name: head, language, data set, tags, and how the file was verified; filters combine."""
    from nlp_mtl.registry import not_built
    from nlp_mtl.tasks import task_registry

    known = task_registry()
    rows = [
        (
            t.name,
            f"{t.head_name}{' (head not built yet)' if not_built(t.head_name) else ''}",
            t.language,
            f"{t.dataset.package or t.dataset.path}{' ' + t.dataset.name if t.dataset.name else ''}",
            t.verified,
            " ".join(t.tags),
        )
        for t in known.select(tag=tag, head=head, language=language)
    ]
    if rows:
        print_table(("task", "head", "language", "data", "verified", "tags"), rows)
    if rows:
        print(f"{len(rows)} tasks; nlp-mtl tasks show NAME says more")
    else:
        print("0 tasks are all of that at once" + known.without_one(tag=tag, head=head, language=language))
    if known.mistakes:
        raise ConfigError(known.mistakes)


@tasks_app.command("show", epilog="nlp-mtl tasks show rte\n\nnlp-mtl tasks show quick_ner")
def tasks_show(name: Annotated[str, typer.Argument(help="A task's name or tag, or a task file.")]) -> None:
    """A task as its file says it, with what it includes."""
    from nlp_mtl import yamlfile
    from nlp_mtl.registry import not_built
    from nlp_mtl.tasks import load_tasks

    for task in load_tasks(name if not name.endswith((".yaml", ".yml")) else [Path(name)]):
        print(f"# {task.file}")
        if needs := not_built(task.head_name):
            print(f"# head not built yet: {needs}")
        print(yamlfile.dumps(task.model_dump(mode="json", exclude_unset=True)))


@tasks_app.command("check", epilog="nlp-mtl tasks check rte\n\nnlp-mtl tasks check quickstart")
def tasks_check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME …]", help="Names, tags or task files; none: all.")
    ] = None,
    data_root: DataRoot = None,
    offline: Annotated[bool, typer.Option("--offline", help="Example rows only, even where data is at hand.")] = False,
) -> None:
    """Take tasks from YAML to a loss: on their example rows, and on real rows where data is found."""
    from nlp_mtl.tasks import load_tasks, task_registry

    chosen = load_tasks(names) if names else list(task_registry().sound().values())
    broken = [] if names else task_registry().mistakes
    from nlp_mtl.registry import not_built
    from nlp_mtl.testing import check_rows, check_task

    failed = 0
    for task in chosen:
        mistakes = check_task(task)
        said = "head not built yet; examples have the columns" if not_built(task.head_name) else "examples work"
        if not mistakes and not offline:
            real, mistakes = check_rows(task, data_root)
            said = f"{said}; {real}"
        failed += bool(mistakes)
        print(f"{task.name}: {said if not mistakes else 'WRONG'}")
        for mistake in mistakes:
            print(f"  {mistake}")
    if broken:
        raise ConfigError(broken)
    if failed:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------------ helpers
