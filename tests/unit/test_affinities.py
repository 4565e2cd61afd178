"""Affinity before training: copies of a task are alike, a task with shuffled labels is like none."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError, DataError, UnknownNameError
from nlp_mtl.taskfile import Task
from nlp_mtl.transferability import features as features_module
from nlp_mtl.transferability import gradients as gradients_module
from nlp_mtl.transferability.affinities import affinities_of, affinity, built
from nlp_mtl.transferability.evidence.embedding import cosines
from nlp_mtl.transferability.evidence.gradient_affinity import lookahead, relative_drops
from nlp_mtl.transferability.evidence.gradient_cosine import corrected
from nlp_mtl.transferability.features import batches_of, features_of
from nlp_mtl.transferability.gradients import Gradients, fixed, gradients_of, loss_of, mean_gradient
from nlp_mtl.transferability.opening import open_tasks
from tests.integration.tiny import WORDS, write_base

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
