"""Samplers: how many rows of each task a mixed batch holds.

A sampler gives mixing rates over tasks for a place in training; :class:`nlp_mtl.plan.MixingPlan` turns them into rows.
The plan is a pure function of (seed, epoch, step) and of the sampler's own state: every process computes the same one,
and a resumed run continues it.
"""

from nlp_mtl.samplers.base import EpochLength, Progress, Sampler
from nlp_mtl.samplers.learned import Bandit, ByReference, LearnedSampler, LearningProgress
from nlp_mtl.samplers.masked import Grouped, Stopping
from nlp_mtl.samplers.static import (
    Annealed,
    Fixed,
    Proportional,
    RoundRobin,
    SizeCapped,
    Temperature,
    Uniform,
)

__all__ = [
    "Annealed",
    "Bandit",
    "ByReference",
    "EpochLength",
    "Fixed",
    "Grouped",
    "LearnedSampler",
    "LearningProgress",
    "Progress",
    "Proportional",
    "RoundRobin",
    "Sampler",
    "SizeCapped",
    "Stopping",
    "Temperature",
    "Uniform",
]
