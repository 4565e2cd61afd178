"""Balancers: how per-task losses, or per-task gradients, become one update.

A balancer declares what it needs and gets that, the mask of the tasks present, and the facts of the step. The methods
are TorchJD's, most of them; here they get names, checked arguments, tasks that may be absent, and a state that is
saved.
"""

from nlp_mtl.balancers import (
    a_gem,
    averages,
    elementwise,
    given,
    gradnorm,
    learned,
    meta,
    minimum,
    projections,
    scalarized,
)
from nlp_mtl.balancers.base import Balancer, Need, Scope, StepFacts

__all__ = [
    "Balancer",
    "Need",
    "Scope",
    "StepFacts",
    "a_gem",
    "averages",
    "elementwise",
    "given",
    "gradnorm",
    "learned",
    "meta",
    "minimum",
    "projections",
    "scalarized",
]

# What TorchJD has besides, and why it is no balancer here.
LEFT_OUT: dict[str, str] = {
    "modo": "wants gradients of two batches drawn apart from each other at every step (Chen et al., 2023, "
    "arXiv:2305.20057), twice the work; mgda is the method it makes unbiased",
    "sdmgrad": "wants gradients of three batches drawn apart from each other at every step (Xiao et al., 2023, "
    "arXiv:2305.18409), three times the work; cagrad is near",
}
