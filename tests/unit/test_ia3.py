"""IA3 through PEFT: packed, trained, saved, merged and taken out like a LoRA."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

from nlp_mtl.adapting.adding import add_task
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.exporting.export import export_task
from nlp_mtl.layout import Layout
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import base_of
from nlp_mtl.run import train
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import config, state_of, write_base, write_tasks

IA3 = {"peft_type": "IA3"}


def with_scales(model):
    """Scales that are not 1, as training would leave them."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ia3_" in name:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def states(encoder, ids):
    with torch.inference_mode():
        return encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_packed_it_computes_what_peft_computes(family):

    model = with_scales(tiny_model(["cola", "rte"], family, lora=IA3))
    assert {name for name, p in model.sharing.named_parameters() if p.requires_grad and "ia3_" not in name} == set()
    rows = [[2, 9, 10, 3], [2, 8, 3], [2, 11, 12, 13, 14, 3]]
    expected = torch.cat([states(model.sharing.encoder, ids) for ids in rows])
    layout = Layout([len(ids) for ids in rows], torch.device("cpu"))
    with torch.inference_mode():
        packed = model.sharing.encode(
            {"input_ids": torch.tensor([token for ids in rows for token in ids])}, layout, ["cola"]
        )["cola"]
    torch.testing.assert_close(packed.hidden, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["model", "adapter"])
def test_a_task_leaves_with_its_scales(tmp_path, form):
    from transformers import AutoModelForSequenceClassification

    model = with_scales(tiny_model(["cola", "rte"], lora=IA3))
    done = export_task(model, "cola", tmp_path / "out", form)
    assert done.difference <= 1e-5
    if form == "adapter":
        plain = tiny_model(["cola"])
        base = AutoModelForSequenceClassification.from_config(plain.module_of("cola").config)
        base.bert.load_state_dict(base_of(plain.sharing.encoder).state_dict(), strict=False)
        loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
        ids = [2, 9, 10, 3]
        with torch.inference_mode():
            found = loaded.base_model.model.bert(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(found, states(model.sharing.encoder, ids), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("balancer", ["equal", "pcgrad"])
def test_it_trains_and_loads_to_the_same_bits(tmp_path, balancer):
    base, tasks = write_base(tmp_path / "base"), write_tasks(tmp_path / "data", rows=24)
    shape = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_strategy": "epoch"}
    made = train(config(base, tasks, tmp_path / "run", lora=IA3, balancer=balancer, training=shape)).model
    scales = {name: value for name, value in state_of(made).items() if "ia3_" in name}
    assert len(scales) > 2
    assert all((value != 1).any() for value in scales.values())
    again = MultiTaskModel.from_pretrained(tmp_path / "run", base=base, trainable=True)
    for name, value in state_of(made).items():
        assert torch.equal(state_of(again)[name], value), name


def test_a_step_moves_scales_and_heads_alone(tmp_path):
    model = tiny_model(["cola"], lora={**IA3, "target_modules": ["key"], "feedforward_modules": []})
    trained = [name for name, p in model.sharing.named_parameters() if p.requires_grad]
    assert len(trained) == 2
    assert all(".key.ia3_l." in name for name in trained)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"lora": {"peft_type": "IA4"}}, "`peft_type` is LORA or IA3, found 'IA4'"),
        ({"lora": {"peft_type": "PREFIX_TUNING"}}, "condition: prefix"),
        ({"lora": {**IA3, "target_module": ["key"]}}, "IA3Config has no field 'target_module'; did you mean"),
        ({"lora": {**IA3, "r": 8}}, "IA3Config has no field 'r'"),
        ({"lora": IA3, "sharing": "branch"}, "`peft_type: IA3` goes with `sharing: hard` alone"),
        ({"lora": IA3, "task_lora": {"r": 2, "target_modules": "all-linear"}}, "found `task_lora`; use a LoRA there"),
        ({"task_lora": IA3}, "an adapter for each task is a LoRA"),
        ({"lora": {**IA3, "target_modules": ["nowhere"]}}, "nowhere"),
    ],
)
def test_what_does_not_go_together_is_refused(how, said):
    with pytest.raises(ConfigError, match=said):
        tiny_model(["cola", "rte"], **how)


def test_no_adapter_stands_beside_it(tmp_path):
    files, base = write_tasks(tmp_path / "data"), write_base(tmp_path / "base")
    train(config(base, files[:1], tmp_path / "run", lora=IA3, training={"max_steps": 1}))
    with pytest.raises(UnsupportedError, match=r"beside this run's IA3 no other adapter can stand; .*--keep replay"):
        add_task(tmp_path / "run", files[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()
