"""What is said of the tasks' gradients: norms and cosines of their products."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl.weighing.base import Look, unweighed


def test_a_look_is_the_cosines_of_the_rows():
    rows = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    look = Look.at(rows @ rows.T, torch.tensor([True, True, True, False]))
    assert look.norms[:3].tolist() == [1.0, 2.0, 0.0]
    assert look.cosines[0, 1] == -1.0
    assert torch.isnan(look.cosines[2]).all(), "a gradient of zeros has no direction"
    assert torch.isnan(look.cosines[3]).all() and torch.isnan(look.norms[3]), "it was absent"


@pytest.mark.parametrize("weights", [(0.5, 2.0), (0.5, -2.0), (-1.0, -3.0)])
def test_weights_of_any_sign_leave_the_cosine_as_it_is(weights):

    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    factor = torch.tensor(weights, dtype=torch.float64)
    weighted = factor[:, None] * rows
    torch.testing.assert_close(unweighed(weighted @ weighted.T, factor), rows @ rows.T)


def test_a_weight_of_0_says_nothing_of_the_gradient():

    assert unweighed(torch.zeros(2, 2), torch.tensor([0.0, 1.0])).tolist() == [[0.0, 0.0], [0.0, 0.0]]
