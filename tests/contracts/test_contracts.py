"""Whatever is registered keeps its kind's contract: being registered is enough to be tested here."""

import inspect
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageClassification, PreTrainedModel, ViTConfig, ViTModel

from nlp_mtl import registry
from nlp_mtl.balancers import Balancer, StepFacts
from nlp_mtl.batches import Collator, collate
from nlp_mtl.data import load_data
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.heads import Head
from nlp_mtl.heads.labels import Where
from nlp_mtl.layout import Layout
from nlp_mtl.metrics import greater_is_better, needs
from nlp_mtl.model import MultiTaskModel, make_heads
from nlp_mtl.packing import Packed, choose_way, encode
from nlp_mtl.plan import MixingPlan, Pool
from nlp_mtl.prediction import predict
from nlp_mtl.regularizers import Regularizer
from nlp_mtl.samplers import Progress, Sampler
from nlp_mtl.sharing import Sharing
from nlp_mtl.steps import StepRecord
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import task_registry
from nlp_mtl.testing import check_task, tiny_encoder, tiny_model, tiny_tokenizer
from tests.unit.preparation_cases import CASES

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

# Tasks for heads that no task of the built-in registry uses. A head that is new needs a task there, or one here.
MORE_TASKS = [
    Task(
        name="several_labels",
        head="multi_label",
        dataset={"path": "none"},
        inputs=["text"],
        target="labels",
        labels=["joy", "anger", "fear"],
        examples=[
            {"text": "good good", "labels": ["joy"]},
            {"text": "a bad cat", "labels": ["anger", "fear"]},
            {"text": "no", "labels": []},
        ],
    )
]
# Arguments of strategies that need some.
SAMPLERS = {
    "fixed": {"name": "fixed", "rates": {"a": 1.0, "b": 0.0, "c": 2.5}},
    "by_reference": {"name": "by_reference", "references": {"a": 0.5, "b": 0.7, "c": -1.0}},
}
BALANCERS = {
    "fixed": {"name": "fixed", "weights": {"a": 0.5, "c": 0.0}},
    "a_gem": {"name": "a_gem", "memory": ["a"]},
}
TUNED = {"o_lora": {"lora": {"r": 2, "target_modules": "all-linear"}}}  # what a regularizer can't do without
SHARINGS: dict[str, dict] = {"cross_task_attention": {"size": 8}, "cross_stitch": {"layers": 1}}
NEEDS = {"soft": "task_lora", "mixture_of_experts": "lora"}  # what a sharing can't do without


def tasks_of(head):
    return [task for task in [*task_registry().tasks.values(), *MORE_TASKS] if task.head_name == head]


def examples_as_data(task, folder):
    """The task on its own example rows, written to a file, with label names where it lists none."""
    file = folder / f"{task.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in task.examples), encoding="utf-8")
    dataset = {"path": "json", "data_files": {"train": str(file)}}
    return task.with_(dataset=dataset, prepare=[], splits={}, rows={}, head_of=None)


def a_model_of(task, folder, **tuning):
    """A tiny model of one task, and its example rows as data."""
    task = examples_as_data(task, folder)
    data = load_data(make_heads([task]), tiny_tokenizer(), max_length=128)
    listed = getattr(data.heads[task.name], "data_labels", None) or data.heads[task.name].labels
    return tiny_model([task.with_(labels=listed) if listed else task], **tuning), data


# ---------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_has_a_task_whose_examples_work(name):
    tasks = tasks_of(name)
    assert tasks, f"no task uses the head {name!r}: add one to the registry, or to MORE_TASKS here"
    for task in tasks:
        assert check_task(task) == []


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_learns(name, tmp_path):
    task = tasks_of(name)[0]
    model, data = a_model_of(task, tmp_path)
    pool = data.pool_of(task.name, "train")
    batch = Collator([pool], data.heads, training=True)([(0, row, 0) for row in range(len(pool))])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(**batch)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(math.isfinite(loss) for loss in losses)
    if name != "domain_adversarial":  # its encoder works against it: tests/unit/test_domains.py
        assert losses[-1] < losses[0] - 1e-2, "Adam's first steps may go up; twelve go down whichever task comes first"
    own = list(model.module_of(task.name).parameters())
    assert not own or any(p.grad is not None and bool(p.grad.any()) for p in own)
    assert any(bool(p.grad.any()) for p in model.sharing.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_reads_only_the_tokens_it_says(name, tmp_path):
    """Whatever is said not to be read may hold anything: the encoder leaves it out."""
    task = tasks_of(name)[0]
    model, data = a_model_of(task, tmp_path)
    pool = data.pool_of(task.name, "train")
    batch = Collator([pool], data.heads)([(0, row, -1) for row in range(len(pool))])
    target, head, module = batch["targets"][task.name], model.heads[task.name], model.eval().module_of(task.name)
    layout = Layout(batch["lengths"].tolist())
    hidden = torch.randn(layout.tokens, model.config.hidden_size)
    read = torch.zeros(layout.tokens, dtype=torch.bool)
    read[head.reads(module, layout, target).flatten()] = True
    assert read.any()
    holes = hidden.masked_fill(~read[:, None], torch.nan)
    with torch.no_grad():
        expected = head.forward(module, Packed(hidden, layout), target)
        found = head.forward(module, Packed(holes, layout), target)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:  # a decoder's: what is written, and the loss
        assert found.tokens == expected.tokens
        assert torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_keeps_the_contract(name, tmp_path):
    task = tasks_of(name)[0]
    model, data = a_model_of(task, tmp_path)
    model.eval()
    head, pool = data.heads[task.name], data.pool_of(task.name, "train")
    assert isinstance(head, Head)
    assert registry.heads.summary(name)
    json.dumps(head.reading())
    assert set(task.inputs) <= set(head.needed_columns())
    collator = Collator([pool], data.heads)
    whole = collator([(0, row, -1) for row in range(len(pool))])
    with torch.no_grad():
        out = model(**whole)
    target, logits = whole["targets"][task.name], out["logits"][task.name]
    # the loss is a sum: those of the rows, each alone, add up to that of all
    parts = [collator([(0, row, -1)])["targets"] for row in range(len(pool))]
    assert sum(head.units(part[task.name]) for part in parts) == head.units(target) > 0
    with torch.no_grad():
        losses = []
        for row in range(len(pool)):
            one = collator([(0, row, -1)])
            losses.append(float(head.loss(model(**one)["logits"][task.name], one["targets"][task.name])))
        if name != "domain_alignment":  # a distance belongs to all rows of a pass
            assert sum(losses) == pytest.approx(float(head.loss(logits, target)), rel=1e-4)
    # one prediction per row, on the CPU
    predictions = head.predict(logits, target)
    assert len(predictions) == len(pool)
    assert not any(isinstance(prediction, torch.Tensor) for prediction in predictions)
    # scores: the first metric first, and a baseline in the same words
    found = Evaluator(data).evaluate(model, "train")[task.name]
    assert found.first == head.metrics[0].removeprefix("evaluate:")
    assert head.auxiliary or set(found.trivial) >= {found.first}
    assert not (head.auxiliary and found.trivial)
    assert all(math.isfinite(value) for value in [*found.metrics.values(), *found.trivial.values(), found.loss])
    # perfect answers score perfectly
    if name not in ("masked_lm", "domain_alignment"):
        references = head.references(pool.labels(task.name), pool.table)
        perfect = [r[0] if name in ("question_answering", "seq2seq") else r for r in references]
        assert head.score(perfect, references)[found.first] == pytest.approx(1.0 if found.better else 0.0)


@pytest.mark.parametrize("name", [name for name in registry.heads.names() if registry.heads[name].gives_scores])
def test_every_head_that_gives_scores_gives_one_per_label(name, tmp_path):
    task = tasks_of(name)[0]
    model, data = a_model_of(task, tmp_path)
    head, pool = data.heads[task.name], data.pool_of(task.name, "train")
    batch = Collator([pool], data.heads)([(0, row, -1) for row in range(len(pool))])
    with torch.no_grad():
        predictions = head.predict(model.eval()(**batch)["logits"][task.name], batch["targets"][task.name])
    trivial = head.trivial_scores(pool.labels(task.name), len(pool))
    for scores in (head.scores(predictions), trivial):
        assert scores.shape == (len(pool), len(head.labels))
        assert ((scores >= 0) & (scores <= 1)).all()
    assert (trivial == trivial[0]).all(), "a baseline that reads nothing says the same of all rows"
    assert float(head.scores(predictions).std()) > 0


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_answers_in_words(name, tmp_path):
    task = tasks_of(name)[0]
    model, _ = a_model_of(task, tmp_path)
    row = dict(task.examples[0])
    if name == "masked_lm":
        row = dict.fromkeys(task.inputs, "the [MASK]")
    answer = predict(model, row, tasks=[task.name])[task.name]
    assert answer
    assert ("missing" in answer) == (name == "domain_alignment"), "a text alone has no distance"
    json.dumps(answer, allow_nan=False)
    assert predict(model, {"nothing": 1})[task.name] == {"missing": model.heads[task.name].needed_columns()}


@pytest.mark.parametrize("name", registry.heads.names())
def test_every_head_reads_rows_without_labels(name, tmp_path):
    task = tasks_of(name)[0]
    model, data = a_model_of(task, tmp_path)
    head = data.heads[task.name]
    rows = {column: [row[column] for row in task.examples] for column in head.needed_columns()}
    labels = head.encode_labels([None] * len(task.examples), None, rows, Where(task.name, "test"))
    assert labels == [None] * len(task.examples)
    pool = data.pool_of(task.name, "train")
    read = [
        {**Collator([pool], data.heads)._read((0, row, -1)), f"labels:{task.name}": None} for row in range(len(pool))
    ]
    batch = collate(read, [[task.name]] * len(read), data.heads)
    with torch.no_grad():
        out = model(**batch)
    assert len(head.predict(out["logits"][task.name], batch["targets"][task.name])) == len(pool)
    if head.needs_labels:
        assert out["losses"] == {}
        assert float(out["loss"]) == 0.0


# ------------------------------------------------------------------------------------------------------------- sharings


def packed_batch():
    lengths = [3, 6, 1]
    ids = torch.randint(5, 60, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}, lengths


def plain_sharing(name, lora=False):
    from nlp_mtl.adapters import add_lora, lora_config

    encoder, tasks = tiny_encoder("bert"), ["a", "b"]
    arguments, fields = SHARINGS.get(name, {}), {"r": 2, "target_modules": "all-linear"}
    asked = lora_config(dict(fields)) if lora or NEEDS.get(name) == "lora" else None
    asked = registry.sharings[name].lora_for(asked, tasks, **arguments)
    each = dict(fields) if NEEDS.get(name) == "task_lora" else None
    if asked is not None or each is not None:
        encoder = add_lora(encoder, asked, per_task=each, adapter_of={task: task for task in tasks})
    return registry.sharings.build({"name": name, **arguments}, encoder, tasks)


def a_sharing(name, lora=False):
    sharing = plain_sharing(name, lora)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sharing.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return sharing.eval()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", registry.sharings.names())
def test_every_sharing_encodes_for_every_task(name, lora):
    sharing = a_sharing(name, lora)
    assert isinstance(sharing, Sharing)
    assert sharing.log
    inputs, lengths = packed_batch()
    for wanted in (["a"], ["a", "b"]):
        packed = sharing.encode(inputs, Layout(lengths), wanted)
        assert set(packed) >= set(wanted)
        for task in wanted:
            assert packed[task].hidden.shape == (sum(lengths), 32)
            assert torch.isfinite(packed[task].hidden).all()
            assert packed[task].layout.lengths == lengths


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", registry.sharings.names())
def test_every_sharing_passes_gradients_to_what_is_shared(name, lora):
    sharing = a_sharing(name, lora)
    shared = list(sharing.shared_parameters())
    own = {task: list(sharing.parameters_of(task)) for task in ("a", "b")}
    trained = {id(p) for p in sharing.parameters() if p.requires_grad}
    parts = [{id(p) for p in some} for some in (shared, own["a"], own["b"])]
    assert len(parts[0]) == len(shared), "each once"
    assert set().union(*parts) == trained, "each trained parameter is shared or some task's"
    assert sum(map(len, parts)) == len(trained), "and only one of both"
    inputs, lengths = packed_batch()
    for task in ("a", "b"):
        sharing.zero_grad()
        (sharing.encode(inputs, Layout(lengths), [task])[task].hidden ** 3).sum().backward()
        reached = sum(p.grad is not None and bool(p.grad.any()) for p in (*shared, *own[task]))
        assert reached > len((*shared, *own[task])) / 2, task
        other = own["b" if task == "a" else "a"]
        assert not any(p.grad is not None and p.grad.any() for p in other), "another task's parameters are left alone"


@pytest.mark.parametrize("name", registry.sharings.names())
def test_every_sharing_collapses_to_what_it_computes_or_says_why_not(name):
    sharing = a_sharing(name)
    inputs, lengths = packed_batch()
    packed = sharing.encode(inputs, Layout(lengths), ["a", "b"])
    for task in ("a", "b"):
        try:
            plain = sharing.collapse(task)
        except UnsupportedError:
            with pytest.raises(UnsupportedError, match=r"\w+ \w+ \w+"):  # the reason, in words
                sharing.collapse(task)
            continue
        assert isinstance(plain, PreTrainedModel)
        with sharing.for_head_of(task):
            rows = [
                plain(input_ids=ids[None], attention_mask=torch.ones_like(ids[None]))
                for ids in inputs["input_ids"].split(lengths)
            ]
        expected = torch.cat([row.last_hidden_state[0] for row in rows])
        assert torch.allclose(packed[task].hidden, expected, atol=1e-5)


@pytest.mark.parametrize("name", registry.sharings.names())
def test_every_sharings_state_round_trips(name):
    sharing, other = a_sharing(name), plain_sharing(name)
    inputs, lengths = packed_batch()
    names = set(sharing.own_state())
    assert set(sharing.state_dict()) >= names
    if sharing.ordinary:
        assert not any(name.startswith("encoder.") for name in names)
    other.encoder.load_state_dict(sharing.encoder.state_dict())
    other.load_own_state({name: value.clone() for name, value in sharing.own_state().items()})
    with torch.no_grad():
        ours, theirs = (s.eval().encode(inputs, Layout(lengths), ["a", "b"]) for s in (sharing, other))
    for task in ("a", "b"):
        assert torch.equal(ours[task].hidden, theirs[task].hidden), "encoder and own state together are everything"


# ------------------------------------------------------------------------------------------------------------- samplers

TASKS, SIZES = ["a", "b", "c"], [40, 7, 3]


def a_sampler(name, **more):
    return registry.samplers.build({**SAMPLERS.get(name, {"name": name}), **more})


@pytest.mark.parametrize("name", registry.samplers.names())
def test_every_sampler_gives_rates(name):
    sampler = a_sampler(name)
    assert isinstance(sampler, Sampler)
    sampler.setup(TASKS, SIZES)
    for epoch in range(3):
        for step in range(6):
            rates = np.asarray(sampler.rates(Progress(epoch, step, 6, 3.0)))
            assert rates.shape == (3,)
            assert np.isfinite(rates).all()
            assert (rates >= 0).all()
            assert rates.sum() > 0


@pytest.mark.parametrize("name", registry.samplers.names())
@pytest.mark.parametrize("epoch", ["all", "mean", "largest", 23])
def test_every_sampler_fills_every_step_of_every_epoch(name, epoch):
    """No early end, whatever the rates: a plan gives as many rows as it says, and the tasks' rates over the epoch."""
    try:
        sampler = a_sampler(name, epoch=epoch)
    except TypeError:
        pytest.fail(f"the sampler {name!r} does not take `epoch`")
    plan = MixingPlan(
        sampler, [Pool(t, (t,), n) for t, n in zip(TASKS, SIZES, strict=True)], rows_per_step=8, seed=1, epochs=3.0
    )
    for number in range(3):
        counts, wanted = np.zeros(3), np.zeros(3)
        for step in range(plan.steps):
            rows = plan.rows(number, step)
            full = min(8, plan.rows_per_epoch - 8 * step)
            assert len(rows) == full
            rates = np.asarray(sampler.rates(Progress(number, step, plan.steps, 3.0)), dtype=float)
            wanted += full * rates / rates.sum()
            for pool, row, visit in rows:
                counts[pool] += 1
                assert 0 <= row < SIZES[pool]
                assert visit >= 0
        assert np.abs(counts - wanted).max() <= 1.0 + 1e-9
        assert counts.sum() == plan.rows_per_epoch


@pytest.mark.parametrize("name", registry.samplers.names())
def test_every_samplers_state_round_trips(name):
    one, two = a_sampler(name), a_sampler(name)
    for sampler in (one, two):
        sampler.setup(TASKS, SIZES)
    for step in range(60):
        seen = torch.tensor([1.0 / (step + 1), 0.5, 2.0])
        one.observe(StepRecord(step, seen, torch.ones(3), torch.ones(3) / 3), TASKS)
    one.observe_scores(60, {"a": (0.4, True), "b": (0.9, True), "c": (-2.0, True)})
    stream = io.BytesIO()
    torch.save(one.state_dict(), stream)
    stream.seek(0)
    two.load_state_dict(torch.load(stream, weights_only=True))  # as checkpoints do
    assert str(two.state_dict()) == str(one.state_dict())
    at = Progress(1, 2, 6, 3.0)
    assert np.array_equal(one.rates(at), two.rates(at))


# ------------------------------------------------------------------------------------------------------------ balancers


def a_balancer(name):
    made = registry.balancers.build(BALANCERS.get(name, name))
    made.setup(TASKS, SIZES, classes=[2, 0, 5], seed=1)
    return made


# Products of gradients of which the first two point against each other.
JACOBIAN = torch.tensor([[1.0, 2.0, 0.5, 0.0], [-1.0, -1.5, 0.5, 0.3], [0.2, 0.0, 1.0, 2.0]], dtype=torch.float64)


def weighed(balancer, facts, losses):
    """What a balancer does in one step, given what it asks for; the gradient that comes of it."""
    losses = torch.where(facts.present, losses, 0.0)
    gradients = JACOBIAN * facts.present[:, None]
    if "jacobian" in balancer.needs:
        if not facts.present.any():
            return torch.zeros(3), torch.zeros(4)
        gradient, weights = balancer.combine(facts, gradients[facts.present], losses)
        return weights, gradient
    given = {}
    if "losses" in balancer.needs:
        given["losses"] = losses
    if "gramian" in balancer.needs:
        given["gramian"] = gradients @ gradients.T
    weights = balancer.weights(facts, **given)
    if "new_losses" in balancer.needs:
        balancer.learn(facts, losses * 0.9)
    return weights, weights.double() @ gradients


FACTS = [
    StepFacts(0, torch.tensor([4.0, 2.0, 2.0]), torch.tensor([4.0, 11.0, 2.0])),
    StepFacts(3, torch.tensor([4.0, 0.0, 4.0]), torch.tensor([4.0, 0.0, 9.0])),
    StepFacts(5, torch.tensor([0.0, 8.0, 0.0]), torch.tensor([0.0, 8.0, 0.0])),
    StepFacts(6, torch.tensor([8.0, 1.0, 0.0]), torch.tensor([8.0, 0.0, 0.0])),  # a row of b without a labelled token
    StepFacts(7, torch.zeros(3), torch.zeros(3)),
]


@pytest.mark.parametrize("name", registry.balancers.names())
def test_every_balancer_weighs_the_tasks_that_are_present(name):
    balancer = a_balancer(name)
    assert isinstance(balancer, Balancer)
    assert balancer.needs <= {"losses", "gramian", "jacobian", "new_losses", "inner_steps"}
    for facts in FACTS:
        weights, gradient = weighed(balancer, facts, torch.tensor([0.7, 0.3, 1.1]))
        assert weights.shape == (3,)
        assert torch.isfinite(weights).all()
        assert torch.isfinite(gradient).all()
        assert (weights[~facts.present] == 0).all()
        if not {"gramian", "jacobian"} & balancer.needs and name != "pbi":  # these may turn a gradient round
            assert (weights >= 0).all()
        if facts.present.all():
            assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", registry.balancers.names())
def test_every_balancer_says_what_it_needs_and_costs(name):
    made = registry.balancers[name]
    assert made.cost
    assert made.scope in ("shared", "lora", "last_layer")
    doc = inspect.getdoc(made)
    assert "Relations:" in doc or name == "fixed"
    assert made.paper or name in ("equal", "rows", "fixed")


@pytest.mark.parametrize("name", registry.balancers.names())
def test_gradients_of_zeros_weigh_the_tasks_alike_or_by_their_facts(name):
    balancer = a_balancer(name)
    if "gramian" in balancer.needs:
        weights = balancer.weights(FACTS[0], losses=torch.ones(3), gramian=torch.zeros(3, 3))
        assert torch.isfinite(weights).all()
        assert len(set(weights.tolist())) == 1
    elif "jacobian" in balancer.needs:
        gradient, _ = balancer.combine(FACTS[0], torch.zeros(3, 4), torch.ones(3))
        assert torch.equal(gradient, torch.zeros(4))


@pytest.mark.parametrize("name", registry.balancers.names())
def test_every_balancers_state_round_trips(name):
    one, two = a_balancer(name), a_balancer(name)
    for facts in FACTS[:3]:
        weighed(one, replace(facts, epoch=facts.step), torch.tensor([0.7, 0.3, 1.1]))
    stream = io.BytesIO()
    torch.save(one.state_dict(), stream)
    stream.seek(0)
    two.load_state_dict(torch.load(stream, weights_only=True))  # as checkpoints do
    for facts in (FACTS[1], FACTS[0]):
        for ours, theirs in zip(
            *(weighed(each, facts, torch.tensor([0.5, 0.2, 2.0])) for each in (one, two)), strict=True
        ):
            assert torch.equal(ours, theirs)


# --------------------------------------------------------------------------------------------------------- regularizers


def a_regularizer(name, model, data):
    more = {"tasks": model.tasks, "rows": 4, "carry": True} if name == "ewc" else {}
    one = registry.regularizers.build({"name": name, **more})
    one.setup(model, data)
    return one


@pytest.mark.parametrize("name", registry.regularizers.names())
def test_every_regularizer_keeps_the_contract(name, tmp_path):
    """A function of the parameters; gradients as autograd finds them; a state that goes on where it was saved."""
    model, data = a_model_of(tasks_of("sequence_classification")[0], tmp_path, **TUNED.get(name, {}))
    one = a_regularizer(name, model, data)
    assert isinstance(one, Regularizer)
    assert registry.regularizers.summary(name) and one.cost
    one.begin()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.full_like(parameter, 0.01))
    value = one.penalty()
    if value is not None:
        assert value.dim() == 0 and float(value.detach()) >= 0
        assert float(one.penalty().detach()) == float(value), "the same for the same parameters"
        known, parameters, gradients = one.penalty_gradients()
        assert known == pytest.approx(float(value.detach()), rel=1e-4)
        expected = torch.autograd.grad(value, parameters)
        assert all(torch.allclose(g, e, rtol=1e-4, atol=1e-7) for g, e in zip(gradients, expected, strict=True))
        assert all(g.is_contiguous() and g.shape == p.shape for p, g in zip(parameters, gradients, strict=True))
        assert {id(p) for p in parameters} <= {id(p) for p in model.parameters() if p.requires_grad}
    saved = io.BytesIO()
    torch.save(one.state_dict(), saved)
    saved.seek(0)
    again = a_regularizer(name, model, data)
    again.load_state_dict(torch.load(saved, weights_only=True))
    assert (value is None) == (again.penalty() is None)
    assert value is None or float(again.penalty()) == float(value)
    assert (one.carried() is not None) == one.carries


@pytest.mark.parametrize("name", registry.regularizers.names())
def test_every_regularizer_is_nothing_where_training_begins(name, tmp_path):
    """Of what was there before: heads that are new are another matter."""
    model, data = a_model_of(tasks_of("sequence_classification")[0], tmp_path, **TUNED.get(name, {}))
    model.begun = set(model.tasks)
    one = a_regularizer(name, model, data)
    one.begin()
    value = one.penalty()
    assert value is None or float(value) == 0.0


# -------------------------------------------------------------------------------------------------------------- metrics

# kind of prediction → perfect predictions, worse ones, references
SCORED = {
    "classes": ([0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1], [0, 1, 1, 0, 1, 0]),
    "three classes": ([0, 1, 2, 1, 2, 0], [0, 2, 2, 1, 1, 0], [0, 1, 2, 1, 2, 0]),
    "numbers": ([0.5, 2.0, -1.0, 4.0], [0.5, 1.0, 3.0, 2.0], [0.5, 2.0, -1.0, 4.0]),
    "several": ([[1, 0], [0, 1], [1, 1]], [[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [1, 1]]),
    "tags": ([["B-X", "I-X", "O"], ["B-Y"]], [["B-X", "O", "O"], ["O"]], [["B-X", "I-X", "O"], ["B-Y"]]),
    "texts": (
        ["the red cat sat on a mat", "it was raining all day"],
        ["the red dog sat on a mat", "all day"],
        [["the red cat sat on a mat"], ["it was raining all day", "it rained all day"]],
    ),
    "answers": (["a cat", "", "old city"], ["a dog", "rain", "city"], [["cat"], [], ["city", "old city"]]),
    "domains": ([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1]),  # what is right is that they can't be told apart
    "vectors": ([[0.5, 1.0], [1.0, 0.0]] * 2, [[0.5, 1.0], [1.0, 0.0], [9.0, 1.0], [5.0, 0.0]], [0, 0, 1, 1]),
}

# What metrics of classes may need besides: columns, and scores that go with the perfect and the worse predictions.
ROWS = {
    "groups": ["a", "b", "b", "a", "b", "a"],
    "candidates": ["cat", "rain", "sun", "dog", "city", "house"],
    "answers": [["cat"], ["rain", "the sea"], ["rain", "the sea"], ["cat"], ["rain", "the sea"], ["cat"]],
}
POSITIVE = ([0.3, 0.9, 0.8, 0.2, 0.7, 0.1], [0.3, 0.7, 0.4, 0.2, 0.9, 0.6])


def deciding(name, predictions, references, scores, order=None):
    given = {**ROWS, "scores": [[1 - score, score] for score in scores]}
    order = range(len(references)) if order is None else order
    value = registry.metrics[name](
        [predictions[i] for i in order],
        [references[i] for i in order],
        labels=None,
        **{need: [given[need][i] for i in order] for need in needs(name)},
    )
    return float(next(iter(value.values())) if isinstance(value, dict) else value)


@pytest.mark.parametrize("name", registry.metrics.names())
def test_every_metric_prefers_what_is_right_and_sees_no_order(name):
    optimum, kinds = 1.0 if greater_is_better(name) else 0.0, []
    for kind, (perfect, worse, references) in SCORED.items():
        if needs(name) and kind != "classes":
            continue
        try:
            best = deciding(name, perfect, references, POSITIVE[0])
        except ValueError:
            continue
        if best != pytest.approx(optimum, abs=1e-9):
            continue  # predictions of a kind that it is not made for
        kinds.append(kind)
        low = deciding(name, worse, references, POSITIVE[1])
        assert (low < best) if greater_is_better(name) else (low > best), kind
        order = np.random.default_rng(0).permutation(len(references)).tolist()
        assert deciding(name, worse, references, POSITIVE[1], order) == pytest.approx(low, abs=1e-12), kind
    assert kinds, f"the metric {name!r} is perfect for none of the kinds of predictions that heads make"


# --------------------------------------------------------------------------------------------------------- preparations


@pytest.mark.parametrize("name", registry.preparations.names())
def test_every_preparation_is_a_pure_function_of_rows(name):
    assert name in CASES, f"give an example of the preparation {name!r} in tests/unit/preparation_cases.py"
    arguments, given, expected = CASES[name][0]
    prepare = registry.preparations[name]
    assert registry.preparations.summary(name)
    assert registry.preparations.check_arguments(name, arguments, given=1) == []
    rows = Dataset.from_dict(given)
    before = rows.to_list()
    once, twice = prepare(rows, **arguments), prepare(rows, **arguments)
    assert once[:] == twice[:] == expected
    assert rows.to_list() == before, "what was given is left as it was"


def test_what_the_built_in_tasks_name_is_registered():
    for task in task_registry().tasks.values():
        for spec in task.prepare:
            name, arguments = registry.parse_spec(spec, "preparation")
            assert registry.preparations.check_arguments(name, arguments, given=1) == [], task.name
        for metric in task.metrics or []:
            assert metric in registry.metrics, task.name
        name, arguments = registry.parse_spec(task.head, "head")
        if not registry.not_built(name):
            assert registry.heads.check_arguments(name, arguments, given=1) == [], task.name


def test_a_head_is_planned_or_built_and_not_both():
    assert not set(registry.PLANNED_HEADS) & set(registry.heads.names()), "it is built now: it is planned no more"


@pytest.mark.parametrize("known", registry.ALL, ids=lambda known: known.kind)
def test_every_strategy_says_in_one_line_what_it_is(known):
    for name in known:
        line = known.summary(name)
        assert 10 < len(line) < 130, f"{known.kind} {name}: {line!r}"
        assert isinstance(known.paper(name), str)


# ----------------------------------------------------------------------------------------- an encoder with other inputs

IMAGES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}


class ImageClassification(Head):
    """One class per image; its rows stand under ``stacked`` as ``pixel_values``."""

    auto_class = "AutoModelForImageClassification"
    default_metrics = ("accuracy",)

    def forward(self, module, packed, target):
        return module.classifier(packed.firsts(target["sequences"]))

    def loss(self, logits, target):
        return torch.nn.functional.cross_entropy(logits.float(), target["labels"], reduction="sum")

    def predict(self, logits, target):
        return logits.argmax(-1).tolist()


class TwoEncoders(Sharing):
    """One encoder of texts and one of images; which of them a task uses is told by the task's name."""

    def __init__(self, encoder, tasks, images: dict, image_tasks: list):
        super().__init__(encoder, tasks)
        self.image_tasks = set(image_tasks)
        self.images = ViTModel(ViTConfig(**images), add_pooling_layer=False)
        self.way, self.log = choose_way(encoder)

    def encode(self, inputs, layout, tasks):
        texts = {name: values for name, values in inputs.items() if name != "pixel_values"}
        packed = {}
        if texts:
            text = Packed(encode(self.encoder, texts, layout, self.way), layout)
            packed.update(dict.fromkeys((task for task in tasks if task not in self.image_tasks), text))
        if "pixel_values" in inputs:
            pixels = {"pixel_values": inputs["pixel_values"]}
            hidden = encode(self.images, pixels, Layout([]), "stacked")
            rows = len(pixels["pixel_values"])
            image = Packed(hidden, Layout([len(hidden) // rows] * rows, hidden.device))
            packed.update(dict.fromkeys((task for task in tasks if task in self.image_tasks), image))
        return packed

    def shared_parameters(self):
        return (p for p in self.parameters() if p.requires_grad)

    def own_state(self):
        return {f"images.{name}": value for name, value in self.images.state_dict().items()}

    def collapse(self, task):
        return self.images if task in self.image_tasks else self.encoder


@pytest.fixture
def registered(monkeypatch):
    """The test's own strategies under test names, for this test only."""
    registry.heads.names(), registry.sharings.names()
    monkeypatch.setitem(registry.heads._entries, "test_image_classification", ImageClassification)
    monkeypatch.setitem(registry.sharings._entries, "test_two_encoders", TwoEncoders)


TEXT = Task(
    name="text", head="sequence_classification", dataset={"path": "none"}, inputs=["t"], target="l", labels=["x", "y"]
)
IMAGE = Task(
    name="image",
    head="test_image_classification",
    dataset={"path": "none"},
    inputs=["i"],
    target="l",
    labels=["cat", "dog", "sun"],
)


def random_weights(module):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return module.eval()


def text_row(length, label):
    ids = np.random.default_rng(length).integers(5, 60, length)
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros(length, int),
        "lengths": np.array([length]),
        "labels:text": label,
    }


def image_row(seed, label):
    return {
        "stacked": {"pixel_values": np.random.default_rng(seed).normal(size=(3, 8, 8)).astype(np.float32)},
        "labels:image": label,
    }


def vanilla_images(encoder, module, rows):
    """Logits of ViTForImageClassification with the same weights."""
    config = ViTConfig(**IMAGES, num_labels=3, attn_implementation="eager")
    twin = AutoModelForImageClassification.from_config(config).eval()
    own = {**{f"vit.{name}": value for name, value in encoder.state_dict().items()}, **module.state_dict()}
    twin.load_state_dict(own)
    return twin(pixel_values=torch.from_numpy(np.stack([row["stacked"]["pixel_values"] for row in rows]))).logits


def test_an_image_classifier_beside_a_text_task(registered):
    heads = make_heads([TEXT, IMAGE])
    spec = {"name": "test_two_encoders", "images": IMAGES, "image_tasks": ["image"]}
    sharing = registry.sharings.build(spec, tiny_encoder("bert"), ["text", "image"])
    modules = {"text": heads["text"].build(sharing.encoder), "image": heads["image"].build(sharing.images)}
    model = random_weights(MultiTaskModel(sharing, heads, modules, tiny_tokenizer(), base={"id": "two"}, max_length=64))
    texts, images = [text_row(5, 1), text_row(2, 0), text_row(9, 1)], [image_row(0, 2), image_row(1, 0)]
    rows = [texts[0], images[0], texts[1], images[1], texts[2]]
    readers = [["text"], ["image"], ["text"], ["image"], ["text"]]
    batch = collate(rows, readers, heads)
    assert batch["stacked"]["pixel_values"].shape == (2, 3, 8, 8)
    out = model(**batch)
    with torch.no_grad():
        expected = vanilla_images(sharing.images, model.module_of("image"), images)
        assert torch.allclose(out["logits"]["image"], expected, atol=1e-6)
        assert float(expected.std()) > 1e-2
        alone = model(**collate(texts, [["text"]] * 3, heads))["logits"]["text"]
        assert torch.allclose(out["logits"]["text"], alone, atol=1e-6)
        only_images = model(**collate(images, [["image"]] * 2, heads))["logits"]
        assert torch.allclose(only_images["image"], expected, atol=1e-6)
    assert batch["owners"]["image"].tolist() == [1, 3]
    assert batch["owners"]["text"].tolist() == [0, 2, 4]
    labels = torch.tensor([2, 0])
    assert float(out["losses"]["image"]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(expected, labels)), abs=1e-5
    )
    out["loss"].backward()
    for encoder in (sharing.encoder, sharing.images):
        reached = [p.grad is not None and bool(p.grad.any()) for p in encoder.parameters()]
        assert sum(reached) > 0.8 * len(reached)


def test_an_image_encoder_alone_runs_through_hard_sharing(registered, process_group):
    encoder = ViTModel(ViTConfig(**IMAGES), add_pooling_layer=False)
    heads = make_heads([IMAGE])
    model = random_weights(MultiTaskModel.assemble(encoder, tiny_tokenizer(), heads, base={"id": "vit"}))
    assert "stacked" in model.sharing.log
    images = [image_row(seed, seed % 3) for seed in range(4)]
    out = model(**collate(images, [["image"]] * 4, heads))
    with torch.no_grad():
        expected = vanilla_images(encoder, model.module_of("image"), images)
    assert torch.allclose(out["logits"]["image"], expected, atol=1e-6)
    out["loss"].backward()
    assert float(encoder.embeddings.cls_token.grad.abs().max()) > 0
    model.zero_grad()
    model(**collate([], [], heads), units={"image": 4.0})["loss"].backward()  # a process without rows in this step
    parts = [p for p in [*encoder.parameters(), *model.module_of("image").parameters()] if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in parts), "they take part in the reduction, with nothing"


def test_the_two_encoders_weights_are_saved_and_loaded(registered, tmp_path):
    """The text encoder as AutoModel saves it, the image encoder in sharing.safetensors."""
    from nlp_mtl import weights

    heads = make_heads([TEXT])
    spec = {"name": "test_two_encoders", "images": IMAGES, "image_tasks": []}
    made = [
        random_weights(registry.sharings.build(spec, tiny_encoder("bert"), ["text"])),
        registry.sharings.build(spec, tiny_encoder("bert"), ["text"]),
    ]
    modules = [{"text": heads["text"].build(sharing.encoder)} for sharing in made]
    weights.save_weights(tmp_path, made[0], modules[0])
    weights.load_weights(tmp_path, made[1], modules[1])
    for name, value in made[0].state_dict().items():
        assert torch.equal(made[1].state_dict()[name], value), name
