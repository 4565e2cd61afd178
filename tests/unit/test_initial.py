"""Starting where an earlier run ended: nothing it learned is lost, and the new run answers as it did."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl import MultiTaskModel, export_task, push
from nlp_mtl.errors import ConfigError, NotFoundError, RunFolderError, UnsupportedError
from nlp_mtl.initfrom import InitFrom
from nlp_mtl.initial import model_from
from nlp_mtl.prediction import predict
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer

torch.set_num_threads(1)

LORA = {"r": 2, "target_modules": "all-linear"}
TEXT = {"text": "a good cat", "tokens": ["a", "good", "cat"]}


def task(name, labels=("a", "b"), head="sequence_classification", inputs=("text",)):
    data = {"path": "x"}
    return Task(name=name, head=head, dataset=data, inputs=list(inputs), target="y", labels=list(labels))


MOOD, KIND = task("mood"), task("kind", ["a", "b", "c"])
WORDS = task("words", ["O", "B-X"], "token_classification", ["tokens"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_encoder("bert").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def shaken(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def earlier(base, folder, tasks=(MOOD, KIND, WORDS), **how):
    model = shaken(MultiTaskModel.from_base(base, list(tasks), max_length=64, **how)).eval()
    model.save_pretrained(folder)
    return model


def answers(model, tasks):
    return dict(predict(model.eval(), TEXT, tasks=list(tasks)))


EXPERTS, BRANCH = {"name": "mixture_of_experts", "experts": 3}, {"name": "branch", "depth": 1}
TOLD = {"name": "hard", "condition": "embedding"}
ALIKE = [
    {},
    {"lora": LORA},
    {"lora": LORA, "task_lora": LORA},
    {"task_lora": LORA},
    {"sharing": "cross_task_attention"},
    {"sharing": EXPERTS, "lora": LORA},
    {"sharing": "soft_encoders"},
    {"sharing": BRANCH},
    {"sharing": BRANCH, "lora": LORA},
    {"sharing": TOLD},
    {"heads": {"mood": {"layer": "mix"}}},
]
OTHER = [({}, {"lora": LORA}), ({}, {"freeze": "*"}), ({"lora": LORA}, {}), ({"lora": LORA}, ALIKE[2])]


@pytest.mark.parametrize(("how", "then"), [*((how, how) for how in ALIKE), *OTHER], ids=str)
def test_a_run_goes_on_where_the_earlier_one_ended(base, tmp_path, how, then):
    old = earlier(base, tmp_path / "old", **how)
    made = model_from(tmp_path / "old", base, [MOOD, KIND, WORDS], max_length=64, seed=5, **then)
    near = 1e-3 if how != then and "lora" in how and "lora" not in then else 0  # adapters that were merged
    for task, answer in answers(made, old.tasks).items():
        before = answers(old, old.tasks)[task]
        if near:
            assert answer.get("scores", {}) == pytest.approx(before.get("scores", {}), abs=near)
        else:
            assert answer == before
    assert made.strategies["init_from"] == {"run": "old", "heads": ["mood", "kind", "words"]}
    made.save_pretrained(tmp_path / "new")
    again = MultiTaskModel.from_pretrained(
        tmp_path / "new", base=tmp_path / "old" if not how and then.get("lora") else base
    )
    assert answers(again, old.tasks) == answers(made, old.tasks)


def test_a_lora_that_is_merged_is_followed_by_a_new_one(base, tmp_path):
    """Answers stay; the new LoRA draws other weights than the first did; every folder holds the encoder below."""
    old, tasks = earlier(base, tmp_path / "old", lora=LORA), ["mood", "kind", "words"]
    start = {"run": str(tmp_path / "old"), "merge": True}
    made = model_from(start, base, [MOOD, KIND, WORDS], max_length=64, lora=LORA)
    assert answers(made, ["kind"])["kind"]["scores"] == pytest.approx(
        answers(old, ["kind"])["kind"]["scores"], abs=1e-3
    )
    ups = [p for name, p in made.named_parameters() if ".lora_B." in name]
    assert ups and not any(p.any() for p in ups)
    fresh = dict(MultiTaskModel.from_base(base, [MOOD], max_length=64, lora=LORA).named_parameters())
    name = next(name for name in fresh if ".lora_A." in name)
    assert not torch.equal(made.get_parameter(name), fresh[name])
    shaken(made).save_pretrained(tmp_path / "new")
    again = MultiTaskModel.from_pretrained(tmp_path / "new", base=base)  # what is below it is its own
    assert answers(again, tasks) == answers(made, tasks)
    assert again.base == {"id": "tiny", "sha256": made.base["sha256"], "own": True}
    export_task(tmp_path / "new", "kind", tmp_path / "vanilla", as_="model")
    with pytest.raises(UnsupportedError, match="the encoder below it was trained too; say --as model"):
        export_task(tmp_path / "new", "kind", tmp_path / "adapter", as_="adapter")
    with pytest.raises(UnsupportedError, match="earlier ones merged in"):
        push(tmp_path / "new", "me/it", dry_run=True, base_model="some/base")
    goes_on = model_from(tmp_path / "new", base, [MOOD, KIND, WORDS], max_length=64, lora=LORA)
    assert answers(goes_on, tasks) == answers(made, tasks)
    goes_on.save_pretrained(tmp_path / "third")
    assert answers(MultiTaskModel.from_pretrained(tmp_path / "third"), tasks) == answers(made, tasks)
    plain = model_from(tmp_path / "third", base, [KIND], max_length=64)
    assert answers(plain, ["kind"])["kind"]["scores"] == pytest.approx(
        answers(made, ["kind"])["kind"]["scores"], abs=1e-2
    )
    assert "own" not in plain.base


def test_a_lora_on_a_full_run_goes_on_on_that_run(base, tmp_path):
    """Not on the pretrained model, where it was never trained."""
    earlier(base, tmp_path / "1-full")
    second = shaken(model_from(tmp_path / "1-full", base, [MOOD, KIND, WORDS], max_length=64, lora=LORA))
    second.save_pretrained(tmp_path / "2-lora")
    third = model_from(tmp_path / "2-lora", base, [MOOD, KIND, WORDS], max_length=64, lora=LORA)
    assert answers(third, ["kind"]) == answers(second, ["kind"])


def test_merging_is_about_adapters(base, tmp_path):
    earlier(base, tmp_path / "old")
    with pytest.raises(ConfigError, match=r"`merge` is about a run with `lora` or `task_lora`, found .* without"):
        model_from({"run": str(tmp_path / "old"), "merge": True}, base, [MOOD], max_length=64, lora=LORA)


@pytest.mark.parametrize("how", [{}, {"lora": LORA}, {"lora": LORA, "task_lora": LORA}, {"task_lora": LORA}], ids=str)
def test_other_tasks_take_the_encoder_and_their_own_heads(base, tmp_path, how):
    old = earlier(base, tmp_path / "old", **how)
    rain = task("rain", ["x", "y"])
    made = model_from(tmp_path / "old", base, [KIND, rain], max_length=64, **how)
    assert answers(made, ["kind"]) == answers(old, ["kind"])
    assert made.begun == {"kind"}
    fresh = MultiTaskModel.from_base(base, [rain], max_length=64).module_of("rain").state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in made.module_of("rain").state_dict().items())


def test_labels_in_another_order_are_put_in_order(base, tmp_path):
    old = earlier(base, tmp_path / "old")
    made = model_from(tmp_path / "old", base, [task("kind", ["c", "a", "b"])], max_length=64)
    found, before = (answers(model, ["kind"])["kind"] for model in (made, old))
    assert found["label"] == before["label"]
    assert made.begun == {"kind"}


GROWN = [
    ("sequence_classification", ["a", "b", "c"], ["d", "c", "a", "e", "b"], {}),
    ("sequence_classification", ["a", "b"], ["a", "b", "c"], {"lora": LORA}),
    ("token_classification", ["O", "B-X"], ["O", "B-Y", "B-X"], {}),
    ("multi_label", ["a", "b"], ["b", "c", "a"], {}),
]


@pytest.mark.parametrize(("head", "labels", "more", "how"), GROWN, ids=str)
def test_a_label_set_that_grew_keeps_what_gives_the_logits_of_the_old_ones(base, tmp_path, head, labels, more, how):
    """Every number that makes them is the same to the bit: the encoder's and the old labels' rows."""
    inputs = ["tokens"] if head == "token_classification" else ["text"]
    old = earlier(base, tmp_path / "old", [task("kind", labels, head, inputs)], **how)
    made = model_from(tmp_path / "old", base, [task("kind", more, head, inputs)], max_length=64, seed=3, **how).eval()
    before, after = old.heads["kind"].labels, made.heads["kind"].labels
    assert len(after) > len(before)
    encoders = (model.sharing.encoder.state_dict() for model in (old, made))
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in encoders), strict=True))
    batch = {"input_ids": torch.tensor([3, 5, 7, 6, 4, 9, 8]), "lengths": torch.tensor([4, 3])}
    key = "positions" if head == "token_classification" else "sequences"
    target = {key: torch.tensor([1, 2, 5] if key == "positions" else [0, 1]), "counts": torch.tensor([2, 1])}
    with torch.no_grad():
        first, then = (model(**batch, targets={"kind": target})["logits"]["kind"] for model in (old, made))
    places = [after.index(label) for label in before]
    torch.testing.assert_close(then[:, places], first, atol=1e-6, rtol=0)  # a wider product may round the last bit
    theirs = old.module_of("kind").state_dict()
    assert then.shape[1] == len(after)
    assert made.begun == {"kind"}
    fresh = MultiTaskModel.from_base(base, [task("kind", more, head, inputs)], max_length=64, seed=3)
    new = [number for number, label in enumerate(after) if label not in before]
    for name, value in made.module_of("kind").state_dict().items():
        assert torch.equal(value[places] if len(value) == len(after) else value, theirs[name]), name
        if len(value) == len(after):
            assert torch.equal(value[new], fresh.module_of("kind").state_dict()[name][new])


@pytest.mark.parametrize("labels", [["a", "b", "d"], ["a", "b"]])
def test_other_labels_begin_anew(base, tmp_path, labels):
    earlier(base, tmp_path / "old")
    made = model_from(tmp_path / "old", base, [task("kind", labels)], max_length=64)
    fresh = MultiTaskModel.from_base(base, [task("kind", labels)], max_length=64)
    for name, value in made.module_of("kind").state_dict().items():
        assert torch.equal(value, fresh.module_of("kind").state_dict()[name])
    assert made.begun == set()


def test_a_head_starts_as_that_of_another_task(base, tmp_path):
    old = earlier(base, tmp_path / "old")
    start = {"run": str(tmp_path / "old"), "heads": {"feeling": "mood"}}
    made = model_from(start, base, [task("feeling")], max_length=64)
    assert answers(made, ["feeling"])["feeling"] == answers(old, ["mood"])["mood"]


def test_a_task_of_tasks_that_differ_gives_its_encoder(base, tmp_path):
    old = earlier(base, tmp_path / "old", task_lora=LORA)
    made = model_from({"run": str(tmp_path / "old"), "task": "kind"}, base, [KIND], max_length=64)
    found, before = (answers(model, ["kind"])["kind"]["scores"] for model in (made, old))
    assert found == pytest.approx(before, abs=1e-3)  # the adapter was merged


def test_an_exported_task_is_a_start(base, tmp_path):
    """A vanilla folder: its encoder, and its head where the labels are the same, in whatever order."""
    old = earlier(base, tmp_path / "old")
    export_task(tmp_path / "old", "kind", tmp_path / "vanilla")
    before = answers(old, ["kind"])["kind"]["scores"]
    for labels in (["a", "b", "c"], ["c", "a", "b"]):
        made = model_from(str(tmp_path / "vanilla"), base, [task("kind", labels)], max_length=64)
        assert answers(made, ["kind"])["kind"]["scores"] == pytest.approx(before, abs=1e-5)
    other = model_from(str(tmp_path / "vanilla"), base, [task("kind", ["x", "y", "z"])], max_length=64)
    fresh = MultiTaskModel.from_base(base, [task("kind", ["x", "y", "z"])], max_length=64)
    weights = [model.module_of("kind").state_dict()["classifier.weight"] for model in (other, fresh)]
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("start", "then", "words"),
    [
        ({"run": "OLD", "hed": {}}, {}, "takes no 'hed'"),
        ({"run": "OLD", "merge": "yes"}, {}, "`merge` is true or false, found 'yes'"),
        ({"task": "mood"}, {}, "`run` is a folder or a Hub id, found None"),
        ({"run": "OLD", "heads": ["mood"]}, {}, "`heads` says"),
        ({"run": "OLD", "task": "moood"}, {}, "has no task 'moood'.*did you mean 'mood'"),
        (
            {"run": "OLD", "task": "mood", "heads": {"mood": "kind"}},
            {},
            "can't start as that of 'kind': its labels are others",
        ),
        ({"run": "OLD", "task": "mood", "heads": {"mod": "kind"}}, {}, "this run has no task 'mod'"),
        ({"run": "OLD"}, {}, "use encoders that differ .*say whose"),
        ({"run": "OLD"}, {"lora": LORA}, "have no place here"),
        ({"run": "OLD"}, {"task_lora": {"r": 4, "target_modules": "all-linear"}}, "have no place here"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(base, tmp_path, start, then, words):
    earlier(base, tmp_path / "old", task_lora=LORA)
    start = {**start, "run": str(tmp_path / "old")} if "run" in start else start
    with pytest.raises(ConfigError, match=words):
        model_from(start, base, [MOOD], max_length=64, **then)


def test_what_is_no_run_is_said(base, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"is a run folder .* or a pretrained one"):
        model_from(str(tmp_path / "empty"), base, [MOOD])
    with pytest.raises(NotFoundError, match="nowhere-at-all"):
        model_from("nowhere-at-all", base, [MOOD])
    with pytest.raises(ConfigError, match="are of runs of several tasks"):
        model_from({"run": base, "task": "mood"}, base, [MOOD])


def test_a_lora_on_other_weights_is_refused(base, tmp_path):
    earlier(base, tmp_path / "old", lora=LORA)
    tiny_encoder("bert", seed=3).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(RunFolderError, match="has weights with sha256"):
        model_from(tmp_path / "old", str(tmp_path / "other"), [MOOD], lora=LORA)


def test_it_is_read_from_a_name_or_a_mapping():
    assert InitFrom.of("a") == InitFrom.of({"run": "a"})
