"""Scores of every task over all rows in their order, whatever the batches, and how far above a trivial baseline."""

import json
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.evaluation import Evaluator, TaskScores, flatten, score_table
from nlp_mtl.model import make_heads
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

random = np.random.default_rng(1)


def words(count):
    return [WORDS[i] for i in random.integers(len(WORDS), size=count)]


def line(number):
    text = words(20 + 13 * number % 70)  # long enough for several batches
    tags = []
    for word in text:
        tags.append("B-X" if word in ("cat", "dog") else "I-X" if tags and tags[-1] != "O" and word == "the" else "O")
    return {
        "text": " ".join(text),
        "other": " ".join(words(2)),
        "words": text,
        "tags": tags,
        "label": ["x", "y", "x", "z"][number % 4],
        "many": [["p"], ["p", "q"], [], ["p"]][number % 4],
        "score": float(number % 5),
        "options": [" ".join(words(1 + i)) for i in range(2 + number % 3)],
        "right": (0, 1, 1)[number % 3],
        "answers": {"text": [text[-1]], "answer_start": [len(" ".join(text)) - len(text[-1])]},
    }


TRAIN, DEV = [line(i) for i in range(20)], [line(i) for i in range(100, 150)]
TEST = [
    {**line(i), "label": None, "score": -1.0, "tags": None, "right": -1, "many": None, "answers": None}
    for i in range(5)
]
SAID = {
    "label": {
        "head": "sequence_classification",
        "inputs": ["text"],
        "target": "label",
        "metrics": ["matthews_correlation", "f1_macro"],
    },
    "score": {"head": "regression", "inputs": ["text"], "target": "score", "metrics": ["mse", "pearson"]},
    "tags": {"head": "token_classification", "inputs": ["words"], "target": "tags"},
    "pos": {
        "head": {"name": "token_classification", "scheme": "none"},
        "inputs": ["words"],
        "target": "tags",
        "labels": ["O", "B-X", "I-X"],
    },
    "many": {"head": "multi_label", "inputs": ["text"], "target": "many", "labels": ["p", "q"]},
    "choice": {"head": {"name": "multiple_choice", "choices": "options"}, "inputs": ["text"], "target": "right"},
    "answer": {"head": "question_answering", "inputs": ["other", "text"], "target": "answers"},
    "hidden": {"head": "masked_lm", "inputs": ["text"]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data of all heads, and a model with weights that tell rows apart."""
    folder = tmp_path_factory.mktemp("rows")
    files = {}
    for split, rows in (("train", TRAIN), ("validation", DEV), ("test", TEST)):
        files[split] = str(folder / f"{split}.jsonl")
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks = [Task(name=name, dataset={"path": "json", "data_files": files}, **said) for name, said in SAID.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(folder / "cache"))
        data = load_data(make_heads(tasks), tiny_tokenizer(), max_length=128)
    model = tiny_model(
        [t.with_(labels=data.heads[t.name].labels) if data.heads[t.name].labels else t for t in tasks]
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return data, model


def alone(data, model, task, split="validation"):
    """Predictions, losses and units of each row by itself, in the order of the file."""
    pool = data.pool_of(task, split)
    collator, found = Collator([pool], data.heads), []
    for row in range(len(pool)):
        batch = collator([(0, row, -1)])
        with torch.no_grad():
            out = model(**batch)
        target = batch["targets"][task]
        units = data.heads[task].units(target)
        (prediction,) = data.heads[task].predict(out["logits"][task], target)
        found.append((prediction, float(out["losses"].get(task, 0.0)) * units, units))
    return found


@pytest.mark.parametrize("task", list(SAID))
def test_all_rows_count_in_their_order_whatever_the_batch(world, task):
    data, model = world
    rows = alone(data, model, task)
    head, pool = data.heads[task], data.pool_of(task, "validation")
    decoded = head.decode([prediction for prediction, _, _ in rows], pool.table)
    expected = head.score(decoded, head.references(pool.labels(task), pool.table))
    for batch_rows, batches in ((1, range(2, 50)), (30, range(2, 50)), (500, range(1, 2))):
        calls = []
        hook = model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        found = Evaluator(data, batch_rows=batch_rows).evaluate(model, "validation", tasks=[task])
        hook.remove()
        assert len(calls) in batches
        assert list(found) == [task]
        assert found[task].metrics == pytest.approx(expected, abs=1e-5)
        assert found[task].loss == pytest.approx(
            sum(loss for _, loss, _ in rows) / sum(units for _, _, units in rows), rel=1e-4
        )
        assert found[task].rows == len(DEV)
        if task not in ("score", "hidden"):
            assert found[task].decoded == decoded


def test_scores_are_those_of_the_rows_in_the_file(world):
    """From the labels as they stand in the file, without any of our own decoding."""
    data, model = world
    found = Evaluator(data).evaluate(model)
    names = data.heads["label"].labels
    logits = [prediction for prediction, _, _ in alone(data, model, "label")]
    guessed = [names[int(np.argmax(row))] for row in logits]
    gold = [row["label"] for row in DEV]
    assert found["label"].metrics["matthews_correlation"] == pytest.approx(matthews_corrcoef(gold, guessed))
    assert found["label"].metrics["f1_macro"] == pytest.approx(
        f1_score(gold, guessed, average="macro", labels=names, zero_division=0)
    )
    numbers = [prediction for prediction, _, _ in alone(data, model, "score")]
    assert found["score"].metrics["mse"] == pytest.approx(
        np.mean([(a - row["score"]) ** 2 for a, row in zip(numbers, DEV, strict=True)])
    )
    best = [int(np.argmax(prediction)) for prediction, _, _ in alone(data, model, "choice")]
    assert found["choice"].metrics["accuracy"] == pytest.approx(
        np.mean([a == row["right"] for a, row in zip(best, DEV, strict=True)])
    )


def test_every_task_is_scored_by_its_own_metrics(world):
    data, model = world
    found = Evaluator(data).evaluate(model)
    assert list(found) == list(SAID)
    firsts = {task: scores.first for task, scores in found.items()}
    assert firsts == {
        "label": "matthews_correlation",
        "score": "mse",
        "tags": "span_f1",
        "pos": "accuracy",
        "many": "f1_micro",
        "choice": "accuracy",
        "answer": "f1_answer",
        "hidden": "accuracy",
    }
    flat = flatten(found, "eval")
    for task, scores in found.items():
        for metric, value in scores.metrics.items():
            assert flat[f"eval_{task}_{metric}"] == value
    up = [scores.metrics[scores.first] for task, scores in found.items() if task != "score"]
    assert flat["eval_mean"] == pytest.approx(np.mean(up)), "an error, where less is better, is not in the mean"
    assert flat["eval_mean_skill"] == pytest.approx(np.mean([scores.skill for scores in found.values()]))
    assert [row["task"] for row in score_table(found)] == list(SAID)
    assert all(isinstance(value, float) for value in flat.values())


def test_an_unlabelled_split_gives_predictions_and_no_scores(world):
    data, model = world
    found = Evaluator(data).evaluate(model, "test")
    for task, scores in found.items():
        if task == "hidden":  # it makes its own labels
            continue
        assert scores.metrics == scores.trivial == {}
        assert scores.first is scores.skill is scores.loss is None
        assert len(scores.decoded) == scores.rows == len(TEST)
    assert not any(task in key for key in flatten(found) for task in SAID if task != "hidden")
    assert found["tags"].decoded[0][0] in ("O", "B-X", "I-X")
    assert isinstance(found["answer"].decoded[0], str)
    assert all(row["answers"] is None for row in TEST)


def test_a_partly_labelled_split_is_scored_where_it_has_labels(world, tmp_path):
    _, model = world
    rows = [{**row, "label": None if i % 3 == 0 else row["label"]} for i, row in enumerate(DEV)]
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = Task(
        name="label",
        dataset={"path": "json", "data_files": {"validation": str(file)}},
        labels=["x", "y", "z"],
        **SAID["label"],
    )
    data = load_data(make_heads([task]), tiny_tokenizer(), max_length=128)
    found = Evaluator(data, batch_rows=4).evaluate(model, "validation")["label"]
    gold = [row["label"] for row in rows if row["label"]]
    guessed = [
        "xyz"[int(np.argmax(p))]
        for (p, _, _), row in zip(alone(data, model, "label"), rows, strict=True)
        if row["label"]
    ]
    assert found.metrics["matthews_correlation"] == pytest.approx(matthews_corrcoef(gold, guessed))
    assert found.rows == len(gold)


def test_every_split_has_its_own_baseline(world):
    data, model = world
    evaluator = Evaluator(data)
    assert evaluator.evaluate(model, "validation")["score"].trivial == Evaluator(data).evaluate(model)["score"].trivial
    train = evaluator.evaluate(model, "train")["score"]
    assert train.trivial["mse"] == pytest.approx(np.var([row["score"] for row in TRAIN]), rel=1e-5)
    assert train.rows == len(TRAIN)


def test_a_split_that_no_task_has(world):
    data, model = world
    assert Evaluator(load_only_train(data)).evaluate(model, "validation") == {}


def load_only_train(data):
    from nlp_mtl.data import Data

    return Data(data.heads, {"train": data.splits["train"]})


def test_the_model_keeps_no_gradients_and_is_left_in_eval_mode(world):
    data, model = world
    Evaluator(data).evaluate(model)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_together_equal_one(world, processes):
    data, model = world
    calls = Counter()
    lock, barrier, parts, results = threading.Lock(), threading.Barrier(processes), [], {}

    def gather(mine):
        with lock:
            parts.extend(mine)
        barrier.wait(60)
        return list(parts)

    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, **batch):
            with lock:
                calls[threading.get_ident()] += 1
            return self.model(**batch)

    def one(process):
        evaluator = Evaluator(data, batch_rows=3)
        results[process] = evaluator.evaluate(Counted(), process=process, processes=processes, gather=gather)

    threads = [threading.Thread(target=one, args=(process,)) for process in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = Evaluator(data, batch_rows=3).evaluate(model)
    assert len(results) == processes
    for found in results.values():
        assert list(found) == list(expected)
        for task, scores in found.items():
            assert scores.metrics == pytest.approx(expected[task].metrics, abs=1e-6)
            assert scores.loss == pytest.approx(expected[task].loss, rel=1e-5)
            assert scores.rows == expected[task].rows
    assert len(calls) == processes
    assert len(set(calls.values())) == 1, "sharded models must be called equally often"


# ------------------------------------------------------------------------------------------------------------ baselines


def test_the_trivial_baselines_by_hand(world):
    data, model = world
    found = Evaluator(data).evaluate(model)
    majority = Counter(row["label"] for row in TRAIN).most_common(1)[0][0]
    gold = [row["label"] for row in DEV]
    assert found["label"].trivial["matthews_correlation"] == 0.0
    assert found["label"].trivial["f1_macro"] == pytest.approx(
        f1_score(gold, [majority] * len(gold), average="macro", labels=["x", "y", "z"], zero_division=0)
    )
    mean = np.mean([row["score"] for row in TRAIN])
    assert found["score"].trivial["mse"] == pytest.approx(
        np.mean([(row["score"] - mean) ** 2 for row in DEV]), rel=1e-5
    )
    often = Counter(row["right"] for row in TRAIN).most_common(1)[0][0]
    assert found["choice"].trivial["accuracy"] == pytest.approx(np.mean([row["right"] == often for row in DEV]))
    # p stands in three quarters of the training rows, q in one
    pairs = [(1, "p" in row["many"]) for row in DEV] + [(0, "q" in row["many"]) for row in DEV]
    assert found["many"].trivial["f1_micro"] == pytest.approx(f1_score([g for _, g in pairs], [p for p, _ in pairs]))
    assert found["answer"].trivial["exact_match"] == pytest.approx(
        np.mean(
            [
                row["text"].split()[0] == row["answers"]["text"][0]
                or {row["text"].split()[0], row["answers"]["text"][0]} <= {"the", "a", "an"}  # articles do not count
                for row in DEV
            ]
        )
    )


def test_the_baseline_of_words_is_their_most_frequent_tag(world):
    data, model = world
    seen, every = {}, Counter()
    for row in TRAIN:
        for word, tag in zip(row["words"], row["tags"], strict=True):
            seen.setdefault(word, Counter())[tag] += 1
            every[tag] += 1
    usual = every.most_common(1)[0][0]
    hits = [
        (seen[word].most_common(1)[0][0] if word in seen else usual) == tag
        for row in DEV
        for word, tag in zip(row["words"], row["tags"], strict=True)
    ]
    assert Evaluator(data).evaluate(model)["pos"].trivial["accuracy"] == pytest.approx(np.mean(hits))


def test_the_baseline_of_spans_is_a_lexicon_longest_first():
    task = Task(name="t", head="token_classification", dataset={"path": "n/a"}, inputs=["words"], target="tags")
    head = make_heads([task.with_(labels=["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])])["t"]
    train = {"words": [["new", "york", "is", "new"], ["york", "likes", "york"], ["york"]]}
    tags = [[1, 2, 0, 0], [3, 0, 3], [1]]
    rows = {"words": [["in", "new", "york", "york"], ["new", "house"]]}
    assert head.trivial(tags, train, [], rows) == [["O", "B-LOC", "I-LOC", "B-PER"], ["O", "O"]]


def test_no_answer_is_the_baseline_where_it_is_allowed():
    rows = {"q": ["a"], "c": ["the cat sat"], "source": [0]}
    for allowed, expected in ((True, [""]), (False, ["the"])):
        head = make_heads(
            [
                Task(
                    name="t",
                    head={"name": "question_answering", "no_answer": allowed},
                    dataset={"path": "n/a"},
                    inputs=["q", "c"],
                )
            ]
        )["t"]
        assert head.trivial([], {}, [None], rows) == expected


def test_a_borrower_without_training_rows_has_its_owners_baseline(tmp_path):
    train, dev = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    train.write_text("".join(json.dumps({"text": "cat", "label": v}) + "\n" for v in "yyx"), encoding="utf-8")
    dev.write_text("".join(json.dumps({"text": "cat", "label": v}) + "\n" for v in "xxyz"), encoding="utf-8")
    shared = {"head": "sequence_classification", "inputs": ["text"], "target": "label", "labels": ["x", "y", "z"]}
    owner = Task(name="owner", dataset={"path": "json", "data_files": {"train": str(train)}}, **shared)
    borrower = Task(
        name="borrower", dataset={"path": "json", "data_files": {"validation": str(dev)}}, head_of="owner", **shared
    )
    data = load_data(make_heads([owner, borrower]), tiny_tokenizer(), max_length=16)
    found = Evaluator(data).evaluate(tiny_model([owner, borrower]).eval())
    assert list(found) == ["borrower"]
    assert found["borrower"].trivial == {"accuracy": 0.25}, "y is the most frequent in the owner's training rows"


# ---------------------------------------------------------------------------------------------------------------- skill


@pytest.mark.parametrize(
    ("score", "trivial", "better", "skill"),
    [
        (0.9, 0.6, True, 0.75),
        (0.6, 0.6, True, 0.0),
        (0.3, 0.6, True, -0.75),
        (1.0, 0.6, True, 1.0),
        (1.0, 1.0, True, 0.0),
        (0.5, 2.0, False, 0.75),
        (0.0, 2.0, False, 1.0),
        (3.0, 2.0, False, -0.5),
        (0.5, 0.0, False, -0.5),
        (0.4, 1.0, True, -0.6),
        (0.2, -0.1, True, 0.3 / 1.1),
    ],
)
def test_skill_is_how_much_of_the_way_from_trivial_to_perfect_was_gone(score, trivial, better, skill):
    found = TaskScores({"m": score, "n": 0.0}, {"m": trivial, "n": 1.0}, 5, 0.1, better)
    assert found.skill == pytest.approx(skill)


def test_skill_and_mean_leave_out_what_has_no_score():
    scores = {
        "a": TaskScores({"m": 0.8}, {"m": 0.6}, 5, 0.5),
        "b": TaskScores({}, {}, 5, None),
        "c": TaskScores({"e": 1.0}, {"e": 2.0}, 5, 1.5, False),
    }
    flat = flatten(scores, "x")
    assert flat["x_mean"] == 0.8
    assert flat["x_mean_skill"] == pytest.approx(0.5)
    assert flat["x_loss"] == 1.0
    assert "x_b_skill" not in flat
    assert score_table(scores)[1] == {"task": "b", "metric": None, "score": None, "trivial": None, "rows": 5}
