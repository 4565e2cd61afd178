"""Affinity before training: copies of a task are alike, a task with shuffled labels is like none."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.taskfile import Task
from nlp_mtl.transferring import features as features_module
from nlp_mtl.transferring import gradients as gradients_module
from nlp_mtl.transferring.affinities import affinities_of, affinity, built
from nlp_mtl.transferring.evidence.embedding import cosines
from nlp_mtl.transferring.evidence.gradient_affinity import lookahead, relative_drops
from nlp_mtl.transferring.evidence.gradient_cosine import corrected
from nlp_mtl.transferring.features import batches_of, features_of
from nlp_mtl.transferring.gradients import Gradients, gradients_of, mean_gradient
from nlp_mtl.transferring.opening import open_tasks
from tests.integration.tiny import write_base

EVERY = ["embedding", "gradient_cosine", "gradient_affinity", {"name": "lora", "steps": 8, "rows": 96}]
GRADIENT = {"rows": 320, "passes": 6, "rate": 0.02}


def rows_of(kind, count, seed=0):
    """Texts that say their label: a word of one sort or of the other is among them."""
    draw = random.Random(seed)
    sorts = {"mood": ("good yes new", "bad no old"), "pets": ("cat house", "dog city")}[kind]
    made = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [*draw.choices("the a an is it was on in at to of and".split(), k=5)]
        words += draw.choices(sorts[label].split(), k=4)
        draw.shuffle(words)
        made.append({"text": " ".join(words), "label": ["no", "yes"][label]})
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def tasks():
    mood = rows_of("mood", 320)
    labels = [row["label"] for row in mood]
    random.Random(5).shuffle(labels)
    shuffled = [{**row, "label": label} for row, label in zip(mood, labels, strict=True)]
    given = {"mood": mood, "copy": mood, "pets": rows_of("pets", 320, 1), "shuffled": shuffled}
    return [Task.from_data(name, rows) for name, rows in given.items()]


@pytest.fixture(scope="module")
def opened(base, tasks, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield open_tasks(base, tasks, rows=320)


@pytest.fixture(scope="module")
def found(opened):
    kinds = built([EVERY[0], {"name": EVERY[1], **GRADIENT}, {"name": EVERY[2], **GRADIENT}, EVERY[3]])
    return affinities_of(opened, kinds)


def test_copies_are_alike_in_every_measure(found):
    for name, one in found.items():
        assert one.values.shape == (4, 4), name
        assert one.symmetric()[0, 1] > 0.9, name
        assert np.allclose(one.values.diagonal(), 1), name


def test_a_task_with_shuffled_labels_is_like_none_in_its_gradients(found):
    for name in ("gradient_cosine", "gradient_affinity"):
        values = found[name].symmetric()
        assert abs(values[3, :3]).max() < 0.35, (name, values)
        assert values[0, 1] > values[0, 3] + 0.5


def test_matrices_are_saved_and_say_what_they_are(found, tmp_path):
    one = found["gradient_cosine"]
    one.save(tmp_path / "a.json")
    again = Affinity.load(tmp_path / "a.json")
    assert again.measure == "gradient cosine"
    assert again.said["agreement"]["mood"] > 0.3
    assert np.allclose(again.values, one.values)


def test_a_step_lowers_the_other_task_s_loss_by_what_first_order_says(opened):
    """The drop of the label loss after a real small step of the encoder, on rows that the step has not seen."""
    gradients = gradients_of(opened, layers=1, **GRADIENT)
    model, rows = opened.model, opened.rows
    chosen = gradients_module._chosen(opened, 1)
    kept = [p.requires_grad for p in model.sharing.parameters()]
    step, _ = mean_gradient(opened, model, "mood", rows["mood"][:64], chosen, 32)
    held, _ = mean_gradient(opened, model, "pets", rows["pets"][64:128], chosen, 32)
    length = 1e-3

    def label_losses():
        with torch.no_grad():
            each = gradients_module.batches(opened, model, "pets", rows["pets"][64:128], 32)
            return float(np.mean([float(gradients_module.label_loss(model, one, "pets")[0]) for one in each]))

    before, parts = label_losses(), (step / step.norm()).split([p.numel() for p in chosen])
    with torch.no_grad():
        for p, part in zip(chosen, parts, strict=True):
            p.sub_(length * part.view(p.shape))
        after = label_losses()
        for p, part in zip(chosen, parts, strict=True):
            p.add_(length * part.view(p.shape))
    expected = float(length * (step / step.norm()) @ held)
    assert before - after == pytest.approx(expected, rel=0.05, abs=2e-7)
    assert [p.requires_grad for p in model.sharing.parameters()] == kept
    assert gradients.losses.shape == (2, 4)


def test_labels_that_are_all_the_same_give_no_gradient(opened):
    batch = gradients_module.batches(opened, opened.model, "mood", opened.rows["mood"][:16], 16)[0]
    batch["targets"]["mood"]["labels"] = torch.ones_like(batch["targets"]["mood"]["labels"])
    assert gradients_module.label_loss(opened.model, batch, "mood")[0].item() == pytest.approx(0.0, abs=1e-6)


def test_nothing_is_left_changed(base, tasks):
    opened = open_tasks(base, tasks[:2], rows=32)
    before = {name: value.clone() for name, value in opened.model.state_dict().items()}
    wanted = [p.requires_grad for p in opened.model.parameters()]
    affinities_of(opened, built(EVERY[1]))
    assert all(torch.equal(value, before[name]) for name, value in opened.model.state_dict().items())
    assert [p.requires_grad for p in opened.model.parameters()] == wanted
    assert opened.model.sharing.cache is None


def test_a_second_run_computes_nothing(base, tasks, monkeypatch):
    kinds = [{**spec, "rows": 16} if isinstance(spec, dict) else spec for spec in EVERY]
    first = affinity(base, tasks[:2], evidence=kinds, rows=16)

    def never(*_, **__):
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(features_module, "encode_at", never)
    monkeypatch.setattr("nlp_mtl.sharing.hard.encode_at", never)
    again = affinity(base, tasks[:2], evidence=kinds, rows=16)
    for name, one in first.items():
        assert np.array_equal(one.values, again[name].values)


def test_features_are_the_means_of_each_row_s_tokens(opened):
    from nlp_mtl.meanpooled import mean_features

    found, pool = features_of(opened, "pets"), opened.data.pool_of("pets", "train")
    assert np.allclose(found.texts, mean_features(opened.model, pool, "pets", opened.rows["pets"]), atol=1e-5)
    assert np.allclose(found.units, found.texts, atol=1e-5)
    assert found.labels.tolist() == [pool.labels("pets")[n] for n in opened.rows["pets"]]
    assert found.groups.tolist() == list(range(len(found.units)))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(0, 99), st.floats(0.1, 10))
def test_laws_of_the_measures(many, seed, scale):
    random_ = np.random.default_rng(seed)
    halves = random_.normal(size=(2, many, 5)) * 0.2 + random_.normal(size=(1, many, 5))

    def of(vectors):
        return Gradients(np.einsum("aik,bjk->aibj", vectors, vectors), np.ones((2, many)), np.ones(many))

    one = of(halves)
    cosines_, ahead = corrected(one), lookahead(one)
    assert np.allclose(cosines_, cosines_.T)
    assert abs(cosines_).max() <= 1
    order = random_.permutation(many)
    assert np.allclose(corrected(of(halves[:, order])), cosines_[np.ix_(order, order)])
    longer = halves.copy()
    longer[:, 0] *= scale  # a task with larger losses is no better and no worse a helper
    assert np.allclose(corrected(of(longer)), cosines_)
    assert np.allclose(lookahead(of(longer)), ahead)
    assert np.allclose(relative_drops(one).diagonal() > 0, one.agreement > 0)
    assert np.allclose(np.diag(ahead), 1)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(0, 99))
def test_embeddings_that_are_turned_or_moved_are_as_alike_as_before(many, seed):
    random_ = np.random.default_rng(seed)
    texts = {str(n): random_.normal(size=(20, 6)) + 3 * random_.normal(size=6) for n in range(many)}
    turn = np.linalg.qr(random_.normal(size=(6, 6)))[0]
    assert np.allclose(cosines({n: x @ turn for n, x in texts.items()}), cosines(texts), atol=1e-8)
    if many > 2:
        assert np.allclose(cosines({n: x + 7 for n, x in texts.items()}), cosines(texts), atol=1e-6)
    same = {**texts, "copy": texts["0"]}
    assert cosines(same)[0, -1] == pytest.approx(1)


def test_batches_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 90, 300)
    parts = batches_of(lengths, rows=16, tokens=500)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    assert all(len(part) <= 16 and (lengths[part].sum() <= 500 or len(part) == 1) for part in parts)


def test_mistakes_are_said_at_once(base, tasks):
    with pytest.raises(ConfigError) as caught:
        built(["gradient_cosin", {"name": "lora", "steps": 0}, "embedding", "embedding"])
    assert len(caught.value.mistakes) == 3
    assert "did you mean 'gradient_cosine'" in str(caught.value)
    assert "`steps` is a whole number from 1, found 0" in str(caught.value)
    with pytest.raises(ConfigError, match="two tasks or more"):
        affinity(base, tasks[:1], rows=16)
    with pytest.raises(ConfigError, match="`rows` is a whole number from 8"):
        affinity(base, tasks[:2], rows=3)
    few = Task.from_data("few", rows_of("mood", 9))
    with pytest.raises(DataError, match="'few' needs 8 labelled training rows"):
        affinity(base, [tasks[0], few], rows=16)
    with pytest.raises(ConfigError, match="`layers` is at most 2"):
        affinity(base, tasks[:2], rows=16, evidence={"name": "gradient_cosine", "layers": 3})
