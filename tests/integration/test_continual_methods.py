"""A-GEM, O-LoRA and a reservoir as ways of a study: what each stage is told, and that it goes on after a cut."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nlp_mtl import MultiTaskModel, checkpoint, continual, yamlfile
from nlp_mtl.errors import ConfigError
from nlp_mtl.forgetting.plan import load_continual
from nlp_mtl.regularizers.o_lora import load_earlier
from nlp_mtl.run import train
from nlp_mtl.stageplan import stages_of
from tests.integration.test_processes import agree, run
from tests.integration.test_resume import same
from tests.integration.tiny import config, state_of, write_base, write_tasks

torch.set_num_threads(1)
LORA = {"r": 2, "target_modules": "all-linear"}
WAYS = {
    "a-gem": {"replay": 4, "balancer": "a_gem"},
    "o-lora": {"lora": LORA, "regularizers": ["o_lora"]},
    "reservoir": {"replay": {"total": 10}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    tasks, base = write_tasks(folder / "data", rows=32), write_base(folder / "base")
    run = config(base, tasks[:2], folder / "nowhere", training={"max_steps": 3, "learning_rate": 1e-2})
    keys = {"run": run, "methods": WAYS, "seeds": [0], "output_dir": str(folder / "out")}
    return folder, base, tasks, keys


def test_the_stages_say_what_was_learned_before(world):
    folder, _, tasks, keys = world
    keys = {**keys, "run": {**keys["run"], "tasks": tasks[:3]}}
    runs = {run.method: run.keys["stages"] for run in load_continual(keys)[2]}
    assert ["balancer" in stage for stage in runs["a-gem"]] == [False, True, True]
    assert runs["a-gem"][2]["balancer"] == {"name": "a_gem", "memory": ["mood", "alike"]}
    assert [stage.get("init_from") for stage in runs["o-lora"]] == [None, {"merge": True}, {"merge": True}]
    place = str(folder / "out" / "o-lora" / "seed-0" / "2-alike")
    assert runs["o-lora"][2]["regularizers"] == [{"name": "o_lora", "earlier": place}]
    first, second, third = runs["reservoir"]
    assert [item for item in first["tasks"] if isinstance(item, dict)] == []
    assert second["tasks"][0]["rows"] == {"train": 10} and second["train_tasks"] == ["mood", "alike"]
    assert sum(item["rows"]["train"] for item in third["tasks"][:2]) == 10
    assert third["tasks"][0]["rows"]["train"] < 10, "later tasks push earlier ones out"


def test_one_regularizer_needs_no_list(world):
    _, _, _, keys = world
    for alone in ("ewc", {"name": "ewc", "strength": 3}):
        one, listed = (
            load_continual({**keys, "methods": {"way": {"regularizers": said}}})[2][0].keys["stages"]
            for said in (alone, [alone])
        )
        assert one == listed and one[1]["regularizers"][0]["name"] == "ewc"


def test_each_way_runs_and_memory_is_left_as_it_is(world):
    folder, base, _, keys = world
    ways = {name: WAYS[name] for name in ("a-gem", "o-lora")}
    found = continual({**keys, "methods": ways})
    assert set(found.courses) == set(ways) and not found.failed
    first, second = (
        MultiTaskModel.from_pretrained(folder / "out/a-gem/seed-0" / name).module_of("mood").state_dict()
        for name in ("1-mood", "2-alike")
    )
    assert same(first, second)
    ends = [folder / "out/o-lora/seed-0" / name for name in ("1-mood", "2-alike")]
    assert {len(value) for value in load_earlier(ends[1]).values()} == {4}
    assert (ends[1] / "encoder" / "model.safetensors").is_file() and not (ends[0] / "encoder").exists()
    log = json.loads((ends[1] / "metrics.json").read_text())["log"]
    assert [entry["penalty_o_lora"] > 0 for entry in log if "penalty_o_lora" in entry] == [True] * 3
    said = yamlfile.load(ends[1] / "run.yaml")[0]
    assert said["init_from"] == {"run": str(ends[0]), "merge": True}
    heads = (MultiTaskModel.from_pretrained(end, base=base).module_of("mood").state_dict() for end in ends)
    assert same(*heads)


def test_a_stage_on_merged_loras_that_was_cut_off_goes_on_to_the_same_bits(world, tmp_path):
    _, _, _, keys = world
    (planned,) = load_continual({**keys, "methods": {"o-lora": WAYS["o-lora"]}, "output_dir": str(tmp_path)})[2]
    more = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    said = {**planned.keys, "training": {**planned.keys["training"], **more}}
    states = state_of(train(said).model)
    place = planned.folder / "2-alike"
    left = load_earlier(place)
    shutil.rmtree(place / "checkpoint-4")
    for name in ("metrics.json", "o_lora.safetensors"):
        (place / name).unlink()
    assert [part.name for part in checkpoint.checkpoints(place)] == ["checkpoint-2"]
    assert same(states, state_of(train(said, resume=True).model))
    assert same(left, load_earlier(place))


@pytest.mark.processes
def test_two_processes_equal_one(world, tmp_path, forked_python):
    """Memory turns the averaged step, and the penalty is the same on both; of 7 rows counts differ."""
    _, base, tasks, _ = world
    lora = {"r": 2, "target_modules": "all-linear"}
    train(config(base, tasks[:2], tmp_path / "start", lora=lora, training={"max_steps": 2, "learning_rate": 1e-2}))
    start = str(tmp_path / "start")
    changes = {
        "lora": lora,
        "init_from": {"run": start, "merge": True},
        "regularizers": [{"name": "o_lora", "earlier": start, "strength": 5.0}],
        "balancer": {"name": "a_gem", "memory": ["mood"]},
        "sampler": {"name": "fixed", "rates": {"mood": 2, "alike": 1, "names": 3, "rainy": 3}},
    }
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 4}
    one = config(base, tasks, tmp_path / "one", **changes, training=shape)
    two = config(base, tasks, tmp_path / "two", **changes, training={**shape, "gradient_accumulation_steps": 1})
    _, alone = run(forked_python, tmp_path, {"config": one}, name="kept-one")
    found, both = run(forked_python, tmp_path, {"config": two}, processes=2, name="kept-two")
    assert found["world"] == 2 and len(set(found["digests"])) == 1
    assert all(entry["penalty_o_lora"] > 0 for entry in found["log"])
    agree(both, alone, atol=1e-6, rtol=1e-5)
    assert load_earlier(tmp_path / "one").keys() == load_earlier(tmp_path / "two").keys()


def test_what_a_way_lacks_is_said(world):
    _, _, _, keys = world
    with pytest.raises(
        ConfigError, match="balancer 'a_gem': compares with rows of earlier tasks, and this way has none"
    ):
        continual({**keys, "methods": {"x": {"balancer": "a_gem"}}})
    with pytest.raises(ConfigError, match="stage 2: init_from: takes no 'merg'; did you mean 'merge'"):
        stages_of({"model": "m", "tasks": ["a"], "stages": [{}, {"init_from": {"merg": True}}]})


def test_a_stage_says_how_it_starts():
    stages = [{"name": "one"}, {"init_from": {"merge": True}}, {"init_from": {"run": "one", "heads": {"b": "a"}}}]
    stages.append({"init_from": {"run": "runs/other", "merge": True}})
    found = stages_of({"model": "m", "tasks": ["a"], "stages": stages})
    assert [(stage.after, stage.start) for stage in found[1:]] == [
        (0, {"merge": True}),
        (0, {"heads": {"b": "a"}}),
        (None, {}),
    ]
    assert found[3].keys["init_from"] == {"run": "runs/other", "merge": True}
