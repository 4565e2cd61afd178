"""The tasks' gradients out of one backward pass equal one `autograd.grad` per task."""

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.gradients import PerTaskGradients, Slots, Taps
from nlp_mtl.kernels import rows
from nlp_mtl.layout import Layout
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import write_tasks

FAMILIES = ["bert", "roberta", "electra", "distilbert", "modernbert", "albert", "gpt2", "llama", "qwen2", "gpt_neox"]
LORA = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"), rows=40)


def a_batch(model, rows=6, begin=0):
    data = load_data(model.heads, model.tokenizer, max_length=64)
    pools = data.splits["train"]
    refs = [(number, row, 0) for number in range(len(pools)) for row in range(begin, begin + rows)]
    return Collator(pools, model.heads, training=True)(refs)


def a_model(tasks, family="bert", dtype=torch.float32, **settings):
    model = tiny_model(tasks, family, **settings).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.to(dtype)


def by_autograd(model, batch, parameters):
    """[tasks, numbers]: one backward pass for each."""
    model.taps = None
    rows = []
    losses = {}
    for task in model.tasks:
        torch.manual_seed(0)  # heads of decoders have dropout of their own
        out = model(**batch, weights={t: float(t == task) for t in model.tasks})
        losses[task] = out["losses"][task]
        found = torch.autograd.grad(out["loss"], parameters, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
        )
    return torch.stack(rows), losses


def by_taps(model, batches, parameters):
    found = PerTaskGradients(model.sharing.encoder, parameters, model.tasks)
    for batch in batches:
        torch.manual_seed(0)
        with found.during() as taps:
            model.taps = taps
            try:
                found.backward(model(**batch)["terms"])
            finally:
                model.taps = None
    return found


def close(ours, theirs, tolerance):
    scale = theirs.abs().amax(1, keepdim=True).clamp_min(1e-12)
    assert float(((ours - theirs).abs() / scale).max()) < tolerance


@pytest.mark.parametrize(("family", "lora"), [*itertools.product(FAMILIES, [False, True])])
def test_every_tasks_gradient_is_autograds(tasks, family, lora):
    model = a_model(tasks, family, **({"lora": LORA} if lora else {}))
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    theirs, _ = by_autograd(model, batch, parameters)
    found = by_taps(model, [batch], parameters)
    close(found.slots.jacobian(), theirs, 2e-4)
    gramian = theirs.double() @ theirs.double().T
    scale = gramian.diagonal().sqrt()
    assert torch.allclose(found.gramian() / scale / scale[:, None], gramian / scale / scale[:, None], atol=1e-4)


def test_gradients_of_several_batches_add_up(tasks):
    model = a_model(tasks, lora=LORA)
    parameters = list(model.sharing.shared_parameters())
    batches = [a_batch(model, rows=3), a_batch(model, rows=3, begin=3)]
    found = by_taps(model, batches, parameters)
    theirs = sum(by_autograd(model, batch, parameters)[0] for batch in batches)
    close(found.slots.jacobian(), theirs, 2e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {**LORA, "r": 24}},
        {"lora": {**LORA, "use_dora": True}},
        {"lora": LORA, "task_lora": {"r": 2, "target_modules": "all-linear"}},
        {"freeze": ["embeddings.*", "encoder.layer.0.*"]},
        {"freeze": ["*.dense.*"]},
        {"tuning": "bitfit"},
        {"tuning": "layer_norm"},
        {"tuning": {"name": "last_layers", "count": 1}},
    ],
    ids=["high rank", "dora", "beside task adapters", "upper layers", "no dense layers", "biases", "norms", "top"],
)
def test_whatever_is_trained_is_told_apart(tasks, changes):
    model = a_model(tasks, **changes)
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    close(by_taps(model, [batch], parameters).slots.jacobian(), by_autograd(model, batch, parameters)[0], 2e-4)


def test_weights_that_a_head_is_tied_to_are_found_out(tmp_path, tasks):
    """Masked LM reads the word embeddings once more at the end: what no layer sees takes a backward pass per task."""
    spec = {"name": "hidden", "head": "masked_lm", "inputs": ["text"]}
    spec["dataset"] = {"path": "json", "data_files": {"train": str(tmp_path / "rows.jsonl")}}
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat is in the old house"}\n{"text": "it was a red dog"}\n' * 4)
    (tmp_path / "hidden.yaml").write_text(json.dumps(spec))
    model = a_model([tasks[0], str(tmp_path / "hidden.yaml")])
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    found = by_taps(model, [batch, batch], parameters)
    assert len(found._rest) >= 1
    close(found.slots.jacobian(), 2 * by_autograd(model, batch, parameters)[0], 2e-4)


def test_families_that_do_not_pack_take_a_backward_pass_per_task(tasks):
    model = a_model(tasks, "deberta-v2")
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    found = by_taps(model, [batch, batch], parameters)
    assert found.taps.colours == [model.tasks]
    close(found.slots.jacobian(), 2 * by_autograd(model, batch, parameters)[0], 2e-4)


def test_in_float64_it_is_the_same_to_rounding(tasks):
    model = a_model(tasks, dtype=torch.float64)
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    close(by_taps(model, [batch], parameters).slots.jacobian(), by_autograd(model, batch, parameters)[0], 1e-6)


def test_under_bfloat16_it_is_the_same_to_its_digits(tasks):
    model = a_model(tasks, lora=LORA)
    parameters = list(model.sharing.shared_parameters())
    batch = a_batch(model)
    exact = by_autograd(model, batch, parameters)[0]
    with torch.autocast("cpu", torch.bfloat16):
        plain, found = by_autograd(model, batch, parameters)[0], by_taps(model, [batch], parameters)
    ours = found.slots.jacobian()
    for task in range(len(model.tasks)):
        assert float((ours[task] - exact[task]).norm()) < 1.5 * float((plain[task] - exact[task]).norm()) + 1e-6


@pytest.mark.parametrize("narrow", [False, True])
def test_memory_is_the_tasks_times_the_parameters(tasks, narrow):
    model = a_model(tasks, freeze=["embeddings.*"])
    parameters = list(model.sharing.shared_parameters())
    found = PerTaskGradients(model.sharing.encoder, parameters, model.tasks)
    found.begin(once_in_bfloat16=narrow)
    held = sum(block.numel() * block.element_size() for block in found.slots.blocks())
    assert held <= len(model.tasks) * sum(p.numel() * 4 for p in parameters)
    assert sum(block.shape[1] for block in found.slots.blocks()) == sum(p.numel() for p in parameters)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_tasks_that_share_a_sequence_never_share_a_backward_pass(lengths, data):
    layout = Layout(lengths)
    names = ["a", "b", "c", "d"]
    read = {}
    for name in names:
        mine = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
        if mine:
            read[name] = layout.tokens_of(torch.tensor(sorted(mine)))
    taps = Taps(Slots([torch.nn.Parameter(torch.zeros(1))], len(names)), names)
    taps.see(layout, read)
    assert sorted(task for colour in taps.colours for task in colour) == sorted(read)
    for number, colour in enumerate(taps.colours):
        taps.colour = number
        owner = taps.owners_now(layout.tokens)
        for task in colour:
            assert torch.equal((owner == names.index(task)).nonzero().flatten(), read[task].sort().values)
        assert {names[i] for i in owner.unique().tolist() if i >= 0} == set(colour)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 20000), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 9))
def test_products_and_sums_of_long_rows(tasks, numbers, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, numbers + 3, generator=draw).to(dtype)[:, :numbers]
    weights = torch.randn(tasks, generator=draw)
    exact = x.double() @ x.double().T
    assert float((rows.gramian(x) - exact).abs().max()) < 1e-5 * float(exact.abs().max())
    torch.testing.assert_close(
        rows.weighted_sum(weights, x).double(), weights.double() @ x.double(), atol=1e-4, rtol=1e-4
    )
