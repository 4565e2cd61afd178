"""Several processes equal one: same losses and same weights, with DDP and FSDP2, full and LoRA."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.integration.tiny import config, write_base, write_rare, write_tasks

pytestmark = pytest.mark.processes
WORKER = Path(__file__).parent / "tiny.py"
FSDP = {
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"},
}


def run(python: str, folder: Path, said: dict, *, processes: int = 1, name: str) -> tuple[dict, dict]:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(said))
    command = [python, str(WORKER), str(file)]
    if processes > 1:
        launch = ["--nproc_per_node", str(processes), "--master_port", str(29500 + hash(name) % 400), "--no_python"]
        command = [python, "-m", "torch.distributed.run", *launch, *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(file.with_suffix(".log.json").read_text()), torch.load(file.with_suffix(".pt"), weights_only=True)


def agree(found, wanted, **tolerance):
    """The same parameters. A bias that all keys have in common has no gradient but rounding, which AdamW enlarges."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        within = {**tolerance, "atol": 1e-4} if name.endswith("key.bias") else tolerance
        torch.testing.assert_close(found[name], value, **within, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("way", ["full", "lora", "task_lora", "fsdp", "fsdp_task_lora", "recomputed"])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path, forked_python, way):
    tasks = write_tasks(tmp_path / "data")
    base = write_base(tmp_path / "base")
    # 7 rows for 2 processes and a sampler that shows one task at a time: counts differ, tasks are absent on a process
    changes = {"sampler": {"name": "fixed", "rates": {"mood": 5, "alike": 1, "names": 3, "rainy": 3}}}
    if "lora" in way:
        changes["lora"] = {"r": 4, "target_modules": "all-linear"}
    if "task_lora" in way:
        changes["task_lora"] = {"r": 2, "target_modules": "all-linear"}
    more = {"fsdp": FSDP, "fsdp_task_lora": FSDP, "recomputed": {"activation_checkpointing": True}}.get(way, {})
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 6}
    one = {"config": config(base, tasks, tmp_path / "one", **changes, training=shape)}
    halves = {**shape, "per_device_train_batch_size": 7, "gradient_accumulation_steps": 1, **more}
    two = {"config": config(base, tasks, tmp_path / "two", **changes, training=halves)}
    log_one, state_one = run(forked_python, tmp_path, one, name=f"{way}-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name=f"{way}-two")
    assert (log_one["world"], log_two["world"]) == (1, 2)
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        assert {k for k in a if k.startswith("loss")} == {k for k in b if k.startswith("loss")}
        for key in a:
            if key.startswith(("loss", "grad_norm")):
                assert b[key] == pytest.approx(a[key], abs=1e-6, rel=1e-5), key
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_weighed_losses_and_tuned_thresholds_are_those_of_one_process(tmp_path, forked_python, way):
    tasks = write_rare(tmp_path / "data")
    base = write_base(tmp_path / "base")
    # 7 rows for 2 processes: counts of rare rows and of words differ between them
    shape = {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "max_steps": 6, "learning_rate": 5e-3}
    one = {"config": config(base, tasks, tmp_path / "one", training=shape)}
    more = FSDP if way == "fsdp" else {}
    halves = {**shape, "gradient_accumulation_steps": 1, "per_device_eval_batch_size": 3, **more}
    two = {"config": config(base, tasks, tmp_path / "two", training=halves)}
    log_one, state_one = run(forked_python, tmp_path, one, name=f"rare-{way}-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name=f"rare-{way}-two")
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        for key in a:
            if key.startswith(("loss", "grad_norm")):
                assert b[key] == pytest.approx(a[key], abs=1e-6, rel=1e-5), key
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)
    (alone,), (first, second) = log_one["chosen"], log_two["chosen"]
    assert first == second, "to the bit"
    for task in ("rare", "many"):
        assert first[task] == pytest.approx(alone[task], abs=1e-4)
        assert any(value != 0.5 for value in alone[task].values())
    for folder, found in ((tmp_path / "one", alone), (tmp_path / "two", first)):
        said = json.loads((folder / "nlp_mtl.json").read_text(encoding="utf-8"))
        assert {t["name"]: t["head"]["tuned"] for t in said["tasks"][:2]} == {t: found[t] for t in ("rare", "many")}


def test_rows_are_fewer_than_processes(tmp_path, forked_python):
    """One row a step for two processes: one of them has nothing, takes part, and the result is that of one process."""
    tasks = write_tasks(tmp_path / "data")
    base = write_base(tmp_path / "base")
    # an epoch of 5 rows in steps of 4: the second step has one row
    changes = {"sampler": {"name": "round_robin", "epoch": 5}}
    shape = {"per_device_train_batch_size": 4, "max_steps": 4}
    one = {"config": config(base, tasks, tmp_path / "one", **changes, training=shape)}
    two = {
        "config": config(base, tasks, tmp_path / "two", **changes, training={**shape, "per_device_train_batch_size": 2})
    }
    log_one, state_one = run(forked_python, tmp_path, one, name="few-one")
    log_two, state_two = run(forked_python, tmp_path, two, processes=2, name="few-two")
    for a, b in zip(log_one["log"], log_two["log"], strict=True):
        assert {k for k in a if k.startswith("loss")} == {k for k in b if k.startswith("loss")}
        for key in a:
            if key.startswith("loss"):
                assert b[key] == pytest.approx(a[key], abs=1e-6, rel=1e-5), key
    agree(state_two, state_one, atol=1e-6, rtol=1e-5)


def test_ctrl_c_to_one_process_ends_all_of_them(tmp_path, forked_python):
    tasks = write_tasks(tmp_path / "data")
    base = write_base(tmp_path / "base")
    saving = {"max_steps": 50, "save_strategy": "steps", "save_steps": 40}
    callbacks = ["tests.integration.tiny:InterruptSecond"]
    log, _ = run(
        forked_python,
        tmp_path,
        {"config": config(base, tasks, tmp_path / "run", callbacks=callbacks, training=saving)},
        processes=2,
        name="interrupted",
    )
    assert log["world"] == 2
    assert log["stopped"]
    assert [folder.name for folder in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]
    anew = config(base, tasks, tmp_path / "run", training={"max_steps": 2, "save_strategy": "steps", "save_steps": 2})
    log, _ = run(forked_python, tmp_path, {"config": anew, "overwrite": True}, processes=2, name="anew")
    assert not log["stopped"]
    assert [folder.name for folder in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_fewer_processes_than_asked_for_is_an_error(tmp_path, forked_python):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"config": {"model": "x", "tasks": ["rte"]}}))
    command = ["-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2", "--no_python"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [forked_python, *command, forked_python, str(WORKER), str(file)]
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=200)
    assert done.returncode != 0
    assert "several processes were asked for" in done.stderr
    assert "torchrun" in done.stderr


@pytest.mark.parametrize("way", ["ddp", pytest.param("fsdp", marks=pytest.mark.long)])
def test_a_dry_run_of_two_processes_speaks_once_and_writes_nothing(tmp_path, forked_python, way):
    tasks = write_tasks(tmp_path / "data")
    base = write_base(tmp_path / "base")
    shape = {"per_device_train_batch_size": 4, "max_steps": -1, "num_train_epochs": 2, "eval_strategy": "epoch"}
    said = config(base, tasks, tmp_path / "run", training={**shape, **(FSDP if way == "fsdp" else {})})
    (tmp_path / "run.yaml").write_text(json.dumps(said))
    launch = ["--nproc_per_node", "2", "--master_port", str(29500 + hash(way) % 400)]
    launch += ["--no_python", forked_python, "-m", "nlp_mtl.cli"]
    words = ["train", str(tmp_path / "run.yaml"), "--dry-run", "--json", "-"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [forked_python, "-m", "torch.distributed.run", *launch, *words]
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["run"]["processes"] == 2
    assert found["steps"]["rows_per_step"] == 8
    assert sum(found["steps"]["rows_per_epoch"][0][task] for task in ("mood", "alike", "names")) == 40 + 16 + 40
    assert found["time"]["timed_steps"] == 9
    assert found["parameters"]["total"]["trained"] == found["parameters"]["total"]["all"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "data", "run.yaml"]


def add_rainy(python: str, folder: Path, run: str, out: str, rows: int, processes: int, **more) -> str:
    """`nlp-mtl adapters add` as its own process or processes; what was printed."""
    training = {"per_device_train_batch_size": rows, "max_steps": 5, "learning_rate": 0.01, "use_cpu": True}
    training |= {"disable_tqdm": True, "bf16": False, **more}
    words = ["adapters", "add", run, "--task", str(folder / "data" / "rainy.yaml"), "--out", out]
    words += [f"training.{key}={json.dumps(value)}" for key, value in training.items()]
    command = [python, "-m", "nlp_mtl.cli", *words]
    if processes > 1:
        launch = ["--nproc_per_node", str(processes), "--master_port", str(29500 + hash(out) % 400), "--no_python"]
        command = [python, "-m", "torch.distributed.run", *launch, *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("way", ["lora", *(pytest.param(way, marks=pytest.mark.long) for way in ("full", "fsdp"))])
def test_a_task_added_by_two_processes_is_the_one_that_one_adds(tmp_path, forked_python, way):
    from safetensors.torch import load_file

    import nlp_mtl as mtl

    tasks, base = write_tasks(tmp_path / "data"), write_base(tmp_path / "base")
    tuning = {} if way == "full" else {"lora": {"r": 2, "target_modules": "all-linear"}}
    mtl.MultiTaskModel.from_base(base, tasks[:3], **tuning).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "run.yaml").write_text(json.dumps({"model": base, "tasks": tasks[:3], **tuning}))
    add_rainy(forked_python, tmp_path, "run", "one", 8, 1)
    said = add_rainy(forked_python, tmp_path, "run", "two", 4, 2, **(FSDP if way == "fsdp" else {}))
    assert said.count("The run with it is in two") == 1, said
    one, two = tmp_path / "one", tmp_path / "two"
    names = {file.relative_to(one).as_posix() for file in one.rglob("*.safetensors") if "checkpoint" not in str(file)}
    assert {"heads.safetensors", "rainy/adapter_model.safetensors"} <= names
    for name in names:
        agree(load_file(two / name), load_file(one / name), atol=1e-6, rtol=1e-5)
    first, second = (json.loads((folder / "metrics.json").read_text())["validation"] for folder in (one, two))
    assert second["rainy"] == pytest.approx(first["rainy"], abs=1e-6)
