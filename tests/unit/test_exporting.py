"""Exports: what is in the folder, what is refused and why, and that a wrong one is never kept."""

from __future__ import annotations

import builtins
import json
import sys

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from nlp_mtl.batches import collate
from nlp_mtl.checkpoint import damage
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, RunFolderError, UnsupportedError
from nlp_mtl.exporting.export import export_task
from nlp_mtl.exporting.plain import encoder_state
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import base_of
from nlp_mtl.testing import DECODERS, tiny_model
from tests.integration.tiny import write_base
from tests.unit.test_heads_vanilla import ROWS, TASKS, random_weights

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

LORA = {"r": 2, "target_modules": "all-linear"}


def model_of(*names, family="bert", **settings):
    """A model with all weights far from their first values."""
    model = tiny_model([TASKS[name] for name in names], family, **settings)
    random_weights(model, 3)
    return model.eval()


def left(folder):
    """What lies in a folder, hidden files too."""
    return sorted(place.name for place in folder.iterdir())


def shifted(module, given, out):
    """A hook that makes a run compute something else than its weights say."""
    out.logits = out.logits + 1e-3


# ------------------------------------------------------------------------------------------------------- what is in it


def test_only_what_the_task_reads_goes_along(tmp_path):
    model = model_of("pair", "tags", lora=LORA)
    done = export_task(model, "tags", tmp_path / "tags")
    names = set(load_file(tmp_path / "tags" / "model.safetensors"))
    assert not [name for name in names if "lora" in name or "pooler" in name]
    assert {name for name in names if not name.startswith("bert.")} == {"classifier.weight", "classifier.bias"}
    assert set(done.files) == {path.name for path in (tmp_path / "tags").iterdir()} - {"complete.json"}
    assert damage(tmp_path / "tags") is None
    both = export_task(model, "pair", tmp_path / "pair")
    assert both.files["model.safetensors"] > done.files["model.safetensors"], "the pooler, which `pair` reads"


def test_the_config_names_the_labels_and_the_tokenizer_knows_its_length(tmp_path):
    tags = TASKS["tags"].with_(max_length=48)
    model = tiny_model([tags, TASKS["several"]])
    export_task(model, "tags", tmp_path / "tags")
    config = json.loads((tmp_path / "tags" / "config.json").read_text())
    assert config["id2label"] == {"0": "O", "1": "B-X", "2": "I-X"}
    assert config["label2id"] == {"O": 0, "B-X": 1, "I-X": 2}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "tags").model_max_length == 48
    export_task(model, "several", tmp_path / "several")
    config = json.loads((tmp_path / "several" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


@pytest.mark.parametrize("as_", ["model", "adapter"])
def test_no_path_of_this_machine_leaves(tmp_path, as_):
    write_base(tmp_path / "base")
    model = MultiTaskModel.from_base(tmp_path / "base", [TASKS["pair"]], lora=LORA, max_length=64)
    model.save_pretrained(tmp_path / "run")
    export_task(tmp_path / "run", "pair", tmp_path / "out", as_, base=tmp_path / "base")
    for file in (tmp_path / "out").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file.name


def test_an_adapter_names_its_base_by_id_and_revision(tmp_path):
    model = model_of("pair", lora=LORA)
    model.base = {"id": "someone/tiny-bert", "revision": "abc123"}
    done = export_task(model, "pair", tmp_path / "out", "adapter")
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("someone/tiny-bert", "abc123")
    assert said["task_type"] == "SEQ_CLS"
    assert "revision='abc123'" in (tmp_path / "out" / "README.md").read_text()
    assert not done.notes
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {"base_model.model.classifier.weight", "base_model.model.classifier.bias"} <= set(names)
    assert "vllm" not in left(tmp_path / "out")


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True}, {"target_modules": ["query", "value"]}])
def test_every_kind_of_lora_is_merged_and_written(tmp_path, settings):
    model = model_of("pair", "choice", lora={**LORA, **settings})
    for as_ in ("model", "adapter"):
        for task in ("pair", "choice"):
            assert export_task(model, task, tmp_path / f"{as_}-{task}", as_).difference < 1e-5


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_pooler_of_its_own_goes_along(tmp_path, lora):
    model = model_of("pair", "number", lora=lora, heads={"pair": {"pooler": "own"}})
    forms = ("model", "adapter") if lora else ("model",)
    for as_ in forms:
        for task in ("pair", "number"):
            assert export_task(model, task, tmp_path / f"{as_}-{task}", as_).difference < 1e-5


def test_a_borrowed_head_is_exported_under_the_borrowers_name(tmp_path):
    second = TASKS["pair"].with_(name="second", head_of="pair", inputs=["b", "a"])
    model = tiny_model([TASKS["pair"], second])
    random_weights(model, 3)
    assert export_task(model, "second", tmp_path / "out").tasks == ("second",)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoders_lora_is_also_written_as_vllm_reads_it(tmp_path, family):
    """The names are those of the family's causal LM, on which PEFT too finds every layer, and no head is in it."""
    model = model_of("tags", family=family, lora=LORA)
    export_task(model, "tags", tmp_path / "out", "adapter")
    said = json.loads((tmp_path / "out" / "vllm" / "adapter_config.json").read_text())
    assert said["modules_to_save"] is None and said["task_type"] == "CAUSAL_LM" and said["bias"] == "none"
    state = load_file(tmp_path / "out" / "vllm" / "adapter_model.safetensors")
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in state)
    causal = transformers.AutoModelForCausalLM.from_config(model.config, attn_implementation="eager").eval()
    prefix = causal.base_model_prefix
    start = {f"{prefix}.{name}": value for name, value in encoder_state(model, "tags", merge=False).items()}
    causal.load_state_dict(start, strict=False)
    made = PeftModel.from_pretrained(causal, tmp_path / "out" / "vllm").eval()
    loaded = {name: value for name, value in made.state_dict().items() if ".lora_" in name}
    assert len(loaded) == len(state)
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        theirs = getattr(made.get_base_model(), prefix)(input_ids=ids).last_hidden_state
        expected = model.sharing.encoder(input_ids=ids).last_hidden_state
    assert torch.allclose(theirs, expected, atol=1e-5)


def test_thresholds_are_recorded_and_told(tmp_path):
    two = TASKS["pair"].with_(
        name="two", labels=["no", "yes"], head={"name": "sequence_classification", "threshold": 0.2}
    )
    model = tiny_model([two])
    done = export_task(model, "two", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["decision_thresholds"] == {"yes": 0.2}
    assert "0.2 for 'yes'" in done.notes[0]
    assert done.notes[0] in (tmp_path / "out" / "README.md").read_text()


def test_the_run_is_left_as_it_was(tmp_path):
    model = model_of("pair", "tags", lora=LORA)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for as_ in ("model", "adapter"):
        export_task(model, "pair", tmp_path / as_, as_)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert hasattr(model.sharing.encoder, "peft_config") and base_of(model.sharing.encoder).training is False


# --------------------------------------------------------------------------------------------------------- what is not


def test_a_wrong_export_is_never_kept(tmp_path):
    """A run that computes something else than its weights say, here by a hook, is found out before anything is kept."""
    model = model_of("pair", lora=LORA)
    model.module_of("pair").register_forward_hook(shifted)
    for as_ in ("model", "adapter"):
        with pytest.raises(DataError, match=r"differ from the run's by .*; nothing was kept"):
            export_task(model, "pair", tmp_path / "out", as_)
    assert left(tmp_path) == []


def test_a_failed_export_leaves_the_old_one(tmp_path):
    model = model_of("pair")
    export_task(model, "pair", tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in left(tmp_path / "out")}
    model.module_of("pair").register_forward_hook(shifted)
    with pytest.raises(DataError):
        export_task(model, "pair", tmp_path / "out", overwrite=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in left(tmp_path / "out")} == before
    assert left(tmp_path) == ["out"]


def test_an_export_replaces_only_an_export_and_only_when_told(tmp_path):
    model = model_of("pair", "tags")
    out = tmp_path / "out"
    export_task(model, "pair", out)
    with pytest.raises(ConfigError, match="say --overwrite"):
        export_task(model, "tags", out)
    export_task(model, "tags", out, overwrite=True)
    assert "B-X" in (out / "config.json").read_text()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"mine\.txt; name another"):
        export_task(model, "pair", out, overwrite=True)
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(ConfigError, match="found a run in"):
        export_task(model, "pair", tmp_path / "run", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="found the file"):
        export_task(model, "pair", tmp_path / "file")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "par"}, "'par' is not a task of this run; did you mean 'pair'?"),
        ({"task": None}, "--as model writes one task, found none named; say --task with one of pair, tags"),
        ({"as_": "modle"}, "--as is one of model, adapter, onnx, found 'modle'; did you mean 'model'?"),
        ({"as_": "adapter", "custom_code": True}, "--custom-code goes with --as model, found --as adapter"),
        ({"precision": "int8"}, "--precision goes with --as onnx, found --as model"),
        ({"precision": "int4", "as_": "onnx"}, "--precision is one of both, fp32, int8, found 'int4'"),
        ({"task": ["pair", "tags"]}, "--as model writes one task, found pair, tags"),
        ({"task": [], "as_": "onnx"}, "names each task once, found []"),
    ],
)
def test_arguments_are_checked_before_anything_is_done(tmp_path, given, said):
    with pytest.raises(ConfigError) as caught:
        export_task(tiny_model([TASKS["pair"], TASKS["tags"]]), **{"task": "pair", "out": tmp_path / "out", **given})
    assert said in str(caught.value)
    assert left(tmp_path) == []


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        export_task(tiny_model([TASKS["pair"]]), "nobody", tmp_path, "folder", precision="int4")
    assert len(caught.value.mistakes) == 3


def test_what_cannot_leave_says_why_and_what_can_be_had(tmp_path):
    mean = TASKS["pair"].with_(name="mean", head={"name": "sequence_classification", "pooling": "mean"})
    model = tiny_model([TASKS["pair"], mean])
    with pytest.raises(UnsupportedError, match=r"`pooling: mean` is not what.*--as onnx, or --as model --custom-code"):
        export_task(model, "mean", tmp_path / "out")
    with pytest.raises(UnsupportedError, match="this run trained none; say --as model"):
        export_task(model, "pair", tmp_path / "out", "adapter")
    with pytest.raises(UnsupportedError, match="computes the same; leave out --custom-code"):
        export_task(model, "pair", tmp_path / "out", custom_code=True)
    with pytest.raises(UnsupportedError, match="'gpt2' has no AutoModelForMultipleChoice"):
        export_task(tiny_model([TASKS["choice"]], "gpt2"), "choice", tmp_path / "out")
    assert left(tmp_path) == []


def test_a_task_whose_sharing_does_not_collapse_is_refused_with_its_reason(tmp_path, monkeypatch):
    model = tiny_model([TASKS["pair"]])

    def never(task):
        raise UnsupportedError("its layers mix two tasks")

    monkeypatch.setattr(model.sharing, "collapse", never)
    with pytest.raises(UnsupportedError, match=r"its layers mix two tasks.*nlp-mtl predict"):
        export_task(model, "pair", tmp_path / "out")


def test_a_run_of_a_newer_format_is_refused(tmp_path):
    tiny_model([TASKS["pair"]]).save_pretrained(tmp_path / "run")
    file = tmp_path / "run" / "nlp_mtl.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(RunFolderError, match="newer version"):
        export_task(tmp_path / "run", "pair", tmp_path / "out")


def test_the_command_says_what_it_wrote(tmp_path, run):
    model_of("pair", "tags").save_pretrained(tmp_path / "run")
    code, out, err = run("export", tmp_path / "run", tmp_path / "out", "--task", "pair")
    assert code == 0, err
    assert "model.safetensors" in out and "logits equal the run's on 5 rows" in out
    assert left(tmp_path) == ["out", "run"]
    code, out, err = run("export", tmp_path / "run", tmp_path / "more", "--task", "pair", "--task", "tags")
    assert code == 2 and "export each into a folder of its own" in err


# ---------------------------------------------------------------------------------------------------------------- ONNX


def onnx_logits(folder, file, task, rows, model):
    """What a graph says of rows of `pair`, `tags` and the like, padded together, in plain onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(*rows, padding=True, truncation=True, return_tensors="np")
    return session.run([f"{task}.logits"], {one.name: batch[one.name] for one in session.get_inputs()})[0]


def run_logits(model, task, columns):
    """What the run says of the same rows."""
    head = model.heads[task]
    tokens = head.tokenize(columns, model.tokenizer, 128, Where(task, "test"))
    rows = [{key: values[i] for key, values in tokens.items()} for i in range(len(tokens["input_ids"]))]
    with torch.inference_mode():
        return model(**collate(rows, [[task]] * len(rows), {task: head}))["logits"][task].numpy()


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(name, marks=pytest.mark.long) for name in ("modernbert", "gpt2"))]
)
def test_one_graph_holds_all_tasks(tmp_path, family):
    """One encoder, every task's outputs; fp32 equals the run on any number of rows of any length, int8 is near it."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    mean = TASKS["pair"].with_(name="mean", head={"name": "sequence_classification", "pooling": "mean"})
    names = [name for name in TASKS if name != "hidden" or family not in DECODERS]
    model = tiny_model([*(TASKS[name] for name in names), mean], family, lora=LORA)
    random_weights(model, 3)
    done = export_task(model.eval(), None, tmp_path / "out", "onnx")
    assert done.difference < 1e-5
    said = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert said["passes"] == [[*names, "mean"]], "one encoder pass for all"
    assert not [note for note in done.notes if "encoder passes in one graph" in note]
    assert {one["output"] for one in said["tasks"]} == {f"{name}.logits" for name in [*names, "mean"]}
    assert next(one for one in said["tasks"] if one["task"] == "tags")["labels"] == ["O", "B-X", "I-X"]
    for count in (1, 2, 5):
        rows = ROWS["a"][:count], ROWS["b"][:count]
        for task in ("pair", "mean"):
            expected = run_logits(model, task, dict(zip("ab", rows, strict=True)))
            found = onnx_logits(tmp_path / "out", "model.onnx", task, rows, model)
            assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())
            near = onnx_logits(tmp_path / "out", "model_int8.onnx", task, rows, model)
            assert 0 < np.abs(near - expected).max() < 0.25 * np.abs(expected).max()
    assert set(done.int8) == {*names, "mean"}


def test_a_graph_of_one_task_holds_nothing_else(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    model = model_of("pair", "tags", "number")
    export_task(model, "tags", tmp_path / "one", "onnx", precision="fp32")
    assert "model_int8.onnx" not in left(tmp_path / "one")
    graph = onnx.load(tmp_path / "one" / "model.onnx").graph
    assert [out.name for out in graph.output] == ["tags.logits"]
    assert not [one.name for one in graph.initializer if "pooler" in one.name]
    export_task(model, ["tags", "pair"], tmp_path / "two", "onnx", precision="int8")
    assert [name for name in left(tmp_path / "two") if "onnx" in name] == ["model_int8.onnx"]


def test_a_wrong_graph_is_never_kept(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    model = model_of("pair")
    model.module_of("pair").register_forward_hook(shifted)
    with pytest.raises(DataError, match="nothing was kept"):
        export_task(model, "pair", tmp_path / "out", "onnx", precision="fp32")
    assert left(tmp_path) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, missing):
    known = builtins.__import__

    def without(name, *more, **named):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return known(name, *more, **named)

    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotFoundError) as caught:
        export_task(tiny_model([TASKS["pair"]]), "pair", tmp_path / "out", "onnx")
    assert "pip install 'nlp_mtl[onnx]'" in str(caught.value)
    assert left(tmp_path) == []
