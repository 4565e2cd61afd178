"""Laws of distillation: losses as computed directly, additive over passes; who may learn from whom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nlp_mtl import MultiTaskModel, distillation
from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.distillation import Distilling
from nlp_mtl.distillation.outputs import outputs_of
from nlp_mtl.distilspec import DistillationSpec, specs_of
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import write_base, write_many, write_tasks

KINDS = ["task_0", "task_1", "task_2", "task_3", "task_4"]  # classes, a number, words, labels, choices


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = write_many(tmp_path_factory.mktemp("data"), 5, rows=14)
    return [str(folder / f"{name}.yaml") for name in KINDS]


@pytest.fixture(scope="module")
def world(files):
    heads = {"task_4": {"pooling": "mean"}}  # a first token knows little of the choice
    model, teacher = (tiny_model(load_tasks(files), seed=seed, heads=heads) for seed in (0, 1))
    with torch.no_grad():
        for one in (model, teacher):
            for p in one.modules_.parameters():
                p.mul_(20.0)  # new heads say almost nothing
    return model.eval(), teacher.eval(), load_data(model.heads, model.tokenizer, max_length=128)


def taught(model, data, tmp_path, given, **more):
    """The pools and the distillation, its teachers asked; the model is left with them."""
    one = Distilling(given, model, data, **more)
    pools = one.pools(data.splits["train"])
    one.begin(tmp_path, resumed=False, keep=True, main=True, processes=1)
    return one, pools


def whole_batch(pools, heads, keep=lambda number: True):
    refs = [(p, row, 0) for p, pool in enumerate(pools) for row in range(len(pool))]
    return Collator(pools, heads, training=True)([ref for number, ref in enumerate(refs) if keep(number)])


def directly(kind, ours, theirs, target, T):
    """The mean loss against the teacher, from both logits, in the words of torch."""
    if kind == "task_1":
        return functional.mse_loss(ours, theirs)
    if kind == "task_3":
        p, q = (theirs / T).sigmoid(), (ours / T).sigmoid()
        cross, own = (functional.binary_cross_entropy(x, p, reduction="none") for x in (q, p))
        return (cross - own).mean() * T**2
    if kind == "task_4":
        rows = zip(ours, theirs, target["counts"].tolist(), strict=True)
        each = [directly("task_0", a[None, :n], b[None, :n], target, T) for a, b, n in rows]
        return torch.stack(each).mean()
    ours, theirs = (ours / T).log_softmax(-1), (theirs / T).softmax(-1)
    return functional.kl_div(ours, theirs, reduction="batchmean") * T**2


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_labels_and_of_the_teacher_by_their_shares(world, tmp_path, kind):
    model, teacher, data = world
    batch = whole_batch(data.splits["train"], data.heads)
    with torch.no_grad():
        plain, theirs = model(**batch), teacher(**batch)["logits"][kind]
        one, pools = taught(model, data, tmp_path, {"teacher": teacher, "temperature": 3.0, "weight": 0.3})
        found = model(**whole_batch(pools, data.heads))["losses"][kind]
        one.end()
    far = directly(kind, plain["logits"][kind], theirs, batch["targets"][kind], 3.0)
    assert float(far) > 1e-5
    assert float(found) == pytest.approx(0.7 * float(plain["losses"][kind]) + 0.3 * float(far), rel=1e-4)


def test_a_teacher_that_is_oneself_gives_no_gradient(world, tmp_path):
    model, _, data = world
    one, pools = taught(model, data, tmp_path, {"teacher": model, "weight": 1.0, "hidden": True})
    model.zero_grad()
    model(**whole_batch(pools, data.heads))["loss"].backward()
    one.end()
    worst = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    assert worst < 1e-5


def test_at_share_0_the_gradient_is_that_of_labels_to_the_bit(world, tmp_path):
    model, teacher, data = world
    model.zero_grad()
    model(**whole_batch(data.splits["train"], data.heads))["loss"].backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    one, pools = taught(model, data, tmp_path, {"teacher": teacher, "weight": 0.0, "hidden": 2.0, "temperature": 1.0})
    model.zero_grad()
    model(**whole_batch(pools, data.heads))["loss"].backward()
    one.end()
    assert plain
    assert all(torch.equal(p.grad, plain[name]) for name, p in model.named_parameters() if name in plain)
    model.zero_grad()


@settings(max_examples=6, deadline=None)
@given(parts=st.lists(st.integers(0, 3), min_size=200, max_size=200))
def test_passes_add_up_to_the_whole(world, tmp_path_factory, parts):
    model, teacher, data = world
    given = {"teacher": teacher, "hidden": True, "weight": 0.6}
    one, pools = taught(model, data, tmp_path_factory.mktemp("run"), given)
    with torch.no_grad():
        whole = whole_batch(pools, data.heads)
        units = {task: float(target["teacher"]["units"]) for task, target in whole["targets"].items()}
        every = [whole_batch(pools, data.heads, lambda n, number=number: parts[n] == number) for number in range(4)]
        losses = [model(**part, units=units)["loss"] for part in every if part["targets"]]
        assert float(torch.stack(losses).sum()) == pytest.approx(float(model(**whole)["loss"]), rel=1e-4)
    one.end()


def test_states_are_those_that_heads_read_through_a_learned_projection(files, tmp_path):
    """The teacher has another family, width and tokenizer: it reads the raw rows for itself."""
    base = write_base(tmp_path / "wide", "gpt2", n_embd=48)
    teacher = MultiTaskModel.from_base(base, load_tasks(files[:3])).eval()
    model = tiny_model(load_tasks(files[:3])).eval()
    data = load_data(model.heads, model.tokenizer, max_length=128)
    one, pools = taught(model, data, tmp_path, {"teacher": teacher, "weight": 1.0, "hidden": {"weight": 5.0}})
    own = load_data(teacher.heads, teacher.tokenizer, max_length=teacher.max_length)
    rows = own.pool_of("task_0", "train")
    inputs = [
        torch.as_tensor(np.asarray(ids).copy()).long()[None]
        for ids in (rows.row(n)["input_ids"] for n in range(len(rows)))
    ]
    with torch.no_grad():
        theirs = torch.stack([teacher.sharing.encoder(ids).last_hidden_state[0, -1] for ids in inputs])
        pool = next(pool for pool in pools if "task_0" in pool.tasks)
        assert torch.allclose(torch.from_numpy(pool.outputs["task_0"].states), theirs, atol=1e-4)
        ids = [torch.as_tensor(np.asarray(pool.row(n)["input_ids"]).copy()).long()[None] for n in range(len(pool))]
        ours = torch.stack([model.sharing.encoder(x).last_hidden_state[0, 0] for x in ids])
        near = one.teaching.projections["task_0"](ours)
        batch = whole_batch([pool], data.heads)
        far = float(model(**batch)["losses"]["task_0"])
        one.teaching.specs["task_0"] = DistillationSpec(teacher, weight=1.0)
        alone = float(model(**batch)["losses"]["task_0"])
    assert far - alone == pytest.approx(5.0 * float(functional.mse_loss(near, theirs)), rel=1e-3)
    model(**whole_batch(pools, data.heads))["loss"].backward()
    assert all(p.grad is not None for p in one.teaching.projections["task_1"].parameters())
    one.end()
    assert not [name for name, _ in model.named_parameters() if "projection" in name]


def test_labels_in_another_order_are_put_into_the_students(files, tmp_path):
    task = load_tasks(files[:1])[0]
    teacher = tiny_model([task.with_(labels=["z", "x", "y"])], seed=1)
    model = tiny_model([task])
    data = load_data(model.heads, model.tokenizer, max_length=128)
    one, pools = taught(model, data, tmp_path, {"teacher": teacher})
    one.end()
    said = outputs_of(teacher, ["task_0"], data.splits["train"][0], hidden=False)["task_0"]
    assert np.array_equal(pools[0].outputs["task_0"].values, said.values[:, [1, 2, 0]])


def test_rows_without_a_label_are_learned_from_by_their_teacher_alone(files, tmp_path):
    rows = list(map(json.loads, Path(files[0].replace(".yaml", "-train.jsonl")).read_text().splitlines()))
    for number, row in enumerate(rows):
        row["label"] = row["label"] if number % 3 == 0 else None
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = json.loads(Path(files[0]).read_text())
    (tmp_path / "few.yaml").write_text(
        json.dumps({**said, "name": "few", "dataset": {"path": "json", "data_files": {"train": "few.jsonl"}}})
    )
    tasks = load_tasks([str(tmp_path / "few.yaml")])
    model, teacher = tiny_model(tasks).eval(), tiny_model(tasks, seed=1).eval()
    data = load_data(model.heads, model.tokenizer, max_length=128)
    pool = data.splits["train"][0]
    known = np.flatnonzero(pool.labelled("few"))
    assert 0 < len(known) < len(pool)
    with torch.no_grad():
        plain = whole_batch([pool], data.heads)
        labels = float(model(**plain)["losses"]["few"])
        one, pools = taught(model, data, tmp_path, {"teacher": teacher, "weight": 0.25, "temperature": 1.0})
        assert len(pools[0].trainable) == len(pool)
        batch = whole_batch(pools, data.heads)
        out = model(**batch)
        one.end()
    assert (
        batch["targets"]["few"]["teacher"]["units"]
        == len(pool)
        > plain["targets"]["few"]["labels"].numel()
        == len(known)
    )
    # the batch stands in the order of the rows, as the teacher's values do
    far = directly("task_0", out["logits"]["few"], torch.from_numpy(pools[0].outputs["few"].values), {}, 1.0)
    expected = 0.75 * labels * len(known) / len(pool) + 0.25 * float(far)
    assert float(out["losses"]["few"]) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_is_asked_once(files, tmp_path, monkeypatch):
    tasks = load_tasks(files)
    tiny_model(tasks, seed=3).save_pretrained(tmp_path / "teacher")
    model = tiny_model(tasks)
    data = load_data(model.heads, model.tokenizer, max_length=128)
    given = {"teacher": str(tmp_path / "teacher"), "hidden": True}
    first, pools = taught(model, data, tmp_path / "run", given)
    first.end()

    def refuse(*given, **more):
        raise AssertionError("asked again")

    with monkeypatch.context() as patch:
        patch.setattr(distillation.distilling, "outputs_of", refuse)
        second, again = taught(model, data, tmp_path / "run", given)
        second.end()
        for one, other in zip(pools, again, strict=True):
            for task, said in one.outputs.items():
                assert np.array_equal(said.values, other.outputs[task].values, equal_nan=True)
                assert np.array_equal(said.states, other.outputs[task].states, equal_nan=True)
        tiny_model(tasks, seed=4).save_pretrained(tmp_path / "teacher")
        with pytest.raises(AssertionError, match="asked again"):
            taught(model, data, tmp_path / "run", given)


# ------------------------------------------------------------------------------------- learning without forgetting


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two kinds of text and one of words: mood, alike (pairs), names, and rainy on the rows of names."""
    tasks = load_tasks(write_tasks(tmp_path_factory.mktemp("three"), rows=20))
    model = tiny_model(tasks)
    return model.eval(), load_data(model.heads, model.tokenizer, max_length=64)


def test_a_guest_learns_from_the_rows_of_others_by_its_teacher_alone(three, tmp_path):
    """Also word by word where rows know of no words; and never from labels that it has there."""
    model, data = three
    given = {"teacher": "start", "tasks": ["mood", "names"], "on": ["alike"], "weight": 1.0}
    one, pools = taught(model, data, tmp_path, given, train_tasks=["alike"])
    alike = next(pool for pool in pools if "alike" in pool.tasks)
    assert one.guests == {"mood": len(alike), "names": len(alike)}
    assert all(pool.readers == pool.tasks for pool in pools if pool is not alike)
    batch = whole_batch([alike], data.heads)
    targets = batch["targets"]
    assert "labels" in targets["alike"] and not {"labels"} & {*targets["mood"], *targets["names"]}
    tokens = int(batch["lengths"].sum())
    assert targets["names"]["teacher"]["units"] == tokens - 3 * len(alike)  # without [CLS] and two [SEP]
    with torch.no_grad():
        losses = model(**batch)["losses"]
    one.end()
    assert float(losses["mood"]) < 1e-6 and float(losses["names"]) < 1e-6 < float(losses["alike"])
    given = {"teacher": "start", "tasks": ["rainy"], "on": ["names"], "weight": 0.5}
    _, pools = taught(model, data, tmp_path, given, train_tasks=["names"])
    model.teaching = None
    names = next(pool for pool in pools if "names" in pool.readers)
    assert "labels:rainy" not in {key for key in names.row(0) if names.guests}


@pytest.mark.parametrize(("task", "rows"), [("mood", "alike"), ("names", "mood")])
def test_labels_without_a_teacher_count_whole(three, tmp_path, task, rows):
    """As where earlier tasks' rows are replayed beside the new one's, on which their heads are held."""
    model, data = three
    other = tiny_model([head.task for head in model.heads.values()], seed=5).eval()
    given = {"teacher": other, "tasks": [task], "on": [rows], "weight": 0.7, "temperature": 1.0}
    with torch.no_grad():
        alone = whole_batch(data.splits["train"], data.heads)
        labels, count = float(model(**alone)["losses"][task]), data.heads[task].units(alone["targets"][task])
        one, pools = taught(model, data, tmp_path, given)
        guest = next(pool for pool in pools if task not in pool.tasks and task in pool.readers)
        part = whole_batch([guest], data.heads)
        far, held = float(model(**part)["losses"][task]), part["targets"][task]["teacher"]["units"]
        batch = whole_batch(pools, data.heads)
        found, units = float(model(**batch)["losses"][task]), batch["targets"][task]["teacher"]["units"]
        one.end()
    assert units == count + held and far > 1e-6
    assert found == pytest.approx((labels * count + far * held) / units, rel=1e-4)


def test_what_the_start_said_is_read_back_when_a_run_goes_on(three, tmp_path):
    model, data = three
    given = {"teacher": "start", "tasks": ["mood"], "on": ["alike"]}
    first, pools = taught(model, data, tmp_path, given, train_tasks=["alike"])
    first.end()
    later = Distilling(given, tiny_model(load_tasks([h.task for h in model.heads.values()]), seed=9), data)
    again = later.pools(data.splits["train"])
    later.begin(tmp_path, resumed=True, keep=True, main=True, processes=1)
    said = [next(p for p in some if "alike" in p.tasks).outputs["mood"].values for some in (pools, again)]
    assert np.array_equal(*said)
    (tmp_path / "teacher.safetensors").unlink()
    fresh = Distilling(given, model, data)
    fresh.pools(data.splits["train"])
    with pytest.raises(RunFolderError, match=r"`teacher: start` can't be asked again; start the run again"):
        fresh.begin(tmp_path, resumed=True, keep=True, main=True, processes=1)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("runs/big", r"distillation: says \{teacher: …\}, or a list of such, found 'runs/big'"),
        ({"task": ["rte"]}, "takes no 'task'; did you mean 'tasks'"),
        ({}, "`teacher` is a run folder, or start .*found None"),
        ({"teacher": "x", "temperature": 0}, "`temperature` is a number above 0, found 0; left out, it is 2"),
        ({"teacher": "x", "weight": 1.5}, "`weight` is a number from 0 to 1, found 1.5; left out, it is 0.5"),
        ({"teacher": "x", "weight": float("nan")}, "`weight` is a number from 0 to 1, found nan"),
        ({"teacher": "x", "annealing": "cosine"}, "`annealing` is none or linear, found 'cosine'"),
        ({"teacher": "x", "hidden": -1}, r"`hidden` is true, \{weight: …\} or a number from 0, found -1"),
        ({"teacher": "x", "hidden": {"wait": 1}}, "`hidden` is true"),
        ({"teacher": "x", "on": []}, r"`on` is a list of tasks, found \[\]"),
        ({"teacher": "x", "of": ["rte"]}, r"`of` says \{task: the teacher's task\}"),
    ],
    ids=str,
)
def test_mistakes_in_the_key_are_told(given, words):
    with pytest.raises(ConfigError, match=words):
        specs_of(given)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as raised:
        specs_of([{"teacher": 3, "weight": 2}, {"teacher": "x", "annealing": 1}])
    assert len(raised.value.mistakes) == 3


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        ({"tasks": ["moood"]}, {}, "`tasks`: 'moood' is not a task of this run; did you mean 'mood'"),
        ({"tasks": ["mood"], "of": {"mood": "nowhere"}}, {}, "a model: it has no task 'nowhere'"),
        ({"tasks": ["mood"], "of": {"mood": "rainy"}}, {}, "its labels are no, yes, this run's are bad, good"),
        ({"tasks": ["mood"], "of": {"mood": "alike"}}, {}, r"of another kind \(regression, not sequence_class"),
        ({"tasks": ["mood"], "of": {"names": "names"}}, {}, "`of` names 'names', which learns from a model in no way"),
        ({"tasks": ["mood"]}, {"train_tasks": ["names"]}, "'mood' does not learn .*`on: "),
        ({"tasks": ["mood"], "on": ["alike"]}, {"train_tasks": ["names"]}, "'alike' does not learn"),
        ({"teacher": "start"}, {"fresh": True}, "found no such task; start it with `init_from`, or name `tasks`"),
        ({"teacher": "start", "tasks": ["mood"]}, {"fresh": True}, "its head begins anew in this run"),
        ({"teacher": "nowhere"}, {}, "not a run folder"),
    ],
    ids=str,
)
def test_who_can_not_learn_from_whom_is_told(three, given, more, words):
    model, data = three
    model.fresh = more.pop("fresh", False) if "fresh" in (more := dict(more)) else False
    try:
        with pytest.raises((ConfigError, RunFolderError), match=words):
            Distilling({"teacher": model, **given}, model, data, **more)
    finally:
        model.fresh = False
    with pytest.raises(ConfigError, match="each task has one teacher, found two for 'mood'"):
        Distilling([{"teacher": model, "tasks": ["mood"]}] * 2, model, data)


def test_rows_that_a_head_can_not_read_are_refused(files, world):
    model, _, data = world
    words = [
        ({"tasks": ["task_4"], "on": ["task_0"]}, "compares the choices of a row"),
        ({"tasks": ["task_0"], "on": ["task_4"]}, "a row of 'task_4' is several texts, and its head reads one"),
    ]
    for asked, said in words:
        with pytest.raises(ConfigError, match=said):
            Distilling({"teacher": model, **asked}, model, data)
    texts = load_tasks(files[:1])[0]
    masked = texts.with_(name="masked", head="masked_lm", target=None, labels=None, metrics=None)
    both = tiny_model([texts, masked])
    rows = load_data(both.heads, both.tokenizer, max_length=128)
    with pytest.raises(ConfigError, match="it hides other words each time, so that a teacher's outputs can't be"):
        Distilling({"teacher": both, "tasks": ["masked"]}, both, rows)
    with pytest.raises(ConfigError, match="the rows of 'masked' have other words hidden each time"):
        Distilling({"teacher": both, "tasks": ["task_0"], "on": ["masked"]}, both, rows)
    assert [lesson.task for lesson in Distilling({"teacher": both}, both, rows).lessons] == ["task_0"]


def test_the_share_of_the_teacher_falls_from_weight_to_0():
    one = DistillationSpec.of_key({"teacher": "x", "annealing": "linear"})
    assert [one.share(step, 8) for step in (0, 4, 8)] == [1.0, 0.5, 0.0]
    assert DistillationSpec.of_key({"teacher": "x", "weight": 0.3}).share(7, 8) == 0.3
