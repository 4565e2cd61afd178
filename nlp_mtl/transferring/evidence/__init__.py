"""Cheap evidence on which tasks may gain from one another; each kind makes a task × task matrix."""

from nlp_mtl.transferring.evidence.base import Evidence
from nlp_mtl.transferring.evidence.embedding import Embedding
from nlp_mtl.transferring.evidence.gradient_affinity import GradientAffinity
from nlp_mtl.transferring.evidence.gradient_cosine import GradientCosine
from nlp_mtl.transferring.evidence.lora import Lora

__all__ = ["Embedding", "Evidence", "GradientAffinity", "GradientCosine", "Lora"]
