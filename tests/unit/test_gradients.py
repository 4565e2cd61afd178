"""The tasks' gradients out of one backward pass equal one `autograd.grad` per task."""

import itertools

import pytest
import torch

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.gradients import PerTaskGradients
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
