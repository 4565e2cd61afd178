"""A kept embedding gradient gives the weights that autograd's own way gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nlp_mtl.memory import KeptGradient

WORDS = 60


def train(keep: bool, *, steps=5, micro_batches=1, padding=None, clip=None, after=0) -> list[torch.Tensor]:
    """Weights after some AdamW steps; after `after` of them a kept gradient is released."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(WORDS, 8, padding_idx=padding), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    kept = KeptGradient(model[0]) if keep else None
    words = torch.Generator().manual_seed(1)
    for step in range(steps):
        for _ in range(micro_batches):
            model(torch.randint(0, WORDS // 2, (4, 20), generator=words)).pow(2).sum().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if kept is None:
            optimizer.zero_grad(set_to_none=False)
            continue
        model[1].zero_grad()
        place = model[0].weight.grad
        kept.clear()
        assert model[0].weight.grad is None and not place.any(), "nothing of this step is left"
        if step + 1 == after:
            kept.release()
            kept = None
            model[0].weight.grad = torch.zeros_like(model[0].weight)
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("settings", [{}, {"padding": 0}, {"clip": 0.1}, {"after": 3}], ids=str)
def test_the_weights_are_the_same_bits(settings):
    plain = train(False, **{k: v for k, v in settings.items() if k != "after"})
    kept = train(True, **settings)
    assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))


@pytest.mark.parametrize("micro_batches", [2, 3])
def test_over_micro_batches_they_are_the_same_up_to_the_order_of_sums(micro_batches):
    plain, kept = (train(keep, micro_batches=micro_batches) for keep in (False, True))
    for one, other in zip(plain, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_gradient_stays_in_one_place_and_is_dense():
    embedding = nn.Embedding(WORDS, 8)
    kept, places = KeptGradient(embedding), set()
    for _ in range(3):
        embedding(torch.tensor([1, 2, 2])).sum().backward()
        places.add(embedding.weight.grad.data_ptr())
        assert not embedding.weight.grad.is_sparse
        assert embedding.weight.grad.sum(1).tolist() == [8.0 * count for count in [0, 1, 2] + [0] * (WORDS - 3)]
        kept.clear()
    assert len(places) == 1


def test_only_rows_that_a_gradient_came_to_count():
    embedding = nn.Embedding(WORDS, 8)
    kept = KeptGradient(embedding)
    with torch.no_grad():
        embedding(torch.arange(WORDS))
    embedding(torch.tensor([7]))
    embedding(torch.tensor([4, 2, 2])).sum().backward()
    assert kept.is_whole() and kept.rows_now().tolist() == [2, 4]


@pytest.mark.parametrize("when", ["before the pass", "between passes", "between forward and backward"])
def test_a_gradient_that_somebody_took_away_begins_anew(when):
    embedding = nn.Embedding(WORDS, 8)
    kept = KeptGradient(embedding)
    embedding(torch.tensor([1])).sum().backward()
    kept.clear()
    if when == "between passes":
        embedding(torch.tensor([5])).sum().backward()
    out = embedding(torch.tensor([3])).sum()
    embedding.weight.grad = None
    (out if when == "between forward and backward" else embedding(torch.tensor([3])).sum()).backward()
    assert kept.is_whole() and kept.rows_now().tolist() == [3]
    assert embedding.weight.grad.sum(1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("write", ["penalty", "in place", "in place between passes", "replaced"])
def test_who_else_writes_to_the_gradient_is_noticed(write):
    embedding = nn.Embedding(WORDS, 8)
    kept = KeptGradient(embedding)
    for _ in range(2):
        embedding(torch.tensor([1])).sum().backward()
        assert kept.is_whole()
        if write == "penalty":
            (embedding(torch.tensor([2])).sum() + embedding.weight.pow(2).sum()).backward()
        elif write == "replaced":
            embedding.weight.grad = embedding.weight.grad + 1
        else:
            embedding.weight.grad.add_(1)
        if write == "in place between passes":
            embedding(torch.tensor([2])).sum().backward()
        assert embedding.weight.grad.any(1).all() and not kept.is_whole()
        place = embedding.weight.grad
        kept.clear()
        assert embedding.weight.grad is None and (write == "replaced" or not place.any())


def test_release_restores_autograds_own_way():
    embedding = nn.Embedding(WORDS, 8)
    KeptGradient(embedding).release()
    assert not embedding.sparse
    assert embedding.weight.grad is None
    assert not embedding.weight._backward_hooks
    embedding(torch.tensor([1])).sum().backward()
    assert not embedding.weight.grad.is_sparse
