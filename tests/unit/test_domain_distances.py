"""How far apart domains are: laws of the distances, of resampling, of a tokenizer's coverage, and the whole verb."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.coverage import coverage_notes, coverage_of, words_of
from nlp_mtl.data import load_data
from nlp_mtl.domains.distances import a_distance, coral_distance, mmd
from nlp_mtl.domains.look import compare_domains as domains
from nlp_mtl.errors import ConfigError, NotFoundError
from nlp_mtl.initial import model_from
from nlp_mtl.meanpooled import mean_features
from nlp_mtl.plan import drawn
from nlp_mtl.run import evaluate, train
from nlp_mtl.testing import tiny_tokenizer
from tests.integration.test_self_training import OWN, write_domains
from tests.integration.tiny import config, write_base

TOKENIZER = tiny_tokenizer()
SHORT = "the a an is it"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=40), st.floats(0.001, 0.999))
def test_a_row_is_drawn_as_often_as_it_weighs_to_less_than_one(weights, offset):
    given = np.array(weights) / np.mean(weights)
    rows = drawn(given, offset)
    assert len(rows) == len(given)
    assert (np.abs(np.bincount(rows, minlength=len(given)) - given) < 1 + 1e-6).all()
    assert drawn(np.ones(len(given)), offset).tolist() == list(range(len(given)))


def test_over_offsets_it_is_its_weight():
    given = np.array([2.5, 0.1, 0.4, 1.0])
    counts = sum(np.bincount(drawn(given, (n + 0.5) / 200), minlength=4) for n in range(200))
    assert np.allclose(counts / 200, given, atol=0.02)


WORD = st.text(st.sampled_from([*"abcxyz", "é", "ß", "я", "中", "3"]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(WORD, st.sampled_from(SHORT.split())), min_size=1, max_size=8), min_size=1, max_size=4)
)
def test_coverage_is_what_a_count_word_by_word_gives(lists):
    found = coverage_of([" ".join(words) for words in lists], TOKENIZER)
    words = [word for some in lists for part in some for word in re.findall("中|[^中]+", part)]
    pieces = [TOKENIZER.tokenize(word) for word in words]
    flat = [piece for some in pieces for piece in some]
    assert (found.texts, found.words, found.tokens) == (len(lists), len(words), len(flat))
    assert found.per_word == pytest.approx(len(flat) / len(words))
    assert found.unknown == pytest.approx(flat.count("[UNK]") / len(flat))
    longer = [(word, some) for word, some in zip(words, pieces, strict=True) if len(word) > 1]
    cut = sum(len(some) >= len(word) for word, some in longer)
    assert found.in_letters == pytest.approx(cut / max(len(longer), 1))


def test_words_have_no_punctuation_at_their_ends():
    text = "«It's» (the U.S.) — 好吃! हिंदी"
    assert [text[a:b] for a, b in words_of(text)] == ["It's", "the", "U.S", "好", "吃", "हिंदी"]
    assert words_of(" … !") == []


def test_a_tokenizer_is_left_as_it_was():
    own = tiny_tokenizer()
    own.backend_tokenizer.enable_truncation(4)
    assert coverage_of(["good " * 30], own).tokens == 30
    assert own.backend_tokenizer.truncation["max_length"] == 4
    assert coverage_of([], own).per_word == 0


def clouds(shift, rows=120, width=12, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, width)), random.normal(size=(rows, width)) + shift


def test_distances_are_none_for_samples_of_one_kind_and_large_far_apart():
    near, far = clouds(0.0), clouds(4.0)
    assert abs(a_distance(*near)) < 0.5 < 1.9 < a_distance(*far) <= 2
    assert abs(mmd(*near)) < 0.02 < 0.5 < mmd(*far)
    assert mmd(*far) == pytest.approx(mmd(*far[::-1])) and a_distance(*near) == a_distance(*near)
    wide = (near[0], near[1] * 5)
    assert coral_distance(near[0], near[0]) == 0 < coral_distance(*near) < coral_distance(*wide) / 5
    assert coral_distance(*wide) == pytest.approx(coral_distance(*wide[::-1]))
    assert coral_distance(*(part * 100 + 3 for part in wide)) == pytest.approx(coral_distance(*wide))


def test_few_rows_of_one_side_are_no_distance():
    source, target = clouds(0.0, rows=200)
    assert abs(a_distance(source, target[:20])) < 0.9, "a classifier that always says source is no better than chance"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    base, files = write_base(folder / "base"), write_domains(folder / "data", rows=100)
    run = folder / "run"
    train(config(base, files[:1], run, training={"max_steps": 12, "learning_rate": 5e-3}))
    return {"base": base, "files": files, "run": str(run), "folder": folder}


def test_features_are_means_of_each_text_alone(world):
    import torch

    from nlp_mtl.model import MultiTaskModel

    model = MultiTaskModel.from_base(world["base"], world["files"][:1], max_length=64)
    data = load_data(model.heads, model.tokenizer, max_length=64)
    pool = data.pool_of("books", "train")
    found = mean_features(model, pool, "books", np.array([5, 2, 40]))
    for vector, row in zip(found, (5, 2, 40), strict=True):
        encoded = model.tokenizer(pool.table["text"][row], return_tensors="pt")
        with torch.no_grad():
            alone = model.sharing.encoder(**encoded).last_hidden_state[0].mean(0)
        assert np.allclose(vector, alone.numpy(), atol=1e-4)
    assert np.allclose(mean_features(model, pool, "books")[[5, 2, 40]], found, atol=1e-5)


def test_halves_of_one_domain_are_near_and_other_words_are_far(world, tmp_path):
    draw = random.Random(1)
    halves = write_domains(tmp_path / "data", rows=160)
    lines = (tmp_path / "data" / "books-train.jsonl").read_text().splitlines(keepends=True)
    draw.shuffle(lines)
    for name, part in (("books", lines[::2]), ("dvd", lines[1::2])):
        (tmp_path / "data" / f"{name}-train.jsonl").write_text("".join(part))
    how = {"split": "train", "points": 40}
    near = domains(world["base"], halves[0], halves[1], out=tmp_path / "near", **how)
    far = domains(world["base"], *world["files"], out=tmp_path / "far", **how)
    apart = [found.distances["pretrained"]["dvd"] for found in (near, far)]
    assert abs(apart[0]["A-distance"]) < 0.6 < 1.6 < apart[1]["A-distance"] <= 2
    assert apart[0]["MMD²"] < apart[1]["MMD²"] / 5
    assert near.scores == {} and list(near.distances) == ["pretrained"]


def test_a_run_is_scored_where_it_was_not_trained_and_all_is_written(world, tmp_path):
    out = tmp_path / "out"
    found = domains(world["run"], "books", world["files"][1], base=world["base"], out=out, rows=12, points=10)
    assert list(found.distances) == ["pretrained", "run"]
    assert found.scores["books"].metrics == evaluate(world["run"])["books"].metrics
    # scored as a run would be that starts with the head and does not train
    model = model_from(world["run"], world["base"], world["files"], max_length=64)
    from nlp_mtl.evaluation import Evaluator

    data = load_data(model.heads, model.tokenizer, max_length=64)
    by_hand = Evaluator(data).evaluate(model.eval())
    assert {task: one.metrics for task, one in found.scores.items()} == {
        task: one.metrics for task, one in by_hand.items()
    }
    said = json.loads((out / "domains.json").read_text())
    assert said["distances"]["run"]["dvd"]["A-distance"] == pytest.approx(
        found.distances["run"]["dvd"]["A-distance"], abs=1e-6
    )
    assert "accuracy of books's head" in (out / "domains.md").read_text()
    picture = ElementTree.parse(out / "domains.svg").getroot()
    assert len(re.findall("PathCollection", ElementTree.tostring(picture).decode())) >= 4
    bytes_ = (out / "domains.svg").read_bytes()
    domains(world["run"], "books", world["files"][1], base=world["base"], out=out, rows=12, points=10)
    assert len((out / "domains.svg").read_bytes()) == len(bytes_)


def test_other_labels_and_other_heads_are_compared_and_not_scored(world, tmp_path):
    (tmp_path / "data").mkdir()
    files = []
    for name, more in (
        ("stars", {"head": "regression", "labels": None}),
        ("moods", {"labels": ["no", "yes", "maybe"]}),
    ):
        rows = [
            {"text": f"good {' '.join(OWN['dvd'])} {n}", "label": n / 9 if name == "stars" else "no"} for n in range(9)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        for split in ("train", "validation"):
            (tmp_path / "data" / f"{name}-{split}.jsonl").write_text(lines)
        spec = json.loads((world["folder"] / "data" / "books.yaml").read_text())
        spec |= {"name": name, **more}
        spec["dataset"]["data_files"] = {split: f"{name}-{split}.jsonl" for split in ("train", "validation")}
        files.append(str(tmp_path / "data" / f"{name}.yaml"))
        (tmp_path / "data" / f"{name}.yaml").write_text(json.dumps({k: v for k, v in spec.items() if v is not None}))
    found = domains(world["run"], "books", files, base=world["base"], out=tmp_path / "out")
    assert set(found.scores) == {"books"} and set(found.distances["run"]) == {"stars", "moods"}
    assert [note for note in found.notes if note.startswith("stars: its head is of another kind")]
    assert [note for note in found.notes if note.startswith("moods: its labels are others")]


def test_bad_input_is_told_all_at_once(world, tmp_path):
    with pytest.raises(ConfigError) as caught:
        domains(world["run"], "books", "books", split="valid", rows=2, points=1, out=tmp_path / "out")
    said = "\n".join(caught.value.mistakes)
    for part in (
        "named once, found books",
        "found 'valid'",
        "`rows` is a number of rows from 5",
        "`points` is a number",
    ):
        assert part in said
    with pytest.raises(ConfigError, match="`target` names a task to compare with, found none"):
        domains(world["run"], "books", [], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="bokos"):
        domains(world["run"], "bokos", world["files"][1], base=world["base"], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="single tasks, found 'glue'"):
        domains(world["run"], "books", "glue", base=world["base"], out=tmp_path / "out")
    with pytest.raises(NotFoundError):
        domains(str(tmp_path / "nowhere"), "books", "glue", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_badly_covered_texts_are_told_before_training(world, tmp_path, caplog):
    files = write_domains(tmp_path / "data")
    train(config(world["base"], files[:1], tmp_path / "known", training={"max_steps": 1}))
    assert "covers these texts badly" not in caplog.text
    file = tmp_path / "data" / "books-train.jsonl"
    file.write_text(file.read_text().replace("cat", "katzen").replace("dog", "hunde").replace("house", "häuser"))
    train(config(world["base"], files[:1], tmp_path / "foreign", training={"max_steps": 1}))
    assert "books: the tokenizer covers these texts badly" in caplog.text
    assert "words cut into single characters" in caplog.text
    assert coverage_notes({}, [], TOKENIZER) == []
