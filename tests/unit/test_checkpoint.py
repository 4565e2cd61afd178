"""What is written is what is read back; what is damaged is noticed; what fails leaves the old one in its place."""

import json
import logging
import os
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from nlp_mtl import checkpoint, registry, weights
from nlp_mtl.errors import RunFolderError
from nlp_mtl.heads import vanilla
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import base_of
from nlp_mtl.runspec import read_spec
from nlp_mtl.sharing import Hard
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import DECODERS, tiny_encoder, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

DATA = {"path": "some/data"}
TASKS = [
    Task(
        name="pair", head="sequence_classification", dataset=DATA, inputs=["a", "b"], target="l", labels=["x", "y", "z"]
    ),
    Task(
        name="tags", head="token_classification", dataset=DATA, inputs=["words"], target="t", labels=["O", "B-X", "I-X"]
    ),
    Task(name="hidden", head="masked_lm", dataset=DATA, inputs=["a"]),
]
LORA = {"r": 4, "target_modules": "all-linear"}
WAYS = {
    "full": {},
    "lora": {"lora": LORA},
    "dora": {"lora": {**LORA, "use_dora": True}},
    "rslora": {"lora": {"r": 2, "target_modules": ["query", "value"], "use_rslora": True, "bias": "lora_only"}},
    "frozen": {"freeze": "*"},
    "partial": {"freeze": ["embeddings.*", "encoder.layer.0.*"]},
    "pooler": {"heads": {"pair": {"pooler": "own"}}},
    "mean": {"heads": {"pair": {"pooling": "mean"}}},
}


def random_weights(model, seed=1):
    """As if trained: every trainable weight moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a pretrained encoder."""
    folder = tmp_path_factory.mktemp("models") / "tiny-base"
    random_weights(tiny_encoder("bert")).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def made(base, way="full", tasks=TASKS, seed=1, **more):
    return random_weights(MultiTaskModel.from_base(base, tasks, max_length=64, **{**WAYS[way], **more}), seed)


IDS = torch.tensor([[2, 20, 30, 40, 41, 3, 50, 3]])


def batch():
    return {
        "input_ids": IDS[0],
        "token_type_ids": torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]),
        "lengths": torch.tensor([8]),
        "targets": {
            "pair": {"sequences": torch.tensor([0])},
            "tags": {"positions": torch.arange(1, 5), "counts": torch.tensor([4])},
        },
    }


def same_states(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


# ---------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("way", list(WAYS))
def test_save_and_load_give_the_same_bits(base, tmp_path, way):
    model = made(base, way)
    model.save_pretrained(tmp_path / "run")
    again = MultiTaskModel.from_pretrained(tmp_path / "run", base=base if "lora" in WAYS[way] else None)
    same_states(model.state_dict(), again.state_dict())
    assert not again.training
    with torch.no_grad():
        ours, theirs = model(**batch())["logits"], again(**batch())["logits"]
    for task, logits in ours.items():
        assert torch.equal(logits, theirs[task])
    assert again.spec() == model.spec()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    if "lora" in WAYS[way]:
        again = MultiTaskModel.from_pretrained(tmp_path / "run", base=base, trainable=True)
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trainable
    again.save_pretrained(tmp_path / "twice")
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {file.name for file in (tmp_path / "twice").iterdir()}
    for name in names:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("run", "twice"))
        if name == "adapter_config.json":  # PEFT writes sets as lists, in any order
            one, two = (sorted(re.findall(rb"[^\s,]+", text)) for text in (one, two))
        assert one == two, name


def test_what_is_frozen_does_not_learn(base):
    learns = {way: {n for n, p in made(base, way).sharing.named_parameters() if p.requires_grad} for way in WAYS}
    assert learns["frozen"] == set()
    still = ("encoder.embeddings.", "encoder.encoder.layer.0.")
    assert learns["partial"] == {name for name in learns["full"] if not name.startswith(still)} < learns["full"]
    assert learns["lora"]
    assert all("lora_" in name for name in learns["lora"])
    assert any("magnitude" in name for name in learns["dora"])
    assert any(name.endswith("query.base_layer.bias") for name in learns["rslora"])


@pytest.mark.parametrize(
    "family", ["roberta", "distilbert", "modernbert", "deberta-v2", "albert", "electra", "gpt2", "llama"]
)
def test_every_family_round_trips_and_loads_as_automodel(tmp_path, family):
    tasks = TASKS[:2] if family in DECODERS else TASKS
    model = random_weights(tiny_model(tasks, family))
    model.save_pretrained(tmp_path)
    same_states(model.state_dict(), MultiTaskModel.from_pretrained(tmp_path).state_dict())
    assert_loads_plainly(AutoModel.from_pretrained(tmp_path), model, 1e-5)


def assert_loads_plainly(plain, model, tolerance=1e-6):
    with torch.no_grad():
        expected = model.sharing.encode({"input_ids": IDS[0]}, layout(), ["pair"])["pair"].hidden
        found = plain.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state[0]
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


def layout():
    from nlp_mtl.layout import Layout

    return Layout([8])


@pytest.mark.parametrize("way", ["full", "frozen", "pooler"])
def test_the_root_is_an_ordinary_encoder(base, tmp_path, way):
    model = made(base, way)
    model.save_pretrained(tmp_path)
    assert_loads_plainly(AutoModel.from_pretrained(tmp_path), model)
    assert AutoTokenizer.from_pretrained(tmp_path)("the cat")["input_ids"] == model.tokenizer("the cat")["input_ids"]
    assert not (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize("way", ["lora", "dora", "rslora"])
def test_the_root_is_an_ordinary_adapter(base, tmp_path, way):
    model = made(base, way)
    model.save_pretrained(tmp_path)
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path)
    assert_loads_plainly(plain, model)
    assert not (tmp_path / "model.safetensors").exists(), "the base is not saved again"
    said = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert said["base_model_name_or_path"] == "tiny-base"


def test_the_base_of_an_adapter_is_checked_by_its_weights(base, tmp_path):
    made(base, "lora").save_pretrained(tmp_path / "run")
    other = tmp_path / "tiny-base"
    random_weights(tiny_encoder("bert"), seed=9).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    with pytest.raises(RunFolderError, match=r"sha256 .*this run was trained on"):
        MultiTaskModel.from_pretrained(tmp_path / "run", base=other)


# ------------------------------------------------------------------------------------------------------ what is written


def test_heads_are_saved_under_task_and_vanilla_key(base, tmp_path):
    model = made(base)
    model.save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "heads.safetensors"))
    assert {"pair.classifier.weight", "pair.classifier.bias", "tags.classifier.weight", "tags.classifier.bias"} <= keys
    assert {key for key in keys if key.startswith("hidden.")} == {
        "hidden.cls.predictions.bias",
        "hidden.cls.predictions.transform.dense.weight",
        "hidden.cls.predictions.transform.dense.bias",
        "hidden.cls.predictions.transform.LayerNorm.weight",
        "hidden.cls.predictions.transform.LayerNorm.bias",
        "hidden.cls.predictions.decoder.bias",
    } - ({"hidden.cls.predictions.decoder.bias"} & vanilla.tied_keys(model.module_of("hidden")))
    for key in keys:
        task, _, name = key.partition(".")
        assert name in model.module_of(task).state_dict()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "electra", "modernbert", "deberta-v2"])
def test_tied_weights_are_saved_once(tmp_path, family):
    model = random_weights(tiny_model(TASKS, family))
    model.save_pretrained(tmp_path)
    vocabulary = len(tiny_tokenizer())
    saved = {**load_file(tmp_path / "model.safetensors"), **load_file(tmp_path / "heads.safetensors")}
    embeddings = base_of(model.sharing.encoder).get_input_embeddings().weight
    assert sum(v.dim() == 2 and v.shape[0] == vocabulary and torch.equal(v, embeddings) for v in saved.values()) == 1
    again = MultiTaskModel.from_pretrained(tmp_path)
    output = again.module_of("hidden").get_output_embeddings().weight
    assert output.data_ptr() == base_of(again.sharing.encoder).get_input_embeddings().weight.data_ptr()
    assert torch.equal(output, embeddings)


def test_two_tasks_with_one_head_save_it_once(tmp_path):
    second = TASKS[0].with_(name="second", head_of="pair", inputs=["b", "a"])
    model = random_weights(tiny_model([second, TASKS[0]]))
    model.save_pretrained(tmp_path)
    assert {key.split(".")[0] for key in load_file(tmp_path / "heads.safetensors")} == {"pair"}
    again = MultiTaskModel.from_pretrained(tmp_path)
    assert again.module_of("second") is again.module_of("pair")
    same_states(model.state_dict(), again.state_dict())


@pytest.mark.parametrize("way", ["full", "lora"])
def test_nothing_local_and_nothing_pickled_is_written(base, tmp_path, way):
    made(base, way).save_pretrained(tmp_path / "run")
    forbidden = [str(base), str(base.parent), str(tmp_path), os.path.expanduser("~/"), "/tmp/", "file://"]
    for file in (tmp_path / "run").rglob("*"):
        assert file.suffix in (".json", ".safetensors", ".md", ".txt"), (
            f"{file.name}: a kind of file that may be pickled"
        )
        text = file.read_bytes().decode("utf-8", "replace")
        assert not [part for part in forbidden if part in text], file.name
    said = json.loads((tmp_path / "run" / "nlp_mtl.json").read_text(encoding="utf-8"))
    assert said["base"]["id"] == "tiny-base"
    assert re.fullmatch("[0-9a-f]{64}", said["base"]["sha256"])
    assert not re.search(r'"/[A-Za-z]', json.dumps(said)), "an absolute path"


def test_labels_found_in_the_data_are_recorded(tmp_path):
    task = TASKS[1].with_(head={"name": "token_classification", "scheme": "iob1"}, labels=["O", "I-X", "B-X"])
    model = tiny_model([task]).eval()
    model.save_pretrained(tmp_path)
    again = MultiTaskModel.from_pretrained(tmp_path)
    assert again.heads["tags"].labels == model.heads["tags"].labels == ["O", "B-X", "I-X"]
    assert again.heads["tags"].data_labels == ["O", "I-X", "B-X"], "to encode the data's own numbers again"


def test_a_gathered_state_is_written_as_the_models_own(base, tmp_path):
    """Under FSDP the whole state is gathered first; the folder must be the same."""
    for way in ("full", "lora"):
        model = made(base, way)
        model.save_pretrained(tmp_path / way / "own")
        model.save_pretrained(tmp_path / way / "given", state=model.state_dict())
        for file in (tmp_path / way / "own").iterdir():
            other = tmp_path / way / "given" / file.name
            if file.suffix == ".safetensors":
                same_states(dict(sorted(load_file(file).items())), dict(sorted(load_file(other).items())))


# -------------------------------------------------------------------------------------------------------------- loading


def test_loading_heads_leaves_the_encoder_alone_but_for_its_own_weights(base, tmp_path):
    """A head's file that held encoder weights must not reach the encoder."""
    model = made(base)
    model.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.sharing.state_dict().items()}
    heads = load_file(tmp_path / "heads.safetensors")
    poisoned = {**heads, "hidden.bert.embeddings.word_embeddings.weight": torch.full((167, 32), 7.0)}
    save_file(poisoned, tmp_path / "heads.safetensors")
    with pytest.raises(RunFolderError, match="not ours"):
        weights.load_weights(tmp_path, model.sharing, model.modules_)
    same_states(before, model.sharing.state_dict())
    save_file({name: value + 1 for name, value in heads.items()}, tmp_path / "heads.safetensors")
    weights.load_weights(tmp_path, model.sharing, model.modules_)
    same_states(before, model.sharing.state_dict())
    assert torch.equal(model.module_of("pair").classifier.weight, heads["pair.classifier.weight"] + 1)


OTHERS = {
    "labels": (TASKS[0].with_(labels=["x", "y"]), {}, "heads of another model"),
    "task": (TASKS[0].with_(name="pear"), {}, "heads of another model: pear.*missing"),
    "head": (TASKS[0].with_(head={"name": "regression"}, labels=None), {}, "heads of another model"),
}


@pytest.mark.parametrize("what", list(OTHERS))
def test_heads_of_another_model_are_refused_and_nothing_is_loaded(base, tmp_path, what):
    task, settings, said = OTHERS[what]
    made(base).save_pretrained(tmp_path)
    refused(MultiTaskModel.from_base(base, [task], max_length=64, **settings), tmp_path, said)


@pytest.mark.parametrize(
    ("written", "ours", "said"),
    [
        ("full", {"lora": LORA}, "is a run with full fine-tuning, this model is set up for LoRA"),
        ("lora", {}, "is a run with LoRA, this model is set up for full"),
        ("lora", {"lora": {**LORA, "r": 8}}, "an adapter of another model"),
        ("lora", {"lora": {**LORA, "target_modules": ["query"]}}, "an adapter of another model"),
        ("rslora", {"lora": LORA}, "an adapter of another model"),
        ("dora", {"lora": LORA}, "an adapter of another model"),
        ("lora", {"lora": {**LORA, "use_dora": True}}, "an adapter of another model"),
    ],
)
def test_another_kind_of_tuning_is_refused_and_nothing_is_loaded(base, tmp_path, written, ours, said):
    made(base, written).save_pretrained(tmp_path)
    refused(MultiTaskModel.from_base(base, TASKS, max_length=64, **ours), tmp_path, said)


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"max_position_embeddings": 100}]
)
def test_another_encoder_is_refused_and_nothing_is_loaded(base, tmp_path, changes):
    made(base).save_pretrained(tmp_path / "run")
    tiny_encoder("bert", **changes).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    refused(
        MultiTaskModel.from_base(tmp_path / "other", TASKS, max_length=64),
        tmp_path / "run",
        "the encoder of another model",
    )


def refused(model, folder, said):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RunFolderError, match=said):
        weights.load_weights(folder, model.sharing, model.modules_)
    same_states(before, model.state_dict())


@pytest.mark.parametrize("name", ["heads.safetensors", "model.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_unsealed_weights_that_cannot_be_read_are_refused(base, tmp_path, name, fault):
    model = made(base)
    model.save_pretrained(tmp_path)
    file = tmp_path / name
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:40])
    refused(model, tmp_path, re.escape(name) if fault == "truncated" else "missing|another model")


class Scaled(Hard):
    """Hard sharing with a parameter of its own."""

    def __init__(self, encoder, tasks, start: float = 1.0):
        super().__init__(encoder, tasks)
        self.scale = torch.nn.Parameter(torch.full((3,), start))

    def own_state(self):
        return {"scale": self.scale}


def test_what_a_sharing_has_of_its_own_is_saved_and_loaded(base, tmp_path, monkeypatch):
    registry.sharings.names()
    monkeypatch.setitem(registry.sharings._entries, "test_scaled", Scaled)
    model = made(base, sharing={"name": "test_scaled", "start": 2.0})
    model.save_pretrained(tmp_path)
    assert torch.equal(load_file(tmp_path / "sharing.safetensors")["scale"], model.sharing.scale)
    again = MultiTaskModel.from_pretrained(tmp_path)
    assert isinstance(again.sharing, Scaled)
    assert torch.equal(again.sharing.scale, model.sharing.scale)
    save_file({"scale": torch.zeros(4)}, tmp_path / "sharing.safetensors")
    refused(again, tmp_path, "a sharing of another model")
    made(base).save_pretrained(tmp_path / "hard")
    assert not (tmp_path / "hard" / "sharing.safetensors").exists()


# ------------------------------------------------------------------------------------------------------------- the spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not a run folder"),
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format": "1"}', "damaged"),
        ('{"format": 99}', "newer version.*update nlp_mtl"),
        (b"\xff\xfe{", "damaged"),
    ],
)
def test_a_spec_that_cannot_be_read(tmp_path, text, said):
    if text is not None:
        (tmp_path / "nlp_mtl.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunFolderError, match=said) as caught:
        read_spec(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(RunFolderError, match=said):
        MultiTaskModel.from_pretrained(tmp_path)


def test_the_spec_says_what_is_needed_to_build_the_model_again(base, tmp_path):
    model = made(base, "lora")
    model.save_pretrained(tmp_path, more={"balancer": "equal"})
    said = read_spec(tmp_path)
    assert said["format"] == checkpoint.FORMAT
    assert [task["name"] for task in said["tasks"]] == ["pair", "tags", "hidden"]
    assert said["strategies"] == {"sharing": "hard", "lora": True, "freeze": [], "balancer": "equal"}
    assert said["max_length"] == 64
    assert {"torch", "transformers", "peft", "nlp-mtl", "python"} <= set(said["libraries"])


# -------------------------------------------------------------------------------------------------- whole or not at all


@pytest.fixture
def sealed(tmp_path):
    """A sealed folder of two files."""
    folder = tmp_path / "checkpoint-7"
    with checkpoint.replacing(folder) as work:
        (work / "weights.safetensors").write_bytes(os.urandom(3000))
        (work / "sub").mkdir()
        (work / "sub" / "state.json").write_text('{"a": 1}', encoding="utf-8")
    return folder


def test_a_whole_folder_is_undamaged(sealed):
    assert checkpoint.damage(sealed) is None
    said = json.loads((sealed / "complete.json").read_text(encoding="utf-8"))["files"]
    assert set(said) == {"weights.safetensors", "sub/state.json"}
    (sealed / "more.txt").write_text("a file that came later harms nothing", encoding="utf-8")
    assert checkpoint.damage(sealed) is None


def truncate(folder):
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder):
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[1500] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "truncated": (truncate, "weights.safetensors is not as it was written"),
    "one bit": (flip, "weights.safetensors is not as it was written"),
    "longer": (lambda f: (f / "sub" / "state.json").write_text('{"a": 1} ', encoding="utf-8"), "sub/state.json is not"),
    "missing file": (lambda f: (f / "sub" / "state.json").unlink(), "sub/state.json is missing"),
    "missing manifest": (lambda f: (f / "complete.json").unlink(), "complete.json is missing"),
    "broken manifest": (
        lambda f: (f / "complete.json").write_text('{"files": ', encoding="utf-8"),
        "complete.json can't be read",
    ),
    "other manifest": (
        lambda f: (f / "complete.json").write_text("[]", encoding="utf-8"),
        "complete.json can't be read",
    ),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_every_damage_is_noticed(sealed, what):
    harm, said = DAMAGE[what]
    harm(sealed)
    assert said in checkpoint.damage(sealed)


def test_a_damaged_run_is_not_loaded(base, tmp_path):
    made(base).save_pretrained(tmp_path)
    checkpoint.seal(tmp_path)
    MultiTaskModel.from_pretrained(tmp_path)
    flip_in = tmp_path / "heads.safetensors"
    content = bytearray(flip_in.read_bytes())
    content[-1] ^= 1
    flip_in.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"damaged: heads\.safetensors is not as it was written"):
        MultiTaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
def test_a_failed_write_leaves_the_old_folder(sealed, error):
    before = {file: file.read_bytes() for file in sealed.rglob("*") if file.is_file()}

    def write():
        with checkpoint.replacing(sealed) as work:
            (work / "weights.safetensors").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert {file: file.read_bytes() for file in sealed.rglob("*") if file.is_file()} == before
    assert [part.name for part in sealed.parent.iterdir()] == [sealed.name], "nothing half-written stays"
    assert checkpoint.damage(sealed) is None


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no"), checkpoint.replacing(tmp_path / "run"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_second_write_takes_the_firsts_place_whole(sealed):
    with checkpoint.replacing(sealed) as work:
        (work / "other.json").write_text("{}", encoding="utf-8")
        assert (sealed / "weights.safetensors").exists(), "the old one stays until the new one is whole"
    assert {file.name for file in sealed.iterdir()} == {"other.json", "complete.json"}
    assert [part.name for part in sealed.parent.iterdir()] == [sealed.name]


def test_what_a_killed_write_left_does_not_disturb_the_next(sealed):
    left = sealed.with_name(f".{sealed.name}.writing")
    left.mkdir()
    (left / "half.bin").write_bytes(b"half")
    with checkpoint.replacing(sealed) as work:
        (work / "new.json").write_text("{}", encoding="utf-8")
    assert {file.name for file in sealed.iterdir()} == {"new.json", "complete.json"}


def test_text_is_replaced_whole(tmp_path):
    file = tmp_path / "x.json"
    checkpoint.write_text(file, "old")
    checkpoint.write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "new"
    with pytest.raises(UnicodeEncodeError):
        checkpoint.write_text(file, "half \ud800")
    assert file.read_text(encoding="utf-8") == "new"


def checkpoint_at(run, step):
    with checkpoint.replacing(run / f"checkpoint-{step}") as work:
        (work / "weights.bin").write_bytes(bytes([step % 256]) * 100)
    return run / f"checkpoint-{step}"


def test_checkpoints_are_ordered_by_step(tmp_path):
    for step in (100, 9, 20):
        checkpoint_at(tmp_path, step)
    for other in ("checkpoint-x", ".checkpoint-30.writing", "checkpoint-40.old", "checkpoints"):
        (tmp_path / other).mkdir()
    assert [part.name for part in checkpoint.checkpoints(tmp_path)] == [
        "checkpoint-9",
        "checkpoint-20",
        "checkpoint-100",
    ]
    assert checkpoint.checkpoints(tmp_path / "nothing") == []


def test_the_last_good_checkpoint_is_taken_and_damaged_ones_are_named(tmp_path, caplog):
    for step in (9, 20, 100):
        checkpoint_at(tmp_path, step)
    with caplog.at_level(logging.WARNING, logger="nlp_mtl"):
        assert checkpoint.last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
        assert caplog.messages == []
        (tmp_path / "checkpoint-100" / "weights.bin").write_bytes(b"x")
        (tmp_path / "checkpoint-20" / "complete.json").unlink()
        assert checkpoint.last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
        assert len(caplog.messages) == 2
        assert "checkpoint-100 is damaged: weights.bin is not as it was written; it is skipped" in caplog.messages[0]
        (tmp_path / "checkpoint-9" / "weights.bin").unlink()
        assert checkpoint.last_good_checkpoint(tmp_path) is None
