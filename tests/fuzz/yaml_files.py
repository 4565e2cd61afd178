"""Laws of YAML: task files and run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from nlp_mtl import yamlfile
from nlp_mtl.config import RunConfig, load_config
from nlp_mtl.heads import make_heads
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from nlp_mtl.taskreader import read_task
from tests.fuzz.law import law, ours
from tests.fuzz.values import any_text, changed, edited, nearly, numbers, places, values

CSV = "text,other,label,score\n" + "".join(f"text {i},more {i},{'xy'[i % 2]},{i}.5\n" for i in range(12))
ROWS = "".join(
    json.dumps({"words": ["a", "b"], "tags": ["B-X", "O"], "options": ["a", "b"], "right": i % 2, "text": f"t {i}"})
    + "\n"
    for i in range(12)
)
CONLL = "a B-X\nb O\n\nc O\n" * 4


def _task(head: Any, inputs: list[str], target: str | None, path: str, files: Any, **more: Any) -> dict[str, Any]:
    said = {"name": "spam", "head": head, "dataset": {"path": path, "data_files": files}, "inputs": inputs}
    return {**said, **({"target": target} if target else {}), **more}


TASKS: list[dict[str, Any]] = [
    _task("sequence_classification", ["text"], "label", "csv", "rows.csv", labels=["x", "y"], metrics=["accuracy"]),
    _task(
        {"name": "sequence_classification", "class_weights": "balanced", "threshold": 0.5},
        ["text", "other"],
        "label",
        "csv",
        {"train": "rows.csv", "test": ["rows.csv"]},
        splits={"validation": 0.2},
        prepare=[{"name": "drop_empty", "columns": ["text"]}],
        rows={"train": 5},
        tags=["mine"],
        version=2,
        language="de",
        examples=[{"text": "a", "other": "b", "label": "x"}],
    ),
    _task("regression", ["text"], "score", "csv", "rows.csv", template="{text} and {other:-nothing}"),
    _task("token_classification", ["words"], "tags", "json", "rows.jsonl", labels=["O", "B-X", "I-X"], max_length=16),
    _task({"name": "multiple_choice", "choices": "options"}, ["text"], "right", "json", ["rows.jsonl"]),
    _task(
        "token_classification",
        ["tokens"],
        "tags",
        "conll",
        "rows.conll",
        split_seed=3,
        metrics=["span_f1"],
        splits={"test": 0.3, "validation": None},
    ),
    _task({"name": "masked_lm", "probability": 0.2}, ["text"], None, "json", "rows.jsonl", prepare="drop_empty"),
    _task("multi_label", ["text"], "words", "json", "rows.jsonl", metric_columns={"groups": "right"}),
]
TASK_KEYS = [
    *Task.model_fields,
    "path",
    "data_files",
    "options",
    "package",
    "revision",
    "mirrors",
    "include",
    "choices",
]
TASK_KEYS += ["class_weights", "threshold", "columns", "train", "validation", "test", "memory"]

RUN: dict[str, Any] = {
    "model": "bert-base-cased",
    "tasks": ["one.yaml", {"name": "two.yaml", "rows": {"train": 5}}],
    "sharing": "hard",
    "balancer": {"name": "rows", "weights": {"spam": 2.0}},
    "sampler": {"name": "temperature", "temperature": 2.0},
    "heads": {"spam": {"pooling": "mean"}},
    "lora": {"r": 8, "target_modules": "all-linear", "lora_dropout": 0.1},
    "freeze": ["embeddings.*"],
    "learning_rates": {"heads": 1e-3},
    "callbacks": ["transformers:EarlyStoppingCallback", {"name": "transformers:ProgressCallback"}],
    "registry": ["more"],
    "imports": ["mine.py"],
    "data_root": "data",
    "max_length": 64,
    "training": {"output_dir": "runs/a", "num_train_epochs": 2, "learning_rate": 3e-4, "warmup_steps": 0.06, "seed": 1},
}
RUN_KEYS = [*RunConfig.model_fields, "output_dir", "bf16", "report_to", "metric_for_best_model", "seed", "name", "r"]
RUN_KEYS += ["lr_scheduler_type", "optim", "max_steps", "save_steps", "eval_strategy", "deepspeed", "logging_dir"]


def put_data(folder: Path) -> None:
    """The files that the tasks and runs name."""
    for name, text in (("rows.csv", CSV), ("rows.jsonl", ROWS), ("rows.conll", CONLL), ("mine.py", "")):
        (folder / name).write_text(text)
    (folder / "more").mkdir()
    (folder / "one.yaml").write_text(yamlfile.dumps(TASKS[0]))
    (folder / "two.yaml").write_text(yamlfile.dumps({**TASKS[1], "name": "ham"}))


def as_yaml(data: Any) -> bytes:
    return yamlfile.dumps(data).encode("utf-8", "surrogatepass")


def follow(task: Task | None) -> None:
    """A task that was read has heads and rows, or says why not."""
    if task is None:
        return
    if ours(lambda: make_heads([task]), task.name) is not None:
        for rows in (ours(lambda: load_rows(task), task.name) or {}).values():
            assert len(rows[:])


@law("YAML", nearly(st.builds(as_yaml, st.one_of(values, st.sampled_from(TASKS)))), few=60)
def any_yaml(data: bytes, folder: Path) -> None:
    """Any bytes are read as YAML, or refused by name; what is read has lines, and can be written and read again."""
    (folder / "a.yaml").write_bytes(data)
    read = ours(lambda: yamlfile.load(folder / "a.yaml"), "a.yaml")
    if read is not None:
        known, lines = read
        assert all(line >= 1 for line in lines.values())
        again, _ = yamlfile.loads(yamlfile.dumps(known))
        assert repr(again) == repr(known)


plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
    max_leaves=10,
)


LINE_BREAKS = {"a\x85b": "\x85", "\u2028": ["\x85 c"]}


@law(
    "YAML",
    st.tuples(st.dictionaries(any_text, plain_values, max_size=5), st.booleans()),
    few=40,
    pinned=[(LINE_BREAKS, False), (LINE_BREAKS, True)],
)
def yaml_read_back(example: tuple[dict[str, Any], bool], folder: Path) -> None:
    """What is written is read back, in blocks or on lines."""
    data, flow = example
    (folder / "a.yaml").write_bytes(yamlfile.dumps(data, flow=flow and bool(data)).encode())
    assert yamlfile.load(folder / "a.yaml")[0] == data


@law(
    "task files",
    changed(st.sampled_from(TASKS), TASK_KEYS),
    few=30,
    pinned=[{**TASKS[0], "prepare": [{"columns": ["text"]}]}, {**TASKS[0], "prepare": ["d"]}],
)
def any_task(said: dict[str, Any], folder: Path) -> None:
    """A task file with some values changed is a task, or refused by name; and so is what it leads to."""
    put_data(folder)
    (folder / "a.yaml").write_bytes(as_yaml(said))
    follow(ours(lambda: read_task(folder / "a.yaml"), "a.yaml"))


@law("task files", edited(st.builds(as_yaml, st.sampled_from(TASKS))), few=30)
def any_task_text(data: bytes, folder: Path) -> None:
    """A task file with some bytes changed is a task, or refused by name; and so is what it leads to."""
    put_data(folder)
    (folder / "a.yaml").write_bytes(data)
    follow(ours(lambda: read_task(folder / "a.yaml"), "a.yaml"))


@law("run files", changed(st.just(RUN), RUN_KEYS), few=30)
def any_run(said: dict[str, Any], folder: Path) -> None:
    """A run file with some values changed is a run, or refused by name."""
    put_data(folder)
    (folder / "run.yaml").write_bytes(as_yaml(said))
    found = ours(lambda: load_config(folder / "run.yaml"), "run.yaml", "spam", "ham")
    assert found is None or isinstance(found, RunConfig)


@law("run files", edited(st.builds(as_yaml, st.just(RUN))), few=30)
def any_run_text(data: bytes, folder: Path) -> None:
    """A run file with some bytes changed is a run, or refused by name."""
    put_data(folder)
    (folder / "run.yaml").write_bytes(data)
    found = ours(lambda: load_config(folder / "run.yaml"), "run.yaml", "spam", "ham")
    assert found is None or isinstance(found, RunConfig)


_keys = st.one_of(
    st.sampled_from([".".join(map(str, place)) for place in places(RUN)]),
    st.sampled_from(RUN_KEYS).map("training.{}".format),
    st.lists(st.one_of(st.sampled_from(RUN_KEYS), any_text), min_size=1, max_size=3).map(".".join),
)
_values = st.one_of(any_text, numbers.map(repr), values.map(lambda value: yamlfile.dumps({"v": value})[3:]))


@law("run files", st.lists(st.builds(lambda key, value: f"{key}={value}", _keys, _values), min_size=1, max_size=3))
def any_overrides(overrides: list[str], folder: Path) -> None:
    """Any key=value on the command line is taken, or refused."""
    put_data(folder)
    (folder / "run.yaml").write_bytes(as_yaml(RUN))
    ours(lambda: load_config(folder / "run.yaml", overrides))
