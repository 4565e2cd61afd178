"""Weights of labels: hand-computed, equal to torch's, of mean 1 over the training rows, and recorded as numbers."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads import head_of_spec
from nlp_mtl.heads.class_weights import ClassWeights, balanced
from nlp_mtl.model import MultiTaskModel, make_heads
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another


def task(kind="sequence_classification", labels=("ham", "spam"), **arguments):
    return Task(
        name="demo",
        head={"name": kind, **arguments},
        dataset={"path": "nowhere/at_all"},
        inputs=["text"],
        target="label",
        labels=list(labels) if labels else None,
    )


def head(kind="sequence_classification", labels=("ham", "spam"), **arguments):
    return make_heads([task(kind, labels, **arguments)])["demo"]


def begun(kind, labels, rows, weights):
    """A head that has seen training rows."""
    made = head(kind, labels, class_weights=weights)
    made.begin(torch.nn.Identity(), rows, fresh=True)
    return made


# ------------------------------------------------------------------------------------------------------ by hand


def test_balanced_weights_are_those_of_the_formula():
    made = begun("sequence_classification", ("ham", "spam", "scam"), [0] * 6 + [1] * 2 + [None] + [2], "balanced")
    assert made.spec["class_weights"] == pytest.approx({"ham": 9 / (3 * 6), "spam": 9 / (3 * 2), "scam": 9 / (3 * 1)})
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    by_hand = 0.5 * math.log(1 + 2 * math.exp(-2)) + 1.5 * math.log(2 + math.e)
    assert float(made.loss(logits, {"labels": torch.tensor([0, 1])})) == pytest.approx(by_hand, rel=1e-6)


def test_a_label_without_training_rows_neither_counts_nor_weighs():
    """Else the weights of the others would not have a mean of 1; in evaluation its rows weigh as the mean."""
    made = begun("sequence_classification", ("ham", "spam", "scam"), [0, 0, 0, 1], "balanced")
    assert made.spec["class_weights"] == pytest.approx({"ham": 4 / 6, "spam": 4 / 2, "scam": 1.0})


def test_both_sides_of_a_label_weigh_the_same_together():
    rows = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], None]
    made = begun("multi_label", ("joy", "fear"), rows, "balanced")
    assert made.spec["class_weights"] == {"joy": pytest.approx([4 / 6, 4 / 2]), "fear": pytest.approx([1.0, 1.0])}
    logits, target = torch.tensor([[0.0, 2.0]]), {"labels": torch.tensor([[1.0, 0.0]])}
    by_hand = (2.0 * math.log(2) + 1.0 * math.log(1 + math.exp(2))) / 2
    assert float(made.loss(logits, target)) == pytest.approx(by_hand, rel=1e-6)


def test_tags_are_counted_over_words():
    rows = [[0, 0, 1], [0, -1], None, [0, 2]]
    made = begun("token_classification", ("O", "B-X", "I-X"), rows, "balanced")
    assert made.spec["class_weights"] == pytest.approx({"O": 6 / (3 * 4), "B-X": 2.0, "I-X": 2.0})


def test_tags_that_were_brought_to_iob2_are_weighed_as_such(tmp_path):
    made = head("token_classification", ("O", "I-X", "B-X"), scheme="iob1", class_weights={"O": 1, "B-X": 4, "I-X": 2})
    assert made.labels == ["O", "B-X", "I-X"]
    made.begin(torch.nn.Identity(), [[0, 0, 1, 2]], fresh=True)
    assert made.spec["class_weights"] == pytest.approx({"O": 0.5, "B-X": 2.0, "I-X": 1.0})


# -------------------------------------------------------------------------------------------------- as torch has it


def scores(rows, labels, seed=0):
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weights", ["balanced", {"a": 0.2, "b": 1, "c": 7}, {"a": 20, "b": 100, "c": 700}])
def test_over_the_training_rows_the_loss_is_torchs_weighted_mean(weights):
    """Whatever the scale of the weights: over an epoch, dividing by the count is dividing by the weights' sum."""
    truth = [0] * 7 + [1] * 2 + [2] * 4
    made = begun("sequence_classification", ("a", "b", "c"), truth, weights)
    logits, labels = scores(13, 3), torch.tensor(truth)
    raw = torch.tensor([13 / 21, 13 / 6, 13 / 12] if weights == "balanced" else list(map(float, weights.values())))
    expected = functional.cross_entropy(logits, labels, weight=raw)
    assert float(made.loss(logits, {"labels": labels}) / 13) == pytest.approx(float(expected), rel=1e-6)
    recorded = torch.tensor([made.spec["class_weights"][name] for name in "abc"])
    some = torch.tensor([1, 8, 12])
    expected = functional.cross_entropy(logits[some], labels[some], weight=recorded, reduction="sum")
    assert float(made.loss(logits[some], {"labels": labels[some]})) == pytest.approx(float(expected), rel=1e-6)


def test_words_without_a_tag_weigh_nothing():
    made = begun("token_classification", ("O", "B-X"), [[0, 0, 1]], {"O": 1, "B-X": 3})
    logits, labels = scores(4, 2), torch.tensor([0, -1, 1, 0])
    weight = torch.tensor([made.spec["class_weights"][name] for name in ("O", "B-X")])
    expected = functional.cross_entropy(logits, labels, weight=weight, ignore_index=-1, reduction="sum")
    assert float(made.loss(logits, {"labels": labels})) == pytest.approx(float(expected), rel=1e-6)
    assert made.units({"labels": labels}) == 3, "the denominator stays the count"


def test_several_labels_are_weighed_as_by_pos_weight():
    rows = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    made = begun("multi_label", ("p", "q", "r"), rows, {"p": 3, "q": 1, "r": [2, 1]})
    scale = torch.tensor([4 / (3 + 3 * 1), 1.0, 4 / (2 * 1 + 3)])
    positive, logits, labels = torch.tensor([3.0, 1.0, 0.5]), scores(4, 3), torch.tensor(rows)
    scale[2] *= 2  # [2, 1] is [1, 0.5] twice
    expected = functional.binary_cross_entropy_with_logits(
        logits, labels, weight=scale, pos_weight=positive, reduction="none"
    )
    assert float(made.loss(logits, {"labels": labels})) == pytest.approx(float(expected.mean(-1).sum()), rel=1e-6)
    recorded = made.spec["class_weights"]
    for number, name in enumerate("pqr"):
        having = sum(row[number] for row in rows)
        assert recorded[name][1] * having + recorded[name][0] * (4 - having) == pytest.approx(4)


def test_weights_of_one_change_nothing():
    for kind, rows, labels in (
        ("sequence_classification", [0, 1, 1], torch.tensor([1, 0])),
        ("multi_label", [[0.0, 1.0], [1.0, 1.0]], torch.tensor([[1.0, 0.0], [1.0, 1.0]])),
    ):
        plain, ones = head(kind), begun(kind, ("ham", "spam"), rows, {"ham": 1, "spam": 1})
        assert torch.equal(plain.loss(scores(2, 2), {"labels": labels}), ones.loss(scores(2, 2), {"labels": labels}))


def test_weights_are_float32_under_half_precision():
    made = begun("sequence_classification", ("ham", "spam"), [0] * 9 + [1], "balanced")
    table = made.class_weights.table(made.labels, scores(2, 2).bfloat16())
    assert table.dtype == torch.float32
    assert table.tolist() == pytest.approx([10 / 18, 5.0], rel=1e-6)


# ------------------------------------------------------------------------------------------------------------- laws


counted = st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any)


@given(counted)
def test_balanced_weights_have_a_mean_of_one_and_equal_shares(rows):
    counts = np.array(rows)
    weights = balanced(counts)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    shares = (weights * counts)[counts > 0]
    assert shares == pytest.approx(np.full(len(shares), counts.sum() / len(shares)))


@settings(deadline=None)
@given(counted, st.data())
def test_given_weights_keep_their_ratios_and_get_a_mean_of_one_once(rows, data):
    counts, names = np.array(rows), [f"l{i}" for i in range(len(rows))]
    drawn = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(rows), max_size=len(rows)))
    weights = ClassWeights("demo", dict(zip(names, drawn, strict=True)))
    found = weights.learn(counts, names)
    values = np.array(list(found.values()))
    assert (values * counts).sum() / counts.sum() == pytest.approx(1.0)
    assert values / values[0] == pytest.approx(np.array(drawn) / drawn[0])
    again = ClassWeights("demo", json.loads(json.dumps(found)))
    assert again.learn(counts, names) == found, "recorded numbers stay as they are, to the bit"


# ---------------------------------------------------------------------------------------------------- records and files


def test_recorded_weights_are_read_back_and_reading_rows_does_not_depend_on_them():
    for kind, rows in (
        ("sequence_classification", [0, 0, 1]),
        ("multi_label", [[1.0, 0.0]] * 3 + [[0.0, 1.0]]),
        ("token_classification", [[0, 0, 1]]),
    ):
        made = begun(kind, ("O", "B-X"), rows, "balanced")
        said = made.task.model_dump(mode="json", exclude_unset=True)
        again = head_of_spec({**said, "head": json.loads(json.dumps(made.spec))})
        assert again.class_weights.weights == made.class_weights.weights
        assert again.data_spec() == head(kind, ("O", "B-X")).data_spec() == {"name": kind}


def test_saved_weights_are_used_and_the_vanilla_part_does_not_know_them(tmp_path):
    plain, weighed = tiny_model([task()]), tiny_model([task(class_weights="balanced")])
    weighed.heads["demo"].begin(weighed.module_of("demo"), [0, 0, 0, 1], fresh=True)
    weighed.save_pretrained(tmp_path)
    again = MultiTaskModel.from_pretrained(tmp_path)
    assert plain.state_dict().keys() == again.state_dict().keys()
    said = json.loads((tmp_path / "nlp_mtl.json").read_text(encoding="utf-8"))
    assert said["tasks"][0]["head"]["class_weights"] == pytest.approx({"ham": 4 / 6, "spam": 2.0})
    batch = {
        "input_ids": torch.tensor([2, 20, 30, 3, 2, 40, 3]),
        "lengths": torch.tensor([4, 3]),
        "targets": {"demo": {"sequences": torch.tensor([0, 1]), "labels": torch.tensor([1, 0])}},
    }
    with torch.no_grad():
        ours, theirs, unweighed = weighed.eval()(**batch), again(**batch), plain.eval()(**batch)
    assert torch.equal(ours["logits"]["demo"], theirs["logits"]["demo"])
    assert torch.equal(ours["logits"]["demo"], unweighed["logits"]["demo"])
    assert float(ours["loss"]) == float(theirs["loss"]) != float(unweighed["loss"])


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("kind", "weights", "said"),
    [
        ("sequence_classification", "balance", "`class_weights` is balanced, or a mapping label → weight, found 'ba"),
        ("sequence_classification", [1, 2], "or a mapping label → weight, found [1, 2]"),
        ("sequence_classification", {}, "or a mapping label → weight, found {}"),
        ("sequence_classification", {"ham": 1, "spam": -1}, "'spam' weighs a number from 0 up, found -1"),
        ("sequence_classification", {"ham": 1, "spam": "2"}, "'spam' weighs a number from 0 up, found '2'"),
        ("sequence_classification", {"ham": True, "spam": 2}, "'ham' weighs a number from 0 up, found True"),
        ("sequence_classification", {"ham": 1, "spam": float("nan")}, "found nan"),
        ("sequence_classification", {"ham": 1, "spam": [1, 2]}, "found [1, 2]"),
        ("sequence_classification", {"ham": 0, "spam": 0}, "at least one label weighs more than 0"),
        ("sequence_classification", {"ham": 1, "spm": 2}, "names 'spm', which is no label; did you mean 'spam'?"),
        ("sequence_classification", {"ham": 1}, "gives every label a weight (1 is the usual one), found none for 'sp"),
        ("multi_label", {"ham": 1, "spam": [0, 0]}, "or [without, with] that are not both 0, found [0, 0]"),
        ("multi_label", {"ham": 1, "spam": [1, 2, 3]}, "found [1, 2, 3]"),
        ("token_classification", {"O": 1, "B-X": 2}, "found none for 'I-X'"),
    ],
)
def test_wrong_weights_are_said(kind, weights, said):
    names = ("O", "B-X", "I-X") if kind == "token_classification" else ("ham", "spam")
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        head(kind, names, class_weights=weights)
    assert "task 'demo'" in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        head(class_weights={"ham": -1, "spam": "x"}, threshold=2)
    assert len(caught.value.mistakes) == 3
    with pytest.raises(ConfigError) as caught:
        head(class_weights={"hem": 1, "spam": 1}, labels=("ham", "spam", "scam"), threshold="tuned")
    assert len(caught.value.mistakes) == 3


def test_numbers_as_labels_are_names():
    made = begun("sequence_classification", ("0", "1"), [0, 0, 0, 1], {0: 1, 1: 5})
    assert made.spec["class_weights"] == pytest.approx({"0": 0.5, "1": 2.5})


def test_rows_that_all_weigh_nothing_are_refused():
    with pytest.raises(ConfigError, match="no training row has a label that weighs more than 0"):
        begun("sequence_classification", ("ham", "spam"), [0, 0], {"ham": 0, "spam": 1})


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification", "multi_label"])
def test_labels_found_in_the_data_are_held_against_the_weights(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path / "cache"))
    values = {
        "sequence_classification": ("O", "B-X"),
        "token_classification": (["O"], ["B-X"]),
        "multi_label": (["O"], ["B-X"]),
    }[kind]
    rows = [{"text": ["cat"] if kind == "token_classification" else "cat", "label": value} for value in values]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"path": "json", "data_files": {"train": str(file)}}
    wrong = task(kind, None, class_weights={"O": 1, "B-Y": 2}).with_(dataset=files)
    with pytest.raises(DataError, match="names 'B-Y', which is no label; did you mean 'B-X'") as caught:
        load_data(make_heads([wrong]), tiny_tokenizer(), max_length=32)
    assert "found none for 'B-X'" in str(caught.value)
    right = make_heads([task(kind, None, class_weights={"O": 1, "B-X": 2}).with_(dataset=files)])
    assert load_data(right, tiny_tokenizer(), max_length=32).pool_of("demo", "train") is not None
