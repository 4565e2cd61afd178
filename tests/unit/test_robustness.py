"""Laws of perturbations and of the attack, and a run that is looked at with both."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError
from nlp_mtl.findings import read_findings
from nlp_mtl.robustness.attack import attack_run
from nlp_mtl.robustness.base import draw_of, perturbations
from nlp_mtl.robustness.perturbations.typos import mistyped
from nlp_mtl.robustness.rows import perturbed
from nlp_mtl.robustness.scoring import drop
from nlp_mtl.robustness.study import check_robustness, named
from nlp_mtl.run import train
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import WORDS, tiny_model
from tests.integration.tiny import config, write_base, write_tasks

EVERY = perturbations.names()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    files, base = write_tasks(folder / "data", rows=80), write_base(folder / "base")
    train(config(base, files[:3], folder / "run", training={"max_steps": 4}))
    shape = {"max_steps": 60, "learning_rate": 1e-2}
    train(config(base, files[3:], folder / "rainy", heads={"rainy": {"pooling": "mean"}}, training=shape))
    return folder / "run", files


@pytest.fixture(scope="module")
def near():
    return tiny_model(["cola"])


@pytest.mark.parametrize("name", EVERY)
@given(words=st.lists(st.sampled_from([*WORDS, "Paris", "don't", "is", "Good!", "–"]), min_size=1), seed=st.integers(0))
@settings(max_examples=20)
def test_every_perturbation_is_the_same_again_and_keeps_words(near, name, words, seed):
    how = perturbations.build(name)
    how.setup(near)
    text = " ".join(words)
    found = how.changed(text, draw_of(seed, name, 0, "text"))
    assert found == how.changed(text, draw_of(seed, name, 0, "text"))
    assert isinstance(found, str) and found
    tagged = how.changed(list(words), draw_of(seed, name, 0, "text"))
    assert len(tagged) == len(words) and all(tagged), "a tagged word stays one word"
    assert all(len(word.split()) == 1 for word in tagged)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=12), st.integers(0, 99))
def test_a_typo_is_one_edit(word, seed):
    found = mistyped(word, draw_of(seed, "typos", 0, ""))
    assert abs(len(found) - len(word)) <= 1
    if len(found) == len(word):
        differ = [i for i, (a, b) in enumerate(zip(word, found, strict=True)) if a != b]
        assert len(differ) <= 1 or (len(differ) == 2 and sorted(word) == sorted(found))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "similar_words"])
def test_labels_and_rows_stay(world, name):
    model = tiny_model(load_tasks(world[1][:3]))
    data = load_data(model.heads, model.tokenizer, max_length=64)
    for task, head in data.heads.items():
        pool = data.pool_of(task, "validation")
        other, differs = perturbed(pool, head, model.tokenizer, 64, perturbations.build(name), name=name)
        assert other.labels(task) == pool.labels(task) and len(other) == len(pool) == len(differs)
        text = head.needed_columns()[0]
        assert all(d or a == b for d, a, b in zip(differs, pool.table[text][:], other.table[text][:], strict=True))


def test_nothing_lost_where_nothing_is_changed(world):
    model = tiny_model(load_tasks(world[1][:1]))
    head = model.heads["mood"]
    head.metrics = ["accuracy"]
    assert drop(head, [0, 1, 1], [0, 1, 1], [0, 1, 0]) == (0.0, 0.0)
    low, high = drop(head, [1] * 40, [0] * 20 + [1] * 20, [1] * 40)
    assert 0.3 < low < 0.5 < high < 0.7


def test_a_run_is_scored_on_changed_texts(world):
    found = check_robustness(
        world[0], rows=8, using=["typos", "entity_swap", "word_swap", {"name": "case", "to": "upper"}]
    )
    assert {one.task for one in found.held} == {"mood", "alike", "names"}
    assert any("entity_swap" in note for note in found.notes), "no names in these texts, which is told"
    upper = [one for one in found.held if one.name == "case (upper)"]
    assert all(one.before == one.after and one.interval == (0.0, 0.0) for one in upper), "the tokenizer is uncased"
    kept = next(one for one in read_findings(world[0]) if one.name == "robustness")
    assert kept.drawings and len(kept.tables[0].rows) == len(found.held)


def test_the_attack_is_stronger_than_chance(world):
    rainy = world[0].parent / "rainy"
    (one,) = attack_run(rainy, ["rainy"], rows=72, share=0.5, similarity=-0.2, split="train").tasks
    assert one.attacked < one.chance <= one.accuracy
    assert 0 < one.share <= 0.7 and one.passes > 1
    assert one.examples
    assert all(example.text != example.changed and example.before != example.after for example in one.examples)
    assert any(finding.name == "attack" for finding in read_findings(rainy))


def test_mistakes_are_told_together(world):
    with pytest.raises(ConfigError) as caught:
        named(["typo", {"name": "case", "to": "uper"}, {"name": "typos", "rate": 2}])
    assert len(caught.value.mistakes) == 3
    with pytest.raises(ConfigError, match="has no task 'moood'; did you mean 'mood'"):
        check_robustness(world[0], ["moood"])
    with pytest.raises(ConfigError, match="alike is regression"):
        attack_run(world[0], ["alike"])
    with pytest.raises(ConfigError, match="`share`"):
        attack_run(world[0], ["mood"], share=0)


def test_each_row_has_its_own_slopes(world):
    """A batch has its rows in an order of its own."""
    import numpy as np

    from nlp_mtl.embedded import gradients_through
    from nlp_mtl.robustness.attack import _slopes
    from nlp_mtl.robustness.opening import open_run, some_rows

    _, model, data = open_run("attack", world[0].parent / "rainy", ["rainy"], split="train", rows=40, seed=0)
    pool, head = some_rows(data, "rainy", "train", 40, 0), data.heads["rainy"]
    with gradients_through(model, "attack"):
        guessed, slopes = _slopes(model, pool, head)
        alone = [
            _slopes(
                model, type(pool)(pool.key, pool.tasks, pool.table.select([row]), pool.facts, pool.needs_labels), head
            )
            for row in range(len(pool))
        ]
    assert len({len(ids) for ids, _ in slopes}) > 2
    for row, (ids, rise) in enumerate(slopes):
        assert ids == list(pool.row(row)["input_ids"])
        (guess,), ((_, own),) = alone[row]
        assert guess == guessed[row]
        np.testing.assert_allclose(rise / rise.norm(), own / own.norm(), atol=2e-3)
