"""What a start model says of training rows: pseudo-labels and importance weights, and what training makes of them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from nlp_mtl import MultiTaskModel
from nlp_mtl.data import load_data
from nlp_mtl.domainspec import ImportanceWeighting, PseudoLabels
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.importanceweighting import importance_weights
from nlp_mtl.run import train
from nlp_mtl.selftraining import pseudo_labels_of, with_labels
from nlp_mtl.starting import read_run, trainer_of
from nlp_mtl.startrows import FILE
from tests.integration.tiny import config, state_of, write_base, write_tasks

OWN = {"books": "cat dog house".split(), "dvd": "rain sun city".split()}


def write_domains(folder: Path, *, rows: int = 60, seed: int = 0, shuffled: bool = False, head_of: bool = True):
    """Two tasks that ask the same in other words; `shuffled` mixes up the labels of dvd's training rows."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, own in OWN.items():
        draw = random.Random(seed)
        made = []
        for number in range(rows):
            words = [*draw.choices(own, k=draw.randint(2, 6)), "good" if number % 2 else "bad"]
            draw.shuffle(words)
            made.append({"text": " ".join(words), "label": ["no", "yes"][number % 2]})
        train_rows, held_out = made[: rows - 12], made[rows - 12 :]
        if shuffled and name == "dvd":
            labels = [row["label"] for row in train_rows]
            random.Random(1).shuffle(labels)
            train_rows = [{**row, "label": label} for row, label in zip(train_rows, labels, strict=True)]
        for split, part in (("train", train_rows), ("validation", held_out)):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{name}-{split}.jsonl").write_text(lines, encoding="utf-8")
        said = {
            "name": name,
            "head": "sequence_classification",
            "inputs": ["text"],
            "target": "label",
            "labels": ["no", "yes"],
            "dataset": {"path": "json", "data_files": {s: f"{name}-{s}.jsonl" for s in ("train", "validation")}},
            **({"head_of": "books"} if name == "dvd" and head_of else {}),
        }
        (folder / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")
        files.append(str(folder / f"{name}.yaml"))
    return files


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Base, tasks, and a run that learned books."""
    folder = tmp_path_factory.mktemp("world")
    base, files = write_base(folder / "base", dropout=0.1), write_domains(folder / "data")
    train(config(base, files[:1], folder / "start", training={"max_steps": 30, "learning_rate": 5e-3}))
    return {"base": base, "files": files, "start": str(folder / "start")}


def asked(**changes):
    return {"pseudo_labels": {"tasks": ["dvd"], "confidence": 0.5, **changes}}


def said(world, out, *, files=None, **changes):
    start = {"init_from": world["start"]}
    return config(world["base"], files or world["files"], out, **{**start, **changes})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def given(folder):
    return json.loads((Path(folder) / FILE).read_text())


def test_true_labels_of_the_target_change_nothing(world, tmp_path):
    shuffled = write_domains(tmp_path / "data", shuffled=True)
    ours = train(said(world, tmp_path / "a", **asked(), training={"max_steps": 6}))
    theirs = train(said(world, tmp_path / "b", **asked(), files=shuffled, training={"max_steps": 6}))
    labels = given(tmp_path / "a")["labels"]
    assert labels == given(tmp_path / "b")["labels"]
    assert same(state_of(ours.model), state_of(theirs.model))
    assert set(labels["dvd"]["labels"]) == {0, 1}
    told = [given(tmp_path / name)["summary"]["pseudo_labels"]["dvd"]["agreement"] for name in "ab"]
    assert told[0] != told[1], "the note alone knows the true ones"
    plain = train(said(world, tmp_path / "c", files=shuffled, training={"max_steps": 6}))
    assert not same(state_of(ours.model), state_of(plain.model))


def test_labels_are_what_the_start_model_predicts(world, tmp_path):
    trainer = trainer_of(*read_run(said(world, tmp_path / "run", **asked(confidence=0.0))))
    assert not (tmp_path / "run").exists(), "nothing is written before a run begins"
    pool = trainer.data.pool_of("dvd", "train")
    assert pool.labelled("dvd").all() and pool.facts["dvd"]["labelled"] == 48
    start = MultiTaskModel.from_pretrained(world["start"])
    from nlp_mtl.prediction import predict

    answers = predict(start, [{"text": text} for text in pool.table["text"][:]], tasks=["books"])
    assert pool.labels("dvd") == [["no", "yes"].index(found["books"]["label"]) for found in answers]
    books = trainer.data.pool_of("books", "train")
    assert sorted(set(books.labels("books"))) == [0, 1] and books.labels("books").count(1) == 24


def test_only_the_sure_rows_the_same_of_each_class_and_at_most_so_many(world):
    model, data = started(world)
    found = {
        name: pseudo_labels_of(model, data, PseudoLabels(("dvd",), **how))["dvd"]
        for name, how in {
            "all": {"confidence": 0.0},
            "none": {"confidence": 1.0},
            "balanced": {"confidence": 0.0, "balanced": True},
            "few": {"confidence": 0.0, "most": 7},
            "both": {"confidence": 0.0, "balanced": True, "most": 9},
        }.items()
    }
    assert found["all"].rows == 48
    assert found["none"].rows <= found["few"].rows == 7
    counts = found["balanced"].counts
    assert counts["no"] == counts["yes"] == min(found["all"].counts.values()) > 0
    assert found["both"].counts == {"no": 4, "yes": 4}
    scores = sureness(model, data)
    for name in ("few", "none"):
        taken = [scores[n] for n, label in enumerate(found[name].labels) if label is not None]
        left = [scores[n] for n, label in enumerate(found[name].labels) if label is None]
        assert min(taken, default=1.0) >= max(left)


def started(world, files=None):
    from nlp_mtl.initial import model_from

    model = model_from(world["start"], world["base"], files or world["files"], max_length=64)
    return model, load_data(model.heads, model.tokenizer, max_length=64)


def sureness(model, data):
    from nlp_mtl.selftraining import _predict

    pool = data.pool_of("dvd", "train")
    return model.heads["dvd"].scores(_predict(model, pool, "dvd")).max(1)


def test_the_model_and_the_data_are_left_as_they_were(world):
    model, data = started(world)
    model.train()
    before, labels = {k: v.clone() for k, v in model.state_dict().items()}, data.pool_of("dvd", "train").labels("dvd")
    state = torch.get_rng_state()
    found = pseudo_labels_of(model, data, PseudoLabels(("dvd",), 0.5))
    importance_weights(model, data, ImportanceWeighting(("books",), ("dvd",)))
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert same(before, model.state_dict()) and data.pool_of("dvd", "train").labels("dvd") == labels
    assert with_labels(data, found).pool_of("dvd", "train").labels("dvd") == found["dvd"].labels


@pytest.mark.parametrize(
    "more",
    [asked(), {"importance_weighting": {"source": ["books"], "target": ["dvd"]}}],
    ids=["labels", "weights"],
)
def test_resumed_without_its_start_it_goes_on_to_the_same_bits(world, tmp_path, more):
    saving = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    start = tmp_path / "start"
    shutil.copytree(world["start"], start)
    mine = {**world, "start": str(start)}
    whole = train(said(mine, tmp_path / "whole", **more, training=saving))
    train(said(mine, tmp_path / "cut", **more, training=saving))
    shutil.rmtree(tmp_path / "cut" / "checkpoint-8")  # as if it had been killed at step 5
    began = (tmp_path / "cut" / FILE).read_bytes()
    shutil.rmtree(start)
    resumed = train(said(mine, tmp_path / "cut", **more, training=saving), resume=True)
    assert same(state_of(whole.model), state_of(resumed.model))
    assert (tmp_path / "cut" / FILE).read_bytes() == began == (tmp_path / "whole" / FILE).read_bytes()
    spec = [json.loads((tmp_path / name / "nlp_mtl.json").read_text())["strategies"] for name in ("whole", "cut")]
    assert spec[0] == spec[1]
    shutil.rmtree(tmp_path / "cut" / "checkpoint-8")
    with pytest.raises(RunFolderError, match="began with"):
        train(said(mine, tmp_path / "cut", **asked(confidence=0.6), training=saving), resume=True)
    (tmp_path / "cut" / FILE).write_text("{")
    with pytest.raises(RunFolderError, match="labels and weights that the run began with"):
        train(said(mine, tmp_path / "cut", **more, training=saving), resume=True)


def test_stages_are_rounds_and_an_overwritten_run_leaves_nothing(world, tmp_path):
    stages = [
        {"name": "source", "tasks": world["files"][:1], "training": {"max_steps": 20}},
        {"name": "one", **asked(confidence=0.0)},
        {"name": "two", **asked(confidence=0.0)},
    ]
    run = config(
        world["base"], world["files"], tmp_path / "run", stages=stages, training={"max_steps": 4, "learning_rate": 5e-3}
    )
    train(run)
    rounds = [given(tmp_path / "run" / name)["labels"]["dvd"]["labels"] for name in ("2-one", "3-two")]
    assert len(rounds[0]) == len(rounds[1]) == 48
    assert not (tmp_path / "run" / "1-source" / FILE).exists()
    model, data = started({**world, "start": str(tmp_path / "run" / "2-one")})
    assert rounds[1] == pseudo_labels_of(model, data, PseudoLabels(("dvd",), 0.0))["dvd"].labels
    train({**run, "stages": stages[:1]}, overwrite=True)
    assert not list((tmp_path / "run").glob(f"*/{FILE}"))


def test_words_are_labelled_one_by_one(tmp_path):
    files = write_tasks(tmp_path / "data")
    base = write_base(tmp_path / "base")
    train(config(base, files[2:3], tmp_path / "start", training={"max_steps": 12, "learning_rate": 5e-3}))
    from nlp_mtl.initial import model_from

    model = model_from(str(tmp_path / "start"), base, files[2:3], max_length=64)
    data = load_data(model.heads, model.tokenizer, max_length=64)
    own = data.pool_of("names", "train").labels("names")
    every = pseudo_labels_of(model, data, PseudoLabels(("names",), 0.0))["names"]
    some = pseudo_labels_of(model, data, PseudoLabels(("names",), 0.8))["names"]
    assert [len(tags) for tags in every.labels] == [len(tags) for tags in own]
    assert all(tag >= 0 for tags in every.labels for tag in tags)
    kept = [tag for tags in some.labels for tag in tags or ()]
    assert 0 < sum(tag >= 0 for tag in kept) < sum(len(tags) for tags in own)
    for fewer, more in zip(some.labels, every.labels, strict=True):
        assert fewer is None or all(a in (-1, b) for a, b in zip(fewer, more, strict=True))
    relabelled = with_labels(data, {"names": some}).pool_of("names", "train")
    assert relabelled.labels("names") == some.labels


def test_bad_input_is_told_all_at_once(world, tmp_path):
    wrong = {
        "pseudo_labels": {"tasks": ["dvdd"], "confidence": 1.1, "balanced": "yes", "most": 0, "mst": 3},
        "importance_weighting": {"source": ["books"], "target": ["books", "dvvd"], "clip": 0.5},
    }
    with pytest.raises(ConfigError) as caught:
        train(said(world, tmp_path / "run", **wrong))
    found = "\n".join(caught.value.mistakes)
    for part in ("takes no 'mst'", "from 0 to 1, found 1.1", "true or false", "from 1, found 0", "found books in both"):
        assert part in found
    assert "clip` is a number from 1, found 0.5" in found
    with pytest.raises(ConfigError, match="'dvdd' is not a task of this run; did you mean 'dvd'"):
        train(said(world, tmp_path / "run", pseudo_labels={"tasks": ["dvdd"]}))
    with pytest.raises(ConfigError, match="no trained head for 'dvd'; start from a run that trained 'books'"):
        train(said(world, tmp_path / "run", init_from=None, **asked()))
    own = write_domains(tmp_path / "own", head_of=False)
    with pytest.raises(ConfigError, match=r"let the task use a trained one \(`head_of`\)"):
        train(said(world, tmp_path / "run", files=own, **asked()))
    tasks = write_tasks(tmp_path / "three")
    for task, words in (("alike", "gives no probability of one class"), ("names", "words are labelled one by one")):
        with pytest.raises(ConfigError, match=words):
            train(said(world, tmp_path / "run", files=tasks, pseudo_labels={"tasks": task, "balanced": True}))
    assert not (tmp_path / "run").exists()


def test_rows_that_look_like_the_target_weigh_more(world, tmp_path):
    draw = random.Random(0)
    mixed = tmp_path / "mixed"
    files = write_domains(mixed)
    lines = (mixed / "books-train.jsonl").read_text().splitlines()
    alike = [json.dumps({"text": " ".join(draw.choices(OWN["dvd"], k=4)), "label": "no"}) for _ in range(12)]
    (mixed / "books-train.jsonl").write_text("\n".join([*lines, *alike]) + "\n")
    model, data = started(world, files)
    found = importance_weights(model, data, ImportanceWeighting(("books",), ("dvd",)))["books"]
    assert sum(found.weights) / len(found.weights) == pytest.approx(1, abs=1e-4)
    like, unlike = found.weights[-12:], found.weights[:-12]
    assert sum(like) / 12 > 3 * sum(unlike) / 48
    assert 6 <= found.effective < 40 and max(found.weights) <= 10 + 1e-4
    even = importance_weights(model, data, ImportanceWeighting(("books",), ("dvd",), clip=1.0))["books"]
    assert even.weights == [1.0] * 60
    trainer = trainer_of(
        *read_run(said(world, tmp_path / "run", files=files, importance_weighting={"source": "books", "target": "dvd"}))
    )
    plan = trainer.get_train_dataloader().batch_sampler.plan
    shown = [row for epoch in range(100) for row in plan.shown(epoch, plan.steps)[0].tolist()]
    shares = torch.bincount(torch.tensor(shown), minlength=60) / len(shown) * 60
    assert torch.allclose(shares.double(), torch.tensor(trainer.data.pool_of("books", "train").weights), atol=0.25)


def test_weights_of_a_target_like_the_source_are_about_one_and_equal_ones_change_nothing(world, tmp_path):
    from dataclasses import replace

    import numpy as np

    from nlp_mtl.trainer import MultiTaskTrainer

    files = write_domains(tmp_path / "same", rows=112)
    for split in ("train", "validation"):
        lines = (tmp_path / "same" / f"books-{split}.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "same" / f"dvd-{split}.jsonl").write_text("".join(lines[len(lines) // 2 :]))
        (tmp_path / "same" / f"books-{split}.jsonl").write_text("".join(lines[: len(lines) // 2]))
    model, data = started(world, files)
    for row in ("books", "dvd"):
        assert len(data.pool_of(row, "train")) == 50
    found = importance_weights(model, data, ImportanceWeighting(("books",), ("dvd",)))["books"]
    assert found.effective > 35 and max(found.weights) < 3
    states = []
    for weights in (None, np.ones(50)):
        pools = [replace(pool, weights=weights) for pool in data.splits["train"]]
        fresh, _ = started(world, files)
        args = read_run(said(world, tmp_path / f"run{len(states)}", training={"max_steps": 5}))[1]
        trainer = MultiTaskTrainer(fresh, args, data=replace(data, splits={**data.splits, "train": pools}))
        trainer.train()
        states.append(state_of(fresh))
    assert same(*states)


def test_weights_and_labels_are_the_same_with_a_teacher_beside(world, tmp_path):
    both = {"importance_weighting": {"source": ["books"], "target": ["dvd"], "clip": 3}, **asked(confidence=0.5)}
    plain, taught = (
        trainer_of(*read_run(said(world, tmp_path / "run", **both, **more)))
        for more in ({}, {"distillation": [{"teacher": "start"}]})
    )
    for ours, theirs in zip(taught._train_pools, plain._train_pools, strict=True):
        assert ours.labels(ours.key) == theirs.labels(ours.key)
    shown = [next(iter(trainer.get_train_dataloader().batch_sampler)) for trainer in (plain, taught)]
    assert shown[0] == shown[1], "the rows of a step, each as often as it weighs"
    assert taught._pools[0].weights is not None
