"""Balancers: how per-task losses, or per-task gradients, become one update.

A balancer declares what it needs and gets that, the mask of the tasks present, and the facts of the step. The methods
are TorchJD's; here they get names, checked arguments, tasks that may be absent, and a state that is saved.
"""

from nlp_mtl.balancers import averages, elementwise, given, gradnorm, learned, minimum, projections, scalarized
from nlp_mtl.balancers.base import Balancer, Need, Scope, StepFacts

__all__ = [
    "Balancer",
    "Need",
    "Scope",
    "StepFacts",
    "averages",
    "elementwise",
    "given",
    "gradnorm",
    "learned",
    "minimum",
    "projections",
    "scalarized",
]
