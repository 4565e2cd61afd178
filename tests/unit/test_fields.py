"""Values of another library's dataclass: read as its annotations say, or refused in our words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from nlp_mtl.fields import read_fields


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("learning_rate", "5e-5", 5e-5),
        ("num_train_epochs", 3, 3),
        ("max_steps", 1e3, 1000),
        ("bf16", "no", False),
        ("bf16", "true", True),
        ("run_name", 2024, "2024"),
        ("output_dir", Path("runs/x"), "runs/x"),
        ("report_to", ["none"], ["none"]),
        ("eval_steps", None, None),
        ("eval_strategy", "epoch", "epoch"),
        ("eval_strategy", IntervalStrategy.STEPS, IntervalStrategy.STEPS),
        ("lr_scheduler_kwargs", {"x": True}, {"x": True}),
        ("trackio_static_space_id", False, False),
    ],
)
def test_values_become_what_the_field_takes(field, value, read):
    found, wrong = read_fields(TrainingArguments, {field: value}, "training")
    assert wrong == {}
    assert found == {field: read}
    assert type(found[field]) is type(read)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("learning_rate", "abc", "`training.learning_rate` is a number, found 'abc'"),
        ("learning_rate", True, "`training.learning_rate` is a number, found True"),
        ("learning_rate", None, "`training.learning_rate` is a number, found None"),
        ("max_steps", 1.5, "`training.max_steps` is a whole number, found 1.5"),
        ("bf16", "maybe", "`training.bf16` is true or false, found 'maybe'"),
        ("eval_steps", "x", "`training.eval_steps` is a number or null, found 'x'"),
        ("report_to", {"a": 1}, "`training.report_to` is null or text or a list of texts, found {'a': 1}"),
        ("eval_strategy", "epohc", "one of no, steps, epoch, found 'epohc'; did you mean 'epoch'?"),
        ("eval_strategy", 5, "one of no, steps, epoch, found 5"),
        ("optim", "adafactr", "found 'adafactr'; did you mean 'adafactor'"),
        ("learning_rat", 1, "`training`: TrainingArguments has no field 'learning_rat'; did you mean 'learning_rate'"),
    ],
)
def test_what_a_field_does_not_take(field, value, said):
    found, wrong = read_fields(TrainingArguments, {field: value, "seed": 1}, "training")
    assert list(wrong) == [field]
    assert said in wrong[field]
    assert found["seed"] == 1


@dataclasses.dataclass
class Odd:
    template: bool | Literal["x", "x_[number]"] = True
    other: Path | int = 0
    anything: Any = None


@dataclasses.dataclass
class Unknown:
    number: NoSuchName = None  # noqa: F821


def test_annotations_that_say_too_little_are_not_asked():
    given = {"template": "x_16", "other": "a", "anything": object()}
    assert read_fields(Odd, given, "odd") == (given, {})
    assert read_fields(Unknown, {"number": "x"}, "odd") == ({"number": "x"}, {})
