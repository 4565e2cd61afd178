"""Scores and columns handed to the metrics that need them: by the Evaluator, for baselines, and over processes."""

import json
import threading

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from nlp_mtl import metrics, registry
from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.heads import make_heads
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, check_task, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another
random = np.random.default_rng(3)


def words(count):
    return " ".join(WORDS[i] for i in random.integers(len(WORDS), size=count))


def line(number):
    """An answer to a question of 3; questions lie apart, with other numbers of words."""
    question = number // 3
    return {
        "text": words(3 + 17 * number % 40),
        "label": ["no", "yes", "no"][(number * number + question) % 3],
        "kind": "xyz"[(number + question) % 3],
        "many": [["p"], ["p", "q"], [], ["q"], ["p"]][number % 5],
        "question": f"q{question}",
        "entity": WORDS[number % len(WORDS)],
        "answers": [WORDS[(3 * question + 1) % len(WORDS)], "no such word"],
        "words": words(4).split(),
        "tags": ["O", "O", "B-X", "O"],
        "score": 1.0,
        "asked": "a cat",
        "found": {"text": ["cat"], "answer_start": [4]},
    }


TRAIN, DEV = [line(i) for i in range(30)], [line(i) for i in range(60, 120)]
random.shuffle(DEV)
GIVEN = {"groups": "question", "candidates": "entity", "answers": "answers"}
SAID = {
    "two": {
        "target": "label",
        "labels": ["no", "yes"],
        "metrics": ["roc_auc", "average_precision", "f1", "group_exact_match", "best_f1_answer", "best_exact_match"],
        "metric_columns": GIVEN,
    },
    "three": {
        "target": "kind",
        "labels": ["x", "y", "z"],
        "metrics": ["roc_auc", "average_precision", "accuracy"],
    },
    "several": {
        "head": "multi_label",
        "target": "many",
        "labels": ["p", "q"],
        "metrics": ["average_precision", "roc_auc", "group_exact_match"],
        "metric_columns": {"groups": "question"},
    },
}


def files_of(folder, **splits):
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return {"path": "json", "data_files": {split: str(folder / f"{split}.jsonl") for split in splits}}


def task_of(name, dataset, **said):
    return Task(**{"name": name, "head": "sequence_classification", "inputs": ["text"], "dataset": dataset, **said})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    dataset = files_of(folder, train=TRAIN, validation=DEV)
    tasks = [task_of(name, dataset, **said) for name, said in SAID.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(folder / "cache"))
        data = load_data(make_heads(tasks), tiny_tokenizer(), max_length=128)
    model = tiny_model(tasks).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return data, model


def logits_of(data, model, task):
    """[rows, labels], each row by itself, in the order of the file."""
    pool = data.pool_of(task, "validation")
    collator, found = Collator([pool], data.heads), []
    for row in range(len(pool)):
        with torch.no_grad():
            found.append(model(**collator([(0, row, -1)]))["logits"][task][0].double().numpy())
    return np.stack(found)


def test_binary_scores_are_those_of_the_rows_in_the_file(world):
    data, model = world
    found = Evaluator(data, batch_rows=7).evaluate(model)["two"].metrics
    logits = logits_of(data, model, "two")
    yes = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    gold = [row["label"] == "yes" for row in DEV]
    assert found["roc_auc"] == pytest.approx(roc_auc_score(gold, yes), abs=1e-6)
    assert found["average_precision"] == pytest.approx(average_precision_score(gold, yes), abs=1e-6)
    said = yes > 0.5
    assert found["f1"] == pytest.approx(f1_score(gold, said))
    # exact match per question, and the best entity of each question
    questions = {}
    for row, right, score in zip(DEV, said == gold, yes, strict=True):
        questions.setdefault(row["question"], []).append((score, row, right))
    assert {len(members) for members in questions.values()} == {3}
    assert found["group_exact_match"] == pytest.approx(
        np.mean([all(right for _, _, right in members) for members in questions.values()])
    )
    best = [max(members, key=lambda member: member[0])[1] for members in questions.values()]
    # all entities are single words, so F1 and exact match agree; articles normalise to nothing
    article = {"a", "an", "the"}
    hits = [row["entity"] in row["answers"] and row["entity"] not in article for row in best]
    assert found["best_exact_match"] == found["best_f1_answer"] == pytest.approx(np.mean(hits))


def test_scores_of_more_labels_and_of_several_labels(world):
    data, model = world
    found = Evaluator(data, batch_rows=7).evaluate(model)
    logits = logits_of(data, model, "three")
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gold = np.array(["xyz".index(row["kind"]) for row in DEV])
    assert found["three"].metrics["roc_auc"] == pytest.approx(
        roc_auc_score(gold, shares, multi_class="ovr", average="macro"), abs=1e-6
    )
    assert found["three"].metrics["average_precision"] == pytest.approx(
        average_precision_score(np.eye(3)[gold], shares, average="macro"), abs=1e-6
    )
    several = logits_of(data, model, "several")
    both = np.array([["p" in row["many"], "q" in row["many"]] for row in DEV], dtype=int)
    assert found["several"].metrics["roc_auc"] == pytest.approx(roc_auc_score(both, several, average="macro"))
    assert found["several"].metrics["average_precision"] == pytest.approx(
        average_precision_score(both, several, average="macro")
    )


def test_the_trivial_baselines_have_constant_scores(world):
    data, model = world
    found = Evaluator(data).evaluate(model)
    assert found["two"].trivial["roc_auc"] == 0.5
    assert found["two"].trivial["average_precision"] == pytest.approx(np.mean([row["label"] == "yes" for row in DEV]))
    assert found["three"].trivial["roc_auc"] == 0.5
    assert found["three"].trivial["average_precision"] == pytest.approx(1 / 3)
    assert found["several"].trivial["roc_auc"] == 0.5
    rates = [np.mean([name in row["many"] for row in DEV]) for name in "pq"]
    assert found["several"].trivial["average_precision"] == pytest.approx(np.mean(rates))
    # "no" for every row is right where a question has no "yes"
    questions = {row["question"]: True for row in DEV}
    for row in DEV:
        questions[row["question"]] &= row["label"] == "no"
    assert found["two"].trivial["group_exact_match"] == pytest.approx(np.mean(list(questions.values())))
    # with equal scores, a candidate is drawn
    article = {"a", "an", "the"}
    hits = [row["entity"] in row["answers"] and row["entity"] not in article for row in DEV]
    assert found["two"].trivial["best_exact_match"] == pytest.approx(np.mean(hits))
    assert found["two"].skill == pytest.approx((found["two"].metrics["roc_auc"] - 0.5) / 0.5)


def test_a_metric_of_probabilities_is_given_the_shares_of_training(world, monkeypatch):
    """Not only the order counts: the baseline's scores are the labels' shares of the training rows."""
    data, _ = world
    registry.metrics.names()
    monkeypatch.setattr(registry.metrics, "_entries", dict(registry.metrics._entries))

    @metrics.metric("mean_score", needs=["scores"])
    def mean_score(predictions, references, *, labels=None, scores):
        return float(np.asarray(scores)[:, -1].mean())

    head, pool = data.heads["two"], data.pool_of("two", "train")
    monkeypatch.setattr(head, "metrics", ["mean_score"])
    given = head.for_metrics(pool.table, lambda: head.trivial_scores(pool.labels("two"), len(pool)))
    assert head.score([0] * len(pool), [0] * len(pool), given) == {
        "mean_score": pytest.approx(np.mean([row["label"] == "yes" for row in TRAIN]))
    }


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_together_equal_one(world, processes):
    data, model = world
    lock, barrier, parts, results = threading.Lock(), threading.Barrier(processes), [], {}

    def gather(mine):
        with lock:
            parts.extend(mine)
        barrier.wait(60)
        return list(parts)

    def one(process):
        evaluator = Evaluator(data, batch_rows=3)
        results[process] = evaluator.evaluate(model, process=process, processes=processes, gather=gather)

    threads = [threading.Thread(target=one, args=(process,)) for process in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = Evaluator(data, batch_rows=3).evaluate(model)
    assert len(results) == processes
    for found in results.values():
        for task in SAID:
            assert found[task].metrics == pytest.approx(expected[task].metrics, abs=1e-6)
            assert found[task].trivial == expected[task].trivial


def test_rows_without_a_label_are_left_out_of_scores_and_groups(world, tmp_path):
    _, model = world
    rows = [{**row, "label": None if i % 4 == 0 else row["label"]} for i, row in enumerate(DEV)]
    dataset = files_of(tmp_path, validation=rows)
    data = load_data(make_heads([task_of("two", dataset, **SAID["two"])]), tiny_tokenizer(), max_length=128)
    found = Evaluator(data).evaluate(model, tasks=["two"])["two"]
    kept = [i for i, row in enumerate(rows) if row["label"]]
    logits = logits_of(data, model, "two")[kept]
    gold = [rows[i]["label"] == "yes" for i in kept]
    assert found.rows == len(kept)
    assert found.metrics["roc_auc"] == pytest.approx(roc_auc_score(gold, logits[:, 1] - logits[:, 0]), abs=1e-6)
    questions = {}
    for i, right in zip(kept, (logits[:, 1] > logits[:, 0]) == gold, strict=True):
        questions.setdefault(rows[i]["question"], []).append(right)
    assert found.metrics["group_exact_match"] == pytest.approx(np.mean([all(v) for v in questions.values()]))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"head": "regression", "target": "score", "metrics": ["pearson", "roc_auc"]},
            "task 't': metric 'roc_auc' needs `scores`, which the head 'regression' does not give; heads that do: "
            "domain_adversarial, multi_label, sequence_classification",
        ),
        (
            {"head": "token_classification", "inputs": ["words"], "target": "tags", "metrics": ["average_precision"]},
            "metric 'average_precision' needs `scores`, which the head 'token_classification' does not give",
        ),
        (
            {"target": "label", "metrics": ["group_exact_match"]},
            "metric 'group_exact_match' needs `groups`, a column of the rows; name it: "
            "`metric_columns: {groups: COLUMN}`",
        ),
        (
            {"target": "label", "metrics": ["group_exact_match"], "metric_columns": {"group": "question"}},
            "`metric_columns: {groups: COLUMN}`; did you mean 'group'?",
        ),
        (
            {
                "head": "question_answering",
                "inputs": ["asked", "asked"],
                "target": "found",
                "metrics": ["group_exact_match"],
                "metric_columns": {"groups": "question"},
            },
            "`groups` of every prediction, but the head 'question_answering' does not make one prediction per row",
        ),
        (
            {"head": "masked_lm", "metrics": ["gender_parity"], "metric_columns": {"groups": "question"}},
            "the head 'masked_lm' does not make one prediction per row",
        ),
    ],
)
def test_metrics_that_a_task_can_not_give_are_refused_before_data_is_read(said, message):
    with pytest.raises(ConfigError) as refused:
        make_heads([task_of("t", {"path": "no/such_data"}, **said)])
    assert message in str(refused.value)


def test_all_of_them_are_said_at_once():
    said = {"target": "label", "metrics": ["best_f1_answer", "nonsense"], "metric_columns": {"answers": "answers"}}
    with pytest.raises(ConfigError) as refused:
        make_heads(
            [task_of("t", {"path": "x"}, **said), task_of("u", {"path": "x"}, head="regression", metrics=["roc_auc"])]
        )
    text = "\n".join(refused.value.mistakes)
    assert len(refused.value.mistakes) == 4
    for part in ("`groups`", "`candidates`", "'nonsense'", "task 'u'"):
        assert part in text


def test_scores_are_no_column():
    with pytest.raises(ValueError, match="`scores` are made by the head"):
        task_of("t", {"path": "x"}, metric_columns={"scores": "score"})


def test_a_column_that_is_not_there(tmp_path):
    dataset = files_of(tmp_path, train=TRAIN, validation=DEV)
    task = task_of("two", dataset, **{**SAID["two"], "metric_columns": {**GIVEN, "groups": "questions"}})
    with pytest.raises(DataError, match=r"`metric_columns` names the column 'questions'.*did you mean 'question'"):
        load_rows(task)


def test_a_test_split_may_lack_the_columns_until_it_is_scored(tmp_path, world):
    _, model = world
    bare = [{"text": row["text"], "label": row["label"]} for row in DEV]
    task = task_of("two", files_of(tmp_path, test=bare), **SAID["two"])
    data = load_data(make_heads([task]), tiny_tokenizer(), max_length=128)
    with pytest.raises(DataError, match="task 'two': these rows lack the column 'question', which metrics need"):
        Evaluator(data).evaluate(model, "test", tasks=["two"])
    unlabelled = [{"text": row["text"]} for row in DEV]
    task = task_of("two", files_of(tmp_path, test=unlabelled), **SAID["two"])
    data = load_data(make_heads([task]), tiny_tokenizer(), max_length=128)
    assert Evaluator(data).evaluate(model, "test", tasks=["two"])["two"].metrics == {}


def test_examples_need_the_columns_too():
    said = {**SAID["two"], "examples": [DEV[0], {**DEV[1], "label": "yes"}]}
    assert check_task(task_of("two", {"path": "x"}, **said)) == []
    lacking = {key: value for key, value in DEV[0].items() if key != "entity"}
    (mistake,) = check_task(task_of("two", {"path": "x"}, **{**said, "examples": [lacking]}))
    assert "example 0 lacks the column 'entity'" in mistake


# ------------------------------------------------------------------------------------------------ groups stay together


def test_a_held_out_share_parts_no_group(tmp_path):
    rows = [line(i) for i in range(600)]
    shares = {"validation": 0.2, "test": 0.1}
    task = task_of("two", files_of(tmp_path, train=rows), splits=shares, **SAID["two"])
    found = load_rows(task)
    sides = {split: set(part["question"]) for split, part in found.items()}
    assert sides["train"] | sides["validation"] | sides["test"] == {row["question"] for row in rows}
    assert sum(map(len, sides.values())) == 200, "every question stands on one side"
    assert 20 < len(sides["validation"]) < 65
    assert 5 < len(sides["test"]) < 40
    without = load_rows(task.with_(metric_columns={}, metrics=["accuracy"]))
    assert set(without["train"]["question"]) & set(without["validation"]["question"]), "else this test says nothing"


@pytest.mark.parametrize("cap", [3, 10, 47])
def test_a_cap_keeps_whole_groups(tmp_path, cap):
    rows = [line(i) for i in range(90)]
    random.shuffle(rows)
    task = task_of("two", files_of(tmp_path, train=rows), rows={"train": cap}, **SAID["two"])
    kept = load_rows(task)["train"]
    assert len(kept) == 3 * (cap // 3)
    counts = np.unique(kept["question"], return_counts=True)[1]
    assert set(counts) == {3}
    assert kept[:] == load_rows(task)["train"][:]


def test_a_cap_below_a_group_is_refused(tmp_path):
    task = task_of("two", files_of(tmp_path, train=TRAIN), rows={"train": 2}, **SAID["two"])
    with pytest.raises(DataError, match=r"`rows.train: 2` is less than a group of rows that stay together.* has 3"):
        load_rows(task)


def test_tasks_share_a_pool_only_if_their_rows_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    dataset = files_of(tmp_path, train=TRAIN)
    tasks = [
        task_of("grouped", dataset, rows={"train": 6}, **SAID["two"]),
        task_of("plain", dataset, rows={"train": 6}, **SAID["three"]),
        task_of("ungrouped", dataset, rows={"train": 6}, target="label", labels=["no", "yes"]),
    ]
    data = load_data(make_heads(tasks), tiny_tokenizer(), max_length=64)
    assert sorted(pool.tasks for pool in data.splits["train"]) == [("grouped",), ("plain", "ungrouped")]
    again = load_data(
        make_heads([tasks[0].with_(metric_columns={**GIVEN, "answers": "entity"})]), tiny_tokenizer(), max_length=64
    )
    kept = again.pool_of("grouped", "train").table
    assert kept["metric:grouped:answers"][:] == kept["metric:grouped:candidates"][:], "not the rows cached before"
