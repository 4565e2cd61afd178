"""The run file: one YAML mapping that says everything about a run, and its ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from nlp_mtl import yamlfile
from nlp_mtl.configchecks import check
from nlp_mtl.errors import ConfigError
from nlp_mtl.explain import explain, no_mapping
from nlp_mtl.runfiles import beside, import_files
from nlp_mtl.stageplan import stages_of, tasks_of_all
from nlp_mtl.taskfile import Task

Spec = str | dict[str, Any]


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, (str, dict, Task)) else given


class RunConfig(BaseModel):
    """All keys of a run file."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(description="pretrained encoder: a folder, a packaged model, or a Hub id")
    tasks: Annotated[list[str | dict[str, Any] | InstanceOf[Task]], BeforeValidator(_as_list)] = Field(
        min_length=1, description="task names, tags, task files, or `{name: …, changes}`"
    )
    registry: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="more folders with task files"
    )
    data_root: str | None = Field(default=None, description="folder that mirrors data sets under their Hub ids")
    max_length: int | None = Field(
        default=None, ge=4, description="tokens per sequence; default the encoder's limit, at most 512"
    )
    sharing: Spec = Field(default="hard", description="which parameters tasks share")
    balancer: Spec = Field(default="equal", description="how per-task losses become one update")
    sampler: Spec = Field(default="proportional", description="how many rows of each task a batch holds")
    regularizers: Annotated[list[Spec], BeforeValidator(_as_list)] = Field(
        default_factory=list, description="what is added to each step's loss that depends on the weights alone"
    )
    distillation: Annotated[list[dict[str, Any]], BeforeValidator(_as_list)] = Field(
        default_factory=list,
        description="tasks that learn from a teacher beside their labels: `teacher` (a run folder, an earlier stage's "
        "name, or `start`), `tasks`, `of`, `on`, `temperature`, `weight`, `annealing`, `hidden`; or a list of such",
    )
    heads: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="more head arguments by task, tag or `*`, e.g. `{stsb: {pooling: mean}}`"
    )
    init_from: str | dict[str, Any] | None = Field(
        default=None,
        description="start where another run ended: its folder or Hub id, or an ordinary pretrained folder; or "
        "`{run: …, task: whose encoder, heads: {task: task of that run}, merge: its LoRA into the weights}`",
    )
    lora: dict[str, Any] | None = Field(
        default=None,
        description="fields of `peft.LoraConfig`, or with `peft_type: IA3` of `peft.IA3Config`; left out, the whole "
        "encoder is trained",
    )
    task_lora: dict[str, Any] | None = Field(
        default=None, description="the same for one adapter per task, in the same pass, alone or beside `lora`"
    )
    freeze: list[str] | str = Field(
        default_factory=list, description="patterns of encoder parameters to keep, `*` for all"
    )
    tuning: Spec | None = Field(
        default=None,
        description="which of the encoder's own weights are trained: `bitfit`, `layer_norm`, `{name: last_layers, "
        "count: n}`, `gradual_unfreezing`; default all that `freeze` does not keep",
    )
    reinit_top_layers: int = Field(
        default=0, ge=0, description="so many layers from the top begin anew, and the pooler with them"
    )
    learning_rates: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="other learning rates for `heads`, `encoder` or parameter patterns"
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="the learning rate of each encoder layer is that of the one above times this",
    )
    task_rates: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="what the learning rates of a task's head and own adapter are multiplied by"
    )
    train_tasks: Annotated[list[str] | None, BeforeValidator(_as_list)] = Field(
        default=None, description="only these tasks learn; the others stay in the model as they are, and are scored"
    )
    groups: dict[str, Any] | None = Field(
        default=None,
        description="tasks that are trained in turn: `groups` ({name: [tasks]}, or `each`), `order` (stages, turns, "
        "interleaved), `every` n steps, `shares` of the steps",
    )
    tree: dict[str, Any] | None = Field(
        default=None,
        description="tasks that part above the shared layers: `depth` (how many are shared), `groups` "
        "({name: [tasks]}); says the arguments of `sharing: branch`",
    )
    stop_tasks: dict[str, Any] | None = Field(
        default=None,
        description="a task gets no more rows when its own score has not become better for `patience` evaluations (by "
        "more than `threshold`)",
    )
    tokens_per_batch: int | None = Field(
        default=None,
        ge=1,
        description="count a step in tokens: so many over all processes and micro-batches; "
        "`per_device_train_batch_size` then does not count",
    )
    tokens_per_pass: int | None = Field(
        default=None,
        ge=1,
        description="at most so many tokens in one forward and backward pass; a step's rows are cut into as many as "
        "it takes, with the gradient of the whole",
    )
    keep_best: Literal["run", "task"] = Field(
        default="run",
        description="the best step of the whole run, or with `task_lora` alone each task's own (`task`)",
    )
    cache_features: bool = Field(
        default=False,
        description="with a frozen encoder (`freeze: '*'`), keep what it gives for each text, and train heads on it",
    )
    pseudo_labels: dict[str, Any] | None = Field(
        default=None,
        description="self-training: training rows of these `tasks` take labels from the model that the run starts from "
        "where it gives a class at least the probability `confidence` (0.9); `balanced`: as many of each class; `most` "
        "rows",
    )
    importance_weighting: dict[str, Any] | None = Field(
        default=None,
        description="training rows of the tasks `source` are shown more often, the more they look like those of "
        "`target`; none counts as more than `clip` (10)",
    )
    cosines_every: int = Field(
        default=50,
        ge=0,
        description="look at the tasks' gradients each so many steps, for the record (0: never); a balancer that needs "
        "them looks at every step",
    )
    callbacks: list[Spec] = Field(
        default_factory=list, description="`module:Class` of a TrainerCallback, or `{name: module:Class, arguments}`"
    )
    stages: list[dict[str, Any]] = Field(
        default_factory=list,
        description="trainings one after the other, each from where the one before ended: keys of a run file that "
        "differ, and `name`, `each` (every task by itself, in the last stage), `init_from` (an earlier stage)",
    )
    imports: list[str] = Field(default_factory=list, description="Python files that register strategies of your own")
    training: dict[str, Any] = Field(default_factory=dict, description="fields of `transformers.TrainingArguments`")

    EXAMPLES: ClassVar[dict[str, str]] = {  # what a message shows as the way out
        "model": "bert-base-cased",
        "tasks": "[rte, mrpc]",
        "registry": "[my_tasks]",
        "data_root": "my_data",
        "max_length": "128",
        "sharing": "hard",
        "balancer": "equal",
        "sampler": "{name: temperature, temperature: 2.0}",
        "regularizers": "[{name: l2_sp, alpha: 0.1}]",
        "distillation": "{teacher: runs/big, temperature: 2, weight: 0.5}",
        "heads": "{stsb: {pooling: mean}}",
        "init_from": "runs/first",
        "lora": "{r: 8, target_modules: all-linear}",
        "task_lora": "{r: 4, target_modules: all-linear}",
        "freeze": "[embeddings.*]",
        "tuning": "bitfit",
        "reinit_top_layers": "2",
        "learning_rates": "{heads: 1e-3}",
        "layer_decay": "0.9",
        "task_rates": "{rte: 2.0}",
        "train_tasks": "[rte]",
        "groups": "{order: interleaved, every: 20, groups: {pairs: [rte, mrpc], words: [conll2003]}}",
        "tree": "{depth: 3, groups: {pairs: [rte, mrpc], words: [conll2003]}}",
        "stop_tasks": "{patience: 2}",
        "tokens_per_batch": "2048",
        "tokens_per_pass": "1024",
        "keep_best": "task",
        "cache_features": "true",
        "pseudo_labels": "{tasks: [multi_domain_dvd], confidence: 0.9}",
        "importance_weighting": "{source: [multi_domain_books], target: [multi_domain_dvd]}",
        "cosines_every": "10",
        "callbacks": "[transformers:EarlyStoppingCallback]",
        "stages": "[{name: together}, {name: alone, each: true}]",
        "imports": "[my_sampler.py]",
        "training": "{output_dir: runs/mine, num_train_epochs: 3}",
    }


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """A run file (or mapping) with overrides, checked.

    Args:
        source: the YAML file, or a mapping of the same keys.
        overrides: ``key=value``; dots go deeper, values are YAML, e.g. ``training.num_train_epochs=1``.

    Raises:
        ConfigError: every mistake of the file and the overrides, with line, near names, and the rule.

    Example:
        >>> config = load_config({"model": "bert-base-cased", "tasks": ["rte"]}, ["sampler.temperature=3"])
        Traceback (most recent call last):
        ...
        nlp_mtl.errors.ConfigError: the run: sampler 'proportional' takes no argument 'temperature'; known: epoch, caps
    """
    if isinstance(source, Mapping):
        data, place = dict(source), "the run"
        lines: yamlfile.Lines = {}
    else:
        data, lines = yamlfile.load(source)
        place = str(source)
        if not isinstance(data, dict):
            raise ConfigError(f"{place}: {no_mapping(data, 'a run file', RunConfig)}")
        data = beside(data, Path(source).parent)
    mistakes: list[str] = []
    for override in overrides:
        mistakes += _override(data, override)
    if isinstance(data.get("stages"), list) and "tasks" not in data:
        data["tasks"] = tasks_of_all(data["stages"])
        above = tuple(override.partition("=")[0].split("."))
        lines = {
            path: line for path, line in lines.items() if path[: len(above)] != above
        }  # it is not the file's any more
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        mistakes += explain(error, RunConfig, data, place, lines)
        wrong = {item["loc"][0] for item in error.errors()}  # the rest is checked all the same
        right = {key: value for key, value in data.items() if isinstance(key, str) and key not in wrong}
        config = RunConfig.model_construct(**right)
    folder, line = Path() if isinstance(source, Mapping) else Path(source).parent, lines.get(("imports",))
    mistakes += import_files(config.imports, folder, f"{place}:{line}" if line else place)
    mistakes += check(config, place, lines, overrides)
    if not mistakes:
        mistakes += _check_stages(data, place, lines)
    if mistakes:
        raise ConfigError(mistakes)
    return config


def _check_stages(data: Mapping[str, Any], place: str, lines: yamlfile.Lines) -> list[str]:
    """Mistakes in stages, which are run files themselves."""
    line = lines.get(("stages",))
    where = f"{place}:{line}" if line else place
    try:
        stages = stages_of(data)
    except ConfigError as error:
        return [f"{where}: {message}" for message in error.mistakes]
    mistakes = []
    for number, stage in enumerate(stages):
        try:
            load_config(stage.keys)
        except ConfigError as error:
            said = [message.removeprefix("the run:").strip() for message in error.mistakes]
            mistakes += [f"{where}: stage {number + 1} ({stage.name}): {message}" for message in said]
    return mistakes


def _override(data: dict[str, Any], override: str) -> list[str]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        return [f"override {override!r}: write key=value, e.g. training.num_train_epochs=1"]
    try:
        value, _ = yamlfile.loads(text, f"override {key}")
    except ConfigError as error:
        return error.mistakes
    *above, last = key.split(".")
    place = data
    for part in above:
        inner = place.get(part, _default_spec(part))
        if inner is None:
            inner = {}
        elif isinstance(inner, str):
            inner = {"name": inner}  # `sampler: temperature` with `sampler.temperature=2`
        elif not isinstance(inner, dict):
            return [f"override {override!r}: {part!r} holds {inner!r}, which has no parts; write {part}=… for another"]
        place[part] = dict(inner)
        place = place[part]
    place[last] = value
    return []


def _default_spec(key: str) -> Any:
    field = RunConfig.model_fields.get(key)
    return field.default if field is not None and isinstance(field.default, str) else None


def key_table() -> list[tuple[str, str, str]]:
    """Every key of a run file: name, default, meaning; the README's table is made from it."""
    rows = []
    for name, field in RunConfig.model_fields.items():
        empty = field.default_factory is not None or field.default is None
        default = "needed" if field.is_required() else "—" if empty else str(field.default)
        rows.append((name, default, field.description or ""))
    return rows
