"""Laws of domain adaptation: rows that are texts of tasks, gradients turned round, distances that are 0 when equal."""

from __future__ import annotations

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import checkpoint
from nlp_mtl.batches import Collator
from nlp_mtl.callbacks import Advancing
from nlp_mtl.data import load_data
from nlp_mtl.distances import WIDTHS, between_domains, coral, mmd
from nlp_mtl.errors import ConfigError, DataError, NotFoundError
from nlp_mtl.heads.domain_adversarial import dann_strength, reverse_gradient
from nlp_mtl.metrics import mmd as mmd_of
from nlp_mtl.metrics import proxy_a_distance
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.prediction import predict
from nlp_mtl.run import evaluate, train
from nlp_mtl.runfiles import write_task_file
from nlp_mtl.sources import identity, load_rows
from nlp_mtl.taskreader import read_task
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import config, state_of, write_base
from tests.unit.test_gradients import by_autograd, by_taps, close

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

BOOKS = ["the cat is good", "a bad day", "rain in the old city", "no dog", "it was good", "the red house is bad"]
FILMS = ["sun on a blue city", "new and good", "a cat on a house was bad", "yes", "not the rain", "old dog and new cat"]


def write(folder, name, texts, column="text", splits=("train", "validation"), **more):
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rows = [
            {column: f"{text} {split if split != 'train' else ''}".strip(), "label": i % 2}
            for i, text in enumerate(texts)
        ]
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = {"name": name, "head": "sequence_classification", "inputs": [column], "target": "label"}
    said |= {"dataset": {"path": "json", "data_files": {split: f"{name}-{split}.jsonl" for split in splits}}}
    (folder / f"{name}.yaml").write_text(json.dumps({**said, "labels": ["bad", "good"], **more}))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write(folder, "books", BOOKS)
    write(folder, "films", FILMS, "said")
    write(folder, "shops", FILMS[:4], splits=("validation",))
    write(folder, "plain", BOOKS[:4], "words", template="so {words}")
    pair = {"name": "pair", "head": "regression", "inputs": ["a", "b"], "target": "x"}
    (folder / "pair.yaml").write_text(json.dumps({**pair, "dataset": {"path": "nowhere"}}))
    return folder


def reading(*names, name="domains", **changes):
    return {"name": name, "dataset": {"path": "tasks", "tasks": list(names)}, **changes}


def loaded(here, *items):
    return load_tasks(list(items), registry=[here])


# ----------------------------------------------------------------------------------------------------------------- rows


def test_the_rows_are_texts_and_domains_and_no_labels(here):
    (task,) = loaded(here, reading({"name": "books", "rows": {"train": 4}, "rows_seed": 3}, "films"))
    rows = load_rows(task)
    alone = load_rows(loaded(here, {"name": "books", "rows": {"train": 4}, "rows_seed": 3})[0])
    assert list(rows) == ["train", "validation"]
    for split in rows:
        assert rows[split].column_names == ["text", "domain"]
        assert rows[split].features["domain"].names == ["books", "films"]
        of_books = [row["text"] for row in rows[split] if row["domain"] == 0]
        assert of_books == alone[split]["text"][:]
    assert [row["text"] for row in rows["train"] if row["domain"] == 1] == FILMS
    data = load_data(
        {"domains": tiny_model([task.with_(labels=["books", "films"])]).heads["domains"]},
        tiny_model([task.with_(labels=["books", "films"])]).tokenizer,
        max_length=32,
    )
    kept = data.pool_of("domains", "train").table
    assert not {"label", "labels:books", "labels:films"} & set(kept.column_names)
    assert kept["labels:domains"][:] == [0] * 4 + [1] * 6


def test_a_template_makes_the_text(here):
    (task,) = loaded(here, reading("plain", name="mlm_text"))
    assert load_rows(task)["train"]["text"][:] == [f"so {text}" for text in BOOKS[:4]]


def test_a_task_of_the_run_is_read_as_the_run_says(here):
    _, task = loaded(here, {"name": "books", "rows": {"train": 2}}, reading("books", "films"))
    assert [one.rows for one in task.inner] == [{"train": 2}, {}]
    assert load_rows(task)["train"]["domain"][:] == [0] * 2 + [1] * 6


def test_the_rows_identity_is_that_of_the_tasks(here, tmp_path):
    shutil.copytree(here, tmp_path / "copy")
    (task,) = loaded(tmp_path / "copy", reading("books", "films"))
    before = identity(task)
    assert identity(loaded(tmp_path / "copy", reading("books", "films"))[0]) == before
    assert identity(loaded(tmp_path / "copy", reading("films", "books"))[0]) != before
    write(tmp_path / "copy", "films", [*FILMS, "more"], "said")
    assert identity(task) != before


def test_what_is_wrong_is_said_at_once(here):
    with pytest.raises(ConfigError) as found:
        loaded(here, reading("bookz", "pair", "books"), reading("domains", name="mlm_text"))
    said = str(found.value)
    assert "did you mean 'books'" in said
    assert "equally many texts" in said
    assert "pair 2, books 1" in said
    assert "found 'domains', which reads those of others" in said
    with pytest.raises(ConfigError, match=r"`inputs` names a column for each text.*which have 2, found text"):
        loaded(here, reading("pair"))
    with pytest.raises(ConfigError, match="each task once, found twice: books"):
        loaded(here, reading("books", "books"))
    with pytest.raises(ConfigError, match="go together"):
        loaded(here, {"name": "books", "dataset": {"path": "tasks"}})
    with pytest.raises(ConfigError, match="two domains at least, found one"):
        tiny_model(loaded(here, reading("books")))


def test_tasks_without_training_rows_and_lost_files_are_said_at_once(here):
    (task,) = loaded(here, reading("shops", "books"))
    with pytest.raises(DataError, match="names tasks with training rows, found 'shops' with validation only"):
        load_rows(task)
    assert list(load_rows(task.with_(splits={"train": None}))) == ["validation"]
    gone = {"name": "books", "dataset": {"path": "json", "data_files": {"train": "gone.jsonl"}}}
    (task,) = loaded(here, reading("shops", gone))
    with pytest.raises(DataError) as found:
        load_rows(task)
    assert "'shops'" in str(found.value)
    assert "gone.jsonl" in str(found.value)
    (task,) = loaded(here, reading(gone, "films"))
    with pytest.raises(NotFoundError, match=r"gone\.jsonl"):
        load_rows(task)


def test_a_task_file_written_for_a_run_finds_the_files(here, tmp_path):
    (task,) = loaded(here, reading("books", "films"))
    again = read_task(tmp_path / write_task_file(task, tmp_path))
    texts = load_rows(task)["train"]["text"][:]
    assert not again.inner
    for place in [tmp_path / "task_files", *tmp_path.iterdir()]:
        if place.is_dir():
            found = [one["dataset"]["data_files"] for one in again.dataset.tasks]
            assert all((place / file).is_file() for files in found for some in files.values() for file in some)
    assert texts == [*BOOKS, *FILMS]


# ------------------------------------------------------------------------------------------------------------ gradients


def test_the_schedule_is_the_papers():
    assert dann_strength(0.0) == 0.0
    assert dann_strength(0.5) == pytest.approx(2 / (1 + np.exp(-5)) - 1)
    assert dann_strength(1.0) == pytest.approx(2 / (1 + np.exp(-10)) - 1)


@given(st.floats(0, 10), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_turned_round_and_scaled(strength, seed):
    generator = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(3, 4, generator=generator).requires_grad_(), torch.randn(3, 4, generator=generator)
    out = reverse_gradient(x, strength)
    assert torch.equal(out, x)
    (out * weight).sum().backward()
    assert torch.equal(x.grad, -strength * weight)


def models(here, family, **head):
    """The adversarial head and an ordinary one, beside an ordinary task, with the same weights; and a batch of both."""
    labels = {"labels": ["books", "films"]}
    ways = [{"name": "domain_adversarial", "strength": 0.37, "schedule": "constant"}, "sequence_classification"]
    ways = [{**({"name": way} if isinstance(way, str) else way), **head} for way in ways]
    made = [
        tiny_model(loaded(here, "books", reading("books", "films", head=way, metrics=["accuracy"], **labels)), family)
        for way in ways
    ]
    data = load_data(made[0].heads, made[0].tokenizer, max_length=32)
    pools = data.splits["train"]
    refs = [(number, row, -1) for number, pool in enumerate(pools) for row in range(len(pool))]
    return made, Collator(pools, data.heads)(refs)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "t5"])
@pytest.mark.parametrize("head", [{}, {"pooling": "mean"}, {"pooler": "own"}], ids=["family", "mean", "own pooler"])
def test_the_encoder_gets_minus_lambda_times_the_gradient_and_the_classifier_its_own(here, family, head):
    both, batch = models(here, family, **head)
    turned, plain = (by_autograd(model, batch, list(model.sharing.shared_parameters()))[0] for model in both)
    torch.testing.assert_close(turned[0], plain[0])
    assert bool(plain[1].any())
    torch.testing.assert_close(turned[1], -0.37 * plain[1], rtol=1e-4, atol=1e-7)
    for model in both:
        model(**batch)["loss"].backward()
    ours, theirs = (dict(model.module_of("domains").named_parameters()) for model in both)
    for name, parameter in ours.items():
        assert parameter.grad is None or torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-7), name
    torch.testing.assert_close(*(model(**batch)["logits"]["domains"] for model in both))


def test_gradients_told_apart_are_those_turned_round(here):
    (model, _), batch = models(here, "bert")
    parameters = list(model.sharing.shared_parameters())
    close(by_taps(model, [batch], parameters).slots.jacobian(), by_autograd(model, batch, parameters)[0], 2e-4)


def test_lambda_follows_the_step(here):
    model = tiny_model(loaded(here, reading("books", "films", labels=["books", "films"])))
    head, seen = model.heads["domains"], []
    for step in range(5):
        Advancing(model.heads.values()).on_step_begin(None, SimpleNamespace(global_step=step, max_steps=4), None)
        seen.append(head.now)
    assert seen == [dann_strength(step / 4) for step in range(5)]


# ------------------------------------------------------------------------------------------------------------ distances

VECTORS = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed))


def numpy_mmd(x, y):
    def square(a, b):
        return ((a[:, None] - b) ** 2).sum(-1)

    z = np.concatenate([x, y])
    pairs = np.sort(square(z, z)[np.triu_indices(len(z), 1)])
    middle = pairs[(len(pairs) - 1) // 2]
    kernels = [[np.exp(-square(a, b) / (w * middle)).mean() for w in WIDTHS] for a, b in ((x, x), (y, y), (x, y))]
    return float(np.mean(kernels[0]) + np.mean(kernels[1]) - 2 * np.mean(kernels[2]))


@given(VECTORS, st.integers(2, 12), st.integers(2, 12), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_distances_are_their_formulas_zero_when_equal_and_positive_otherwise(draw, rows, others, size):
    x, y = draw.normal(size=(rows, size)), 2 * draw.normal(size=(others, size)) + 1
    for distance, expected in (
        (coral, ((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / (4 * size**2)),
        (mmd, numpy_mmd(x, y)),
    ):
        one, other = torch.from_numpy(x), torch.from_numpy(y)
        assert float(distance(one, other)) == pytest.approx(float(expected), rel=1e-8, abs=1e-12)
        assert float(distance(one, other)) > 0
        assert float(distance(one, one.clone())) == 0.0
        assert float(distance(one.float(), one.float().clone())) == 0.0


def test_pairs_of_domains_and_those_with_one_row():
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whose = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 7])
    parts = [rows[:3], rows[3:5], rows[5:8]]
    expected = (coral(parts[0], parts[1]) + coral(parts[0], parts[2]) + coral(parts[1], parts[2])) / 3
    torch.testing.assert_close(between_domains(rows, whose, coral), expected)
    alone = between_domains(rows, torch.tensor([0] * 8 + [1]), mmd)
    alone.backward()
    assert float(alone.detach()) == 0.0
    assert not bool(rows.grad.any())


def test_the_unbiased_mmd_is_0_in_the_mean_and_does_not_ask_for_one_point():
    """Samples of one distribution: the biased estimate falls when they shrink to a point, the unbiased one does not."""
    torch.manual_seed(0)
    pairs = [torch.randn(2, 12, 3, dtype=torch.float64) for _ in range(300)]
    found = torch.stack([mmd(a, b, unbiased=True) for a, b in pairs])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 300**0.5
    assert float(torch.stack([mmd(a, b) for a, b in pairs]).mean()) > 0.05
    a, b = pairs[0]
    pairs_of = [(i, j) for i in range(12) for j in range(12)]

    def plain(x, y, same):
        middle = torch.cat([torch.pdist(a), torch.pdist(b), torch.cdist(a, b).flatten()]).square().median()
        kept = [(x[i] - y[j]).square().sum() for i, j in pairs_of if not (same and i == j)]
        return sum(float((-d / (w * middle)).exp()) for d in kept for w in WIDTHS) / len(kept) / len(WIDTHS)

    assert float(mmd(a, b, unbiased=True)) == pytest.approx(
        plain(a, a, True) + plain(b, b, True) - 2 * plain(a, b, False)
    )


@pytest.mark.parametrize("distance", ["coral", "mmd"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "t5"])
def test_a_packed_batch_gives_the_distance_of_the_vectors_one_by_one(here, family, distance):
    head = {"name": "domain_alignment", "distance": distance, "weight": 3.0}
    (task,) = loaded(here, reading("books", "films", head=head, metrics=None, labels=["books", "films"]))
    model = tiny_model([task], family)
    assert not list(model.module_of("domains").parameters())
    data = load_data(model.heads, model.tokenizer, max_length=32)
    pool = data.pool_of("domains", "train")
    collate = Collator([pool], data.heads)
    batch = collate([(0, row, -1) for row in range(len(pool))])
    with torch.no_grad():
        alone = torch.cat([model(**collate([(0, row, -1)]))["logits"]["domains"] for row in range(len(pool))])
    if family != "t5":  # the same vectors as a classifier of the family reads
        other = tiny_model([task.with_(head="sequence_classification")], family)
        seen = []
        reader = getattr(other.module_of("domains"), other.module_of("domains").base_model_prefix)
        reader.register_forward_hook(
            lambda _, __, out: seen.append(
                out.pooler_output if out.pooler_output is not None else out.last_hidden_state[:, 0]
            )
        )
        with torch.no_grad():
            other(**batch)
        torch.testing.assert_close(seen[0][: len(alone)], alone, rtol=1e-4, atol=1e-5)
    labels = torch.tensor(pool.labels("domains"))
    expected = 3.0 * between_domains(alone, labels, {"coral": coral, "mmd": partial(mmd, unbiased=True)}[distance])
    out = model(**batch)
    assert float(out["loss"].detach()) == pytest.approx(float(expected), rel=1e-3, abs=1e-9)
    out["loss"].backward()
    assert any(bool(p.grad.any()) for p in model.sharing.parameters() if p.grad is not None)


def test_the_proxy_counts_domains_alike():
    assert proxy_a_distance([0] * 6, [0, 0, 0, 0, 0, 1]) == 0.0
    assert proxy_a_distance([1, 0], [0, 1]) == -2.0
    assert proxy_a_distance([0, 0, 0], [0, 1, 2]) == pytest.approx(0.0)
    with pytest.raises(DataError, match="two domains"):
        proxy_a_distance([0, 0], [0, 0])
    with pytest.raises(DataError, match="two rows at least"):
        mmd_of([[1.0], [2.0], [3.0]], [0, 0, 1])


def test_arguments_out_of_range_are_said_at_once(here):
    wrong = {"name": "domain_alignment", "weight": -1.0, "widths": [0.0, 1.0]}
    with pytest.raises(ConfigError) as found:
        tiny_model(loaded(here, reading("books", "films", head=wrong, metrics=None)))
    assert [mistake.split("`")[1] for mistake in found.value.mistakes] == ["weight", "widths"]
    wrong = {"name": "domain_adversarial", "strength": -0.5}
    with pytest.raises(ConfigError) as found:
        tiny_model(
            loaded(
                here,
                reading("books", "films", head=wrong),
                reading("books", head=wrong, name="mlm_text", target="domain", metrics=None),
            )
        )
    assert ["`strength`" in mistake for mistake in found.value.mistakes] == [True, False, True]
    assert "two domains" in found.value.mistakes[1]


# ---------------------------------------------------------------------------------------------------------------- a run


def test_a_run_that_adapts_resumes_to_the_bit_and_loads_without_its_registry(here, tmp_path, monkeypatch):
    copy = tmp_path / "registry"
    shutil.copytree(here, copy)
    write_base(tmp_path / "base", dropout=0.1)
    tasks = [
        "books",
        {"name": "films", "head_of": "books"},
        reading("books", "films"),
        reading("books", "films", name="domains_aligned"),
        reading("films", name="mlm_text"),
    ]
    learning = {"train_tasks": ["books", "domains", "domains_aligned", "mlm_text"], "registry": [str(copy)]}
    shape = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "save_total_limit": 3}

    def said(name):
        return config(str(tmp_path / "base"), tasks, tmp_path / name, **learning, training=shape)

    whole = train(said("whole"))
    train(said("cut"))
    for folder in checkpoint.checkpoints(tmp_path / "cut"):
        if folder.name != "checkpoint-2":
            shutil.rmtree(folder)
    resumed = train(said("cut"), resume=True)
    ours, theirs = state_of(whole.model), state_of(resumed.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.model.heads["domains"].progress == 0.75
    scores = evaluate(tmp_path / "whole", "validation")
    assert scores["films"].metrics.keys() == {"accuracy"}
    assert scores["domains"].metrics.keys() == {"accuracy", "proxy_a_distance"}
    assert list(scores["domains_aligned"].metrics) == ["mmd", "coral_distance"]
    assert scores["domains"].skill is None, "it has no say in the best checkpoint"
    shutil.rmtree(copy)
    model = MultiTaskModel.from_pretrained(tmp_path / "whole")
    answers = predict(model, "a good cat")
    assert answers["domains"]["label"] in ("books", "films")
    assert answers["domains_aligned"] == {"missing": ["texts of several domains to compare"]}


@pytest.mark.parametrize("name", ["domains", "domains_aligned"])
@pytest.mark.parametrize(
    "how", [{"freeze": "*"}, {"task_lora": {"r": 2, "target_modules": "all-linear"}}], ids=["*", "own"]
)
def test_where_nothing_shared_is_trained_there_is_nothing_to_draw_together(here, tmp_path, how, name):
    base = write_base(tmp_path / "base")
    tasks = ["books", reading("books", "films", name=name)]
    said = config(base, tasks, tmp_path / "run", registry=[str(here)], training={"max_steps": 1}, **how)
    with pytest.raises(ConfigError, match=rf"{name} \(domain_\w+\) changes the weights that tasks share, found none"):
        train(said)
    train({**said, "train_tasks": ["books"]})
