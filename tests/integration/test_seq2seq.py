"""Tasks that write, in training beside tasks that do not: resumed, over processes, balanced, saved, served."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

import nlp_mtl as mtl
from nlp_mtl import checkpoint
from nlp_mtl.run import train
from tests.hubserver.client import Worker, environment
from tests.hubserver.server import HubServer
from tests.hubserver.store import User
from tests.integration.test_processes import agree, run
from tests.integration.tiny import config, state_of, write_base, write_tasks, write_texts, write_writer
from tests.unit.test_gradients import by_autograd, by_taps, close

LORA = {"r": 4, "target_modules": "all-linear"}
OWN = {"decoder": {"layers": 1}, "target_tokenizer": {"vocab_size": 300}}
WAYS = ["t5", "t5_lora", "bart", "bert", "bert_lora", "bert_task", "bart_task"]


def a_world(folder, way, *, dropout=0.0):
    """The base, the tasks' files (NER and a classification beside two that write), and what else the run says."""
    family, _, tuning = way.partition("_")
    tasks = write_tasks(folder / "data")
    if family == "bert":
        base, writing = write_base(folder / "base", dropout=dropout), write_texts(folder / "texts", **OWN)
    else:
        base, writing = write_writer(folder / "base", family, dropout=dropout), write_texts(folder / "texts")
    key = {"lora": "lora", "task": "task_lora"}.get(tuning)
    changes = {key: {**LORA, "lora_dropout": dropout}} if key else {}
    return base, [*writing, tasks[0], tasks[2]], changes


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_is_bit_for_bit_the_run(tmp_path, way):
    base, tasks, changes = a_world(tmp_path, way, dropout=0.1)
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "lr_scheduler_type": "constant"}
    whole = train(config(base, tasks, tmp_path / "whole", **changes, training=saving))
    train(config(base, tasks, tmp_path / "cut", **changes, training={**saving, "max_steps": 2}))
    resumed = train(config(base, tasks, tmp_path / "cut", **changes, training=saving), resume=True)
    ours, theirs = state_of(whole.model), state_of(resumed.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    loaded = mtl.MultiTaskModel.from_pretrained(tmp_path / "whole", base=base)
    kept, saved = whole.model.state_dict(), loaded.state_dict()
    assert all(torch.equal(kept[name], saved[name]) for name in kept), "the run folder holds the same bits"
    scores = json.loads((tmp_path / "whole" / "metrics.json").read_text(encoding="utf-8"))
    assert set(scores["validation"]) == {"back", "last", "mood", "names"}
    assert mtl.predict(loaded, "the red cat")["last"].keys() == {"text"}
    done = mtl.export_task(tmp_path / "whole", "back", tmp_path / "out", base=base)
    assert done.difference < 1e-5
    assert checkpoint.damage(checkpoint.checkpoints(tmp_path / "whole")[-1]) is None


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_decoder_begins_with_the_checkpoints_own_weights(tmp_path, family):
    base, tasks, _ = a_world(tmp_path, family)
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=64)
    plain = dict(AutoModelForSeq2SeqLM.from_pretrained(base).named_parameters(remove_duplicate=False))
    ours = dict(model.module_of("back").named_parameters(remove_duplicate=False))
    decoder = [name for name in plain if "decoder" in name or "lm_head" in name]
    assert len(decoder) > 10
    assert all(torch.equal(ours[name], plain[name]) for name in decoder)
    assert model.module_of("last") is model.module_of("back"), "one decoder for two tasks"
    model.save_pretrained(tmp_path / "saved")
    assert not any("encoder" in name.split(".") for name in load_file(tmp_path / "saved" / "heads.safetensors"))


@pytest.mark.processes
@pytest.mark.parametrize("way", ["t5", "bert", "bert_lora"])
def test_two_processes_equal_one(tmp_path, forked_python, way):
    base, tasks, changes = a_world(tmp_path, way)
    changes["sampler"] = {"name": "fixed", "rates": {"back": 3, "last": 1, "mood": 1, "names": 2}}
    shape = {"per_device_train_batch_size": 7, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    one = {
        "config": config(base, tasks, tmp_path / "one", **changes, training={**shape, "gradient_accumulation_steps": 2})
    }
    two = {"config": config(base, tasks, tmp_path / "two", **changes, training=shape)}
    log_one, state_one = run(forked_python, tmp_path, one, name=f"{way}-writes-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name=f"{way}-writes-two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith("loss"):
                assert b[key] == pytest.approx(a[key], abs=1e-5, rel=1e-4), key
    agree(state_two, state_one, atol=2e-5, rtol=1e-3)
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["validation"] for name in ("one", "two")]
    assert scores[0]["back"] == pytest.approx(scores[1]["back"], abs=1e-3)


@pytest.mark.parametrize("balancer", ["pcgrad", "upgrad", "uncertainty", "rows"])
@pytest.mark.parametrize("way", ["t5", "bert_lora"])
def test_balancers_weigh_what_the_encoder_is_told(tmp_path, way, balancer):
    base, tasks, changes = a_world(tmp_path, way)
    made = train(config(base, tasks, tmp_path / "run", **changes, balancer=balancer, training={"max_steps": 3}))
    shared = {id(p) for p in made.model.sharing.shared_parameters()}
    own = [n for n, p in made.model.module_of("back").named_parameters() if id(p) not in shared]
    assert any("crossattention" in name or "EncDecAttention" in name for name in own), "the decoder is its head's"
    losses = [entry["loss"] for entry in made.trainer.state.log_history if "loss" in entry]
    assert all(0 < loss < 100 for loss in losses)


def test_gradients_of_a_decoder_and_a_shared_embedding_are_autograds(tmp_path):
    """T5's embedding is reached through the encoder and through each decoder: found out by itself, told apart."""
    from nlp_mtl.batches import Collator
    from nlp_mtl.data import load_data

    for way in ("t5", "bert"):
        base, tasks, _ = a_world(tmp_path / way, way)
        model = mtl.MultiTaskModel.from_base(base, tasks, max_length=64).eval()
        data = load_data(model.heads, model.tokenizer, max_length=64)
        pools = data.splits["train"]
        batch = Collator(pools, data.heads, training=True)(
            [(pool, row, 0) for pool in range(len(pools)) for row in range(3)]
        )
        shared = list(model.sharing.shared_parameters())
        theirs, _ = by_autograd(model, batch, shared)
        close(by_taps(model, [batch], shared).slots.jacobian(), theirs, 2e-4)


@pytest.mark.processes
@pytest.mark.parametrize("way", ["t5", pytest.param("bert_lora", marks=pytest.mark.long)])
def test_a_run_that_writes_goes_to_the_hub_and_back(tmp_path, session_cache, way):
    base, tasks, changes = a_world(tmp_path, way)
    train(config(base, tasks, tmp_path / "run", **changes, training={"max_steps": 2}))
    with HubServer() as server:
        server.store.users |= {"mine": User("me")}
        process = Worker(environment(server.endpoint, tmp_path / "hf", session_cache, "mine"), tmp_path)
        upload = "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('me/tiny');"
        assert process.code(f"{upload} api.upload_folder(repo_id='me/tiny', folder_path={base!r})").code == 0
        said = process.cli("push", tmp_path / "run", "me/writes", "--base", base, "--base-model", "me/tiny").fine()
        files = server.files("me/writes")
        assert "_decoders/back/decoder.json" in files
        if way == "bert_lora":
            assert "back: its decoder was trained in full and is no adapter" in said
            assert "mood/adapter_config.json" in files
        asked = ("the red cat", "--dtype", "float32")
        ours = process.cli("predict", tmp_path / "run", *asked, "--base", base).fine()
        assert process.cli("predict", "me/writes", *asked).fine() == ours
        process.close()
