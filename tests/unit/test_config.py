"""The run file: all mistakes at once with their lines, overrides, and what a user's own file brings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback

from nlp_mtl import registry
from nlp_mtl.config import RunConfig, key_table, load_config
from nlp_mtl.configchecks import callback
from nlp_mtl.errors import ConfigError

quick = settings(max_examples=40, deadline=None)

PLAIN = {"model": "bert-base-cased", "tasks": ["rte", "mrpc"]}


@pytest.fixture(autouse=True)
def no_registry_of_the_user(monkeypatch):
    monkeypatch.delenv("NLP_MTL_REGISTRY", raising=False)


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def mistakes_of(source, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    return caught.value.mistakes


def test_a_run_file_with_all_kinds_of_keys(tmp_path):
    file = write(
        tmp_path,
        """\
model: bert-base-cased
tasks: [rte, {name: sst2, rows: {train: 100}}]
sampler: {name: temperature, temperature: 2.0}
balancer: equal
lora: {r: 8, target_modules: all-linear}
learning_rates: {heads: 1e-3}
heads: {rte: {pooling: mean}}
freeze: "*"
training: {output_dir: runs/x, learning_rate: 5e-5, num_train_epochs: 3}
""",
    )
    config = load_config(file)
    assert config.training["learning_rate"] == 5e-5
    assert config.learning_rates == {"heads": 1e-3}
    assert config.sampler == {"name": "temperature", "temperature": 2.0}
    assert config.tasks[1] == {"name": "sst2", "rows": {"train": 100}}
    assert (config.sharing, config.callbacks, config.data_root) == ("hard", [], None)


def test_all_mistakes_come_at_once_with_their_lines(tmp_path):
    file = write(
        tmp_path,
        """\
modle: bert-base-cased
tasks:
  - rtee
  - {name: mrpc, row: {train: 5}}
max_length: long
sampler: temprature
balancer:
  name: fixed
  wieghts: {rte: 1}
training:
  num_train_epochs: 3
  learning_rat: 5e-5
lora:
  r: 8
  target_module: all-linear
callbacks:
  - transformers:EarlyStoppingCallback
  - transformers:Trainer
  - no_such_module:X
  - SomeCallback
imports: [gone.py]
""",
    )
    mistakes = mistakes_of(file, ["training.warmup_step=3", "oops"])
    for line, *words in [
        (None, "the key 'model' is needed"),
        (1, "unknown key 'modle'", "did you mean 'model'"),
        (2, "unknown task or tag 'rtee'; did you mean 'rte'"),
        (2, "task 'mrpc': unknown key 'row'; did you mean 'rows'"),
        (5, "`max_length` is a whole number, found 'long'; e.g. `max_length: 128`"),
        (6, "unknown sampler 'temprature'; did you mean 'temperature'?"),
        (7, "balancer 'fixed' takes no argument 'wieghts'; did you mean 'weights'?"),
        (7, "balancer 'fixed' needs the argument 'weights'"),
        (12, "TrainingArguments has no field 'learning_rat'; did you mean 'learning_rate'"),
        (10, "TrainingArguments has no field 'warmup_step'; did you mean 'warmup_steps'"),
        (13, "LoraConfig has no field 'target_module'; did you mean 'target_modules'"),
        (18, "'transformers:Trainer' is not a TrainerCallback"),
        (19, "'no_such_module:X' can't be imported"),
        (20, "write module:Class", "'SomeCallback'"),
        (21, "`imports`: no file 'gone.py'"),
    ]:
        start = f"{file}:{line}: " if line else f"{file}: "
        assert any(m.startswith(start) and all(word in m for word in words) for m in mistakes), (line, words, mistakes)
    assert "override 'oops': write key=value, e.g. training.num_train_epochs=1" in mistakes
    assert len(mistakes) == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": {"name": "temperature", "temperature": 0}}, "`temperature` is above 0, found 0"),
        (
            {"sampler": {"name": "temperature", "temperature": "warm"}},
            "`temperature` is a number, found 'warm'; left out, it is 2.0",
        ),
        ({"sampler": {"temperature": 2}}, "expected a name or {name: …, arguments}"),
        ({"balancer": {"name": "equal", "x": 1}}, "balancer 'equal' takes no argument 'x'"),
        ({"sharing": "hrad"}, "unknown sharing 'hrad'; did you mean 'hard'?"),
        ({"sharing": {"name": "hard", "encoder": 1}}, "takes no argument 'encoder'"),
        ({"tasks": []}, "`tasks`"),
        ({"tasks": [{"rows": {"train": 3}}]}, "a task given as a mapping needs `name`"),
        (
            {"tasks": [{"name": "rte", "head": "regresion"}]},
            "task 'rte': unknown head 'regresion'; did you mean 'regression'?",
        ),
        (
            {"tasks": [{"name": "rte", "prepare": "drop_emty"}]},
            "unknown preparation 'drop_emty'; did you mean 'drop_empty'?",
        ),
        ({"tasks": [{"name": "rte", "prepare": "drop_empty"}]}, "'drop_empty' needs the argument 'columns'"),
        ({"lora": {"r": 8, "use_rs_lora": True}}, "no field 'use_rs_lora'; did you mean 'use_rslora'"),
        ({"lora": 8}, "`lora`"),
        ({"training": "long"}, "`training`"),
        (
            {"callbacks": [{"name": "transformers:EarlyStoppingCallback", "patience": 3}]},
            "unexpected keyword argument 'patience'",
        ),
        ({"callbacks": [".x:Y"]}, "can't be imported"),
        ({1: "x"}, "keys are text, found 1; put it into quotes"),
    ],
)
def test_each_mistake_says_what_and_why(changes, words):
    (mistake,) = mistakes_of({**PLAIN, **changes})
    assert mistake.startswith("the run: ")
    assert words in mistake


def test_what_is_no_run_file(tmp_path):
    assert mistakes_of(write(tmp_path, "")) == [
        f"{tmp_path / 'run.yaml'}: a run file is a mapping of keys, found nothing; begin with `model: bert-base-cased`"
    ]
    assert "found ['a']; begin with" in mistakes_of(write(tmp_path, "- a"))[0]
    assert mistakes_of(write(tmp_path, "model: [a\ntasks: b\n"))[0].startswith(
        f"{tmp_path / 'run.yaml'}:2: not valid YAML"
    )
    gone = tmp_path / "gone.yaml"
    assert mistakes_of(gone) == [f"{gone}: no such file, where a YAML file is needed; did you mean 'run.yaml'?"]
    assert mistakes_of(write(tmp_path, "model: a\ntasks: [rte]\nmodel: b\n")) == [
        f"{tmp_path / 'run.yaml'}:3: the key 'model' stands twice, first at line 1; drop one"
    ]


def test_one_task_needs_no_list(tmp_path):
    (tmp_path / "cls.yaml").write_text(
        "name: cls\nhead: sequence_classification\ndataset: {path: csv, data_files: a.csv}\ninputs: [text]\n"
        "target: label\nlabels: [no, yes]\n"
    )
    for said in ("rte", {"name": "rte", "rows": {"train": 3}}):
        assert load_config({**PLAIN, "tasks": said}).tasks == [said]
    assert load_config(write(tmp_path, "model: m\ntasks: cls.yaml\n")).tasks == [str(tmp_path / "cls.yaml")]


def test_a_heads_mistake_names_its_task_once():
    (mistake,) = mistakes_of({**PLAIN, "heads": {"rte": {"pooling": "maen"}}})
    assert mistake == (
        "the run: task 'rte': head 'sequence_classification': `pooling` is one of family, mean, cls, last, "
        "found 'maen'; left out, it is 'family'"
    )


# --------------------------------------------------------------------------------------------------- overrides


def test_overrides_go_deep_and_have_yamls_types():
    config = load_config(
        {**PLAIN, "training": {"learning_rate": 1.0, "seed": 1}},
        [
            "training.learning_rate=5e-5",
            "training.report_to=none",
            "tasks=[cola, rte]",
            "max_length=64",
            "lora.r=4",
            "data_root=~",
        ],
    )
    assert config.training == {"learning_rate": 5e-5, "seed": 1, "report_to": "none"}
    assert config.tasks == ["cola", "rte"]
    assert config.max_length == 64
    assert config.lora == {"r": 4}
    assert config.data_root is None


def test_an_argument_of_a_strategy_named_by_its_name_alone():
    given_ = {**PLAIN, "sampler": "temperature"}
    assert load_config(given_, ["sampler.temperature=5"]).sampler == {"name": "temperature", "temperature": 5}
    assert load_config(PLAIN, ["sampler=temperature", "sampler.temperature=5"]).sampler["temperature"] == 5
    (mistake,) = mistakes_of(PLAIN, ["sampler.temperature=5"])
    assert "sampler 'proportional' takes no argument 'temperature'" in mistake
    assert load_config(PLAIN, ["sampler.epoch=largest"]).sampler == {"name": "proportional", "epoch": "largest"}


def test_what_an_override_says_wrong_is_not_told_of_the_file(tmp_path):
    """With ``tasks=…`` alone the file is one of the package, which nobody wrote."""
    file = tmp_path / "run.yaml"
    file.write_text("model: bert-base-cased\ntasks: [rte]\nsampler: {name: proportional, tempo: 2}\n")
    mistakes = mistakes_of(file, ["tasks=[nix.yaml, colaa]"])
    assert [m for m in mistakes if m.startswith("override 'tasks=[nix.yaml, colaa]': ")] == mistakes[1:3]
    assert f"{file}:3: " in mistakes[0] and len(mistakes) == 3


def test_later_overrides_win_and_the_source_is_left_alone():
    source = {**PLAIN, "training": {"seed": 1}}
    assert load_config(source, ["training.seed=2", "training.seed=3"]).training == {"seed": 3}
    assert source == {**PLAIN, "training": {"seed": 1}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training", "write key=value"),
        ("=3", "write key=value"),
        ("training.seed=[1", "override training.seed:"),
        ("tasks.0=rte", "'tasks' holds ['rte', 'mrpc'], which has no parts"),
        ("max_length.x=3", "`max_length`"),
        ("traning.seed=3", "unknown key 'traning'; did you mean 'training'"),
    ],
)
def test_wrong_overrides(override, words):
    assert any(words in mistake for mistake in mistakes_of(PLAIN, [override]))


values = st.one_of(
    st.integers(-1000, 1000), st.floats(-1e6, 1e6), st.booleans(), st.text("abc xyz", min_size=1).filter(str.strip)
)


@quick
@given(value=values)
def test_any_value_can_be_given_as_an_override(value):
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    value = abs(value) if isinstance(value, float) else value
    text = repr(value) if isinstance(value, float) else text
    key = "learning_rates.heads" if isinstance(value, float) else "training.accelerator_config.x"
    got = load_config(PLAIN, [f"{key}={text}"])
    read = got.learning_rates["heads"] if isinstance(value, float) else got.training["accelerator_config"]["x"]
    assert repr(read) == repr(value)


# ------------------------------------------------------------------------------------------ the user's own files

OWN = """\
import numpy as np
from nlp_mtl.registry import samplers
from nlp_mtl.samplers import Sampler

@samplers.register("{name}")
class Own(Sampler):
    '''The first task only.'''

    def __init__(self, share: float = 1.0):
        super().__init__()
        self.share = share

    def rates(self, at):
        return np.eye(len(self.sizes))[0]
"""


@pytest.fixture
def clean_up():
    before, known = set(sys.modules), dict(registry.samplers._entries)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("nlp_mtl_imports_"):
            del sys.modules[name]
    registry.samplers._entries.clear()
    registry.samplers._entries.update(known)


def test_a_file_beside_the_run_file_may_bring_a_sampler(tmp_path, clean_up):
    write(tmp_path, OWN.format(name="own_first"), "own.py")
    text = "model: m\ntasks: [rte]\nsampler: {name: own_first, share: 0.5}\n"
    (mistake,) = mistakes_of(write(tmp_path, text))
    assert "unknown sampler 'own_first'" in mistake
    file = write(tmp_path, text + "imports: [own.py]\n")
    for _ in range(2):  # a second run in the same process is no second registration
        config = load_config(file)
    built = registry.samplers.build(config.sampler)
    assert built.share == 0.5
    (mistake,) = mistakes_of(file, ["sampler.shar=1"])
    assert mistake.startswith(f"{file}:3: sampler 'own_first' takes no argument 'shar'; did you mean 'share'?")


def test_files_are_also_found_in_the_working_folder(tmp_path, clean_up, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, OWN.format(name="own_here"), "here.py")
    assert load_config({**PLAIN, "imports": ["here.py"], "sampler": "own_here"}).sampler == "own_here"


def test_a_file_of_ones_own_that_fails_or_takes_a_known_name(tmp_path, clean_up):
    write(tmp_path, "x = 1\nraise KeyError('why')\n", "broken.py")
    file = write(tmp_path, "model: m\ntasks: [rte]\nimports: [broken.py]\n")
    (mistake,) = mistakes_of(file)
    assert mistake.startswith(f"{file}:3: `imports`: {tmp_path / 'broken.py'} fails: KeyError: 'why'")
    assert "nlp_mtl_imports_broken" not in sys.modules
    write(tmp_path, OWN.format(name="uniform"), "broken.py")
    (mistake,) = mistakes_of(file)
    assert "sampler 'uniform' is registered twice" in mistake


# --------------------------------------------------------------------------------------------------- callbacks


def test_callbacks_are_made_with_their_arguments():
    made = callback({"name": "transformers:EarlyStoppingCallback", "early_stopping_patience": 7})
    assert isinstance(made, EarlyStoppingCallback)
    assert made.early_stopping_patience == 7
    assert isinstance(callback("transformers:EarlyStoppingCallback"), EarlyStoppingCallback)


@pytest.mark.parametrize(
    "spec", ["Early", "transformers:", "transformers:Nope", "transformers:Trainer", "nope:X", ":X", ".a:X", {"x": 1}]
)
def test_what_is_no_callback(spec):
    with pytest.raises(ConfigError, match="callbacks"):
        callback(spec)


def test_the_table_of_keys_tells_them_all():
    rows = key_table()
    assert [name for name, _, _ in rows] == list(RunConfig.model_fields)
    told = {name: default for name, default, _ in rows}
    assert (told["model"], told["sampler"], told["lora"]) == ("needed", "proportional", "—")
    assert all(meaning for _, _, meaning in rows)
