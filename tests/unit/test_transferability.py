"""Scores and matrices of several encoders and tasks: what is written, shown and refused."""

from __future__ import annotations

import json
import random
import xml.dom.minidom

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import nlp_mtl as mtl
from nlp_mtl.affinity import Affinity
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.transferring import features as features_module
from nlp_mtl.transferring.plot import dendrogram, joined, matrix
from tests.integration.tiny import write_base, write_tasks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    two = [write_base(folder / name, family) for name, family in (("one", "bert"), ("two", "roberta"))]
    return {"models": two, "tasks": write_tasks(folder / "data", rows=60), "folder": folder}


@pytest.fixture(scope="module")
def found(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(tmp_path_factory.mktemp("cache")))
        evidence = ["embedding", {"name": "gradient_cosine", "rows": 32}]
        out = world["folder"] / "out"
        first = mtl.transferability(world["models"], world["tasks"], rows=40, evidence=evidence, out=out)
        with pytest.MonkeyPatch.context() as more:

            def never(*_, **__):
                raise AssertionError("the encoder ran")

            more.setattr(features_module, "encode_at", never)
            more.setattr("nlp_mtl.sharing.hard.encode_at", never)
            more.setattr("nlp_mtl.transferring.scoring._pairs", never)
            again = mtl.transferability(world["models"], world["tasks"], rows=40, evidence=evidence)
    return first, again


def test_every_task_has_the_scores_of_its_kind(found):
    first, _ = found
    assert first.tasks == ["mood", "alike", "names", "rainy"]
    assert first.models == ["one", "two"]
    for model in first.models:
        of = {task: set(scores) for task, scores in first.scores[model].items()}
        assert of["alike"] == {"logme", "knn", "linear_probe"}
        assert of["mood"] == of["names"] == of["rainy"] == {"logme", "knn", "linear_probe", "h_score"}
    assert first.trivial["alike"] == 0.0
    assert 0.5 <= first.trivial["mood"] < 1
    assert set(first.affinities) == {"embedding", "gradient_cosine", "leep", "nce"}
    assert set(first.best()) == set(first.tasks)
    leep = first.affinities["leep"]
    assert np.isnan(leep.values[1]).all() and np.isnan(leep.values[:, 1]).all()
    assert np.nanmax(leep.values) <= 0


def test_a_second_run_computes_nothing_and_says_the_same(found):
    first, again = found
    assert again.scores == first.scores
    for name, one in first.affinities.items():
        assert np.array_equal(one.values, again.affinities[name].values, equal_nan=True)


def test_what_is_written(found, world):
    first, _ = found
    out = world["folder"] / "out"
    said = json.loads((out / "transferability.json").read_text(encoding="utf-8"))
    assert said["scores"] == first.scores
    text = (out / "transferability.md").read_text(encoding="utf-8")
    assert "By LogME:" in text and "## gradient cosine" in text
    for row in first.table():
        assert "| " + " | ".join(row.values()) + " |" in text
    for name, one in first.affinities.items():
        assert Affinity.load(out / f"affinity_{name}.json").tasks == one.tasks
        for kind in ("affinity", "dendrogram"):
            xml.dom.minidom.parse(str(out / f"{kind}_{name}.svg"))


def test_the_command_says_the_same(world, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = ",".join(world["tasks"][::3])
    words = ["transferability", world["models"][0], "--tasks", files, "--rows", "24", "--evidence", "embedding"]
    done = CliRunner().invoke(app, [*words, "--estimators", "knn", "--out", "here"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "embedding (helper × helped)" in done.output
    assert "nlp-mtl groups" not in done.output, "texts alone say nothing of labels"
    assert (tmp_path / "here" / "affinity_embedding.svg").is_file()
    table = mtl.transferability(world["models"][0], world["tasks"][::3], rows=24, evidence=[], estimators=["knn"])
    assert not table.affinities
    assert all(value in done.output for row in table.table() for value in row.values())


def test_one_task_has_no_matrix_unless_it_is_asked_for(world):
    one = mtl.transferability(world["models"][0], world["tasks"][:1], rows=16, estimators=["knn"])
    assert not one.affinities
    with pytest.raises(ConfigError, match="two tasks or more"):
        mtl.transferability(world["models"][0], world["tasks"][:1], rows=16, estimators=[], evidence="embedding")


def test_mistakes_are_said_at_once(world):
    with pytest.raises(ConfigError) as caught:
        mtl.transferability([], world["tasks"], estimators=["logmee"], evidence=["embeding"])
    assert len(caught.value.mistakes) == 3
    assert "did you mean 'logme'" in str(caught.value) and "did you mean 'embedding'" in str(caught.value)
    with pytest.raises(ConfigError, match="twice"):
        mtl.transferability([world["models"][0]] * 2, world["tasks"])


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 8), st.integers(0, 99))
def test_the_most_alike_are_joined_first(many, seed):
    values = np.random.default_rng(seed).uniform(-1, 0.8, (many, many))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    values[0, -1] = values[-1, 0] = 0.95
    tree = joined(Affinity(tuple(map(str, range(many))), values, "example"))
    assert {int(tree[0, 0]), int(tree[0, 1])} == {0, many - 1}
    assert tree[0, 2] == pytest.approx(0.05)
    assert (np.diff(tree[:, 2]) >= -1e-12).all()


def test_pictures_name_every_task_and_are_the_same_again():
    tasks = tuple(f"task_{n}" for n in range(5))
    values = np.random.default_rng(0).uniform(-1, 1, (5, 5))
    values[2, 3] = np.nan
    one = Affinity(tasks, values, "example")
    for make in (matrix, dendrogram):
        assert make(one).svg() == make(one).svg()
        shown = [label.get_text() for label in make(one).figure.axes[0].get_yticklabels()]
        assert sorted(shown) == list(tasks)


def write(folder, name, rows, **said):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {
        "name": name,
        "target": "label",
        "dataset": {"path": "json", "data_files": {"train": f"{name}.jsonl"}},
        **said,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(spec), encoding="utf-8")
    return str(folder / f"{name}.yaml")


def test_options_and_any_number_of_labels_are_scored_and_answers_in_a_text_are_not(world, tmp_path):
    """Which option is right is told by one word; so is each of the labels but one, which no row has."""
    draw = random.Random(0)
    chosen, several, answered = [], [], []
    for i in range(60):
        ways = [f"it {draw.choice(['is', 'was'])} good", f"it {draw.choice(['is', 'was'])} bad", "a house in the city"]
        draw.shuffle(ways)
        place = next(n for n, way in enumerate(ways) if "good" in way)
        chosen.append({"q": f"the cat {i % 7}", "ways": ways, "label": place})
        text = " ".join(draw.choices(["cat", "dog", "red", "new", "old", "city"], k=4))
        several.append({"text": text, "label": [int("cat" in text), int("red" in text), 0]})
        answered.append({"q": "who", "c": "the cat is in a house", "label": {"text": ["cat"], "answer_start": [4]}})
    head = {"name": "multiple_choice", "choices": "ways"}
    files = [
        write(tmp_path, "chosen", chosen, head=head, inputs=["q"]),
        write(tmp_path, "several", several, head="multi_label", inputs=["text"], labels=["cat", "red", "none"]),
        write(tmp_path, "answered", answered, head="question_answering", inputs=["q", "c"]),
    ]
    found = mtl.transferability(world["models"][0], [*files, world["tasks"][0]], rows=60, evidence=[])
    scores, trivial = found.scores["one"], found.trivial
    assert trivial["chosen"] == pytest.approx(2 / 3), "of three options two are wrong"
    assert trivial["several"] > 0.5
    for task in ("chosen", "several"):
        assert set(scores[task]) == {"logme", "knn", "linear_probe", "h_score"}
        assert scores[task]["linear_probe"] > trivial[task] + 0.1
    assert not scores["answered"] and any(note.startswith("answered: ") for note in found.notes)
    with pytest.raises(UnsupportedError, match="several texts for a label"):
        mtl.probe(world["models"][0], [files[0]], rows=30)
