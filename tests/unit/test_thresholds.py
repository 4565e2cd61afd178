"""Thresholds: found exactly (against trying everything), nearest to 0.5 among equals, and used wherever is decided."""

import copy
import itertools
import json
import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import metrics, registry
from nlp_mtl.data import Data, load_data
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.evaluation import Evaluator, flatten
from nlp_mtl.heads import head_of_spec
from nlp_mtl.heads.thresholds import COUNTED, SEVERAL, at_least, candidates, tune_one, tune_several
from nlp_mtl.model import MultiTaskModel, make_heads
from nlp_mtl.prediction import predict
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

NAMES = ["ham", "spam"]


def head(kind="sequence_classification", labels=NAMES, metrics_=None, **arguments):
    task = Task(
        name="demo",
        head={"name": kind, **arguments},
        dataset={"path": "nowhere/at_all"},
        inputs=["text"],
        target="label",
        labels=labels,
        metrics=metrics_,
    )
    return make_heads([task])["demo"]


# -------------------------------------------------------------------------------------------- against trying everything

# a few distinct values, so that ties between rows of both labels are common
odds_of_rows = st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 1)), min_size=1, max_size=9)


def every_cut(odds):
    """All ways to decide rows by one threshold: from each distinct score on, and none."""
    return [(odds >= edge).astype(int) for edge in [*np.unique(odds), np.inf]]


@pytest.mark.parametrize("metric", list(COUNTED))
@settings(deadline=None, max_examples=60)
@given(odds_of_rows)
def test_one_threshold_is_the_best_of_all(metric, rows):
    odds, truth = np.array([o for o, _ in rows]) / 2 + 0.25, np.array([t for _, t in rows])

    def value(decided):
        return metrics.score([metric], list(decided), truth.tolist(), labels=NAMES)[metric]

    best = max(value(decided.tolist()) for decided in every_cut(odds))
    found = tune_one(odds, truth, metric, NAMES)
    assert 0 < found < 1
    assert value(at_least(odds, found).tolist()) == pytest.approx(best, abs=1e-12)
    equal = [t for t in candidates(odds) if value(at_least(odds, t).tolist()) >= best - 1e-12]
    assert abs(found - 0.5) == min(abs(t - 0.5) for t in equal)
    if value(at_least(odds, 0.5).tolist()) >= best - 1e-12:
        assert found == 0.5


@pytest.mark.parametrize("metric", SEVERAL)
@settings(deadline=None, max_examples=25)
@given(st.lists(odds_of_rows.filter(lambda rows: len(rows) >= 4).map(lambda rows: rows[:4]), min_size=1, max_size=3))
def test_several_thresholds_are_the_best_of_all_combinations(metric, columns):
    odds = np.array([[o for o, _ in rows] for rows in columns]).T / 2 + 0.25
    truth = np.array([[t for _, t in rows] for rows in columns]).T

    def value(decided):
        return metrics.score([metric], decided.tolist(), truth.tolist())[metric]

    cuts = [every_cut(odds[:, column]) for column in range(odds.shape[1])]
    best = max(value(np.stack(chosen, -1)) for chosen in itertools.product(*cuts))
    found = np.array(tune_several(odds, truth, metric))
    assert value(at_least(odds, found)) == pytest.approx(best, abs=1e-12)
    for column in range(odds.shape[1]):  # none of them could lie nearer to 0.5
        for other in candidates(odds[:, column]):
            if abs(other - 0.5) < abs(found[column] - 0.5):
                moved = found.copy()
                moved[column] = other
                assert value(at_least(odds, moved)) < best - 1e-12


def test_other_metrics_are_computed_at_every_cut(monkeypatch):
    """Of a user's own metric nothing is known but its values, and which direction is better."""
    odds, truth = np.array([-3.0, -1.0, -0.5, 2.0, 3.0]), np.array([0, 1, 0, 0, 1])

    def missed(predictions, references, *, labels=None):
        return {"missed": sum(4 * (r > p) + (p > r) for p, r in zip(predictions, references, strict=True)), "rows": 5}

    missed.greater_is_better = False
    monkeypatch.setitem(registry.metrics._entries, "missed", missed)
    costs = {t: missed(at_least(odds, t).tolist(), truth.tolist())["missed"] for t in candidates(odds)}
    found = tune_one(odds, truth, "missed", NAMES)
    assert costs[found] == min(costs.values()) == 2
    assert at_least(odds, found).tolist() == [0, 1, 1, 1, 1]


def test_rounding_moves_no_decision_and_cuts_no_equal_rows_apart():
    draw = np.random.default_rng(0)
    odds, truth = draw.normal(size=200).round(2), draw.integers(2, size=200)
    found = tune_one(odds, truth, "f1", NAMES)
    for _ in range(5):
        shaken = odds + draw.uniform(-1e-6, 1e-6, size=200)
        assert tune_one(shaken, truth, "f1", NAMES) == pytest.approx(found, abs=1e-6)
        assert (at_least(shaken, found) == at_least(odds, found)).all()
    twins = np.array([-2.0000001, -2.0, 1.0])
    assert len(set(at_least(twins, tune_one(twins, np.array([0, 1, 1]), "accuracy", NAMES))[:2])) == 1


def test_scores_far_out_are_still_told_apart():
    odds = np.array([-25.0, -24.0, -22.0, -21.0])
    found = tune_one(odds, np.array([0, 0, 1, 1]), "f1", NAMES)
    assert at_least(odds, found).tolist() == [0, 0, 1, 1]
    found = json.loads(json.dumps(found))
    assert at_least(odds, found).tolist() == [0, 0, 1, 1]
    assert 0 < tune_one(np.array([-900.0, 900.0]), np.array([0, 1]), "f1", NAMES) < 1


def test_where_nothing_can_be_gained_it_stays_at_half():
    assert tune_one(np.array([-1.0, 1.0]), np.array([0, 0]), "f1", NAMES) == 0.5
    assert tune_several(np.array([[-1.0, 1.0]]), np.array([[0, 0]]), "f1_micro") == [0.5, 0.5]
    assert tune_several(np.array([[-1.0, 1.0]]), np.array([[0, 0]]), "f1_macro") == [0.5, 0.5]


# --------------------------------------------------------------------------------------------------------- decisions

LOGITS = [np.array([0.0, -1.0], np.float32), np.array([0.0, 0.5], np.float32), np.array([2.0, 0.0], np.float32)]


def test_a_threshold_is_on_the_probability_of_the_second_label():
    assert head().decode(LOGITS, None) == head(threshold=0.5).decode(LOGITS, None) == [0, 1, 0]
    assert head(threshold=0.26).decode(LOGITS, None) == [1, 1, 0], "1 / (1 + e) is 0.269"
    assert head(threshold={"spam": 0.1}).decode(LOGITS, None) == [1, 1, 1]
    assert head(threshold=0.9).decode(LOGITS, None) == [0, 0, 0]
    assert head(threshold=0.9).decode([], None) == []


def test_answers_follow_the_threshold_and_say_the_labels_own_probability():
    answer = head(threshold=0.26).answer(LOGITS[0], {})
    assert answer["label"] == "spam"
    assert answer["score"] == answer["scores"]["spam"] == pytest.approx(0.268941, abs=1e-6)
    assert head().answer(LOGITS[0], {})["label"] == "ham"


def test_several_labels_have_a_threshold_each():
    made = head("multi_label", ["p", "q"], threshold={"q": 0.2, "p": 0.7})
    rows = [np.array([0.5, -1.0], np.float32), np.array([1.0, -2.0], np.float32)]
    assert made.decode(rows, None) == [[0, 1], [1, 0]]
    assert made.answer(rows[0], {})["labels"] == ["q"]
    assert made.undecided(rows, None) == [[1, 0], [1, 0]]
    assert head("multi_label", ["p", "q"]).decode(rows, None) == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("kind", "labels", "metric", "rows", "truth"),
    [
        ("sequence_classification", NAMES, "f1", LOGITS, [1, 1, 0]),
        ("multi_label", ["p", "q"], "f1_macro", LOGITS, [[0, 0], [0, 1], [1, 0]]),
    ],
)
def test_what_was_tuned_is_recorded_read_back_and_forgotten(caplog, kind, labels, metric, rows, truth):
    made = head(kind, labels, [metric], threshold="tuned")
    assert made.tunes
    assert made.chosen() == {}
    made.tune(rows, truth)
    assert made.score(made.decode(rows, None), truth)[metric] == 1.0
    assert made.spec["tuned"] == made.chosen()
    said = made.task.model_dump(mode="json", exclude_unset=True)
    again = head_of_spec({**said, "head": json.loads(json.dumps(made.spec))})
    assert again.chosen() == made.chosen()
    assert again.decode(rows, None) == made.decode(rows, None)
    assert again.data_spec() == {"name": kind}
    assert not caplog.records
    made.recall({})
    assert made.spec == {"name": kind, "threshold": "tuned"}
    assert made.decode(rows, None) == made.undecided(rows, None)
    head_of_spec({**said, "head": made.spec})
    assert "`threshold: tuned`, but this checkpoint was saved without an evaluation" in caplog.text


# ------------------------------------------------------------------------------------------------------------ mistakes


ONE, SEVERAL_ = "sequence_classification", "multi_label"


@pytest.mark.parametrize(
    ("kind", "labels", "arguments", "said"),
    [
        (ONE, ["a", "b", "c"], {"threshold": "tuned"}, "`threshold` decides between two labels, found 3 (a, b, c)"),
        (ONE, ["a", "b", "c"], {"threshold": 0.4}, "among more, no single number says which one is given"),
        (ONE, ["a"], {"threshold": "tuned"}, "decides between two labels, found 1"),
        (ONE, NAMES, {"threshold": "tune"}, "or tuned, found 'tune'"),
        (ONE, NAMES, {"threshold": 0}, "`threshold` is a number between 0 and 1"),
        (ONE, NAMES, {"threshold": 1.0}, "found 1.0"),
        (ONE, NAMES, {"threshold": True}, "found True"),
        (ONE, NAMES, {"threshold": {"ham": 0.5}}, "names 'ham', which is no label that it decides"),
        (ONE, NAMES, {"threshold": {}}, "found {}"),
        (ONE, NAMES, {"tuned": 0.3}, "`tuned` goes with `threshold: tuned`, found 0.3"),
        (SEVERAL_, NAMES, {"threshold": 0.4, "tuned": {"ham": 0.3}}, "beside `threshold: 0.4`"),
        (SEVERAL_, NAMES, {"threshold": "tuned", "tuned": {"ham": 3}}, "`tuned` is a mapping label → number"),
        (SEVERAL_, NAMES, {"threshold": {"ham": 0.3}}, "(0.5 is the usual one), found none for 'spam'"),
        (SEVERAL_, NAMES, {"threshold": {"ham": 0.3, "spm": 0.1}}, "'spm', which is no label that it decides; did"),
    ],
)
def test_wrong_thresholds_are_said(kind, labels, arguments, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        head(kind, labels, **arguments)
    assert "task 'demo'" in str(caught.value)


def test_thresholds_of_several_labels_are_tuned_for_metrics_that_can_be_solved():
    with pytest.raises(ConfigError, match="for f1_micro and f1_macro; the first metric is 'accuracy': put one of them"):
        head("multi_label", NAMES, ["accuracy", "f1_micro"], threshold="tuned")


# ---------------------------------------------------------------------------------------------------------- evaluation


def line(number, draw):
    text = [WORDS[i] for i in draw.integers(len(WORDS), size=3 + number % 20)]
    return {
        "text": " ".join(text),
        "rare": "yes" if "rain" in text else "no",
        "many": [word for word in ("cat", "dog", "rain") if word in text],
    }


RARE = {"head": {"name": "sequence_classification", "threshold": "tuned"}, "labels": ["no", "yes"], "target": "rare"}
SAID = {
    "rare": RARE,
    "many": {"head": {"name": "multi_label", "threshold": "tuned"}, "labels": ["cat", "dog", "rain"], "target": "many"},
    "borrower": {**RARE, "head_of": "rare"},
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Imbalanced rows, and a model with weights that tell rows apart; `borrower` has only test rows."""
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    draw, files = np.random.default_rng(3), {}
    for split, count in (("train", 10), ("validation", 60), ("test", 40)):
        files[split] = str(tmp_path / f"{split}.jsonl")
        lines = [json.dumps(line(i, draw)) + "\n" for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    tasks = [
        Task(
            name=name,
            dataset={"path": "json", "data_files": files if name != "borrower" else {"test": files["test"]}},
            inputs=["text"],
            metrics=["f1" if name != "many" else "f1_micro", "accuracy"],
            **said,
        )
        for name, said in SAID.items()
    ]
    model = tiny_model(tasks).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        model.module_of("rare").classifier.bias[0] += 3  # as a task does whose positive label is rare
        model.module_of("many").classifier.bias -= 2
    data = load_data(model.heads, tiny_tokenizer(), max_length=64)
    return model, data


def test_thresholds_are_tuned_for_the_first_metric_and_what_half_gives_is_said_too(world):
    model, data = world
    before = Evaluator(data).evaluate(model)
    assert before["rare"].thresholds == {}
    assert before["rare"].metrics["f1"] == before["rare"].metrics["f1_at_half"]
    tuned = Evaluator(data).evaluate(model, tune=True)
    for task, metric in (("rare", "f1"), ("many", "f1_micro")):
        assert tuned[task].first == metric
        assert tuned[task].metrics[metric] > before[task].metrics[metric]
        assert tuned[task].metrics[f"{metric}_at_half"] == before[task].metrics[metric]
        assert tuned[task].trivial == before[task].trivial
        assert tuned[task].thresholds == model.heads[task].chosen() != {}
        assert tuned[task].skill > before[task].skill
    flat = flatten(tuned)
    assert flat["eval_rare_threshold"] == tuned["rare"].thresholds["yes"]
    assert flat["eval_rare_f1_at_half"] == before["rare"].metrics["f1"]
    assert "eval_many_f1_micro_at_half" in flat
    again = Evaluator(data, batch_rows=500).evaluate(model)
    assert {task: found.metrics for task, found in again.items()} == {
        task: pytest.approx(found.metrics) for task, found in tuned.items()
    }


def test_other_splits_use_what_was_tuned_and_tune_nothing(world):
    model, data = world
    Evaluator(data).evaluate(model, tune=True)
    chosen = {task: head.chosen() for task, head in model.heads.items()}
    found = Evaluator(data).evaluate(model, "test")
    assert {task: head.chosen() for task, head in model.heads.items()} == chosen
    rows = data.pool_of("rare", "test")
    labels = rows.labels("rare")
    assert found["rare"].metrics == pytest.approx(
        {
            **model.heads["rare"].score(found["rare"].decoded, labels),
            "f1_at_half": found["rare"].metrics["f1_at_half"],
        }
    )
    assert found["rare"].metrics["f1"] != found["rare"].metrics["f1_at_half"]


def test_a_task_without_rows_to_tune_on_takes_the_thresholds_of_the_head_it_uses(world):
    model, data = world
    Evaluator(data).check()
    Evaluator(data).evaluate(model, tune=True)
    assert model.heads["borrower"].chosen() == model.heads["rare"].chosen() != {}
    found = Evaluator(data).evaluate(model, "test")
    assert found["borrower"].decoded == found["rare"].decoded


def test_every_process_chooses_the_same(world):
    model, data = world
    alone = Evaluator(data, batch_rows=4).evaluate(model, tune=True)
    mine = [Data(copy.deepcopy(data.heads), data.splits) for _ in range(2)]
    barrier, parts = threading.Barrier(2), []

    def gather(part):
        parts.extend(part)
        barrier.wait(60)
        return list(parts)

    def one(process):
        mine[process].heads["rare"].recall({})
        Evaluator(mine[process], batch_rows=4).evaluate(model, tune=True, process=process, processes=2, gather=gather)

    threads = [threading.Thread(target=one, args=(process,)) for process in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for task in ("rare", "many"):
        assert mine[0].heads[task].chosen() == mine[1].heads[task].chosen() == alone[task].thresholds


def test_saved_thresholds_decide_the_same_when_loaded(world, tmp_path):
    model, data = world
    Evaluator(data).evaluate(model, tune=True)
    texts = [line(i, np.random.default_rng(9))["text"] for i in range(30)]
    before = predict(model, texts, tasks=["rare", "many"])
    model.save_pretrained(tmp_path / "run")
    again = MultiTaskModel.from_pretrained(tmp_path / "run")
    assert predict(again, texts, tasks=["rare", "many"]) == before
    assert again.spec() == model.spec()
    for answer in before:
        threshold = model.heads["rare"].chosen()["yes"]
        assert (answer["rare"]["label"] == "yes") == (answer["rare"]["scores"]["yes"] >= threshold)
    assert any(answer["rare"]["label"] == "yes" and answer["rare"]["score"] < 0.5 for answer in before)


def test_a_folder_from_before_thresholds_still_loads(world, tmp_path):
    model, _ = world
    model.save_pretrained(tmp_path)
    file = tmp_path / "nlp_mtl.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    for item in said["tasks"]:
        item["head"] = {"name": item["head"]["name"]}
    file.write_text(json.dumps(said), encoding="utf-8")
    again = MultiTaskModel.from_pretrained(tmp_path)
    assert not any(head.tunes for head in again.heads.values())
    assert predict(again, "the cat", tasks=["many"])["many"]["labels"] is not None


def test_tuning_without_rows_to_tune_on_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    rows = [{"text": "cat", "label": "no"}, {"text": "rain", "label": "yes"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "dev.jsonl").write_text(json.dumps({"text": "dog", "label": None}) + "\n", encoding="utf-8")
    for files in ({"train": "train.jsonl"}, {"train": "train.jsonl", "validation": "dev.jsonl"}):
        dataset = {"path": "json", "data_files": {split: str(tmp_path / name) for split, name in files.items()}}
        made = head(labels=["no", "yes"], threshold="tuned").task.with_(dataset=dataset)
        data = load_data(make_heads([made]), tiny_tokenizer(), max_length=32)
        with pytest.raises(ConfigError, match="'demo': `threshold: tuned` needs labelled validation rows, found none"):
            Evaluator(data).check()


def test_three_labels_found_in_the_data_are_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    rows = [{"text": "cat", "label": label} for label in "abc"]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = {"path": "json", "data_files": {"train": str(tmp_path / "train.jsonl")}}
    made = head(labels=None, threshold="tuned").task.with_(dataset=dataset)
    with pytest.raises(DataError, match=r"decides between two labels, found 3 \(a, b, c\)"):
        load_data(make_heads([made]), tiny_tokenizer(), max_length=32)


@pytest.mark.parametrize("first", ["roc_auc", "average_precision"])
def test_a_metric_of_scores_chooses_no_threshold(first):
    """It is the same at every threshold."""
    task = Task(
        name="spam",
        head={"name": "sequence_classification", "threshold": "tuned"},
        dataset={"path": "json", "data_files": "x.jsonl"},
        inputs=["text"],
        target="label",
        labels=["ham", "spam"],
        metrics=[first, "f1"],
    )
    with pytest.raises(ConfigError, match=f"'spam': `threshold: tuned` needs a first metric .* found '{first}'"):
        make_heads([task])
    make_heads([task.with_(metrics=["f1", first])])
