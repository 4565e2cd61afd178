"""The parts of a dry run: counts equal counting, estimates keep their laws, planted rows are found."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from nlp_mtl.data import load_data
from nlp_mtl.dryrun.making import parts_of
from nlp_mtl.dryrun.memory import state_bytes
from nlp_mtl.dryrun.pooling import features, fit, probe_pooling, row_scores
from nlp_mtl.dryrun.result import SplitRows, TaskRows
from nlp_mtl.dryrun.rows import task_rows
from nlp_mtl.dryrun.shared import normalised, shared_rows
from nlp_mtl.dryrun.show import label_lines
from nlp_mtl.dryrun.steps import stops
from nlp_mtl.dryrun.timing import Line, chosen_steps
from nlp_mtl.peak import PeakMemory, resident
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_model

torch.set_num_threads(1)


def task_of(folder, name, head, rows, inputs=("text",), target="label", **more):
    """A task whose splits are lists of rows."""
    files = {}
    for split, part in rows.items():
        file = folder / f"{name}-{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        files[split] = str(file)
    dataset = {"path": "json", "data_files": files}
    return Task(name=name, head=head, inputs=list(inputs), target=target, dataset=dataset, **more)


def data_of(*tasks, max_length=64):
    model = tiny_model(list(tasks))
    return model, load_data(model.heads, model.tokenizer, max_length=max_length)


# --------------------------------------------------------------------------------------------- rows, labels and lengths


def test_labels_are_counted_for_every_way_of_storing_them(tmp_path):
    texts = ["the cat", "a dog", "rain and sun", "no", "yes yes yes"]
    some = [{"text": text} for text in texts]

    def rows(key, values, **more):
        return [{**row, key: value, **more} for row, value in zip(some, values, strict=True)]

    classes = task_of(
        tmp_path,
        "classes",
        "sequence_classification",
        {"train": rows("label", ["x", "y", "x", None, "x"]), "validation": rows("label", ["y"] * 5)},
        labels=["x", "y", "z"],
    )
    several = task_of(
        tmp_path,
        "several",
        "multi_label",
        {"train": rows("label", [["p"], ["p", "q"], [], ["q"], ["p"]])},
        labels=["p", "q"],
    )
    numbers = task_of(tmp_path, "numbers", "regression", {"train": rows("label", [0.0, 1.0, 5.0, None, 2.0])})
    words = [{"tokens": text.split(), "tags": ["O"] + ["B-A"] * text.count(" ")} for text in texts]
    tags = task_of(
        tmp_path, "tags", "token_classification", {"train": words}, ("tokens",), "tags", labels=["O", "B-A", "I-A"]
    )
    picks = [{"context": text, "one": "cat", "two": "dog", "right": i % 2} for i, text in enumerate(texts)]
    pick = task_of(
        tmp_path,
        "pick",
        {"name": "multiple_choice", "choices": ["one", "two"]},
        {"train": picks},
        ("context",),
        "right",
    )
    hidden = task_of(tmp_path, "hidden", "masked_lm", {"train": some}, target=None)
    _, data = data_of(classes, several, numbers, tags, pick, hidden)
    found = task_rows(data, 64)

    def train(task):
        return found[task].splits["train"]

    assert train("classes").labels == {"x": 3, "y": 1, "z": 0}
    assert (train("classes").rows, train("classes").labelled) == (5, 4)
    assert found["classes"].splits["validation"].labels == {"x": 0, "y": 5, "z": 0}
    assert found["classes"].label_map == {"x": 0, "y": 1, "z": 2}
    assert train("several").labels == {"p": 3, "q": 2}
    assert train("numbers").numbers == {"min": 0.0, "mean": 2.0, "max": 5.0, "std": pytest.approx(1.870829)}
    assert train("numbers").labels is None
    assert train("tags").labels == {"O": 5, "B-A": sum(text.count(" ") for text in texts), "I-A": 0}
    assert train("pick").labels == {"0": 3, "1": 2}
    assert train("hidden").labels is train("hidden").numbers is None
    assert train("hidden").labelled == 5


def test_lengths_are_those_of_the_sequences_and_cuts_are_counted(tmp_path):
    rows = [{"text": "cat " * n, "label": "x" if n % 2 else "y"} for n in range(1, 41)]
    task = task_of(tmp_path, "long", "sequence_classification", {"train": rows}, labels=["x", "y"], max_length=22)
    _, data = data_of(task)
    found = task_rows(data, 64)["long"]
    part = found.splits["train"]
    lengths = sorted(min(n + 2, 22) for n in range(1, 41))  # [CLS] and [SEP]
    assert found.max_length == 22
    assert part.tokens == {"p50": lengths[20], "p90": 22, "p99": 22, "max": 22}
    assert part.truncated == 20
    assert part.truncated_share == 0.5


@pytest.mark.parametrize("count", [1, 7, 8, 9, 77])
def test_folded_labels_lose_no_count(count):
    often = {f"label {number}": 1 + (number * 37) % 101 for number in range(count)}
    rows = TaskRows(
        "sequence_classification",
        64,
        {name: number for number, name in enumerate(often)},
        {"train": SplitRows(9, 9, {}, 0, 0.0, labels=often)},
    )
    lines = label_lines("many", rows)
    assert len(lines) == min(count, 8)
    assert sum(int(line[3]) for line in lines) == sum(often.values())
    assert all(line[4:] == ("—", "—") for line in lines)
    shown = [int(line[3]) for line in lines if line[1] != "…"]
    hidden = sorted(often.values(), reverse=True)[len(shown) :]
    assert not hidden or min(shown) >= max(hidden)


# ---------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("epochs", [1, 2, 2.5])
@pytest.mark.parametrize("done", [0, 3])
def test_stops_of_plain_strategies_can_be_counted_by_hand(epochs, done):
    per_epoch, steps = 8, int(8 * epochs)
    common = {"use_cpu": True, "save_steps": 4, "eval_steps": 4}
    each = TrainingArguments(eval_strategy="steps", save_strategy="steps", **common)
    assert stops(each, steps, per_epoch, done=done) == (steps // 4 - done // 4,) * 2
    epoch = TrainingArguments(eval_strategy="epoch", save_strategy="epoch", **common)
    assert stops(epoch, steps, per_epoch, done=done) == (-(-steps // per_epoch),) * 2
    never = TrainingArguments(eval_strategy="no", save_strategy="no", **common)
    assert stops(never, steps, per_epoch, done=done) == (0, 0)
    delayed = TrainingArguments(eval_strategy="epoch", eval_delay=1.5, eval_on_start=True, **common)
    assert stops(delayed, steps, per_epoch, done=done)[0] == 1 + max(0, -(-steps // per_epoch) - 1)


@pytest.mark.parametrize(("steps", "count"), [(1, 8), (11, 8), (12, 8), (400, 8), (30, 1)])
def test_chosen_steps_are_steps_of_the_run_and_hold_the_largest(steps, count):
    tokens = np.random.default_rng(steps).integers(100, 900, size=steps)
    chosen = chosen_steps(tokens, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(steps, count + 3)
    assert set(chosen.tolist()) <= set(range(steps))
    assert tokens[chosen].max() == tokens.max()
    if steps == 400:  # spread evenly, so their mean is close to that of all steps
        assert tokens[chosen[2:-1]].mean() == pytest.approx(tokens.mean(), rel=0.05)


def test_the_line_over_tokens():
    tokens = np.array([100, 250, 300, 420, 800])
    exact = Line.through(tokens, 0.5 + 0.002 * tokens)
    assert (exact.base, exact.slope, exact.error) == pytest.approx((0.5, 0.002, 0.0), abs=1e-9)
    for seconds in (tokens[::-1] / 100.0, 0.01 * tokens - 0.9, np.full(5, 2.0)):
        line = Line.through(tokens, seconds)
        assert line.base >= 0 and line.slope >= 0
        assert line.seconds(tokens).sum() == pytest.approx(np.sum(seconds))
    assert Line.through(tokens[:1], np.array([3.0])).seconds(np.array([7, 7])).tolist() == [3.0, 3.0]


# ------------------------------------------------------------------------------------------------ memory and parameters


def test_peak_memory_sees_what_was_taken_and_given_back():
    if resident() is None:
        pytest.skip("this system does not tell a process's memory")
    watch = PeakMemory(torch.device("cpu"))
    watch.begin()
    before = watch.peak
    taken = np.ones(40_000_000)  # 320 MB
    time.sleep(0.1)
    del taken
    watch.end()
    assert watch.peak - before > 250e6
    assert resident() < watch.peak


def test_state_bytes_of_adamw():
    layer = torch.nn.Linear(10, 6)
    optimizer = torch.optim.AdamW(layer.parameters())
    assert state_bytes(optimizer) == 0
    layer(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert state_bytes(optimizer) == 2 * 4 * 66 + 2 * 4  # two moments each, and a step count per tensor


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, {"encoder", "heads"}),
        ({"lora": {"r": 2, "target_modules": "all-linear"}}, {"adapters", "heads"}),
        ({"lora": {"r": 2, "target_modules": ["query"], "use_dora": True}}, {"adapters", "heads"}),
        ({"freeze": "*"}, {"heads"}),
    ],
    ids=["full", "lora", "dora", "frozen"],
)
def test_parts_add_up_and_say_what_is_trained(settings, trained):
    model = tiny_model(["rte", "conll2003", "mlm_text"], **settings)
    parts = parts_of(model)
    total = parts.pop("total")
    assert total.all == sum(part.all for part in parts.values()) == sum(p.numel() for p in model.parameters())
    assert total.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {name for name, part in parts.items() if part.trained} == trained


# --------------------------------------------------------------------------------------------------- rows on both sides


def test_only_letters_and_digits_count():
    assert normalised(["It's\ta  TEST!"]) == normalised([["it", "'s", "a", "test", "!"]]) == "itsatest"
    assert normalised(["ﬁne Straße"]) == normalised(["FINE STRASSE"])
    assert normalised(["!?"]) != normalised(["!!"])
    assert normalised(["a b", "c"]) != normalised(["a", "b c"])


def test_planted_rows_are_found_within_and_across_tasks(tmp_path):
    def labelled(texts):
        return [{"text": text, "label": "x" if number % 2 else "y"} for number, text in enumerate(texts)]

    one = task_of(
        tmp_path,
        "one",
        "sequence_classification",
        {
            "train": labelled(["red cat", "blue dog", "the city", "the rain"]),
            "validation": labelled(["a house", "Blue  dog."]),
            "test": labelled(["sun", "old", "new"]),
        },
        labels=["x", "y"],
    )
    words = [["new"], ["red"], ["The", "rain", "!"], ["old"], ["the", "city"]]
    two = task_of(
        tmp_path,
        "two",
        "token_classification",
        {
            "train": [{"tokens": row, "tags": ["O"] * len(row)} for row in words[:2]],
            "test": [{"tokens": row, "tags": ["O"] * len(row)} for row in words[2:]],
        },
        ("tokens",),
        "tags",
        labels=["O", "B-A", "I-A"],
    )
    pair = task_of(
        tmp_path,
        "pair",
        "sequence_classification",
        {"train": [{"a": "a house", "b": "sun", "label": "x"}, {"a": "yes", "b": "no", "label": "y"}]},
        ("a", "b"),
        labels=["x", "y"],
    )
    _, data = data_of(one, two, pair)
    found = {(*s.tasks, s.split, *s.train_tasks): (s.rows, s.share, s.first) for s in shared_rows(data)}
    assert found == {
        ("one", "validation", "one"): (1, 0.5, {"row": 1, "train_row": 1}),
        ("one", "test", "two"): (1, pytest.approx(1 / 3, abs=1e-6), {"row": 2, "train_row": 0}),
        ("two", "test", "one"): (2, pytest.approx(2 / 3, abs=1e-6), {"row": 0, "train_row": 3}),
    }


def test_tasks_on_the_same_rows_are_told_once(tmp_path):
    rows = {
        "train": [{"text": "red cat", "label": "x", "other": "p"}] * 2,
        "validation": [{"text": "red cat", "label": "y", "other": "q"}, {"text": "sun", "label": "x", "other": "p"}],
    }
    one = task_of(tmp_path, "one", "sequence_classification", rows, labels=["x", "y"])
    two = one.with_(name="two", target="other", labels=["p", "q"])
    _, data = data_of(one, two)
    (shared,) = shared_rows(data)
    assert shared.tasks == shared.train_tasks == ["one", "two"]
    assert (shared.rows, shared.first) == (1, {"row": 0, "train_row": 0})


def test_a_document_in_windows_counts_once(tmp_path):
    answer = {"text": ["city"], "answer_start": [4]}
    rows = [{"question": "what", "context": "the city " + "and the house " * 30, "answers": answer}]
    task = task_of(
        tmp_path,
        "qa",
        {"name": "question_answering", "stride": 4},
        {"train": rows, "validation": rows},
        ("question", "context"),
        "answers",
    )
    _, data = data_of(task, max_length=32)
    assert len(data.pool_of("qa", "validation")) > 1
    (shared,) = shared_rows(data)
    assert (shared.rows, shared.share) == (1, 1.0)


# -------------------------------------------------------------------------------------------------------------- pooling


def mood_rows(count, seed, *, random_labels=False):
    """Is "good" said more often than "bad"?"""
    draw = np.random.default_rng(seed)
    words = ["cat", "dog", "house", "city", "rain", "sun", "red", "blue", "good", "bad"]
    rows = []
    while len(rows) < count:
        text = list(draw.choice(words, size=draw.integers(8, 30)))
        more = text.count("good") - text.count("bad")
        if more:
            rows.append({"text": " ".join(text), "label": int(draw.integers(2)) if random_labels else int(more > 0)})
    return rows


def test_the_probe_tells_a_task_that_a_mean_describes_better(tmp_path):
    def task(name, **more):
        rows = {"train": mood_rows(300, 1, **more), "validation": mood_rows(300, 2, **more)}
        return task_of(tmp_path, name, "sequence_classification", rows, labels=["bad", "good"])

    model, data = data_of(task("mood"), task("noise", random_labels=True))
    with torch.no_grad():  # no token sees another one: the first says nothing, and the mean what it always says
        for name, parameter in model.sharing.encoder.named_parameters():
            if "attention.output.dense" in name:
                parameter.zero_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found, why_not = probe_pooling(model, data, rows=300, seconds=3600)
    mood, noise = found
    assert why_not == {}
    assert mood.better and mood.mean > 0.9 > 0.7 > mood.family
    assert (mood.difference, mood.train_rows, mood.held_out_rows) == (pytest.approx(mood.mean - mood.family), 300, 300)
    assert "can't leave as a vanilla" in mood.cost
    assert not noise.better
    assert abs(noise.mean - 0.5) < 0.12, "labels that nothing tells can't be told"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert found == probe_pooling(model, data, rows=300, seconds=3600)[0], "the same rows, the same answer"


def test_tasks_that_the_probe_passes_over_and_why(tmp_path):
    rows = {"train": mood_rows(200, 1)}
    common = {"head": "sequence_classification", "rows": rows, "labels": ["bad", "good"]}
    own = task_of(tmp_path, "own", **common)
    tasks = [
        own,
        own.with_(name="mean", head={"name": "sequence_classification", "pooling": "mean"}),
        own.with_(name="borrowed", head_of="own"),
        task_of(tmp_path, "few", **{**common, "rows": {"train": mood_rows(90, 1)}}),
        task_of(tmp_path, "hidden", "masked_lm", rows, target=None),
    ]
    model, data = data_of(*tasks)
    found, why_not = probe_pooling(model, data, seconds=3600)
    assert [(one.task, one.train_rows, one.held_out_rows) for one in found] == [("own", 100, 100)]
    assert why_not == {
        "mean": "`pooling: mean` is set",
        "borrowed": "the head is that of 'own'",
        "few": "a side has fewer than 64 labelled rows",
        "hidden": "the head does not read one vector per text",
    }
    assert probe_pooling(model, data, rows=0)[1]["own"] == "it was not asked for"
    assert "were spent on other tasks" in probe_pooling(model, data, seconds=-1.0)[1]["own"]


def test_the_probe_fits_what_is_linear():
    draw = np.random.default_rng(0)
    train, held_out, map_ = draw.normal(size=(200, 12)), draw.normal(size=(80, 12)), draw.normal(size=(12, 3))
    answers = fit(train, train @ map_, held_out)
    assert np.allclose(answers, held_out @ map_, atol=0.1)
    one = fit(train, train @ map_[:, :1], held_out)
    assert row_scores("explained variance", one, held_out @ map_[:, :1]).mean() > 0.99
    wrong = np.zeros_like(one) + (held_out @ map_[:, :1]).mean()
    assert row_scores("explained variance", wrong, held_out @ map_[:, :1]).mean() == pytest.approx(0.0, abs=1e-9)
    assert row_scores("accuracy over labels", np.array([[0.9, 0.2]]), np.array([[1.0, 1.0]])).tolist() == [0.5]


def test_features_are_the_encoders_in_the_rows_order(tmp_path):
    rows = [{"a": f"{'cat ' * n}sun", "b": f"red {'dog ' * (9 - n)}", "label": n % 3} for n in range(9)]
    one = task_of(tmp_path, "one", "sequence_classification", {"train": rows}, ("a",), labels=["x", "y", "z"])
    model, data = data_of(one, one.with_(name="pair", inputs=["a", "b"]), one.with_(name="swapped", inputs=["b", "a"]))
    asked = np.array([5, 0, 8, 3])

    def of(task):
        return features(model, task, "cls", data.pool_of(task, "train"), asked)

    def alone(text):
        ids = torch.tensor(model.tokenizer(text)["input_ids"])
        return model.sharing.encoder(input_ids=ids[None]).last_hidden_state[0].detach().numpy()

    found, u, v = of("one"), *([alone(rows[n][column]) for n in asked] for column in "ab")
    assert found["labels"].tolist() == [2, 0, 2, 0]
    assert np.allclose(found["family"], [states[0] for states in u], atol=1e-5)
    assert np.allclose(found["mean"], [states.mean(0) for states in u], atol=1e-5)
    u, v = (np.array([states.mean(0) for states in part]) for part in (u, v))
    assert np.allclose(of("pair")["mean"], np.concatenate([np.abs(u - v), u * v], 1), atol=1e-5)
    assert np.allclose(of("pair")["family"], of("swapped")["family"], atol=1e-5)
