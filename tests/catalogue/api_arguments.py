"""Arguments of the Python calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

import nlp_mtl as mtl
from nlp_mtl.errors import DataError, RunFolderError, UnknownNameError
from nlp_mtl.registry import samplers
from tests.catalogue.bad import Bad

TASKS = ["data/mood.yaml", "data/alike.yaml"]


def made(**changes: Any) -> Any:
    """A call of `Task`."""
    good: Mapping[str, Any] = {
        "name": "spam",
        "head": "sequence_classification",
        "dataset": {"path": "json", "data_files": "spam.jsonl"},
        "inputs": ["text"],
        "target": "label",
    }
    return lambda: mtl.Task(**{**good, **changes})


def model(tasks: Any = TASKS, **arguments: Any) -> Any:
    """A call of `MultiTaskModel.from_base`."""
    return lambda: mtl.MultiTaskModel.from_base("base", tasks, **arguments)


def trainer(then: Any = None, **arguments: Any) -> Any:
    """A call of `MultiTaskTrainer`, and what is done with it `then`."""

    def use() -> None:
        built = mtl.MultiTaskModel.from_base("base", TASKS, max_length=64)
        args = TrainingArguments("new", max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True)
        ready = mtl.MultiTaskTrainer(built, args, **{"precision": "args", **arguments})
        if then is not None:
            then(ready)

    return use


def trained(ready: Any) -> None:
    """Train into the folder of another run."""
    ready.args.output_dir = "done"
    ready.train()


ENTRIES = [
    Bad(
        "a task that is a number",
        lambda: mtl.load_tasks(["data/mood.yaml", 3]),
        parameter="a task",
        rule="is a name, a tag, a YAML path, a mapping or a Task",
        found="found 3",
        way_out="e.g. 'rte'",
    ),
    Bad(
        "no task",
        lambda: mtl.load_tasks([]),
        parameter="tasks:",
        rule="at least one is needed",
        found="no task was named",
        way_out="name one (nlp-mtl tasks list shows all)",
    ),
    Bad(
        "a mapping without a name",
        lambda: mtl.load_tasks({"rows": {"train": 8}}),
        parameter="a task given as a mapping",
        rule="needs `name`",
        found="found {'rows': {'train': 8}}",
        way_out="add its name or file",
    ),
    Bad(
        "several fields of a task",
        made(inputs="text", max_length=1, verson=2),
        parameter="task 'spam': `inputs`",
        rule="is a list",
        found="found 'text'",
        way_out="e.g. `inputs: [text]`",
        also=("3 mistakes", "`max_length` is at least 2, found 1", "unknown key 'verson'; did you mean 'version'?"),
    ),
    Bad(
        "a seed that is too big",
        made(split_seed=2**70),
        parameter="`split_seed`",
        rule="is below 18446744073709551616",
        found="found 1180591620717411303424",
        way_out="e.g. `split_seed: 0`",
    ),
    Bad(
        "a change of a task",
        lambda: mtl.load_tasks("data/mood.yaml")[0].with_(labels=["bad", "bad"]),
        parameter="task 'mood': `labels`",
        rule="each label once",
        found="found twice: bad",
        way_out="drop one of them",
    ),
    Bad(
        "a sharing with an argument",
        model(sharing={"name": "hard", "layers": 3}),
        parameter="sharing 'hard'",
        rule="takes no argument",
        found="'layers'",
        way_out="known: condition",
    ),
    Bad(
        "a LoRA that is a number",
        model(lora=8),
        parameter="lora",
        rule="expected the fields of peft.LoraConfig",
        found="found 8",
        way_out="e.g. {r: 8}",
    ),
    Bad(
        "a rank of zero",
        model(lora={"r": 0}),
        parameter="`lora.r`",
        rule="at least 1",
        found="found 0",
        way_out="left out, it is 8",
    ),
    Bad(
        "head arguments of the wrong type",
        model(heads={"mood": {"pooling": 3}}),
        parameter="`pooling`",
        rule="is one of",
        found="found 3",
        way_out="left out, it is",
    ),
    Bad(
        "a length that is too short",
        model(max_length=1),
        parameter="max_length",
        rule="from 4 to",
        found="found 1",
        way_out="leave it out for",
    ),
    Bad(
        "a precision that there is not",
        trainer(precision="bf16"),
        parameter="precision",
        rule="auto or args",
        found="found 'bf16'",
        way_out="leave it out for auto",
    ),
    Bad(
        "token budgets that are no whole numbers",
        trainer(tokens_per_batch=1e3, tokens_per_pass=-5),
        parameter="tokens_per_batch",
        rule="a whole number of tokens above 0",
        found="found 1000.0",
        way_out="leave it out for steps counted in rows",
        also=("2 mistakes", "found -5", "leave it out for one pass for each micro-batch"),
    ),
    Bad(
        "a balancer that there is not",
        trainer(balancer="equl"),
        error=UnknownNameError,
        parameter="balancer",
        rule="unknown",
        found="'equl'",
        way_out="did you mean 'equal'",
    ),
    Bad(
        "a weight below zero",
        trainer(balancer={"name": "fixed", "weights": {"mood": -1}}),
        parameter="balancer 'fixed': `weights`",
        rule="are at least 0",
        found="found {'mood': -1}",
        way_out="correct it",
    ),
    Bad(
        "learning rates below zero",
        trainer(learning_rates={"heads": -1.0, "hads": 1e-3}),
        parameter="learning_rates",
        rule="a number from 0",
        found="found -1.0",
        way_out="did you mean 'heads'",
    ),
    Bad(
        "an argument that a sampler needs",
        lambda: samplers.build("fixed"),
        parameter="sampler 'fixed'",
        rule="needs the argument",
        found="'rates', found none",
        way_out="write {name: fixed, rates: …}",
    ),
    Bad(
        "a strategy without a name",
        lambda: samplers.build({"temperature": 2.0}),
        parameter="sampler",
        rule="expected a name or {name: …, arguments}",
        found="found {'temperature': 2.0}",
        way_out="add `name`",
    ),
    Bad(
        "rows as a split",
        trainer(lambda ready: ready.evaluate({"mood": None})),
        parameter="evaluate",
        rule="one of train, validation, test",
        found="found {'mood': None}",
        way_out="rows of your own are a task's",
    ),
    Bad(
        "training into the run of another trainer",
        trainer(trained),
        error=RunFolderError,
        parameter="output_dir",
        rule="already holds a run",
        found="done already",
        way_out="overwrite=True",
    ),
    Bad(
        "a checkpoint that is none",
        trainer(lambda ready: ready.train("done/checkpoint-9")),
        error=RunFolderError,
        parameter="done/checkpoint-9",
        rule="no checkpoint to resume from",
        found="there is no such folder",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a split of an evaluation",
        lambda: mtl.evaluate("done", "dev"),
        parameter="split",
        rule="one of train, validation, test",
        found="found 'dev'",
        way_out="name one",
    ),
    Bad(
        "a name of a task instead of a list, evaluated",
        lambda: mtl.evaluate("done", tasks="mood"),
        parameter="`tasks`",
        rule="is a list of names",
        found="found 'mood'",
        way_out="write ['mood']",
    ),
    Bad(
        "a mapping of a run with several mistakes",
        lambda: mtl.train({"model": 3, "task": "rte", "training": {"seed": -1}}),
        parameter="the run: `model`",
        rule="is text",
        found="found 3",
        way_out="e.g. `model: bert-base-cased`",
        also=("the key 'tasks' is needed", "unknown key 'task'; did you mean 'tasks'", "`training.seed` is from 0"),
    ),
    Bad(
        "a folder that is no path",
        lambda: mtl.MultiTaskModel.from_pretrained("a\0b"),
        error=RunFolderError,
        parameter="'a\\x00b'",
        rule="not a run folder",
        found="embedded null byte",
        way_out="run folders are done",
    ),
    Bad(
        "a save where a file is",
        lambda: mtl.MultiTaskModel.from_pretrained("done").save_pretrained(Path("answers.jsonl")),
        error=RunFolderError,
        parameter="'answers.jsonl'",
        rule="a run is written to a folder",
        found="File exists",
        way_out="name another",
    ),
    Bad(
        "a dry run of rows that can't be used",
        lambda: mtl.dry_run("run.yaml", ["tasks=[spam.yaml]"]),
        files={"spam.jsonl": '{"text": null, "label": "yes"}\n'},
        error=DataError,
        parameter="row 0: column 'text'",
        rule="is not text",
        found="found 'None'",
        way_out="correct the data",
    ),
]
