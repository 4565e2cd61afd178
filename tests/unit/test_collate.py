"""A mixed batch holds every row once and unpadded, and every task's targets point at its own rows and tokens."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.batches import Collator, MixedBatchSampler, collate, length_sorted, pools_of, to_device
from nlp_mtl.data import load_data
from nlp_mtl.model import make_heads
from nlp_mtl.plan import MixingPlan
from nlp_mtl.samplers import Proportional
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

TOKENIZER = tiny_tokenizer()
random = np.random.default_rng(0)


def words(count):
    return [WORDS[i] for i in random.integers(len(WORDS), size=count)]


LINES = [
    {
        "text": " ".join(words(1 + number % 9)),
        "other": " ".join(words(1 + number % 4)),
        "words": words(1 + number % 6),
        "options": [" ".join(words(1 + i)) for i in range(2 + number % 3)],
        "label": ["x", "y", None, "z"][number % 4],
        "score": [0.5, None, 2.0][number % 3],
        "right": number % 2,
    }
    for number in range(14)
]
for line in LINES:
    line["tags"] = ["B-X" if i % 3 == 0 else "O" for i in range(len(line["words"]))]
    line["intent"] = None if len(line["words"]) == 3 else "xy"[len(line["text"]) % 2]
    line["answers"] = {
        "text": [line["text"].split()[-1]],
        "answer_start": [line["text"].rindex(line["text"].split()[-1])],
    }

HEADS = {
    "label": {"head": "sequence_classification", "inputs": ["text"], "target": "label"},
    "score": {"head": "regression", "inputs": ["text"], "target": "score"},
    "pair": {"head": "sequence_classification", "inputs": ["text", "other"], "target": "label"},
    "tags": {"head": "token_classification", "inputs": ["words"], "target": "tags"},
    "intent": {"head": "sequence_classification", "inputs": ["words"], "target": "intent"},
    "choice": {"head": {"name": "multiple_choice", "choices": "options"}, "inputs": ["text"], "target": "right"},
    "answer": {"head": "question_answering", "inputs": ["other", "text"], "target": "answers"},
    "hidden": {"head": "masked_lm", "inputs": ["text"]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The pools of all heads on the same file, and a model of them."""
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in LINES), encoding="utf-8")
    tasks = [Task(name=name, dataset={"path": "json", "data_files": str(file)}, **said) for name, said in HEADS.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(folder / "cache"))
        found = load_data(make_heads(tasks), TOKENIZER, max_length=64)
    named = [
        task.with_(labels=found.heads[task.name].labels) if found.heads[task.name].labels else task for task in tasks
    ]
    return found, found.splits["train"], tiny_model(named).eval()


def split(batch):
    """The sequences of a batch, as lists of ids."""
    return [ids.tolist() for ids in batch["input_ids"].split(batch["lengths"].tolist())]


def sequences_of(pool, row):
    ids, lengths = pool.table["input_ids"][row], pool.table["lengths"][row]
    ends = np.cumsum(lengths).tolist()
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


@st.composite
def rows(draw, least=1):
    """Some rows of some pools, each at most once."""
    pools = 6  # label+score, pair, tags+intent, choice, answer, hidden
    every = [(pool, row) for pool in range(pools) for row in range(len(LINES))]
    chosen = draw(st.lists(st.sampled_from(every), min_size=least, max_size=16, unique=True))
    return [(pool, row, 0) for pool, row in chosen]


def test_tasks_that_read_the_same_share_a_pool(world):
    assert [pool.tasks for pool in world[1]] == [
        ("label", "score"),
        ("pair",),
        ("tags", "intent"),
        ("choice",),
        ("answer",),
        ("hidden",),
    ]


@settings(max_examples=60, deadline=None)
@given(rows(), st.booleans())
def test_every_row_once_and_unpadded(world, refs, training):
    data, pools, _ = world
    batch = Collator(pools, data.heads, training=training)(refs)
    expected = sorted(ids for pool, row, _ in refs if pool != 5 for ids in sequences_of(pools[pool], row))
    hidden = [sequences_of(pools[5], row)[0] for pool, row, _ in refs if pool == 5]
    found = sorted(split(batch))
    if not hidden:
        assert found == expected
    assert len(found) == len(expected) + len(hidden)
    assert batch["input_ids"].numel() == int(batch["lengths"].sum()) == sum(map(len, expected)) + sum(map(len, hidden))
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    number = sorted({pool for pool, _, _ in refs if pool != 5}, key=lambda pool: sorted(pools[pool].tasks))
    if not training and not hidden:  # what a row's readers are may hang on its labels
        runs = [
            sorted(len(ids) for pool, row, _ in refs if pool == wanted for ids in sequences_of(pools[pool], row))
            for wanted in number
        ]
        assert batch["lengths"].tolist() == [length for run in runs for length in run], (
            "by who reads them, and then the shortest first"
        )
    assert TOKENIZER.pad_token_id not in batch["input_ids"]


@settings(max_examples=60, deadline=None)
@given(rows(), st.booleans())
def test_targets_point_at_the_right_tokens(world, refs, training):
    data, pools, _ = world
    batch = Collator(pools, data.heads, seed=3, training=training)(refs)
    found, ids = split(batch), batch["input_ids"]
    assert set(batch["targets"]) == set(batch["owners"])
    for task, target in batch["targets"].items():
        mine = [refs[owner] for owner in batch["owners"][task].tolist()]
        tables = [(pools[pool].table[row], LINES[row]) for pool, row, _ in mine]
        if task in ("label", "score", "pair", "intent", "answer"):
            assert [found[i] for i in target["sequences"].tolist()] == [table["input_ids"] for table, _ in tables]
        if task == "tags":
            places = target["positions"].split(target["counts"].tolist())
            read = [[TOKENIZER.decode([ids[place]]) for place in row.tolist()] for row in places]
            assert read == [[TOKENIZER.tokenize(word)[0] for word in line["words"]] for _, line in tables]
            names = data.heads["tags"].labels
            assert [names[i] for i in target["labels"].tolist()] == [tag for _, line in tables for tag in line["tags"]]
        if task == "choice":
            parts = target["sequences"].split(target["counts"].tolist())
            read = [
                [TOKENIZER.decode(found[i]).split(" [SEP] ")[1].removesuffix(" [SEP]") for i in part.tolist()]
                for part in parts
            ]
            assert read == [[option.strip() for option in line["options"]] for _, line in tables]
            assert target["labels"].tolist() == [line["right"] for _, line in tables]
        if task == "hidden":
            places = target["positions"].split(target["counts"].tolist())
            assert all(len(part) >= 1 for part in places)
            whole = ids.clone()
            whole[target["positions"]] = target["labels"]
            restored = [part.tolist() for part in whole.split(batch["lengths"].tolist())]
            assert all(table["input_ids"] in restored for table, _ in tables)
        if task == "answer":
            for number, (begin, end), (_, line) in zip(
                target["sequences"].tolist(), target["labels"].tolist(), tables, strict=True
            ):
                assert TOKENIZER.decode(found[number][begin : end + 1]) == line["answers"]["text"][0]


@settings(max_examples=60, deadline=None)
@given(rows(), st.booleans())
def test_owners_are_the_rows_that_the_task_reads(world, refs, training):
    data, pools, _ = world
    batch = Collator(pools, data.heads, training=training)(refs)
    for task, head in data.heads.items():
        pool = next(number for number, pool in enumerate(pools) if task in pool.tasks)
        mine = [i for i, ref in enumerate(refs) if ref[0] == pool]
        if training and head.needs_labels:
            mine = [i for i in mine if pools[pool].labels(task)[refs[i][1]] is not None]
        assert batch["owners"].get(task, torch.tensor([], dtype=torch.long)).tolist() == mine


@settings(max_examples=25, deadline=None)
@given(rows())
def test_the_loss_of_a_mixed_batch_is_that_of_its_rows_task_by_task(world, refs):
    data, pools, model = world
    collator = Collator(pools, data.heads, seed=1, training=True)
    with torch.no_grad():
        mixed = model(**collator(refs))
        for task in mixed["losses"]:
            alone = model(**collator([ref for ref in refs if task in pools[ref[0]].tasks]))
            assert float(mixed["losses"][task]) == pytest.approx(float(alone["losses"][task]), abs=1e-5)
        assert float(mixed["loss"]) == pytest.approx(sum(float(loss) for loss in mixed["losses"].values()), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(rows(least=2), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(world, refs, shuffler):
    data, pools, model = world
    other = refs[:]
    shuffler.shuffle(other)
    collator = Collator(pools, data.heads, seed=1)
    with torch.no_grad():
        answers = []
        for order in (refs, other):
            batch = collator(order)
            out = model(**batch)
            rows_of = {}
            for task, logits in out["logits"].items():
                predictions = data.heads[task].predict(logits, batch["targets"][task])
                for owner, prediction in zip(batch["owners"][task].tolist(), predictions, strict=True):
                    rows_of[task, order[owner]] = np.asarray(prediction)
            answers.append((out["losses"], rows_of))
    assert set(answers[0][1]) == set(answers[1][1])
    for key, prediction in answers[0][1].items():
        assert np.allclose(prediction, answers[1][1][key], atol=1e-5), key
    for task, loss in answers[0][0].items():
        assert float(loss) == pytest.approx(float(answers[1][0][task]), abs=1e-5)


def test_a_batch_of_no_rows_is_one_token_that_no_task_reads(world, process_group):
    data, pools, model = world
    batch = Collator(pools, data.heads, training=True)([])
    assert batch["lengths"].tolist() == [1]
    assert batch["targets"] == {}
    model.zero_grad()
    out = model(**batch, units=dict.fromkeys(data.heads, 2.0))
    assert out["loss"].item() == 0.0
    out["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    heads = [p for p in model.modules_.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in heads), "every head takes part, so that all processes reduce the same"
    model.zero_grad()


def test_a_row_that_no_task_can_learn_from_is_still_only_read_once(world):
    data, pools, _ = world
    row = next(i for i, line in enumerate(LINES) if line["label"] is None)
    batch = Collator(pools, data.heads, training=True)([(1, row, 0)])
    assert batch["targets"] == {}
    assert split(batch) == sequences_of(pools[1], row)


def test_units_divide_the_sum_over_all_micro_batches(world):
    """Two halves, each divided by the count of the whole, add up to the whole."""
    data, pools, model = world
    refs = [(pool, row, 0) for pool in (0, 2, 3) for row in range(7)]
    collator = Collator(pools, data.heads, training=True)
    whole = collator(refs)
    units = {task: data.heads[task].units(target) for task, target in whole["targets"].items()}
    with torch.no_grad():
        expected = model(**whole)["losses"]
        halves = [model(**collator(part), units=units)["losses"] for part in (refs[::2], refs[1::2])]
    for task, loss in expected.items():
        assert sum(float(half.get(task, 0.0)) for half in halves) == pytest.approx(float(loss), abs=1e-5)


def test_weights_scale_the_losses_in_the_sum(world):
    data, pools, model = world
    batch = Collator(pools, data.heads, training=True)([(0, 0, 0), (2, 1, 0)])
    weights = {task: 0.25 * (i + 1) for i, task in enumerate(data.heads)}
    with torch.no_grad():
        out = model(**batch, weights=weights)
    assert float(out["loss"]) == pytest.approx(sum(weights[t] * float(v) for t, v in out["losses"].items()), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- stacked inputs


class Images:
    """The part of a head that a batch of stacked rows needs."""

    def collate(self, rows):
        return {
            "sequences": torch.tensor([int(row.sequences[0]) for row in rows]),
            "labels": torch.tensor([row.label for row in rows]),
        }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_rows_of_other_inputs_stand_beside_texts(kinds):
    """True is an image, False a text: images are counted among images, sequences among sequences."""
    head = make_heads(
        [
            Task(
                name="t",
                head="sequence_classification",
                dataset={"path": "n/a"},
                inputs=["x"],
                target="l",
                labels=["a"],
            )
        ]
    )["t"]
    made, images = [], []
    for number, image in enumerate(kinds):
        if image:
            images.append(number)
            made.append({"stacked": {"pixel_values": np.full((3, 2, 2), number, dtype=np.float32)}, "labels:i": number})
        else:
            made.append({"input_ids": np.arange(number + 1), "lengths": np.array([number + 1]), "labels:t": 0})
    batch = collate(made, [["i"] if image else ["t"] for image in kinds], {"t": head, "i": Images()})
    if images:
        assert batch["stacked"]["pixel_values"].shape == (len(images), 3, 2, 2)
        read = batch["stacked"]["pixel_values"][batch["targets"]["i"]["sequences"]][:, 0, 0, 0]
        assert read.tolist() == batch["targets"]["i"]["labels"].tolist() == batch["owners"]["i"].tolist() == images
    else:
        assert "stacked" not in batch
    texts = [i for i, image in enumerate(kinds) if not image]
    if texts:
        assert batch["owners"]["t"].tolist() == texts
        assert batch["lengths"][batch["targets"]["t"]["sequences"]].tolist() == [i + 1 for i in texts]
    else:
        assert "input_ids" not in batch
        assert "lengths" not in batch


# --------------------------------------------------------------------------------------------------- order and sharding


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 200))
def test_evaluation_reads_every_row_once_in_batches_of_similar_length(world, rows_per_batch, tokens):
    pools = world[1]
    batches = list(length_sorted(pools, rows=rows_per_batch, tokens=tokens))
    refs = [ref for batch in batches for ref in batch]
    assert sorted(refs) == [(pool, row, -1) for pool in range(len(pools)) for row in range(len(LINES))]
    lengths = [int(pools[pool].tokens[row]) for pool, row, _ in refs]
    assert lengths == sorted(lengths, reverse=True), "longest first: memory runs out at once or not at all"
    assert all(len(batch) >= rows_per_batch for batch in batches[:-1])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2))
def test_the_parts_of_all_processes_and_micro_batches_are_the_plan(
    world, micro_batches, processes, rows_per_part, epoch
):
    pools = world[1]
    plan = MixingPlan(
        Proportional(), pools_of(pools), rows_per_step=micro_batches * processes * rows_per_part, seed=2, epochs=3
    )
    parts = []
    for process in range(processes):
        sampler = MixedBatchSampler(
            plan, [pool.trainable for pool in pools], micro_batches=micro_batches, process=process, processes=processes
        )
        sampler.set_epoch(epoch)
        mine = list(sampler)
        assert len(mine) == len(sampler) == plan.steps * micro_batches
        parts.append(mine)
    for step in range(plan.steps):
        found = [
            ref for mine in parts for batch in mine[step * micro_batches : (step + 1) * micro_batches] for ref in batch
        ]
        planned = [(pool, int(pools[pool].trainable[row]), visit) for pool, row, visit in plan.rows(epoch, step)]
        assert sorted(found) == sorted(planned)
        assert {ref[1] for ref in found if ref[0] == 0} <= set(pools[0].trainable.tolist()), (
            "only rows that teach something"
        )


def test_nested_batches_move_whole(world):
    data, pools, _ = world
    batch = Collator(pools, data.heads)([(0, 0, 0), (3, 1, 0)])
    moved = to_device(batch, "meta")
    assert moved["input_ids"].device.type == "meta"
    assert moved["targets"]["choice"]["counts"].device.type == "meta"
    assert batch["input_ids"].device.type == "cpu"
