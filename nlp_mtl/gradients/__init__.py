"""The gradient of each task by itself, out of one backward pass over a mixed batch."""

from nlp_mtl.gradients.per_task import PerTaskGradients
from nlp_mtl.gradients.slots import Slots
from nlp_mtl.gradients.taps import Taps

__all__ = ["PerTaskGradients", "Slots", "Taps"]
