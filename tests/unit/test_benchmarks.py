"""The arithmetic of the speed benchmarks: what is counted, what is left out, and what is put beside what."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Import one of the scripts as they import each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


# ------------------------------------------------------------------------------------------------ model FLOPs


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_formula_is_what_torch_counts(script, rank, layers):
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24
    )
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False)
    if rank:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    rows, length = 3, 7
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.ones(rows, length, dtype=torch.long)).last_hidden_state.sum().backward()
    sizes = script("flops").Sizes.of(config, rank)
    expected = rows * length * sizes.per_token() + sizes.attention(rows * length**2)
    assert counted.get_total_flops() == expected


def test_the_weights_are_those_of_the_blocks(script):
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    blocks = BertModel(config, add_pooling_layer=False).encoder
    linear = sum(part.weight.numel() for part in blocks.modules() if isinstance(part, torch.nn.Linear))
    assert script("flops").Sizes.of(config).weights == linear


def test_a_product_is_no_faster_than_the_fastest(script):
    config = BertConfig(hidden_size=16, intermediate_size=32)
    found = script("flops").matrix_peak(config, 32, seconds=0.01, dtype=torch.float32)
    assert 0 < found["products"] <= found["peak"]


# ------------------------------------------------------------------------------------------- what is counted


def steps(*seconds, training=0, tokens=10):
    return [[training, tokens, tokens**2, value, value] for value in seconds]


def test_the_first_steps_are_left_out(script):
    found = script("racing").speed(steps(*[100.0] * 10, 2.0, 3.0))
    assert found["tokens_per_s"] == 20 / 5
    assert found["steps"] == 2


def test_of_several_trainings_the_faster_way_of_counting_is_taken(script):
    slow_starts = [*steps(*[1.0] * 3), *steps(5.0, 1.0, 1.0, training=1)]
    assert script("racing").speed(slow_starts, untimed=1)["tokens_per_s"] == 10.0  # each training's first left out
    quick_starts = [*steps(1.0, 0.5, 2.0), *steps(0.5, 2.0, 2.0, training=1)]
    assert script("racing").speed(quick_starts, untimed=1)["tokens_per_s"] == 50 / 7.0


def test_without_a_timed_step_there_is_no_speed(script):
    with pytest.raises(ValueError, match="of 10 steps the first 10"):
        script("racing").speed(steps(*[1.0] * 10))


def test_a_ratio_is_taken_round_by_round(script):
    found = script("racing").ratios([10.0, 100.0, 30.0], [5.0, 25.0, 10.0])  # a machine that was slow, fast, slow
    assert found == {"median": 3.0, "least": 2.0, "most": 4.0}


def rounds_of(**speeds):
    return [
        {name: {"tokens_per_s": values[number], "steps": 100, "processors": 2.0} for name, values in speeds.items()}
        for number in range(len(next(iter(speeds.values()))))
    ]


def test_the_summary_puts_lora_beside_lora_and_names_what_was_not_run(script, tmp_path):
    speed = script("train_speed")
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config.save_pretrained(tmp_path)
    given = argparse.Namespace(only=["ours", "ours-lora", "plain", "peft"], tasknet=None, rows=9, model=str(tmp_path))
    names = speed.TITLE
    found = speed.summary(
        rounds_of(
            **{
                names["ours"]: [30.0, 60.0],
                names["ours-lora"]: [50.0, 100.0],
                f"{names['plain']}: a": [10.0, 20.0],
                f"{names['plain']}: b": [15.0, 20.0],
                f"{names['peft']}: a": [10.0, 20.0],
            }
        ),
        [{"peak": 1e-3, "products": 5e-4}, {"peak": 2.0, "products": 1.0}],
        given,
        {},
        {"tasknet: bf16": "no such module"},
    )
    over = {name: value["median"] for name, value in found["ours_over"].items()}
    assert over == {f"{names['plain']}: a": 3.0, f"{names['plain']}: b": 2.5, f"{names['peft']}: a": 5.0}
    assert found["best"] == {"plain": f"{names['plain']}: b", "peft": f"{names['peft']}: a"}
    assert found["share_of_peak"][names["ours"]] == round(45 * 6 * (4 * 64 + 2 * 128) / 2e9, 3)
    assert any("tasknet (--only)" in name for name in found["not_run"])
    assert "tasknet: bf16 (no such module)" in found["not_run"]


def test_a_look_keeps_the_fastest_settings(script):
    assert script("train_speed").fastest({"a": 1.0, "b": 3.0, "c": 2.0}) == ["b", "c"]


@pytest.mark.parametrize(("who", "count"), [("plain", 16), ("peft", 16), ("tasknet", 8)])
def test_all_settings_are_looked_at_once(script, who, count):
    found = script("train_speed").settings(who)
    assert len({name for name, _ in found}) == len(found) == count
    rows = {
        how["arguments"].get("per_device_train_batch_size", 32) * how["arguments"].get("gradient_accumulation_steps", 1)
        for _, how in found
    }
    assert rows == {32}, "every update is of as many rows"


# ------------------------------------------------------------------------------------------------- in turns

TRAINING = """
import sys, torch
from torch import nn
from transformers import Trainer, TrainingArguments

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, attention_mask, labels=None):
        return {"loss": self.layer(attention_mask.float()).sum()}

rows = [{"attention_mask": [1] * (1 + i % 4) + [0] * (3 - i % 4), "labels": 0} for i in range(24)]
for _ in range(2):
    arguments = TrainingArguments("out", per_device_train_batch_size=2, num_train_epochs=1, report_to="none",
                                  save_strategy="no", use_cpu=True, disable_tqdm=True)
    Trainer(model=Model(), args=arguments, train_dataset=rows).train()
with open(sys.argv[1], "a") as file:
    file.write("end ")
"""


def test_contenders_take_turns_and_are_timed_alike(script, tmp_path, forked_python):
    racing = script("racing")
    file = tmp_path / "training.py"
    file.write_text(TRAINING)
    ends = tmp_path / "ends"
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such data')")
    laps = []
    found = racing.race(
        [
            racing.Contender("one", file, (str(ends),), python=forked_python),
            racing.Contender("two", file, (str(ends),), {"per_device_train_batch_size": 4}, forked_python),
            racing.Contender("none", broken, (), python=forked_python),
        ],
        every=5,
        between=lambda: laps.append(1),
    )
    assert len(laps) == 5  # of five steps each, the last of four
    assert ends.read_text() == "end end "
    one, two = found["one"]["steps"], found["two"]["steps"]
    assert [len(one), len(two)] == [24, 12]  # the argument took the place of the script's own
    assert [step[0] for step in two] == [0] * 6 + [1] * 6
    assert sum(step[1] for step in one) == sum(step[1] for step in two) == 2 * 60
    assert sum(step[2] for step in one) == 2 * 6 * (1 + 4 + 9 + 16)
    assert all(step[3] > 0 for step in (*one, *two))
    assert "no such data" in found["none"]["failed"]


def test_waiting_for_a_turn_is_not_timed(script, tmp_path, forked_python):
    file, out = tmp_path / "training.py", tmp_path / "timed.json"
    file.write_text(TRAINING)
    read, give = os.pipe()
    hear, write = os.pipe()
    command = [forked_python, str(SCRIPTS / "timed.py"), "--out", str(out), "--every", "8", str(file), os.devnull]
    env = {**os.environ, "NLP_MTL_TURN": f"{read} {write}"}
    with subprocess.Popen(command, cwd=tmp_path, env=env, pass_fds=(read, write), stdout=subprocess.DEVNULL) as process:
        os.close(read)
        os.close(write)
        import time

        while os.read(hear, 1) == b".":
            time.sleep(1.0)
            os.write(give, b".")
    for end in (give, hear):
        os.close(end)
    assert process.returncode == 0
    assert max(step[3] for step in json.loads(out.read_text())["steps"]) < 1.0


def test_profiles_count_steps_and_products(script):
    timed = {
        "steps": [*steps(*[1.0] * 6), *steps(*[1.0] * 5, training=1)],
        "operations": {"aten::mm": [6, 0.6], "aten::add": [3, 0.3], "aten::tanh": [3, 0.1]},
    }
    found = script("profiles").table(timed, top=2)
    assert found["steps"] == 3  # four of each training come before the profiler
    assert found["in_products"] == pytest.approx(0.6)
    assert found["operations"] == [["aten::mm", 2.0, 200.0, 0.6], ["aten::add", 1.0, 100.0, 0.3]]
