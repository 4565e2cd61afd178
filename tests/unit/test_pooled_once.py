"""Heads that share a pooler get their pooled states from one product over the whole batch: the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch

from nlp_mtl.heads import pooled
from nlp_mtl.testing import tiny_model

TASKS = ["cola", "rte", "stsb", "copa", "conll2003"]


def batch_of(model):
    """Twelve sequences: some rows of each task, and one sequence that no pooled head reads."""
    lengths = torch.tensor([1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9])
    draw = torch.Generator().manual_seed(0)
    targets = {
        "cola": {"sequences": torch.tensor([0, 3, 7]), "labels": torch.tensor([0, 1, 1])},
        "rte": {"sequences": torch.tensor([1]), "labels": torch.tensor([1])},
        "stsb": {"sequences": torch.tensor([2, 6]), "labels": torch.tensor([0.5, 2.0])},
        "copa": {
            "sequences": torch.tensor([4, 9, 5, 10]),
            "counts": torch.tensor([2, 2]),
            "labels": torch.tensor([1, 0]),
        },
        "conll2003": {"positions": torch.tensor([47, 48, 50]), "counts": torch.tensor([3]), "labels": torch.arange(3)},
    }
    return {
        "input_ids": torch.randint(5, 40, (int(lengths.sum()),), generator=draw),
        "lengths": lengths,
        "targets": {task: target for task, target in targets.items() if task in model.tasks},
    }


def found(model, batch, *, once):
    """Logits and gradients of one batch."""
    model = copy.deepcopy(model)
    whole = pooled._pool_once
    if not once:
        pooled._pool_once = lambda *given: None
    try:
        outputs = model(**batch)
    finally:
        pooled._pool_once = whole
    outputs["loss"].backward()
    return outputs["logits"], {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["bert", "albert", "roberta", "gpt2"])
def test_logits_and_gradients_are_the_same(family):
    ours = tiny_model(TASKS[:3] if family != "bert" else TASKS, family=family).eval()
    batch = batch_of(ours)
    (one, first), (other, second) = (found(ours, batch, once=once) for once in (True, False))
    for task in one:
        torch.testing.assert_close(one[task], other[task], rtol=1e-5, atol=1e-6)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)


def test_the_shared_pooler_is_called_as_often_for_four_tasks_as_for_one():
    calls = []
    for tasks in (TASKS[:1], TASKS[:4]):
        model = tiny_model(tasks)
        counted = []
        model.sharing.encoder.pooler.register_forward_hook(lambda *given, counted=counted: counted.append(1))
        model(**batch_of(model))
        calls.append(len(counted))
    assert calls[0] == calls[1]


def test_a_pooler_of_its_own_is_each_heads():
    model = tiny_model(["cola", "rte"], heads={"*": {"pooler": "own"}})
    batch = batch_of(model)
    model(**batch)["loss"].backward()
    for task in ("cola", "rte"):
        module = model.module_of(task)
        own = getattr(module, module.base_model_prefix).pooler
        assert all(parameter.grad.abs().sum() > 0 for parameter in own.parameters())


def test_a_head_that_fails_leaves_no_pooled_states_behind():
    model = tiny_model(["cola", "copa"])
    batch = batch_of(model)

    def fail(*given):
        raise MemoryError("no room")

    for task in model.tasks:
        module = model.module_of(task)
        hook = module.register_forward_pre_hook(fail)
        with pytest.raises(MemoryError, match="no room"):
            model(**{**batch, "targets": {task: batch["targets"][task]}})
        hook.remove()
        assert getattr(module, module.base_model_prefix).ready is None
