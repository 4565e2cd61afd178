"""What is wrong with a run file that its schema can't see."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry, yamlfile
from nlp_mtl.arguments import TRAINING_DEFAULTS, metric_mistake, read_training
from nlp_mtl.distilspec import DistillationSpec, unknown_names
from nlp_mtl.domainspec import check_domains
from nlp_mtl.errors import ConfigError, UnknownNameError, shown
from nlp_mtl.grouping import sampler_of
from nlp_mtl.initfrom import InitFrom

if TYPE_CHECKING:
    from nlp_mtl.heads.base import Head


def check(config: Any, place: str, lines: yamlfile.Lines, overrides: Sequence[str] = ()) -> list[str]:
    """Mistakes that the schema can't see: names of strategies, their arguments, fields of other libraries' classes.

    `config` is a :class:`nlp_mtl.config.RunConfig`. Values under `training` become what their fields take,
    e.g. a number written as text.
    """
    mistakes: list[str] = []
    typed = {override.partition("=")[0]: override for override in overrides}

    def say(path: tuple[str | int, ...], message: str) -> None:
        if isinstance(path[0], str) and path[0] in typed:  # the file says nothing of it, and may be one of the package
            mistakes.append(f"override {shown(typed[path[0]])}: {message}")
            return
        line = yamlfile.line_of(lines, path)
        mistakes.append(f"{place}:{line}: {message}" if line else f"{place}: {message}")

    if config.tree is not None:
        kind, arguments = registry.parse_spec(config.sharing, "sharing")
        if kind not in ("hard", "branch") or (kind == "hard" and arguments):
            say(("tree",), f"`tree` is of sharing: branch, found sharing: {kind}; leave one of both out")
        else:
            config.sharing = {"name": "branch", **arguments, **config.tree}
    for key, known in (
        ("sharing", registry.sharings),
        ("balancer", registry.balancers),
        ("sampler", registry.samplers),
    ):
        try:
            name, arguments = registry.parse_spec(getattr(config, key), key)
            given = 2 if key == "sharing" else 0
            messages = known.check_arguments(name, arguments, given=given)
            for message in messages:
                say((key,), message)
            if not messages and not given:
                known.build(getattr(config, key))  # refuses wrong values
            if not messages and given:
                _check_lora(known[name], config, arguments)
        except ConfigError as error:
            for message in error.mistakes:
                say((key,), message)
    for number, spec in enumerate(config.regularizers):
        try:
            registry.regularizers.build(spec)
        except ConfigError as error:
            for message in error.mistakes:
                say(("regularizers", number), message)
    specs: list[DistillationSpec] = []
    for number, spec in enumerate(config.distillation):
        try:
            specs.append(DistillationSpec.of_key(spec))
        except ConfigError as error:
            for message in error.mistakes:
                say(("distillation", number), message)
    if config.tuning is not None:
        try:
            registry.tunings.build(config.tuning)
        except ConfigError as error:
            for message in error.mistakes:
                say(("tuning",), message)
    if config.init_from is not None:
        try:
            InitFrom.of(config.init_from)
        except ConfigError as error:
            for message in error.mistakes:
                say(("init_from",), message)
    try:
        sampler_of("proportional", config.groups, config.stop_tasks)
    except ConfigError as error:
        for message in error.mistakes:
            say((message.partition(":")[0],), message)
    heads, messages = _heads_of(config) if "tasks" in config.model_fields_set else ({}, [])
    for message in messages:
        say(("tasks",), message)
    for key, message in check_domains(config.pseudo_labels, config.importance_weighting, heads):
        say((key,), message)
    for message in unknown_names(specs, list(heads)) if heads else ():
        say(("distillation",), message)
    config.training, wrong = read_training(config.training)
    for key, message in wrong.items():
        say(("training", key), message)
    said = {**TRAINING_DEFAULTS, **config.training}
    wanted = said["metric_for_best_model"]
    if heads and not wrong and (mistake := metric_mistake(wanted, said["greater_is_better"], heads)):
        say(("training", "metric_for_best_model"), mistake)
    if config.lora is not None or config.task_lora is not None:
        from nlp_mtl.adapters import checked_adapters

        try:
            checked_adapters(config.lora, config.task_lora)
        except ConfigError as error:
            for message in error.mistakes:
                say(("task_lora" if "task_lora" in message.partition(" ")[0] else "lora",), message)
    for number, spec in enumerate(config.callbacks):
        try:
            callback(spec)
        except ConfigError as error:
            say(("callbacks", number), str(error))
    return mistakes


def _check_lora(sharing: Any, config: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse a `lora` that a sharing can't use; what is wrong in itself is told elsewhere."""
    from nlp_mtl.adapters import lora_config
    from nlp_mtl.ia3 import check_alone

    try:
        asked = None if config.lora is None else lora_config(config.lora)
    except ConfigError:
        return
    check_alone(asked, registry.parse_spec(config.sharing, "sharing")[0], None)
    sharing.lora_for(asked, [str(task) for task in getattr(config, "tasks", ())], **arguments)


def _heads_of(config: Any) -> tuple[dict[str, Head], list[str]]:
    """The heads of the run's tasks, and mistakes; no heads if there are any."""
    from nlp_mtl.heads import make_heads
    from nlp_mtl.tasks import load_tasks

    try:
        tasks = load_tasks(config.tasks, registry=config.registry)
    except ConfigError as error:
        return {}, error.mistakes
    mistakes = []
    for task in tasks:
        for spec in task.prepare:
            name, arguments = registry.parse_spec(spec, "preparation")
            try:
                messages = registry.preparations.check_arguments(name, arguments, given=1)
            except UnknownNameError as error:
                messages = error.mistakes
            mistakes += [f"task {task.name!r}: {message}" for message in messages]
    try:
        heads = make_heads(tasks, config.heads)
    except ConfigError as error:
        return {}, [*mistakes, *error.mistakes]
    return ({} if mistakes else heads), mistakes


def callback(spec: registry.Spec) -> Any:
    """The TrainerCallback that `spec` names.

    Raises:
        ConfigError: no such module or class, or not a callback.
    """
    name, arguments = registry.parse_spec(spec, "callbacks")
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(f"callbacks: write module:Class, e.g. transformers:EarlyStoppingCallback, found {name!r}")
    from transformers import TrainerCallback

    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"callbacks: {name!r} can't be imported ({error}); correct or install it") from None
    if not (isinstance(found, type) and issubclass(found, TrainerCallback)):
        raise ConfigError(
            f"callbacks: {name!r} is not a TrainerCallback; name a class that is, e.g. "
            "transformers:EarlyStoppingCallback"
        )
    try:
        return found(**arguments)
    except TypeError as error:
        raise ConfigError(f"callbacks: {name!r}: {error}") from None
