"""Adapters after training: what is changed is changed as said, and what is not stays as it is, to the bit."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl.adapting.scoring import merged_and_others
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError
from nlp_mtl.folding import folded
from nlp_mtl.tasklora import owners_of
from tests.integration.tiny import write_base, write_tasks

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

ALL = {"r": 3, "target_modules": "all-linear"}
TUNINGS = {
    "lora": {"lora": {"r": 2, "target_modules": "all-linear"}},
    "task_lora": {"task_lora": ALL},
    "both": {"lora": {"r": 2, "target_modules": ["query", "value"]}, "task_lora": ALL},
    "full": {},
}
QUICK = ["training.max_steps=2", "training.use_cpu=true", "training.disable_tqdm=true", "training.learning_rate=0.01"]
QUICK += ["training.bf16=false"]
ROWS = ["it was good", {"a": "the cat", "b": "a dog"}, {"tokens": ["the", "city", "rain"]}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, task files, and a run of each tuning, as if trained: every adapter and the fully tuned encoder moved."""
    folder = tmp_path_factory.mktemp("adapting")
    base = write_base(folder / "base")
    files = write_tasks(folder / "tasks")
    for name, tuning in TUNINGS.items():
        model = mtl.MultiTaskModel.from_base(base, files[:3], **tuning)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key or not tuning:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        model.eval().save_pretrained(folder / name)
        said = {"model": base, "tasks": files[:3], "training": {"output_dir": str(folder / name)}, **tuning}
        (folder / name / "run.yaml").write_text(json.dumps(said))
        (folder / name / "metrics.json").write_text(json.dumps({"validation": {"mood": {"accuracy": 0.5}}}))
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    """Runs record their base by its name, never by where it is; here it is found beside them."""
    monkeypatch.chdir(place)


def logits(model, task):
    """A task's logits of the same few rows, in one batch of its own."""
    from nlp_mtl.batches import collate

    generator = torch.Generator().manual_seed(3)
    rows = []
    for number in range(5):
        length = 4 + number
        ids = torch.randint(8, 60, (length,), generator=generator).numpy()
        row = {"input_ids": ids, "token_type_ids": ids * 0, "lengths": [length]}
        if task == "names":
            row["word_positions"] = list(range(length))
        rows.append({**row, f"labels:{task}": {"mood": 1, "alike": 0.5, "names": [0] * length, "rainy": 1}[task]})
    with torch.no_grad():
        return model(**collate(rows, [[task]] * 5, model.heads))["logits"][task]


def numbers(answer):
    """All numbers in an answer, in their order."""
    if isinstance(answer, dict | list):
        return [n for part in (answer.values() if isinstance(answer, dict) else answer) for n in numbers(part)]
    return [answer] if isinstance(answer, float) else []


def opened(folder):
    return mtl.MultiTaskModel.from_pretrained(folder)


# -------------------------------------------------------------------------------------------------------- listing


def test_list_says_what_each_adapter_is(place):
    model = opened(place / "both")
    listed = mtl.list_adapters(place / "both")
    assert [(one.name, one.tasks) for one in listed] == [
        ("default", ("mood", "alike", "names")),
        *((task, (task,)) for task in model.tasks),
    ]
    for one in listed:
        square, numbers, layers = 0.0, 0, 0
        for layer in model.sharing.encoder.modules():
            if one.name in getattr(layer, "lora_A", ()):
                square += float(layer.get_delta_weight(one.name).double().square().sum())
                numbers += layer.lora_A[one.name].weight.numel() + layer.lora_B[one.name].weight.numel()
                layers += 1
        assert one.norm == pytest.approx(square**0.5, rel=1e-5) and square
        assert (one.parameters, one.layers) == (numbers, layers)
        assert one.scales == (8 / one.ranks[0],)
    assert mtl.list_adapters(place / "full") == []
    assert [one.name for one in mtl.list_adapters(place / "lora")] == ["default"]


# ------------------------------------------------------------------------------------------------------- removing


@pytest.mark.parametrize("tuning", TUNINGS)
def test_remove_leaves_the_others_to_the_bit(place, tmp_path, tuning):
    before = opened(place / tuning)
    given = mtl.remove_adapter(place / tuning, "alike", tmp_path / "out")
    after = opened(tmp_path / "out")
    assert given.tasks == after.tasks == ["mood", "names"]
    for task in after.tasks:
        assert torch.equal(logits(before, task), logits(after, task)) and torch.equal(
            logits(before, task), logits(given, task)
        )
    assert not any("alike" in name for name in after.state_dict())
    assert not (tmp_path / "out" / "alike").exists()
    assert "alike" not in (tmp_path / "out" / "nlp_mtl.json").read_text()
    assert "alike" not in (tmp_path / "out" / "run.yaml").read_text()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["validation"] == {"mood": {"accuracy": 0.5}}
    assert set(mtl.evaluate(tmp_path / "out")) == {"mood", "names"}  # its data is found from the new folder


def test_remove_refuses_all_at_once(place, tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "note").touch()
    with pytest.raises(ConfigError) as caught:
        mtl.remove_adapter(place / "both", "moood", tmp_path / "held")
    assert len(caught.value.mistakes) == 2
    assert "did you mean 'mood'" in str(caught.value) and "is empty or not there" in str(caught.value)
    mtl.remove_adapter(place / "both", "mood", tmp_path / "two")
    mtl.remove_adapter(tmp_path / "two", "names", tmp_path / "one")
    with pytest.raises(ConfigError, match="its only one"):
        mtl.remove_adapter(tmp_path / "one", "alike")
    with pytest.raises(RunFolderError):
        mtl.remove_adapter(tmp_path / "none", "alike")


def test_a_head_that_others_use_is_not_removed(place, tmp_path):
    tasks = mtl.load_tasks([place / "tasks" / "mood.yaml"])
    tasks += [tasks[0].with_(name="mood_too", head_of="mood")]
    model = mtl.MultiTaskModel.from_base(place / "base", tasks, task_lora=ALL)
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(ConfigError, match="mood_too uses the head of 'mood'; remove mood_too first"):
        mtl.remove_adapter(tmp_path / "run", "mood")
    assert mtl.remove_adapter(tmp_path / "run", "mood_too").tasks == ["mood"]
    assert opened(tmp_path / "run_without_mood_too").tasks == ["mood"]


# -------------------------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("linear", {}),
        ("cat", {"weights": [1.0, -0.5, 2.0]}),
        ("svd", {"rank": 2}),
        ("ties", {"density": 0.5}),
        ("dare_linear", {"density": 0.5}),
        ("dare_ties_svd", {"density": 0.7}),
        ("magnitude_prune", {"density": 0.5}),
    ],
)
@pytest.mark.parametrize("tuning", ["task_lora", "both"])
def test_merge_is_what_peft_makes_of_the_tasks_adapters(place, tmp_path, how, more, tuning):
    from peft import PeftModel

    names = ["mood", "alike", "names"]
    done = mtl.merge_adapters(place / tuning, tmp_path / "out", names, how, **more)
    merged, apart = opened(tmp_path / "out"), opened(place / tuning)
    assert merged.tasks == names and owners_of(merged.sharing.encoder) is None and not done.left_out
    base = mtl.MultiTaskModel.from_base(place / "base", [place / "tasks" / "mood.yaml"]).sharing.encoder
    theirs = PeftModel.from_pretrained(base, place / tuning / "mood", adapter_name="mood")
    for name in names[1:]:
        theirs.load_adapter(place / tuning / name, adapter_name=name)
    weights = more.get("weights") or ([1.0] * 3 if "ties" in how else [1 / 3] * 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs.add_weighted_adapter(
            names, weights, "all", combination_type=how, density=more.get("density"), svd_rank=more.get("rank")
        )
    for name, layer in theirs.named_modules():
        if "all" in getattr(layer, "lora_A", ()):
            ours = merged.sharing.encoder.get_submodule(name).get_delta_weight("default")
            torch.testing.assert_close(ours, layer.get_delta_weight("all"), rtol=1e-4, atol=1e-6)
    for key in names:
        for name, value in apart.modules_[key].state_dict().items():
            assert torch.equal(value, merged.modules_[key].state_dict()[name])
    assert set(mtl.predict(merged, "it was good")) == set(mtl.predict(apart, "it was good"))


def test_a_cat_of_one_weight_is_the_sum_of_what_peft_adds(place, tmp_path):
    """Without PEFT's own merging: the merged update is Σ wᵢ sᵢ BᵢAᵢ."""
    mtl.merge_adapters(place / "both", tmp_path / "out", ["mood", "names"], "cat", weights=[0.25, 2.0])
    encoder = opened(place / "both").sharing.encoder
    parts = {task: folded(encoder, task)[1] for task in ("mood", "names")}
    merged = opened(tmp_path / "out").sharing.encoder
    for name, layer in merged.named_modules():
        if "default" in getattr(layer, "lora_A", ()):
            ups, downs = f"{name}.lora_B.weight", f"{name}.lora_A.weight"
            wanted = (
                0.25 * parts["mood"][ups] @ parts["mood"][downs] + 2.0 * parts["names"][ups] @ parts["names"][downs]
            )
            torch.testing.assert_close(layer.get_delta_weight("default"), wanted, rtol=1e-5, atol=1e-6)


def test_scores_stand_beside_each_other(place, tmp_path):
    mtl.merge_adapters(place / "both", tmp_path / "out", ["mood", "names"], "svd")
    rows, notes = merged_and_others(tmp_path / "out", place / "both", place / "lora")
    assert not notes and {row["task"] for row in rows} == {"mood", "names"}
    apart, merged = mtl.evaluate(place / "both"), mtl.evaluate(tmp_path / "out")
    joint = mtl.evaluate(place / "lora")
    for row in rows:
        for kind, scores in (("merged", merged), ("separate", apart), ("joint", joint)):
            assert row[kind] == scores[row["task"]].metrics[row["metric"]]
    run = tmp_path / "elsewhere" / "deeper" / "run"
    shutil.copytree(tmp_path / "out", run)
    (run / "run.yaml").unlink()  # so nobody knows where the data is
    rows, notes = merged_and_others(run, place / "both")
    assert not rows and len(notes) == 2 and "its data is not at hand" in notes[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tasks": ["mood", "nammes"]}, "'nammes' is not a task of this run; did you mean 'names'"),
        ({"tasks": ["mood", "mood"]}, "names each task once"),
        ({"tasks": ["mood"]}, "at least two adapters"),
        ({"how": "tyes"}, "--how is one of .* found 'tyes'; did you mean 'ties'"),
        ({"how": "ties"}, "--how ties needs --density"),
        ({"how": "cat", "density": 0.5}, "--density goes with"),
        ({"how": "ties", "density": 1.5}, "above 0 and at most 1, found 1.5"),
        ({"weights": [1.0]}, "one for each task, found 1"),
        ({"weights": [1.0, float("nan"), 1.0]}, "finite"),
        ({"rank": 3}, "--rank goes with svd"),
        ({"how": "svd", "rank": 0}, "at least 1"),
    ],
)
def test_merge_refuses(place, tmp_path, arguments, said):
    with pytest.raises(ConfigError, match=said):
        mtl.merge_adapters(place / "both", tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_merge_refuses_what_does_not_go(place, tmp_path):
    for tuning, said in (("full", "full fine-tuning and no adapter"), ("lora", "one adapter for all tasks")):
        with pytest.raises(UnsupportedError, match=said):
            mtl.merge_adapters(place / tuning, tmp_path / "out")
    wide = mtl.MultiTaskModel.from_base(
        place / "base",
        [place / "tasks" / f"{name}.yaml" for name in ("mood", "names")],
        task_lora={"r": 20, "target_modules": ["query"]},
    )
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(ConfigError, match=r"the ranks add up, to 40 in .*rank of 32 at most; say --how svd"):
        mtl.merge_adapters(tmp_path / "wide", tmp_path / "out", how="cat")


# --------------------------------------------------------------------------------------------------------- adding


@pytest.fixture(scope="module")
def added(place):
    """Each run with a fourth task trained beside the others."""
    done = {}
    for tuning in TUNINGS:
        base = place / "base"
        more = ["task_lora.r=5"] if tuning == "both" else []
        run = mtl.add_task(
            place / tuning, place / "tasks" / "rainy.yaml", place / f"{tuning}4", [*QUICK, *more], base=base
        )
        done[tuning] = run
    return done


@pytest.mark.parametrize("tuning", TUNINGS)
def test_add_leaves_the_old_tasks_to_the_bit(place, added, tuning):
    before, after = opened(place / tuning), opened(place / f"{tuning}4")
    assert after.tasks == ["mood", "alike", "names", "rainy"]
    assert after.strategies.get("precision") == before.strategies.get("precision")
    for task in before.tasks:
        wanted = logits(before, task)
        assert torch.equal(wanted, logits(after, task)) and torch.equal(wanted, logits(added[tuning].model, task))
    assert torch.equal(logits(after, "rainy"), logits(added[tuning].model, "rainy"))
    ups = [p for n, p in after.named_parameters() if ".lora_B.rainy." in n]
    assert ups and all(p.abs().max() > 0 for p in ups if p.shape[0])  # trained
    assert set(added[tuning].scores) == {"rainy"}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_in_one_batch_with_the_new_task_the_old_ones_are_as_before(place, added, tuning):
    before, after = opened(place / tuning), opened(place / f"{tuning}4")
    old, new = (mtl.predict(model, ROWS, dtype="float32") for model in (before, after))
    for one, other in zip(old, new, strict=True):
        for task, answer in one.items():
            assert numbers(answer) == pytest.approx(numbers(other[task]), rel=1e-4, abs=1e-6)
    assert "rainy" in new[2]
    assert after.sharing.copies(["mood", "alike"]) == (1 if tuning in ("lora", "full") else 2)
    assert after.sharing.copies(["mood", "rainy"]) == 2


def test_what_the_folder_holds(place, added):
    for tuning in TUNINGS:
        folder = place / f"{tuning}4"
        has = {part.name for part in folder.iterdir() if part.is_dir()} - {"predictions"}
        has = {name for name in has if not name.startswith("checkpoint-")}
        assert has == ({"rainy"} if tuning == "full" else {"mood", "alike", "names", "rainy"}), tuning
        assert (folder / "config.json").exists() == (tuning == "full")
        assert not (folder / "adapter_config.json").exists()
        assert set(mtl.evaluate(folder)) == {"mood", "alike", "names", "rainy"}
        said = json.loads((folder / "metrics.json").read_text())
        assert set(said["validation"]) == {"mood", "rainy"}
    config = json.loads((place / "full4" / "rainy" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None  # the pretrained model would be a wrong base


def test_the_new_adapter_is_an_ordinary_one_on_the_saved_encoder(place, added):
    from peft import PeftModel
    from transformers import AutoModel

    for tuning, below in (("full", place / "full4"), ("lora", place / "base")):
        plain = PeftModel.from_pretrained(AutoModel.from_pretrained(below), place / f"{tuning}4" / "rainy").eval()
        model = opened(place / f"{tuning}4")
        ids = torch.tensor([[2, 20, 30, 40, 3]])
        with torch.no_grad(), model.sharing.owners.during(model.sharing.owners.number("rainy")):
            ours = model.sharing.encoder(ids).last_hidden_state
        torch.testing.assert_close(plain(ids).last_hidden_state, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_removing_what_was_added_gives_an_ordinary_run_again(place, added, tmp_path, tuning):
    mtl.remove_adapter(place / f"{tuning}4", "rainy", tmp_path / "out")
    before, after = opened(place / tuning), opened(tmp_path / "out")
    assert after.strategies.get("adapters") is None
    assert {n: tuple(v.shape) for n, v in before.state_dict().items()} == {
        n: tuple(v.shape) for n, v in after.state_dict().items()
    }
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    name = "adapter_model.safetensors" if tuning == "lora" else "model.safetensors"
    assert (tmp_path / "out" / name).exists()


def test_a_second_task_is_added_to_a_run_that_had_one_added(place, added, tmp_path):
    second = mtl.load_tasks([place / "tasks" / "rainy.yaml"])[0].with_(name="wet")
    done = mtl.add_task(place / "lora4", second, tmp_path / "out", [*QUICK, "task_lora.r=2"])
    before, after = opened(place / "lora4"), opened(tmp_path / "out")
    for task in before.tasks:
        assert torch.equal(logits(before, task), logits(after, task)), task
    ranks = {one.name: one.ranks for one in mtl.list_adapters(done.model)}
    assert ranks == {"default": (2,), "rainy": (2,), "wet": (2,)}


def test_only_the_tasks_that_are_asked_for_are_read(place, added):
    for tuning in TUNINGS:
        whole = opened(place / f"{tuning}4")
        for task in whole.tasks:
            one = mtl.MultiTaskModel.from_pretrained(place / f"{tuning}4", tasks=[task])
            assert torch.equal(logits(one, task), logits(whole, task)), (tuning, task)


def test_a_checkpoint_of_the_adding_is_a_run_of_the_new_task(place, added):
    folder = next((place / "both4").glob("checkpoint-*"))
    assert opened(folder).tasks == ["rainy"]
    assert torch.equal(logits(opened(folder), "rainy"), logits(opened(place / "both4"), "rainy"))


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("mood.yaml", [], "a task that the run does not have, found 'mood'"),
        ("rainy.yaml", ["lora.r=3"], "takes training, task_lora.*found 'lora.r=3'"),
        ("rainy.yaml", ["training.output_dir=x"], "is --out"),
        ("rainy.yaml", ["task_lora.use_dora=true"], "use_dora"),
        ("rainy.yaml", ["training.learning_rat=1"], "did you mean.*learning_rate"),
    ],
)
def test_add_refuses(place, tmp_path, task, changes, said):
    with pytest.raises(ConfigError, match=said):
        mtl.add_task(place / "lora", place / "tasks" / task, tmp_path / "out", changes)
    assert not (tmp_path / "out").exists()


def test_a_dora_is_not_stood_beside(place, tmp_path):
    model = mtl.MultiTaskModel.from_base(
        place / "base", [place / "tasks" / "mood.yaml"], lora={"r": 2, "use_dora": True}
    )
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"no other can stand.*use_dora"):
        mtl.add_task(tmp_path / "run", place / "tasks" / "rainy.yaml", tmp_path / "out", QUICK)


# -------------------------------------------------------------------------------------------------------- exports


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("task", ["mood", "rainy"])
def test_each_task_leaves_with_what_it_uses(place, added, tmp_path, tuning, task):
    done = mtl.export_task(place / f"{tuning}4", task, tmp_path / "out")
    assert done.difference < 1e-5
    if tuning == "full":
        with pytest.raises(UnsupportedError, match="--as adapter"):
            mtl.export_task(place / "full4", task, tmp_path / "adapter", "adapter")
    else:
        assert mtl.export_task(place / "lora4", task, tmp_path / "adapter", "adapter").difference < 1e-5


@pytest.mark.parametrize(
    ("run", "groups"),
    [
        ("both", [["mood"], ["alike"], ["names"]]),
        pytest.param("lora4", [["mood", "alike", "names"], ["rainy"]], marks=pytest.mark.long),
    ],
)
def test_one_onnx_graph_with_a_pass_for_each_adapter(place, added, tmp_path, run, groups):
    """The export runs the graph on rows and compares all tasks; here against another adapter, too."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    import numpy as np
    import onnxruntime

    done = mtl.export_task(place / run, None, tmp_path / "out", "onnx", precision="fp32")
    assert done.difference < 1e-4
    assert json.loads((tmp_path / "out" / "tasks.json").read_text())["passes"] == groups
    noted = [note for note in done.notes if "encoder passes in one graph" in note]
    card = (tmp_path / "out" / "README.md").read_text()
    assert len(noted) == 1 and noted[0] in card
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert len(session.get_outputs()) == sum(map(len, groups))
    model = opened(place / run)
    ids = torch.tensor([[2, 20, 30, 40, 50, 3]])
    feed = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 6), int), "token_type_ids": np.zeros((1, 6), int)}
    from nlp_mtl.batches import collate

    row = {"input_ids": ids[0].numpy(), "token_type_ids": ids[0].numpy() * 0, "lengths": [6]}
    for task in ("mood", "alike"):
        batch = collate([{**row, f"labels:{task}": 1}], [[task]], model.heads)
        with torch.no_grad():
            ours = model(**batch)["logits"][task]
        (theirs,) = session.run([f"{task}.logits"], {k.name: feed[k.name] for k in session.get_inputs()})
        assert np.abs(ours.numpy().ravel() - theirs.ravel()).max() < 1e-4


# --------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    "words", [["list", "both"], ["merge", "both", "merged_quietly", "--how", "svd"]], ids=lambda words: words[0]
)
def test_the_commands_pass_on_no_warnings_of_libraries(place, forked_python, words):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [forked_python, "-m", "nlp_mtl.cli", "adapters", *words]
    done = subprocess.run(command, env=env, cwd=place, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_the_commands_say_what_they_did(place, tmp_path):
    from typer.testing import CliRunner

    def run(*words):
        done = CliRunner().invoke(app, ["adapters", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    lines = run("list", place / "both").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["default", "mood", "alike", "names"]
    assert "full fine-tuning, no adapters" in run("list", place / "full")
    said = run("add", place / "both", "--task", place / "tasks" / "rainy.yaml", "--out", tmp_path / "four", *QUICK)
    assert "rainy" in said and "is as it was" in said
    assert "mood, names, rainy in" in run("remove", tmp_path / "four", "--task", "alike", "--out", tmp_path / "three")
    said = run(
        "merge", place / "both", tmp_path / "one", "--tasks", "mood,names", "--how", "cat", "--joint", place / "lora"
    )
    assert "without alike" in said and "separate" in said and "joint" in said
    with pytest.raises(ConfigError, match="numbers with commas"):
        CliRunner().invoke(app, ["adapters", "merge", "a", "b", "--weights", "x"], catch_exceptions=False)
