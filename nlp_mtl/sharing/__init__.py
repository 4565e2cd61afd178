"""Sharings: which parameters tasks share, from a mixed batch to packed hidden states for each task."""

from nlp_mtl.sharing.base import Sharing
from nlp_mtl.sharing.branch import Branch
from nlp_mtl.sharing.cross_stitch import CrossStitch
from nlp_mtl.sharing.cross_task_attention import CrossTaskAttention
from nlp_mtl.sharing.hard import Hard
from nlp_mtl.sharing.mixture_of_experts import MixtureOfExperts
from nlp_mtl.sharing.soft import Soft, SoftEncoders

__all__ = [
    "Branch",
    "CrossStitch",
    "CrossTaskAttention",
    "Hard",
    "MixtureOfExperts",
    "Sharing",
    "Soft",
    "SoftEncoders",
]
