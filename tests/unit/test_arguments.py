"""What may stand under `training` and `lora`: refused when the run file is read, not after an epoch."""

from __future__ import annotations

import pytest
from peft import LoraConfig

from nlp_mtl.adapters import add_lora, lora_config
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads import SequenceClassification
from nlp_mtl.registry import heads
from nlp_mtl.testing import tiny_encoder

PLAIN = {"model": "m", "tasks": ["rte", "conll2003", "ax", "mnli"]}


@pytest.fixture(autouse=True)
def no_registry_of_the_user(monkeypatch):
    monkeypatch.delenv("NLP_MTL_REGISTRY", raising=False)


def mistakes_of(*overrides, **changes):
    with pytest.raises(ConfigError) as caught:
        load_config({**PLAIN, **changes}, overrides)
    return caught.value.mistakes


def test_every_wrong_value_is_said_at_once_with_its_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        """\
model: m
tasks: [rte]
training:
  learning_rate: abc
  num_train_epochs: many
  per_device_train_batch_size: 0
  gradient_accumulation_steps: 0
  output_dir:
  seed: -1
lora: {r: abc, lora_dropout: x}
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    for line, said in [
        (4, "`training.learning_rate` is a number, found 'abc'"),
        (5, "`training.num_train_epochs` is a number, found 'many'"),
        (6, "`training.per_device_train_batch_size` is at least 1, found 0"),
        (7, "`training.gradient_accumulation_steps` is at least 1, found 0"),
        (8, "`training.output_dir` is the folder of the run, found None; name one, or leave the key out"),
        (9, "`training.seed` is from 0 to 4294967295, found -1; left out, it is 42"),
        (10, "`lora.r` is a whole number, found 'abc'"),
        (10, "`lora.lora_dropout` is a number, found 'x'"),
    ]:
        assert any(m.startswith(f"{file}:{line}: {said}") for m in caught.value.mistakes), (said, caught.value)
    assert len(caught.value.mistakes) == 8


@pytest.mark.parametrize("value", ['""', '" "', "~"])
def test_a_run_has_a_folder(value):
    (mistake,) = mistakes_of(f"training.output_dir={value}")
    assert "`training.output_dir` is the folder of the run" in mistake


def test_not_a_number_is_below_every_bound():
    assert "`training.learning_rate` is at least 0, found nan" in mistakes_of("training.learning_rate=.nan")[0]


def test_no_limit_of_the_gradient_is_null():
    assert load_config(PLAIN, ["training.max_grad_norm=~"]).training == {"max_grad_norm": None}


def test_numbers_written_as_text_are_numbers():
    config = load_config({**PLAIN, "training": {"learning_rate": "5e-5", "bf16": "no", "num_train_epochs": 3}})
    assert config.training == {"learning_rate": 5e-5, "bf16": False, "num_train_epochs": 3}
    assert isinstance(config.training["num_train_epochs"], int), "the run folder says what the user said"


# -------------------------------------------------------------------------------------------- the deciding metric


@pytest.mark.parametrize(
    "name",
    [
        *("mean", "eval_mean", "mean_skill", "loss", "rte_accuracy", "eval_rte_accuracy", "mnli_skill", "~"),
        *("conll2003_span_f1", "conll2003_span_precision", "conll2003_span_f1_PER"),
    ],
)
def test_metrics_that_a_run_gives(name):
    assert load_config(PLAIN, [f"training.metric_for_best_model={name}"])


@pytest.mark.parametrize(
    ("name", "near"),
    [("eval_rte_acuracy", "'rte_accuracy'"), ("mean_skil", "'mean_skill'"), ("conll2003_span_f1_PRE", "_PER'")],
)
def test_a_metric_that_nothing_gives_is_said_with_near_ones(name, near):
    (mistake,) = mistakes_of(f"training.metric_for_best_model={name}")
    assert f"`training.metric_for_best_model`: no task gives {name!r}; did you mean" in mistake
    assert near in mistake


def test_a_task_without_validation_rows_gives_none():
    assert "no task gives 'ax_accuracy'" in mistakes_of("training.metric_for_best_model=ax_accuracy")[0]


@pytest.mark.parametrize("name", ["eval_loss", "rte_loss"])
def test_a_loss_is_better_when_smaller(name):
    (mistake,) = mistakes_of(f"training.metric_for_best_model={name}")
    assert "add `greater_is_better: false`" in mistake
    assert load_config(PLAIN, [f"training.metric_for_best_model={name}", "training.greater_is_better=false"])


def test_what_a_metric_of_ones_own_gives_is_not_known_beforehand(monkeypatch):
    class Own(SequenceClassification):
        def score(self, decoded, references):
            return {"mine": 1.0}

    monkeypatch.setitem(heads._entries, "own", Own)
    tasks = [{"name": "rte", "head": "own"}, "mrpc"]
    for said in (tasks, [{"name": "rte", "metrics": ["evaluate:folder/mine"]}, "mrpc"]):
        config = {**PLAIN, "tasks": said}
        assert load_config(config, ["training.metric_for_best_model=rte_mine"])
        with pytest.raises(ConfigError, match="no task gives 'mrpc_mine'"):
            load_config(config, ["training.metric_for_best_model=mrpc_mine"])


# ------------------------------------------------------------------------------------------------------------ LoRA


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("r", "abc", "`lora.r` is a whole number, found 'abc'"),
        ("r", 0, "`lora.r` is at least 1, found 0"),
        ("lora_alpha", [1], "`lora.lora_alpha` is a whole number, found [1]"),
        ("lora_dropout", 1.5, "`lora.lora_dropout` is from 0 to below 1, found 1.5"),
        ("bias", "some", "`lora.bias` is one of none, all, lora_only, found 'some'"),
        ("task_type", "cls", "`lora.task_type` is one of SEQ_CLS,"),
        ("use_dora", 7, "`lora.use_dora` is true or false, found 7"),
        ("target_module", "x", "LoraConfig has no field 'target_module'; did you mean 'target_modules'"),
    ],
)
def test_a_wrong_field_of_lora_is_named(field, value, said):
    with pytest.raises(ConfigError) as caught:
        lora_config({"target_modules": "all-linear", field: value})
    (mistake,) = caught.value.mistakes
    assert said in mistake


def test_all_fields_of_lora_are_checked_at_once():
    with pytest.raises(ConfigError) as caught:
        lora_config({"r": "x", "lora_alpha": "y", "rr": 1})
    assert len(caught.value.mistakes) == 3


def test_templates_and_numbers_as_text_are_taken():
    made = lora_config({"r": "4", "init_lora_weights": "pissa_niter_16", "use_dora": True})
    assert (made.r, made.init_lora_weights, made.use_dora) == (4, "pissa_niter_16", True)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"target_modules": ["no_such"]}, "`lora.target_modules`"),
        ({"target_modules": "all-linear", "init_lora_weights": "gausian"}, "`lora.init_lora_weights`"),
        (LoraConfig(r="abc", target_modules="all-linear"), "lora:"),
    ],
)
def test_what_peft_refuses_names_the_field(given, named):
    with pytest.raises(ConfigError, match="lora") as caught:
        add_lora(tiny_encoder("bert"), given)
    assert named in str(caught.value)
