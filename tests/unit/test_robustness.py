"""Laws of perturbations and of the attack, and a run that is looked at with both."""

from __future__ import annotations

from dataclasses import replace

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
from nlp_mtl.robustness.scoring import cost, scored
from nlp_mtl.robustness.study import Held, Robustness, check_robustness, named
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


def test_what_a_change_costs_is_judged_over_rows(world):
    """Nothing where nothing is changed; of a classifier's accuracy, what Student's test over rows says."""
    import numpy as np
    from scipy import stats

    model = tiny_model(load_tasks(world[1][:1]))
    data = load_data(model.heads, model.tokenizer, max_length=64)
    head = data.heads["mood"]
    head.metrics = ["accuracy"]
    before = scored(model, data.pool_of("mood", "validation"), head)
    assert cost(before, before).mean == 0 and cost(before, before).rows_p == 1
    other = 1 - np.asarray(before.references)
    after = replace(
        before, decoded=[int(o) if i % 3 else d for i, (d, o) in enumerate(zip(before.decoded, other, strict=True))]
    )
    right = [np.asarray(one.decoded) == np.asarray(one.references) for one in (before, after)]
    found, said = cost(before, after), stats.ttest_rel(*(one.astype(float) for one in right))
    assert found.mean == pytest.approx(float(right[0].mean() - right[1].mean()))
    assert found.rows_p == pytest.approx(float(said.pvalue), rel=1e-6)
    low, high = said.confidence_interval()
    assert (found.mean - found.rows_half, found.mean + found.rows_half) == pytest.approx((low, high))


def test_what_is_said_of_many_perturbations_is_corrected():
    def held(name, after, p):
        return Held("mood", name, "accuracy", 0.9, after, (0.0, 1.0), p, 10, 10, 0.1)

    many = [held(f"p{i}", 0.85, 0.03) for i in range(5)]
    assert "None is shown to cost anything" in Robustness(many).said()[0]
    assert "Shown to cost something, over rows: sure." in Robustness([*many, held("sure", 0.88, 0.001)]).said()[0]
    assert "worst under p0, 0.850" in Robustness([*many, held("sure", 0.88, 0.001)]).said()[0]
    assert "None" in Robustness([held("better", 0.95, 0.001)]).said()[0], "what helps costs nothing"


@pytest.mark.parametrize(
    ("how", "text", "becomes"),
    [
        ("remove", "he ca n't say", "he can say"),
        ("remove", "I won't go", "I will go"),
        ("remove", "It is n't bad", "It is bad"),
        ("remove", "Isn't it", "Is it"),
        ("remove", "we cannot paint", "we can paint"),
        ("add", "it is n't bad", "it is n't bad"),
        ("add", "it isn't bad", "it isn't bad"),
        ("add", "he is  here", "he is not here"),
        ("add", "no  verb\nhere", "no  verb\nhere"),
    ],
)
def test_negation_in_the_ways_it_is_written(how, text, becomes):
    assert perturbations.build({"name": "negation", "how": how}).changed(text, draw_of(0, "negation", 0)) == becomes


def test_a_name_is_swapped_alike_in_all_texts_of_a_row(world):
    from datasets import Dataset

    model = tiny_model(load_tasks(world[1][1:2]))
    data = load_data(model.heads, model.tokenizer, max_length=64)
    pool, head = data.pool_of("alike", "validation"), data.heads["alike"]
    one, two = head.needed_columns()[:2]
    rows = pool.table.to_list()
    for row in rows:
        row[one], row[two] = "Anna met Paul in Rome", "Paul saw Anna in Rome"
    pool = type(pool)(pool.key, pool.tasks, Dataset.from_list(rows), pool.facts, pool.needs_labels)
    other, differs = perturbed(pool, head, model.tokenizer, 64, perturbations.build("entity_swap"), name="entity_swap")
    assert all(differs)
    for left, right in zip(other.table[one][:], other.table[two][:], strict=True):
        first, _, second, _, place = left.split()
        assert right == f"{second} saw {first} in {place}" and first != second
        assert not {"Anna", "Paul", "Rome"} & {first, second, place} - {"Anna", "Paul"}, "Rome is another place"
    assert len(set(other.table[one][:])) > 1, "each row has names of its own"


def test_options_are_changed_and_tagged_words_stay_words():
    from nlp_mtl.robustness.rows import changed

    upper = perturbations.build({"name": "case", "to": "upper"})
    draw = draw_of(0, "case", 0)
    assert changed(upper, ["a good cat", "no"], draw) == ["A GOOD CAT", "NO"]
    drop = perturbations.build({"name": "punctuation", "how": "drop"})
    assert changed(drop, ["Good", "!"], draw) == ["Good", "!"], "a word of punctuation alone keeps its tag"
    assert changed(drop, "a  cat", draw) == "a  cat", "space alone is no change"
    assert changed(upper, [1, 2], draw) == [1, 2] and changed(upper, None, draw) is None


def test_words_are_found_among_tokens_whatever_stands_around_them(near):
    from nlp_mtl.robustness.neighbours import Neighbours

    found = Neighbours(near, similarity=-1.0)
    words = ["the", '"good', "cat!", "zzzzqqq", "the", "cat"]
    ids = near.tokenizer(" ".join(words))["input_ids"]
    places = found.places(words, ids)
    assert [place is None for place in places] == [False, False, False, True, False, False]
    pieces = near.tokenizer.convert_ids_to_tokens(ids)
    assert [pieces[i] for i in places if i is not None] == ["the", "good", "cat", "the", "cat"]
    assert len(set(places)) == len(places), "each word has a place of its own"
    assert all(other[0] == '"' and other[1:] != "good" for other in found.of('"good'))
    assert found.places(words, ids[:3]) == [*places[:1], *([places[1]] if places[1] < 3 else [None]), *[None] * 4]


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


def test_each_row_has_its_ownslopes_of(world):
    """A batch has its rows in an order of its own."""
    import numpy as np

    from nlp_mtl.embedded import gradients_through
    from nlp_mtl.robustness.flipping import slopes_of
    from nlp_mtl.robustness.opening import open_run, some_rows

    _, model, data = open_run("attack", world[0].parent / "rainy", ["rainy"], split="train", rows=40, seed=0)
    pool, head = some_rows(data, "rainy", "train", 40, 0), data.heads["rainy"]
    with gradients_through(model, "attack"):
        guessed, slopes = slopes_of(model, pool, head)
        alone = [
            slopes_of(
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
